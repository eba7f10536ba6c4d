//! The order of a commit, as types.
//!
//! ```text
//! Stage<Written> --flush--> Stage<Flushed> --fence--> Stage<Durable>
//!                                                        |  publish, in an Exclusive block
//! Published<Written> --flush--> Published<Flushed> --fence--> Published<Durable> --> release
//! ```
//!
//! New content is written only through a [`Stage`], into a [`Fresh`] block or a place in an
//! [`Exclusive`] one that is not in use; a pointer to it is published only by
//! [`Exclusive::publish`], which takes nothing but a durable stage; what the change dropped
//! is reused only after [`Blocks::release`], which takes nothing but a durable publication.
//! An [`Unwritten`] block is filled like a fresh one, because it reads as zeros until the word that
//! leads to it is replaced; the pointer for that word comes from filling all of the block.
//! A block is found to be exclusive or [`Shared`], and a shared one has no way to store.
//! A step left out does not compile.

use crate::blocks::{Blocks, Content, DurableChange, Fresh, Purpose, Retire};
use crate::error::Result;
use crate::format::word::{NOWHERE, Pointer, fill, reseal, seal};
use crate::memory::push_within;
use crate::pmem::{Pmem, Poisoned};
use crate::types::{BLOCK_SIZE, Block};
use alloc::vec::Vec;
use core::marker::PhantomData;

/// Stored, in whatever order the processor likes.
pub(crate) struct Written;
/// On its way to the media.
pub(crate) struct Flushed;
/// On the media, before anything that is stored from now on.
pub(crate) struct Durable;

/// Ranges that a stage remembers before it starts to flush early.
const RANGES: usize = 4;

/// Words that are sealed together.
const WORDS: usize = 64;

/// Byte offset in the region of a place in a block.
fn byte_at(block: Block, offset: u64) -> u64 {
    block.0 * BLOCK_SIZE + offset
}

/// What a stage remembers. The memory is reused by the next stage; it is not within the stage,
/// because a stage is moved from state to state by value, on the page-fault path too.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// Byte ranges that were written and not flushed, at most [`RANGES`].
    ranges: Vec<(u64, u64)>,
    /// Blocks that were allocated for the stage.
    fresh: Vec<Block>,
}

impl Lists {
    /// Empty lists, with room for all ranges and for `fresh` blocks.
    #[allow(clippy::disallowed_methods, reason = "a mount takes what it needs for good")]
    pub fn with_capacity(fresh: usize) -> Self {
        Lists { ranges: Vec::with_capacity(RANGES), fresh: Vec::with_capacity(fresh) }
    }

    /// Whether both have memory.
    #[cfg(test)]
    pub fn have_memory(&self) -> bool {
        self.ranges.capacity() > 0 && self.fresh.capacity() > 0
    }
}

/// Content that nothing on media refers to yet.
#[must_use]
pub(crate) struct Stage<S> {
    lists: Lists,
    /// Something was written at all.
    used: bool,
    /// Of the fresh blocks, some were lent.
    received: bool,
    state: PhantomData<S>,
}

impl Stage<Written> {
    /// An empty stage; `lists` are empty, and their memory is used.
    #[inline]
    pub fn new(lists: Lists) -> Self {
        debug_assert!(lists.ranges.is_empty() && lists.fresh.is_empty());
        Stage { lists, used: false, received: false, state: PhantomData }
    }

    /// Allocates a block whose content will be written through this stage.
    #[inline(always)]
    pub fn allocate<P: Pmem>(&mut self, blocks: &mut Blocks<P>, purpose: Purpose) -> Result<Fresh> {
        let fresh = blocks.allocate(purpose)?;
        push_within(&mut self.lists.fresh, fresh.block());
        Ok(fresh)
    }

