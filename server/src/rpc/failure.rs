//! A request that failed, and the text that says so.

use alloc::string::String;
use core::fmt::{self, Write};
use umbra_proto::rpc::{BodyError, ErrorCode, ErrorRef, HeaderError};

/// Why a request failed.
#[derive(Debug)]
pub struct Failure {
    code: ErrorCode,
    message: String,
    /// Bytes that were moved before.
    pub done: Option<u64>,
}

/// Longest text of an error in bytes.
const MAX_MESSAGE: usize = 1024;

impl Failure {
    /// A failure of this kind.
    pub fn new(code: ErrorCode, message: fmt::Arguments<'_>) -> Self {
        let mut text = Cut(String::new());
        // An error means that it was cut.
        let _ = text.write_fmt(message);
        Failure { code, message: text.0, done: None }
    }

    /// There is no memory to do `what`.
    pub fn no_memory(what: &str) -> Self {
        Failure::new(
            ErrorCode::NO_MEMORY,
            format_args!(
                "cannot {what}: the server has no memory left for it, as long as its clients use so much"
            ),
        )
    }

    /// A failure of the filesystem while doing `what` ("open '/a'").
    pub fn during(error: umbra_fs::Error, what: fmt::Arguments<'_>) -> Self {
        Failure::new(code_of(error), format_args!("cannot {what}: {error}"))
    }

    /// The same, saying how many bytes were moved before.
    pub fn after(self, done: u64) -> Self {
        Failure { done: Some(done), ..self }
    }

    /// The body that tells the client.
    pub fn body(&self) -> ErrorRef<'_> {
        ErrorRef { code: self.code, message: &self.message, done: self.done }
    }
}

impl From<HeaderError> for Failure {
    fn from(e: HeaderError) -> Self {
        Failure::new(e.code(), format_args!("{e}"))
    }
}

impl From<BodyError> for Failure {
    fn from(e: BodyError) -> Self {
        Failure::new(ErrorCode::MALFORMED, format_args!("{e}"))
    }
}

/// The number that stands for an error of the filesystem.
fn code_of(error: umbra_fs::Error) -> ErrorCode {
    use umbra_fs::Error;
    match error {
        Error::NotFound => ErrorCode::NOT_FOUND,
        Error::Exists => ErrorCode::EXISTS,
        Error::NotDirectory => ErrorCode::NOT_DIRECTORY,
        Error::IsDirectory => ErrorCode::IS_DIRECTORY,
        Error::NotEmpty => ErrorCode::NOT_EMPTY,
        Error::NameTooLong => ErrorCode::NAME_TOO_LONG,
        Error::InvalidName => ErrorCode::INVALID_NAME,
        Error::NoSpace => ErrorCode::NO_SPACE,
        Error::TooLarge => ErrorCode::TOO_LARGE,
        Error::Invalid(_) => ErrorCode::INVALID,
        Error::Busy => ErrorCode::BUSY,
        Error::ReadOnly => ErrorCode::READ_ONLY,
        Error::NoMemory => ErrorCode::NO_MEMORY,
        Error::Poisoned(_) => ErrorCode::POISONED,
        Error::Damaged { .. } => ErrorCode::DAMAGED,
    }
}

/// Says what was being done when the filesystem failed.
pub trait During<T> {
    /// Completes "cannot ..." ("open '/a'").
    fn during(self, what: fmt::Arguments<'_>) -> Result<T, Failure>;
}

impl<T> During<T> for umbra_fs::Result<T> {
    fn during(self, what: fmt::Arguments<'_>) -> Result<T, Failure> {
        self.map_err(|error| Failure::during(error, what))
    }
}

/// A path in a message: quoted, on one line, cut where it is long.
pub struct Shown<'p>(pub &'p [u8]);

/// Bytes of a path that a message shows.
const MAX_SHOWN: usize = 256;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = &self.0[..self.0.len().min(MAX_SHOWN)];
        f.write_char('\'')?;
        for chunk in cut.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\'' | '\\' => write!(f, "\\{c}")?,
                    c if c.is_control() => write!(f, "{}", c.escape_default())?,
                    c => f.write_char(c)?,
                }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        f.write_str(if cut.len() < self.0.len() { "'..." } else { "'" })
    }
}

/// A string that takes no more than [`MAX_MESSAGE`] bytes.
struct Cut(String);

impl Write for Cut {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = MAX_MESSAGE - self.0.len();
        self.0.push_str(&s[..s.floor_char_boundary(room)]);
        if s.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn paths_are_shown_on_one_line() {
        assert_eq!(Shown(b"/a b").to_string(), "'/a b'");
        assert_eq!(Shown("/ü\n'\\".as_bytes()).to_string(), "'/ü\\n\\'\\\\'");
        assert_eq!(Shown(b"/\xff\xfe.").to_string(), "'/\\xff\\xfe.'");
        assert_eq!(Shown(&[b'a'; 5000]).to_string().len(), 256 + 5);
    }

    #[test]
    fn messages_are_cut() {
        let long = "ü".repeat(4000);
        let f = Failure::new(ErrorCode::INVALID, format_args!("x{long}{long}"));
        assert_eq!(f.message, format!("x{}", "ü".repeat((MAX_MESSAGE - 1) / 2)));
        let f = Failure::during(umbra_fs::Error::NoSpace, format_args!("write {}", Shown(b"/a")));
        assert_eq!(f.message, "cannot write '/a': no space left");
        assert_eq!(f.code, ErrorCode::NO_SPACE);
    }
}
