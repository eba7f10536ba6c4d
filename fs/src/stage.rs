//! The order of a commit, as types.
//!
//! ```text
//! Stage<Written> --flush--> Stage<Flushed> --fence--> Stage<Durable>
//!                                                        |  publish, in an Exclusive block
//! Published<Written> --flush--> Published<Flushed> --fence--> Published<Durable> --> release
//! ```
//!
//! New content is written only through a [`Stage`]; a pointer to it is published only by
//! [`Exclusive::publish`], which takes nothing but a durable stage; what the change dropped
//! is reused only after [`Blocks::release`], which takes nothing but a durable publication.
//! A step left out does not compile.

use crate::blocks::{Blocks, Content, Purpose};
use crate::error::Result;
use crate::pmem::{Pmem, Poisoned};
use crate::types::{BLOCK_SIZE, Block};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::marker::PhantomData;

/// Stored, in whatever order the processor likes.
pub(crate) struct Written;
/// On its way to the media.
pub(crate) struct Flushed;
/// On the media, before anything that is stored from now on.
pub(crate) struct Durable;

/// Ranges that a stage remembers before it starts to flush early. Few: a stage is moved from
/// state to state by value, on the page-fault path too.
const RANGES: usize = 4;

/// Content that nothing on media refers to yet.
#[must_use]
pub(crate) struct Stage<S> {
    /// Byte ranges that were written and not flushed.
    ranges: ArrayVec<(u64, u64), RANGES>,
    /// Blocks that were allocated for it.
    fresh: Vec<Block>,
    /// Something was written at all.
    used: bool,
    state: PhantomData<S>,
}

impl Stage<Written> {
    /// An empty stage; `fresh` is an empty list whose memory is used.
    pub fn new(fresh: Vec<Block>) -> Self {
        debug_assert!(fresh.is_empty());
        Stage { ranges: ArrayVec::new(), fresh, used: false, state: PhantomData }
    }

    /// Allocates a block whose content will be written through this stage.
    pub fn allocate<P: Pmem>(&mut self, blocks: &mut Blocks<P>, purpose: Purpose) -> Result<Block> {
        let block = blocks.allocate(purpose)?;
        self.fresh.push(block);
        Ok(block)
    }

    /// Remembers a range that has to be flushed.
    fn wrote<P: Pmem>(&mut self, pmem: &mut P, at: u64, len: u64) {
        self.used = true;
        if let Some(last) = self.ranges.last_mut()
            && last.0 + last.1 == at
        {
            last.1 += len;
        } else if self.ranges.try_push((at, len)).is_err() {
            // Flushing early is always right.
            pmem.flush(at, len);
        }
    }

    /// Writes bytes.
    pub fn write<P: Pmem>(&mut self, pmem: &mut P, at: u64, bytes: &[u8]) {
        pmem.write(at, bytes);
        self.wrote(pmem, at, bytes.len() as u64);
    }

    /// Stores a word.
    pub fn store<P: Pmem>(&mut self, pmem: &mut P, block: Block, index: u16, value: u64) {
        let at = block.0 * BLOCK_SIZE + index as u64 * 8;
        pmem.store(at, value);
        self.wrote(pmem, at, 8);
    }

    /// Writes zeros.
    pub fn zero<P: Pmem>(&mut self, pmem: &mut P, at: u64, len: u64) {
        pmem.zero(at, len);
        self.wrote(pmem, at, len);
    }

    /// Copies a whole block.
    pub fn copy_block<P: Pmem>(&mut self, pmem: &mut P, from: Block, to: Block) -> Result<(), Poisoned> {
        pmem.copy(from.0 * BLOCK_SIZE, to.0 * BLOCK_SIZE, BLOCK_SIZE)?;
        self.wrote(pmem, to.0 * BLOCK_SIZE, BLOCK_SIZE);
        Ok(())
    }

    /// Starts writing everything back.
    pub fn flush<P: Pmem>(mut self, pmem: &mut P) -> Stage<Flushed> {
        for (at, len) in self.ranges.drain(..) {
            pmem.flush(at, len);
        }
        Stage { ranges: ArrayVec::new(), fresh: self.fresh, used: self.used, state: PhantomData }
    }

