//! The two copies of metadata: which one is read, and how they are made equal again.
//!
//! Every block of metadata has a twin
//! ([`Geometry::twin`](crate::format::superblock::Geometry::twin)), equal byte by byte. Whoever
//! reads looks at the first copy. Only where the memory cannot deliver that, or what it delivers
//! fails its check, the twin is asked, and the block is noted: the next change, or step of
//! background work, mends it.
//!
//! | first copy | twin | then |
//! |---|---|---|
//! | good | good, and different | after a crash, which came between the two stores of a change, the first counts. Else it is a finding of a check, and both stay as they are |
//! | good | some of it bad | the first is copied over it |
//! | some of it bad | good | it is copied over the first |
//! | some of it bad | some of it bad | word by word, whichever is good; what is bad in both stays so |

use super::noted::{WORDS, Words};
use super::{Blocks, Content, PAIRED, PENDING};
use crate::error::{Error, Result};
use crate::format::bucket::{Header, SLOTS, SlotWord, UNITS, Units, units};
use crate::format::word::{Pointer, Root, Salt, open, value};
use crate::pmem::{LINE, Pmem, Poisoned};
use crate::types::{BLOCK_SIZE, Block, MAX_NAME};
use arrayvec::ArrayVec;

/// Byte offset in the region of a block.
fn start(block: Block) -> u64 {
    block.0 * BLOCK_SIZE
}

impl<P: Pmem> Blocks<P> {
    /// The value of word `index` of a block of metadata that holds `content`. It refers to nothing.
    ///
    /// # Errors
    ///
    /// Both copies are bad: what is wrong with the first, which is `what` if its check is.
    #[inline(always)]
    pub fn value(
        &self,
        block: Block,
        content: Content,
        index: u16,
        what: &'static str,
    ) -> Result<u64> {
        if let Ok(word) = self.word(block, index)
            && let Ok(value) = open(word, content.salt(block), index)
        {
            return Ok(value);
        }
        match self.word_of_twin(block, content, index) {
            Some(word) => Ok(value(word)),
            None => Err(self.damage(block, index, what)),
        }
    }

    /// What word `index` of a block of metadata that holds `content` refers to: bounds and checks
    /// are verified.
    ///
    /// # Errors
    ///
    /// Both copies are bad: what is wrong with the first.
    #[inline(always)]
    pub fn follow(
        &self,
        block: Block,
        content: Content,
        index: u16,
    ) -> Result<Option<(Pointer, Content)>> {
        let salt = content.salt(block);
        if let Ok(word) = self.word(block, index)
            && let Ok(found) = content.reference_in(salt, index, word)
            && found.is_none_or(|(pointer, _)| self.geometry.holds(pointer.block))
        {
            return Ok(found);
        }
        // Each of these is a call that takes and gives numbers: one that shared `found` with what
        // is above would keep it from being held in registers.
        match self.word_of_twin(block, content, index) {
            Some(word) => Ok(content.reference(index, value(word)).unwrap_or(None)),
            None => Err(self.wrong_reference(block, content, index)),
        }
    }

    /// The root that word `index` of a block of inodes is, verified; `None`: the inode is free.
    ///
    /// # Errors
    ///
    /// As [`Blocks::follow`] has them.
    #[inline]
    pub fn root(&self, block: Block, index: u16) -> Result<Option<Root>> {
        let salt = Salt::inodes(block);
        let holds = |root: Root| root.top.is_none_or(|top| self.geometry.holds(top.block));
        if let Ok(word) = self.word(block, index)
            && let Ok(found) = Root::decode(word, salt, index)
            && found.is_none_or(holds)
        {
            return Ok(found);
        }
        match self.word_of_twin(block, Content::Inodes, index) {
            Some(word) => Ok(Root::from_value(value(word)).unwrap_or(None)),
            None => Err(self.wrong_reference(block, Content::Inodes, index)),
        }
    }

    /// A word of a copy, whatever it is.
    #[inline(always)]
    fn word(&self, copy: Block, index: u16) -> Result<u64, Poisoned> {
        self.pmem.load(start(copy) + u64::from(index) * 8)
    }

    /// A word of the twin, where that of the first copy is no good; `None`: this is none either.
    #[cold]
    #[inline(never)]
    fn word_of_twin(&self, block: Block, content: Content, index: u16) -> Option<u64> {
        let word = self.word(self.geometry.twin(block)?, index).ok()?;
        if !self.is_good_word(word, block, content, index) {
            return None;
        }
        self.noted.add(block, content);
        Some(word)
    }

    /// Whether a word of a copy of a block opens, and is one that can be followed, if it refers to
    /// something.
    fn is_good_word(&self, word: u64, block: Block, content: Content, index: u16) -> bool {
        open(word, content.salt(block), index).is_ok_and(|value| {
            content
                .reference(index, value)
                .is_ok_and(|found| found.is_none_or(|(p, _)| self.geometry.holds(p.block)))
        })
    }

