//! Free blocks and free pairs of blocks: who gets which.
//!
//! Metadata needs two blocks that make a pair ([`Geometry::twin`]), content of files any. So that
//! pairs last, content is put into the groups in an order in which each is followed by that of its
//! twins ([`Geometry::group_at`]); and where few pairs are left, it gets only blocks whose partner
//! is taken. It leaves as many blocks as it leaves pairs, or what gives space back would break
//! pairs, and others take their halves. Metadata is put where no content is yet: behind the middle
//! of the first half, as long as there is room.
//!
//! | pairs that are left by | content | metadata |
//! |---|---|---|
//! | what makes the volume fuller | 96 | 64 |
//! | what gives space back | 64 | 32 |
//!
//! [`Geometry::twin`]: crate::format::superblock::Geometry::twin
//! [`Geometry::group_at`]: crate::format::superblock::Geometry::group_at

use super::{Blocks, Distance, Fresh, OWN_PAIR, TWIN};
use crate::error::{Error, Result};
use crate::format::superblock::{GROUP, Geometry};
use crate::pmem::Pmem;
use crate::types::Block;
use core::ops::Range;

/// Who asks for a block: how deep into the reserve it may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Anything that makes the volume fuller.
    Grow,
    /// Unlink, truncate, punch: work that frees blocks in the end.
    Release,
}

/// Pairs kept back so that a full volume can always be emptied; half of them only for
/// the deletion of snapshots and for recovery.
const RESERVE: u64 = 64;

/// Pairs that content leaves beside those that metadata leaves: for nodes and names of that
/// content.
const FOR_CONTENT: u64 = 32;

/// Pairs that content leaves which makes the volume fuller.
const KEPT: u64 = RESERVE + FOR_CONTENT;

impl Purpose {
    /// Pairs that metadata leaves.
    #[inline]
    fn reserve(self) -> u64 {
        match self {
            Purpose::Grow => RESERVE,
            Purpose::Release => RESERVE / 2,
        }
    }

    /// Pairs that content leaves.
    #[inline]
    fn kept(self) -> u64 {
        self.reserve() + FOR_CONTENT
    }
}

impl<P: Pmem> Blocks<P> {
    /// Blocks that content may have yet, the lent ones among them.
    pub fn available(&self) -> u64 {
        self.free_or_lent().saturating_sub(2 * KEPT)
    }

    /// Blocks that content may have now, if room for its metadata was made sure of before.
    #[inline(always)]
    fn room(&self, purpose: Purpose) -> u64 {
        self.free.saturating_sub(2 * purpose.reserve())
    }

    /// Where the pairs of a group are counted; beyond the end if its blocks make none.
    #[inline(always)]
    fn pairs_of(&self, group: usize) -> usize {
        let half = self.pairs_in.len();
        if group < half { group } else { group - half }
    }

    /// Whether the block that makes a pair with this one is there, and free.
    #[inline(always)]
    fn partner_is_free(&self, block: Block) -> bool {
        // A record that cannot be read says nothing: such a pair is not used.
        self.geometry.partner(block).is_some_and(|partner| self.state(partner) == Ok(0))
    }

    /// Counts a block that was free a moment ago.
    #[inline(always)]
    pub(super) fn count_taken(&mut self, block: Block) {
        self.count_run_taken(block, 1);
    }

    /// Counts blocks of one group that were free a moment ago.
    #[inline(always)]
    fn count_run_taken(&mut self, first: Block, count: u16) {
        let group = (first.0 / GROUP) as usize;
        let free = self.free_in[group];
        self.free_in[group] = free - count;
        self.free -= u64::from(count);
        let place = self.pairs_of(group);
        let broken = match self.pairs_in.get(place) {
            None | Some(0) => return,
            // Each free block of the group makes a free pair.
            Some(&pairs) if pairs == free => count,
            Some(&pairs) => self.free_partners(first, count).min(pairs),
        };
        self.pairs_in[place] -= broken;
        self.pairs = self.pairs.saturating_sub(broken.into());
    }

    /// How many of these blocks have a free partner.
    #[inline(never)]
    fn free_partners(&self, first: Block, count: u16) -> u16 {
        let blocks = (first.0..first.0 + u64::from(count)).map(Block);
        blocks.filter(|&block| self.partner_is_free(block)).count() as u16
    }

