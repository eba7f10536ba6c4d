//! Reports: text for people, or one JSON object for programs. Failures likewise.

use crate::names::escaped_text;
use serde_json::{Map, Value, json};
use std::fmt;
use std::io::{self, ErrorKind, Write};
use umbra::client::rpc::ErrorCode;
use umbra::client::{self};
use umbra::launch::LaunchError;
use umbra::state::StateError;

/// The format of the JSON reports. It changes when a field goes or changes its meaning, not
/// when one is added.
pub const JSON_VERSION: u32 = 1;

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

/// What kind of failure it is: the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// None of the others.
    Other = 1,
    /// Wrong usage.
    Usage = 2,
    /// Something that was named does not exist.
    NotFound = 3,
    /// Something is there already.
    Exists = 4,
    /// The volume, or a filesystem of the host, is full.
    NoSpace = 5,
    /// It is in use.
    Busy = 6,
    /// No server runs, or it is not ready, or it went.
    NotRunning = 7,
}

impl Class {
    /// Its name in JSON.
    fn name(self) -> &'static str {
        match self {
            Class::Other => "other",
            Class::Usage => "usage",
            Class::NotFound => "not-found",
            Class::Exists => "exists",
            Class::NoSpace => "no-space",
            Class::Busy => "busy",
            Class::NotRunning => "not-running",
        }
    }
}

/// Why a command failed: a code for programs, and one line that says what and why.
#[derive(Clone, Debug)]
pub struct Failure {
    class: Class,
    code: String,
    text: String,
    fields: Map<String, Value>,
    /// The connection to the server is of no further use.
    fatal: bool,
}

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Failure {
        Failure::of(Class::Other, "failed", text)
    }

    /// The command was not used as it can be.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::of(Class::Usage, "usage", text)
    }

    /// A failure of a class, with its code.
    pub fn of(class: Class, code: impl Into<String>, text: impl Into<String>) -> Failure {
        Failure { class, code: code.into(), text: text.into(), fields: Map::new(), fatal: false }
    }

    /// Puts what was being done before the reason.
    pub fn while_doing(doing: impl fmt::Display) -> impl FnOnce(io::Error) -> Failure {
        move |error| {
            let (class, code) = class_of_io(&error);
            Failure::of(class, code, format!("cannot {doing}: {error}"))
        }
    }

    /// Several failures of one command, told before.
    pub fn several(failures: &[Failure], text: impl Into<String>) -> Failure {
        let first = failures.first();
        let class =
            first.map(|it| it.class).filter(|&it| failures.iter().all(|other| other.class == it));
        let code =
            first.map(|it| &it.code).filter(|&it| failures.iter().all(|other| other.code == *it));
        let code = code.map_or("several", String::as_str);
        Failure::of(class.unwrap_or(Class::Other), code, text)
    }

    /// With a further field in JSON.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Failure {
        self.fields.insert(key.into(), value.into());
        self
    }

    /// With another text.
    pub fn saying(self, text: impl Into<String>) -> Failure {
        Failure { text: text.into(), ..self }
    }

    /// Whether the connection to the server is of no further use.
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// The exit status of the program.
    pub fn exit_status(&self) -> u8 {
        self.class as u8
    }

    /// The fields of `error` in JSON.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::from_iter([
            ("code".into(), self.code.as_str().into()),
            ("class".into(), self.class.name().into()),
            ("exit_status".into(), self.exit_status().into()),
            ("message".into(), self.to_string().into()),
        ]);
        fields.extend(self.fields.clone());
        fields.into()
    }
}

impl fmt::Display for Failure {
    /// One line, whatever the parts contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.text))
    }
}

/// A text as one line that does nothing to a terminal.
pub fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(escaped_text);
    let line = lines.collect::<Vec<_>>().join("; ");
    if line.is_empty() { "failed".into() } else { line }
}

