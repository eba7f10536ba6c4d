//! Links: further names of a file, names of files that have none yet, and symbolic links.
//!
//! A hard link raises the count of names with the payload of the entry, before the fence, and
//! adds the name behind it: a crash may leave the count too high, which recovery sets right, and
//! never too low. Where the name is taken from another file, all of it is one change, as with a
//! rename. A symbolic link is an inode whose content is its target, one block; nothing here follows
//! it.
//!
//! A file without a name is a live inode that nothing leads to. It goes with its last window, with
//! an unmount, and with a crash, because recovery frees what has no name.

use super::Volume;
use super::budget::{NAME_BLOCKS, REPLACE_BLOCKS};
use super::dir::{Found, check_name};
use super::names::Naming;
use crate::blocks::{Content, Purpose};
use crate::error::{Error, Result};
use crate::format::inode::{self, NewInode, slot_of, word_index};
use crate::format::superblock::crc32c;
use crate::memory::filled;
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::stage::{Place, Stage, Written};
use crate::types::*;
use crate::windows::Window;
use crate::windows::files::HasNames;
use crate::windows::mmu::Mmu;
use alloc::vec::Vec;

/// What a new name does to a file, or a symbolic link, that has it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing: the new name is refused.
    Keep,
    /// It loses the name, in the same moment.
    Replace,
}

/// Whether a symbolic link can have this target.
///
/// # Errors
///
/// [`Error::Invalid`].
pub fn check_target(target: &[u8]) -> Result<()> {
    if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
        return Err(Error::Invalid("the target of a symbolic link is 1 to 4095 bytes without NUL"));
    }
    Ok(())
}

/// What gets a name.
struct Linked {
    kind: Kind,
    /// Names that it has then.
    names: u32,
    /// What has the name now.
    replaced: Option<Found>,
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Creates a file that has no name yet, to be given one by [`Volume::link`] or
    /// [`Volume::link_as`], and opens a window on it. The file goes with its last window if it was
    /// given none.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NoSpace`], [`Error::NoMemory`], or a
    /// [media error](Error#media-errors).
    pub fn open_unnamed(
        &mut self,
        dir: Ino,
        mode: u16,
        (uid, gid): (u32, u32),
        now: Time,
    ) -> Result<(Ino, Window)> {
        self.dir(dir)?;
        self.tree.blocks.ensure(0, NAME_BLOCKS, Purpose::Grow)?;
        let opened = self.open_nameless(|ino| {
            let new = NewInode::of(Kind::File, mode, ino, dir, now);
            NewInode { nlink: 0, uid, gid, ..new }
        })?;
        self.dax.files.set_names(FileKey(opened.0), HasNames::NotYet);
        Ok(opened)
    }

    /// Makes a file without a name, which goes with its window. Nothing leads to it, so nothing is
    /// published, and recovery frees it. If that fails, there is no such file, and no reference to
    /// what it would have shown.
    pub(super) fn open_nameless(
        &mut self,
        new: impl FnOnce(Ino) -> NewInode,
    ) -> Result<(Ino, Window)> {
        let mut stage = self.tree.stage();
        let ino = self.fill_stage(&mut stage, |volume, stage| volume.new_inode(stage, new))?;
        // What it shows is durable already, in the file that it shows it of.
        let stage = stage.flush(&mut self.tree.blocks.pmem).fence(&mut self.tree.blocks.pmem);
        self.tree.lists = stage.finish(&mut self.tree.blocks);
        match self.dax.files.open(FileKey(ino)) {
            Ok(window) => {
                self.dax.files.set_names(FileKey(ino), HasNames::NoMore);
                Ok((ino, window))
            }
            Err(error) => {
                // What it shows is the caller's to take back, as if it had never been made.
                self.forget_inode(ino);
                Err(error)
            }
        }
    }

    /// Adds a name for a file or a symbolic link; not for a directory, and not for a file whose
    /// last name is gone. What a file contains that had no name before is durable with its name.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], and as [`Volume::link_as`].
    pub fn link(&mut self, ino: Ino, dir: Ino, name: &[u8], now: Time) -> Result<()> {
        self.link_as(ino, dir, name, Existing::Keep, now)
    }

