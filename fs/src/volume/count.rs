//! How many blocks a file has, counted in steps: its nodes are walked from the first to the last.

use super::Volume;
use super::work::{Begun, Counting, Held, Outcome, Work};
use crate::error::{Error, Result};
use crate::pmem::Pmem;
use crate::tree::scan::Found;
use crate::types::*;
use crate::windows::mmu::Mmu;

/// A leaf is looked at in one go; that costs as much as so many entries elsewhere.
const LEAF_COST: u64 = 64;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Begins to count the blocks that the content of a file refers to (shared ones counted in
    /// full): [`Outcome::Blocks`]. Each block is counted as it is when its turn comes.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or a [media error](Error#media-errors).
    pub fn begin_count(&mut self, ino: Ino) -> Result<Begun> {
        self.begin(Work::Count(Counting { file: Held::new(ino), at: 0, sum: 0 }))
    }

    /// Blocks that the content of a file refers to (shared ones counted in full).
    ///
    /// # Errors
    ///
    /// As [`Volume::begin_count`].
    pub fn blocks(&mut self, ino: Ino) -> Result<u64> {
        let begun = self.begin_count(ino)?;
        match self.finish(begun)? {
            Outcome::Blocks(blocks) => Ok(blocks),
            _ => Err(Error::Invalid("a count of blocks counts blocks")),
        }
    }

    pub(super) fn count_step(&mut self, work: &mut Counting) -> Result<Option<Outcome>> {
        self.verify(work.file)?;
        let (_, root) = self.tree.inode_path(work.file.ino)?;
        if root.height == 0 {
            return Ok(Some(Outcome::Blocks(
                work.sum + u64::from(root.top.is_some() && work.at == 0),
            )));
        }
        let mut allowance = 4 * self.work_a_step.max(1);
        loop {
            match self.tree.seek(root, work.at, 1, &mut allowance)? {
                Found::Nothing => return Ok(Some(Outcome::Blocks(work.sum))),
                Found::Later(at) => {
                    work.at = at;
                    return Ok(None);
                }
                Found::At(first, leaf) => {
                    work.sum += self.tree.blocks.count_data(leaf.block)?;
                    work.at = first + 512;
                    allowance = allowance.saturating_sub(LEAF_COST);
                }
            }
        }
    }
}
