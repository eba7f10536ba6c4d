//! Counting references anew while others work: what a check has to know of every change.
//!
//! The walk goes down from the top and counts, in the second word of a block's record, how many
//! words of nodes refer to it. Each node is looked at once. Between two steps of the walk anything
//! may change; three rules keep its counts true for every block whose own record did not change:
//!
//! 1. A word that comes to refer to a block, or no longer does, changes that block's count: then
//!    the block is marked [`CHANGED`], and not judged.
//! 2. A node that moves takes its place in the walk along: [`Blocks::node_moved`]. It refers to
//!    what it did.
//! 3. A node that gains a reference may be reached by a place that the walk has passed, and may
//!    lose the place where the walk would still come by: it is marked [`SHADED`], and visited in
//!    the end. (Garbage collectors that run beside a program do the same.)
//!
//! What a change has dropped still holds its references until it is reclaimed. So the walk is over
//! when, after it, there was a moment at which nothing waited for that.
//!
//! Records are in the scratch area, so no memory grows with the volume, and a crash forgets all
//! this. A record whose block waits to be reclaimed has a link in its second word, and no marks.

use super::lent::LENT;
use super::walk::{Frame, Recount};
use super::{Blocks, Content, PAIRED, PENDING, TWIN};
use crate::format::superblock::GROUP;
use crate::memory::Boxed;
use crate::pmem::{Pmem, Poisoned};
use crate::types::Block;

/// The count of the block changed since the walk began.
const CHANGED: u64 = 1 << 60;
/// The node was looked at, or is being looked at.
const VISITED: u64 = 1 << 61;
/// The node has to be looked at in the end. Its content is in the bits of [`CONTENT`].
const SHADED: u64 = 1 << 62;
/// References that were counted.
const COUNTED: u64 = u32::MAX as u64;
/// Where the code of a content starts.
const CONTENT: u32 = 40;

/// What a reference led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// It is counted. If it is a node that was not looked at before, it is the next one.
    Counted,
    /// To a block that waits to be reclaimed.
    Pending,
    /// To a node, deeper than any can be.
    TooDeep,
}

/// A record as a check sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// References that are recorded; 0 if it is lent.
    pub count: u32,
    /// References that were counted.
    pub counted: u32,
    /// Its count changed since the walk began.
    pub changed: bool,
    /// It is free, says the count, but not the rest of the record.
    pub shown: bool,
    /// It is metadata, or a twin, and the record of the block that makes a pair with it does not
    /// say so.
    pub alone: bool,
}

fn is_pending(state: u64) -> bool {
    state == (PENDING as u64) << 32
}

fn is_shared(state: u64) -> bool {
    state != LENT && state as u32 > 1
}

impl<P: Pmem> Blocks<P> {
    /// Begins a recount: changes are noted from now on. [`Error::NoMemory`](crate::Error::NoMemory)
    /// if there is none for what has to be noted.
    pub fn begin_recount(&mut self) -> crate::error::Result<()> {
        self.recount = Some(Boxed::new(Recount::default())?);
        Ok(())
    }

    /// Ends it, whether it is over or not.
    pub fn end_recount(&mut self) {
        self.recount = None;
    }

    /// Has the walk begin at the top of the volume. All marks are cleared.
    pub fn begin_walk(&mut self) {
        let lowest = self.geometry.total;
        if let Some(recount) = &mut self.recount {
            **recount = Recount { walking: true, lowest, ..Recount::default() };
        }
    }

    /// The walk is over: every node that can be reached was looked at.
    pub fn end_walk(&mut self) {
        if let Some(recount) = &mut self.recount {
            recount.walking = false;
        }
    }

    fn marks(&self, block: Block) -> Result<u64, Poisoned> {
        if self.is_initialised(block) { self.pmem.load(self.record(block) + 8) } else { Ok(0) }
    }

    fn set_marks(&mut self, block: Block, marks: u64) {
        if !self.is_initialised(block) {
            self.initialise(block.0 / GROUP);
        }
        let at = self.record(block) + 8;
        self.pmem.store(at, marks);
    }

    /// Clears the marks of a group; how many records that were.
    pub fn clear_marks(&mut self, group: u64) -> Result<u64, Poisoned> {
        let mut records = 0;
        for block in self.geometry.blocks_of(group) {
            if !self.is_initialised(block) {
                break;
            }
            records += 1;
            if !is_pending(self.state(block)?) {
                self.set_marks(block, 0);
            }
        }
        Ok(records)
    }

