//! Files that are in use: a pinned file loses neither bytes nor its last name.
//!
//! Whoever serves a file as a disk pins it, because the clients of the disk rely on its size. The
//! rule is kept here, below all front ends: every operation that would make a file shorter, or take
//! its last name away, looks for pins in the step that does so, and fails with [`Error::InUse`].
//! So nobody can pin a file between the question and the deed.
//!
//! | operation | what a pin forbids |
//! |---|---|
//! | [`Volume::begin_truncate`] | a smaller size; in the last step too |
//! | [`Volume::replace_content`] | a smaller size |
//! | [`Volume::unlink`] | the last name |
//! | [`Volume::rename`] | to replace the last name |
//! | [`Volume::link_as`] | to replace the last name |
//!
//! A pinned file can be written, punched, cloned, made longer, renamed and given more names.

use super::Volume;
use crate::error::{Error, Result};
use crate::pmem::Pmem;
use crate::types::{FileKey, Ino};
use crate::windows::Window;
use crate::windows::files::Pin;
use crate::windows::mmu::Mmu;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Pins the file of a window, until [`unpin`](Self::unpin) or until the window begins to be
    /// closed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: there is no such window.
    pub fn pin(&mut self, window: Window) -> Result<()> {
        self.dax.files.set_pin(window, Pin::Pinned)
    }

    /// Ends the pin of this window; those of other windows of its file stay.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: there is no such window.
    pub fn unpin(&mut self, window: Window) -> Result<()> {
        self.dax.files.set_pin(window, Pin::Loose)
    }

    /// Whether a file may be made shorter.
    pub(super) fn may_shorten(&self, ino: Ino) -> Result<()> {
        if self.dax.files.is_pinned(FileKey(ino)) { Err(Error::InUse(ino)) } else { Ok(()) }
    }

    /// Whether an inode may lose a name.
    pub(super) fn may_lose_name(&self, ino: Ino) -> Result<()> {
        if !self.dax.files.is_pinned(FileKey(ino)) {
            return Ok(());
        }
        match self.nlink_in(self.tree.inode_block(ino)?, ino)? {
            0 | 1 => Err(Error::InUse(ino)),
            _ => Ok(()),
        }
    }
}
