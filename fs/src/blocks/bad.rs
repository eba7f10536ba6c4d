//! What is known of bad blocks.

use crate::types::Block;
use alloc::vec::Vec;

/// Most blocks on the list.
pub(crate) const MOST_BAD: usize = 4096;

/// The list.
#[derive(Debug, Default)]
pub(crate) struct BadBlocks {
    /// In ascending order.
    pub blocks: Vec<Block>,
    /// How many of them are out of use.
    pub out_of_use: u64,
}
