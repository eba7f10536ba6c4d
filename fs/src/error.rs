//! What can go wrong in the filesystem.

use crate::pmem::Poisoned;
use crate::types::{Block, Ino};
use core::fmt;

/// Result of a filesystem operation.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why an operation failed. Nothing was changed unless the operation says otherwise.
///
/// # Media errors
///
/// [`Error::Poisoned`] and [`Error::Damaged`] can come from every operation that reads the media.
/// What was published before one of them stays; blocks whose records cannot be read stay taken
/// until the references are counted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No such file or directory.
    NotFound,
    /// The name exists already.
    Exists,
    /// A directory was needed.
    NotDirectory,
    /// A directory was given where a file is needed.
    IsDirectory,
    /// The directory has entries.
    NotEmpty,
    /// A name has more than 255 bytes.
    NameTooLong,
    /// A name is empty, `.` or `..`, or has a `/` or NUL byte.
    InvalidName,
    /// No free blocks or inodes are left, or a directory bucket cannot be split.
    NoSpace,
    /// Beyond the largest file size (512 GiB).
    TooLarge,
    /// The arguments contradict each other or the file; the text says how.
    Invalid(&'static str),
    /// Something else is under way that has to end first; the text says what.
    Busy(&'static str),
    /// The file is pinned ([`Volume::pin`](crate::Volume::pin)): it keeps its size and its last
    /// name. Whoever pinned it can say for whom.
    InUse(Ino),
    /// An operation under way keeps page faults of the file waiting: the access can be tried again
    /// when [`Volume::is_parked`](crate::Volume::is_parked) says so. Nothing is wrong.
    Parked,
    /// The volume was mounted read-only, or turned so after damage was found.
    ReadOnly,
    /// Memory of the server ran out.
    NoMemory,
    /// The media could not deliver a line.
    Poisoned(Poisoned),
    /// A pointer or a structure on media fails its check.
    Damaged {
        /// The block that holds the damage.
        block: Block,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Error {
    /// Whether it is a [media error](Error#media-errors).
    pub fn is_media(self) -> bool {
        matches!(self, Error::Poisoned(_) | Error::Damaged { .. })
    }
}

impl From<Poisoned> for Error {
    fn from(p: Poisoned) -> Self {
        Error::Poisoned(p)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotFound => f.write_str("no such file or directory"),
            Error::Exists => f.write_str("the name exists already"),
            Error::NotDirectory => f.write_str("not a directory"),
            Error::IsDirectory => f.write_str("is a directory"),
            Error::NotEmpty => f.write_str("the directory is not empty"),
            Error::NameTooLong => f.write_str("the name has more than 255 bytes"),
            Error::InvalidName => {
                f.write_str("the name is empty, '.' or '..', or holds '/' or NUL")
            }
            Error::NoSpace => f.write_str("no space left"),
            Error::TooLarge => f.write_str("beyond the largest file size of 512 GiB"),
            Error::Invalid(why) => f.write_str(why),
            Error::Busy(why) => f.write_str(why),
            Error::InUse(_) => f.write_str("it is in use"),
            Error::Parked => f.write_str("an operation on the file has to end first"),
            Error::ReadOnly => f.write_str("the volume is read-only"),
            Error::NoMemory => f.write_str("the server is out of memory"),
            Error::Poisoned(p) => write!(f, "memory error at byte {:#x} of the NVDIMM", p.at),
            Error::Damaged { block, what } => write!(f, "damaged: block {}: {}", block.0, what),
        }
    }
}

impl core::error::Error for Error {}
