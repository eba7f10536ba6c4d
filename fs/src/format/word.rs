//! Words that carry their own check.
//!
//! A word has 48 bits of value and, above them, a check of 16 bits. The check covers the value and
//! the place where the word stands, its *salt*: the block, what kind of block that is, and the
//! index in it. So a word that was torn, strayed, or stands where another one belongs is found
//! before it is followed, and so are blocks that have changed places.
//!
//! ```text
//! hash(x, n) = the upper n bits of (x * 0x9e3779b97f4a7c15 mod 2^64)
//! salt       = 1 << 15 | (hash(block, 15) ^ (kind << 9 | index))
//! check      = hash(value, 16) ^ salt
//! ```
//!
//! Therefore
//!
//! - every flipped bit is noticed, because the factor has no run of 16 equal bits;
//! - a word at another index, or of another kind, of the same block is noticed always;
//! - so is one of another block that is less than 14,000 blocks away, or away by a power of two,
//!   because the factor is 2^64 divided by the golden ratio;
//! - no salt is zero, so a word of zeros, wherever it stands, is damage. What is empty is the
//!   value 0, sealed;
//! - a block is copied by an exclusive or of each word with one number ([`reseal`]). A word that
//!   does not open in the original does not open in the copy.

use crate::types::Block;

/// Bits of value in a word.
const VALUE_BITS: u32 = 48;
const VALUE: u64 = (1 << VALUE_BITS) - 1;
/// Bits of a block number in a pointer.
const BLOCK: u64 = (1 << 40) - 1;
/// Spreads what it is multiplied with over the upper bits: 2^64 divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

const PRESENT: u64 = 1 << 40;
const UNWRITTEN: u64 = 1 << 41;
const LIVE: u64 = 1 << 42;
const LOST: u64 = 1 << 43;
const HEIGHT_SHIFT: u32 = 44;
const HOLDS_SHIFT: u32 = 46;

/// The value of an entry without a block, of the root of a free inode, of an empty slot.
pub(crate) const NOTHING: u64 = 0;

/// In place of the number of a block that is not known yet: a block of words that is put together
/// in memory is sealed for this one, and sealed anew when it is written.
pub(crate) const NOWHERE: Block = Block(0);

/// The word of an inode that is the root of its tree.
pub(crate) const ROOT: u16 = 0;

/// Where words stand: a block, and what kind of block it is. With an index: the salt of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(u64);

impl Salt {
    #[inline(always)]
    const fn new(block: Block, kind: u64) -> Self {
        debug_assert!(kind < 8 && block.0 <= BLOCK);
        Salt(1 << 15 | (block.0.wrapping_mul(FACTOR) >> 49 ^ kind << 9))
    }
    /// Entries of a tree node of this level (1 to 3).
    #[inline(always)]
    pub const fn node(block: Block, level: u8) -> Self {
        Self::new(block, level as u64)
    }
    /// Slots of a directory bucket.
    #[inline(always)]
    pub const fn slots(block: Block) -> Self {
        Self::new(block, 4)
    }
    /// Headers of payloads in directory buckets, by the unit where they stand. They name no block,
    /// because a bucket is copied without a look at its payloads: the slots that refer to them
    /// name it.
    #[inline]
    pub const fn payloads() -> Self {
        Self::new(NOWHERE, 5)
    }
    /// Words of a block of inodes.
    #[inline(always)]
    pub const fn inodes(block: Block) -> Self {
        Self::new(block, 6)
    }
    /// Entries of the list of bad blocks.
    #[inline]
    pub const fn bad_blocks(block: Block) -> Self {
        Self::new(block, 7)
    }
    /// A salt in which a hash of 15 bits takes part.
    #[inline]
    pub const fn with(self, hash: u64) -> Self {
        debug_assert!(hash < 1 << 15);
        Salt(self.0 ^ hash)
    }
}

/// The check of a value: it is computed on the page-fault path.
#[inline(always)]
fn check(value: u64, salt: Salt, index: u16) -> u64 {
    debug_assert!(index < 512);
    value.wrapping_mul(FACTOR) >> VALUE_BITS ^ salt.0 ^ index as u64
}