    /// As [`Volume::link`]; but what is a name of another file, or of a symbolic link, may be taken
    /// from it, atomically.
    ///
    /// # Errors
    ///
    /// [`Error::IsDirectory`], [`Error::NotFound`], [`Error::NotDirectory`], [`Error::Exists`] if a
    /// name is kept, [`Error::InUse`] if the last name of a pinned file would go,
    /// [`Error::InvalidName`], [`Error::NoSpace`], or a [media error](Error#media-errors).
    pub fn link_as(
        &mut self,
        ino: Ino,
        dir: Ino,
        name: &[u8],
        existing: Existing,
        now: Time,
    ) -> Result<()> {
        let Some(Linked { kind, names, replaced }) = self.linked(ino, dir, name, existing)? else {
            return Ok(());
        };
        // What replaces something gives back what that had, in the end.
        let (needed, purpose) = match replaced {
            Some(_) => (REPLACE_BLOCKS, Purpose::Release),
            None => (NAME_BLOCKS, Purpose::Grow),
        };
        self.tree.blocks.ensure(0, needed, purpose)?;
        if self.dax.files.is_unnamed(FileKey(ino)) {
            // The first fence of the change makes them durable.
            let mut allowance = u64::MAX;
            self.tree.unfenced |=
                self.dax.sync_some(&mut self.tree.blocks, FileKey(ino), &mut allowance)?.any;
        }
        match replaced {
            None => self.commit_link(ino, kind, names, dir, name)?,
            Some(_) => {
                let mut stage = self.tree.stage();
                let plan = self.fill_stage(&mut stage, |volume, stage| {
                    volume.plan_link(stage, (ino, kind, names), (dir, name), purpose)
                })?;
                self.commit_naming(stage, &plan, name, purpose)?;
            }
        }
        self.dax.files.set_names(FileKey(ino), HasNames::Some);
        if let Some(old) = replaced {
            self.touch_named(old.ino, now)?;
        }
        self.touch(dir, [inode::MTIME, inode::CTIME], now)?;
        self.touch(ino, [inode::CTIME], now)
    }

    /// Whether [`Volume::link_as`] would be refused now, if there were space.
    ///
    /// # Errors
    ///
    /// As [`Volume::link_as`].
    pub fn may_link(&self, ino: Ino, dir: Ino, name: &[u8], existing: Existing) -> Result<()> {
        self.linked(ino, dir, name, existing).map(drop)
    }

    /// What a new name makes of an inode. `None`: it is a name of this inode already, and nothing
    /// happens.
    fn linked(
        &self,
        ino: Ino,
        dir: Ino,
        name: &[u8],
        existing: Existing,
    ) -> Result<Option<Linked>> {
        check_name(name)?;
        let block = self.tree.inode_block(ino)?;
        let kind = self.kind_in(block, ino)?.0;
        if kind == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        let names = match self.nlink_in(block, ino)? {
            0 if !self.dax.files.is_unnamed(FileKey(ino)) => return Err(Error::NotFound),
            names => names
                .checked_add(1)
                .ok_or(Error::Invalid("it has as many names as there can be"))?,
        };
        match (self.find(self.dir(dir)?, name)?, existing) {
            (Some(_), Existing::Keep) => Err(Error::Exists),
            (Some(old), _) if old.ino == ino => Ok(None),
            (Some(old), _) if old.kind == Kind::Directory => Err(Error::IsDirectory),
            (replaced, _) => {
                replaced.map_or(Ok(()), |old| self.may_lose_name(old.ino))?;
                Ok(Some(Linked { kind, names, replaced }))
            }
        }
    }

    /// Adds a name that nobody has, the inode's `names`-th.
    fn commit_link(
        &mut self,
        ino: Ino,
        kind: Kind,
        names: u32,
        dir: Ino,
        name: &[u8],
    ) -> Result<()> {
        let mut stage = self.tree.stage();
        let staged = self.fill_stage(&mut stage, |volume, stage| {
            volume.stage_names(stage, ino, names)?;
            // Where the inode had to be copied for that, the path to the bucket may have moved.
            volume.make_room(stage, dir, name, None, Purpose::Grow)
        });
        let result = staged.and_then(|room| self.insert_entry(stage, &room, ino, kind, name));
        if let Err(error) = result {
            // Too high is what recovery would set right; nobody has to wait for that.
            self.set_names(ino, names - 1)?;
            return Err(error);
        }
        Ok(())
    }

    /// What has to change so that a name of another file is the inode's `names`-th.
    fn plan_link(
        &mut self,
        stage: &Stage<Written>,
        (ino, kind, names): (Ino, Kind, u32),
        (dir, name): (Ino, &[u8]),
        purpose: Purpose,
    ) -> Result<Naming> {
        let room = self.make_room(stage, dir, name, None, purpose)?;
        let mut plan = self.plan_naming(room, dir, name, (ino, kind))?;
        plan.inodes.push((self.tree.inode_path(ino)?.0, [Self::names_word(ino, names)]));
        Ok(plan)
    }

