//! A search for owners, as it is between two steps, and what it found.

use crate::error::Result;
use crate::format::word::Root;
use crate::memory::{filled, push};
use crate::types::*;
use alloc::vec::Vec;
use core::ops::Range;

/// Most ranges that an answer has.
const MOST_RANGES: usize = 4096;
/// Most ranges that one file has of one block.
const MOST_OF_FILE: u32 = 16;
/// Most bytes of all paths.
pub(super) const MOST_NAMES: usize = 512 << 10;

/// What a file loses with a bad block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Content.
    Content,
    /// A node of its tree: all content below, should the memory not deliver the node.
    Node,
    /// The block with its inode.
    Inode,
    /// A bucket of the directory.
    Names,
}

/// A range of a file that a bad block has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The block.
    pub block: Block,
    /// The file.
    pub ino: Ino,
    /// What it loses.
    pub loss: Loss,
    /// The first block of the file, and how many.
    pub first: FileBlock,
    /// How many blocks of the file.
    pub blocks: u64,
}

/// A block of the list, and how much of it has no room in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBlock {
    /// The block.
    pub block: Block,
    /// Nothing refers to it.
    pub out_of_use: bool,
    /// Ranges that were found and have no room in the answer.
    pub more: u64,
}

/// Whose the blocks of the list are.
#[derive(Debug, Default)]
pub struct Owners {
    /// All blocks of the list, in ascending order. One that is in use and has no range describes
    /// the volume itself, or a file that went meanwhile.
    pub blocks: Vec<BadBlock>,
    /// In ascending order of inodes.
    pub ranges: Vec<Owned>,
    pub(super) paths: Vec<(Ino, Range<u32>)>,
    pub(super) names: Vec<u8>,
}

impl Owners {
    /// A path of an inode, from `/` on; `None` if it has none that was found, or no room.
    pub fn path(&self, ino: Ino) -> Option<&[u8]> {
        let at = self.paths.binary_search_by_key(&ino, |(ino, _)| *ino).ok()?;
        let range = &self.paths[at].1;
        self.names.get(range.start as usize..range.end as usize).filter(|path| !path.is_empty())
    }
}

/// A search under way.
#[derive(Debug)]
pub struct OwnerSearch {
    pub(super) found: Owners,
    /// Of each block: the last range of it, and how many the file of that has.
    pub(super) last: Vec<(u32, u32)>,
    /// Ranges that had no room.
    pub(super) more: u64,
    pub(super) filter: Filter,
    pub(super) clean: Clean,
    pub(super) progress: Progress,
    pub(super) walk: Option<Walk>,
}

impl OwnerSearch {
    /// Notes that a range of a file has a block of the list, which is number `at` of it.
    pub(super) fn add(
        &mut self,
        at: usize,
        ino: Ino,
        loss: Loss,
        first: u64,
        blocks: u64,
    ) -> Result<()> {
        let block = self.found.blocks[at].block;
        let (last, of_file) = self.last[at];
        let before = self.found.ranges.get_mut(last as usize);
        let before = before.filter(|it| (it.block, it.ino) == (block, ino));
        let of_file = if before.is_some() { of_file } else { 0 };
        if let Some(range) = before
            && range.loss == loss
            && range.first.0 + range.blocks == first
        {
            range.blocks += blocks;
            return Ok(());
        }
        let ranges = &mut self.found.ranges;
        if ranges.len() == MOST_RANGES || of_file == MOST_OF_FILE {
            self.found.blocks[at].more += 1;
            self.more += 1;
            return Ok(());
        }
        push(ranges, Owned { block, ino, loss, first: FileBlock(first), blocks })?;
        self.last[at] = (ranges.len() as u32 - 1, of_file + 1);
        Ok(())
    }

    /// The number of a block in the list.
    pub(super) fn find(&self, block: Block) -> Option<usize> {
        if !self.filter.may_have(block) {
            return None;
        }
        self.found.blocks.binary_search_by_key(&block, |bad| bad.block).ok()
    }
}

/// Which blocks may be on the list: few that are not pass.
#[derive(Debug)]
pub(super) struct Filter([u64; 64]);

impl Default for Filter {
    fn default() -> Self {
        Filter([0; 64])
    }
}

impl Filter {
    pub fn add(&mut self, block: Block) {
        self.0[(block.0 / 64 % 64) as usize] |= 1 << (block.0 % 64);
    }

    #[inline]
    pub fn may_have(&self, block: Block) -> bool {
        self.0[(block.0 / 64 % 64) as usize] >> (block.0 % 64) & 1 != 0
    }
}

/// Nodes below which nothing of the list was found, each at the place that its number gives. One
/// that is forgotten is looked at again.
#[derive(Debug)]
pub(super) struct Clean(Vec<u64>);

impl Clean {
    const PLACES: usize = 8192;
    pub const MEMORY: usize = Self::PLACES * 8;

    pub fn new() -> Result<Self> {
        filled(Self::PLACES, 0).map(Clean)
    }

    #[inline]
    pub fn has(&self, node: Block) -> bool {
        self.0[node.0 as usize % Self::PLACES] == node.0
    }

    pub fn add(&mut self, node: Block) {
        self.0[node.0 as usize % Self::PLACES] = node.0;
    }
}

/// How far the search is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The block of the inode file, and the inode in it.
    pub(super) inodes: u64,
    pub(super) slot: u16,
    /// The next block of the file, once the search has begun with it.
    pub(super) block: u64,
    pub(super) entered: bool,
    /// The first range of this file, and how many ranges had no room before it.
    pub(super) begin: usize,
    pub(super) more: u64,
    /// The root of the file before, and its ranges, if all of them had room.
    pub(super) before: Option<(Root, usize, usize)>,
}

/// A walk from the root down.
#[derive(Debug)]
pub(super) struct Walk {
    /// The directories from the root to where the walk is: the next entry, and how long the path
    /// is.
    pub(super) way: Vec<(Ino, u64, usize)>,
    /// The path of the last one, `/` in front of each name.
    pub(super) path: Vec<u8>,
    /// Inodes that have no path yet.
    pub(super) missing: usize,
}
