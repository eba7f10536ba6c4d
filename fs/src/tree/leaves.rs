//! What is known about leaf nodes: found out once, and used until something moves.
//!
//! Whoever changes a block of a file has to know the leaf node above it, and whether all blocks on
//! the way there are exclusive. Both hold until that leaf is copied, or until the epoch of the
//! blocks changes: when the count of a node or an inode block rises above one, or one moves, or an
//! inode goes.

use super::Tree;
use crate::blocks::{Content, Retire};
use crate::error::{Error, Result};
use crate::format::word::Pointer;
use crate::pmem::Pmem;
use crate::tree::leaf_cache::{Leaf, key};
use crate::tree::shape::{height_for, index_at};
use crate::tree::stage::{Durable, Place, Published, Stage, Written};
use crate::types::{Block, FileBlock, Ino};
use alloc::vec::Vec;

impl<P: Pmem> Tree<P> {
    /// What is known about the leaf above a block of a live inode.
    #[inline(always)]
    pub(crate) fn leaf_above(&mut self, ino: Ino, block: FileBlock) -> Result<Leaf> {
        let (key, epoch) = (key(ino, block), self.blocks.epoch);
        match *self.leaves.at(key) {
            leaf if leaf.key == key && leaf.epoch == epoch => Ok(leaf),
            _ => self.find_leaf(ino, block),
        }
    }

    #[cold]
    fn find_leaf(&mut self, ino: Ino, block: FileBlock) -> Result<Leaf> {
        let (mut path, root) = self.inode_path(ino)?;
        let inodes = path.last().and_then(|step| step.block()).ok_or(Error::NotFound)?;
        let to_inode = path.len();
        let mut node = None;
        if height_for(block) <= root.height && root.height > 0 {
            self.descend(&mut path, root, block, 1, false)?;
            node = path.last().and_then(|step| step.block());
        }
        let steps = self.exclusive_steps(&path)?;
        let (exclusive, inodes_exclusive) = (steps == path.len(), steps >= to_inode);
        let key = key(ino, block);
        let leaf =
            Leaf { key, epoch: self.blocks.epoch, node, exclusive, inodes, inodes_exclusive };
        *self.leaves.at(key) = leaf;
        Ok(leaf)
    }

    /// The entry of a block, from what is known about the leaf above it.
    #[inline(always)]
    pub(crate) fn entry_below(
        &self,
        leaf: Leaf,
        ino: Ino,
        block: FileBlock,
    ) -> Result<Option<Pointer>> {
        match leaf.node {
            Some(node) => self.entry_in(node, block),
            None if block.0 != 0 => Ok(None),
            None => {
                let (_, root) = self.inode_path(ino)?;
                Ok(root.top.filter(|_| root.height == 0))
            }
        }
    }

    /// The entry of a block in its leaf node.
    #[inline(always)]
    pub(crate) fn entry_in(&self, node: Block, block: FileBlock) -> Result<Option<Pointer>> {
        Ok(self.follow(node, Content::Node(1), index_at(block, 1))?.map(|(pointer, _)| pointer))
    }

    /// Publishes words in a block, a leaf node or one of inodes, which was found exclusive in
    /// `epoch`: the short way to commit, where no node has to be copied.
    #[inline(always)]
    pub(crate) fn publish_in_place(
        &mut self,
        stage: Stage<Written>,
        block: Block,
        epoch: u64,
        words: &[(u16, u64)],
        retired: Vec<Retire>,
    ) -> Result<Published<Durable>> {
        let stage = stage.flush(&mut self.blocks.pmem).fence(&mut self.blocks.pmem);
        // Nothing has moved since.
        let Place::Exclusive(place) = Place::below(&mut self.blocks, epoch, block)? else {
            return Err(Error::Damaged { block, what: "a reference count changed under a change" });
        };
        let published = place.publish(words, &stage, retired);
        self.fresh = stage.finish(&mut self.blocks);
        self.unfenced = false;
        Ok(published.flush(&mut self.blocks.pmem).fence(&mut self.blocks.pmem))
    }
}
