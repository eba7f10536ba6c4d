//! What is known of files beside what is on media.
//!
//! Whoever remembers where a leaf of a file is, and that the way there is exclusive, remembers the
//! *sharing epoch* of the file too. The epoch changes when that may no longer be so:
//!
//! | event | whose epoch changes |
//! |---|---|
//! | the content of a file is shared: a clone, a range | that file's |
//! | nodes of a file move, or go | that file's |
//! | an inode goes | that file's |
//! | blocks of inodes, or nodes above them, move | every file's |
//!
//! So a clone of one file voids nothing that is known of others. A way that was found to be shared
//! can become exclusive by a change of another file: [`Blocks::exclusive_again`] counts these.
//!
//! [`Blocks::exclusive_again`]: crate::blocks::Blocks::exclusive_again

use crate::types::{FileKey, Ino};

/// Places for files. What two files have at one place is void more often, and never wrong.
const PLACES: usize = 64;

/// What is known of files, each at the place that its key gives.
#[derive(Debug)]
pub(crate) struct Files {
    /// Epoch of the volume: how often all files' epochs have changed.
    volume: u64,
    epochs: [u64; PLACES],
    /// Files that are known to have nothing beyond their end.
    clean_tails: [Option<FileKey>; PLACES],
}

#[inline(always)]
fn place(file: FileKey) -> usize {
    let FileKey(Ino(ino)) = file;
    (ino % PLACES as u64) as usize
}

impl Files {
    /// Nothing is known.
    pub fn new() -> Self {
        Files { volume: 0, epochs: [0; PLACES], clean_tails: [None; PLACES] }
    }

    /// The sharing epoch of a file. It only grows.
    #[inline(always)]
    pub fn epoch(&self, file: FileKey) -> u64 {
        self.epochs[place(file)]
    }

    /// The epoch of the volume: while it is the same, no inode has moved.
    pub fn volume_epoch(&self) -> u64 {
        self.volume
    }

    /// Nodes of a file are shared from now on, or have moved, or are gone.
    pub fn changed(&mut self, file: FileKey) {
        self.epochs[place(file)] += 1;
    }

    /// Inodes have moved.
    pub fn all_changed(&mut self) {
        self.volume += 1;
        self.epochs.iter_mut().for_each(|epoch| *epoch += 1);
    }

    /// Whether a file is known to have nothing beyond its end.
    pub fn has_clean_tail(&self, file: FileKey) -> bool {
        self.clean_tails[place(file)] == Some(file)
    }

    /// Notes that a file has nothing beyond its end.
    pub fn set_clean_tail(&mut self, file: FileKey) {
        self.clean_tails[place(file)] = Some(file);
    }

    /// Forgets that a file has nothing beyond its end.
    pub fn forget_clean_tail(&mut self, file: FileKey) {
        let known = &mut self.clean_tails[place(file)];
        if *known == Some(file) {
            *known = None;
        }
    }
}
