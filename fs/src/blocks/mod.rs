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

mod bad;
mod badness;
pub(crate) mod checkpoint;
mod children;
mod content;
mod lending;
mod lent;
mod recount;
mod walk;

use bad::BadBlocks;
pub(crate) use bad::MOST_BAD;
pub(crate) use content::Content;
use lent::Lent;
pub use lent::{LENT_RUN, Lending};
pub(crate) use recount::{Judged, Visit};
use walk::Recount;

use crate::error::{Error, Result};
use crate::format::superblock::{COPIES, GROUP, Geometry, RECORD_SIZE};
use crate::memory::Boxed;
use crate::pmem::{Pmem, Poisoned};
use crate::types::{BLOCK_SIZE, Block};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// More references than can be counted.
const STICKY: u32 = u32::MAX;
/// In place of the head of shadows: the block waits to be reclaimed.
const PENDING: u32 = u32::MAX;
/// End of the list of blocks that wait.
const END: u64 = (1 << 40) - 1;

/// Who asks for a block: how deep into the reserve it may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Anything that makes the volume fuller.
    Grow,
    /// Unlink, truncate, punch: work that frees blocks in the end.
    Release,
}

/// Blocks kept back so that a full volume can always be emptied; half of them only for
/// the deletion of snapshots and for recovery.
const RESERVE: u64 = 64;

impl Purpose {
    #[inline]
    fn reserve(self) -> u64 {
        match self {
            Purpose::Grow => RESERVE,
            Purpose::Release => RESERVE / 2,
        }
    }
}

