//! Why a request failed: a number for programs, a text for people.

use core::fmt;
use umbra_fs::Error;
use umbra_proto::nbd::Errno;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It breaks a rule of the protocol or of the export.
    Rule(Errno, &'static str),
    /// The filesystem could not do it.
    Fs(Error),
}

impl Failure {
    /// The number on the wire.
    pub fn errno(self) -> Errno {
        match self {
            Failure::Rule(errno, _) => errno,
            Failure::Fs(Error::NoSpace | Error::TooLarge) => Errno::ENOSPC,
            Failure::Fs(Error::ReadOnly) => Errno::EPERM,
            Failure::Fs(Error::NoMemory) => Errno::ENOMEM,
            Failure::Fs(Error::Invalid(_)) => Errno::EINVAL,
            Failure::Fs(_) => Errno::EIO,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Fs(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Rule(_, why) => f.write_str(why),
            Failure::Fs(error) => error.fmt(f),
        }
    }
}