    /// Notes that the first word of a block's record changes.
    #[inline(always)]
    pub(super) fn note(&mut self, block: Block, before: u64, after: u64) {
        if self.recount.is_some() {
            self.note_change(block, before, after);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_change(&mut self, block: Block, before: u64, after: u64) {
        // A record that cannot be read is reported when it is judged.
        let marks = if is_pending(before) { 0 } else { self.marks(block).unwrap_or(0) };
        let gone = after as u32 == 0;
        let Some(recount) = &mut self.recount else { return };
        if block.0 < recount.judged {
            recount.shared =
                recount.shared + u64::from(is_shared(after)) - u64::from(is_shared(before));
            recount.lent = recount.lent + u64::from(after == LENT) - u64::from(before == LENT);
        }
        if gone {
            recount.shaded = recount.shaded.saturating_sub(u64::from(marks & SHADED != 0));
            for frame in recount.stack.iter_mut().filter(|frame| frame.block == Some(block)) {
                frame.block = None;
            }
        }
        if !is_pending(after) {
            // Whatever it is next, it was not looked at.
            let fresh = gone || before as u32 == 0 || before == LENT;
            self.set_marks(block, if fresh { CHANGED } else { marks | CHANGED });
        }
    }

    /// Notes that a node gains a reference.
    #[inline(always)]
    pub(super) fn note_shared(&mut self, block: Block, content: Content) {
        if content.refers() && self.recount.as_ref().is_some_and(|recount| recount.walking) {
            self.shade(block, content);
        }
    }

    #[cold]
    #[inline(never)]
    fn shade(&mut self, block: Block, content: Content) {
        let marks = self.marks(block).unwrap_or(0);
        if marks & (VISITED | SHADED) == 0 {
            self.set_marks(block, marks & (COUNTED | CHANGED) | SHADED | content.code() << CONTENT);
            if let Some(recount) = &mut self.recount {
                recount.shaded += 1;
                recount.lowest = recount.lowest.min(block.0);
            }
        }
    }

    /// Notes that a node is at another place, and refers to what it did.
    #[inline(always)]
    pub fn node_moved(&mut self, from: Block, to: Block) {
        if self.recount.as_ref().is_some_and(|recount| recount.walking) {
            self.move_marks(from, to);
        }
    }

    #[cold]
    #[inline(never)]
    fn move_marks(&mut self, from: Block, to: Block) {
        let marks = self.marks(from).unwrap_or(0);
        self.set_marks(to, marks & !COUNTED | CHANGED);
        self.set_marks(from, marks & COUNTED | CHANGED);
        let Some(recount) = &mut self.recount else { return };
        recount.lowest = recount.lowest.min(if marks & SHADED != 0 { to.0 } else { u64::MAX });
        for frame in recount.stack.iter_mut().filter(|frame| frame.block == Some(from)) {
            frame.block = Some(to);
        }
    }

    /// Notes that a word refers to a block that another word referred to before: no count has
    /// changed.
    pub fn reference_moved(&mut self, block: Block) {
        if self.recount.is_some() {
            let marks = self.marks(block).unwrap_or(0);
            self.set_marks(block, marks | CHANGED);
        }
    }

    /// Counts a reference of the walk to a block.
    pub fn visit(&mut self, block: Block, content: Content) -> Result<Visit, Poisoned> {
        if is_pending(self.state(block)?) {
            return Ok(Visit::Pending);
        }
        let marks = self.marks(block)?;
        let marks = marks & !COUNTED | (marks & COUNTED).saturating_add(1).min(COUNTED);
        if !content.refers() || marks & VISITED != 0 {
            self.set_marks(block, marks);
            return Ok(Visit::Counted);
        }
        self.set_marks(block, marks);
        self.look_at(block, content)
    }

    /// Has a node be looked at next.
    fn look_at(&mut self, block: Block, content: Content) -> Result<Visit, Poisoned> {
        let marks = self.marks(block)?;
        let Some(recount) = &mut self.recount else { return Ok(Visit::Counted) };
        let deep = recount.stack.try_push(Frame { block: Some(block), content, next: 0 }).is_err();
        recount.shaded = recount.shaded.saturating_sub(u64::from(marks & SHADED != 0));
        recount.visited += u64::from(!deep);
        self.set_marks(block, marks & (COUNTED | CHANGED) | VISITED);
        Ok(if deep { Visit::TooDeep } else { Visit::Counted })
    }

    /// Looks for a shaded node from the block on where the last one was, in up to `most` records,
    /// and has it be looked at next; how many records that took.
    pub fn find_shaded(&mut self, most: u64) -> Result<u64, Poisoned> {
        let start =
            self.recount.as_ref().map_or(0, |recount| recount.lowest).max(self.geometry.first);
        let mut block = start;
        while block < self.geometry.total && block - start < most {
            if !self.is_initialised(Block(block)) {
                block = (block / GROUP + 1) * GROUP;
                continue;
            }
            // A block that waits to be reclaimed has a link there, which is no mark.
            let marks = self.marks(Block(block))?;
            if marks & SHADED != 0 && !is_pending(self.state(Block(block))?) {
                self.look_at(Block(block), Content::from_code(marks >> CONTENT & 31))?;
                break;
            }
            block += 1;
        }
        if let Some(recount) = &mut self.recount {
            recount.lowest = block;
        }
        Ok(block.saturating_sub(start) + 1)
    }

    /// Whether the record of a block and that of the one that makes a pair with it fit each other.
    fn has_partner(&self, block: Block, state: u64) -> Result<bool, Poisoned> {
        let is_pair = |state: u64| matches!((state >> 32) as u32, PAIRED | PENDING);
        match state {
            TWIN => match self.geometry.partner(block) {
                Some(first) => Ok(is_pair(self.state(first)?)),
                None => Ok(false),
            },
            state if is_pair(state) => match self.geometry.twin(block) {
                Some(twin) => Ok(self.state(twin)? == TWIN),
                None => Ok(false),
            },
            _ => Ok(true),
        }
    }

    /// Judges the records of a group at once: `each` is called for those that are not just free.
    /// How many are free, and how many that should be.
    pub fn judge_group(
        &mut self,
        group: u64,
        each: &mut dyn FnMut(Block, Judged),
    ) -> Result<(u64, u64), Poisoned> {
        let (mut free, mut shared, mut lent) = (0, 0, 0);
        for block in self.geometry.blocks_of(group) {
            let state = self.state(block)?;
            if is_pending(state) {
                continue;
            }
            let marks = self.marks(block)?;
            let count = if matches!(state, LENT | TWIN) { 0 } else { state as u32 };
            free += u64::from(state as u32 == 0);
            shared += u64::from(is_shared(state));
            lent += u64::from(state == LENT);
            if state != 0 || marks != 0 {
                let shown = state as u32 == 0 && state != 0;
                let (counted, changed) = ((marks & COUNTED) as u32, marks & CHANGED != 0);
                let alone = !self.has_partner(block, state)?;
                each(block, Judged { count, counted, changed, shown, alone });
            }
        }
        if let Some(recount) = &mut self.recount {
            recount.judged = ((group + 1) * GROUP).min(self.geometry.total).max(recount.judged);
            recount.shared += shared;
            recount.lent += lent;
        }
        Ok((free, self.free_in[group as usize].into()))
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::blocks::Purpose;
    use crate::testing::new_volume;

    /// A node that goes and a new one in its place have nothing in common: the walk has to look at
    /// the new one, too.
    #[test]
    fn a_block_that_is_taken_anew_was_not_looked_at() {
        let mut volume = new_volume(8 << 20, 1);
        let blocks = &mut volume.tree.blocks;
        blocks.begin_recount().unwrap();
        blocks.begin_walk();
        let node = blocks.allocate(Purpose::Grow).unwrap().block();
        let content = Content::Node(1);
        for looked_at in 1..=3 {
            assert_eq!(blocks.marks(node), Ok(CHANGED), "before it is looked at");
            assert_eq!(blocks.visit(node, content), Ok(Visit::Counted));
            assert_eq!(blocks.marks(node), Ok(CHANGED | VISITED | 1));
            assert_eq!(blocks.recount.as_ref().unwrap().visited, looked_at);
            blocks.unallocate(node);
            assert_eq!(blocks.marks(node), Ok(CHANGED), "it is free");
            let frames = &blocks.recount.as_ref().unwrap().stack;
            assert!(frames.iter().all(|frame| frame.block != Some(node)), "nor is it looked at");
            blocks.cursor = node.0;
            assert_eq!(blocks.allocate(Purpose::Grow).unwrap().block(), node);
        }
    }
}