    /// Allocates up to `most` blocks that follow each other.
    #[inline]
    pub fn allocate_run<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        most: u64,
        purpose: Purpose,
    ) -> Result<Fresh> {
        let fresh = blocks.allocate_run(most, purpose)?;
        fresh.blocks().for_each(|block| push_within(&mut self.lists.fresh, block));
        Ok(fresh)
    }

    /// Takes over blocks that a device has filled.
    #[inline]
    pub fn receive<P: Pmem>(&mut self, pmem: &mut P, run: &Fresh) {
        self.received = true;
        run.blocks().for_each(|block| push_within(&mut self.lists.fresh, block));
        self.wrote(pmem, byte_at(run.block(), 0), run.len());
    }

    /// Remembers a range that has to be flushed.
    #[inline]
    fn wrote<P: Pmem>(&mut self, pmem: &mut P, at: u64, len: u64) {
        self.used = true;
        if let Some(last) = self.lists.ranges.last_mut()
            && last.0 + last.1 == at
        {
            last.1 += len;
        } else if self.lists.ranges.len() < RANGES {
            push_within(&mut self.lists.ranges, (at, len));
        } else {
            // Flushing early is always right.
            pmem.flush(at, len);
        }
    }

    #[inline]
    fn write_at<P: Pmem>(&mut self, pmem: &mut P, at: u64, bytes: &[u8]) {
        pmem.write(at, bytes);
        self.wrote(pmem, at, bytes.len() as u64);
    }

    #[inline]
    fn zero_at<P: Pmem>(&mut self, pmem: &mut P, at: u64, len: u64) {
        pmem.zero(at, len);
        self.wrote(pmem, at, len);
    }

    #[inline]
    fn store_at<P: Pmem>(&mut self, pmem: &mut P, at: u64, value: u64) {
        pmem.store(at, value);
        self.wrote(pmem, at, 8);
    }

    /// Writes bytes from `offset` on.
    #[inline]
    pub fn write<P: Pmem>(&mut self, pmem: &mut P, to: &Fresh, offset: u64, bytes: &[u8]) {
        debug_assert!(offset + bytes.len() as u64 <= to.len());
        self.write_at(pmem, byte_at(to.block(), offset), bytes);
    }

    /// Seals and stores a word of a block that holds `content`.
    #[inline]
    pub fn store_entry<P: Pmem>(
        &mut self,
        pmem: &mut P,
        to: &Fresh,
        content: Content,
        index: u16,
        value: u64,
    ) {
        let word = seal(value, content.salt(to.block()), index);
        self.store_at(pmem, byte_at(to.block(), index as u64 * 8), word);
    }

    /// Fills a block of words with nothing, sealed.
    pub fn write_empty<P: Pmem>(&mut self, pmem: &mut P, to: &Fresh, content: Content) {
        let (salt, at) = (content.salt(to.block()), byte_at(to.block(), 0));
        let mut words = [[0; 8]; WORDS];
        for first in (0..512).step_by(WORDS) {
            fill(&mut words, salt, first as u16);
            pmem.write(at + first as u64 * 8, words.as_flattened());
        }
        self.wrote(pmem, at, BLOCK_SIZE);
    }

    /// Copies a block of words, and seals them for their new place. One that does not open there
    /// does not open here.
    pub fn copy_words<P: Pmem>(
        &mut self,
        pmem: &mut P,
        from: Block,
        to: &Fresh,
        content: Content,
    ) -> Result<(), Poisoned> {
        let (old, new) = (content.salt(from), content.salt(to.block()));
        let sealed = content.words() * 8;
        let mut words = [[0; 8]; WORDS];
        for at in (0..sealed).step_by(WORDS * 8) {
            pmem.read(byte_at(from, at), words.as_flattened_mut())?;
            reseal(&mut words, old, new);
            pmem.write(byte_at(to.block(), at), words.as_flattened());
        }
        if sealed < BLOCK_SIZE {
            let rest = byte_at(to.block(), sealed);
            pmem.copy(byte_at(from, sealed), rest, BLOCK_SIZE - sealed)?;
        }
        self.wrote(pmem, byte_at(to.block(), 0), BLOCK_SIZE);
        Ok(())
    }

    /// Writes a block of words that were sealed for [`NOWHERE`], and seals them for their place.
    pub fn write_words<P: Pmem>(
        &mut self,
        pmem: &mut P,
        to: &Fresh,
        content: Content,
        block: &[u8; BLOCK_SIZE as usize],
    ) {
        let (old, new) = (content.salt(NOWHERE), content.salt(to.block()));
        let (sealed, rest) = block.split_at(content.words() as usize * 8);
        let mut words = [[0; 8]; WORDS];
        let mut at = byte_at(to.block(), 0);
        for piece in sealed.chunks_exact(WORDS * 8) {
            words.as_flattened_mut().copy_from_slice(piece);
            reseal(&mut words, old, new);
            pmem.write(at, words.as_flattened());
            at += piece.len() as u64;
        }
        pmem.write(at, rest);
        self.wrote(pmem, byte_at(to.block(), 0), BLOCK_SIZE);
    }

    /// Writes zeros from `offset` on.
    #[inline]
    pub fn zero<P: Pmem>(&mut self, pmem: &mut P, to: &Fresh, offset: u64, len: u64) {
        debug_assert!(offset + len <= to.len());
        self.zero_at(pmem, byte_at(to.block(), offset), len);
    }

    /// Copies a whole block.
    #[inline]
    pub fn copy_block<P: Pmem>(
        &mut self,
        pmem: &mut P,
        from: Block,
        to: &Fresh,
    ) -> Result<(), Poisoned> {
        let at = byte_at(to.block(), 0);
        pmem.copy(byte_at(from, 0), at, BLOCK_SIZE)?;
        self.wrote(pmem, at, BLOCK_SIZE);
        Ok(())
    }

    /// Starts writing everything back.
    #[inline]
    pub fn flush<P: Pmem>(mut self, pmem: &mut P) -> Stage<Flushed> {
        for &(at, len) in &self.lists.ranges {
            pmem.flush(at, len);
        }
        self.lists.ranges.clear();
        self.into_state()
    }
}

