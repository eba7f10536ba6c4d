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

use crate::blocks::{
    Blocks, Content, Distance, DurableChange, Fresh, Purpose, Retire, WORDS, store_twice,
};
use crate::error::Result;
use crate::format::word::{NOWHERE, Pointer, fill, reseal, seal};
use crate::memory::push_within;
use crate::pmem::{LINE, Pmem, Poisoned};
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

/// Byte offset in the region of a place in a block.
fn byte_at(block: Block, offset: u64) -> u64 {
    block.0 * BLOCK_SIZE + offset
}

/// Bytes that were written, and how far behind them they were written a second time.
#[derive(Clone, Copy, Debug)]
struct Range {
    /// Byte offset in the region.
    at: u64,
    /// In bytes.
    len: u32,
    twin: Distance,
}

impl Range {
    /// Starts writing it back. Out of line: where it is inlined, the page-fault path is longer.
    #[inline(never)]
    fn flush<P: Pmem>(self, pmem: &mut P) {
        pmem.flush(self.at, self.len.into());
        if let Some(distance) = self.twin.bytes() {
            pmem.flush(self.at + distance, self.len.into());
        }
    }
}

/// Writes bytes, and their second copy.
#[inline]
fn put<P: Pmem>(pmem: &mut P, at: u64, bytes: &[u8], twin: Distance) {
    pmem.write(at, bytes);
    if let Some(distance) = twin.bytes() {
        pmem.write(at + distance, bytes);
    }
}

/// Seals and stores words of a block that holds `content`, each in one store, and their second
/// copies. Returns the least and the greatest index.
#[inline(always)]
fn store_sealed<P: Pmem>(
    pmem: &mut P,
    block: Block,
    twin: Distance,
    content: Content,
    words: &[(u16, u64)],
) -> (u16, u16) {
    let (mut first, mut last) = (u16::MAX, 0);
    let salt = content.salt(block);
    for &(index, value) in words {
        let word = seal(value, salt, index);
        store_twice(pmem, byte_at(block, index as u64 * 8), word, twin);
        first = first.min(index);
        last = last.max(index);
    }
    (first, last)
}

/// What a stage remembers. The memory is reused by the next stage; it is not within the stage,
/// because a stage is moved from state to state by value, on the page-fault path too.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// What was written and not flushed, at most [`RANGES`].
    ranges: Vec<Range>,
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