    /// Stages a count of names, where the inode can be changed in place; else commits it.
    fn stage_names(&mut self, stage: &mut Stage<Written>, ino: Ino, names: u32) -> Result<()> {
        self.name_changes(ino);
        let (path, _) = self.tree.inode_path(ino)?;
        let word = Self::names_word(ino, names);
        match self.tree.place(&path)? {
            Place::Exclusive(mut place) => {
                place.prepare_entries(stage, Content::Inodes, &[word]);
                Ok(())
            }
            Place::Shared(_) => {
                self.tree.commit_beside(stage, &[Edit::words(&path, &[word])], Purpose::Grow)
            }
        }
    }

    /// Commits a count of names.
    pub(super) fn set_names(&mut self, ino: Ino, names: u32) -> Result<()> {
        self.name_changes(ino);
        let (path, _) = self.tree.inode_path(ino)?;
        let stage = self.tree.stage();
        let word = [Self::names_word(ino, names)];
        self.tree.commit_and_release(stage, &[Edit::words(&path, &word)], Purpose::Release)
    }

    /// The word that holds a count of names.
    pub(super) fn names_word(ino: Ino, names: u32) -> (u16, u64) {
        (word_index(slot_of(ino), inode::NLINK), names.into())
    }

    /// Creates a symbolic link. The target is 1 to 4095 bytes without NUL; whether it leads
    /// anywhere is not asked.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for the target, and as [`Volume::create`].
    pub fn symlink(&mut self, dir: Ino, name: &[u8], target: &[u8], now: Time) -> Result<Ino> {
        check_target(target)?;
        self.make(dir, name, now, target, |ino| NewInode::of(Kind::Symlink, 0o777, ino, dir, now))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it is no symbolic link, [`Error::NotFound`], [`Error::NoMemory`], or a
    /// [media error](Error#media-errors).
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        let block = self.tree.inode_block(ino)?;
        if self.kind_in(block, ino)?.0 != Kind::Symlink {
            return Err(Error::Invalid("is not a symbolic link"));
        }
        let size = self.size_in(block, ino)? as usize;
        if size == 0 || size > MAX_TARGET {
            return Err(Error::Damaged {
                block,
                what: "the target of a symbolic link has a wrong length",
            });
        }
        let root = self.tree.root_in(block, slot_of(ino))?;
        let top = root.filter(|root| root.height == 0).and_then(|root| root.top);
        let Some(top) = top else {
            return Err(Error::Damaged { block, what: "a symbolic link has no target" });
        };
        let mut target = filled(size, 0)?;
        self.target_of(block, ino, top.block, &mut target)?;
        Ok(target)
    }

    /// Reads the target of a symbolic link, which is in a block of its own.
    fn target_of(&self, inodes: Block, ino: Ino, block: Block, into: &mut [u8]) -> Result<()> {
        let sum = self.number(inodes, ino, inode::SUM, "the sum of a target fails its check")?;
        self.tree.blocks.read_copy(block, Content::Target, |at| {
            self.tree.blocks.pmem.read(at, into)?;
            if u64::from(crc32c(into)) != sum {
                let what = "the target of a symbolic link fails its check";
                return Err(Error::Damaged { block, what });
            }
            Ok(())
        })
    }

    /// For a rebuild: makes both copies of the target of a symbolic link equal, if one is good.
    /// What is wrong is reported to those who read it.
    pub(super) fn make_target_equal(&mut self, inodes: Block, slot: u16, block: Block) {
        let ino = Ino(slot.into());
        let mut target = [0; MAX_TARGET];
        let Ok(size) = self.size_in(inodes, ino) else { return };
        let Some(target) = target.get_mut(..size as usize) else { return };
        if self.target_of(inodes, ino, block, target).is_ok() {
            // If only the twin is good, that is noted now.
            self.tree.blocks.mend_noted();
            self.tree.blocks.mend_second(block);
        }
    }

    /// Stages a block with the target of a symbolic link.
    pub(super) fn stage_target(
        &mut self,
        stage: &mut Stage<Written>,
        target: &[u8],
        purpose: Purpose,
    ) -> Result<Block> {
        let fresh = stage.allocate_pair(&mut self.tree.blocks, purpose)?;
        stage.write_padded(&mut self.tree.blocks.pmem, &fresh, target);
        Ok(fresh.block())
    }
}
