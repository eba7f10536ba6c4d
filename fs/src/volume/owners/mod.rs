//! Whose bad blocks are: for each block of the list, the files that lose something, by path.
//!
//! ```text
//!   Inodes   each inode's tree, from the first block to the last: entries that lead to a block of
//!            the list, and nodes that are on it themselves
//!   Names    directories, from the root down: the paths of the inodes that were found
//! ```
//!
//! No record says who refers to a block, so both are linear: in nodes and in names. What many files
//! share is looked at once: a node below which nothing is bad is remembered, and a file with the
//! same root as the one before has the same answer.
//!
//! Others change the volume between two steps. Each file is looked at when its turn comes, so the
//! answer is of no one moment; what nobody changed is in it.
//!
//! Memory: 64 KiB for nodes, and at most [`MOST_RANGES`] ranges and [`MOST_NAMES`] bytes of paths.
//! What goes beyond is counted, for each block.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the search, its steps, what it found |
//! | `trees.rs` | looking through the trees of files |
//! | `paths.rs` | names for what was found |

mod paths;
mod trees;

use self::paths::Walk;
use self::trees::{Clean, Filter, Place};
use super::Volume;
use crate::error::Result;
use crate::memory::{push, push_within, with_room};
use crate::pmem::Pmem;
use crate::types::*;
use crate::windows::mmu::Mmu;
use alloc::vec::Vec;
use core::ops::Range;

/// Most ranges that an answer has.
pub(super) const MOST_RANGES: usize = 4096;
/// Most ranges that one file has of one block.
const MOST_OF_FILE: u32 = 16;
/// Most bytes of all paths.
const MOST_NAMES: usize = 512 << 10;
/// Words that a step looks at.
const WORK_A_STEP: u64 = 1 << 14;

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
    paths: Vec<(Ino, Range<u32>)>,
    names: Vec<u8>,
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
    found: Owners,
    /// Of each block: the last range of it, and how many the file of that has.
    last: Vec<(u32, u32)>,
    /// Ranges that had no room.
    more: u64,
    filter: Filter,
    clean: Clean,
    place: Place,
    walk: Option<Walk>,
}

impl OwnerSearch {
    /// Notes that a range of a file has a block of the list, which is number `at` of it.
    fn add(&mut self, at: usize, ino: Ino, loss: Loss, first: u64, blocks: u64) -> Result<()> {
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
    fn find(&self, block: Block) -> Option<usize> {
        if !self.filter.may_have(block) {
            return None;
        }
        self.found.blocks.binary_search_by_key(&block, |bad| bad.block).ok()
    }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Bytes of memory that a search for owners takes when it begins.
    pub fn owners_memory(&self) -> usize {
        Clean::MEMORY + self.bad_blocks().len() * 64
    }

    /// Begins to look for the owners of all blocks that are on the list now.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`].
    pub fn begin_owners(&self) -> Result<OwnerSearch> {
        let listed = self.bad_blocks();
        let mut blocks = with_room(listed.len())?;
        let mut last = with_room(listed.len())?;
        let mut filter = Filter::default();
        for &block in listed {
            let out_of_use = self.tree.blocks.is_out_of_use(block)?;
            push_within(&mut blocks, BadBlock { block, out_of_use, more: 0 });
            push_within(&mut last, (u32::MAX, 0));
            filter.add(block);
        }
        let found = Owners { blocks, ..Owners::default() };
        Ok(OwnerSearch {
            found,
            last,
            more: 0,
            filter,
            clean: Clean::new()?,
            place: Place::default(),
            walk: None,
        })
    }

    /// Takes a bounded step. The owners are there with the last one.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`], or a [media error](Error#media-errors) in what leads to the inodes. A
    /// file whose tree cannot be read is left out from there on.
    pub fn owners_step(&self, search: &mut OwnerSearch) -> Result<Option<Owners>> {
        let mut left = WORK_A_STEP;
        while left > 0 {
            if search.found.blocks.is_empty() {
                return Ok(Some(core::mem::take(&mut search.found)));
            }
            let Some(walk) = &mut search.walk else {
                if self.search_trees(search, &mut left)? {
                    search.walk = Some(Walk::new(&mut search.found)?);
                }
                continue;
            };
            if self.walk_paths(walk, &mut search.found, &mut left)? {
                return Ok(Some(core::mem::take(&mut search.found)));
            }
        }
        Ok(None)
    }
}
