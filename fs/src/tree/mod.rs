//! The tree of a volume: the way down to a block, and changes that are published by one store.
//!
//! | file | what |
//! |---|---|
//! | `path.rs` | the way from the top of the volume to a block |
//! | `shape.rs` | which entry of which node leads to a block of a file |
//! | `leaves.rs` | the leaf node above a block, looked up or remembered, and changed in place |
//! | `leaf_cache.rs` | the leaves that were used last |
//! | `files.rs` | what is known of files beside what is on media |
//! | `scan.rs` | looking for what exists in a tree |
//! | `stage.rs` | the order of a commit, as types |
//! | `commit.rs` | one change of any number of words, published by one store |

pub(crate) mod commit;
pub(crate) mod files;
pub(crate) mod leaf_cache;
pub(crate) mod leaves;
pub(crate) mod path;
pub(crate) mod scan;
pub(crate) mod shape;
pub(crate) mod stage;

use self::files::Files;
use self::leaf_cache::Leaves;
use self::stage::Lists;
use crate::blocks::{Blocks, Retire};
use crate::types::Block;
use alloc::vec::Vec;

/// Blocks that one change allocates or drops at most: those below a leaf, and the nodes above.
const MOST_BLOCKS: usize = 1024;
/// The same, of a change that is committed while another stage is being filled: it has no data.
const MOST_BESIDE: usize = 128;
/// Words that one change stores in a block at most.
const MOST_WORDS: usize = 512;

/// The tree of a volume in persistent memory `P`, with what is remembered of it between changes.
pub(crate) struct Tree<P> {
    pub blocks: Blocks<P>,
    /// The block with the inodes of the live volume's inode file and its like.
    pub system: Block,
    pub leaves: Leaves,
    /// How often a leaf was looked for, because nothing was known of it.
    pub leaf_searches: u64,
    pub files: Files,
    /// Something was overwritten in place, and no fence has followed.
    pub unfenced: bool,
    /// Grows with whatever may change the content of a file: what is staged, and what is made
    /// writable.
    pub changes: u64,
    /// Lists whose memory is used again by each commit. Their room is that of the largest change,
    /// so no change allocates.
    pub lists: Lists,
    /// As `lists`, for what is committed while another stage is being filled.
    lists_beside: Lists,
    pub retired: Vec<Retire>,
    pub words: Vec<(u16, u64)>,
}

impl<P> Tree<P> {
    /// The tree whose system inodes are in the block `system`.
    #[allow(clippy::disallowed_methods, reason = "a mount takes what it needs for good")]
    pub fn new(blocks: Blocks<P>, system: Block) -> Self {
        Tree {
            blocks,
            system,
            leaves: Leaves::default(),
            leaf_searches: 0,
            files: Files::new(),
            unfenced: false,
            changes: 0,
            lists: Lists::with_capacity(MOST_BLOCKS),
            lists_beside: Lists::with_capacity(MOST_BESIDE),
            retired: Vec::with_capacity(MOST_BLOCKS),
            words: Vec::with_capacity(MOST_WORDS),
        }
    }
}
