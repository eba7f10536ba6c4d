//! A request that failed, and the text that says so.

use crate::nbd::clients::Clients;
use crate::text::Message;
use core::fmt;
use umbra_fs::{Error, Ino};
use umbra_proto::rpc::{BodyError, ErrorCode, ErrorRef, HeaderError};

/// Why a request failed.
#[derive(Debug)]
pub struct Failure {
    code: ErrorCode,
    message: Message,
    /// Bytes that were moved before.
    pub done: Option<u64>,
    /// The file that is in use, if that is why.
    in_use: Option<Ino>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(code: ErrorCode, message: fmt::Arguments<'_>) -> Self {
        Failure { code, message: Message::new(message), done: None, in_use: None }
    }

    /// Says who uses the file, if the request failed because it is in use.
    pub fn name_users(&mut self, clients: &Clients) {
        if let Some(file) = self.in_use {
            self.message.add(format_args!("{}", clients.users(file)));
        }
    }

    /// There is no memory to do `what`.
    pub fn no_memory(what: &str) -> Self {
        Failure::new(
            ErrorCode::NO_MEMORY,
            format_args!(
                "cannot {what}: the server has no memory left for it, as long as its clients \
                 use so much"
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
        ErrorRef { code: self.code, message: self.message.as_str(), done: self.done }
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
        Error::Busy(_) | Error::InUse(_) | Error::Parked => ErrorCode::BUSY,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Shown;

    #[test]
    fn a_failure_says_what_was_done_to_what() {
        let f = Failure::during(Error::NoSpace, format_args!("write {}", Shown(b"/a")));
        assert_eq!(f.message.as_str(), "cannot write '/a': no space left");
        assert_eq!(f.code, ErrorCode::NO_SPACE);
    }
}
