//! The file that a request is about: named by a path, or by a handle.

use super::failure::{During, Failure};
use super::session::Session;
use crate::platform::Platform;
use crate::text::Shown;
use core::fmt;
use umbra_fs::Ino;
use umbra_proto::rpc::{self, ErrorCode};

/// A path within the limits.
pub fn checked_path(path: &[u8]) -> Result<&[u8], Failure> {
    if path.len() > rpc::MAX_PATH {
        let message =
            format_args!("the path {} has more than {} bytes", Shown(path), rpc::MAX_PATH);
        return Err(Failure::new(ErrorCode::TOO_LONG, message));
    }
    if path.is_empty() {
        return Err(Failure::new(ErrorCode::INVALID_NAME, format_args!("the path is empty")));
    }
    Ok(path)
}

/// The two fields of a request that name its file. Exactly one of them has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'b> {
    /// The path.
    pub path: Option<&'b [u8]>,
    /// The handle, which is open on the connection.
    pub handle: Option<u32>,
}

impl<'b> Subject<'b> {
    /// Whether the request names no file at all.
    pub fn is_absent(self) -> bool {
        self.path.is_none() && self.handle.is_none()
    }

    /// The inode. `what` is done to it ("stat").
    ///
    /// # Errors
    ///
    /// Neither of the two is there, or both are; the path leads nowhere; the handle is not open.
    pub fn find<M: Platform>(
        self,
        s: &Session,
        machine: &mut M,
        what: &str,
    ) -> Result<Ino, Failure> {
        match (self.path, self.handle) {
            (Some(path), None) => {
                checked_path(path)?;
                machine.volume(|v| v.resolve(path)).during(format_args!("{what} {}", Shown(path)))
            }
            (None, Some(handle)) => Ok(s.file(handle)?.ino),
            _ => {
                let message =
                    format_args!("either a path or a handle is needed, not none and not both");
                Err(Failure::new(ErrorCode::INVALID, message))
            }
        }
    }

    /// The inode, which is going to be changed.
    ///
    /// # Errors
    ///
    /// Those of [`find`](Self::find); and the handle shows what a file contained.
    pub fn find_to_change<M: Platform>(
        self,
        s: &Session,
        machine: &mut M,
        what: &str,
    ) -> Result<Ino, Failure> {
        if let Some(handle) = self.handle {
            s.file_to_change(handle)?;
        }
        self.find(s, machine, what)
    }

    /// How messages name the file: by the path if the client gave one, else by its number.
    pub fn shown(self, ino: Ino) -> ShownFile<'b> {
        ShownFile { path: self.path, ino }
    }
}

/// A file in a message.
#[derive(Clone, Copy, Debug)]
pub struct ShownFile<'b> {
    path: Option<&'b [u8]>,
    ino: Ino,
}

impl fmt::Display for ShownFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path {
            Some(path) => Shown(path).fmt(f),
            None => write!(f, "inode {}", self.ino.0),
        }
    }
}
