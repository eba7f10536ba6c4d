//! What a check knows of names while it counts them, and is told of what others change.

use crate::error::Result;
use crate::format::inode::{INODES_PER_BLOCK, ROOT_INO};
use crate::memory::{push_within, with_room};
use crate::types::{Ino, Kind};
use crate::volume::census::{Names, WAITING, bits, bytes_of_bits, grow_bits, is_set};
use alloc::vec::Vec;

/// Names being counted while others work.
#[derive(Debug)]
pub(crate) struct Naming {
    pub names: Names,
    /// A bit for each inode: its names changed meanwhile. Those beyond are new.
    touched: Vec<u64>,
    /// Directories to walk.
    pub waiting: Vec<Ino>,
    /// A directory that is being walked: where to go on.
    pub current: Option<(Ino, u64)>,
    /// A directory may have a name and wait nowhere.
    pub missed: bool,
    /// How often such directories were looked for.
    pub rounds: u32,
    /// Inodes of blocks before this one were judged.
    pub judged: u64,
    /// How many of them are in use now.
    pub used: u64,
}

/// Where directories are moved all the time, no names are judged.
pub(super) const MOST_ROUNDS: u32 = 64;

/// Whether directories were missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// Some, which wait now.
    Some,
    /// None so far; go on with this block of inodes.
    More(u64),
    /// None.
    None,
}

impl Naming {
    /// Bytes that [`Naming::new`] takes.
    pub fn memory(room: u64) -> usize {
        Names::memory(room) + bytes_of_bits(room) + WAITING * size_of::<Ino>()
    }

    /// For a volume whose inode file has room for this many inodes.
    pub fn new(room: u64) -> Result<Self> {
        let mut names = Names::new(room)?;
        names.note(ROOT_INO);
        let mut waiting = with_room(WAITING)?;
        push_within(&mut waiting, ROOT_INO);
        let touched = bits(room)?;
        Ok(Naming {
            names,
            touched,
            waiting,
            current: None,
            missed: false,
            rounds: 0,
            judged: 0,
            used: 0,
        })
    }

    /// Makes room for more inodes.
    pub fn grow(&mut self, room: u64) -> Result<()> {
        self.names.grow(room)?;
        grow_bits(&mut self.touched, room)
    }

    /// Whether the names of an inode are not judged, because they changed meanwhile.
    pub fn is_touched(&self, ino: Ino) -> bool {
        let outrun = self.missed && self.rounds == MOST_ROUNDS;
        outrun || (ino.0 / 64) as usize >= self.touched.len() || is_set(&self.touched, ino)
    }

    /// Has a directory be walked later.
    pub fn wait_for(&mut self, dir: Ino) {
        if self.waiting.len() < WAITING {
            push_within(&mut self.waiting, dir);
        } else {
            self.missed = true;
        }
    }

    /// A name of an inode comes or goes.
    pub fn touch(&mut self, ino: Ino) {
        if let Some(word) = self.touched.get_mut((ino.0 / 64) as usize) {
            *word |= 1 << (ino.0 % 64);
        }
    }

    /// An inode is made, or goes.
    pub fn count_inode(&mut self, ino: Ino, made: bool) {
        self.touch(ino);
        if made {
            // Whatever gets a name in a new directory is touched: it need not be walked.
            self.names.walk(ino);
        }
        if ino.0 / u64::from(INODES_PER_BLOCK) < self.judged {
            self.used = if made { self.used + 1 } else { self.used.saturating_sub(1) };
        }
    }

    /// An inode has another name.
    pub fn named(&mut self, ino: Ino, kind: Kind) {
        self.touch(ino);
        if kind == Kind::Directory {
            // How many names it has is not judged, because it is touched.
            self.names.note(ino);
            self.missed |= !self.names.was_walked(ino);
        }
    }
}
