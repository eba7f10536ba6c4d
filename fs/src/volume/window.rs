//! Windows on files: opened, and closed in steps.

use super::Volume;
use super::work::{Begun, Outcome, Work};
use crate::error::{Error, Result};
use crate::pmem::Pmem;
use crate::types::{FileKey, Ino, Kind};
use crate::windows::Window;
use crate::windows::mmu::Mmu;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Opens a shared window on a file. The file's content lives until it is closed,
    /// even if the last name goes.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::Invalid`] for a symbolic link,
    /// [`Error::NoMemory`], or a [media error](Error#media-errors).
    pub fn open_window(&mut self, ino: Ino) -> Result<Window> {
        match self.attributes(ino)?.kind {
            Kind::Directory => Err(Error::IsDirectory),
            Kind::Symlink => Err(Error::Invalid("is a symbolic link")),
            Kind::File => self.dax.files.open(FileKey(ino)),
        }
    }

    /// Begins to close a window; what was stored through it is durable at the end. Until then it
    /// must not be used. Its pin ends at once.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such window, or a [media error](Error#media-errors).
    pub fn begin_close(&mut self, window: Window) -> Result<Begun> {
        self.unpin(window)?;
        self.begin(Work::Close(window))
    }

    /// Closes a window; what was stored through it is durable at return.
    ///
    /// # Errors
    ///
    /// As [`Volume::begin_close`].
    pub fn close_window(&mut self, window: Window) -> Result<()> {
        let begun = self.begin_close(window)?;
        self.finish(begun).map(drop)
    }

    /// Takes a step of closing a window.
    pub(super) fn close_step(&mut self, window: Window) -> Result<Option<Outcome>> {
        let FileKey(ino) = self.dax.files.file_of(window)?;
        if !self.dax.detach_some(&mut self.tree.blocks, window, self.work_a_step)? {
            return Ok(None);
        }
        if self.dax.close(&mut self.tree.blocks, window)? {
            self.drop_inode(ino)?;
        }
        Ok(Some(Outcome::Done))
    }
}
