//! Blocks that are lent to a device, which receives content into them: a file that takes them over
//! needs no copy.
//!
//! They count as free, and are given to nobody else. A file takes over any of them, by the same
//! commit that publishes blocks which were written; what it leaves is free again when the device
//! gives the run back. No block is in two runs.
//!
//! A run of which nothing was taken over is lent again before others: or a device that receives
//! what is then copied would go through all that is free, and a host would have to find memory for
//! it.

use super::lent::{LENT, LENT_RUN, Lending};
use super::{Blocks, Distance, Fresh, Purpose};
use crate::error::{Error, Result};
use crate::pmem::{Pmem, Poisoned};
use crate::types::Block;

/// Places that are looked at for a run.
const TRIES: u32 = 4;

/// Of what is free, at most one part in this many is lent: a device cannot be asked to give it
/// back.
const SHARE: u64 = 8;

impl<P: Pmem> Blocks<P> {
    /// Lends [`LENT_RUN`] blocks; `None` if free blocks are few, or scattered where they are looked
    /// for.
    pub fn lend(&mut self) -> Option<Block> {
        let lent = (self.lent.runs.len() as u64 + 1) * LENT_RUN;
        if self.lent.runs.is_full() || lent * SHARE > self.free_or_lent() {
            return None;
        }
        while let Some(run) = self.lent.returned.pop() {
            if self.lend_again(run) {
                return Some(run);
            }
        }
        let cursor = self.cursor;
        for _ in 0..TRIES {
            let run = self.take_run(LENT_RUN, Purpose::Grow, LENT).ok()?;
            self.lent.blocks += run.count;
            if run.count == LENT_RUN
                && self.lent.runs.iter().all(|other| other.0.abs_diff(run.first.0) >= LENT_RUN)
            {
                self.lent.runs.push(run.first);
                return Some(run.first);
            }
            // It ends with its group, or at a block in use; or some of it is free because a file
            // has taken it over and dropped it, but the run that it was in is not back yet, and
            // would take it along.
            run.blocks().for_each(|block| self.free_if_lent(block));
        }
        // Others need no runs.
        self.cursor = cursor;
        None
    }

    /// Lends a run that is free, if it still is.
    fn lend_again(&mut self, run: Block) -> bool {
        let blocks = (run.0..run.0 + LENT_RUN).map(Block);
        if !blocks.clone().all(|block| self.state(block) == Ok(0)) {
            return false;
        }
        blocks.for_each(|block| {
            self.note(block, 0, LENT);
            self.set_state(block, LENT);
            self.count_taken(block);
        });
        self.lent.blocks += LENT_RUN;
        self.lent.runs.push(run);
        true
    }

    /// The device has given a run back: what no file has taken over is free.
    pub fn take_back(&mut self, run: Block) {
        let Some(at) = self.lent.runs.iter().position(|&first| first == run) else { return };
        self.lent.runs.swap_remove(at);
        let before = self.lent.blocks;
        (run.0..run.0 + LENT_RUN).for_each(|block| self.free_if_lent(Block(block)));
        if before - self.lent.blocks == LENT_RUN && !self.lent.returned.is_full() {
            self.lent.returned.push(run);
        }
    }

    /// Takes back all runs; what the device still receives goes to blocks that hold nothing.
    pub fn take_back_all(&mut self) {
        while let Some(&run) = self.lent.runs.last() {
            self.take_back(run);
        }
    }

    /// Blocks that are lent, to be taken over by a stage.
    pub fn received(&self, first: Block, count: u64) -> Result<Fresh> {
        for block in first.0..first.0.saturating_add(count) {
            if block >= self.geometry.total || !self.is_lent(Block(block))? {
                return Err(Error::Invalid(
                    "content that was received into blocks which are not lent",
                ));
            }
        }
        Ok(Fresh { first, count, twin: Distance::NONE })
    }

    /// Whether a block is lent, and no file has taken it over.
    pub fn is_lent(&self, block: Block) -> Result<bool, Poisoned> {
        Ok(self.state(block)? == LENT)
    }

    /// Those of these blocks that were lent belong to a file now. Out of line: the page-fault path
    /// is better off without it.
    #[inline(never)]
    pub fn keep(&mut self, blocks: &[Block]) {
        for &block in blocks {
            // A record that cannot be read now says nothing: the block stays taken until a rebuild.
            if self.is_lent(block) == Ok(true) {
                self.note(block, LENT, 1);
                self.set_state(block, 1);
                self.lent.blocks -= 1;
                self.lent.taken_over += 1;
            }
        }
    }

    /// What is lent, and what became of it.
    pub fn lending(&self) -> Lending {
        Lending { lent: self.lent.blocks, taken_over: self.lent.taken_over }
    }

    fn free_if_lent(&mut self, block: Block) {
        // As above.
        if self.is_lent(block) == Ok(true) {
            self.lent.blocks -= 1;
            self.note(block, LENT, 0);
            if self.is_bad(block) {
                return self.put_out_of_use(block);
            }
            self.set_state(block, 0);
            self.count_free(block);
        }
    }
}