impl Stage<Flushed> {
    /// Ends a stage that only overwrote blocks in place, where nothing is published: it is
    /// durable with the next fence. Returns the lists for reuse.
    #[inline]
    pub fn unfenced(mut self) -> Lists {
        debug_assert!(self.lists.fresh.is_empty());
        self.lists.fresh.clear();
        self.lists
    }

    /// Waits until it is durable. An empty stage needs no fence.
    #[inline]
    pub fn fence<P: Pmem>(self, pmem: &mut P) -> Stage<Durable> {
        if self.used {
            pmem.fence();
        }
        self.into_state()
    }
}

impl Stage<Durable> {
    /// The lists, emptied, for reuse: the fresh blocks are published.
    #[inline(always)]
    pub fn finish<P: Pmem>(mut self, blocks: &mut Blocks<P>) -> Lists {
        if self.received {
            blocks.keep(&self.lists.fresh);
        }
        self.lists.fresh.clear();
        self.lists
    }
}

impl<S> Stage<S> {
    /// Whether anything was written.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Gives everything up: the blocks are free again. Returns the lists for reuse. What was
    /// overwritten in place stays, and is flushed.
    pub fn abandon<P: Pmem>(mut self, blocks: &mut Blocks<P>) -> Lists {
        for (at, len) in self.lists.ranges.drain(..) {
            blocks.pmem.flush(at, len);
        }
        for block in self.lists.fresh.drain(..) {
            blocks.unallocate(block);
        }
        self.lists
    }

    #[inline(always)]
    fn into_state<T>(self) -> Stage<T> {
        Stage { lists: self.lists, used: self.used, received: self.received, state: PhantomData }
    }
}

/// What a block at the end of a path is.
pub(crate) enum Place<'v, P> {
    /// Only this path leads to it.
    Exclusive(Exclusive<'v, P>),
    /// Others show it too.
    Shared(Shared),
}

/// A block that others show too, or that is below such a one: it can be copied, and nothing else.
pub(crate) struct Shared(());

/// A block to which exactly one path leads, each step of it the only reference to its
/// block: a word in it can be changed in place. It borrows the blocks of the volume, so
/// that nothing can be shared while it lives.
pub(crate) struct Exclusive<'v, P> {
    blocks: &'v mut Blocks<P>,
    block: Block,
}

impl<'v, P: Pmem> Place<'v, P> {
    /// Finds out about the last block of a path that starts at the top: whether each block of
    /// it has one reference. An empty path leads to nothing that could be changed.
    #[inline(always)]
    pub fn find(
        blocks: &'v mut Blocks<P>,
        path: impl Iterator<Item = Block>,
    ) -> Result<Self, Poisoned> {
        let mut last = None;
        for block in path {
            if blocks.count(block)? != 1 {
                return Ok(Place::Shared(Shared(())));
            }
            last = Some(block);
        }
        Ok(match last {
            Some(block) => Place::Exclusive(Exclusive { blocks, block }),
            None => Place::Shared(Shared(())),
        })
    }

    /// A block about which nothing is known: it is treated as one that others show too.
    #[inline]
    pub fn shared() -> Self {
        Place::Shared(Shared(()))
    }

    /// Finds out about a block whose path above is known to be exclusive.
    #[inline]
    pub fn below(blocks: &'v mut Blocks<P>, block: Block) -> Result<Self, Poisoned> {
        Self::find(blocks, core::iter::once(block))
    }
}

