//! Looking for what exists in a tree, without looking at what does not: a missing entry is passed
//! at once, whatever it would map.

use super::Tree;
use crate::blocks::Content;
use crate::error::Result;
use crate::format::word::{Pointer, Root};
use crate::pmem::Pmem;
use crate::tree::shape::index_at;
use crate::types::FileBlock;

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A subtree exists: the first file block that it maps, and the pointer to it.
    At(u64, Pointer),
    /// Nothing exists up to the end.
    Nothing,
    /// The allowance was used up. Nothing exists before this file block.
    Later(u64),
}

impl<P: Pmem> Tree<P> {
    /// The first subtree of `level` that exists and maps a block at or behind `from`; `level` is at
    /// most the height of the tree. Each entry that is looked at uses up one of `allowance`.
    pub(crate) fn seek(
        &self,
        root: Root,
        from: u64,
        level: u8,
        allowance: &mut u64,
    ) -> Result<Found> {
        let Some(top) = root.top else { return Ok(Found::Nothing) };
        let mut at = from & !(512u64.pow(u32::from(level)) - 1);
        'descend: while at < root.capacity() {
            let mut pointer = top;
            for above in (level + 1..=root.height).rev() {
                let span = 512u64.pow(u32::from(above) - 1);
                let mut index = index_at(FileBlock(at), above);
                loop {
                    if *allowance == 0 {
                        return Ok(Found::Later(at));
                    }
                    *allowance -= 1;
                    if let Some((next, _)) =
                        self.follow(pointer.block, Content::Node(above), index)?
                    {
                        pointer = next;
                        break;
                    }
                    at = (at / span + 1) * span;
                    index += 1;
                    if index == 512 {
                        continue 'descend;
                    }
                }
            }
            return Ok(Found::At(at, pointer));
        }
        Ok(Found::Nothing)
    }
}