/// Content that nothing on media refers to yet. What is written to metadata is written to its twin,
/// too.
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

    /// Allocates a block of metadata, which will be written through this stage.
    pub fn allocate_pair<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        purpose: Purpose,
    ) -> Result<Fresh> {
        let fresh = blocks.allocate_pair(purpose)?;
        push_within(&mut self.lists.fresh, fresh.block());
        Ok(fresh)
    }

    /// Allocates up to `most` blocks for content that follow each other.
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
        self.wrote(pmem, byte_at(run.block(), 0), run.len(), Distance::NONE);
    }

    /// Remembers a range that has to be flushed.
    #[inline]
    fn wrote<P: Pmem>(&mut self, pmem: &mut P, at: u64, len: u64, twin: Distance) {
        self.used = true;
        if let Some(last) = self.lists.ranges.last_mut()
            && last.at + u64::from(last.len) == at
            && last.twin == twin
            && let Some(sum) = last.len.checked_add(len as u32)
        {
            last.len = sum;
            return;
        }
        let range = Range { at, len: len as u32, twin };
        if self.lists.ranges.len() < RANGES {
            push_within(&mut self.lists.ranges, range);
        } else {
            // Flushing early is always right.
            range.flush(pmem);
        }
    }

    #[inline]
    fn write_at<P: Pmem>(&mut self, pmem: &mut P, at: u64, bytes: &[u8], twin: Distance) {
        put(pmem, at, bytes, twin);
        self.wrote(pmem, at, bytes.len() as u64, twin);
    }

    #[inline]
    fn zero_at<P: Pmem>(&mut self, pmem: &mut P, at: u64, len: u64, twin: Distance) {
        pmem.zero(at, len);
        if let Some(distance) = twin.bytes() {
            pmem.zero(at + distance, len);
        }
        self.wrote(pmem, at, len, twin);
    }

    /// Writes bytes from `offset` on.
    #[inline]
    pub fn write<P: Pmem>(&mut self, pmem: &mut P, to: &Fresh, offset: u64, bytes: &[u8]) {
        debug_assert!(offset + bytes.len() as u64 <= to.len());
        self.write_at(pmem, byte_at(to.block(), offset), bytes, to.twin());
    }

    /// Writes bytes, at most a block, and zeros behind them.
    pub fn write_padded<P: Pmem>(&mut self, pmem: &mut P, to: &Fresh, bytes: &[u8]) {
        let len = bytes.len() as u64;
        self.write(pmem, to, 0, bytes);
        self.zero(pmem, to, len, BLOCK_SIZE - len);
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
        let at = byte_at(to.block(), index as u64 * 8);
        store_twice(pmem, at, word, to.twin());
        self.wrote(pmem, at, 8, to.twin());
    }

    /// Seals and stores words of a block that holds `content`.
    #[inline]
    pub fn store_entries<P: Pmem>(
        &mut self,
        pmem: &mut P,
        to: &Fresh,
        content: Content,
        words: &[(u16, u64)],
    ) {
        self.store_sealed(pmem, to.block(), to.twin(), content, words);
    }

    #[inline(always)]
    fn store_sealed<P: Pmem>(
        &mut self,
        pmem: &mut P,
        block: Block,
        twin: Distance,
        content: Content,
        words: &[(u16, u64)],
    ) {
        let (first, last) = store_sealed(pmem, block, twin, content, words);
        if first <= last {
            let len = u64::from(last - first) * 8 + 8;
            self.wrote(pmem, byte_at(block, first as u64 * 8), len, twin);
        }
    }

    /// Fills a block of words with nothing, sealed.
    pub fn write_empty<P: Pmem>(&mut self, pmem: &mut P, to: &Fresh, content: Content) {
        let (salt, at) = (content.salt(to.block()), byte_at(to.block(), 0));
        let mut words = [[0; 8]; WORDS];
        for first in (0..512).step_by(WORDS) {
            fill(&mut words, salt, first as u16);
            put(pmem, at + first as u64 * 8, words.as_flattened(), to.twin());
        }
        self.wrote(pmem, at, BLOCK_SIZE, to.twin());
    }

    /// Copies a block of metadata, which is mended first if its copies differ, and seals its words
    /// for their new place. One that opens in neither copy does not open here.
    pub fn copy_words<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        from: Block,
        to: &Fresh,
        content: Content,
    ) -> Result<(), Poisoned> {
        let (old, new) = (content.salt(from), content.salt(to.block()));
        let sealed = content.words() * 8;
        let mut words = [[0; 8]; WORDS];
        blocks.mend_if_different(from, content);
        for at in (0..sealed).step_by(WORDS * 8) {
            blocks.read_words(from, content, (at / 8) as u16, &mut words)?;
            reseal(&mut words, old, new);
            put(&mut blocks.pmem, byte_at(to.block(), at), words.as_flattened(), to.twin());
        }
        if sealed < BLOCK_SIZE {
            let mut rest = [0; BLOCK_SIZE as usize];
            let rest = &mut rest[sealed as usize..];
            blocks.read_bytes(from, sealed, rest)?;
            put(&mut blocks.pmem, byte_at(to.block(), sealed), rest, to.twin());
        }
        self.wrote(&mut blocks.pmem, byte_at(to.block(), 0), BLOCK_SIZE, to.twin());
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
            put(pmem, at, words.as_flattened(), to.twin());
            at += piece.len() as u64;
        }
        put(pmem, at, rest, to.twin());
        self.wrote(pmem, byte_at(to.block(), 0), BLOCK_SIZE, to.twin());
    }

    /// Writes zeros from `offset` on.
    #[inline]
    pub fn zero<P: Pmem>(&mut self, pmem: &mut P, to: &Fresh, offset: u64, len: u64) {
        debug_assert!(offset + len <= to.len());
        self.zero_at(pmem, byte_at(to.block(), offset), len, to.twin());
    }

    /// Copies a whole block of a file.
    #[inline(always)]
    pub fn copy_block<P: Pmem>(
        &mut self,
        pmem: &mut P,
        from: Block,
        to: &Fresh,
    ) -> Result<(), Poisoned> {
        let at = byte_at(to.block(), 0);
        pmem.copy(byte_at(from, 0), at, BLOCK_SIZE)?;
        self.wrote(pmem, at, BLOCK_SIZE, Distance::NONE);
        Ok(())
    }

    /// Starts writing everything back.
    #[inline]
    pub fn flush<P: Pmem>(mut self, pmem: &mut P) -> Stage<Flushed> {
        for range in &self.lists.ranges {
            range.flush(pmem);
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
        for range in self.lists.ranges.drain(..) {
            range.flush(&mut blocks.pmem);
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
    /// How far behind it its twin is, if it is metadata.
    twin: Distance,
}

impl<'v, P: Pmem> Place<'v, P> {
    /// Finds out about the last block of a path that starts at the top: whether each block of
    /// it is metadata that has one reference. An empty path leads to nothing that could be changed.
    #[inline(always)]
    pub fn find(
        blocks: &'v mut Blocks<P>,
        path: impl Iterator<Item = Block>,
    ) -> Result<Self, Poisoned> {
        let mut last = None;
        for block in path {
            if !blocks.is_own_pair(block)? {
                return Ok(Place::Shared(Shared(())));
            }
            last = Some(block);
        }
        Ok(match last {
            Some(block) => {
                let twin = blocks.twins();
                Place::Exclusive(Exclusive { blocks, block, twin })
            }
            None => Place::Shared(Shared(())),
        })
    }

    /// A block about which nothing is known: it is treated as one that others show too.
    #[inline]
    pub fn shared() -> Self {
        Place::Shared(Shared(()))
    }

    /// Finds out about a block of metadata whose path above is known to be exclusive.
    #[inline]
    pub fn below(blocks: &'v mut Blocks<P>, block: Block) -> Result<Self, Poisoned> {
        Self::find(blocks, core::iter::once(block))
    }

    /// Finds out about a block of a file whose path above is known to be exclusive.
    #[inline]
    pub fn content_below(blocks: &'v mut Blocks<P>, block: Block) -> Result<Self, Poisoned> {
        Ok(match blocks.count(block)? {
            1 => Place::Exclusive(Exclusive { blocks, block, twin: Distance::NONE }),
            _ => Place::shared(),
        })
    }
}

impl<'v, P: Pmem> Exclusive<'v, P> {
    /// Writes bytes, through a stage, to a place that no word in use refers to; or content of a
    /// file, which may tear.
    #[inline]
    pub fn write(&mut self, stage: &mut Stage<Written>, offset: u64, bytes: &[u8]) {
        stage.write_at(&mut self.blocks.pmem, byte_at(self.block, offset), bytes, self.twin);
    }

    /// Overwrites what is in the block of a file, which may tear, and starts writing it back.
    #[inline(always)]
    pub fn overwrite(self, offset: u64, bytes: &[u8]) {
        debug_assert!(self.twin == Distance::NONE && offset + bytes.len() as u64 <= BLOCK_SIZE);
        let at = byte_at(self.block, offset);
        self.blocks.pmem.write(at, bytes);
        self.blocks.pmem.flush(at, bytes.len() as u64);
    }

    /// As [`Exclusive::write`], with zeros.
    #[inline]
    pub fn zero(&mut self, stage: &mut Stage<Written>, offset: u64, len: u64) {
        stage.zero_at(&mut self.blocks.pmem, byte_at(self.block, offset), len, self.twin);
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
        stage.store_sealed(&mut self.blocks.pmem, self.block, self.twin, content, words);
    }

    /// As [`Exclusive::prepare_entries`], words that follow each other, from index `first` on, at
    /// most [`WORDS`].
    #[inline]
    pub fn prepare_run(
        &mut self,
        stage: &mut Stage<Written>,
        content: Content,
        first: u16,
        values: &[u64],
    ) {
        let salt = content.salt(self.block);
        let mut words = [[0; 8]; WORDS];
        let words = &mut words[..values.len()];
        for ((word, value), index) in words.iter_mut().zip(values).zip(first..) {
            *word = seal(*value, salt, index).to_le_bytes();
        }
        self.write(stage, u64::from(first) * 8, words.as_flattened());
    }

    /// Seals and stores the words that make a durable stage part of the tree, each in one store.
    /// The block holds `content`.
    #[inline(always)]
    pub fn publish(
        self,
        content: Content,
        words: &[(u16, u64)],
        stage: &Stage<Durable>,
        retired: Vec<Retire>,
    ) -> Published<Written> {
        let _ = stage;
        // From now on whoever looks finds what the words refer to.
        let (first, last) =
            store_sealed(&mut self.blocks.pmem, self.block, self.twin, content, words);
        Published { block: self.block, first, last, twin: self.twin, retired, state: PhantomData }
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
    twin: Distance,
    retired: Vec<Retire>,
    state: PhantomData<S>,
}

impl Published<Written> {
    /// Starts writing the words back.
    #[inline(always)]
    pub fn flush<P: Pmem>(self, pmem: &mut P) -> Published<Flushed> {
        if self.first <= self.last {
            let (at, last) = (
                byte_at(self.block, self.first as u64 * 8),
                byte_at(self.block, self.last as u64 * 8),
            );
            if at / LINE == last / LINE {
                // Mostly it is one word.
                pmem.flush_line(at);
                if let Some(distance) = self.twin.bytes() {
                    pmem.flush_line(at + distance);
                }
            } else {
                Range { at, len: (last - at) as u32 + 8, twin: self.twin }.flush(pmem);
            }
        }
        self.into_state()
    }
}

impl Published<Flushed> {
    /// Waits until the change is durable.
    #[inline(always)]
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
    #[inline(always)]
    fn into_state<T>(self) -> Published<T> {
        Published {
            block: self.block,
            first: self.first,
            last: self.last,
            twin: self.twin,
            retired: self.retired,
            state: PhantomData,
        }
    }
}
