//! An inode: 16 words, 32 inodes to a block.
//!
//! | word | content |
//! |---|---|
//! | 0 | root of the tree, checked ([`super::word::Root`]); 0: the inode is free |
//! | 1 | size in bytes, checked |
//! | 2 | kind (bits 16 to 18) and permissions (bits 0 to 11), checked |
//! | 3 | number of names, checked |
//! | 4 | family of clones: the number of the inode that founded it, checked |
//! | 5 | seed of the name hash (directories), checked |
//! | 6 | the directory that holds this directory, checked |
//! | 7 | owner (low half) and group (high half) |
//! | 8 to 11 | mtime, ctime, atime, btime: nanoseconds since 1970, signed |
//! | 12 | generation: grows each time the inode is used anew |
//! | 13 to 15 | zero |

pub(crate) use super::word::ROOT;
use super::word::{BadWord, Root, Salt, open, seal};
use crate::types::{Ino, Kind, Time};

/// Words of an inode.
pub(crate) const INODE_WORDS: u16 = 16;
/// Inodes in a block.
pub(crate) const INODES_PER_BLOCK: u16 = 32;

pub(crate) const SIZE: u16 = 1;
pub(crate) const MODE: u16 = 2;
pub(crate) const NLINK: u16 = 3;
pub(crate) const FAMILY: u16 = 4;
pub(crate) const SEED: u16 = 5;
pub(crate) const PARENT: u16 = 6;
pub(crate) const OWNER: u16 = 7;
pub(crate) const MTIME: u16 = 8;
pub(crate) const CTIME: u16 = 9;
pub(crate) const ATIME: u16 = 10;
pub(crate) const BTIME: u16 = 11;
pub(crate) const GENERATION: u16 = 12;

/// Inodes of the system inode file.
pub(crate) mod system {
    /// The live volume: an inode file.
    pub const LIVE: u16 = 0;
    /// The bad-block list.
    pub const BAD_BLOCKS: u16 = 1;
}

/// The root directory of a volume. Inode 0 is never used.
pub(crate) const ROOT_INO: Ino = Ino(1);
/// Inode numbers end here: 2^27 blocks of 32 inodes.
pub(crate) const MAX_INO: u64 = 1 << 32;

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

/// Seals a checked number (size, nlink, family, seed, parent) at `word` of `slot`.
#[inline]
pub(crate) fn seal_number(value: u64, word: u16, slot: u16) -> u64 {
    seal(value, Salt::inode(word, slot))
}

/// Reads a checked number.
#[inline]
pub(crate) fn open_number(raw: u64, word: u16, slot: u16) -> Result<u64, BadWord> {
    open(raw, Salt::inode(word, slot)).ok_or(BadWord)
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
    /// Owner and group.
    pub owner: u64,
    pub now: Time,
    pub generation: u64,
    pub root: Root,
}

impl NewInode {
    /// The words of the inode in `slot` of its block, by their index in the block; the
    /// root comes last.
    pub fn words(&self, slot: u16) -> [(u16, u64); INODE_WORDS as usize] {
        let number = |value, word| seal_number(value, word, slot);
        let now = self.now.0 as u64;
        let values = [
            (SIZE, number(self.size, SIZE)),
            (MODE, number(mode_bits(self.kind, self.mode), MODE)),
            (NLINK, number(self.nlink as u64, NLINK)),
            (FAMILY, number(self.family.0, FAMILY)),
            (SEED, number(self.seed & 0xffff_ffff_ffff, SEED)),
            (PARENT, number(self.parent.0, PARENT)),
            (OWNER, self.owner),
            (MTIME, now),
            (CTIME, now),
            (ATIME, now),
            (BTIME, now),
            (GENERATION, self.generation),
            (13, 0),
            (14, 0),
            (15, 0),
            (ROOT, self.root.encode(slot)),
        ];
        values.map(|(word, value)| (word_index(slot, word), value))
    }
}
