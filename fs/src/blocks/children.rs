//! What all words of a node refer to at once: when it is copied, and when it goes.

use super::{Blocks, Content, END, STICKY, WORDS, Words};
use crate::error::{Error, Result};
use crate::format::superblock::{GROUP, RECORD_SIZE};
use crate::format::word::{self, Pointer, Salt};
use crate::pmem::{Pmem, Poisoned};
use crate::types::Block;

/// Finds the blocks that entries of a leaf with this salt refer to, from `index` on, where another
/// leaf has the same; returns how many. Out of line, so that all that its loop needs is in
/// registers: copying or reclaiming a leaf goes through it 512 times.
#[inline(never)]
fn data_of(
    words: &Words,
    others: &Words,
    salt: Salt,
    index: u16,
    blocks: &mut [u64; WORDS],
) -> usize {
    let mut count = 0;
    for at in 0..WORDS {
        let [word, other] = [words[at], others[at]].map(u64::from_le_bytes);
        if word::value(word) == word::value(other)
            && let Ok(Some(pointer)) = Pointer::decode(word, salt, index + at as u16)
        {
            blocks[count] = pointer.block.0;
            count += 1;
        }
    }
    count
}

impl<P: Pmem> Blocks<P> {
    /// How many blocks of data a leaf refers to.
    pub fn count_data(&mut self, leaf: Block) -> Result<u64> {
        let (mut words, mut blocks): (Words, _) = ([[0; 8]; WORDS], [0; WORDS]);
        let salt = Salt::node(leaf, 1);
        let mut sum = 0;
        self.mend_if_different(leaf, Content::Node(1));
        for start in (0..512).step_by(WORDS) {
            self.read_words(leaf, Content::Node(1), start as u16, &mut words)?;
            let found = data_of(&words, &words, salt, start as u16, &mut blocks);
            let is_hole = |(word, index): (&[u8; 8], u16)| {
                Pointer::decode(u64::from_le_bytes(*word), salt, index) == Ok(None)
            };
            let holes = words.iter().zip(start as u16..).filter(|&word| is_hole(word)).count();
            if found + holes < WORDS {
                return Err(Error::Damaged { block: leaf, what: "a pointer fails its check" });
            }
            sum += found as u64;
        }
        Ok(sum)
    }

