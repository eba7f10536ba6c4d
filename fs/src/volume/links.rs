//! Links: further names of a file, and symbolic links.
//!
//! A hard link raises the count of names with the payload of the entry, before the fence, and
//! adds the name behind it: a crash may leave the count too high, which recovery sets right, and
//! never too low. A symbolic link is an inode whose content is its target, one block; nothing
//! here follows it.

use super::Volume;
use super::dir::check_name;
use super::names::NAME_BLOCKS;
use crate::blocks::Purpose;
use crate::commit::Edit;
use crate::dax::Mmu;
use crate::error::{Error, Result};
use crate::format::inode::{self, NewInode, seal_number, slot_of, word_index};
use crate::pmem::Pmem;
use crate::stage::{Place, Stage, Written};
use crate::types::*;
use alloc::vec;
use alloc::vec::Vec;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Adds a name for a file or a symbolic link; not for a directory, and not for a file whose
    /// last name is gone.
    pub fn link(&mut self, ino: Ino, dir: Ino, name: &[u8], now: Time) -> Result<()> {
        check_name(name)?;
        let block = self.inode_block(ino)?;
        let kind = self.kind_in(block, ino)?.0;
        if kind == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        let names = match self.nlink_in(block, ino)? {
            0 => return Err(Error::NotFound),
            names => names.checked_add(1).ok_or(Error::Invalid("it has as many names as there can be"))?,
        };
        if self.find(self.dir(dir)?, name)?.is_some() {
            return Err(Error::Exists);
        }
        self.blocks.ensure(NAME_BLOCKS, Purpose::Grow)?;
        let mut stage = self.stage();
        let raised = self.stage_names(&mut stage, ino, names);
        // Where the inode had to be copied for that, the path to the bucket may have moved.
        let result = match raised.and_then(|()| self.make_room(&stage, dir, name, None)) {
            Ok(room) => self.insert_entry(stage, &room, ino, kind, name),
            Err(error) => {
                self.abandon_stage(stage);
                Err(error)
            }
        };
        if let Err(error) = result {
            // Too high is what recovery would set right; nobody has to wait for that.
            self.set_names(ino, names - 1)?;
            return Err(error);
        }
        self.touch(dir, &[inode::MTIME, inode::CTIME], now)?;
        self.touch(ino, &[inode::CTIME], now)
    }

    /// Stages a count of names, where the inode can be changed in place; else commits it.
    fn stage_names(&mut self, stage: &mut Stage<Written>, ino: Ino, names: u32) -> Result<()> {
        let (path, _) = self.inode_path(ino)?;
        let word = Self::names_word(ino, names);
        match self.place(&path)? {
            Place::Exclusive(mut place) => {
                place.prepare_entry(stage, word.0, word.1);
                Ok(())
            }
            Place::Shared(_) => self.commit_beside(stage, &[Edit::words(&path, &[word])]),
        }
    }

    /// Commits a count of names.
    pub(super) fn set_names(&mut self, ino: Ino, names: u32) -> Result<()> {
        let (path, _) = self.inode_path(ino)?;
        let stage = self.stage();
        let word = [Self::names_word(ino, names)];
        self.commit_and_release(stage, &[Edit::words(&path, &word)], Purpose::Release)
    }

    /// The word that holds a count of names.
    pub(super) fn names_word(ino: Ino, names: u32) -> (u16, u64) {
        let slot = slot_of(ino);
        (word_index(slot, inode::NLINK), seal_number(names as u64, inode::NLINK, slot))
    }

    /// Creates a symbolic link. The target is 1 to 4095 bytes without NUL; whether it leads
    /// anywhere is not asked.
    pub fn symlink(&mut self, dir: Ino, name: &[u8], target: &[u8], now: Time) -> Result<Ino> {
        if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
            return Err(Error::Invalid("the target of a symbolic link is 1 to 4095 bytes without NUL"));
        }
        self.make(dir, name, now, target, |ino| NewInode::of(Kind::Symlink, 0o777, ino, dir, now))
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        let block = self.inode_block(ino)?;
        if self.kind_in(block, ino)?.0 != Kind::Symlink {
            return Err(Error::Invalid("is not a symbolic link"));
        }
        let size = self.size_in(block, ino)? as usize;
        if size == 0 || size > MAX_TARGET {
            return Err(Error::Damaged { block, what: "the target of a symbolic link has a wrong length" });
        }
        let mut target = vec![0; size];
        self.read(ino, 0, &mut target)?;
        Ok(target)
    }

    /// Writes the content of a new inode, one block, into the stage.
    pub(super) fn stage_content(&mut self, stage: &mut Stage<Written>, content: &[u8]) -> Result<Block> {
        let fresh = stage.allocate(&mut self.blocks, Purpose::Grow)?;
        let len = content.len() as u64;
        stage.write(&mut self.blocks.pmem, &fresh, 0, content);
        stage.zero(&mut self.blocks.pmem, &fresh, len, BLOCK_SIZE - len);
        Ok(fresh.block())
    }
}
