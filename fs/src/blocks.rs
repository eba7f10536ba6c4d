//! Blocks: who refers to them, which are free, which wait to be reclaimed.
//!
//! All of this is derived from the trees. It lives in the scratch area of the volume, so
//! that memory does not grow with it, and is never read by recovery: a mount that is not
//! clean starts from an empty area and counts anew.
//!
//! A record has 16 bytes: the number of references to the block (4), the head of the
//! list of its shadows (4), and one word that a block waiting to be reclaimed uses as link.
//!
//! | count | shadows | meaning |
//! |---|---|---|
//! | 0 | 0 | free |
//! | 0 | all ones | waits to be reclaimed; the word links to the next one |
//! | n | head | n references; all ones: more than can be counted (sticky until a rebuild) |

use crate::error::{Error, Result};
use crate::format::superblock::{GROUP, Geometry, RECORD_SIZE};
use crate::format::word::{Pointer, Root};
use crate::pmem::{Pmem, Poisoned};
use crate::stage::{Durable, Published, Retire};
use crate::types::{BLOCK_SIZE, Block};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// More references than can be counted.
const STICKY: u32 = u32::MAX;
/// In place of the head of shadows: the block waits to be reclaimed.
const PENDING: u32 = u32::MAX;
/// End of the list of blocks that wait.
const END: u64 = (1 << 40) - 1;

/// What a block holds, for those who have to follow its references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Bytes of a file, or a directory bucket: refers to nothing.
    Data,
    /// A node of a tree of files' blocks; level 1 to 3.
    Node(u8),
    /// A node of an inode file; level 1 to 3. Below level 1 are blocks of inodes.
    InodeNode(u8),
    /// A block of inodes, which refers to their trees.
    Inodes,
}

impl Content {
    /// What the children of this block hold.
    #[inline]
    pub fn child(self) -> Content {
        match self {
            Content::Node(1) | Content::Data | Content::Inodes => Content::Data,
            Content::Node(level) => Content::Node(level - 1),
            Content::InodeNode(1) => Content::Inodes,
            Content::InodeNode(level) => Content::InodeNode(level - 1),
        }
    }

    /// What the top block of a file's tree of this height holds.
    #[inline]
    pub fn file_top(height: u8) -> Content {
        if height == 0 { Content::Data } else { Content::Node(height) }
    }

    /// What the top block of an inode file of this height holds.
    #[inline]
    pub fn inode_file_top(height: u8) -> Content {
        if height == 0 { Content::Inodes } else { Content::InodeNode(height) }
    }

    #[inline]
    fn code(self) -> u64 {
        match self {
            Content::Data => 0,
            Content::Node(level) => level as u64,
            Content::InodeNode(level) => 4 + level as u64,
            Content::Inodes => 8,
        }
    }

    #[inline]
    fn from_code(code: u64) -> Content {
        match code {
            1..=3 => Content::Node(code as u8),
            5..=7 => Content::InodeNode(code as u8 - 4),
            8 => Content::Inodes,
            _ => Content::Data,
        }
    }

    /// The reference that word `index` of a block with this content makes: `Err` tells
    /// what is wrong with the word. Bounds are checked by [`Geometry::holds`].
    #[inline(always)]
    pub fn reference(self, index: u16, word: u64) -> Result<Option<(Pointer, Content)>, &'static str> {
        match self {
            Content::Data => Ok(None),
            Content::Node(level) | Content::InodeNode(level) => {
                let pointer = Pointer::decode(word, level, index).map_err(|_| "a pointer fails its check")?;
                Ok(pointer.map(|p| (p, self.child())))
            }
            Content::Inodes => {
                use crate::format::inode::{INODE_WORDS, ROOT};
                if index % INODE_WORDS != ROOT {
                    return Ok(None);
                }
                let root = Root::decode(word, index / INODE_WORDS).map_err(|_| "a root fails its check")?;
                Ok(root.and_then(|r| r.top.map(|top| (top, Content::file_top(r.height)))))
            }
        }
    }
}

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

/// A block that was allocated, and that nothing refers to yet: it can be filled in any order.
#[derive(Debug)]
#[must_use]
pub(crate) struct Fresh(Block);

