//! One block of a scrub: each byte of it is loaded, and its two copies are compared, if it has two.

use super::{Blocks, Content, PAIRED, PENDING, TWIN};
use crate::format::superblock::{COPIES, GROUP, RECORD_SIZE};
use crate::format::word::open;
use crate::pmem::{Pmem, Poisoned};
use crate::types::{BLOCK_SIZE, Block};

/// Bytes that are loaded at a time.
const PIECE: usize = 512;
/// Words that open by accident, at most, where words are of something else.
const ACCIDENTS: usize = 8;
/// What a block of metadata may hold that is made of sealed words. Nodes of all trees have the same
/// salts.
const SEALED: [Content; 6] = [
    Content::Node(1),
    Content::Node(2),
    Content::Node(3),
    Content::Inodes,
    Content::Bucket,
    Content::BadBlocks,
];

/// What a scrub does with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Nothing: it is free, waits to be reclaimed, is on the list of bad blocks, is the second copy
    /// of another one, or has records that were never written.
    Nothing,
    /// This block is loaded: there is one copy of what it has, or the other one is on the list of
    /// bad blocks.
    One(Block),
    /// It is metadata; this is its second copy.
    Pair(Block),
}

/// What became of a pair whose copies are not equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unequal {
    /// They are equal now: what was bad in one was mended from the other.
    Mended,
    /// Both are good, and differ; nothing was changed.
    Differ,
    /// One copy cannot be read, though it was written anew: the other one is all there is.
    OneLeft,
    /// Words are bad in both copies.
    Damaged,
    /// It is the target of a symbolic link, of which only the inode tells which copy is good.
    Target,
}

impl<P: Pmem> Blocks<P> {
    /// What a scrub does with a block.
    ///
    /// # Errors
    ///
    /// [`Poisoned`]: the record of the block cannot be delivered.
    pub fn scrubbed(&self, block: Block) -> Result<Load, Poisoned> {
        if !self.geometry.holds(block) {
            return Ok(if self.is_derived_unused(block) {
                Load::Nothing
            } else {
                Load::One(block)
            });
        }
        let state = self.state(block)?;
        if state == TWIN || state as u32 == 0 {
            return Ok(Load::Nothing);
        }
        let twin = match (state >> 32) as u32 {
            PENDING => return Ok(Load::Nothing),
            PAIRED => self.geometry.twin(block),
            _ => None,
        };
        Ok(match (self.is_bad(block), twin) {
            (false, None) => Load::One(block),
            (false, Some(twin)) if self.is_bad(twin) => Load::One(block),
            (false, Some(twin)) => Load::Pair(twin),
            (true, Some(twin)) if !self.is_bad(twin) => Load::One(twin),
            (true, _) => Load::Nothing,
        })
    }

    /// Whether a block has nothing but records that were never written. To load these could have
    /// the host take memory for them.
    fn is_derived_unused(&self, block: Block) -> bool {
        let records = self.geometry.scratch..self.geometry.checkpoint;
        let in_group = GROUP * RECORD_SIZE / BLOCK_SIZE;
        let group = block.0.saturating_sub(records.start) / in_group;
        let is_record = records.contains(&block.0) && block != COPIES[1];
        is_record && !self.is_initialised(Block((group * GROUP).min(self.geometry.total - 1)))
    }

    /// Loads each byte of a block.
    ///
    /// # Errors
    ///
    /// [`Poisoned`]: the memory cannot deliver it.
    pub fn load_all(&self, block: Block) -> Result<(), Poisoned> {
        let mut bytes = [0; PIECE];
        let start = block.0 * BLOCK_SIZE;
        (start..start + BLOCK_SIZE).step_by(PIECE).try_for_each(|at| self.pmem.read(at, &mut bytes))
    }

    /// Mends the copies of a block of metadata that are not equal.
    #[cold]
    #[inline(never)]
    pub fn mend_unequal(&mut self, block: Block, twin: Block) -> Unequal {
        match self.sealed_content(block, twin) {
            None => Unequal::Target,
            Some(content) if !self.mend(block, content) => Unequal::Differ,
            Some(_) if self.are_equal(block, twin) => Unequal::Mended,
            Some(_) if self.load_all(block).is_err() != self.load_all(twin).is_err() => {
                Unequal::OneLeft
            }
            Some(_) => Unequal::Damaged,
        }
    }

    /// What a block of metadata holds, as its words tell: each is sealed for that, so most of those
    /// that are good fail their check as anything else. `None`: it is not made of words, or none of
    /// them is good.
    fn sealed_content(&self, block: Block, twin: Block) -> Option<Content> {
        let good = |content: Content| {
            let opens = |&index: &u16| {
                [block, twin].into_iter().any(|copy| {
                    let word = self.pmem.load(copy.0 * BLOCK_SIZE + u64::from(index) * 8);
                    word.is_ok_and(|word| open(word, content.salt(block), index).is_ok())
                })
            };
            (0..content.words() as u16).filter(opens).count()
        };
        let (good, content) =
            SEALED.into_iter().map(|content| (good(content), content)).max_by_key(|it| it.0)?;
        (good > ACCIDENTS).then_some(content)
    }
}
