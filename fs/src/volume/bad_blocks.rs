//! Memory errors: the list of bad blocks, in memory and on media.
//!
//! ```text
//!   memory_error(block, 1)
//!     translations of the block go: the next access faults, and is told
//!     the block is on the list: content is not read from it, nothing is stored into it in place
//!     a free block goes out of use
//!     the list is written anew, and published with one word: it survives whatever comes
//! ```
//!
//! A write of the whole block gives that file a fresh block, because a block on the list counts as
//! one that others show too. `blocks/badness.rs` says what becomes of the old one.
//!
//! Metadata that is on the list is used as before, as far as it can be loaded.

use super::Volume;
use super::bad_list::{BadBlockCounts, BadList, Struck};
use crate::blocks::{Content, MOST_BAD, Purpose};
use crate::error::Result;
use crate::format::inode::{self, system, word_index};
use crate::format::superblock::COPIES;
use crate::format::word::{Holds, NOTHING, Pointer, Root, Salt, seal};
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::stage::{Stage, Written};
use crate::types::*;
use crate::windows::mmu::Mmu;
use arrayvec::ArrayVec;

/// Entries in a block of the list.
const ENTRIES: usize = 512;
/// Most blocks that the list takes.
const MOST_BLOCKS: usize = MOST_BAD / ENTRIES;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// The memory has lost data in `count` blocks from `first` on: no translation shows them any
    /// more, and they are on the list of bad blocks, on media too. Until the list is cleared,
    /// content is not read from them: that fails with [`Error::Poisoned`](crate::Error::Poisoned),
    /// in every file that shares a block. A write of the whole block, a punch and a cut work, and
    /// end that for their file.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`](crate::Error::NoSpace) if the list is full: content of blocks may be read
    /// again then ([`BadBlockCounts::unlisted`]). For any other error the list in memory has the
    /// blocks, and the one on media may be behind ([`BadBlockCounts::unsaved`]).
    pub fn memory_error(&mut self, first: Block, count: u64) -> Result<Struck> {
        let geometry = self.tree.blocks.geometry;
        let mut struck = Struck::default();
        let mut result = Ok(());
        for block in (first.0..first.0.saturating_add(count).min(geometry.total)).map(Block) {
            if COPIES.contains(&block) {
                struck.superblocks += 1;
            } else if !geometry.holds(block) {
                struck.derived += 1;
            } else {
                match self.strike(block) {
                    Ok(new) => {
                        struck.new += u64::from(new);
                        struck.known += u64::from(!new);
                    }
                    Err(error) => result = Err(error),
                }
            }
        }
        self.save_bad_blocks()?;
        result.map(|()| struck)
    }

    /// Takes a block out of sight and puts it on the list in memory; false if it was there.
    fn strike(&mut self, block: Block) -> Result<bool> {
        let added = self.tree.blocks.add_bad(block);
        // Whether there is room on the list or not.
        self.dax.hide(&mut self.tree.blocks, block)?;
        let new = added.inspect_err(|_| self.bad_list.unlisted += 1)?;
        if new {
            self.bad_list.unsaved = true;
            self.tree.blocks.retire_if_free(block)?;
        }
        Ok(new)
    }

    /// The blocks on the list, in ascending order.
    pub fn bad_blocks(&self) -> &[Block] {
        self.tree.blocks.bad()
    }

    /// The list in numbers.
    pub fn bad_block_counts(&self) -> BadBlockCounts {
        let BadList { unlisted, unreadable, unsaved } = self.bad_list;
        let listed = self.tree.blocks.bad().len() as u64;
        let out_of_use = self.tree.blocks.out_of_use();
        BadBlockCounts { listed, out_of_use, unlisted, unreadable, unsaved }
    }

    /// Empties the list: whoever calls this knows that the memory is good again. What the blocks
    /// hold is read as it is. Returns how many blocks were on the list.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`](crate::Error::NoSpace), or a [media error](crate::Error#media-errors).
    pub fn clear_bad_blocks(&mut self) -> Result<u64> {
        let listed = self.tree.blocks.bad().len() as u64;
        self.tree.blocks.forget_bad()?;
        self.bad_list = BadList { unsaved: true, ..BadList::default() };
        self.save_bad_blocks()?;
        Ok(listed)
    }

    /// Writes the list, if the one on media is another one.
    pub(super) fn save_bad_blocks(&mut self) -> Result<()> {
        if !self.bad_list.unsaved {
            return Ok(());
        }
        let pieces = self.tree.blocks.bad().len().div_ceil(ENTRIES) as u64;
        self.tree.blocks.ensure(0, pieces + 1, Purpose::Release)?;
        let path = self.tree.system_path(system::BAD_BLOCKS);
        let mut stage = self.tree.stage();
        let root = self.fill_stage(&mut stage, |volume, stage| volume.stage_bad_blocks(stage))?;
        let word = [(word_index(system::BAD_BLOCKS, inode::ROOT), root.value())];
        self.tree.commit_and_release(stage, &[Edit::words(&path, &word)], Purpose::Release)?;
        self.bad_list.unsaved = false;
        Ok(())
    }

    /// Stages a file that has the list: no block, one, or one leaf with several.
    fn stage_bad_blocks(&mut self, stage: &mut Stage<Written>) -> Result<Root> {
        let mut blocks = ArrayVec::<Block, MOST_BLOCKS>::new();
        let purpose = Purpose::Release;
        for piece in 0..self.tree.blocks.bad().len().div_ceil(ENTRIES) {
            let to = stage.allocate_pair(&mut self.tree.blocks, purpose)?;
            let salt = Salt::bad_blocks(to.block());
            let mut bytes = [0; BLOCK_SIZE as usize];
            let listed = self.tree.blocks.bad()[piece * ENTRIES..].iter().map(|block| block.0);
            let values = listed.chain(core::iter::repeat(NOTHING));
            for ((word, value), index) in bytes.chunks_exact_mut(8).zip(values).zip(0..) {
                word.copy_from_slice(&seal(value, salt, index).to_le_bytes());
            }
            stage.write(&mut self.tree.blocks.pmem, &to, 0, &bytes);
            blocks.push(to.block());
        }
        if blocks.len() <= 1 {
            let top = blocks.first().map(|&block| Pointer::to(block));
            return Ok(Root { height: 0, top, holds: Holds::BadBlocks });
        }
        let leaf = stage.allocate_pair(&mut self.tree.blocks, purpose)?;
        let content = Content::BadBlocksNode(1);
        stage.write_empty(&mut self.tree.blocks.pmem, &leaf, content);
        for (&block, index) in blocks.iter().zip(0..) {
            let value = Pointer::to(block).value();
            stage.store_entry(&mut self.tree.blocks.pmem, &leaf, content, index, value);
        }
        let top = Some(Pointer::to(leaf.block()));
        Ok(Root { height: 1, top, holds: Holds::BadBlocks })
    }

    /// Reads the list from media: what a mount does first, because what was lost must not be handed
    /// out. What cannot be read of it is left out, and counted.
    pub(super) fn read_bad_blocks(&mut self) {
        for block in self.blocks_of_list() {
            for index in 0..ENTRIES as u16 {
                let what = "an entry fails its check";
                let value = self.tree.blocks.value(block, Content::BadBlocks, index, what);
                match value.map(Block) {
                    Ok(Block(NOTHING)) => {}
                    Ok(bad)
                        if self.tree.blocks.geometry.holds(bad)
                            && self.tree.blocks.add_bad(bad).is_ok() => {}
                    _ => self.bad_list.unreadable += 1,
                }
            }
        }
    }

    /// The blocks that the list is in.
    fn blocks_of_list(&mut self) -> ArrayVec<Block, MOST_BLOCKS> {
        let root = self.tree.root_in(self.tree.system, system::BAD_BLOCKS);
        let holds = |block: &Block| self.tree.blocks.geometry.holds(*block);
        let (mut found, mut unreadable) = (ArrayVec::<Block, MOST_BLOCKS>::new(), 0);
        match root {
            Ok(Some(Root { top: None, .. })) => {}
            Ok(Some(Root { height: 0, top: Some(top), .. })) => found.push(top.block),
            Ok(Some(Root { height: 1, top: Some(leaf), .. })) if holds(&leaf.block) => {
                for index in 0..MOST_BLOCKS as u16 {
                    match self.tree.follow(leaf.block, Content::BadBlocksNode(1), index) {
                        Ok(Some((pointer, _))) => found.push(pointer.block),
                        Ok(None) => {}
                        Err(_) => unreadable += ENTRIES as u64,
                    }
                }
            }
            _ => unreadable += ENTRIES as u64,
        }
        found.retain(|block| holds(block));
        self.bad_list.unreadable += unreadable;
        found
    }

    /// Takes what is free of the list out of use, once it is known what is free.
    pub(super) fn retire_bad_blocks(&mut self) -> Result<()> {
        for at in 0..self.tree.blocks.bad().len() {
            let block = self.tree.blocks.bad()[at];
            self.tree.blocks.retire_if_free(block)?;
        }
        Ok(())
    }
}
