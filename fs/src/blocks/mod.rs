//! Blocks: who refers to them, which are free, which wait to be reclaimed.
//!
//! All of this is derived from the trees. It lives in the scratch area of the volume, so
//! that memory does not grow with it, and is never read by recovery: a mount that is not
//! clean starts from an empty area and counts anew.
//!
//! A record has 16 bytes: the number of references to the block (4), the head of the
//! list of its shadows (4), and one word that a block waiting to be reclaimed uses as link,
//! and others while references are counted anew (`recount.rs`).
//!
//! | count | shadows | meaning |
//! |---|---|---|
//! | 0 | 0 | free |
//! | 0 | all ones | waits to be reclaimed; the word links to the next one |
//! | n | head | n references; all ones: more than can be counted (sticky until a rebuild) |
//! | 1 | all ones but the last | lent to a device, to receive content into |
//! | n | [`PAIRED`] | a block of metadata, with n references: the block that makes a pair with it is its twin |
//! | 1 | [`TWIN`] | the second copy of a block of metadata |

mod bad;
mod badness;
pub(crate) mod checkpoint;
mod children;
mod content;
mod lending;
mod lent;
mod noted;
mod recount;
mod scrub;
mod space;
mod twins;
mod walk;

use bad::BadBlocks;
pub(crate) use bad::MOST_BAD;
pub(crate) use content::Content;
use lent::{LENT, Lent};
pub use lent::{LENT_RUN, Lending};
use noted::Noted;
pub(crate) use noted::{WORDS, Words};
pub(crate) use recount::{Judged, Visit};
pub(crate) use scrub::{Load, Unequal};
pub(crate) use space::Purpose;

use walk::Recount;

use crate::error::Result;
use crate::format::superblock::{COPIES, GROUP, Geometry, RECORD_SIZE};
use crate::format::word::seal;
use crate::memory::Boxed;
use crate::pmem::{Pmem, Poisoned};
use crate::types::{BLOCK_SIZE, Block};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// More references than can be counted.
const STICKY: u32 = u32::MAX;
/// In place of the head of shadows: the block waits to be reclaimed.
const PENDING: u32 = u32::MAX;
/// In place of the head of shadows: it is metadata, which no window shows, and has a twin.
const PAIRED: u32 = u32::MAX - 2;
/// The record of a twin: nothing refers to it, and it is not free.
const TWIN: u64 = 1 | (u32::MAX as u64 - 3) << 32;
/// The record of a block of metadata that has one reference.
const OWN_PAIR: u64 = 1 | (PAIRED as u64) << 32;
/// End of the list of blocks that wait.
const END: u64 = (1 << 40) - 1;

/// How far behind what is written its second copy is, in groups of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Distance(u32);

impl Distance {
    /// There is no second copy.
    pub const NONE: Distance = Distance(0);

    /// In bytes, unless there is no second copy.
    #[inline(always)]
    pub fn bytes(self) -> Option<u64> {
        (self.0 != 0).then_some(u64::from(self.0) * GROUP * BLOCK_SIZE)
    }
}

/// Stores a word, and its second copy.
#[inline(always)]
pub(crate) fn store_twice<P: Pmem>(pmem: &mut P, at: u64, word: u64, twin: Distance) {
    pmem.store(at, word);
    if let Some(distance) = twin.bytes() {
        pmem.store(at + distance, word);
    }
}

/// A block, or several that follow each other, that was allocated and that nothing refers to yet:
/// it can be filled in any order.
#[derive(Debug)]
#[must_use]
pub(crate) struct Fresh {
    first: Block,
    count: u64,
    /// How far behind it its twin is; none of several has one.
    twin: Distance,
}

impl Fresh {
    /// The number of the (first) block, to refer to it.
    #[inline]
    pub fn block(&self) -> Block {
        self.first
    }

    /// The numbers of all of them.
    #[inline]
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = Block> + use<> {
        let first = self.first.0;
        (0..self.count as u32).map(move |at| Block(first + u64::from(at)))
    }

    /// One of several.
    pub fn part(&self, at: u64) -> Fresh {
        debug_assert!(at < self.count);
        Fresh { first: Block(self.first.0 + at), count: 1, twin: Distance::NONE }
    }

    /// How far behind it its twin is.
    #[inline]
    pub fn twin(&self) -> Distance {
        self.twin
    }

