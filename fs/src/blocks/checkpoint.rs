//! The checkpoint: what a clean unmount writes so that the next mount need not count.
//!
//! | block | content |
//! |---|---|
//! | first | header: magic, mount number, four counts, checksum of all that follows and of the header |
//! | next | a bit for each group of 512 blocks: its records in the scratch area are valid |
//! | next | free blocks of each group, two bytes each |
//! | next | free pairs of each group of first blocks, two bytes each |
//!
//! It is valid only together with a superblock that is clean and has the same mount
//! number. The first thing a mount does is to make the superblock say "not clean".

use super::Blocks;
use crate::format::superblock::GROUP;
use crate::pmem::{Pmem, Poisoned};
use crate::types::BLOCK_SIZE;
use crc::{CRC_32_ISCSI, Crc, Table};

const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
/// "UMBRACKP".
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"UMBRACKP");

/// Counts that are not the blocks' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Live inodes.
    pub inodes_used: u64,
    /// Inodes that the inode file has room for.
    pub inodes_room: u64,
}

/// Words of the header, without its checksum.
type Header = [u64; 6];

impl<P: Pmem> Blocks<P> {
    fn checkpoint_at(&self) -> u64 {
        self.geometry.checkpoint * BLOCK_SIZE
    }

    fn free_counts_at(&self) -> u64 {
        let bits = self.geometry.groups().div_ceil(BLOCK_SIZE * 8);
        self.checkpoint_at() + (1 + bits) * BLOCK_SIZE
    }

    /// Makes the records durable, and writes the checkpoint of this mount. The caller fences
    /// before it says "clean". Nothing may be waiting to be reclaimed or be shown by a window.
    pub fn write_checkpoint(&mut self, mount: u64, counts: Counts) {
        for group in 0..self.geometry.groups() {
            if self.initialised[(group / 64) as usize] >> (group % 64) & 1 != 0 {
                let (at, len) = self.group_records(group);
                self.pmem.flush(at, len);
            }
        }
        let header: Header =
            [MAGIC, mount, self.free, self.shared, counts.inodes_used, counts.inodes_room];
        let mut digest = CRC32C.digest();
        let mut at = self.checkpoint_at();
        for word in header {
            digest.update(&word.to_le_bytes());
            self.pmem.store(at, word);
            at += 8;
        }
        let sum_at = at;
        at = self.checkpoint_at() + BLOCK_SIZE;
        for &word in &self.initialised {
            digest.update(&word.to_le_bytes());
            self.pmem.store(at, word);
            at += 8;
        }
        at = self.free_counts_at();
        for counts in self.free_in.chunks(4).chain(self.pairs_in.chunks(4)) {
            let word = counts.iter().rev().fold(0, |word, &count| word << 16 | count as u64);
            digest.update(&word.to_le_bytes());
            self.pmem.store(at, word);
            at += 8;
        }
        self.pmem.store(sum_at, digest.finalize() as u64);
        let start = self.checkpoint_at();
        self.pmem.flush(start, at - start);
    }

    /// Takes over the checkpoint of a mount. `None`: it is not valid, count anew.
    pub fn read_checkpoint(&mut self, mount: u64) -> Result<Option<Counts>, Poisoned> {
        let mut digest = CRC32C.digest();
        let mut header: Header = [0; 6];
        let mut at = self.checkpoint_at();
        for word in &mut header {
            *word = self.pmem.load(at)?;
            digest.update(&word.to_le_bytes());
            at += 8;
        }
        let sum = self.pmem.load(at)?;
        let mut initialised = self.initialised.clone();
        at = self.checkpoint_at() + BLOCK_SIZE;
        for word in &mut initialised {
            *word = self.pmem.load(at)?;
            digest.update(&word.to_le_bytes());
            at += 8;
        }
        let (mut free_in, mut pairs_in) = (self.free_in.clone(), self.pairs_in.clone());
        at = self.free_counts_at();
        for counts in free_in.chunks_mut(4).chain(pairs_in.chunks_mut(4)) {
            let mut word = self.pmem.load(at)?;
            digest.update(&word.to_le_bytes());
            for count in counts {
                *count = word as u16;
                word >>= 16;
            }
            at += 8;
        }
        let [magic, number, free, shared, inodes_used, inodes_room] = header;
        let sound = magic == MAGIC
            && number == mount
            && sum == digest.finalize() as u64
            && free == free_in.iter().map(|&f| f as u64).sum::<u64>()
            && free_in.iter().chain(&pairs_in).all(|&f| f as u64 <= GROUP);
        if !sound {
            return Ok(None);
        }
        self.initialised = initialised;
        self.free_in = free_in;
        self.free = free;
        self.pairs = pairs_in.iter().map(|&pairs| u64::from(pairs)).sum();
        self.pairs_in = pairs_in;
        self.shared = shared;
        Ok(Some(Counts { inodes_used, inodes_room }))
    }
}
