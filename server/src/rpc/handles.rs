//! The files that a connection has open.

use super::failure::Failure;
use alloc::vec::Vec;
use umbra_fs::memory::push;
use umbra_fs::{Ino, Window};
use umbra_proto::rpc::ErrorCode;

/// Handles that a connection may have open at once.
pub const MAX_HANDLES: u32 = 64;

/// An open file: the window that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Its inode. It lives as long as the window.
    pub ino: Ino,
    /// The window.
    pub window: Window,
    /// What may be done with it.
    pub access: Access,
}

/// What may be done with an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anything.
    Any,
    /// It shows what a file contained, and is not to be changed: its blocks stay as they are.
    Frozen,
}

/// A table of open files. The number of a handle is its place, counted from 1, so that
/// a client that forgot to fill it in is told.
#[derive(Default)]
pub struct Handles {
    files: Vec<Option<OpenFile>>,
}

impl Handles {
    /// Finds the place of the next handle.
    pub fn reserve(&mut self) -> Result<u32, Failure> {
        if let Some(free) = self.files.iter().position(Option::is_none) {
            return Ok(free as u32 + 1);
        }
        if self.files.len() < MAX_HANDLES as usize {
            push(&mut self.files, None).map_err(|_| Failure::no_memory("open another file"))?;
            return Ok(self.files.len() as u32);
        }
        Err(Failure::new(
            ErrorCode::TOO_MANY_HANDLES,
            format_args!("cannot open another file: {MAX_HANDLES} are open on this connection"),
        ))
    }

    /// Puts a file at a place that [`reserve`](Self::reserve) gave.
    pub fn set(&mut self, handle: u32, file: OpenFile) {
        self.files[handle as usize - 1] = Some(file);
    }

    /// The file of a handle.
    pub fn get(&self, handle: u32) -> Result<OpenFile, Failure> {
        let index = (handle as usize).checked_sub(1);
        index.and_then(|i| self.files.get(i).copied().flatten()).ok_or_else(|| bad(handle))
    }

    /// The file of a handle through which it is to be changed.
    pub fn get_to_change(&self, handle: u32) -> Result<OpenFile, Failure> {
        let file = self.get(handle)?;
        match file.access {
            Access::Any => Ok(file),
            Access::Frozen => Err(Failure::new(
                ErrorCode::READ_ONLY,
                format_args!(
                    "handle {handle} shows what a file contained: nothing can be changed through it"
                ),
            )),
        }
    }

    /// Takes the file of a handle out.
    pub fn remove(&mut self, handle: u32) -> Result<OpenFile, Failure> {
        let index = (handle as usize).checked_sub(1);
        index.and_then(|i| self.files.get_mut(i)?.take()).ok_or_else(|| bad(handle))
    }

    /// Takes any file out; `None` if there is none.
    pub fn pop(&mut self) -> Option<OpenFile> {
        loop {
            if let Some(file) = self.files.pop()? {
                return Some(file);
            }
        }
    }
}

fn bad(handle: u32) -> Failure {
    Failure::new(
        ErrorCode::BAD_HANDLE,
        format_args!("no handle {handle} is open on this connection"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_reused_and_bounded() {
        let mut handles = Handles::default();
        let file = |n| OpenFile { ino: Ino(n), window: Window(n as u32), access: Access::Any };
        for n in 1..=u64::from(MAX_HANDLES) {
            let place = handles.reserve().unwrap();
            assert_eq!(u64::from(place), n);
            handles.set(place, file(n));
        }
        assert!(handles.reserve().is_err());
        assert_eq!(handles.remove(5).unwrap(), file(5));
        assert!(handles.remove(5).is_err() && handles.get(5).is_err());
        assert_eq!(handles.reserve().unwrap(), 5);
        for bad in [0, 5, MAX_HANDLES + 1, u32::MAX] {
            assert!(handles.get(bad).is_err() && handles.remove(bad).is_err());
        }
        assert_eq!(core::iter::from_fn(|| handles.pop()).count(), MAX_HANDLES as usize - 1);
    }
}
