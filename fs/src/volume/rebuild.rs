//! Counting anew: after a stop that was not clean, all derived state is rebuilt.
//!
//! One pass over the trees counts references, each distinct node once; it grows with
//! nodes, not with clones. Then the names of the live volume are walked with one bit for
//! each inode: what has no name goes, and counts of names are set right.

use super::Volume;
use super::census::{Names, WAITING};
use crate::blocks::{Content, Reference};
use crate::error::{Error, Result};
use crate::format::inode::{
    self, INODE_WORDS, INODES_PER_BLOCK, ROOT_INO, slot_of, system, word_index,
};
use crate::format::word::{Salt, seal};
use crate::memory::{push_within, with_room};
use crate::pmem::Pmem;
use crate::types::*;
use crate::windows::mmu::Mmu;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Builds all derived state from the trees.
    pub(super) fn rebuild(&mut self) -> Result<()> {
        self.inodes.room = INODES_PER_BLOCK as u64;
        self.count(self.system_top(), Content::InodeNode(2), None, 0)?;
        self.retire_bad_blocks()?;
        let names = self.count_names()?;
        self.correct_names(&names)
    }

    /// Counts one reference to a block, and with the first one what the block refers to. `place`:
    /// which block of the live inode file it is, or the first one below it.
    fn count(
        &mut self,
        block: Block,
        content: Content,
        place: Option<u64>,
        depth: u32,
    ) -> Result<()> {
        match self.tree.blocks.count_reference(block, content)? {
            Reference::First => {}
            Reference::Further => return Ok(()),
            Reference::Mixed => {
                return Err(Error::Damaged { block, what: "it is used as two different things" });
            }
        }
        match content {
            Content::Data => return Ok(()),
            // Its inode says which copy is good.
            Content::Target => return Ok(()),
            content => self.tree.blocks.make_equal(block, content),
        }
        if !content.refers() {
            return Ok(());
        }
        // Three nodes and a block of inodes, twice, and the data: deeper is a loop.
        if depth > 9 {
            return Err(Error::Damaged { block, what: "a tree is deeper than any can be" });
        }
        let step = if content == Content::Inodes { INODE_WORDS } else { 1 };
        for index in (0..512).step_by(step as usize) {
            let (found, below) = match (content, place) {
                _ if block == self.tree.system => {
                    let live = (index == system::LIVE * INODE_WORDS).then_some(0);
                    (self.system_reference(index)?, live)
                }
                (Content::InodeNode(level), Some(first)) => {
                    let at = first + index as u64 * 512u64.pow(level as u32 - 1);
                    (self.block_in(block, content, index)?, Some(at))
                }
                _ => {
                    if let Some(at) = place {
                        self.inodes.room = self.inodes.room.max((at + 1) * INODES_PER_BLOCK as u64);
                    }
                    (self.block_in(block, content, index)?, None)
                }
            };
            if let Some((child, child_content)) = found {
                self.count(child, child_content, below, depth + 1)?;
                if child_content == Content::Target {
                    self.make_target_equal(block, index / INODE_WORDS, child);
                }
            }
        }
        Ok(())
    }

    /// What word `index` of a block refers to.
    pub(super) fn block_in(
        &self,
        block: Block,
        content: Content,
        index: u16,
    ) -> Result<Option<(Block, Content)>> {
        Ok(self.tree.follow(block, content, index)?.map(|(p, content)| (p.block, content)))
    }

    /// What a root in the block of system inodes refers to.
    pub(super) fn system_reference(&self, index: u16) -> Result<Option<(Block, Content)>> {
        if index % INODE_WORDS != inode::ROOT {
            return Ok(None);
        }
        let root = self.tree.root_in(self.tree.system, index / INODE_WORDS)?;
        let Some(root) = root else { return Ok(None) };
        let Some(top) = root.top else { return Ok(None) };
        let content = match index / INODE_WORDS {
            system::BAD_BLOCKS => Content::top_of(root),
            _ => Content::inode_file_top(root.height),
        };
        Ok(Some((top.block, content)))
    }

    /// Walks the names of all directories that have a name themselves. An inode without
    /// one is not looked at: a crash may have left it half written.
    fn count_names(&mut self) -> Result<Names> {
        let mut names = Names::new(self.inodes.room)?;
        names.note(ROOT_INO);
        let mut waiting = with_room(WAITING)?;
        push_within(&mut waiting, ROOT_INO);
        loop {
            let (mut missed, mut counted) = (false, Ok(()));
            while let Some(dir) = waiting.pop() {
                if !names.walk(dir) {
                    continue;
                }
                self.each_entry(dir, &mut |ino, kind| {
                    counted = counted.and_then(|()| names.add(ino));
                    if kind == Kind::Directory {
                        if waiting.len() < WAITING {
                            push_within(&mut waiting, ino);
                        } else {
                            missed = true;
                        }
                    }
                })
                .map_err(|error| match error {
                    // Its name says that there is a directory.
                    Error::NotFound | Error::NotDirectory => self.dangling(),
                    error => error,
                })?;
                counted?;
            }
            if !missed {
                return Ok(names);
            }
            self.each_inode(&mut |volume, ino, block, _| {
                let known = names.of(ino) == 0 || names.was_walked(ino) || waiting.len() == WAITING;
                if !known && volume.kind_in(block, ino)?.0 == Kind::Directory {
                    push_within(&mut waiting, ino);
                }
                Ok(())
            })?;
        }
    }

    fn dangling(&self) -> Error {
        Error::Damaged {
            block: self.tree.system,
            what: "a name leads to no inode, or to one of another kind",
        }
    }

    /// Drops inodes without a name, and sets counts of names right.
    fn correct_names(&mut self, names: &Names) -> Result<()> {
        loop {
            let mut nameless = arrayvec::ArrayVec::<Ino, 64>::new();
            let (mut named, mut used) = (0, 0);
            self.each_inode(&mut |volume, ino, block, _| {
                let is = names.of(ino);
                used += 1;
                named += (is > 0) as u64;
                if is == 0 {
                    let _ = nameless.try_push(ino);
                    return Ok(());
                }
                let directory = volume.kind_in(block, ino)?.0 == Kind::Directory;
                if directory != names.was_walked(ino) {
                    return Err(volume.dangling());
                }
                if volume.nlink_in(block, ino).ok() != Some(is) {
                    let index = word_index(slot_of(ino), inode::NLINK);
                    let names = seal(is.into(), Salt::inodes(block), index);
                    volume.tree.blocks.store_word(block, index, names);
                    volume.tree.blocks.flush_words(block, index, 1);
                }
                Ok(())
            })?;
            self.inodes.used = used;
            if named != names.distinct {
                return Err(self.dangling());
            }
            // Corrections are durable with the next fence; a crash before it finds them again.
            let more = nameless.is_full();
            for ino in nameless {
                self.drop_inode(ino)?;
            }
            if !more {
                return Ok(());
            }
        }
    }
}
