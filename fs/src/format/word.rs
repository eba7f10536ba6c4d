//! Words that carry their own check.
//!
//! A word has 48 bits of value and, above them, a 16-bit check of the value and of the
//! place where the word stands (its salt). A torn, stray or misplaced word is found
//! before it is followed. The salt does not name the file or the block, so that copying
//! and sharing a node keeps its words valid. The all-zero word always means "nothing".

use crate::types::Block;

/// Bits of value in a word.
const VALUE_BITS: u32 = 48;
const VALUE: u64 = (1 << VALUE_BITS) - 1;
/// Bits of a block number in a pointer.
const BLOCK: u64 = (1 << 40) - 1;

const PRESENT: u64 = 1 << 40;
const UNWRITTEN: u64 = 1 << 41;
const LIVE: u64 = 1 << 42;
const HEIGHT_SHIFT: u32 = 44;

/// The word of an inode that is the root of its tree.
pub(crate) const ROOT: u16 = 0;

/// Where a word stands: a kind (4 bits) and an index (12 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(u16);

impl Salt {
    #[inline]
    const fn new(kind: u16, index: u16) -> Self {
        debug_assert!(kind < 16 && index < 4096);
        Salt(kind << 12 | index)
    }
    /// Entry `index` of a tree node of this level (1 to 3).
    #[inline]
    pub const fn entry(level: u8, index: u16) -> Self {
        Self::new(level as u16, index)
    }
    /// Word `word` (0 to 6: the checked ones) of the inode in slot `slot` of its block.
    #[inline]
    pub const fn inode(word: u16, slot: u16) -> Self {
        Self::new(8 + word, slot)
    }
    /// Slot `index` of a directory bucket.
    #[inline]
    pub const fn slot(index: u16) -> Self {
        Self::new(4, index)
    }
    /// The header of an entry's payload in a directory bucket.
    #[inline]
    pub const fn payload() -> Self {
        Self::new(5, 0)
    }
}

/// A multiply hash: it is computed on the page-fault path.
#[inline]
fn check(value: u64, salt: Salt) -> u64 {
    let x = (value ^ (salt.0 as u64) << VALUE_BITS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> VALUE_BITS
}

/// Adds the check to a value of at most 48 bits.
#[inline]
pub(crate) fn seal(value: u64, salt: Salt) -> u64 {
    debug_assert!(value <= VALUE);
    value | check(value, salt) << VALUE_BITS
}

/// The value of a word, if its check is right.
#[inline]
pub(crate) fn open(word: u64, salt: Salt) -> Option<u64> {
    let value = word & VALUE;
    (check(value, salt) == word >> VALUE_BITS).then_some(value)
}

/// The value of a word whose check is known to be right.
#[inline]
pub(crate) fn value(word: u64) -> u64 {
    word & VALUE
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

    #[inline]
    fn bits(self) -> u64 {
        debug_assert!(self.block.0 <= BLOCK);
        self.block.0 | PRESENT | if self.unwritten { UNWRITTEN } else { 0 }
    }

    #[inline]
    fn from_bits(value: u64) -> Option<Self> {
        (value & PRESENT != 0)
            .then_some(Pointer { block: Block(value & BLOCK), unwritten: value & UNWRITTEN != 0 })
    }

    /// The word for entry `index` of a node of this level.
    #[inline]
    pub fn encode(self, level: u8, index: u16) -> u64 {
        seal(self.bits(), Salt::entry(level, index))
    }

    /// Reads entry `index` of a node: `Ok(None)` is a hole, `Err` a word that fails its check.
    #[inline(always)]
    pub fn decode(word: u64, level: u8, index: u16) -> Result<Option<Self>, BadWord> {
        if word == 0 {
            return Ok(None);
        }
        let value = open(word, Salt::entry(level, index)).ok_or(BadWord)?;
        if value >> 42 != 0 {
            return Err(BadWord);
        }
        Self::from_bits(value).map(Some).ok_or(BadWord)
    }
}

/// A word whose check or fields are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadWord;

/// Root of a live inode's tree: the first word of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Levels of nodes above the data: 0 to 3. At 0 the pointer is to the only data block.
    pub height: u8,
    /// `None`: no blocks at all (and height 0).
    pub top: Option<Pointer>,
}

impl Root {
    /// Root of an inode without blocks.
    pub const EMPTY: Root = Root { height: 0, top: None };

    /// The root word of the inode in slot `slot` of its block.
    #[inline]
    pub fn encode(self, slot: u16) -> u64 {
        debug_assert!(self.height <= 3 && (self.top.is_some() || self.height == 0));
        let value = LIVE | (self.height as u64) << HEIGHT_SHIFT | self.top.map_or(0, Pointer::bits);
        seal(value, Salt::inode(ROOT, slot))
    }

    /// Reads a root word: `Ok(None)` is a free inode.
    #[inline]
    pub fn decode(word: u64, slot: u16) -> Result<Option<Self>, BadWord> {
        if word == 0 {
            return Ok(None);
        }
        let value = open(word, Salt::inode(ROOT, slot)).ok_or(BadWord)?;
        let root =
            Root { height: (value >> HEIGHT_SHIFT & 3) as u8, top: Pointer::from_bits(value) };
        let plain = root.top.is_some() || (value & BLOCK == 0 && root.height == 0);
        // An unwritten block can only be data.
        let unwritten_node = root.height > 0 && root.top.is_some_and(|t| t.unwritten);
        if value & LIVE == 0 || value >> 46 != 0 || value >> 43 & 1 != 0 || !plain || unwritten_node
        {
            return Err(BadWord);
        }
        Ok(Some(root))
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

    proptest! {
        #[test]
        fn a_pointer_survives_encoding(
            block in 0..=BLOCK,
            unwritten: bool,
            level in 1u8..=3,
            index in 0u16..512,
        ) {
            let p = Pointer { block: Block(block), unwritten };
            prop_assert_eq!(Pointer::decode(p.encode(level, index), level, index), Ok(Some(p)));
        }

        #[test]
        fn one_flipped_bit_is_noticed(
            block in 0..=BLOCK,
            level in 1u8..=3,
            index in 0u16..512,
            bit in 0u32..64,
        ) {
            let word = Pointer::to(Block(block)).encode(level, index) ^ 1 << bit;
            prop_assert_eq!(Pointer::decode(word, level, index), Err(BadWord));
        }

        #[test]
        fn any_word_decodes_or_is_refused(word: u64, slot in 0u16..32) {
            if let Ok(Some(root)) = Root::decode(word, slot) {
                prop_assert_eq!(root.encode(slot), word);
            }
        }
    }

    #[test]
    fn a_word_in_another_place_is_refused() {
        let wrong = (0..512)
            .filter(|&i| {
                i != 7 && Pointer::decode(Pointer::to(Block(99)).encode(1, 7), 1, i).is_ok()
            })
            .count();
        assert_eq!(wrong, 0);
    }

    #[test]
    fn a_root_survives_encoding() {
        for root in [
            Root::EMPTY,
            Root { height: 0, top: Some(Pointer { block: Block(5), unwritten: true }) },
            Root { height: 3, top: Some(Pointer::to(Block(BLOCK))) },
        ] {
            assert_eq!(Root::decode(root.encode(31), 31), Ok(Some(root)));
        }
    }
}
