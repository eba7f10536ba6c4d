//! What has to be known before a directory is moved or replaced, found out in steps: that it does
//! not get below itself, and that what it replaces is empty.
//!
//! ```text
//!   rename /m to /a/b/c/x:   c, b, a, /    the way up from the target: m must not be on it
//!                            ------->      a bounded part of it a step
//! ```
//!
//! The directories on the way may be moved between two steps, and below the one that is to be
//! moved. So a climb holds only as long as no directory has got another parent, and begins anew if
//! one has.

use super::Volume;
use crate::error::{Error, Result};
use crate::format::inode::Generation;
use crate::pmem::Pmem;
use crate::types::*;
use crate::windows::mmu::Mmu;

/// Deepest directory that a directory is moved to.
const MAX_DEPTH: u32 = 1 << 16;
/// How often a climb begins anew because directories were moved meanwhile.
const MOST_CLIMBS: u32 = 64;

/// The way up from the directory that another one is to be moved to. The other one must not be on
/// it, because the two would be a loop then.
#[derive(Clone, Copy, Debug, Default)]
pub struct Climb {
    way: Option<Way>,
    /// How often it began.
    begun: u32,
}

/// What a climb is about, and how far it is. A directory that has one in it cannot be removed, so
/// the way stays as it is until a directory is moved, or the target goes.
#[derive(Clone, Copy, Debug)]
struct Way {
    moved: Ino,
    target: Ino,
    /// Tells whether the number of the target was given to another directory since.
    generation: Generation,
    /// [`Volume::moves`] when it began.
    moves: u64,
    /// The next one to look at. None from the target up to here is the directory that is moved.
    at: Ino,
    climbed: u32,
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Takes a step of finding out that a directory would not be moved below itself; true once that
    /// is known.
    pub(super) fn climb(&self, moved: Ino, target: Ino, climb: &mut Climb) -> Result<bool> {
        let generation = self.generation(target)?;
        let same = |way: &Way| {
            (way.moved, way.target, way.generation, way.moves)
                == (moved, target, generation, self.moves)
        };
        let mut way = match climb.way.filter(same) {
            Some(way) => way,
            None if climb.begun == MOST_CLIMBS => {
                return Err(Error::Busy("directories are moved all the time; try again"));
            }
            None => {
                climb.begun += 1;
                Way { moved, target, generation, moves: self.moves, at: target, climbed: 0 }
            }
        };
        for _ in 0..self.work_a_step {
            if way.at == moved {
                return Err(Error::Invalid("a directory cannot be moved into itself"));
            }
            if way.at == self.root() {
                climb.way = Some(way);
                return Ok(true);
            }
            if way.climbed == MAX_DEPTH {
                return Err(Error::Invalid("the directories are nested too deeply"));
            }
            (way.at, way.climbed) = (self.parent_of(way.at)?, way.climbed + 1);
        }
        climb.way = Some(way);
        Ok(false)
    }

    /// Takes a step of what [`Volume::rename_examined`] has to know of directories: whether one
    /// that is replaced is empty, and that one that is moved does not get below itself. True once
    /// that takes no more steps.
    ///
    /// # Errors
    ///
    /// What the rename itself would say; [`Error::Busy`] if directories were moved between too many
    /// steps.
    pub fn examine_rename(
        &mut self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        climb: &mut Climb,
    ) -> Result<bool> {
        let Some(moved) = self.find(self.dir(from.0)?, from.1)? else { return Ok(true) };
        if moved.kind != Kind::Directory {
            return Ok(true);
        }
        if let Some(old) = self.find(self.dir(to.0)?, to.1)?
            && old.kind == Kind::Directory
            && !self.examine(old.ino)?
        {
            return Ok(false);
        }
        // Whoever stays in its directory gets below nothing new.
        Ok(from.0 == to.0 || self.climb(moved.ino, to.0, climb)?)
    }
}
