//! Looking through the trees of files for entries that lead to blocks of the list.

use super::search::{Loss, OwnerSearch, Progress};
use crate::blocks::Content;
use crate::error::Result;
use crate::format::inode::INODES_PER_BLOCK;
use crate::format::word::{self, Pointer, Root, Salt};
use crate::pmem::Pmem;
use crate::tree::shape::{index_at, word_at};
use crate::types::*;
use crate::volume::Volume;
use crate::windows::mmu::Mmu;

/// Words that are read together.
const WORDS: usize = 64;
/// Units of work that an inode takes.
const INODE: u64 = 16;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Looks through more trees; true if that were all.
    pub(super) fn search_trees(&self, search: &mut OwnerSearch, left: &mut u64) -> Result<bool> {
        let Some((at, block)) = self.inode_block_behind(search.progress.inodes)? else {
            return Ok(true);
        };
        if at != search.progress.inodes {
            let Progress { before, .. } = search.progress;
            search.progress = Progress { inodes: at, before, ..Progress::default() };
        }
        while search.progress.slot < INODES_PER_BLOCK {
            *left = left.saturating_sub(INODE);
            let slot = search.progress.slot;
            let ino = Ino(at * u64::from(INODES_PER_BLOCK) + u64::from(slot));
            if let Ok(Some(root)) = self.tree.root_in(block, slot)
                && !self.search_inode(search, (ino, block, root), left)?
            {
                return Ok(false);
            }
            (search.progress.slot, search.progress.block) = (slot + 1, 0);
            search.progress.entered = false;
            if *left == 0 {
                break;
            }
        }
        if search.progress.slot == INODES_PER_BLOCK {
            search.progress.inodes = at + 1;
            search.progress.slot = 0;
        }
        Ok(false)
    }

    /// Looks through more of the tree of an inode; true if that was all.
    fn search_inode(
        &self,
        search: &mut OwnerSearch,
        (ino, block, root): (Ino, Block, Root),
        left: &mut u64,
    ) -> Result<bool> {
        let of = match self.kind_in(block, ino) {
            Ok((Kind::Directory, _)) => Loss::Names,
            _ => Loss::Content,
        };
        if !core::mem::replace(&mut search.progress.entered, true) {
            if let Some(bad) = search.find(block) {
                search.add(bad, ino, Loss::Inode, 0, 0)?;
            }
            search.progress.begin = search.found.ranges.len();
            search.progress.more = search.more;
            if let Some((before, first, end)) = search.progress.before
                && before == root
            {
                for at in first..end {
                    let range = search.found.ranges[at];
                    if let Some(bad) = search.find(range.block) {
                        search.add(bad, ino, range.loss, range.first.0, range.blocks)?;
                    }
                }
                *left = left.saturating_sub((end - first) as u64);
                return Ok(true);
            }
            if let Some(top) = root.top
                && let Some(bad) = search.find(top.block)
            {
                let loss = if root.height > 0 { Loss::Node } else { of };
                search.add(bad, ino, loss, 0, root.capacity())?;
            }
        }
        if !self.search_tree(search, ino, root, of, left)? {
            return Ok(false);
        }
        let all = (root, search.progress.begin, search.found.ranges.len());
        search.progress.before = (search.progress.more == search.more).then_some(all);
        Ok(true)
    }

    /// Looks through more of a tree; true if that was all. What cannot be read is passed over.
    fn search_tree(
        &self,
        search: &mut OwnerSearch,
        ino: Ino,
        root: Root,
        of: Loss,
        left: &mut u64,
    ) -> Result<bool> {
        let Some(top) = root.top else { return Ok(true) };
        if root.height == 0 {
            return Ok(true);
        }
        while search.progress.block < root.capacity() {
            if *left == 0 {
                return Ok(false);
            }
            let (mut node, mut level) = (top.block, root.height);
            loop {
                let span = 512u64.pow(u32::from(level));
                let end = (search.progress.block / span + 1) * span;
                if search.clean.has(node) || !self.tree.blocks.geometry.holds(node) {
                    *left = left.saturating_sub(1);
                    search.progress.block = end;
                    break;
                }
                if level == 1 {
                    self.search_leaf(search, ino, node, of, left)?;
                    search.progress.block = end;
                    break;
                }
                match self.search_node(search, ino, (node, level), left)? {
                    Some(child) => (node, level) = (child, level - 1),
                    None => {
                        search.progress.block = end;
                        break;
                    }
                }
            }
        }
        Ok(true)
    }

    /// The child of a node to go on in, which has the next block of the file that may be of
    /// interest; `None` if there is none any more.
    fn search_node(
        &self,
        search: &mut OwnerSearch,
        ino: Ino,
        (node, level): (Block, u8),
        left: &mut u64,
    ) -> Result<Option<Block>> {
        let span = 512u64.pow(u32::from(level) - 1);
        let base = search.progress.block / (span * 512) * (span * 512);
        let first = index_at(FileBlock(search.progress.block), level);
        for index in first..512 {
            *left = left.saturating_sub(1);
            let begins = base + u64::from(index) * span;
            let found = self.tree.follow(node, Content::Node(level), index);
            let Ok(Some((pointer, _))) = found else { continue };
            // Not if the search comes back to the middle of what is below.
            if begins >= search.progress.block
                && let Some(bad) = search.find(pointer.block)
            {
                search.add(bad, ino, Loss::Node, begins, span)?;
            }
            if !search.clean.has(pointer.block) {
                search.progress.block = search.progress.block.max(begins);
                return Ok(Some(pointer.block));
            }
        }
        // All is clean below it if all of its children are, those too that were looked at before.
        let is_clean = |index| match self.tree.follow(node, Content::Node(level), index) {
            Ok(Some((child, _))) => {
                search.clean.has(child.block) && search.find(child.block).is_none()
            }
            Ok(None) => true,
            Err(_) => false,
        };
        if (0..512).all(is_clean) {
            search.clean.add(node);
        }
        *left = left.saturating_sub(512);
        Ok(None)
    }

    /// Looks at all entries of a leaf.
    fn search_leaf(
        &self,
        search: &mut OwnerSearch,
        ino: Ino,
        leaf: Block,
        of: Loss,
        left: &mut u64,
    ) -> Result<()> {
        let base = search.progress.block / 512 * 512;
        let salt = Salt::node(leaf, 1);
        let mut words = [[0; 8]; WORDS];
        let mut clean = true;
        for first in (0..512u16).step_by(WORDS) {
            let at = word_at(leaf, first);
            if self.tree.blocks.pmem.read(at, words.as_flattened_mut()).is_err() {
                clean = false;
                continue;
            }
            for (word, index) in words.iter().zip(first..) {
                let word = u64::from_le_bytes(*word);
                if !search.filter.may_have(word::block(word)) {
                    continue;
                }
                let Ok(Some(Pointer { block, .. })) = Pointer::decode(word, salt, index)
                    .or_else(|_| self.tree.entry_in(leaf, FileBlock(index.into())))
                else {
                    continue;
                };
                if let Some(bad) = search.find(block) {
                    search.add(bad, ino, of, base + u64::from(index), 1)?;
                    clean = false;
                }
            }
        }
        if clean {
            search.clean.add(leaf);
        }
        *left = left.saturating_sub(512);
        Ok(())
    }
}
