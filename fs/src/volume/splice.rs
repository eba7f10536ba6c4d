//! Splices: the target's tree is built anew around subtrees of the source.
//!
//! Where source and target are aligned alike at some level, whole subtrees of that level are
//! shared; elsewhere entry by entry. A hole of the source, whatever its size, is found by the nodes
//! around it, and becomes a hole of the target, for which no node is made. Everything is built
//! first and published with one word, the target's root (with the size, if that grows), so a range
//! clone happens whole or not at all.

use super::Volume;
use crate::blocks::{Content, Fresh, Purpose};
use crate::error::Result;
use crate::format::inode::{self, slot_of, word_index};
use crate::format::word::{Pointer, Root};
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::scan::Found;
use crate::tree::shape::height_for;
use crate::tree::stage::{Stage, Written};
use crate::types::*;
use crate::windows::mmu::Mmu;
use arrayvec::ArrayVec;
use core::ops::Range;

/// What is shared into which place.
#[derive(Clone, Copy)]
pub(super) struct Splice {
    /// The file that is the source, and its root.
    pub file: Ino,
    pub source: Root,
    /// First block of the range in source and target.
    pub from: u64,
    pub to: u64,
    /// Blocks of the range.
    pub blocks: u64,
}

impl Splice {
    fn covers(&self, range: &Range<u64>) -> bool {
        range.start >= self.to && range.end <= self.to + self.blocks
    }
    fn touches(&self, range: &Range<u64>) -> bool {
        range.start < self.to + self.blocks && range.end > self.to
    }
    /// The source's block for a block of the target.
    fn source_of(&self, block: u64) -> u64 {
        block - self.to + self.from
    }
}