    /// What is wrong with a word of the first copy, if it can be read: `what`.
    #[cold]
    #[inline(never)]
    fn damage(&self, block: Block, index: u16, what: &'static str) -> Error {
        self.word(block, index).map_or_else(Error::from, |_| Error::Damaged { block, what })
    }

    /// What is wrong with a reference of the first copy.
    #[cold]
    #[inline(never)]
    fn wrong_reference(&self, block: Block, content: Content, index: u16) -> Error {
        let what = self.word(block, index).map(|word| {
            let found = content.reference_in(content.salt(block), index, word);
            match (found, content) {
                (Err(what), _) => what,
                (Ok(_), Content::Inodes) => "a root leads out of the volume",
                (Ok(_), _) => "a pointer leads out of the volume",
            }
        });
        what.map_or_else(Error::from, |what| Error::Damaged { block, what })
    }

    /// Reads a block of metadata as a whole, from the copy that starts at the byte offset which
    /// `read` is given: the first, or the twin where `read` finds that it cannot be read.
    ///
    /// # Errors
    ///
    /// What is wrong with the first copy.
    #[inline]
    pub fn read_copy<T>(
        &self,
        block: Block,
        content: Content,
        mut read: impl FnMut(u64) -> Result<T>,
    ) -> Result<T> {
        match read(start(block)) {
            Err(error) if error.is_media() => {
                let twin = self.geometry.twin(block).ok_or(error)?;
                let found = read(start(twin)).map_err(|_| error)?;
                self.noted.add(block, content);
                Ok(found)
            }
            found => found,
        }
    }

    /// Before a block of metadata is read as a whole: mends it if its copies differ, so that what
    /// is good in either is in the first.
    #[inline]
    pub fn mend_if_different(&mut self, block: Block, content: Content) {
        if let Some(twin) = self.geometry.twin(block)
            && !self.are_equal(block, twin)
        {
            self.mend(block, content);
        }
    }

    /// Reads words of a block of metadata, from index `first` on, of which the copies are equal as
    /// far as both can be read ([`Blocks::mend_if_different`]). One that is bad is given as it is.
    #[inline]
    pub fn read_words(
        &self,
        block: Block,
        content: Content,
        first: u16,
        into: &mut Words,
    ) -> Result<(), Poisoned> {
        let at = start(block) + u64::from(first) * 8;
        if self.pmem.read(at, into.as_flattened_mut()).is_ok() {
            return Ok(());
        }
        self.read_each_word(block, content, first, into)
    }

    /// As [`Blocks::read_words`], where the first copy cannot be read.
    #[cold]
    #[inline(never)]
    fn read_each_word(
        &self,
        block: Block,
        content: Content,
        first: u16,
        into: &mut Words,
    ) -> Result<(), Poisoned> {
        for (word, index) in into.iter_mut().zip(first..) {
            *word = self.either_word(block, content, index)?.to_le_bytes();
        }
        Ok(())
    }

    /// As [`Blocks::read_words`], any bytes from the offset `offset` on.
    pub fn read_bytes(&self, block: Block, offset: u64, into: &mut [u8]) -> Result<(), Poisoned> {
        let first = self.pmem.read(start(block) + offset, into);
        match self.geometry.twin(block) {
            Some(twin) => first.or_else(|_| self.pmem.read(start(twin) + offset, into)),
            None => first,
        }
    }

    /// A word of either copy: one that opens, or else one that can be read at all.
    pub(super) fn either_word(
        &self,
        block: Block,
        content: Content,
        index: u16,
    ) -> Result<u64, Poisoned> {
        let salt = content.salt(block);
        let first = self.word(block, index);
        if first.is_ok_and(|word| open(word, salt, index).is_ok()) {
            return first;
        }
        let Some(twin) = self.geometry.twin(block) else { return first };
        let second = self.word(twin, index);
        match second.is_ok_and(|word| open(word, salt, index).is_ok()) {
            true => second,
            false => first.or(second),
        }
    }

    /// Whether a copy of which a block is in need of mending was noted.
    #[inline(always)]
    pub fn has_noted(&self) -> bool {
        self.noted.has_some()
    }

    /// Mends what was noted.
    #[cold]
    #[inline(never)]
    pub fn mend_noted(&mut self) {
        for (block, content) in self.noted.take().into_iter().flatten() {
            match content {
                Content::Target => self.mend_target(block),
                content => {
                    self.mend(block, content);
                }
            }
        }
    }

    /// Blocks of metadata of which one copy was written anew from the other since mount.
    pub fn mended(&self) -> u64 {
        self.mended
    }

