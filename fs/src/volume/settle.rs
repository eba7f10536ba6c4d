//! What has to be true of a file's windows before it can be shared or cut, reached in steps.
//!
//! ```text
//!   first step   little to do: all of it at once, and the operation goes on in the same step
//!   then         one pass over all slots, a bounded part of it a step
//!   at its end   what was stored or shown meanwhile is looked at; from now on the faults of the
//!                file are parked, so that the passes come to an end
//! ```

use super::Volume;
use crate::error::Result;
use crate::pmem::Pmem;
use crate::types::{FileKey, Ino};
use crate::windows::mmu::Mmu;
use crate::windows::passes::Revoke;
use core::ops::Range;

/// A file that is being settled.
#[derive(Clone, Debug)]
pub(crate) struct Settle {
    pub ino: Ino,
    /// No page of the file is writable, so what was stored is on its way to the media; few of these
    /// blocks are shown.
    revoke: Revoke,
    /// The next page of the pass.
    at: Option<u32>,
    /// The faults of the file are parked.
    pub parked: bool,
}

impl Settle {
    /// No page of the file is writable.
    pub fn stores(ino: Ino) -> Self {
        Settle { ino, revoke: Revoke::WRITING, at: None, parked: false }
    }

    /// Of these blocks no more are shown than can be taken away in a step.
    pub fn hides(self, showing: Range<u64>) -> Self {
        Settle { revoke: Revoke { showing, ..self.revoke }, ..self }
    }

    /// Only that.
    pub fn only_hides(ino: Ino, showing: Range<u64>) -> Self {
        Settle { revoke: Revoke { writing: false, showing }, ..Settle::stores(ino) }
    }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Takes a step. True: what was asked for is so now, and stays so until this step ends.
    #[inline]
    pub(super) fn settle(&mut self, settle: &mut Settle) -> Result<bool> {
        if settle.at.is_some() {
            return self.settle_on(settle);
        }
        let settled = self.is_settled(settle)?;
        if !settled {
            settle.at = Some(0);
        }
        Ok(settled)
    }

    /// Does what little there is to do; false if it is not little.
    #[inline]
    fn is_settled(&mut self, settle: &Settle) -> Result<bool> {
        let (file, Revoke { writing, showing }) = (FileKey(settle.ino), &settle.revoke);
        let mut allowance = self.work_a_step;
        if *writing {
            let synced = self.dax.sync_some(&mut self.tree.blocks, file, &mut allowance)?;
            self.tree.unfenced |= synced.any;
            if !synced.all {
                return Ok(false);
            }
        }
        Ok(showing.is_empty() || self.dax.shown(file, showing) <= self.work_a_step)
    }

    #[cold]
    fn settle_on(&mut self, settle: &mut Settle) -> Result<bool> {
        let at = settle.at.get_or_insert(0);
        let mut allowance = self.work_a_step;
        let file = FileKey(settle.ino);
        let blocks = &mut self.tree.blocks;
        let synced = self.dax.pass(blocks, file, &settle.revoke, at, &mut allowance)?;
        self.tree.unfenced |= synced.any;
        if !synced.all {
            return Ok(false);
        }
        if !settle.parked {
            self.dax.files.park(file)?;
            settle.parked = true;
        }
        settle.at = Some(0);
        // With little left of the step's work, that is for the next one.
        Ok(allowance > self.work_a_step / 2 && self.is_settled(settle)?)
    }
}
