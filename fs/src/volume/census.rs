//! How often inodes are named, counted while directories are walked.

use crate::error::{Error, Result};
use crate::types::Ino;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// How often each inode is named: a bit, and a number where there are more names.
pub(crate) struct Names {
    named: Vec<u64>,
    more: BTreeMap<Ino, u32>,
    /// Inodes with a name; those that cannot exist included.
    pub distinct: u64,
    /// A bit for each directory whose entries were counted.
    walked: Vec<u64>,
}

/// Directories that wait to be walked, at most; others are found by another pass.
pub(crate) const WAITING: usize = 4096;

pub(crate) fn bits(room: u64) -> Result<Vec<u64>> {
    let mut bits = Vec::new();
    bits.try_reserve_exact(room.div_ceil(64) as usize).map_err(|_| Error::NoMemory)?;
    bits.resize(room.div_ceil(64) as usize, 0);
    Ok(bits)
}

pub(crate) fn is_set(bits: &[u64], ino: Ino) -> bool {
    bits.get((ino.0 / 64) as usize).is_some_and(|word| word >> (ino.0 % 64) & 1 != 0)
}

impl Names {
    pub fn new(room: u64) -> Result<Self> {
        Ok(Names { named: bits(room)?, more: BTreeMap::new(), distinct: 0, walked: bits(room)? })
    }

    /// Counts a name of an inode.
    pub fn add(&mut self, ino: Ino) {
        let Some(word) = self.named.get_mut((ino.0 / 64) as usize) else {
            self.distinct += 1;
            return;
        };
        let bit = 1 << (ino.0 % 64);
        if *word & bit != 0 {
            *self.more.entry(ino).or_insert(1) += 1;
        } else {
            self.distinct += 1;
        }
        *word |= bit;
    }

    /// Notes that a directory is being walked; false if it was before.
    pub fn walk(&mut self, dir: Ino) -> bool {
        let before = is_set(&self.walked, dir);
        if let Some(word) = self.walked.get_mut((dir.0 / 64) as usize) {
            *word |= 1 << (dir.0 % 64);
        }
        !before
    }

    /// Whether the entries of a directory were counted, or are being counted.
    pub fn was_walked(&self, dir: Ino) -> bool {
        is_set(&self.walked, dir)
    }

    /// Names of an inode.
    pub fn of(&self, ino: Ino) -> u32 {
        self.more.get(&ino).copied().unwrap_or(is_set(&self.named, ino) as u32)
    }
}
