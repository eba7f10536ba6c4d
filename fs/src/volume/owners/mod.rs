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
//! Memory: 64 KiB for nodes, and at most 4,096 ranges and 512 KiB of paths.
//! What goes beyond is counted, for each block.
//!
//! | file | what |
//! |---|---|
//! | `search.rs` | a search between two steps, what it found |
//! | `mod.rs` | the steps |
//! | `trees.rs` | looking through the trees of files |
//! | `paths.rs` | names for what was found |

mod paths;
mod search;
mod trees;

pub use self::search::{BadBlock, Loss, Owned, OwnerSearch, Owners};
use self::search::{Clean, Filter, Progress, Walk};
use super::Volume;
use crate::error::Result;
use crate::memory::{push_within, with_room};
use crate::pmem::Pmem;
use crate::windows::mmu::Mmu;

/// Words that a step looks at.
const WORK_A_STEP: u64 = 1 << 12;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Bytes of memory that a search for owners takes when it begins.
    pub fn owners_memory(&self) -> usize {
        Clean::MEMORY + self.bad_blocks().len() * 64
    }

    /// Begins to look for the owners of all blocks that are on the list now.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`](crate::Error::NoMemory).
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
            progress: Progress::default(),
            walk: None,
        })
    }

    /// Takes a bounded step. The owners are there with the last one.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`](crate::Error::NoMemory), or a [media
    /// error](crate::Error#media-errors) in what leads to the inodes. A
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
