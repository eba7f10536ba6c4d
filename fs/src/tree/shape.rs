//! The shape of trees: which entry of which node leads to a block of a file.

use crate::types::{BLOCK_SIZE, Block, FileBlock};

/// Index in a node of `level` of the entry that leads to a file block.
#[inline]
pub(crate) fn index_at(block: FileBlock, level: u8) -> u16 {
    (block.0 >> (9 * (level as u32 - 1)) & 511) as u16
}

/// Number of the leaf that maps a file block.
#[inline]
pub(crate) fn leaf_number(block: FileBlock) -> u64 {
    block.0 / 512
}

/// Smallest height of a tree that maps a file block.
#[inline]
pub(crate) fn height_for(block: FileBlock) -> u8 {
    match block.0 {
        0 => 0,
        1..512 => 1,
        512..0x4_0000 => 2,
        _ => 3,
    }
}

/// Byte offset in the region of word `index` of a block.
#[inline]
pub(crate) fn word_at(block: Block, index: u16) -> u64 {
    block.0 * BLOCK_SIZE + index as u64 * 8
}
