//! The way from the top of the volume to a place in it.
//!
//! The volume is one tree: system inode block -> nodes of the live inode file -> inode
//! block -> nodes of a file -> data. A [`Path`] lists the blocks on the way, those that do
//! not exist yet included, and which word of each leads on.

use super::Tree;
use super::shape::{height_for, index_at};
use crate::blocks::Content;
use crate::error::{Error, Result};
use crate::format::inode::{self, INODES_PER_BLOCK, slot_of, system, word_index};
use crate::format::word::{Holds, NOTHING, Pointer, Root};
use crate::pmem::Pmem;
use crate::types::{Block, FileBlock, FileKey, Ino};
use arrayvec::ArrayVec;

/// Longest path: system inode block, 3 nodes, inode block, 3 nodes, data.
const LONGEST: usize = 9;

/// The blocks from the system inode block down to some block.
pub(crate) type Path = ArrayVec<Step, LONGEST>;

/// One block of a path. Small: paths are moved by value, many times for each name that is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Number of the block, or [`MISSING`].
    number: u64,
    /// In the top node of a tree that grows: what refers to the old top, as the value of a root.
    /// 0: nothing.
    spine: u64,
    /// The word of it that leads on.
    pub index: u16,
    /// What it holds.
    pub content: Content,
    /// In a block of inodes: height of the tree below, as it has to be.
    pub height: u8,
    /// And what the tree is for.
    pub holds: Holds,
}

/// The file whose tree a path leads into; `None` if it ends above the blocks of inodes.
pub(crate) fn file_of(path: &Path) -> Option<FileKey> {
    let mut block = 0;
    for step in path.iter().skip(1) {
        match step.content {
            Content::InodeNode(_) => block = block << 9 | u64::from(step.index),
            Content::Inodes => {
                let slot = u64::from(step.index / inode::INODE_WORDS);
                return Some(FileKey(Ino(block * u64::from(INODES_PER_BLOCK) + slot)));
            }
            _ => return None,
        }
    }
    None
}

/// In place of a block's number: it does not exist yet.
const MISSING: u64 = u64::MAX;

impl Step {
    fn new(block: Option<Block>, content: Content, index: u16) -> Self {
        let number = block.map_or(MISSING, |block| block.0);
        Step { number, spine: 0, index, content, height: 0, holds: Holds::Content }
    }

    /// The block; `None`: it does not exist yet.
    #[inline]
    pub fn block(&self) -> Option<Block> {
        (self.number != MISSING).then_some(Block(self.number))
    }

    /// In the top node of a tree that grows: the old top and its height.
    pub fn spine(&self) -> Option<(Pointer, u8)> {
        // It came from media, where it was decoded by the same rules.
        debug_assert!(Root::from_value(self.spine).is_ok(), "{:#x}", self.spine);
        let old = Root::from_value(self.spine).ok().flatten()?;
        old.top.map(|top| (top, old.height))
    }

    /// The value of the word that refers from here to the next block of the path.
    pub fn link(&self, child: Block) -> u64 {
        let pointer = Pointer::to(child);
        match self.content {
            Content::Node(_) | Content::InodeNode(_) => pointer.value(),
            _ => Root { height: self.height, top: Some(pointer), holds: self.holds }.value(),
        }
    }
}

impl<P: Pmem> Tree<P> {
    /// Follows word `index` of a block; bounds and checks are verified.
    #[inline(always)]
    pub(crate) fn follow(
        &self,
        block: Block,
        content: Content,
        index: u16,
    ) -> Result<Option<(Pointer, Content)>> {
        self.blocks.follow(block, content, index)
    }

    /// The root of the inode in a slot of a block of inodes, verified; `None`: it is free.
    pub(crate) fn root_in(&self, block: Block, slot: u16) -> Result<Option<Root>> {
        self.blocks.root(block, word_index(slot, inode::ROOT))
    }

    /// The path to an inode of the system inode file.
    pub(crate) fn system_path(&self, slot: u16) -> Path {
        let mut path = Path::new();
        let index = word_index(slot, inode::ROOT);
        path.push(Step::new(Some(self.system), Content::Inodes, index));
        path
    }