/// A splice that is being built.
struct Splicing<'a> {
    splice: &'a Splice,
    /// The first block of the source that exists at or behind the last one that was asked for.
    next: u64,
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// What a splice replaced goes soon: until then the target's blocks count as shared.
    pub(super) fn reclaim_some(&mut self) -> Result<()> {
        for _ in 0..16 {
            if !self.tree.blocks.reclaim_step()? {
                break;
            }
        }
        Ok(())
    }

    /// Publishes a target in which a range is the source's. Nothing that it shows is writable,
    /// and what the range contains is flushed.
    pub(super) fn publish_splice(
        &mut self,
        dst: Ino,
        splice: &Splice,
        raise: Option<u64>,
    ) -> Result<()> {
        let (path, old) = self.tree.inode_path(dst)?;
        let height = old.height.max(height_for(FileBlock(splice.to + splice.blocks - 1)));
        let tree = old.top.map(|top| (top, old.height));
        let mut splicing = Splicing { splice, next: self.next_block(splice.source, splice.from)? };
        // From now on nothing below the range is exclusive, in the source or here.
        self.tree.files.changed(FileKey(splice.file));
        self.tree.files.changed(FileKey(dst));
        let mut stage = self.tree.stage();
        let top = self.fill_stage(&mut stage, |volume, stage| {
            volume.splice_node(stage, &mut splicing, height, tree, 0)
        })?;
        let slot = slot_of(dst);
        let root = Root::of_file(if top.is_some() { height } else { 0 }, top);
        let mut words = ArrayVec::<(u16, u64), 2>::new();
        words.push(Self::root_word(dst, root));
        if let Some(size) = raise {
            words.push((word_index(slot, inode::SIZE), size));
        }
        // What was overwritten in place, or stored through windows, is durable with the fence of
        // the stage; a subtree that is shared as it is needs none of its own.
        if !stage.is_used() {
            self.tree.fence_overwrites();
        }
        match self.tree.commit(stage, &[Edit::words(&path, &words)], Purpose::Grow) {
            Ok(done) => {
                // The same tree again: the target's own reference stays, the new one is not needed.
                if let Some(top) = top
                    && old.top.is_some_and(|old| old.block == top.block)
                {
                    self.tree.blocks.discard(top.block, Content::file_top(height));
                }
                let end = splice.to + splice.blocks;
                let unmapped = self.dax.unmap(&mut self.tree.blocks, FileKey(dst), splice.to, end);
                self.tree.release_shown(done, unmapped)
            }
            Err(error) => {
                if let Some(top) = top {
                    self.tree.blocks.discard(top.block, Content::file_top(height));
                }
                Err(error)
            }
        }
    }

    /// A subtree of `level` that starts at file block `first`: the old one, with the
    /// splice's part replaced. The result holds a reference to all it refers to.
    fn splice_node(
        &mut self,
        stage: &mut Stage<Written>,
        splicing: &mut Splicing<'_>,
        level: u8,
        old: Option<(Pointer, u8)>,
        first: u64,
    ) -> Result<Option<Pointer>> {
        let splice = splicing.splice;
        let range = first..first + 512u64.pow(level as u32);
        if !splice.touches(&range) {
            return self.keep(stage, level, old);
        }
        let covered = splice.covers(&range);
        if covered {
            let from = splice.source_of(first);
            // A subtree of the source that lies just so is taken as it is. Whether anything exists
            // in it is not asked: that would be a search through it.
            if from.is_multiple_of(512u64.pow(level as u32)) && level <= splice.source.height {
                let shared = self.tree.subtree(splice.source, FileBlock(from), level)?;
                if let Some(pointer) = shared {
                    self.tree.blocks.add_reference(pointer.block, Content::file_top(level))?;
                }
                return Ok(shared);
            }
        }
        if (covered || old.is_none()) && self.splices_hole(splicing, &range)? {
            return Ok(None);
        }
        debug_assert!(level > 0, "a block is always aligned");
        let mut node = None;
        match self.splice_children(stage, splicing, level, old, first, &mut node) {
            Ok(()) => Ok(node.map(|node| Pointer::to(node.block()))),
            Err(error) => {
                if let Some(node) = node {
                    self.tree.blocks.discard(node.block(), Content::Node(level));
                }
                Err(error)
            }
        }
    }

    /// Fills a node with subtrees of which some are new; it is made when there is one to refer to.
    fn splice_children(
        &mut self,
        stage: &mut Stage<Written>,
        splicing: &mut Splicing<'_>,
        level: u8,
        old: Option<(Pointer, u8)>,
        first: u64,
        node: &mut Option<Fresh>,
    ) -> Result<()> {
        let span = 512u64.pow(level as u32 - 1);
        let content = Content::Node(level);
        for index in 0..512u16 {
            let child = match old {
                // The old tree was lower: it is all below the first entry.
                Some((_, height)) if height < level => old.filter(|_| index == 0),
                Some((pointer, _)) => self
                    .tree
                    .follow(pointer.block, Content::Node(level), index)?
                    .map(|(p, _)| (p, level - 1)),
                None => None,
            };
            let new =
                self.splice_node(stage, splicing, level - 1, child, first + index as u64 * span)?;
            let Some(pointer) = new else { continue };
            if node.is_none() {
                match self.tree.blocks.allocate_pair(Purpose::Grow) {
                    Ok(fresh) => {
                        stage.write_empty(&mut self.tree.blocks.pmem, &fresh, content);
                        *node = Some(fresh);
                    }
                    Err(error) => {
                        self.tree.blocks.discard(pointer.block, Content::file_top(level - 1));
                        return Err(error);
                    }
                }
            }
            if let Some(node) = node {
                let pmem = &mut self.tree.blocks.pmem;
                stage.store_entry(pmem, node, content, index, pointer.value());
            }
        }
        Ok(())
    }

    /// Whether nothing exists in the source for the splice's part of these blocks of the target.
    fn splices_hole(&self, splicing: &mut Splicing<'_>, range: &Range<u64>) -> Result<bool> {
        let splice = splicing.splice;
        let start = splice.source_of(range.start.max(splice.to));
        let end = splice.source_of(range.end.min(splice.to + splice.blocks));
        if splicing.next < start {
            splicing.next = self.next_block(splice.source, start)?;
        }
        Ok(splicing.next >= end)
    }

    /// The first block of a tree that exists at or behind `from`.
    fn next_block(&self, root: Root, from: u64) -> Result<u64> {
        let mut allowance = u64::MAX;
        match self.tree.seek(root, from, 0, &mut allowance)? {
            Found::At(block, _) => Ok(block),
            Found::Nothing | Found::Later(_) => Ok(u64::MAX),
        }
    }

    /// An old subtree that stays, with a new reference, below as many new nodes as it is
    /// lower than `level`.
    fn keep(
        &mut self,
        stage: &mut Stage<Written>,
        level: u8,
        old: Option<(Pointer, u8)>,
    ) -> Result<Option<Pointer>> {
        let Some((mut pointer, height)) = old else { return Ok(None) };
        self.tree.blocks.add_reference(pointer.block, Content::file_top(height))?;
        for above in height + 1..=level {
            let node = match self.tree.blocks.allocate_pair(Purpose::Grow) {
                Ok(node) => node,
                Err(error) => {
                    self.tree.blocks.discard(pointer.block, Content::file_top(above - 1));
                    return Err(error);
                }
            };
            let (pmem, content) = (&mut self.tree.blocks.pmem, Content::Node(above));
            stage.write_empty(pmem, &node, content);
            stage.store_entry(pmem, &node, content, 0, pointer.value());
            pointer = Pointer::to(node.block());
        }
        Ok(Some(pointer))
    }
}