/// Adds the check to a value of at most 48 bits.
#[inline(always)]
pub(crate) fn seal(value: u64, salt: Salt, index: u16) -> u64 {
    debug_assert!(value <= VALUE);
    value | check(value, salt, index) << VALUE_BITS
}

/// The value of a word, if its check is right.
#[inline(always)]
pub(crate) fn open(word: u64, salt: Salt, index: u16) -> Result<u64, BadWord> {
    let value = word & VALUE;
    if check(value, salt, index) == word >> VALUE_BITS { Ok(value) } else { Err(BadWord) }
}

/// The value of a word whose check is known to be right.
#[inline]
pub(crate) fn value(word: u64) -> u64 {
    word & VALUE
}

/// The bits of a word that name a block, should it be a pointer whose check is right.
#[inline]
pub(crate) fn block(word: u64) -> Block {
    Block(word & BLOCK)
}

/// Fills words, the first of which has index `first`, with [`NOTHING`].
pub(crate) fn fill(words: &mut [[u8; 8]], salt: Salt, first: u16) {
    for (word, index) in words.iter_mut().zip(first..) {
        *word = seal(NOTHING, salt, index).to_le_bytes();
    }
}

/// Seals words anew that were copied from one block to another of the same kind. One that does not
/// open stays so: all checks change by the same bits.
pub(crate) fn reseal(words: &mut [[u8; 8]], from: Salt, to: Salt) {
    let change = (from.0 ^ to.0) << VALUE_BITS;
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ change).to_le_bytes();
    }
}

/// A reference to a block, from a node or from a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    /// The block; not yet compared with the bounds of the volume.
    pub block: Block,
    /// The block is allocated, and reads as zeros.
    pub unwritten: bool,
}

impl Pointer {
    /// A pointer to a block that has content.
    #[inline]
    pub fn to(block: Block) -> Self {
        Pointer { block, unwritten: false }
    }

    /// A pointer to a block that reads as zeros, whatever is in it.
    #[inline]
    pub fn unwritten(block: Block) -> Self {
        Pointer { block, unwritten: true }
    }

    /// What it would be to the block `blocks` further.
    #[inline]
    pub fn behind(self, blocks: u64) -> Self {
        Pointer { block: Block(self.block.0 + blocks), ..self }
    }

    /// The value of an entry of a node.
    #[inline]
    pub fn value(self) -> u64 {
        debug_assert!(self.block.0 <= BLOCK);
        self.block.0 | PRESENT | if self.unwritten { UNWRITTEN } else { 0 }
    }

    #[inline]
    fn from_bits(value: u64) -> Option<Self> {
        (value & PRESENT != 0)
            .then_some(Pointer { block: Block(value & BLOCK), unwritten: value & UNWRITTEN != 0 })
    }

    /// Reads the value of an entry of a node: `Ok(None)` is a hole.
    #[inline(always)]
    pub fn from_value(value: u64) -> Result<Option<Self>, BadWord> {
        if value == NOTHING {
            return Ok(None);
        }
        if value >> 42 != 0 {
            return Err(BadWord);
        }
        Self::from_bits(value).map(Some).ok_or(BadWord)
    }

    /// Reads entry `index` of a node. `Err`: its check or its fields are wrong.
    #[inline(always)]
    pub fn decode(word: u64, salt: Salt, index: u16) -> Result<Option<Self>, BadWord> {
        Self::from_value(open(word, salt, index)?)
    }
}

/// A word whose check or fields are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadWord;

/// Whether the value of an entry says that what was there is lost.
pub(crate) fn is_lost(value: u64) -> bool {
    value == LOST
}

/// Root of a live inode's tree: the first word of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Levels of nodes above the data: 0 to 3. At 0 the pointer is to the only data block.
    pub height: u8,
    /// `None`: no blocks at all (and height 0).
    pub top: Option<Pointer>,
    /// What the blocks are for.
    pub holds: Holds,
}

/// What the blocks of a tree are for, below its nodes. All but content of files has twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Content of a file; or blocks of inodes, in an inode file. Said of no blocks at all, too.
    Content,
    /// Buckets of a directory.
    Buckets,
    /// The target of a symbolic link.
    Target,
    /// Entries of the list of bad blocks.
    BadBlocks,
}

