//! Names: each inode has as many as it says, and each leads to what it says.
//!
//! Directories are walked from the root, a bucket at a time. An entry and its inode are looked at
//! in one step, so what does not fit there is wrong. How many names an inode has is only known in
//! the end: inodes that were made, named, or lost a name meanwhile are *touched*, and not judged by
//! that. A directory that is moved may be moved from where the walk has not been to where it was:
//! then it is looked for in the end.

use super::naming::{MOST_ROUNDS, Missed};
use super::report::CheckReport;
use crate::error::{Error, Result};
use crate::format::inode::{INODES_PER_BLOCK, ROOT_INO};
use crate::pmem::Pmem;
use crate::types::*;
use crate::volume::Volume;
use crate::windows::mmu::Mmu;
use arrayvec::ArrayVec;
use core::fmt;
use core::ops::ControlFlow;

/// Units of a bucket whose names are verified, for each name, and of an inode.
const BUCKET: u64 = 512;
const NAME: u64 = 512;
const INODE: u64 = 64;
/// Names that are verified before it is asked whether the step is over.
const NAMES_AT_ONCE: usize = 16;

/// A name in a finding, in which what is no UTF-8 is replaced.
struct Lossy<'n>(&'n [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// A name of an inode comes or goes: a check that is under way does not judge it.
    pub(in crate::volume) fn name_changes(&mut self, ino: Ino) {
        if let Some(naming) = &mut self.naming {
            naming.touch(ino);
        }
    }

    /// Walks more of the directories that wait; true if none does.
    pub(super) fn walk_names(&mut self, report: &mut CheckReport, left: &mut u64) -> Result<bool> {
        while *left > 0 {
            let Some(naming) = &mut self.naming else { return Ok(true) };
            let (dir, position) = match naming.current {
                Some(current) => current,
                None => match naming.waiting.pop() {
                    None => return Ok(true),
                    Some(dir) if !naming.names.walk(dir) => continue,
                    Some(dir) => (dir, 0),
                },
            };
            *left = left.saturating_sub(BUCKET);
            if position == 0 && dir == ROOT_INO && self.parent_of(dir) != Ok(dir) {
                report.add(format_args!("the root directory has a parent"));
            }
            let next = self.walk_bucket(dir, position, report, left);
            let touched = self.naming.as_ref().is_none_or(|naming| naming.is_touched(dir));
            let next = match next {
                Ok(next) => next,
                // It may have been removed meanwhile.
                Err(Error::NotFound | Error::NotDirectory) if touched => None,
                Err(error) => {
                    report.add(format_args!("directory {}: {error}", dir.0));
                    None
                }
            };
            if let Some(naming) = &mut self.naming {
                naming.current = next.map(|position| (dir, position));
            }
        }
        Ok(false)
    }

    /// Verifies and counts a few entries, if there are some; the cookie to go on with.
    fn walk_bucket(
        &mut self,
        dir: Ino,
        position: u64,
        report: &mut CheckReport,
        left: &mut u64,
    ) -> Result<Option<u64>> {
        let (mut found, mut last) = (ArrayVec::<(Ino, Kind), NAMES_AT_ONCE>::new(), position);
        let next = self.read_dir_some(dir, position, &mut |entry| {
            found.push((entry.ino, entry.kind));
            last = entry.cookie;
            self.check_entry(dir, &entry, report);
            if found.len() < NAMES_AT_ONCE {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        let next = if found.len() < NAMES_AT_ONCE { next } else { Some(last) };
        *left = left.saturating_sub(NAME * found.len() as u64);
        if let Some(naming) = &mut self.naming {
            for (ino, kind) in found {
                naming.names.add(ino)?;
                if kind == Kind::Directory {
                    naming.wait_for(ino);
                }
            }
        }
        Ok(next)
    }

    fn check_entry(&self, dir: Ino, entry: &DirEntry<'_>, report: &mut CheckReport) {
        let name = Lossy(entry.name);
        match self.attributes(entry.ino) {
            Err(error) => {
                report.add(format_args!(
                    "directory {}: '{name}' names inode {}: {error}",
                    dir.0, entry.ino.0
                ));
            }
            Ok(found) if found.kind != entry.kind => {
                report.add(format_args!(
                    "directory {}: '{name}' is said to be a {:?}",
                    dir.0, entry.kind
                ));
            }
            Ok(found)
                if found.kind == Kind::Directory && self.parent_of(entry.ino).ok() != Some(dir) =>
            {
                report.add(format_args!("directory {}: '{name}' has another parent", dir.0));
            }
            Ok(_) => {}
        }
        match self.dir(dir).and_then(|opened| self.find(opened, entry.name)) {
            Ok(Some(found)) if found.ino == entry.ino => {}
            _ => report.add(format_args!("directory {}: '{name}' is listed but not found", dir.0)),
        }
    }

    /// Looks for directories that have a name and were not walked, from a block of inodes on.
    pub(super) fn find_missed(&mut self, mut at: u64, left: &mut u64) -> Result<Missed> {
        match &mut self.naming {
            Some(_) if at > 0 => {}
            Some(naming) if naming.missed && naming.rounds < MOST_ROUNDS => {
                naming.missed = false;
                naming.rounds += 1;
            }
            _ => return Ok(Missed::None),
        }
        while *left > 0 {
            let Some((first, block)) = self.inode_block_behind(at)? else {
                let waits = self.naming.as_ref().is_some_and(|n| !n.waiting.is_empty() || n.missed);
                return Ok(if waits { Missed::Some } else { Missed::None });
            };
            *left = left.saturating_sub(INODE * u64::from(INODES_PER_BLOCK));
            for slot in 0..u64::from(INODES_PER_BLOCK) {
                let ino = Ino(first * u64::from(INODES_PER_BLOCK) + slot);
                let is_dir =
                    || self.kind_in(block, ino).is_ok_and(|(kind, _)| kind == Kind::Directory);
                let missed = self
                    .naming
                    .as_ref()
                    .is_some_and(|n| n.names.of(ino) > 0 && !n.names.was_walked(ino));
                if missed
                    && self.tree.inode(ino).is_ok()
                    && is_dir()
                    && let Some(naming) = &mut self.naming
                {
                    naming.wait_for(ino);
                }
            }
            at = first + 1;
        }
        Ok(Missed::More(at))
    }

    /// Judges inodes from a block of them on; where to go on.
    pub(super) fn judge_inodes(
        &mut self,
        mut at: u64,
        report: &mut CheckReport,
        left: &mut u64,
    ) -> Result<Option<u64>> {
        while *left > 0 {
            let found = self.inode_block_behind(at)?;
            let judged = found.map_or(u64::MAX, |(first, _)| first + 1);
            let mut used = 0;
            if let Some((first, block)) = found {
                *left = left.saturating_sub(INODE * u64::from(INODES_PER_BLOCK));
                for slot in 0..INODES_PER_BLOCK {
                    let ino = Ino(first * u64::from(INODES_PER_BLOCK) + u64::from(slot));
                    if self.tree.root_in(block, slot) != Ok(None) {
                        used += 1;
                        self.judge_inode(ino, report);
                    }
                }
            }
            if let Some(naming) = &mut self.naming {
                naming.judged = judged;
                naming.used += used;
            }
            if found.is_none() {
                return Ok(None);
            }
            at = judged;
        }
        Ok(Some(at))
    }

    fn judge_inode(&self, ino: Ino, report: &mut CheckReport) {
        report.inodes += 1;
        let attributes = match self.attributes(ino) {
            Ok(attributes) => attributes,
            Err(error) => return report.add(format_args!("inode {}: {error}", ino.0)),
        };
        let Some(naming) = &self.naming else { return };
        if naming.is_touched(ino) {
            report.changed += 1;
            return;
        }
        let is = naming.names.of(ino);
        if is != attributes.nlink || (is == 0 && !self.dax.files.is_orphan(FileKey(ino))) {
            report.add(format_args!(
                "inode {}: {is} names, but {} are recorded",
                ino.0, attributes.nlink
            ));
        }
    }

    /// The count of all inodes, at one moment.
    pub(super) fn judge_used(&self, report: &mut CheckReport) {
        let (used, said) = (self.naming.as_ref().map_or(0, |naming| naming.used), self.inodes.used);
        if used != said {
            report.add(format_args!("{used} inodes are in use, but {said} are recorded"));
        }
    }
}
