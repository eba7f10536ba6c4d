//! What is known of blocks that are lent.

use crate::types::Block;
use arrayvec::ArrayVec;

/// Blocks that are lent at a time: they follow each other.
pub const LENT_RUN: u64 = 16;

/// Blocks that are lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lending {
    /// Now, and not taken over.
    pub lent: u64,
    /// Taken over by files since mount.
    pub taken_over: u64,
}

/// Runs that may be lent at once.
const MOST_RUNS: usize = 64;

/// The record of a block that is lent: nothing refers to it, and it is not free.
pub(crate) const LENT: u64 = 1 | (u32::MAX as u64 - 1) << 32;

/// What is known of blocks that are lent.
#[derive(Debug, Default)]
pub(crate) struct Lent {
    /// The first block of each run.
    pub runs: ArrayVec<Block, MOST_RUNS>,
    /// How many blocks of all runs no file has taken over.
    pub blocks: u64,
    /// Runs that came back whole: the next to be lent, if they are still free.
    pub returned: ArrayVec<Block, MOST_RUNS>,
    /// Blocks that files have taken over since mount.
    pub taken_over: u64,
}
