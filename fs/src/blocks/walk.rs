//! How far the walk is that counts references anew.

use super::content::Content;
use crate::types::Block;
use arrayvec::ArrayVec;

/// Nodes on the way down: of system inodes, of inodes, and of a file, with blocks of inodes between
/// them. Deeper is a loop.
const DEEPEST: usize = 12;

/// A node that is being looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Its block; `None`: nothing refers to it any more.
    pub block: Option<Block>,
    pub content: Content,
    /// The next word to look at.
    pub next: u16,
}

/// A walk under way.
#[derive(Debug, Default)]
pub(crate) struct Recount {
    /// From the top down.
    pub stack: ArrayVec<Frame, DEEPEST>,
    /// The walk has begun, and is not over.
    pub walking: bool,
    /// Nodes that are shaded.
    pub shaded: u64,
    /// None of them is before this block.
    pub lowest: u64,
    /// Nodes that were looked at.
    pub visited: u64,
    /// Records before this block were judged. Of those, as they are now:
    pub judged: u64,
    /// blocks with several references,
    pub shared: u64,
    /// and blocks that are lent.
    pub lent: u64,
}
