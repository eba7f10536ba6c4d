//! Holes and zeros in the middle of a file.
//!
//! Punching clears entries, at the highest level where a whole subtree goes: a word for each,
//! whatever hangs below it.
//!
//! ```text
//!   node (level 2)   [ a | b | c | d ]        punch from the middle of a to the middle of c:
//!                      |   |   |              entries of a's leaf, then the word of b,
//!                     leaf leaf leaf          then entries of c's leaf
//! ```
//!
//! Providing zeros marks whole blocks as unwritten, those that are there and those that it has to
//! allocate: nothing is filled before somebody writes there.
//!
//! Both work in steps: each call does a bounded part from the front of the range, and each
//! step is durable at return, but for parts of blocks that are overwritten in place.

use super::Volume;
use super::budget::NODE_BLOCKS;
use super::source::Source;
use crate::blocks::{Content, Purpose};
use crate::error::{Error, Result};
use crate::format::inode;
use crate::format::word::{NOTHING, Root};
use crate::memory::push_within;
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::path::Path;
use crate::tree::shape::index_at;
use crate::types::*;
use crate::windows::mmu::Mmu;

/// Most bytes that one step provides with zeros: what lies below one leaf.
const PROVIDE_STEP: u64 = 512 * BLOCK_SIZE;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Makes the front of a range read as zeros, and frees its whole blocks; returns how many
    /// bytes are done, at least one. The size stays; what lies beyond it counts as done.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::NoSpace`] if even the reserve is used
    /// up, or a [media error](Error#media-errors).
    pub fn punch(&mut self, ino: Ino, offset: u64, len: u64, now: Time) -> Result<u64> {
        let size = self.file_size(ino)?;
        let end = offset.saturating_add(len).min(size);
        if offset >= end {
            return Ok(len);
        }
        let done = match part_of_block(offset, end, size) {
            Some(part) => {
                self.write_piece(ino, offset, Source::Zeros(part), None)?;
                part
            }
            None => {
                // Behind the end of the file nothing is defined: a subtree there goes as a whole.
                let stop = if end == size { u64::MAX } else { end / BLOCK_SIZE };
                let next = self.punch_blocks(ino, offset / BLOCK_SIZE, stop)?;
                next.saturating_mul(BLOCK_SIZE).min(end) - offset
            }
        };
        self.touch(ino, [inode::MTIME, inode::CTIME], now)?;
        Ok(if offset + done == size { len } else { done })
    }

    /// Makes the front of a range read as zeros, in blocks of the file's own: what is written there
    /// later needs no free block, unless the file is cloned before. Returns how many bytes are
    /// done, at least one; what lies beyond the size counts as done.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] if a block has to be allocated, and none is left; those of
    /// [`Volume::write`].
    pub fn provide_zeros(&mut self, ino: Ino, offset: u64, len: u64, now: Time) -> Result<u64> {
        let size = self.file_size(ino)?;
        let end = offset.saturating_add(len).min(size);
        if offset >= end {
            return Ok(len);
        }
        let done = match part_of_block(offset, end, size) {
            Some(part) => {
                self.provide_part(ino, offset, part)?;
                part
            }
            None => self.provide_blocks(ino, offset, end, size)?,
        };
        self.touch(ino, [inode::MTIME, inode::CTIME], now)?;
        Ok(if offset + done == size { len } else { done })
    }

    /// Provides a part of a block with zeros. The whole block is unwritten then, unless it has
    /// content.
    fn provide_part(&mut self, ino: Ino, offset: u64, part: u64) -> Result<()> {
        let (_, root) = self.tree.inode_path(ino)?;
        let entry = self.tree.entry(root, FileBlock(offset / BLOCK_SIZE))?;
        if entry.is_some_and(|pointer| !pointer.unwritten) {
            return self.write_piece(ino, offset, Source::Zeros(part), None);
        }
        let start = offset - offset % BLOCK_SIZE;
        self.write_piece(ino, start, Source::AllocatedZeros(BLOCK_SIZE), None)
    }

    /// Provides whole blocks from `offset` on with zeros, where the last one of the file counts as
    /// whole; returns how many bytes are done.
    fn provide_blocks(&mut self, ino: Ino, offset: u64, end: u64, size: u64) -> Result<u64> {
        let whole = if end == size { end } else { end - end % BLOCK_SIZE } - offset;
        let most = whole.min(PROVIDE_STEP - offset % PROVIDE_STEP);
        // What fits still goes in, block by block.
        for piece in [most, most.min(BLOCK_SIZE)] {
            match self.write_piece(ino, offset, Source::AllocatedZeros(piece), None) {
                Err(Error::NoSpace) if piece > BLOCK_SIZE => {}
                done => return done.map(|()| piece),
            }
        }
        Err(Error::NoSpace)
    }

    /// Clears entries from block `first` on, in one node; returns the block behind them, which is
    /// at most `stop`.
    fn punch_blocks(&mut self, ino: Ino, first: u64, stop: u64) -> Result<u64> {
        let (path, root) = self.tree.inode_path(ino)?;
        if root.top.is_none() || first >= root.capacity() {
            return Ok(stop);
        }
        // What is mapped goes page by page: of much of it, the blocks below one leaf at a time.
        let mapped =
            root.height > 0 && self.dax.shown(FileKey(ino), &(first..stop)) > self.work_a_step;
        if first == 0 && stop >= root.capacity() && !mapped {
            self.clear(ino, &path, &[Self::root_word(ino, Root::EMPTY)], 0..stop)?;
            return Ok(stop);
        }
        let mut level = root.height;
        loop {
            // An entry of this level maps so many blocks.
            let span = 512u64.pow(u32::from(level) - 1);
            let path = self.tree.node_path(ino, FileBlock(first), level)?;
            let Some(node) = path.last().and_then(|step| step.block()) else {
                // All that the node would map is a hole.
                return Ok(stop.min((first / (512 * span) + 1) * 512 * span));
            };
            let whole = (stop - first) / span;
            if level > 1 && (!first.is_multiple_of(span) || whole == 0 || mapped && level > 2) {
                level -= 1;
                continue;
            }
            let index = index_at(FileBlock(first), level);
            let most = if mapped && level > 1 { 1 } else { 512 - u64::from(index) };
            let count = whole.min(most) as u16;
            let mut words = core::mem::take(&mut self.tree.words);
            words.clear();
            let mut read = Ok(());
            for index in index..index + count {
                match self.tree.follow(node, Content::Node(level), index) {
                    Ok(None) => {}
                    Ok(Some(_)) => push_within(&mut words, (index, NOTHING)),
                    Err(error) => read = Err(error),
                }
            }
            let next = first + u64::from(count) * span;
            let result = match read {
                Ok(()) if words.is_empty() => Ok(()),
                Ok(()) => self.clear(ino, &path, &words, first..next),
                Err(error) => Err(error),
            };
            self.tree.words = words;
            return result.map(|()| next);
        }
    }

    /// Commits words that clear the entries of a range of blocks; each may go by itself.
    fn clear(
        &mut self,
        ino: Ino,
        path: &Path,
        words: &[(u16, u64)],
        range: core::ops::Range<u64>,
    ) -> Result<()> {
        self.tree.blocks.ensure(0, NODE_BLOCKS, Purpose::Release)?;
        let stage = self.tree.stage();
        let done = self.tree.commit(stage, &[Edit::independent(path, words)], Purpose::Release)?;
        let unmapped = self.dax.unmap(&mut self.tree.blocks, FileKey(ino), range.start, range.end);
        self.tree.release_shown(done, unmapped)
    }
}

/// Bytes from `offset` on that are only a part of their block, if they are. The last block of
/// a file is whole if the range reaches the size.
fn part_of_block(offset: u64, end: u64, size: u64) -> Option<u64> {
    let within = offset % BLOCK_SIZE;
    let part = (BLOCK_SIZE - within).min(end - offset);
    let whole = within == 0 && (part == BLOCK_SIZE || end == size);
    (!whole).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::part_of_block;

    #[test]
    fn parts_of_blocks() {
        assert_eq!(part_of_block(0, 4096, 10_000), None);
        assert_eq!(part_of_block(0, 4095, 10_000), Some(4095));
        assert_eq!(part_of_block(100, 10_000, 10_000), Some(3996));
        assert_eq!(part_of_block(8192, 10_000, 10_000), None);
        assert_eq!(part_of_block(8193, 10_000, 10_000), Some(1807));
        assert_eq!(part_of_block(8192, 9_999, 10_000), Some(1807));
        assert_eq!(part_of_block(4096, 5000, 5000), None);
    }
}
