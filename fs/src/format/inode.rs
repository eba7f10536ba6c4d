//! An inode: 32 words, 16 inodes to a block. Every word is sealed.
//!
//! | word | content |
//! |---|---|
//! | 0 | root of the tree ([`super::word::Root`]); 0: the inode is free |
//! | 1 | size in bytes |
//! | 2 | kind (bits 16 and up) and permissions (bits 0 to 11) |
//! | 3 | number of names |
//! | 4 | family of clones: the number of the inode that founded it |
//! | 5 | seed of the name hash (directories) |
//! | 6 | the directory that holds this directory |
//! | 7 | flags: none are defined |
//! | 8, 9 | owner, group |
//! | 10, 11 | generation: the number of the mount that made the inode, and a number in that mount |
//! | 12 | number of the device, of special files |
//! | 13 | CRC-32C of the target (symbolic links) |
//! | 14, 15 | btime: seconds since 1970 (48 bits, signed), nanoseconds |
//! | 16, 17; 18, 19; 20, 21 | mtime, ctime, atime |
//! | 22 | grows with each change of content, attributes or names |
//! | 23 | extended attributes |
//! | 24 to 31 | 0 |
//!
//! What changes with each write is in one line of 64 bytes: words 16 to 23.

pub(crate) use super::word::ROOT;
use super::word::{BadWord, Root};
use crate::types::{Ino, Kind, Time};

/// Words of an inode.
pub(crate) const INODE_WORDS: u16 = 32;
/// Inodes in a block.
pub(crate) const INODES_PER_BLOCK: u16 = 16;

pub(crate) const SIZE: u16 = 1;
pub(crate) const MODE: u16 = 2;
pub(crate) const NLINK: u16 = 3;
pub(crate) const FAMILY: u16 = 4;
pub(crate) const SEED: u16 = 5;
pub(crate) const PARENT: u16 = 6;
const FLAGS: u16 = 7;
pub(crate) const UID: u16 = 8;
pub(crate) const GID: u16 = 9;
pub(crate) const MOUNT: u16 = 10;
pub(crate) const USE: u16 = 11;
const DEVICE: u16 = 12;
pub(crate) const SUM: u16 = 13;
pub(crate) const BTIME: u16 = 14;
pub(crate) const MTIME: u16 = 16;
pub(crate) const CTIME: u16 = 18;
pub(crate) const ATIME: u16 = 20;
pub(crate) const CHANGES: u16 = 22;
const ATTRIBUTES: u16 = 23;
/// Words of an inode that have a meaning; the others are as they are in a free one.
const MEANING: usize = 24;

/// Inodes of the system inode file.
pub(crate) mod system {
    /// The live volume: an inode file.
    pub const LIVE: u16 = 0;
    /// The bad-block list.
    pub const BAD_BLOCKS: u16 = 1;
}

/// The root directory of a volume. Inode 0 is never used.
pub(crate) const ROOT_INO: Ino = Ino(1);
/// Inode numbers end here: 2^27 blocks of 16 inodes.
pub(crate) const MAX_INO: u64 = 1 << 31;

/// Slot of an inode in its block.
#[inline]
pub(crate) fn slot_of(ino: Ino) -> u16 {
    (ino.0 % INODES_PER_BLOCK as u64) as u16
}

/// Index in the block of word `word` of the inode in `slot`.
#[inline]
pub(crate) fn word_index(slot: u16, word: u16) -> u16 {
    slot * INODE_WORDS + word
}

/// Which use of an inode's number it is: the mount that made it, and a number in that mount. No two
/// inodes of a volume ever have the same number and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    pub mount: u64,
    pub number: u64,
}

/// Bits of a word that hold a number.
pub(crate) const NUMBER: u64 = (1 << 48) - 1;
const NANOSECONDS: i64 = 1_000_000_000;

/// The words of a time: seconds, nanoseconds.
#[inline]
pub(crate) fn time_values(time: Time) -> [u64; 2] {
    let seconds = time.0.div_euclid(NANOSECONDS);
    let rest = time.0.wrapping_sub(seconds.wrapping_mul(NANOSECONDS));
    [seconds as u64 & NUMBER, rest as u64]
}

