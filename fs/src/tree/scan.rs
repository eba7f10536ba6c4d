//! Looking for what exists in a tree, without looking at what does not: a missing entry is passed
//! at once, whatever it would map.

use crate::blocks::Content;
use crate::error::Result;
use crate::format::word::{Pointer, Root};
use crate::pmem::Pmem;
use crate::tree::path::index_at;
use crate::types::FileBlock;
use crate::volume::Volume;

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

impl<P: Pmem, M> Volume<P, M> {
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

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::Found;
    use crate::testing::new_volume;
    use crate::types::Time;
    use alloc::vec::Vec;

    #[test]
    fn what_exists_is_found_and_holes_are_passed() {
        let mut volume = new_volume(8 << 20, 1);
        let ino = volume.create(volume.root(), b"a", 0o600, Time(1)).unwrap();
        let blocks = [3, 511, 512, 1_000_000, 100_000_000];
        for block in blocks {
            volume.write(ino, block * 4096, &[1; 4096], Time(1)).unwrap();
        }
        let (_, root) = volume.inode_path(ino).unwrap();
        for level in 0..3 {
            let span = 512u64.pow(level);
            let mut wanted: Vec<_> = blocks.iter().map(|block| block / span * span).collect();
            wanted.dedup();
            for allowance in [1u64, 3, u64::MAX] {
                let (mut found, mut at) = (Vec::new(), 0);
                loop {
                    // A descent needs an entry of each level, or it would never get anywhere.
                    match volume.seek(root, at, level as u8, &mut allowance.max(3)).unwrap() {
                        Found::At(block, _) => {
                            found.push(block);
                            at = block + span;
                        }
                        Found::Later(block) => {
                            assert!(block >= at);
                            at = block;
                        }
                        Found::Nothing => break,
                    }
                }
                assert_eq!(found, wanted, "level {level}, {allowance} at a time");
            }
        }
        let empty = volume.create(volume.root(), b"b", 0o600, Time(1)).unwrap();
        let (_, root) = volume.inode_path(empty).unwrap();
        assert_eq!(volume.seek(root, 0, 0, &mut 10), Ok(Found::Nothing));
    }
}