    /// Root of the live inode file.
    pub(crate) fn live_root(&self) -> Result<Root> {
        let damaged = Error::Damaged { block: self.system, what: "there is no live volume" };
        self.root_in(self.system, system::LIVE)?.ok_or(damaged)
    }

    /// Continues a path, whose last step is a block of inodes, into the tree of that
    /// inode: down to the node of level `target`, or at 0 to the block itself.
    pub(crate) fn descend(
        &self,
        path: &mut Path,
        root: Root,
        to: FileBlock,
        target: u8,
        inode_file: bool,
    ) -> Result<()> {
        let node =
            |level| if inode_file { Content::InodeNode(level) } else { Content::Node(level) };
        let height =
            if root.top.is_some() { root.height.max(height_for(to)) } else { height_for(to) };
        let mut current = root.top.filter(|_| height == root.height).map(|top| top.block);
        if let Some(last) = path.last_mut() {
            last.height = height;
            // Only of directories is a path to a block itself asked for.
            let is_bucket = target == 0 && !inode_file;
            last.holds = if is_bucket { Holds::Buckets } else { Holds::Content };
        }
        for level in (target.max(1)..=height).rev() {
            let index = index_at(to, level);
            let mut step = Step::new(current, node(level), index);
            if level == height && height > root.height {
                step.spine = root.value();
            }
            path.push(step);
            current = match current {
                Some(block) => {
                    self.follow(block, node(level), index)?.map(|(pointer, _)| pointer.block)
                }
                None => None,
            };
        }
        if target == 0 {
            let content = if inode_file { Content::Inodes } else { Content::Bucket };
            path.push(Step::new(current, content, 0));
        }
        Ok(())
    }

    /// The path to the block that holds an inode, which may not exist yet.
    pub(crate) fn inode_block_path(&self, ino: Ino) -> Result<Path> {
        let mut path = Path::new();
        self.walk_to_inodes(&mut path, ino)?;
        Ok(path)
    }

    /// Fills an empty path as [`Tree::inode_block_path`] has it. Each way through a result would
    /// copy it.
    fn walk_to_inodes(&self, path: &mut Path, ino: Ino) -> Result<()> {
        path.push(Step::new(
            Some(self.system),
            Content::Inodes,
            word_index(system::LIVE, inode::ROOT),
        ));
        let block = FileBlock(ino.0 / INODES_PER_BLOCK as u64);
        self.descend(path, self.live_root()?, block, 0, true)?;
        if let Some(last) = path.last_mut() {
            last.index = word_index(slot_of(ino), inode::ROOT);
        }
        Ok(())
    }

    /// Fills an empty path as [`Tree::inode_path`] has it.
    fn walk_to_inode(&self, path: &mut Path, ino: Ino) -> Result<Root> {
        if ino.0 == 0 || ino.0 >= inode::MAX_INO {
            return Err(Error::NotFound);
        }
        self.walk_to_inodes(path, ino)?;
        let block = path.last().and_then(|step| step.block()).ok_or(Error::NotFound)?;
        self.root_in(block, slot_of(ino))?.ok_or(Error::NotFound)
    }

    /// The block that holds a live inode, and its root, where the way there does not matter.
    pub(crate) fn inode(&self, ino: Ino) -> Result<(Block, Root)> {
        if ino.0 == 0 || ino.0 >= inode::MAX_INO {
            return Err(Error::NotFound);
        }
        let live = self.live_root()?;
        let at = FileBlock(ino.0 / INODES_PER_BLOCK as u64);
        let mut block = live.top.filter(|_| at.0 < live.capacity()).ok_or(Error::NotFound)?.block;
        for level in (1..=live.height).rev() {
            let next = self.follow(block, Content::InodeNode(level), index_at(at, level))?;
            block = next.ok_or(Error::NotFound)?.0.block;
        }
        let root = self.root_in(block, slot_of(ino))?.ok_or(Error::NotFound)?;
        Ok((block, root))
    }