/// A block, or several that follow each other, that was allocated and that nothing refers to yet:
/// it can be filled in any order.
#[derive(Debug)]
#[must_use]
pub(crate) struct Fresh {
    first: Block,
    count: u64,
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
        Fresh { first: Block(self.first.0 + at), count: 1 }
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
    /// Where the search for a free block goes on.
    cursor: u64,
    /// Head and number of the blocks that wait to be reclaimed.
    pending: Option<Block>,
    /// What is lent. Out of line: what the page-fault path looks at lies close together.
    lent: Box<Lent>,
    /// References are being counted anew.
    pub(crate) recount: Option<Boxed<Recount>>,
    /// Grows whenever a node may have become exclusive because another file lost it.
    pub exclusive_again: u64,
    /// The list of bad blocks has some. Beside it, because what is tested often lies close
    /// together.
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
        Blocks {
            pmem,
            geometry,
            records: geometry.scratch * BLOCK_SIZE,
            initialised: vec![0; groups.div_ceil(64) as usize],
            free_in,
            free,
            shared: 0,
            cursor: geometry.first,
            pending: None,
            lent: Box::default(),
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

    /// Free blocks without the reserve.
    pub fn available(&self) -> u64 {
        self.free_or_lent().saturating_sub(Purpose::Grow.reserve())
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
            self.set_state(block, state + 1);
            self.count_taken(block);
            // A group starts with zeros, which stand for data.
            if content != Content::Data {
                let at = self.record(block) + 8;
                self.pmem.store(at, content.code() << 40);
            }
            return Ok(Reference::First);
        }
        if self.pmem.load(self.record(block) + 8)? >> 40 != content.code() {
            return Ok(Reference::Mixed);
        }
        if state as u32 != STICKY {
            self.set_state(block, state + 1);
            self.shared += (state as u32 == 1) as u64;
        }
        Ok(Reference::Further)
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
            1 if content == Content::Data => self.set_free(block)?,
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

    /// Frees a block whose references have gone, or have been taken over.
    #[inline]
    fn set_free(&mut self, block: Block) -> Result<(), Poisoned> {
        debug_assert!(
            matches!(self.shadows(block)?, 0 | PENDING),
            "block {} is still shown",
            block.0
        );
        if self.recount.is_some() {
            self.note_free(block)?;
        }
        if self.is_bad(block) {
            self.put_out_of_use(block);
            return Ok(());
        }
        self.set_state(block, 0);
        self.count_free(block);
        Ok(())
    }

    /// Notes that a block is about to be free.
    #[cold]
    #[inline(never)]
    fn note_free(&mut self, block: Block) -> Result<(), Poisoned> {
        let before = self.state(block)?;
        self.note(block, before, 0);
        Ok(())
    }

    #[inline(always)]
    fn count_taken(&mut self, block: Block) {
        self.free -= 1;
        self.free_in[(block.0 / GROUP) as usize] -= 1;
    }

    #[inline]
    fn count_free(&mut self, block: Block) {
        self.free += 1;
        self.free_in[(block.0 / GROUP) as usize] += 1;
    }

    /// Gives back a block that was allocated and not published. One that is lent stays so.
    pub fn unallocate(&mut self, block: Block) {
        // It was written a moment ago; if its record cannot be read now, it stays taken.
        if self.is_lent(block) == Ok(false) {
            let _ = self.set_free(block);
        }
    }

    /// Gives back a block that was never published, and the references in it.
    pub fn discard(&mut self, block: Block, content: Content) {
        // What cannot be read now stays taken until a rebuild.
        let _ = self.drop_reference(block, content);
        self.exclusive_again += u64::from(content != Content::Data);
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
                Retire::Moved(block) => self.set_free(block),
            };
            result = result.and(step);
        }
        (retired, result)
    }

    /// Takes a free block; its count is 1 and its content undefined.
    #[inline(always)]
    pub fn allocate(&mut self, purpose: Purpose) -> Result<Fresh> {
        if self.free <= purpose.reserve() {
            return Err(Error::NoSpace);
        }
        // Mostly free, and on the fault path.
        let mut block = Block(self.cursor);
        if self.state(block)? != 0 {
            block = self.find_free()?;
        }
        self.note(block, 0, 1);
        self.set_state(block, 1);
        self.count_taken(block);
        self.cursor =
            if block.0 + 1 < self.geometry.total { block.0 + 1 } else { self.geometry.first };
        Ok(Fresh { first: block, count: 1 })
    }

    /// Takes as many free blocks as follow each other, `most` of them at most and one at least.
    pub fn allocate_run(&mut self, most: u64, purpose: Purpose) -> Result<Fresh> {
        self.take_run(most, purpose, 1)
    }

    /// As [`Blocks::allocate_run`], with this first word in the records of the blocks.
    #[inline]
    fn take_run(&mut self, most: u64, purpose: Purpose, state: u64) -> Result<Fresh> {
        let most = most.min(self.free.saturating_sub(purpose.reserve()));
        let Fresh { first, .. } = self.allocate(purpose)?;
        if state != 1 {
            self.note(first, 1, state);
            self.set_state(first, state);
        }
        // The rest is in the group of the first one, whose records are valid by now.
        let end = (first.0 + most).min((first.0 / GROUP + 1) * GROUP).min(self.geometry.total);
        let mut block = first.0 + 1;
        while block < end {
            let at = self.record(Block(block));
            if self.pmem.load(at) != Ok(0) {
                break;
            }
            self.note(Block(block), 0, state);
            self.pmem.store(at, state);
            block += 1;
        }
        let more = block - first.0 - 1;
        self.free -= more;
        self.free_in[(first.0 / GROUP) as usize] -= more as u16;
        if more > 0 {
            self.cursor = if block < self.geometry.total { block } else { self.geometry.first };
        }
        Ok(Fresh { first, count: more + 1 })
    }

    /// The first free block from the cursor on.
    fn find_free(&self) -> Result<Block> {
        let groups = self.geometry.groups();
        let first_group = self.cursor / GROUP;
        // The group of the cursor comes twice: from the cursor on, and whole at the end.
        for step in 0..=groups {
            let group = (first_group + step) % groups;
            if self.free_in[group as usize] == 0 {
                continue;
            }
            let mut start = (group * GROUP).max(self.geometry.first);
            if step == 0 {
                start = start.max(self.cursor);
            }
            let end = ((group + 1) * GROUP).min(self.geometry.total);
            for block in (start..end).map(Block) {
                if self.state(block)? == 0 {
                    return Ok(block);
                }
            }
        }
        Err(Error::NoSpace)
    }

    /// Where the next `blocks` blocks are looked for: behind the last one that was allocated, then
    /// from the start.
    pub fn next_blocks(&self, blocks: u64) -> [Range<u64>; 2] {
        let Geometry { first, total, .. } = self.geometry;
        let end = total.min(self.cursor + blocks);
        let rest = blocks.saturating_sub(end - self.cursor);
        [self.cursor..end, first..(first + rest).min(self.cursor)]
    }

    /// Whether `blocks` can be allocated.
    #[inline]
    pub fn has_room(&self, blocks: u64, purpose: Purpose) -> bool {
        self.free >= blocks + purpose.reserve()
    }

    /// Makes sure that `blocks` can be allocated, reclaiming what waits for it.
    #[inline]
    pub fn ensure(&mut self, blocks: u64, purpose: Purpose) -> Result<()> {
        while !self.has_room(blocks, purpose) {
            if !self.reclaim_step()? {
                return Err(Error::NoSpace);
            }
        }
        Ok(())
    }

    /// Whether blocks wait to be reclaimed.
    pub fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Word `index` of a block.
    #[inline(always)]
    pub fn word(&self, block: Block, index: u16) -> Result<u64, Poisoned> {
        self.pmem.load(block.0 * BLOCK_SIZE + index as u64 * 8)
    }
}