/// The time that two words say; one that [`Time`] cannot hold is its nearest.
pub(crate) fn time_from([seconds, nanoseconds]: [u64; 2]) -> Result<Time, BadWord> {
    if nanoseconds >= NANOSECONDS as u64 {
        return Err(BadWord);
    }
    // 48 bits, signed.
    let seconds = i128::from((seconds << 16) as i64 >> 16);
    let time = seconds * i128::from(NANOSECONDS) + i128::from(nanoseconds);
    Ok(Time(time.clamp(i64::MIN.into(), i64::MAX.into()) as i64))
}

/// The mode word's value.
pub(crate) fn mode_bits(kind: Kind, mode: u16) -> u64 {
    let kind = match kind {
        Kind::File => 1u64,
        Kind::Directory => 2,
        Kind::Symlink => 3,
    };
    kind << 16 | (mode & 0o7777) as u64
}

/// Kind and permissions of a mode word's value.
pub(crate) fn from_mode_bits(value: u64) -> Result<(Kind, u16), BadWord> {
    Ok((kind_from(value >> 16).ok_or(BadWord)?, (value & 0o7777) as u16))
}

/// The kind that a number on media stands for.
pub(crate) fn kind_from(number: u64) -> Option<Kind> {
    match number {
        1 => Some(Kind::File),
        2 => Some(Kind::Directory),
        3 => Some(Kind::Symlink),
        _ => None,
    }
}

/// An inode that is made.
pub(crate) struct NewInode {
    pub kind: Kind,
    pub mode: u16,
    pub size: u64,
    pub nlink: u32,
    pub family: Ino,
    /// Seed of the name hash, for directories; the low 48 bits are kept.
    pub seed: u64,
    /// The directory that holds it, for directories.
    pub parent: Ino,
    pub uid: u32,
    pub gid: u32,
    /// CRC-32C of the target, for symbolic links.
    pub sum: u32,
    pub now: Time,
    pub root: Root,
}

impl NewInode {
    /// The values of all words of the inode that have a meaning, by their index in the block, where
    /// the inode is in `slot`.
    pub fn words(&self, slot: u16, generation: Generation) -> [(u16, u64); MEANING] {
        let mut words = self.values(generation).map(|value| (0, value));
        (word_index(slot, 0)..).zip(&mut words).for_each(|(index, word)| word.0 = index);
        words
    }

    /// The values of all words of the inode that have a meaning, in their order.
    pub fn values(&self, generation: Generation) -> [u64; MEANING] {
        let [seconds, nanoseconds] = time_values(self.now);
        let mut values = [0; MEANING];
        for (word, value) in [
            (ROOT, self.root.value()),
            (SIZE, self.size),
            (MODE, mode_bits(self.kind, self.mode)),
            (NLINK, self.nlink.into()),
            (FAMILY, self.family.0),
            (SEED, self.seed & NUMBER),
            (PARENT, self.parent.0),
            (FLAGS, 0),
            (UID, self.uid.into()),
            (GID, self.gid.into()),
            (MOUNT, generation.mount & NUMBER),
            (USE, generation.number & NUMBER),
            (DEVICE, 0),
            (SUM, self.sum.into()),
            (BTIME, seconds),
            (BTIME + 1, nanoseconds),
            (MTIME, seconds),
            (MTIME + 1, nanoseconds),
            (CTIME, seconds),
            (CTIME + 1, nanoseconds),
            (ATIME, seconds),
            (ATIME + 1, nanoseconds),
            (CHANGES, 1),
            (ATTRIBUTES, 0),
        ] {
            values[usize::from(word)] = value;
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_encoding() {
        for time in [0, 1, -1, 1_999_999_999, -1_000_000_001, i64::MAX, i64::MIN] {
            assert_eq!(time_from(time_values(Time(time))), Ok(Time(time)));
        }
        assert_eq!(time_from([0, 1_000_000_000]), Err(BadWord));
        assert_eq!(time_from([1 << 47, 0]), Ok(Time(i64::MIN)));
    }

    #[test]
    fn what_changes_with_each_write_is_in_one_line() {
        let line = |word: u16| word / 8;
        for word in [MTIME, MTIME + 1, CTIME, CTIME + 1, ATIME, ATIME + 1, CHANGES] {
            assert_eq!(line(word), line(MTIME));
        }
        assert!((INODE_WORDS * 8).is_multiple_of(64) && INODE_WORDS * INODES_PER_BLOCK == 512);
    }
}