    /// Gives everything up: the blocks are free again. Returns the list for reuse.
    pub fn abandon<P: Pmem>(mut self, blocks: &mut Blocks<P>) -> Vec<Block> {
        for block in self.fresh.drain(..) {
            blocks.unallocate(block);
        }
        self.fresh
    }
}

impl Stage<Flushed> {
    /// Ends a stage that only overwrote blocks in place, where nothing is published: it is
    /// durable with the next fence. Returns the list for reuse.
    pub fn unfenced(mut self) -> Vec<Block> {
        debug_assert!(self.fresh.is_empty());
        self.fresh.clear();
        self.fresh
    }

    /// Waits until it is durable. An empty stage needs no fence.
    pub fn fence<P: Pmem>(self, pmem: &mut P) -> Stage<Durable> {
        if self.used {
            pmem.fence();
        }
        Stage { ranges: ArrayVec::new(), fresh: self.fresh, used: self.used, state: PhantomData }
    }
}

impl Stage<Durable> {
    /// The list of fresh blocks, emptied, for reuse: they are published, or hold nothing.
    pub fn finish(mut self) -> Vec<Block> {
        self.fresh.clear();
        self.fresh
    }
}

/// What a change dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retire {
    /// One reference to the block went.
    Drop(Block, Content),
    /// The block was copied, and its copy took over its references and its place.
    Moved(Block),
}

/// A block to which exactly one path leads, each step of it the only reference to its
/// block: a word in it can be changed in place. It borrows the blocks of the volume, so
/// that nothing can be shared while it lives.
pub(crate) struct Exclusive<'v, P> {
    blocks: &'v mut Blocks<P>,
    block: Block,
}

impl<'v, P: Pmem> Exclusive<'v, P> {
    /// Verifies that every block of `path`, from the top on, has one reference.
    pub fn new(
        blocks: &'v mut Blocks<P>,
        path: impl Iterator<Item = Block>,
    ) -> Result<Option<Self>, Poisoned> {
        let mut last = None;
        for block in path {
            if blocks.count(block)? != 1 {
                return Ok(None);
            }
            last = Some(block);
        }
        Ok(last.map(|block| Exclusive { blocks, block }))
    }

    /// Stores the words that make a durable stage part of the tree, each in one store.
    pub fn publish(
        self,
        words: &[(u16, u64)],
        stage: &Stage<Durable>,
        retired: Vec<Retire>,
    ) -> Published<Written> {
        let _ = stage;
        let mut first = u16::MAX;
        let mut last = 0;
        for &(index, value) in words {
            self.blocks.pmem.store(self.block.0 * BLOCK_SIZE + index as u64 * 8, value);
            first = first.min(index);
            last = last.max(index);
        }
        Published { block: self.block, first, last, retired, state: PhantomData }
    }
}

/// A change that has been published, and what it dropped.
#[must_use]
pub(crate) struct Published<S> {
    block: Block,
    first: u16,
    last: u16,
    retired: Vec<Retire>,
    state: PhantomData<S>,
}

impl Published<Written> {
    /// Starts writing the words back.
    pub fn flush<P: Pmem>(self, pmem: &mut P) -> Published<Flushed> {
        if self.first <= self.last {
            let at = self.block.0 * BLOCK_SIZE + self.first as u64 * 8;
            pmem.flush(at, (self.last - self.first) as u64 * 8 + 8);
        }
        self.turn()
    }
}

impl Published<Flushed> {
    /// Waits until the change is durable.
    pub fn fence<P: Pmem>(self, pmem: &mut P) -> Published<Durable> {
        pmem.fence();
        self.turn()
    }
}

impl Published<Durable> {
    /// What was dropped, for [`Blocks::release`].
    pub fn into_retired(self) -> Vec<Retire> {
        self.retired
    }
}

impl<S> Published<S> {
    fn turn<T>(self) -> Published<T> {
        Published {
            block: self.block,
            first: self.first,
            last: self.last,
            retired: self.retired,
            state: PhantomData,
        }
    }
}
