//! What is known about leaf nodes: found out once, and used until something moves.
//!
//! Whoever changes a block of a file has to know the leaf node above it, and whether all blocks on
//! the way there are exclusive. Both hold until that leaf is copied, or until the sharing epoch of
//! the file changes (`files.rs`).

use super::Tree;
use crate::blocks::{Content, Retire};
use crate::error::{Error, Result};
use crate::format::word::Pointer;
use crate::memory::put_back;
use crate::pmem::Pmem;
use crate::tree::leaf_cache::{Leaf, key};
use crate::tree::shape::{height_for, index_at};
use crate::tree::stage::{Durable, Place, Published, Stage, Written};
use crate::types::{Block, FileBlock, FileKey, Ino};
use alloc::vec::Vec;

impl<P: Pmem> Tree<P> {
    /// What is known about the leaf above a block of a live inode.
    #[inline(always)]
    pub(crate) fn leaf_above(&mut self, ino: Ino, block: FileBlock) -> Result<Leaf> {
        let key = key(FileKey(ino), block);
        let leaf = self.leaves.get(key);
        if leaf.key == key && self.is_valid(leaf) {
            debug_assert!(self.is_as_found(leaf, ino, block), "{leaf:?} of {ino:?}");
            return Ok(*leaf);
        }
        self.find_leaf(ino, block)
    }

    /// Whether what is known about a leaf still holds.
    #[inline(always)]
    pub(crate) fn is_valid(&self, leaf: &Leaf) -> bool {
        leaf.epoch == self.epoch_of(leaf.file(), leaf.exclusive)
    }

    /// The epoch of what is known about a leaf of a file.
    #[inline(always)]
    fn epoch_of(&self, file: FileKey, exclusive: bool) -> u64 {
        let again = if exclusive { 0 } else { self.blocks.exclusive_again };
        self.files.epoch(file) + again
    }

    /// Whether looking for a leaf anew finds what is remembered of it, or an exclusive way that is
    /// remembered as shared.
    fn is_as_found(&self, leaf: &Leaf, ino: Ino, block: FileBlock) -> bool {
        self.look_for_leaf(ino, block).map_or(true, |found| {
            (found.node, found.inodes) == (leaf.node, leaf.inodes)
                && found.exclusive >= leaf.exclusive
                && found.inodes_exclusive >= leaf.inodes_exclusive
        })
    }

    #[cold]
    fn find_leaf(&mut self, ino: Ino, block: FileBlock) -> Result<Leaf> {
        let leaf = self.look_for_leaf(ino, block)?;
        self.leaves.remember(leaf);
        self.leaf_searches += 1;
        Ok(leaf)
    }

    fn look_for_leaf(&self, ino: Ino, block: FileBlock) -> Result<Leaf> {
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
        let (key, epoch) = (key(FileKey(ino), block), self.epoch_of(FileKey(ino), exclusive));
        Ok(Leaf { key, epoch, node, exclusive, inodes, inodes_exclusive })
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

    /// What a block of a file is, the way above which is known to be exclusive.
    #[inline(always)]
    pub(crate) fn place_below(&mut self, known: &Leaf, block: Block) -> Result<Place<'_, P>> {
        match self.is_valid(known) {
            true => Ok(Place::content_below(&mut self.blocks, block)?),
            false => Ok(Place::shared()),
        }
    }

    /// Publishes words in a block, a leaf node or one of inodes, which is known to be exclusive:
    /// the short way to commit, where no node has to be copied.
    #[inline(always)]
    pub(crate) fn publish_in_place(
        &mut self,
        stage: Stage<Written>,
        known: &Leaf,
        (block, content): (Block, Content),
        words: &[(u16, u64)],
        retired: Vec<Retire>,
    ) -> Result<Published<Durable>> {
        let stage = stage.flush(&mut self.blocks.pmem).fence(&mut self.blocks.pmem);
        let is_valid = self.is_valid(known);
        let place = match Place::below(&mut self.blocks, block) {
            Ok(Place::Exclusive(place)) if is_valid => place,
            found => {
                let what = "a reference count changed under a change";
                let error = found.err().map_or(Error::Damaged { block, what }, Error::from);
                return Err(self.give_up(stage, retired, error));
            }
        };
        let published = place.publish(content, words, &stage, retired);
        put_back(&mut self.lists, stage.finish(&mut self.blocks));
        self.unfenced = false;
        Ok(published.flush(&mut self.blocks.pmem).fence(&mut self.blocks.pmem))
    }
}