    /// Whether both copies of a block of metadata can be read, and are equal.
    pub fn are_equal(&self, block: Block, twin: Block) -> bool {
        self.pmem.first_difference(start(block), start(twin), BLOCK_SIZE) == Ok(None)
    }

    /// For a rebuild: makes both copies of a block of metadata equal. Where both are good, a crash
    /// came between the two stores of a change, which nobody was told about yet.
    pub fn make_equal(&mut self, block: Block, content: Content) {
        let Some(twin) = self.geometry.twin(block) else { return };
        if !self.are_equal(block, twin) && !self.mend(block, content) {
            self.write_over(block, twin);
            self.pmem.flush(start(twin), BLOCK_SIZE);
        }
    }

    /// For a check: compares both copies of a block of metadata, and mends what is bad in one.
    /// False: both are good, and different.
    pub fn compare(&mut self, block: Block, content: Content) -> bool {
        let Some(twin) = self.geometry.twin(block) else { return true };
        // Which copy of a target is good is known to those who read it by its name.
        self.are_equal(block, twin) || content == Content::Target || self.mend(block, content)
    }

    /// Makes both copies of a block of metadata equal, as far as one of them is good. They are
    /// durable with the next fence. False: both are good, and different; nothing was changed.
    #[cold]
    #[inline(never)]
    pub fn mend(&mut self, block: Block, content: Content) -> bool {
        let Some(twin) = self.geometry.twin(block) else { return true };
        // It was noted some time ago: meanwhile it may have become something else.
        let head = self.state(block).map(|state| (state >> 32) as u32);
        if !matches!(head, Ok(PAIRED | PENDING)) {
            return true;
        }
        let copies = [block, twin];
        let good = copies.map(|copy| self.is_good(copy, block, content));
        match good {
            [true, true] if content == Content::Bucket => {
                // Only payloads can be bad, and lines without any, each in one copy or the other.
                let merged = self.merge_payloads(block, block, twin)
                    + self.merge_payloads(block, twin, block)
                    + self.write_unreadable(block, twin);
                self.mended += u64::from(merged > 0);
                if self.lines(block, twin).any(|(_, read)| matches!(read, [Ok(a), Ok(b)] if a != b))
                {
                    return false;
                }
            }
            [true, true] => return self.are_equal(block, twin),
            [true, false] | [false, true] => {
                let [good, bad] = if good[0] { [block, twin] } else { [twin, block] };
                if content == Content::Bucket {
                    self.merge_payloads(block, good, bad);
                }
                self.mended += 1;
                self.write_over(good, bad);
            }
            [false, false] => {
                self.mended += 1;
                self.mend_words(block, twin, content);
            }
        }
        for copy in copies {
            self.pmem.flush(start(copy), BLOCK_SIZE);
        }
        true
    }

    /// For a target, which has no check of its own, and of which the first copy is known to be bad
    /// and the twin to be good.
    pub fn mend_target(&mut self, block: Block) {
        let Some(twin) = self.geometry.twin(block) else { return };
        if self.state(block).is_ok_and(|state| (state >> 32) as u32 == PAIRED) {
            self.replace(twin, block);
        }
    }

    /// For a target of which the first copy is known to be good: makes the twin equal to it.
    pub fn mend_second(&mut self, block: Block) {
        let Some(twin) = self.geometry.twin(block) else { return };
        if !self.are_equal(block, twin) {
            self.replace(block, twin);
        }
    }

    /// Writes a copy that is bad anew from the good one; it is durable with the next fence.
    fn replace(&mut self, good: Block, bad: Block) {
        self.write_over(good, bad);
        self.pmem.flush(start(bad), BLOCK_SIZE);
        self.mended += 1;
    }

    /// Whether all words of a copy of a block can be read, and are good.
    fn is_good(&self, copy: Block, block: Block, content: Content) -> bool {
        let mut words: Words = [[0; 8]; WORDS];
        (0..content.words()).step_by(WORDS).all(|first| {
            let opens = |(word, index): (&[u8; 8], u16)| {
                self.is_good_word(u64::from_le_bytes(*word), block, content, index)
            };
            self.pmem.read(start(copy) + first * 8, words.as_flattened_mut()).is_ok()
                && words.iter().zip(first as u16..).all(opens)
        })
    }