fn class_of_io(error: &io::Error) -> (Class, &'static str) {
    match error.kind() {
        ErrorKind::NotFound => (Class::NotFound, "not-found"),
        ErrorKind::AlreadyExists | ErrorKind::AddrInUse => (Class::Exists, "exists"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Class::NoSpace, "no-space"),
        ErrorKind::ResourceBusy => (Class::Busy, "busy"),
        ErrorKind::PermissionDenied => (Class::Other, "permission-denied"),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => (Class::Other, "timeout"),
        _ => (Class::Other, "io"),
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        use client::Error;
        let (class, code) = match &error {
            Error::NotRunning { .. } => (Class::NotRunning, "not-running"),
            Error::NotReady { .. } => (Class::NotRunning, "not-ready"),
            Error::Disconnected => (Class::NotRunning, "disconnected"),
            Error::Refused { .. } => (Class::Other, "refused"),
            Error::Full { .. } => (Class::Busy, "too-many-connections"),
            Error::Timeout { .. } => (Class::Other, "timeout"),
            Error::TooLong => (Class::Other, "too-long"),
            Error::Protocol(_) => (Class::Other, "protocol"),
            Error::Connect { error, .. } | Error::Io(error) | Error::Local(_, error) => {
                class_of_io(error)
            }
            Error::Server(body) => {
                let class = match body.code {
                    ErrorCode::NOT_FOUND => Class::NotFound,
                    ErrorCode::EXISTS => Class::Exists,
                    ErrorCode::NO_SPACE => Class::NoSpace,
                    ErrorCode::BUSY | ErrorCode::TOO_MANY_CONNECTIONS => Class::Busy,
                    _ => Class::Other,
                };
                let failure =
                    Failure::of(class, body.code.to_string().replace(' ', "-"), error.to_string());
                return match body.done {
                    Some(done) => failure.with("done", done),
                    None => failure,
                };
            }
        };
        let fatal = !matches!(error, Error::TooLong | Error::Local(..));
        Failure { fatal, ..Failure::of(class, code, error.to_string()) }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Failure {
        let (class, code) = match &error {
            StateError::NoHome => (Class::Other, "no-state"),
            StateError::Locked(_) => (Class::Busy, "already-running"),
            StateError::Io(_, error) => class_of_io(error),
        };
        Failure::of(class, code, error.to_string())
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Failure {
        let (class, code) = match error {
            LaunchError::State(error) => return error.into(),
            LaunchError::Unusable(_) => (Class::Other, "unusable"),
            LaunchError::Stopped(_) | LaunchError::NotUnderKvm(_) => (Class::Other, "stopped"),
            LaunchError::Io(_, ref error) => class_of_io(error),
        };
        Failure::of(class, code, error.to_string())
    }
}

/// How to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// Reports: `fields` as a JSON object with `version`, or the text.
    pub fn report<T: AsRef<[u8]>>(self, fields: Value, text: impl FnOnce() -> T) -> Outcome {
        match self {
            Format::Text => print(text().as_ref()),
            Format::Json => print(format!("{}\n", versioned(fields)).as_bytes()),
        }
    }

    /// Says on stderr why the command failed: a line, or a JSON object in a line.
    pub fn fail(self, failure: &Failure) {
        match self {
            Format::Text => say(&failure.text),
            Format::Json => {
                let line = versioned(json!({ "error": failure.to_json() }));
                // The terminal may be gone.
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }
}

fn versioned(fields: Value) -> Value {
    let mut object = Map::new();
    object.insert("version".into(), JSON_VERSION.into());
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    object.into()
}

/// Says something to people, on stderr.
pub fn say(text: &str) {
    // The terminal may be gone: that is no reason to end, and least of all for a server.
    let _ = writeln!(io::stderr(), "umbra: {}", one_line(text));
}

/// Writes to stdout. A reader that has gone away (`umbra ls | head -1`) wanted no more.
pub fn print(bytes: &[u8]) -> Outcome {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::while_doing("write to stdout")(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::new("a\n  b\n\n").to_string(), "a; b");
        assert_eq!(Failure::new("").to_string(), "failed");
        assert_eq!(Failure::new("\u{1b}[2J\r").to_string(), "\\u{1b}[2J");
    }

    #[test]
    fn several_failures_have_what_all_of_them_have() {
        let one = |class, code: &str| Failure::of(class, code, "x");
        let same = [one(Class::NotFound, "not-found"), one(Class::NotFound, "not-found")];
        assert_eq!(Failure::several(&same, "2").to_json()["code"], "not-found");
        let other = [one(Class::NotFound, "not-found"), one(Class::Busy, "busy")];
        let failure = Failure::several(&other, "2");
        assert_eq!(
            (failure.to_json()["code"].as_str(), failure.exit_status()),
            (Some("several"), 1)
        );
    }
}
