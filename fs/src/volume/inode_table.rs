//! Which inode numbers are in use.

use crate::blocks::checkpoint::Counts;
use crate::format::inode::ROOT_INO;

/// Which inode numbers are in use, as far as it is remembered.
#[derive(Debug)]
pub(crate) struct InodeTable {
    /// Live inodes.
    pub used: u64,
    /// Inodes that the inode file has room for.
    pub room: u64,
    /// Where the search for a free one goes on.
    pub cursor: u64,
    /// Inodes that this mount has made.
    pub made: u64,
}

impl Default for InodeTable {
    fn default() -> Self {
        InodeTable { used: 0, room: 0, cursor: ROOT_INO.0, made: 0 }
    }
}

impl InodeTable {
    /// What a checkpoint keeps of it.
    pub fn counts(&self) -> Counts {
        Counts { inodes_used: self.used, inodes_room: self.room }
    }

    /// Takes over what a checkpoint kept.
    pub fn restore(&mut self, used: u64, room: u64) {
        *self = InodeTable { used, room, ..InodeTable::default() };
    }
}