impl Fresh {
    /// Its number, to refer to it.
    pub fn block(&self) -> Block {
        self.0
    }
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
    pub(crate) free: u64,
    /// Blocks with more than one reference.
    pub(crate) shared: u64,
    /// Where the search for a free block goes on.
    cursor: u64,
    /// Head and number of the blocks that wait to be reclaimed.
    pending: Option<Block>,
    /// Grows whenever a position may have stopped being exclusive, or its node moved.
    pub epoch: u64,
}

impl<P: Pmem> Blocks<P> {
    /// The blocks of a volume whose derived state is unknown: all free, nothing counted.
    pub fn new(pmem: P, geometry: Geometry) -> Self {
        let groups = geometry.groups();
        let free_in: Vec<u16> = (0..groups)
            .map(|g| {
                let start = (g * GROUP).max(geometry.first);
                let end = ((g + 1) * GROUP).min(geometry.total);
                end.saturating_sub(start) as u16
            })
            .collect();
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
            epoch: 0,
        }
    }

    /// Free blocks, those of the reserve included.
    pub fn free(&self) -> u64 {
        self.free
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

    /// First page in the list of the block's shadows, as [`crate::dax`] keeps it: 0 is none.
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
    pub fn replace_shadows(&mut self, block: Block, head: u32) -> Result<u32, Poisoned> {
        let state = self.state(block)?;
        self.set_state(block, state & 0xffff_ffff | (head as u64) << 32);
        Ok((state >> 32) as u32)
    }

    /// Adds a reference to all that both a block and its copy refer to. A word that fails its
    /// check refers to nothing that anyone could follow.
    pub fn share_children(&mut self, old: Block, copy: Block, content: Content) -> Result<(), Poisoned> {
        const WORDS: usize = 64;
        // Once for all: what goes by the epoch only asks whether it moved.
        self.epoch += 1;
        let (mut left, mut right) = ([0; WORDS * 8], [0; WORDS * 8]);
        for start in (0..512).step_by(WORDS) {
            let offset = start as u64 * 8;
            self.pmem.read(old.0 * BLOCK_SIZE + offset, &mut left)?;
            self.pmem.read(copy.0 * BLOCK_SIZE + offset, &mut right)?;
            for (at, (a, b)) in left.as_chunks().0.iter().zip(right.as_chunks().0).enumerate() {
                let word = u64::from_le_bytes(*a);
                if word == 0 || word != u64::from_le_bytes(*b) {
                    continue;
                }
                let index = (start + at) as u16;
                let found = match content {
                    // Nearly all that is ever copied.
                    Content::Node(1) => Pointer::decode(word, 1, index).ok().flatten(),
                    _ => content.reference(index, word).ok().flatten().map(|(pointer, _)| pointer),
                };
                if let Some(pointer) = found
                    && self.geometry.holds(pointer.block)
                {
                    self.share(pointer.block)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a reference to a block that has one, as a rule; the epoch is the caller's to move.
    #[inline]
    fn share(&mut self, block: Block) -> Result<(), Poisoned> {
        let state = self.state(block)?;
        match state as u32 {
            0 | STICKY => self.add_reference(block),
            count => {
                self.pmem.store(self.record(block), state + 1);
                self.shared += (count == 1) as u64;
                Ok(())
            }
        }
    }

    /// Adds a reference. The position may stop being exclusive.
    pub fn add_reference(&mut self, block: Block) -> Result<(), Poisoned> {
        let state = self.state(block)?;
        match state as u32 {
            STICKY => {}
            0 => {
                self.set_state(block, state + 1);
                self.free -= 1;
                self.free_in[(block.0 / GROUP) as usize] -= 1;
            }
            count => {
                // It has a record, since it has a reference.
                self.pmem.store(self.record(block), state + 1);
                self.epoch += 1;
                self.shared += (count == 1) as u64;
            }
        }
        Ok(())
    }

    /// For a rebuild: counts a reference to a block, which holds `content`.
    pub fn count_reference(&mut self, block: Block, content: Content) -> Result<Reference, Poisoned> {
        let state = self.state(block)?;
        if state as u32 == 0 {
            self.set_state(block, state + 1);
            self.free -= 1;
            self.free_in[(block.0 / GROUP) as usize] -= 1;
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
                let next = self.pending.map_or(END, |b| b.0);
                self.set_state(block, (PENDING as u64) << 32);
                let at = self.record(block) + 8;
                self.pmem.store(at, next | content.code() << 40);
                self.pending = Some(block);
            }
            count => {
                self.set_state(block, state - 1);
                self.shared -= (count == 2) as u64;
            }
        }
        Ok(())
    }

    /// Frees a block whose references have gone, or have been taken over.
    #[inline]
    fn set_free(&mut self, block: Block) -> Result<(), Poisoned> {
        debug_assert!(matches!(self.shadows(block)?, 0 | PENDING), "block {} is still shown", block.0);
        self.set_state(block, 0);
        self.free += 1;
        self.free_in[(block.0 / GROUP) as usize] += 1;
        Ok(())
    }

    /// Gives back a block that was allocated and not published.
    pub fn unallocate(&mut self, block: Block) {
        // It was written a moment ago; if its record cannot be read now, it stays taken.
        let _ = self.set_free(block);
    }

    /// Gives back a block that was never published, and the references in it.
    pub fn discard(&mut self, block: Block, content: Content) {
        // What cannot be read now stays taken until a rebuild.
        let _ = self.drop_reference(block, content);
    }

    /// For verification: the record of a block, `None` if its group has none yet.
    pub fn recorded(&self, block: Block) -> Result<Option<u64>, Poisoned> {
        if self.is_initialised(block) { self.pmem.load(self.record(block)).map(Some) } else { Ok(None) }
    }

    /// Applies what a durable change has dropped.
    pub fn release(&mut self, done: Published<Durable>) -> Result<Vec<Retire>> {
        let mut retired = done.into_retired();
        let mut result = Ok(());
        for item in retired.drain(..) {
            let step = match item {
                Retire::Drop(block, content) => self.drop_reference(block, content),
                Retire::Moved(block) => self.set_free(block),
            };
            result = result.and(step);
        }
        result?;
        Ok(retired)
    }

    /// Takes a free block; its count is 1 and its content undefined.
    #[inline]
    pub fn allocate(&mut self, purpose: Purpose) -> Result<Fresh> {
        if self.free <= purpose.reserve() {
            return Err(Error::NoSpace);
        }
        // Mostly free, and on the fault path.
        let mut block = Block(self.cursor);
        if self.state(block)? != 0 {
            block = self.find_free()?;
        }
        self.set_state(block, 1);
        self.free -= 1;
        self.free_in[(block.0 / GROUP) as usize] -= 1;
        self.cursor = if block.0 + 1 < self.geometry.total { block.0 + 1 } else { self.geometry.first };
        Ok(Fresh(block))
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

    /// Makes sure that `blocks` can be allocated, reclaiming what waits for it.
    #[inline]
    pub fn ensure(&mut self, blocks: u64, purpose: Purpose) -> Result<()> {
        while self.free < blocks + purpose.reserve() {
            if !self.reclaim_step()? {
                return Err(Error::NoSpace);
            }
        }
        Ok(())
    }

    /// Reclaims one block that waits: drops its references, then frees it. False if none waits.
    pub fn reclaim_step(&mut self) -> Result<bool> {
        let Some(block) = self.pending else { return Ok(false) };
        let link = self.pmem.load(self.record(block) + 8)?;
        let content = Content::from_code(link >> 40);
        self.pending = (link & END != END).then_some(Block(link & END));
        for index in 0..512u16 {
            // What cannot be read or fails its check stays taken until a rebuild.
            let Ok(word) = self.word(block, index) else { continue };
            if word == 0 {
                continue;
            }
            if let Ok(Some((pointer, content))) = content.reference(index, word)
                && self.geometry.holds(pointer.block)
            {
                self.drop_reference(pointer.block, content)?;
            }
        }
        self.set_free(block)?;
        Ok(true)
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
