//! Operations that take as many steps as their size asks for.
//!
//! Whoever serves several clients begins an operation, takes its steps one by one, and lets others
//! have their turn between them:
//!
//! ```text
//!   begin_sync, begin_clone, ...  -->  Outcome                 small: the first step was the last
//!        '---------------------------> Operation  -- step, step, ... -->  Outcome
//!                                          '-------- abandon
//! ```
//!
//! A step does a bounded amount of work. Nothing is decided before the last step, which looks at
//! everything anew: files may have changed, or be gone. A small operation is over with its first
//! step, which then does what it would do in one piece. An operation that is not finished has to be
//! abandoned, or what it holds (files without a name, parked stores) stays until the volume is
//! unmounted; after a crash nothing of it is left.

use super::Volume;
use super::settle::Settle;
use super::work::{Begun, Cloning, Held, Operation, Outcome, RangeClone, Work};
use crate::error::{Error, Result};
use crate::format::inode::{self, Generation};
use crate::pmem::Pmem;
use crate::types::*;
use crate::windows::mmu::Mmu;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Takes the first step.
    #[inline]
    pub(crate) fn begin(&mut self, mut work: Work) -> Result<Begun> {
        match self.work_on(&mut work)? {
            Some(outcome) => Ok(Begun::Over(outcome)),
            None => Ok(Begun::GoesOn(Operation(work))),
        }
    }

    /// Has something go on whose first step was taken.
    pub(super) fn go_on(&mut self, mut work: Work) -> Result<Begun> {
        match self.remember(&mut work) {
            Ok(()) => Ok(Begun::GoesOn(Operation(work))),
            Err(error) => {
                self.give_back(&mut work);
                Err(error)
            }
        }
    }

    /// Takes one bounded step. `None`: there is more to do. After anything else, an error too, the
    /// operation is over.
    ///
    /// # Errors
    ///
    /// What the function says that began the operation. It is over then.
    pub fn step(&mut self, operation: &mut Operation) -> Result<Option<Outcome>> {
        self.work_on(&mut operation.0)
    }

    fn work_on(&mut self, work: &mut Work) -> Result<Option<Outcome>> {
        let result = match &mut *work {
            Work::Sync(work) => self.sync_step(work),
            Work::Close(window) => self.close_step(*window),
            Work::Count(work) => self.count_step(work),
            Work::Clone(work) => self.clone_step(work),
            Work::Freeze(work) => self.freeze_step(work),
            Work::Range(work) => self.range_step(work),
            Work::Truncate(work) => self.truncate_step(work),
        };
        let result = match result {
            Ok(None) => self.remember(work).map(|()| None),
            over => over,
        };
        if !matches!(result, Ok(None)) {
            self.give_back(work);
        }
        result
    }

    /// Gives up an operation: nothing has changed by it.
    pub fn abandon(&mut self, mut operation: Operation) {
        self.give_back(&mut operation.0);
    }

    /// Takes all steps that are left.
    ///
    /// # Errors
    ///
    /// As [`Volume::step`].
    #[inline]
    pub fn finish(&mut self, begun: Begun) -> Result<Outcome> {
        match begun {
            Begun::Over(outcome) => Ok(outcome),
            Begun::GoesOn(operation) => self.finish_steps(operation),
        }
    }

    fn finish_steps(&mut self, mut operation: Operation) -> Result<Outcome> {
        loop {
            if let Some(outcome) = self.step(&mut operation)? {
                return Ok(outcome);
            }
        }
    }

    /// Gives back what an operation holds; it may be over.
    fn give_back(&mut self, work: &mut Work) {
        match work {
            Work::Sync(_) | Work::Close(_) | Work::Count(_) => {}
            Work::Clone(work) => self.unpark(&mut work.settle),
            Work::Freeze(work) => self.unpark(&mut work.settle),
            Work::Range(work) => self.give_back_range(work),
            Work::Truncate(work) => self.unpark(&mut work.settle),
        }
    }

    /// Ends the parking of a file's faults, if this settling has parked them.
    pub(super) fn unpark(&mut self, settle: &mut Settle) {
        if core::mem::take(&mut settle.parked) {
            self.dax.files.unpark(FileKey(settle.ino));
        }
    }

    /// Whether loads and stores through windows of a file that need a page fault have to wait,
    /// since an operation that they keep from its end is under way.
    #[inline]
    pub fn is_parked(&self, ino: Ino) -> bool {
        self.dax.files.is_parked(FileKey(ino))
    }

    /// Another step follows: until then, the files may be replaced by others of the same numbers.
    fn remember(&self, work: &mut Work) -> Result<()> {
        let files: [Option<&mut Held>; 2] = match work {
            Work::Sync(_) | Work::Close(_) => [None, None],
            Work::Count(work) => [Some(&mut work.file), None],
            Work::Clone(work) => {
                let Cloning { src, dir, .. } = &mut **work;
                [Some(src), Some(dir)]
            }
            Work::Freeze(work) => [Some(&mut work.src), None],
            Work::Range(work) => {
                let RangeClone { src, dst, .. } = &mut **work;
                [Some(src), Some(dst)]
            }
            Work::Truncate(work) => [Some(&mut work.file), None],
        };
        for held in files.into_iter().flatten().filter(|held| held.generation.is_none()) {
            held.generation = Some(self.generation(held.ino)?);
        }
        Ok(())
    }

    /// Whether a file is still the one that was meant.
    #[inline]
    pub(super) fn verify(&self, held: Held) -> Result<()> {
        match held.generation {
            Some(generation) if generation != self.generation(held.ino)? => Err(Error::NotFound),
            _ => Ok(()),
        }
    }

    /// Which use of its number an inode is.
    pub(super) fn generation(&self, ino: Ino) -> Result<Generation> {
        let block = self.tree.inode_block(ino)?;
        let what = "a generation fails its check";
        Ok(Generation {
            mount: self.number(block, ino, inode::MOUNT, what)?,
            number: self.number(block, ino, inode::USE, what)?,
        })
    }

    /// Has steps do less: so that small files need many.
    #[cfg(feature = "testing")]
    pub fn set_work_a_step(&mut self, work: u64) {
        self.work_a_step = work;
    }
}