    /// Adds a reference to all that both a block and its copy refer to. A word that fails its
    /// check refers to nothing that anyone could follow.
    pub fn share_children(
        &mut self,
        old: Block,
        copy: Block,
        content: Content,
    ) -> Result<(), Poisoned> {
        let (mut left, mut right): (Words, Words) = ([[0; 8]; WORDS], [[0; 8]; WORDS]);
        let salt = content.salt(old);
        for start in (0..512).step_by(WORDS) {
            // It was mended before it was copied.
            self.read_words(old, content, start as u16, &mut left)?;
            self.read_words(copy, content, start as u16, &mut right)?;
            // Nearly all that is ever copied are leaves.
            if content == Content::Node(1) {
                self.share_data(&left, &right, salt, start as u16)?;
                continue;
            }
            for ((word, copied), index) in left.iter().zip(&right).zip(start as u16..) {
                let [word, copied] = [*word, *copied].map(u64::from_le_bytes);
                if word::value(word) == word::value(copied)
                    && let Ok(Some((pointer, content))) = content.reference_in(salt, index, word)
                    && self.geometry.holds(pointer.block)
                {
                    self.add_reference(pointer.block, content)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a reference to the data that entries of a leaf refer to, from `index` on, where its
    /// copy has the same.
    #[inline(never)]
    fn share_data(
        &mut self,
        words: &Words,
        copied: &Words,
        salt: Salt,
        index: u16,
    ) -> Result<(), Poisoned> {
        let mut blocks = [0; WORDS];
        let count = data_of(words, copied, salt, index, &mut blocks);
        if self.recount.is_some() {
            return self.share_noted(&blocks[..count]);
        }
        self.each_record(&blocks[..count], |blocks, block, record, state| match state as u32 {
            0 | STICKY => blocks.add_reference(block, Content::Data),
            count => {
                blocks.pmem.store(record, state + 1);
                if count == 1 {
                    blocks.shared += 1;
                }
                Ok(())
            }
        })
    }

    /// Takes a reference away from the data that entries of a leaf refer to, from `index` on.
    #[inline(never)]
    fn drop_data(&mut self, words: &Words, salt: Salt, index: u16) -> Result<(), Poisoned> {
        let mut blocks = [0; WORDS];
        let count = data_of(words, words, salt, index, &mut blocks);
        if self.recount.is_some() || self.has_bad {
            return self.drop_noted(&blocks[..count]);
        }
        self.each_record(&blocks[..count], |blocks, block, record, state| match state as u32 {
            0 | STICKY => blocks.drop_reference(block, Content::Data),
            1 if state != 1 => blocks.drop_reference(block, Content::Data),
            1 => {
                blocks.pmem.store(record, 0);
                blocks.count_free(block);
                Ok(())
            }
            count => {
                blocks.pmem.store(record, state - 1);
                if count == 2 {
                    blocks.shared -= 1;
                }
                Ok(())
            }
        })
    }

    /// As [`Blocks::share_data`], while references are counted anew.
    #[cold]
    #[inline(never)]
    fn share_noted(&mut self, blocks: &[u64]) -> Result<(), Poisoned> {
        self.each_record(blocks, |blocks, block, _, _| blocks.add_reference(block, Content::Data))
    }

    /// As [`Blocks::drop_data`], while references are counted anew, or where blocks may be bad.
    #[cold]
    #[inline(never)]
    fn drop_noted(&mut self, blocks: &[u64]) -> Result<(), Poisoned> {
        self.each_record(blocks, |blocks, block, _, _| blocks.drop_reference(block, Content::Data))
    }

    /// Calls `each` with each block that the volume has, its record and what is in it.
    #[inline(always)]
    fn each_record(
        &mut self,
        blocks: &[u64],
        each: impl Fn(&mut Self, Block, u64, u64) -> Result<(), Poisoned>,
    ) -> Result<(), Poisoned> {
        let records = self.records;
        // The group of the last one, if all of it is within the volume and has valid records:
        // neighbours mostly are in the same one.
        let mut group = u64::MAX;
        for &block in blocks {
            if block / GROUP != group {
                if !self.geometry.holds(Block(block)) {
                    continue;
                }
                if !self.is_initialised(Block(block)) {
                    self.initialise(block / GROUP);
                }
                group =
                    if self.geometry.holds_group(block / GROUP) { block / GROUP } else { u64::MAX };
            }
            let record = records + block * RECORD_SIZE;
            let state = self.pmem.load(record)?;
            each(self, Block(block), record, state)?;
        }
        Ok(())
    }

    /// Mends what was noted, or reclaims one block that waits: drops its references, then frees it.
    /// False if there is nothing to do.
    pub fn reclaim_step(&mut self) -> Result<bool> {
        if self.has_noted() {
            self.mend_noted();
            return Ok(true);
        }
        let Some(block) = self.pending else { return Ok(false) };
        let link = self.pmem.load(self.record(block) + 8)?;
        let content = Content::from_code(link >> 40);
        self.pending = (link & END != END).then_some(Block(link & END));
        let mut words: Words = [[0; 8]; WORDS];
        let salt = content.salt(block);
        self.mend_if_different(block, content);
        for start in (0..512u16).step_by(WORDS) {
            // What can be read in neither copy, or fails its check, stays taken until a rebuild.
            if self.read_words(block, content, start, &mut words).is_err() {
                for (word, index) in words.iter_mut().zip(start..) {
                    let read = self.either_word(block, content, index);
                    *word = read.unwrap_or(0).to_le_bytes();
                }
            }
            if content == Content::Node(1) {
                self.drop_data(&words, salt, start)?;
                continue;
            }
            for (word, index) in words.iter().zip(start..) {
                if let Ok(Some((pointer, content))) =
                    content.reference_in(salt, index, u64::from_le_bytes(*word))
                    && self.geometry.holds(pointer.block)
                {
                    self.drop_reference(pointer.block, content)?;
                }
            }
        }
        let state = self.state(block)?;
        self.set_free(block, state)?;
        // A node that this one shared may be exclusive now.
        self.exclusive_again += u64::from(content != Content::Node(1));
        Ok(true)
    }
}
