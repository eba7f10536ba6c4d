//! How often inodes are named, counted while directories are walked.

use crate::error::{Error, Result};
use crate::memory::Map;
use crate::types::Ino;
use alloc::vec::Vec;

/// How often each inode is named: a bit, and a number where there are more names.
#[derive(Debug)]
pub(crate) struct Names {
    named: Vec<u64>,
    more: Map<Ino, u32>,
    /// Inodes with a name; those that cannot exist included.
    pub distinct: u64,
    /// A bit for each directory whose entries were counted.
    walked: Vec<u64>,
}

/// Directories that wait to be walked, at most; others are found by another pass.
pub(crate) const WAITING: usize = 4096;

/// Bytes that a bit for each of `room` inodes takes.
pub(crate) fn bytes_of_bits(room: u64) -> usize {
    room.div_ceil(64) as usize * size_of::<u64>()
}

/// A bit for each of `room` inodes, none of them set.
pub(crate) fn bits(room: u64) -> Result<Vec<u64>> {
    let mut bits = Vec::new();
    grow_bits(&mut bits, room)?;
    Ok(bits)
}

/// Makes bits be there for `room` inodes, if there are fewer.
#[allow(clippy::disallowed_methods, reason = "room for the bits is reserved before")]
pub(crate) fn grow_bits(bits: &mut Vec<u64>, room: u64) -> Result<()> {
    let more = (room.div_ceil(64) as usize).saturating_sub(bits.len());
    bits.try_reserve_exact(more).map_err(|_| Error::NoMemory)?;
    bits.resize(bits.len() + more, 0);
    Ok(())
}

pub(crate) fn is_set(bits: &[u64], ino: Ino) -> bool {
    bits.get((ino.0 / 64) as usize).is_some_and(|word| word >> (ino.0 % 64) & 1 != 0)
}

impl Names {
    pub fn new(room: u64) -> Result<Self> {
        Ok(Names { named: bits(room)?, more: Map::new(), distinct: 0, walked: bits(room)? })
    }

    /// Bytes that [`Names::new`] takes.
    pub fn memory(room: u64) -> usize {
        2 * bytes_of_bits(room)
    }

    /// Makes room for more inodes.
    pub fn grow(&mut self, room: u64) -> Result<()> {
        grow_bits(&mut self.named, room)?;
        grow_bits(&mut self.walked, room)
    }

    /// Counts a name of an inode.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`]; then the name is not counted.
    pub fn add(&mut self, ino: Ino) -> Result<()> {
        if !self.note(ino) {
            *self.more.get_or_insert(ino, 1)? += 1;
        }
        Ok(())
    }

    /// Notes that an inode has a name; false if one was known already.
    pub fn note(&mut self, ino: Ino) -> bool {
        let bit = 1 << (ino.0 % 64);
        match self.named.get_mut((ino.0 / 64) as usize) {
            Some(word) if *word & bit != 0 => return false,
            Some(word) => *word |= bit,
            None => {}
        }
        self.distinct += 1;
        true
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
        self.more.get(ino).copied().unwrap_or(is_set(&self.named, ino) as u32)
    }
}
