//! Verification of a running volume: every count, every name, every translation.

use super::Volume;
use crate::blocks::Content;
use crate::dax::Mmu;
use crate::error::{Error, Result};
use crate::format::inode::{INODE_WORDS, ROOT_INO};
use crate::format::superblock::GROUP;
use crate::pmem::Pmem;
use crate::types::*;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};

/// What `check` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// One line per finding (at most 100 are kept).
    pub issues: Vec<String>,
    /// All findings, those beyond the first 100 included.
    pub issues_total: u64,
    /// Blocks that were looked at.
    pub blocks: u64,
    /// Inodes that were looked at.
    pub inodes: u64,
}

impl CheckReport {
    /// Adds a finding.
    pub(crate) fn add(&mut self, issue: String) {
        self.issues_total += 1;
        if self.issues.len() < 100 {
            self.issues.push(issue);
        }
    }
}

/// Blocks whose references are counted in one walk: bounds the memory that it takes.
const SLICE: u64 = 1 << 18;

/// A walk over all trees that counts references to the blocks of one slice.
struct Walk {
    slice: Range<u64>,
    counts: Vec<u32>,
    /// A bit for each block: its references were counted.
    visited: Vec<u64>,
}

fn zeroed<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
    list.resize(len, T::default());
    Ok(list)
}

impl Walk {
    /// Counts a reference; true if the block's own have to be counted too.
    fn visit(&mut self, block: Block, content: Content) -> bool {
        if self.slice.contains(&block.0) {
            self.counts[(block.0 - self.slice.start) as usize] += 1;
        }
        if content == Content::Data {
            return false;
        }
        let (word, bit) = ((block.0 / 64) as usize, 1 << (block.0 % 64));
        let first = self.visited[word] & bit == 0;
        self.visited[word] |= bit;
        first
    }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Verifies the volume and the invariants of windows. It finishes background
    /// reclaiming first, and changes nothing else.
    pub fn check(&mut self) -> Result<CheckReport> {
        while self.blocks.reclaim_step()? {}
        let mut report = CheckReport::default();
        self.check_counts(&mut report)?;
        self.check_names(&mut report)?;
        self.check_invariants(&mut report)?;
        Ok(report)
    }

    fn check_counts(&mut self, report: &mut CheckReport) -> Result<()> {
        let geometry = self.blocks.geometry;
        let (mut free, mut shared, mut lent) = (0, 0, 0);
        let mut walk = Walk {
            slice: 0..0,
            counts: zeroed(SLICE.min(geometry.total) as usize)?,
            visited: zeroed(geometry.total.div_ceil(64) as usize)?,
        };
        let mut start = geometry.first / GROUP * GROUP;
        while start < geometry.total {
            walk.slice = start..(start + SLICE).min(geometry.total);
            walk.counts.fill(0);
            walk.visited.fill(0);
            self.walk(&mut walk, self.system_top(), Content::InodeNode(2), report)?;
            for block in walk.slice.start.max(geometry.first)..walk.slice.end {
                let counted = walk.counts[(block - walk.slice.start) as usize];
                let recorded = match self.blocks.is_lent(Block(block))? {
                    true => {
                        lent += 1;
                        0
                    }
                    false => self.blocks.recorded(Block(block))?.unwrap_or(0),
                };
                let count = recorded as u32;
                free += (count == 0) as u64;
                shared += (count > 1) as u64;
                report.blocks += (counted > 0) as u64;
                if count != counted && count != u32::MAX {
                    report.add(format!("block {block}: {counted} references, but {count} are recorded"));
                }
                if count == 0 && recorded != 0 {
                    report.add(format!("block {block}: free, but still shown by a window"));
                }
            }
            start += SLICE;
        }
        if free != self.blocks.free_or_lent() {
            report.add(format!("{free} blocks are free, but {} are recorded", self.blocks.free_or_lent()));
        }
        if lent != self.blocks.lending().lent {
            report.add(format!("{lent} blocks are lent, but {} are recorded", self.blocks.lending().lent));
        }
        if shared != self.blocks.shared() {
            report.add(format!("{shared} blocks are shared, but {} are recorded", self.blocks.shared()));
        }
        Ok(())
    }

    fn walk(&self, walk: &mut Walk, block: Block, content: Content, report: &mut CheckReport) -> Result<()> {
        if !walk.visit(block, content) {
            return Ok(());
        }
        let step = if content == Content::Inodes { INODE_WORDS } else { 1 };
        for index in (0..512).step_by(step as usize) {
            let word = self.blocks.word(block, index)?;
            if word == 0 {
                continue;
            }
            let found = if block == self.system {
                self.system_reference(index, word)
            } else {
                self.reference(block, content, index, word).map(|f| f.map(|(p, c)| (p.block, c)))
            };
            match found {
                Ok(Some((child, content))) => self.walk(walk, child, content, report)?,
                Ok(None) => {}
                // Say it once, in the walk that counts the block itself.
                Err(error) if walk.slice.contains(&block.0) => report.add(format!("{error} (word {index})")),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn check_names(&mut self, report: &mut CheckReport) -> Result<()> {
        let names = self.count_names()?;
        let mut used = 0;
        self.each_inode(&mut |volume, ino, block, _| {
            used += 1;
            report.inodes += 1;
            let attributes = match volume.attributes(ino) {
                Ok(attributes) => attributes,
                Err(error) => {
                    report.add(format!("inode {}: {error}", ino.0));
                    return Ok(());
                }
            };
            let is = names.of(ino);
            let orphan = volume.dax.is_orphan(ino);
            if is != attributes.nlink || (is == 0 && !orphan) {
                report.add(format!("inode {}: {is} names, but {} are recorded", ino.0, attributes.nlink));
            }
            if attributes.kind == Kind::Directory {
                volume.check_directory(ino, block, report)?;
            }
            Ok(())
        })?;
        if used != self.inodes.used {
            report.add(format!("{used} inodes are in use, but {} are recorded", self.inodes.used));
        }
        Ok(())
    }

    fn check_directory(&self, dir: Ino, block: Block, report: &mut CheckReport) -> Result<()> {
        let opened = self.dir(dir)?;
        if dir == ROOT_INO && self.parent_of(dir)? != dir {
            report.add(format!("block {}: the root directory has a parent", block.0));
        }
        let result = self.read_dir(dir, 0, &mut |entry| {
            let name = String::from_utf8_lossy(entry.name);
            match self.attributes(entry.ino) {
                Err(error) => {
                    report.add(format!("directory {}: '{name}' names inode {}: {error}", dir.0, entry.ino.0))
                }
                Ok(found) if found.kind != entry.kind => {
                    report.add(format!("directory {}: '{name}' is said to be a {:?}", dir.0, entry.kind));
                }
                Ok(found) if found.kind == Kind::Directory && self.parent_of(entry.ino).ok() != Some(dir) => {
                    report.add(format!("directory {}: '{name}' has another parent", dir.0));
                }
                Ok(_) => {}
            }
            match self.find(opened, entry.name) {
                Ok(Some(found)) if found.ino == entry.ino => {}
                _ => report.add(format!("directory {}: '{name}' is listed but not found", dir.0)),
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = result {
            report.add(format!("directory {}: {error}", dir.0));
        }
        Ok(())
    }
}
