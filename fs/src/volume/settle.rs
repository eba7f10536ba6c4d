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
use crate::types::Ino;
use crate::windows::mmu::Mmu;
use core::ops::Range;

/// A file that is being settled.
#[derive(Clone, Debug)]
pub(crate) struct Settle {
    pub ino: Ino,
    /// Nothing is writable: what was stored is on its way to the media.
    stores: bool,
    /// Few of these blocks are shown.
    hidden: Range<u64>,
    /// The next page of the pass.
    at: Option<u32>,
    /// The faults of the file are parked.
    pub parked: bool,
}

impl Settle {
    /// No page of the file is writable.
    pub fn stores(ino: Ino) -> Self {
        Settle { ino, stores: true, hidden: 0..0, at: None, parked: false }
    }

    /// Of these blocks no more are shown than can be taken away in a step.
    pub fn hides(self, hidden: Range<u64>) -> Self {
        Settle { hidden, ..self }
    }

    /// Only that.
    pub fn only_hides(ino: Ino, hidden: Range<u64>) -> Self {
        Settle { stores: false, ..Settle::stores(ino).hides(hidden) }
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
        let mut allowance = self.work_a_step;
        if settle.stores {
            let synced = self.dax.sync_some(&mut self.tree.blocks, settle.ino, &mut allowance)?;
            self.tree.unfenced |= synced.any;
            if !synced.all {
                return Ok(false);
            }
        }
        Ok(settle.hidden.is_empty()
            || self.dax.shown(settle.ino, &settle.hidden) <= self.work_a_step)
    }

    #[cold]
    fn settle_on(&mut self, settle: &mut Settle) -> Result<bool> {
        let at = settle.at.get_or_insert(0);
        let mut allowance = self.work_a_step;
        let hidden = settle.hidden.clone();
        let synced = self.dax.pass(
            &mut self.tree.blocks,
            settle.ino,
            settle.stores,
            hidden,
            at,
            &mut allowance,
        )?;
        self.tree.unfenced |= synced.any;
        if !synced.all {
            return Ok(false);
        }
        if !settle.parked {
            self.dax.park(settle.ino);
            settle.parked = true;
        }
        settle.at = Some(0);
        // With little left of the step's work, that is for the next one.
        Ok(allowance > self.work_a_step / 2 && self.is_settled(settle)?)
    }
}