    /// Bytes that it has.
    #[inline]
    pub fn len(&self) -> u64 {
        self.count * BLOCK_SIZE
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

/// A change that is durable: what it dropped may be reused. The only one is a publication whose
/// fence has passed.
pub(crate) trait DurableChange {
    /// What the change dropped.
    fn into_retired(self) -> Vec<Retire>;
}

/// What counting a reference to a block has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// It is the first one: those in the block count, too.
    First,
    /// There are others.
    Further,
    /// The others say that the block holds something else.
    Mixed,
}

/// The blocks of a volume.
pub(crate) struct Blocks<P> {
    pub pmem: P,
    pub geometry: Geometry,
    /// Where the record of block 0 is: byte offset in the region.
    records: u64,
    /// A bit for each group: its records are valid. Others are to be read as zeros.
    pub(crate) initialised: Vec<u64>,
    /// Free blocks of each group.
    pub(crate) free_in: Vec<u16>,
    /// All free blocks, those that are lent not among them.
    pub(crate) free: u64,
    /// Blocks with more than one reference.
    pub(crate) shared: u64,
    /// Pairs of blocks that are both free, and those of each group of first blocks.
    pub(crate) pairs: u64,
    pub(crate) pairs_in: Vec<u16>,
    /// Where the search for a free block goes on.
    cursor: u64,
    /// Where the search for a free pair goes on.
    pair_cursor: u64,
    /// Head and number of the blocks that wait to be reclaimed.
    pending: Option<Block>,
    /// What is lent. Out of line: what the page-fault path looks at lies close together.
    lent: Box<Lent>,
    /// Blocks of which a copy is bad, and what became of such blocks.
    noted: Noted,
    mended: u64,
    /// References are being counted anew.
    pub(crate) recount: Option<Boxed<Recount>>,
    /// Grows whenever a node may have become exclusive because another file lost it.
    pub exclusive_again: u64,
    /// The list of bad blocks has some. Beside it: what is tested often lies close together.
    has_bad: bool,
    bad: Box<BadBlocks>,
}

impl<P: Pmem> Blocks<P> {
    /// The blocks of a volume whose derived state is unknown: all free, nothing counted.
    #[allow(
        clippy::disallowed_methods,
        clippy::disallowed_macros,
        reason = "a mount takes what it needs for good; nobody is served before"
    )]
    pub fn new(pmem: P, geometry: Geometry) -> Self {
        let groups = geometry.groups();
        let free_in: Vec<u16> =
            (0..groups).map(|group| geometry.blocks_of(group).count() as u16).collect();
        let free = free_in.iter().map(|&f| f as u64).sum();
        let pairs_of = |group| {
            geometry.blocks_of(group).filter(|&block| geometry.holds_pair(block)).count() as u16
        };
        let pairs_in: Vec<u16> = (0..geometry.paired_groups()).map(pairs_of).collect();
        let pairs = pairs_in.iter().map(|&pairs| u64::from(pairs)).sum();
        // Data is put into the first groups, and metadata into those behind the middle.
        let middle = (geometry.first + geometry.twins) / 2;
        Blocks {
            pmem,
            geometry,
            records: geometry.scratch * BLOCK_SIZE,
            initialised: vec![0; groups.div_ceil(64) as usize],
            free_in,
            free,
            shared: 0,
            pairs,
            pairs_in,
            cursor: geometry.first,
            pair_cursor: middle,
            pending: None,
            lent: Box::default(),
            noted: Noted::default(),
            mended: 0,
            recount: None,
            exclusive_again: 0,
            has_bad: false,
            bad: Box::default(),
        }
    }

    /// Keeps the second superblock from being handed out: its record says that it is referred to
    /// more often than can be counted. For a mount, once the superblocks say "not clean".
    pub fn keep_superblock(&mut self) {
        if COPIES[1].0 >= self.geometry.first {
            self.set_state(COPIES[1], STICKY.into());
        }
    }

    /// Free blocks, those of the reserve and those that are lent included.
    pub fn free_or_lent(&self) -> u64 {
        self.free + self.lent.blocks
    }

    /// Blocks with more than one reference.
    pub fn shared(&self) -> u64 {
        self.shared
    }

    #[inline(always)]
    fn record(&self, block: Block) -> u64 {
        self.records + block.0 * RECORD_SIZE
    }

    /// Where the records of a group are: byte offset and length.
    pub(crate) fn group_records(&self, group: u64) -> (u64, u64) {
        let first = self.record(Block(group * GROUP));
        let end = self.record(Block(((group + 1) * GROUP).min(self.geometry.total)));
        (first, end - first)
    }

    #[inline(always)]
    fn is_initialised(&self, block: Block) -> bool {
        let group = block.0 / GROUP;
        self.initialised[(group / 64) as usize] >> (group % 64) & 1 != 0
    }

    #[inline(always)]
    fn state(&self, block: Block) -> Result<u64, Poisoned> {
        if self.is_initialised(block) { self.pmem.load(self.record(block)) } else { Ok(0) }
    }

    #[inline(always)]
    fn set_state(&mut self, block: Block, state: u64) {
        if !self.is_initialised(block) {
            self.initialise(block.0 / GROUP);
        }
        let at = self.record(block);
        self.pmem.store(at, state);
    }

    #[cold]
    fn initialise(&mut self, group: u64) {
        let (at, len) = self.group_records(group);
        self.pmem.zero(at, len);
        self.initialised[(group / 64) as usize] |= 1 << (group % 64);
    }

    /// How far behind the blocks of metadata their twins are.
    #[inline(always)]
    pub fn twins(&self) -> Distance {
        Distance((self.geometry.twins / GROUP) as u32)
    }

    /// Whether a block is metadata, and has one reference.
    #[inline(always)]
    pub fn is_own_pair(&self, block: Block) -> Result<bool, Poisoned> {
        Ok(self.state(block)? == OWN_PAIR)
    }

    /// Whether a block is one of the two copies of a block of metadata.
    #[cfg(feature = "testing")]
    pub fn is_metadata(&self, block: Block) -> Result<bool, Poisoned> {
        let state = self.state(block)?;
        Ok(state == TWIN || matches!((state >> 32) as u32, PAIRED | PENDING))
    }

    /// References to a block.
    #[inline(always)]
    pub fn count(&self, block: Block) -> Result<u32, Poisoned> {
        Ok(self.state(block)? as u32)
    }

    /// First page in the list of the block's shadows, as [`crate::windows`] keeps it: 0 is none.
    #[inline(always)]
    pub fn shadows(&self, block: Block) -> Result<u32, Poisoned> {
        Ok((self.state(block)? >> 32) as u32)
    }

    /// Sets the head of the list of the block's shadows.
    #[inline(always)]
    pub fn set_shadows(&mut self, block: Block, head: u32) -> Result<(), Poisoned> {
        self.replace_shadows(block, head).map(drop)
    }

    /// Sets the head of the list of the block's shadows, and returns the one that it had.
    #[inline(always)]
    pub fn replace_shadows(&mut self, block: Block, head: u32) -> Result<u32, Poisoned> {
        let state = self.state(block)?;
        self.set_state(block, state & 0xffff_ffff | (head as u64) << 32);
        Ok((state >> 32) as u32)
    }

    /// Adds a reference to a block, which holds `content`. Positions below it stop being exclusive:
    /// the caller says so ([`Files::changed`](crate::tree::files::Files::changed)).
    pub fn add_reference(&mut self, block: Block, content: Content) -> Result<(), Poisoned> {
        let state = self.state(block)?;
        self.note_shared(block, content);
        if state as u32 != STICKY {
            self.note(block, state, state + 1);
        }
        match state as u32 {
            STICKY => {}
            0 => {
                self.set_state(block, state + 1);
                self.count_taken(block);
            }
            count => {
                // It has a record, since it has a reference.
                self.pmem.store(self.record(block), state + 1);
                self.shared += (count == 1) as u64;
            }
        }
        Ok(())
    }

    /// For a rebuild: counts a reference to a block, which holds `content`.
    pub fn count_reference(
        &mut self,
        block: Block,
        content: Content,
    ) -> Result<Reference, Poisoned> {
        let state = self.state(block)?;
        if state as u32 == 0 {
            self.set_state(block, 1);
            self.count_taken(block);
            if content != Content::Data && !self.take_twin(block)? {
                return Ok(Reference::Mixed);
            }
            // A group starts with zeros, which stand for data.
            if content != Content::Data {
                let at = self.record(block) + 8;
                self.pmem.store(at, content.code() << 40);
            }
            return Ok(Reference::First);
        }
        if state == TWIN || self.pmem.load(self.record(block) + 8)? >> 40 != content.code() {
            return Ok(Reference::Mixed);
        }
        if state as u32 != STICKY {
            self.set_state(block, state + 1);
            self.shared += (state as u32 == 1) as u64;
        }
        Ok(Reference::Further)
    }

    /// For a rebuild: takes the twin of a block of metadata whose first reference was counted.
    /// False: it is in use for something else, or the block cannot have one.
    fn take_twin(&mut self, block: Block) -> Result<bool, Poisoned> {
        let Some(twin) = self.geometry.twin(block) else { return Ok(false) };
        if self.state(twin)? != 0 {
            return Ok(false);
        }
        self.set_state(block, OWN_PAIR);
        self.set_state(twin, TWIN);
        self.count_taken(twin);
        Ok(true)
    }

    /// Takes a reference away. At the last one the block waits to be reclaimed, if it has
    /// references of its own, or is free.
    #[inline(always)]
    fn drop_reference(&mut self, block: Block, content: Content) -> Result<(), Poisoned> {
        let state = self.state(block)?;
        match state as u32 {
            STICKY => {}
            // Nothing refers to it, says the record: leave it to the next rebuild.
            0 => debug_assert!(false, "block {} lost a reference that it did not have", block.0),
            1 if !content.refers() => self.set_free(block, state)?,
            1 => {
                self.note(block, state, (PENDING as u64) << 32);
                let next = self.pending.map_or(END, |b| b.0);
                self.set_state(block, (PENDING as u64) << 32);
                let at = self.record(block) + 8;
                self.pmem.store(at, next | content.code() << 40);
                self.pending = Some(block);
            }
            count => {
                self.note(block, state, state - 1);
                self.set_state(block, state - 1);
                self.shared -= (count == 2) as u64;
            }
        }
        Ok(())
    }

    /// Frees a block whose references have gone, or have been taken over, with its twin if it has
    /// one. `state`: the first word of its record.
    #[inline]
    fn set_free(&mut self, block: Block, state: u64) -> Result<(), Poisoned> {
        let head = (state >> 32) as u32;
        debug_assert!(matches!(head, 0 | PENDING | PAIRED), "block {} is still shown", block.0);
        self.note(block, state, 0);
        if self.is_bad(block) {
            self.put_out_of_use(block);
        } else {
            self.free_block(block);
        }
        if head != 0 { self.free_twin(block) } else { Ok(()) }
    }

    /// Frees a block.
    #[inline]
    fn free_block(&mut self, block: Block) {
        self.set_state(block, 0);
        self.count_free(block);
    }

    /// Frees the twin of a block that is free.
    #[inline(never)]
    fn free_twin(&mut self, block: Block) -> Result<(), Poisoned> {
        let Some(twin) = self.geometry.twin(block) else { return Ok(()) };
        match self.state(twin)? {
            TWIN if self.is_bad(twin) => self.put_out_of_use(twin),
            TWIN => self.free_block(twin),
            _ => {}
        }
        Ok(())
    }

    /// Gives back a block that was allocated and not published. One that is lent stays so.
    pub fn unallocate(&mut self, block: Block) {
        // It was written a moment ago; if its record cannot be read now, it stays taken.
        match self.state(block) {
            Ok(LENT) | Err(_) => {}
            Ok(state) => {
                let _ = self.set_free(block, state);
            }
        }
    }

    /// Gives back a block that was never published, and the references in it.
    pub fn discard(&mut self, block: Block, content: Content) {
        // What cannot be read now stays taken until a rebuild.
        let _ = self.drop_reference(block, content);
        self.exclusive_again += u64::from(content.refers());
    }

    /// Applies what a durable change has dropped. Returns the emptied list for reuse, whether that
    /// succeeds or not.
    #[inline(always)]
    pub fn release(&mut self, done: impl DurableChange) -> (Vec<Retire>, Result<(), Poisoned>) {
        let mut retired = done.into_retired();
        let mut result = Ok(());
        while let Some(item) = retired.pop() {
            let step = match item {
                Retire::Drop(block, content) => self.drop_reference(block, content),
                Retire::Moved(block) => {
                    self.state(block).and_then(|state| self.set_free(block, state))
                }
            };
            result = result.and(step);
        }
        (retired, result)
    }

    /// Whether blocks wait to be reclaimed, or to be mended.
    pub fn has_pending(&self) -> bool {
        self.pending.is_some() || self.has_noted()
    }

    /// Stores a word of an exclusive block of metadata, in both copies.
    #[inline(always)]
    pub fn store_word(&mut self, block: Block, index: u16, word: u64) {
        let at = block.0 * BLOCK_SIZE + index as u64 * 8;
        let twins = self.twins();
        store_twice(&mut self.pmem, at, word, twins);
    }

    /// Seals values, stores them in a line of an exclusive block of metadata, and starts writing
    /// that back, in both copies. `first`: the index in the block of the first word of the line;
    /// values come by their index in the line.
    #[inline(always)]
    pub fn store_in_line<const N: usize>(
        &mut self,
        block: Block,
        content: Content,
        first: u16,
        values: [(u16, u64); N],
    ) {
        let (salt, mut words) = (content.salt(block), values);
        for (index, word) in &mut words {
            *word = seal(*word, salt, first + *index);
        }
        let line = block.0 * BLOCK_SIZE + u64::from(first) * 8;
        self.pmem.store_in_line(line, &words);
        self.pmem.flush_line(line);
        if let Some(distance) = self.twins().bytes() {
            self.pmem.store_in_line(line + distance, &words);
            self.pmem.flush_line(line + distance);
        }
    }

    /// Starts writing back `count` words from `index` on, in both copies.
    #[inline(always)]
    pub fn flush_words(&mut self, block: Block, index: u16, count: u16) {
        let (at, len) = (block.0 * BLOCK_SIZE + index as u64 * 8, count as u64 * 8);
        self.pmem.flush(at, len);
        if let Some(distance) = self.twins().bytes() {
            self.pmem.flush(at + distance, len);
        }
    }
}
