//! Blocks whose memory has lost data, as the volume remembers them.
//!
//! A block is on the list from the moment at which the memory reports it. Being on it changes no
//! count of references. What it changes:
//!
//! - content is not read from the block ([`Blocks::verify_readable`]);
//! - the block is not changed in place, even if one file has it alone;
//! - when its last reference goes, the block goes *out of use* and not to the free blocks. A block
//!   that was free when it was reported goes out of use at once. Its record then says, as that of
//!   the second superblock does, that it has more references than can be counted.
//!
//! While the list is empty all of that costs one test of [`Blocks::has_bad`].

use super::bad::MOST_BAD;
use super::{Blocks, STICKY};
use crate::error::{Error, Result};
use crate::pmem::{Pmem, Poisoned};
use crate::types::{BLOCK_SIZE, Block};

impl<P: Pmem> Blocks<P> {
    /// The blocks on the list, in ascending order.
    pub fn bad(&self) -> &[Block] {
        &self.bad.blocks
    }

    /// How many blocks of the list are out of use: nothing refers to them, and nothing gets them.
    pub fn out_of_use(&self) -> u64 {
        self.bad.out_of_use
    }

    /// Whether a block of the list is out of use.
    pub fn is_out_of_use(&self, block: Block) -> Result<bool, Poisoned> {
        Ok(self.count(block)? == STICKY)
    }

    /// Whether a block is on the list.
    #[inline(always)]
    pub fn is_bad(&self, block: Block) -> bool {
        self.has_bad && self.bad.blocks.binary_search(&block).is_ok()
    }

    /// Whether one of the `count` blocks from `first` on is on the list: the first one.
    #[inline(always)]
    pub fn first_bad(&self, first: Block, count: u64) -> Option<Block> {
        if self.has_bad { self.find_bad(first, count) } else { None }
    }

    #[cold]
    #[inline(never)]
    fn find_bad(&self, first: Block, count: u64) -> Option<Block> {
        let at = self.bad.blocks.partition_point(|&bad| bad < first);
        self.bad.blocks.get(at).copied().filter(|bad| bad.0 - first.0 < count)
    }

    /// Whether content can be read from `count` blocks that follow each other: an error names the
    /// first one that is on the list.
    #[inline(always)]
    pub fn verify_readable(&self, first: Block, count: u64) -> Result<(), Poisoned> {
        match self.first_bad(first, count) {
            Some(bad) => Err(Poisoned { at: bad.0 * BLOCK_SIZE }),
            None => Ok(()),
        }
    }

    /// Puts a block that the volume hands out on the list; false if it was there.
    pub fn add_bad(&mut self, block: Block) -> Result<bool> {
        let Err(at) = self.bad.blocks.binary_search(&block) else { return Ok(false) };
        if self.bad.blocks.len() == MOST_BAD {
            return Err(Error::NoSpace);
        }
        self.bad.blocks.try_reserve(1).map_err(|_| Error::NoMemory)?;
        self.bad.blocks.insert(at, block);
        self.has_bad = true;
        Ok(true)
    }

    /// Takes a block of the list out of use, if it is free.
    pub fn retire_if_free(&mut self, block: Block) -> Result<(), Poisoned> {
        match self.state(block)? {
            0 => {
                self.put_out_of_use(block);
                self.count_taken(block);
            }
            state if state as u32 == STICKY => self.bad.out_of_use += 1,
            _ => {}
        }
        Ok(())
    }

    /// Takes a block out of use that would be free from now on.
    pub(super) fn put_out_of_use(&mut self, block: Block) {
        self.note(block, 0, STICKY.into());
        self.set_state(block, STICKY.into());
        self.shared += 1;
        self.bad.out_of_use += 1;
    }

    /// Empties the list; what was out of use is free again.
    pub fn forget_bad(&mut self) -> Result<(), Poisoned> {
        let blocks = core::mem::take(&mut self.bad.blocks);
        (self.has_bad, self.bad.out_of_use) = (false, 0);
        for block in blocks {
            if self.state(block)? as u32 == STICKY {
                self.shared -= 1;
                self.note(block, STICKY.into(), 0);
                self.set_state(block, 0);
                self.count_free(block);
            }
        }
        Ok(())
    }
}