    /// The path to a live inode, and its root.
    pub(crate) fn inode_path(&self, ino: Ino) -> Result<(Path, Root)> {
        let mut path = Path::new();
        let root = self.walk_to_inode(&mut path, ino)?;
        Ok((path, root))
    }

    /// The path to the leaf node that maps a block of a file, or to its inode if the
    /// tree has no nodes; and the root.
    pub(crate) fn leaf_path(&self, ino: Ino, to: FileBlock) -> Result<(Path, Root)> {
        let mut path = Path::new();
        let root = self.walk_to_inode(&mut path, ino)?;
        self.descend(&mut path, root, to, 1, false)?;
        Ok((path, root))
    }

    /// The path to the node of `level` above a block of a file; `level` is at most the
    /// height of the tree.
    pub(crate) fn node_path(&self, ino: Ino, to: FileBlock, level: u8) -> Result<Path> {
        let mut path = Path::new();
        let root = self.walk_to_inode(&mut path, ino)?;
        self.descend(&mut path, root, to, level, false)?;
        Ok(path)
    }

    /// The path to a block of a directory.
    pub(crate) fn bucket_path(&self, dir: Ino, bucket: FileBlock) -> Result<Path> {
        self.node_path(dir, bucket, 0)
    }

    /// The block that holds a live inode.
    pub(crate) fn inode_block(&self, ino: Ino) -> Result<Block> {
        self.inode(ino).map(|(block, _)| block)
    }

    /// How many blocks from the top of the path are exclusive: each exists, and has one
    /// reference.
    pub(crate) fn exclusive_steps(&self, path: &Path) -> Result<usize> {
        for (depth, step) in path.iter().enumerate() {
            match step.block() {
                Some(block) if self.blocks.is_own_pair(block)? => {}
                _ => return Ok(depth),
            }
        }
        Ok(path.len())
    }

    /// The entry of a file block.
    pub(crate) fn entry(&self, root: Root, to: FileBlock) -> Result<Option<Pointer>> {
        let Some(top) = root.top else { return Ok(None) };
        if to.0 >= root.capacity() {
            return Ok(None);
        }
        let mut pointer = top;
        for level in (1..=root.height).rev() {
            match self.follow(pointer.block, Content::Node(level), index_at(to, level))? {
                Some((next, _)) => pointer = next,
                None => return Ok(None),
            }
        }
        Ok(Some(pointer))
    }

    /// The leaf node above a file block, if there is one.
    pub(crate) fn leaf(&self, root: Root, to: FileBlock) -> Result<Option<Block>> {
        let Some(top) = root.top else { return Ok(None) };
        if root.height == 0 || to.0 >= root.capacity() {
            return Ok(None);
        }
        let mut block = top.block;
        for level in (2..=root.height).rev() {
            match self.follow(block, Content::Node(level), index_at(to, level))? {
                Some((next, _)) => block = next.block,
                None => return Ok(None),
            }
        }
        Ok(Some(block))
    }

    /// The subtree of `level` that starts at a block of a tree.
    pub(crate) fn subtree(
        &self,
        root: Root,
        first: FileBlock,
        level: u8,
    ) -> Result<Option<Pointer>> {
        let Some(top) = root.top else { return Ok(None) };
        if first.0 >= root.capacity() {
            return Ok(None);
        }
        let mut pointer = top;
        for at in (level + 1..=root.height).rev() {
            match self.follow(pointer.block, Content::Node(at), index_at(first, at))? {
                Some((next, _)) => pointer = next,
                None => return Ok(None),
            }
        }
        Ok(Some(pointer))
    }

    /// The value of the word that makes a file block refer to `pointer`: in the leaf node at the
    /// end of `path`, or in the inode.
    pub(crate) fn data_word(
        &self,
        path: &Path,
        ino: Ino,
        block: FileBlock,
        pointer: Option<Pointer>,
    ) -> (u16, u64) {
        let leaf = path.last().is_some_and(|step| step.content == Content::Node(1));
        if leaf {
            let index = (block.0 % 512) as u16;
            (index, pointer.map_or(NOTHING, Pointer::value))
        } else {
            (word_index(slot_of(ino), inode::ROOT), Root::of_file(0, pointer).value())
        }
    }
}
