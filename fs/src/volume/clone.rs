//! Clones of files: a new inode with the same root.
//!
//! ```text
//! inode 7 [root]---.            the root block gains a reference; nothing below it
//!                   >-- node    is touched, whatever the size of the file
//! inode 9 [root]---'
//! ```

use super::Volume;
use super::budget::NAME_BLOCKS;
use super::settle::Settle;
use super::work::{Begun, Cloning, Freezing, Held, Outcome, Work};
use crate::blocks::{Content, Purpose};
use crate::error::{Error, Result};
use crate::format::inode::{self, NewInode, ROOT_INO};
use crate::format::word::Root;
use crate::memory::Boxed;
use crate::pmem::Pmem;
use crate::types::*;
use crate::windows::Window;
use crate::windows::mmu::Mmu;

/// Free blocks that freezing a file needs: one for so many that it may have.
const HEADROOM: u64 = 16;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Begins to create `name` as a clone of a file: [`Outcome::Made`]. Atomic, durable at the end.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::Exists`], [`Error::InvalidName`],
    /// [`Error::NameTooLong`], [`Error::NoSpace`], [`Error::NoMemory`], [`Error::Invalid`] for a
    /// symbolic link, or a [media error](Error#media-errors). Nothing has changed then.
    pub fn begin_clone(&mut self, src: Ino, dir: Ino, name: &[u8], now: Time) -> Result<Begun> {
        let mut settle = Settle::stores(src);
        if self.settle(&mut settle)? {
            return self.make_clone(src, dir, name, now).map(Begun::Over);
        }
        let name = name.try_into().map_err(|_| Error::NameTooLong)?;
        let (src, dir) = (Held::new(src), Held::new(dir));
        self.go_on(Work::Clone(Boxed::new(Cloning { src, dir, name, now, settle })?))
    }

    /// Creates `name` as a clone of a file: atomic, durable at return. It takes as long as it takes
    /// to make durable what was stored to the file; beyond that, constant time.
    ///
    /// # Errors
    ///
    /// As [`Volume::begin_clone`].
    pub fn clone_file(&mut self, src: Ino, dir: Ino, name: &[u8], now: Time) -> Result<Ino> {
        let begun = self.begin_clone(src, dir, name, now)?;
        match self.finish(begun)? {
            Outcome::Made(ino) => Ok(ino),
            _ => Err(Error::Invalid("a clone makes a file")),
        }
    }

    pub(super) fn clone_step(&mut self, work: &mut Cloning) -> Result<Option<Outcome>> {
        self.verify(work.src)?;
        self.verify(work.dir)?;
        if !self.settle(&mut work.settle)? {
            return Ok(None);
        }
        self.make_clone(work.src.ino, work.dir.ino, &work.name, work.now).map(Some)
    }

    /// Makes a clone of a file, which is settled.
    fn make_clone(&mut self, src: Ino, dir: Ino, name: &[u8], now: Time) -> Result<Outcome> {
        let new = self.share_content(src, now)?;
        let made = self.make_untouched(dir, name, &[], |_| NewInode { parent: dir, ..new });
        if made.is_err() {
            self.unshare_content(new.root);
        }
        let ino = made?;
        // The clone is there now: an error of this is no reason to take its content back.
        self.touch(dir, [inode::MTIME, inode::CTIME], now)?;
        Ok(Outcome::Made(ino))
    }

    /// Begins to open a window on what a file contains when it has ended, which is durable then:
    /// [`Outcome::Frozen`]. That is a clone without a name, which goes with the window. As long as
    /// nobody writes to it, its blocks stay where they are and contain what they do, whatever
    /// becomes of the file.
    ///
    /// Meanwhile what others write over is copied. So that this does not fill a volume by surprise,
    /// a part of what the file may take has to be free: without that, "no space".
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] if too little is free, [`Error::NotFound`], [`Error::IsDirectory`],
    /// [`Error::NoMemory`], or a [media error](Error#media-errors).
    pub fn begin_freeze(&mut self, src: Ino, now: Time) -> Result<Begun> {
        self.begin(Work::Freeze(Freezing { src: Held::new(src), now, settle: Settle::stores(src) }))
    }

    /// Opens a window on what a file contains now: see [`Volume::begin_freeze`].
    ///
    /// # Errors
    ///
    /// As [`Volume::begin_freeze`].
    pub fn open_frozen(&mut self, src: Ino, now: Time) -> Result<(Ino, Window)> {
        let begun = self.begin_freeze(src, now)?;
        match self.finish(begun)? {
            Outcome::Frozen(ino, window) => Ok((ino, window)),
            _ => Err(Error::Invalid("freezing opens a window")),
        }
    }

    pub(super) fn freeze_step(&mut self, work: &mut Freezing) -> Result<Option<Outcome>> {
        self.verify(work.src)?;
        let src = work.src.ino;
        let size = self.size_in(self.tree.inode_block(src)?, src)?;
        let Space { total, free, .. } = self.space();
        let most = (size / BLOCK_SIZE).min(total - free);
        if !self.reclaim_for(most / HEADROOM, NAME_BLOCKS, Purpose::Grow)? {
            return Ok(None);
        }
        if !self.settle(&mut work.settle)? {
            return Ok(None);
        }
        let new = self.share_content(src, work.now)?;
        let made = self.open_nameless(|_| NewInode { nlink: 0, ..new });
        if made.is_err() {
            self.unshare_content(new.root);
        }
        made.map(|(ino, window)| Some(Outcome::Frozen(ino, window)))
    }

    /// Makes sure that so many blocks can be allocated, by a step of reclaiming what waits for it;
    /// false if there is more to reclaim.
    pub(super) fn reclaim_for(
        &mut self,
        content: u64,
        metadata: u64,
        purpose: Purpose,
    ) -> Result<bool> {
        // A block that is reclaimed refers to as many others.
        for _ in 0..(self.work_a_step / 128).max(1) {
            match self.tree.blocks.has_room(content, metadata, purpose) {
                true => return Ok(true),
                false if self.tree.blocks.reclaim_step()? => {}
                false => return Err(Error::NoSpace),
            }
        }
        Ok(self.tree.blocks.has_room(content, metadata, purpose))
    }

    /// What a clone of a file is to be, which is settled. Its content has the reference of that
    /// already.
    pub(super) fn share_content(&mut self, src: Ino, now: Time) -> Result<NewInode> {
        let block = self.tree.inode_block(src)?;
        let (kind, mode) = self.kind_in(block, src)?;
        if kind != Kind::File {
            return Err(if kind == Kind::Directory {
                Error::IsDirectory
            } else {
                Error::Invalid("is a symbolic link")
            });
        }
        let (uid, gid) = self.owner_in(block, src)?;
        let size = self.size_in(block, src)?;
        let family = self.family_of(block, src)?;
        // What the clone shows must not go back in time, and nothing may stay writable: what was
        // stored was flushed, and the fence of the new inode is its fence too.
        let (_, root) = self.tree.inode_path(src)?;
        // The reference is counted first: from now on no position of the source is exclusive.
        if let Some(top) = root.top {
            self.tree.files.changed(FileKey(src));
            self.tree.blocks.add_reference(top.block, Content::file_top(root.height))?;
        }
        Ok(NewInode {
            kind: Kind::File,
            mode,
            size,
            nlink: 1,
            family,
            seed: 0,
            parent: ROOT_INO,
            uid,
            gid,
            sum: 0,
            now,
            root,
        })
    }

    /// Takes the reference of a clone back that was not made.
    pub(super) fn unshare_content(&mut self, root: Root) {
        if let Some(top) = root.top {
            self.tree.blocks.discard(top.block, Content::file_top(root.height));
        }
    }
}
