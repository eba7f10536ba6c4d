//! Reports: text for people, or one JSON object for programs.

use serde_json::{Map, Value};
use std::fmt;
use std::io::{self, ErrorKind, Write};

/// The format of the JSON reports. It changes when a field goes or changes its meaning, not
/// when one is added.
pub const JSON_VERSION: u32 = 1;

/// Why a command failed: one line that says what and why.
#[derive(Debug)]
pub struct Failure(String);

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }

    /// Puts what was being done before the reason.
    pub fn while_doing(doing: impl fmt::Display) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure(format!("cannot {doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    /// One line, whatever the parts contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.lines().map(str::trim).filter(|line| !line.is_empty());
        f.write_str(lines.next().unwrap_or("failed"))?;
        lines.try_for_each(|line| write!(f, "; {line}"))
    }
}

macro_rules! from_error {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure(error.to_string())
            }
        })*
    };
}
from_error!(umbra::client::Error, umbra::launch::LaunchError, umbra::state::StateError);

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
    pub fn report(self, fields: Value, text: impl FnOnce() -> String) -> Outcome {
        match self {
            Format::Text => print(text().as_bytes()),
            Format::Json => {
                let mut object = Map::new();
                object.insert("version".into(), JSON_VERSION.into());
                if let Value::Object(fields) = fields {
                    object.extend(fields);
                }
                print(format!("{}\n", Value::Object(object)).as_bytes())
            }
        }
    }
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
    }
}