    /// Counts a block that is free.
    #[inline]
    pub(super) fn count_free(&mut self, block: Block) {
        let group = (block.0 / GROUP) as usize;
        self.free += 1;
        self.free_in[group] += 1;
        if self.partner_is_free(block) {
            self.pairs += 1;
            let place = self.pairs_of(group);
            self.pairs_in[place] += 1;
        }
    }

    /// Takes a free block for content; its count is 1 and what is in it undefined.
    #[inline(always)]
    pub fn allocate(&mut self, purpose: Purpose) -> Result<Fresh> {
        if self.room(purpose) == 0 {
            return Err(Error::NoSpace);
        }
        // Mostly free, and on the fault path.
        let mut block = Block(self.cursor);
        if self.pairs <= purpose.kept() || self.state(block)? != 0 {
            block = self.find_free(purpose)?;
        }
        self.note(block, 0, 1);
        self.set_state(block, 1);
        self.count_taken(block);
        self.cursor = self.behind(block);
        Ok(Fresh { first: block, count: 1, twin: Distance::NONE })
    }

    /// Takes two blocks for metadata that make a pair. The count of the first is 1; both are to be
    /// written.
    pub fn allocate_pair(&mut self, purpose: Purpose) -> Result<Fresh> {
        if self.pairs <= purpose.reserve() {
            return Err(Error::NoSpace);
        }
        let mut block = Block(self.pair_cursor);
        if !self.is_free_pair(block) {
            block = self.find_pair()?;
        }
        let twin = Block(block.0 + self.geometry.twins);
        self.note(block, 0, OWN_PAIR);
        self.set_state(block, OWN_PAIR);
        self.count_taken(block);
        self.set_state(twin, TWIN);
        self.count_taken(twin);
        self.pair_cursor = block.0 + 1;
        Ok(Fresh { first: block, count: 1, twin: self.twins() })
    }

    /// Whether a block and its twin are free.
    #[inline]
    fn is_free_pair(&self, block: Block) -> bool {
        self.geometry
            .twin(block)
            .is_some_and(|twin| self.state(block) == Ok(0) && self.state(twin) == Ok(0))
    }

    /// Where the search goes on behind a block that was taken.
    #[inline(always)]
    fn behind(&self, block: Block) -> u64 {
        let next = block.0 + 1;
        match next.is_multiple_of(GROUP) || next >= self.geometry.total {
            true => self.next_group(block),
            false => next,
        }
    }

    /// The first block of the group that comes behind that of a block.
    #[cold]
    fn next_group(&self, block: Block) -> u64 {
        let place = (self.geometry.place_of(block.0 / GROUP) + 1) % self.geometry.groups();
        (self.geometry.group_at(place) * GROUP).max(self.geometry.first)
    }

    /// Takes as many free blocks for content as follow each other, `most` of them at most and one
    /// at least.
    pub fn allocate_run(&mut self, most: u64, purpose: Purpose) -> Result<Fresh> {
        self.take_run(most, purpose, 1)
    }

    /// As [`Blocks::allocate_run`], with this first word in the records of the blocks.
    #[inline]
    pub(super) fn take_run(&mut self, most: u64, purpose: Purpose, state: u64) -> Result<Fresh> {
        let most = most.min(self.room(purpose));
        let Fresh { first, .. } = self.allocate(purpose)?;
        if state != 1 {
            self.note(first, 1, state);
            self.set_state(first, state);
        }
        // The rest is in the group of the first one, whose records are valid by now.
        let end = (first.0 + most).min((first.0 / GROUP + 1) * GROUP).min(self.geometry.total);
        // Pairs that may be broken: as if each of these blocks broke one.
        let spare = first.0 + self.pairs.saturating_sub(purpose.kept());
        let mut block = first.0 + 1;
        while block < end {
            let at = self.record(Block(block));
            if self.pmem.load(at) != Ok(0) || (block > spare && self.partner_is_free(Block(block)))
            {
                break;
            }
            self.note(Block(block), 0, state);
            self.pmem.store(at, state);
            block += 1;
        }
        let count = block - first.0;
        if count > 1 {
            self.count_run_taken(Block(first.0 + 1), count as u16 - 1);
            self.cursor = self.behind(Block(block - 1));
        }
        Ok(Fresh { first, count, twin: Distance::NONE })
    }

