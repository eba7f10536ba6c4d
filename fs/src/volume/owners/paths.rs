//! Names for inodes: directories are walked from the root down until each has a path.

use super::search::{MOST_NAMES, Owners, Walk};
use crate::error::Result;
use crate::format::inode::ROOT_INO;
use crate::memory::{append, push, push_within, with_room};
use crate::pmem::Pmem;
use crate::types::*;
use crate::volume::Volume;
use crate::windows::mmu::Mmu;
use core::ops::ControlFlow;

/// Longest path. Directories below are passed over.
const MOST_PATH: usize = 4096;
/// Units of work that a name takes, and a directory.
const NAME: u64 = 8;
const DIRECTORY: u64 = 256;
/// Names that are looked at before it is asked whether the step is over.
const NAMES_AT_ONCE: u64 = 256;

impl Walk {
    /// A walk for all inodes that were found.
    pub fn new(found: &mut Owners) -> Result<Self> {
        let mut paths = with_room(found.ranges.len())?;
        for range in &found.ranges {
            if paths.last().is_none_or(|(ino, _)| *ino != range.ino) {
                push_within(&mut paths, (range.ino, 0..0));
            }
        }
        let missing = paths.len();
        found.paths = paths;
        let (mut way, path) = (with_room(16)?, with_room(MOST_PATH)?);
        push_within(&mut way, (ROOT_INO, 0, 0));
        let mut walk = Walk { way, path, missing };
        walk.name(found, ROOT_INO, b"")?;
        Ok(walk)
    }

    /// Gives an inode the path of the directory with this name behind it, if it needs one.
    fn name(&mut self, found: &mut Owners, ino: Ino, name: &[u8]) -> Result<()> {
        let Ok(at) = found.paths.binary_search_by_key(&ino, |(ino, _)| *ino) else { return Ok(()) };
        let (begin, len) = (found.names.len(), self.path.len() + 1 + name.len());
        if !found.paths[at].1.is_empty() {
            return Ok(());
        }
        self.missing -= 1;
        if begin + len > MOST_NAMES {
            return Ok(());
        }
        append(&mut found.names, &[&self.path, &b"/"[..], name])?;
        found.paths[at].1 = begin as u32..(begin + len) as u32;
        Ok(())
    }

    /// Goes down into a directory.
    fn enter(&mut self, ino: Ino, name: &[u8]) -> Result<()> {
        if self.path.len() + 1 + name.len() > MOST_PATH {
            return Ok(());
        }
        push(&mut self.way, (ino, 0, self.path.len() + 1 + name.len()))?;
        append(&mut self.path, &[b"/", name])
    }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Walks on; true if nothing is left to do.
    pub(super) fn walk_paths(
        &self,
        walk: &mut Walk,
        found: &mut Owners,
        left: &mut u64,
    ) -> Result<bool> {
        let Some(&(dir, cookie, len)) = walk.way.last().filter(|_| walk.missing > 0) else {
            return Ok(true);
        };
        walk.path.truncate(len);
        *left = left.saturating_sub(DIRECTORY);
        let (mut names, mut last, mut result) = (0, cookie, Ok(()));
        let mut below: Option<(Ino, arrayvec::ArrayVec<u8, MAX_NAME>)> = None;
        let next = self.read_dir_some(dir, cookie, &mut |entry| {
            (names, last) = (names + 1, entry.cookie);
            result = walk.name(found, entry.ino, entry.name);
            if entry.kind == Kind::Directory {
                below = entry.name.try_into().ok().map(|name| (entry.ino, name));
            }
            if below.is_some() || result.is_err() || names == NAMES_AT_ONCE {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        result?;
        *left = left.saturating_sub(NAME * names);
        // A directory that is gone, or cannot be read, has no more names.
        let broke = below.is_some() || names == NAMES_AT_ONCE;
        let next = if broke { Some(last) } else { next.unwrap_or(None) };
        match (next, walk.way.last_mut()) {
            (Some(next), Some(at)) => at.1 = next,
            _ => _ = walk.way.pop(),
        }
        if let Some((ino, name)) = below {
            walk.enter(ino, &name)?;
        }
        Ok(false)
    }
}