impl Root {
    /// Root of an inode without blocks.
    pub const EMPTY: Root = Root { height: 0, top: None, holds: Holds::Content };

    /// Root of a tree with content of a file, or of an inode file.
    pub const fn of_file(height: u8, top: Option<Pointer>) -> Self {
        Root { height, top, holds: Holds::Content }
    }

    /// The value of the root word of an inode.
    #[inline]
    pub fn value(self) -> u64 {
        debug_assert!(self.height <= 3 && (self.top.is_some() || self.height == 0));
        let holds = match self.holds {
            _ if self.top.is_none() => 0,
            Holds::Content => 0,
            Holds::Buckets => 1,
            Holds::Target => 2,
            Holds::BadBlocks => 3,
        };
        LIVE | (self.height as u64) << HEIGHT_SHIFT
            | holds << HOLDS_SHIFT
            | self.top.map_or(0, Pointer::value)
    }

    /// Reads the value of a root word: `Ok(None)` is a free inode.
    #[inline]
    pub fn from_value(value: u64) -> Result<Option<Self>, BadWord> {
        if value == NOTHING {
            return Ok(None);
        }
        let holds = match value >> HOLDS_SHIFT {
            0 => Holds::Content,
            1 => Holds::Buckets,
            2 => Holds::Target,
            3 => Holds::BadBlocks,
            _ => return Err(BadWord),
        };
        let (height, top) = ((value >> HEIGHT_SHIFT & 3) as u8, Pointer::from_bits(value));
        let root = Root { height, top, holds };
        let plain = root.top.is_some()
            || (value & BLOCK == 0 && root.height == 0 && holds == Holds::Content);
        // A target is one block, and metadata is never unwritten.
        let plain = plain
            && (holds != Holds::Target || height == 0)
            && (holds == Holds::Content || value & UNWRITTEN == 0);
        // An unwritten block can only be data.
        let unwritten_node = root.height > 0 && root.top.is_some_and(|t| t.unwritten);
        if value & LIVE == 0
            || value & LOST != 0
            || !plain
            || unwritten_node
            || (root.top.is_none() && value & UNWRITTEN != 0)
        {
            return Err(BadWord);
        }
        Ok(Some(root))
    }

    /// Reads the root word of an inode, word `index` of its block.
    #[inline]
    pub fn decode(word: u64, salt: Salt, index: u16) -> Result<Option<Self>, BadWord> {
        Self::from_value(open(word, salt, index)?)
    }