    /// A free block for content: where few pairs are left, one whose partner is not free, as long
    /// as there are such blocks.
    fn find_free(&self, purpose: Purpose) -> Result<Block> {
        match self.pairs <= purpose.kept() {
            true if self.free > 2 * self.pairs => self.find_free_from_cursor(true),
            _ => self.find_free_from_cursor(false),
        }
    }

    /// The first free block from the cursor on, in the order in which groups are filled; with
    /// `single`, the first whose partner is not free.
    fn find_free_from_cursor(&self, single: bool) -> Result<Block> {
        let groups = self.geometry.groups();
        let first = self.geometry.place_of(self.cursor / GROUP);
        // The group of the cursor comes twice: from the cursor on, and whole at the end.
        for step in 0..=groups {
            let group = self.geometry.group_at((first + step) % groups);
            let free = self.free_in[group as usize];
            if free == 0 || (single && free == self.whole_pairs_in(group)) {
                continue;
            }
            let mut start = (group * GROUP).max(self.geometry.first);
            if step == 0 {
                start = start.max(self.cursor);
            }
            let end = ((group + 1) * GROUP).min(self.geometry.total);
            for block in (start..end).map(Block) {
                if self.state(block)? == 0 && !(single && self.partner_is_free(block)) {
                    return Ok(block);
                }
            }
        }
        Err(Error::NoSpace)
    }

    /// How many of the free blocks of a group make a free pair with another.
    fn whole_pairs_in(&self, group: u64) -> u16 {
        match self.pairs_in.get(self.pairs_of(group as usize)) {
            Some(&pairs) => pairs,
            None => 0,
        }
    }

    /// The first free pair from the cursor on.
    fn find_pair(&self) -> Result<Block> {
        let groups = self.geometry.paired_groups();
        let first = self.pair_cursor / GROUP;
        for step in 0..=groups {
            let group = (first + step) % groups;
            if self.pairs_in[group as usize] == 0 {
                continue;
            }
            let mut start = group * GROUP;
            if step == 0 {
                start = start.max(self.pair_cursor);
            }
            let mut blocks = (start..(group + 1) * GROUP).map(Block);
            if let Some(block) = blocks.find(|&block| self.is_free_pair(block)) {
                return Ok(block);
            }
        }
        Err(Error::NoSpace)
    }

    /// Where the next `blocks` blocks of content are looked for: from the cursor on, in the order
    /// in which groups are filled.
    pub fn next_blocks(&self, blocks: u64) -> impl Iterator<Item = Range<u64>> + use<P> {
        let (geometry, cursor) = (self.geometry, self.cursor);
        let place = geometry.place_of(cursor / GROUP);
        let mut left = blocks;
        (0..=geometry.groups()).map_while(move |step| {
            if left == 0 {
                return None;
            }
            let group = geometry.group_at((place + step) % geometry.groups());
            let Geometry { first, total, .. } = geometry;
            let start = (group * GROUP).max(first);
            let start = if step == 0 { start.max(cursor) } else { start };
            let end = ((group + 1) * GROUP).min(total).min(start + left).max(start);
            left -= end - start;
            Some(start..end)
        })
    }

    /// Whether so many blocks of content, and so many of metadata, can be allocated.
    #[inline]
    pub fn has_room(&self, content: u64, metadata: u64, purpose: Purpose) -> bool {
        let pairs = metadata + purpose.reserve();
        self.pairs >= pairs && self.free.saturating_sub(2 * pairs.max(purpose.kept())) >= content
    }

    /// Makes sure that so many blocks of content, and so many of metadata, can be allocated,
    /// reclaiming what waits for it.
    #[inline]
    pub fn ensure(&mut self, content: u64, metadata: u64, purpose: Purpose) -> Result<()> {
        while !self.has_room(content, metadata, purpose) {
            if !self.reclaim_step()? {
                return Err(Error::NoSpace);
            }
        }
        Ok(())
    }
}
