//! A scrub: all that is in use is loaded once, so that the memory reports what it cannot deliver.
//!
//! ```text
//!   blocks    from the first to the last. One with content is loaded; one of metadata is compared
//!             with its second copy, and mended from it; superblocks and records are loaded
//!   targets   of symbolic links whose copies differ: which one is good, their inodes tell
//! ```
//!
//! It goes by the numbers of blocks, not by trees: what many files share is loaded once. Between
//! two steps a number says how far it is. Others change the volume meanwhile. A block that was free
//! when its turn came, and is in use now, was written since.
//!
//! One scrub is remembered: the last one that was begun. What is wrong with both copies of a block,
//! or with words that are good and lead to the wrong place, a [check](super::check) finds.

use super::Volume;
use crate::blocks::{Load, Unequal};
use crate::error::{Error, Result};
use crate::format::inode::INODES_PER_BLOCK;
use crate::format::word::Holds;
use crate::pmem::{Pmem, Poisoned};
use crate::types::{Block, Time};
use crate::windows::mmu::Mmu;

/// Work of a step, in units: that of a look at a record.
const WORK_A_STEP: u64 = 1 << 13;
/// Units of a block that is loaded.
const LOADED: u64 = 32;
/// Units of two copies that are compared.
const COMPARED: u64 = 64;
/// Units of a block that has to be mended, or goes on the list of bad blocks.
const FOUND: u64 = WORK_A_STEP / 2;

/// A scrub: how far it is, and what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// Counts the scrubs since mount, from 1 on.
    pub number: u64,
    /// When it began.
    pub began: Time,
    /// When it was over; `None`: it is not.
    pub ended: Option<Time>,
    /// The next block.
    pub next: Block,
    /// Blocks that the volume has.
    pub total: u64,
    /// Blocks that were loaded, both copies of metadata included.
    pub loaded: u64,
    /// Blocks of metadata whose copies were compared.
    pub pairs: u64,
    /// Blocks of metadata of which a copy was written anew from the other.
    pub mended: u64,
    /// Blocks of metadata whose copies are good, and differ; nothing was done.
    pub differ: u64,
    /// Blocks of metadata that are bad in both copies.
    pub damaged: u64,
    /// Blocks that the memory cannot deliver, those included that were mended.
    pub lost: u64,
    /// Targets of symbolic links whose copies differ, and that wait for their inodes.
    targets: u64,
    /// The next block of the inode file, once targets are looked for.
    inodes: u64,
}

impl Scrub {
    /// Blocks that something was found of.
    pub fn findings(&self) -> u64 {
        self.lost.saturating_add(self.mended).saturating_add(self.differ + self.damaged)
    }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Begins a scrub, in the place of the last one.
    pub fn begin_scrub(&mut self, now: Time) -> Scrub {
        *self.scrub.insert(Scrub {
            number: self.scrub.map_or(0, |last| last.number) + 1,
            began: now,
            ended: None,
            next: Block(0),
            total: self.tree.blocks.geometry.total,
            loaded: 0,
            pairs: 0,
            mended: 0,
            differ: 0,
            damaged: 0,
            lost: 0,
            targets: 0,
            inodes: 0,
        })
    }

    /// The last scrub that was begun.
    pub fn last_scrub(&self) -> Option<Scrub> {
        self.scrub
    }

    /// Takes one bounded step of scrub `number`, which ends before block `end`, or with the whole
    /// scrub. What it mended is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`]: another one has begun since.
    pub fn scrub_step(&mut self, number: u64, end: Block, now: Time) -> Result<Scrub> {
        let Some(mut scrub) = self.scrub.filter(|scrub| scrub.number == number) else {
            return Err(Error::Busy("another scrub has begun"));
        };
        if scrub.ended.is_some() {
            return Ok(scrub);
        }
        let mended = scrub.mended;
        let mut left = self.check_work_a_step.unwrap_or(WORK_A_STEP);
        while left > 0 && scrub.next.0 < scrub.total && scrub.next < end {
            left = left.saturating_sub(self.scrub_block(scrub.next, &mut scrub));
            scrub.next.0 += 1;
        }
        while left > 0 && scrub.next.0 >= scrub.total && scrub.ended.is_none() {
            left = left.saturating_sub(FOUND);
            if scrub.targets == 0 || !self.scrub_targets(&mut scrub) {
                scrub.damaged += core::mem::take(&mut scrub.targets);
                scrub.ended = Some(now);
            }
        }
        if scrub.mended != mended {
            self.tree.blocks.pmem.fence();
        }
        self.scrub = Some(scrub);
        Ok(scrub)
    }

    /// Loads and compares what is in a block. Returns what that took, in units.
    fn scrub_block(&mut self, block: Block, scrub: &mut Scrub) -> u64 {
        let load = match self.tree.blocks.scrubbed(block) {
            Ok(load) => load,
            // Its record is lost. The block that has the record was counted when its turn came.
            Err(Poisoned { .. }) => return 1,
        };
        match load {
            Load::Nothing => 1,
            Load::One(block) => {
                scrub.loaded += 1;
                if self.tree.blocks.load_all(block).is_ok() {
                    return LOADED;
                }
                scrub.lost += 1;
                // If the list of bad blocks cannot take it, the list says so itself.
                let _ = self.memory_error(block, 1);
                FOUND
            }
            Load::Pair(twin) => {
                scrub.loaded += 2;
                scrub.pairs += 1;
                if self.tree.blocks.are_equal(block, twin) {
                    return COMPARED;
                }
                let copies = [block, twin];
                let unreadable = |copy: &&Block| self.tree.blocks.load_all(**copy).is_err();
                scrub.lost += copies.iter().filter(unreadable).count() as u64;
                match self.tree.blocks.mend_unequal(block, twin) {
                    Unequal::Mended => scrub.mended += 1,
                    // It counts as lost, and goes on the list.
                    Unequal::OneLeft => {}
                    Unequal::Differ => scrub.differ += 1,
                    Unequal::Damaged => scrub.damaged += 1,
                    Unequal::Target => scrub.targets += 1,
                }
                // What cannot be read although it was written anew does not hold what is stored.
                for copy in copies {
                    if self.tree.blocks.load_all(copy).is_err() {
                        let _ = self.memory_error(copy, 1);
                    }
                }
                FOUND
            }
        }
    }

    /// Mends targets of symbolic links in the next block of inodes; false if there is none.
    fn scrub_targets(&mut self, scrub: &mut Scrub) -> bool {
        let Ok(Some((at, inodes))) = self.inode_block_behind(scrub.inodes) else { return false };
        scrub.inodes = at + 1;
        for slot in 0..INODES_PER_BLOCK {
            let Ok(Some(root)) = self.tree.root_in(inodes, slot) else { continue };
            let Some(top) = root.top.filter(|_| root.holds == Holds::Target) else { continue };
            let Ok(Load::Pair(twin)) = self.tree.blocks.scrubbed(top.block) else { continue };
            if self.tree.blocks.are_equal(top.block, twin) {
                continue;
            }
            self.make_target_equal(inodes, slot, top.block);
            if self.tree.blocks.are_equal(top.block, twin) {
                scrub.mended += 1;
                scrub.targets = scrub.targets.saturating_sub(1);
            }
        }
        true
    }
}