    /// Copies payloads of a bucket that are good in one copy only: those that the slots of the copy
    /// `slots` lead to, which are good, from `other` to that copy. How many that were.
    ///
    /// A slot that a split has left behind may lead to a place that has another payload by now, or
    /// a part of one: what is good is never written over.
    fn merge_payloads(&mut self, block: Block, slots: Block, other: Block) -> u64 {
        let mut used = Units::default();
        let mut bad = ArrayVec::<SlotWord, { SLOTS as usize }>::new();
        for slot in 0..SLOTS {
            let word = self.pmem.load(start(slots) + u64::from(slot) * 8);
            let found = word.map(|word| SlotWord::decode(word, Content::Bucket.salt(block), slot));
            let Ok(Ok(Some(entry))) = found else { continue };
            match self.payload_units(slots, entry) {
                Some(count) => used.take(entry.unit.into(), count),
                None => bad.push(entry),
            }
        }
        let mut merged = 0;
        for entry in bad {
            let first = usize::from(entry.unit);
            let Some(count) = self.payload_units(other, entry) else { continue };
            if (first..first + count).any(|unit| used.has(unit)) {
                continue;
            }
            for unit in (0..count as u64).map(|unit| u64::from(entry.payload()) + unit * 8) {
                if let Ok(word) = self.pmem.load(start(other) + unit) {
                    self.pmem.store(start(slots) + unit, word);
                }
            }
            used.take(first, count);
            merged += 1;
        }
        merged
    }

    /// Units of the payload of an entry in a copy of a bucket, if it can be read and is good.
    fn payload_units(&self, copy: Block, entry: SlotWord) -> Option<usize> {
        let at = start(copy) + u64::from(entry.payload());
        let header = self.pmem.load(at).ok()?;
        let len = usize::from(Header::peek(header).ok()?.len);
        let units = units(len);
        if usize::from(entry.unit) + units > UNITS {
            return None;
        }
        let mut name = [0; MAX_NAME];
        self.pmem.read(at + 8, &mut name[..len]).ok()?;
        Header::decode(header, entry.unit, &name[..len]).ok().map(|_| units)
    }

    /// The lines of both copies of a block: where they begin in it, and what can be read.
    fn lines(
        &self,
        block: Block,
        twin: Block,
    ) -> impl Iterator<Item = (u64, [Result<[u8; LINE as usize], Poisoned>; 2])> {
        let offsets = (0..BLOCK_SIZE).step_by(LINE as usize);
        offsets.map(move |at| (at, [block, twin].map(|copy| self.line(copy, at))))
    }

    /// The line of a copy that begins at the byte offset `at` in it.
    fn line(&self, copy: Block, at: u64) -> Result<[u8; LINE as usize], Poisoned> {
        let mut line = [0; LINE as usize];
        self.pmem.read(start(copy) + at, &mut line).map(|()| line)
    }

    /// Writes lines of which one copy cannot be read from the other. How many that were.
    fn write_unreadable(&mut self, block: Block, twin: Block) -> u64 {
        let mut written = 0;
        for at in (0..BLOCK_SIZE).step_by(LINE as usize) {
            let (line, bad) = match [block, twin].map(|copy| self.line(copy, at)) {
                [Ok(line), Err(_)] => (line, twin),
                [Err(_), Ok(line)] => (line, block),
                _ => continue,
            };
            self.pmem.write(start(bad) + at, &line);
            written += 1;
        }
        written
    }

    /// Copies one copy over the other, as far as it can be read.
    fn write_over(&mut self, good: Block, bad: Block) {
        let mut line = [[0; 8]; LINE as usize / 8];
        for at in (0..BLOCK_SIZE).step_by(LINE as usize) {
            if self.pmem.read(start(good) + at, line.as_flattened_mut()).is_err() {
                continue;
            }
            // Each word at once: a crash may come between two of them.
            for (word, offset) in line.iter().zip((at..).step_by(8)) {
                self.pmem.store(start(bad) + offset, u64::from_le_bytes(*word));
            }
        }
    }

    /// Takes each word from the copy in which it is good.
    fn mend_words(&mut self, block: Block, twin: Block, content: Content) {
        let salt = content.salt(block);
        // Behind the slots of a bucket there are no words of their own: what can be read is kept.
        for index in 0..512u16 {
            let at = u64::from(index) * 8;
            let loaded = [block, twin].map(|copy| self.pmem.load(start(copy) + at));
            let opens = |word: Result<u64, Poisoned>| {
                word.is_ok_and(|word| open(word, salt, index).is_ok())
            };
            let sealed = u64::from(index) < content.words();
            match (loaded, loaded.map(opens)) {
                ([Ok(first), second], [true, false]) if sealed && second != Ok(first) => {
                    self.pmem.store(start(twin) + at, first);
                }
                ([first, Ok(second)], [false, true]) if sealed && first != Ok(second) => {
                    self.pmem.store(start(block) + at, second);
                }
                ([Ok(first), Err(_)], _) if !sealed => self.pmem.store(start(twin) + at, first),
                ([Err(_), Ok(second)], _) if !sealed => self.pmem.store(start(block) + at, second),
                _ => {}
            }
        }
    }
}

/// Slots come first in a bucket.
const _: () = assert!((SLOTS as usize).is_multiple_of(WORDS));