impl<'v, P: Pmem> Exclusive<'v, P> {
    /// Writes bytes, through a stage, to a place that no word in use refers to; or content of a
    /// file, which may tear.
    #[inline]
    pub fn write(&mut self, stage: &mut Stage<Written>, offset: u64, bytes: &[u8]) {
        stage.write_at(&mut self.blocks.pmem, byte_at(self.block, offset), bytes);
    }

    /// As [`Exclusive::write`], with zeros.
    #[inline]
    pub fn zero(&mut self, stage: &mut Stage<Written>, offset: u64, len: u64) {
        stage.zero_at(&mut self.blocks.pmem, byte_at(self.block, offset), len);
    }

    /// The block as one to fill. The caller has found the word that leads to it marked as
    /// unwritten.
    pub fn into_unwritten(self) -> Unwritten<'v, P> {
        Unwritten(self)
    }

    /// Seals and stores words, through a stage, that may be there before what is published with
    /// them. There is one at least.
    #[inline]
    pub fn prepare_entries(
        &mut self,
        stage: &mut Stage<Written>,
        content: Content,
        words: &[(u16, u64)],
    ) {
        let (first, last) = self.store_entries(content, words);
        let (at, end) = (byte_at(self.block, first as u64 * 8), last as u64 * 8 + 8);
        stage.wrote(&mut self.blocks.pmem, at, byte_at(self.block, end) - at);
    }

    /// Seals and stores words, each in one store. Returns the least and the greatest index.
    #[inline(always)]
    fn store_entries(&mut self, content: Content, words: &[(u16, u64)]) -> (u16, u16) {
        let mut first = u16::MAX;
        let mut last = 0;
        let salt = content.salt(self.block);
        for &(index, value) in words {
            let word = seal(value, salt, index);
            self.blocks.pmem.store(byte_at(self.block, index as u64 * 8), word);
            first = first.min(index);
            last = last.max(index);
        }
        (first, last)
    }

    /// Seals and stores the words that make a durable stage part of the tree, each in one store.
    /// The block holds `content`.
    #[inline]
    pub fn publish(
        mut self,
        content: Content,
        words: &[(u16, u64)],
        stage: &Stage<Durable>,
        retired: Vec<Retire>,
    ) -> Published<Written> {
        let _ = stage;
        // From now on whoever looks finds what the words refer to.
        let (first, last) = self.store_entries(content, words);
        Published { block: self.block, first, last, retired, state: PhantomData }
    }
}

/// A block to which exactly one path leads, by a word that is marked as unwritten. Nobody sees what
/// is in the block, so it can be filled in any order until that word is replaced.
pub(crate) struct Unwritten<'v, P>(Exclusive<'v, P>);

impl<P: Pmem> Unwritten<'_, P> {
    /// Fills all of the block through a stage: the parts at their offsets in bytes, which ascend
    /// and do not overlap, and zeros everywhere else. Returns the pointer to what is written now.
    pub fn fill<'a>(
        mut self,
        stage: &mut Stage<Written>,
        parts: impl Iterator<Item = (u64, &'a [u8])>,
    ) -> Pointer {
        let mut filled = 0;
        for (offset, bytes) in parts {
            debug_assert!(offset >= filled && offset + bytes.len() as u64 <= BLOCK_SIZE);
            if offset > filled {
                self.0.zero(stage, filled, offset - filled);
            }
            self.0.write(stage, offset, bytes);
            filled = offset + bytes.len() as u64;
        }
        if filled < BLOCK_SIZE {
            self.0.zero(stage, filled, BLOCK_SIZE - filled);
        }
        Pointer::to(self.0.block)
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
    #[inline]
    pub fn flush<P: Pmem>(self, pmem: &mut P) -> Published<Flushed> {
        if self.first <= self.last {
            let at = self.block.0 * BLOCK_SIZE + self.first as u64 * 8;
            pmem.flush(at, (self.last - self.first) as u64 * 8 + 8);
        }
        self.into_state()
    }
}

impl Published<Flushed> {
    /// Waits until the change is durable.
    #[inline]
    pub fn fence<P: Pmem>(self, pmem: &mut P) -> Published<Durable> {
        pmem.fence();
        self.into_state()
    }
}

impl DurableChange for Published<Durable> {
    #[inline]
    fn into_retired(self) -> Vec<Retire> {
        self.retired
    }
}

impl<S> Published<S> {
    #[inline]
    fn into_state<T>(self) -> Published<T> {
        Published {
            block: self.block,
            first: self.first,
            last: self.last,
            retired: self.retired,
            state: PhantomData,
        }
    }
}
