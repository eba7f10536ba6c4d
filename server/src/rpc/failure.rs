//! A request that failed, and the text that says so.

use crate::nbd::clients::Clients;
use alloc::string::String;
use core::fmt::{self, Write};
use umbra_fs::{Error, Ino};
use umbra_proto::rpc::{BodyError, ErrorCode, ErrorRef, HeaderError};

/// Why a request failed.
#[derive(Debug)]
pub struct Failure {
    code: ErrorCode,
    message: String,
    /// Bytes that were moved before.
    pub done: Option<u64>,
    /// The file that is in use, if that is why.
    in_use: Option<Ino>,
}

/// Longest text of an error in bytes.
const MAX_MESSAGE: usize = 1024;

impl Failure {
    /// A failure of this kind.
    pub fn new(code: ErrorCode, message: fmt::Arguments<'_>) -> Self {
        let mut failure = Failure { code, message: String::new(), done: None, in_use: None };
        failure.say_more(message);
        failure
    }

    /// Adds to the text what there is room for.
    fn say_more(&mut self, more: fmt::Arguments<'_>) {
        // An error means that it was cut.
        let _ = Cut(&mut self.message).write_fmt(more);
    }

    /// Says who uses the file, if the request failed because it is in use.
    pub fn name_users(&mut self, clients: &Clients) {
        if let Some(file) = self.in_use {
            self.say_more(format_args!("{}", clients.users(file)));
        }
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
    pub fn during(error: Error, what: fmt::Arguments<'_>) -> Self {
        let in_use = if let Error::InUse(file) = error { Some(file) } else { None };
        let failure = Failure::new(code_of(error), format_args!("cannot {what}: {error}"));
        Failure { in_use, ..failure }
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
fn code_of(error: Error) -> ErrorCode {
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
        Error::Busy | Error::InUse(_) => ErrorCode::BUSY,
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

/// A string that takes no more than [`MAX_MESSAGE`] bytes.
struct Cut<'s>(&'s mut String);

impl Write for Cut<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = MAX_MESSAGE - self.0.len();
        self.0.push_str(&s[..s.floor_char_boundary(room)]);
        if s.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown::Shown;
    use alloc::format;

    #[test]
    fn messages_are_cut() {
        let long = "ü".repeat(4000);
        let f = Failure::new(ErrorCode::INVALID, format_args!("x{long}{long}"));
        assert_eq!(f.message, format!("x{}", "ü".repeat((MAX_MESSAGE - 1) / 2)));
        let f = Failure::during(Error::NoSpace, format_args!("write {}", Shown(b"/a")));
        assert_eq!(f.message, "cannot write '/a': no space left");
        assert_eq!(f.code, ErrorCode::NO_SPACE);
    }
}