    /// File blocks that a tree of this height can map.
    #[inline]
    pub fn capacity(self) -> u64 {
        512u64.pow(self.height as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::vec::Vec;

    const KINDS: u64 = 8;

    fn salts(block: u64) -> impl Iterator<Item = Salt> {
        (0..KINDS).map(move |kind| Salt::new(Block(block), kind))
    }

    fn opens(word: u64, salt: Salt, index: u16) -> bool {
        open(word, salt, index).is_ok()
    }

    proptest! {
        #[test]
        fn a_word_survives_sealing(
            value in 0..=VALUE, block in 0..=BLOCK, kind in 0..KINDS, index in 0u16..512,
        ) {
            let salt = Salt::new(Block(block), kind);
            prop_assert_eq!(open(seal(value, salt, index), salt, index), Ok(value));
        }

        #[test]
        fn every_flipped_bit_is_noticed(
            value in 0..=VALUE, block in 0..=BLOCK, kind in 0..KINDS, index in 0u16..512,
        ) {
            let salt = Salt::new(Block(block), kind);
            for bit in 0..64 {
                prop_assert!(!opens(seal(value, salt, index) ^ 1 << bit, salt, index), "{}", bit);
            }
        }

        #[test]
        fn a_word_of_a_block_that_is_near_or_a_power_of_two_away_is_noticed(
            value in 0..=VALUE, block in 0..=BLOCK - 14_000, near in 1..14_000u64,
            index in 0u16..512,
        ) {
            let word = seal(value, Salt::node(Block(block), 1), index);
            let opens_in = |other| opens(word, Salt::node(Block(other), 1), index);
            prop_assert!(!opens_in(block + near));
            for bit in 0..40 {
                prop_assert!(!opens_in(block ^ 1 << bit));
            }
        }

        #[test]
        fn a_copy_opens_as_the_original_does(
            words in prop::collection::vec(any::<u64>(), 1..64),
            sealed in any::<u64>(),
            from in 0..=BLOCK,
            to in 0..=BLOCK,
        ) {
            let (from, to) = (Salt::node(Block(from), 2), Salt::node(Block(to), 2));
            let mut original = Vec::new();
            for (word, index) in words.iter().zip(0..) {
                let good = sealed >> index & 1 != 0;
                let word = if good { seal(word & VALUE, from, index) } else { *word };
                original.push(word.to_le_bytes());
            }
            let mut copy = original.clone();
            reseal(&mut copy, from, to);
            for ((old, new), index) in original.iter().zip(&copy).zip(0..) {
                let (old, new) = (u64::from_le_bytes(*old), u64::from_le_bytes(*new));
                prop_assert_eq!(open(old, from, index), open(new, to, index));
                prop_assert_eq!(value(old), value(new));
            }
        }

        #[test]
        fn any_value_decodes_or_is_refused(value in 0..=VALUE) {
            if let Ok(Some(root)) = Root::from_value(value) {
                prop_assert_eq!(root.value(), value);
            }
            if let Ok(Some(pointer)) = Pointer::from_value(value) {
                prop_assert_eq!(pointer.value(), value);
            }
        }
    }

    #[test]
    fn a_word_at_another_index_or_of_another_kind_is_noticed() {
        let word = seal(99, Salt::node(Block(1234), 1), 7);
        let mut opened = Vec::new();
        for (kind, salt) in salts(1234).enumerate() {
            opened.extend((0..512).filter(|&i| opens(word, salt, i)).map(|i| (kind, i)));
        }
        assert_eq!(opened, [(1, 7)]);
    }

    #[test]
    fn zeros_are_never_a_word() {
        for block in (0..70_000).chain([BLOCK - 1, BLOCK]) {
            for salt in salts(block) {
                for index in [0, 1, 255, 511] {
                    assert!(!opens(0, salt, index));
                }
            }
        }
    }

    /// What makes sure that every flipped bit of a value or of a block's number is noticed: a power
    /// of two times the factor is far from zero, as numbers modulo 2^64 go.
    #[test]
    fn the_factor_moves_each_bit_into_those_that_count() {
        for bit in 0..48 {
            let moved = FACTOR << bit;
            assert!(moved.min(moved.wrapping_neg()) >= 1 << 49, "bit {bit}");
        }
        for near in 1..14_000u64 {
            let moved = FACTOR.wrapping_mul(near);
            assert!(moved.min(moved.wrapping_neg()) >= 1 << 49, "{near} blocks");
        }
    }

    #[test]
    fn what_is_filled_is_nothing_at_its_place() {
        let salt = Salt::node(Block(65_520), 3);
        let mut words = [[0; 8]; 512];
        fill(&mut words, salt, 0);
        for (word, index) in words.iter().zip(0..) {
            assert_eq!(u64::from_le_bytes(*word), seal(NOTHING, salt, index));
        }
    }

    #[test]
    fn a_root_survives_encoding() {
        for root in [
            Root::EMPTY,
            Root::of_file(0, Some(Pointer { block: Block(5), unwritten: true })),
            Root::of_file(3, Some(Pointer::to(Block(BLOCK)))),
            Root { height: 2, top: Some(Pointer::to(Block(9))), holds: Holds::Buckets },
            Root { height: 0, top: Some(Pointer::to(Block(9))), holds: Holds::Target },
        ] {
            assert_eq!(Root::from_value(root.value()), Ok(Some(root)));
        }
    }

    #[test]
    fn what_is_lost_is_an_error() {
        assert!(is_lost(LOST) && !is_lost(NOTHING));
        assert_eq!(Pointer::from_value(LOST), Err(BadWord));
    }
}
