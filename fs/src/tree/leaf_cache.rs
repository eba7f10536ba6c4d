//! The leaves that were used last.

use super::shape::leaf_number;
use crate::format::inode::MAX_INO;
use crate::types::{BLOCK_SIZE, Block, FileBlock, FileKey, Ino, MAX_FILE_SIZE};
use alloc::vec;
use alloc::vec::Vec;

/// Leaves that are remembered: of 512 MiB. A power of two.
const KNOWN: usize = 256;

/// What is known about the leaf above some blocks of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    /// Which leaf of which inode.
    pub(super) key: u64,
    /// In which epoch of the file this was found out; in another one it is void. Where the way is
    /// not exclusive, the changes are added that may have made it so.
    pub(super) epoch: u64,
    /// The leaf node. `None`: it is missing, or the inode itself refers to the only block.
    pub node: Option<Block>,
    /// The way to the leaf, or to the inode if that refers to no leaf, is exclusive.
    pub exclusive: bool,
    /// The block that holds the inode, and whether the way to that is exclusive.
    pub inodes: Block,
    pub inodes_exclusive: bool,
}

impl Leaf {
    /// The file that it is of.
    #[inline(always)]
    pub fn file(&self) -> FileKey {
        FileKey(Ino(self.key >> LEAF_BITS))
    }

    /// The leaf node, if its words can be stored in place.
    #[inline]
    pub fn own(&self) -> Option<Block> {
        self.node.filter(|_| self.exclusive)
    }
}

/// Bits of the number of a leaf.
const LEAF_BITS: u32 = 18;

/// A file and the number of one of its leaves.
#[inline(always)]
pub(super) fn key(FileKey(Ino(ino)): FileKey, block: FileBlock) -> u64 {
    ino << LEAF_BITS | leaf_number(block)
}

const _: () =
    assert!(MAX_INO <= 1 << (64 - LEAF_BITS) && MAX_FILE_SIZE / BLOCK_SIZE / 512 <= 1 << LEAF_BITS);

/// The leaves that were used last, each at the place that its hash gives.
#[derive(Debug)]
pub(crate) struct Leaves(Vec<Leaf>);

impl Default for Leaves {
    #[allow(clippy::disallowed_macros, reason = "a mount takes what it needs for good")]
    fn default() -> Self {
        let nothing = Leaf {
            key: 0,
            epoch: u64::MAX,
            node: None,
            exclusive: false,
            inodes: Block(0),
            inodes_exclusive: false,
        };
        Leaves(vec![nothing; KNOWN])
    }
}

#[inline(always)]
fn place(key: u64) -> usize {
    // The upper bits: numbers that follow each other fall apart.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - KNOWN.ilog2())) as usize
}

impl Leaves {
    /// What is remembered at the place of a leaf: of this one, or of another one.
    #[inline(always)]
    pub(super) fn get(&self, key: u64) -> &Leaf {
        &self.0[place(key)]
    }

    /// Remembers a leaf, in the place of what was there.
    pub(super) fn remember(&mut self, leaf: Leaf) {
        self.0[place(leaf.key)] = leaf;
    }

    /// Forgets all that has this leaf node (or none), which has moved or has one reference less.
    pub fn forget(&mut self, node: Option<Block>) {
        for leaf in &mut self.0 {
            if leaf.node == node {
                leaf.epoch = u64::MAX;
            }
        }
    }
}
