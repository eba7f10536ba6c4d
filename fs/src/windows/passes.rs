//! Work on many pages of a file, bounded by an allowance: making what was stored durable, taking
//! translations away.

use super::files::NONE;
use super::mmu::{Frame, Mmu, PAGES_PER_SLOT, Page, Rights, Slot};
use super::{Window, Windows};
use crate::blocks::Blocks;
use crate::error::Result;
use crate::pmem::{Pmem, Poisoned};
use crate::types::{BLOCK_SIZE, Block, FileKey};
use core::ops::Range;

/// What became of dirty pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Synced {
    /// Some were flushed.
    pub any: bool,
    /// There are no more.
    pub all: bool,
}

/// What a pass takes away from the pages of a file.
#[derive(Clone, Debug)]
pub(crate) struct Revoke {
    /// The right to write: what was stored is flushed.
    pub writing: bool,
    /// All translations of these blocks of the file.
    pub showing: Range<u64>,
}

impl Revoke {
    /// The right to write only.
    pub const WRITING: Revoke = Revoke { writing: true, showing: 0..0 };
}

impl<M: Mmu> Windows<M> {
    /// Makes the dirty pages of a file read-only in all windows, and flushes them: they are
    /// durable with the next fence. Each page uses up one of `allowance`.
    #[inline]
    pub fn sync_some<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        file: FileKey,
        allowance: &mut u64,
    ) -> Result<Synced, Poisoned> {
        let mut synced = Synced { any: false, all: true };
        let mut at = None;
        if self.writable == 0 {
            return Ok(synced);
        }
        while let Some(slot) = self.next_slot(file, at) {
            at = Some(slot);
            self.sync_slot(blocks, Slot(slot), &mut 0, allowance, &mut synced)?;
            if !synced.all {
                break;
            }
        }
        Ok(synced)
    }

    /// As [`Windows::sync_some`], in one slot, from page `from` of it on, up to which it has come
    /// then.
    #[inline]
    fn sync_slot<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        slot: Slot,
        from: &mut u32,
        allowance: &mut u64,
        synced: &mut Synced,
    ) -> Result<(), Poisoned> {
        for word in (*from / 64) as usize..8 {
            // Whole words but for the first one. Making a page read-only changes no other bit.
            let after = if *from > word as u32 * 64 { u64::MAX << (*from % 64) } else { u64::MAX };
            let mut left = self.slots[slot.0 as usize].dirty[word] & after;
            while left != 0 {
                let bit = left.trailing_zeros();
                if *allowance == 0 {
                    synced.all = false;
                    *from = word as u32 * 64 + bit;
                    return Ok(());
                }
                *allowance -= 1;
                left &= left - 1;
                let page = slot.page(word as u32 * 64 + bit);
                if let Some((Frame::Block(block), Rights::Write)) = self.mmu.get(page) {
                    self.translate(blocks, page, Frame::Block(block), Rights::Read)?;
                    self.mmu.invalidate(page);
                    blocks.pmem.flush(block.0 * BLOCK_SIZE, BLOCK_SIZE);
                    synced.any = true;
                } else {
                    debug_assert!(false, "a page on the dirty list is not writable");
                    self.slots[slot.0 as usize].set_dirty(page.index(), false);
                }
            }
        }
        Ok(())
    }

    /// A part of one pass over all slots, from page `at` on, which takes away what `revoke` says.
    /// Slots keep their places, so whatever else happens between the parts, the pass has an end,
    /// and it has met each page that was writable, or shown, when it began.
    pub fn pass<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        file: FileKey,
        revoke: &Revoke,
        at: &mut u32,
        allowance: &mut u64,
    ) -> Result<Synced, Poisoned> {
        let mut synced = Synced { any: false, all: true };
        let pages = PAGES_PER_SLOT;
        let Revoke { writing, showing } = revoke;
        while ((*at / pages) as usize) < self.slots.len() {
            let slot = Slot(*at / pages);
            let state = &self.slots[slot.0 as usize];
            let first = u64::from(state.leaf) * PAGES_PER_SLOT as u64;
            let hides = first < showing.end && showing.start < first + PAGES_PER_SLOT as u64;
            if state.window == NONE || state.file != file || !(*writing || hides) {
                *at = (slot.0 + 1) * pages;
                continue;
            }
            // What is hidden is shown no more, and is stored to no more, from one moment on.
            let mut from = if hides { 0 } else { *at % pages };
            self.sync_slot(blocks, slot, &mut from, allowance, &mut synced)?;
            let shown = self.slots[slot.0 as usize].present;
            if !synced.all || hides && *allowance == 0 && shown > 0 {
                synced.all = false;
                *at = slot.0 * pages + from.min(pages - 1);
                return Ok(synced);
            }
            if hides {
                self.unmap_in(blocks, slot, showing.start, showing.end)?;
                // Pages that stay cost nothing: else where many stay, no pass would end with
                // allowance left.
                let gone = shown - self.slots[slot.0 as usize].present;
                *allowance = allowance.saturating_sub(gone.into());
            }
            *at = (slot.0 + 1) * pages;
        }
        Ok(synced)
    }

    /// Takes all translations of a block away. What was stored through them is not written back.
    pub fn hide<P: Pmem>(&mut self, blocks: &mut Blocks<P>, block: Block) -> Result<(), Poisoned> {
        if blocks.count(block)? == 0 || blocks.is_lent(block)? {
            return Ok(());
        }
        loop {
            // The first one goes, and the next one is the first then.
            let first = self.shadows.of(blocks, block)?.next();
            let Some(page) = first else { break };
            self.take_away(blocks, page, Frame::Block(block), Rights::Read)?;
        }
        if self.writable == 0 {
            return Ok(());
        }
        for slot in (0..self.slots.len() as u32).map(Slot) {
            for word in 0..8 {
                let mut left = self.slots[slot.0 as usize].dirty[word as usize];
                while left != 0 {
                    let page = slot.page(word * 64 + left.trailing_zeros());
                    left &= left - 1;
                    if self.mmu.get(page) == Some((Frame::Block(block), Rights::Write)) {
                        self.take_away(blocks, page, Frame::Block(block), Rights::Write)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the translation of a page away.
    pub(super) fn take_away<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        page: Page,
        frame: Frame,
        rights: Rights,
    ) -> Result<(), Poisoned> {
        self.forget(blocks, page, frame, rights)?;
        self.mmu.clear(page);
        self.mmu.invalidate(page);
        Ok(())
    }

    /// Pages of a file that show blocks of a range.
    pub fn shown(&self, file: FileKey, range: &Range<u64>) -> u64 {
        let (mut sum, mut at) = (0, None);
        while let Some(slot) = self.next_slot(file, at) {
            at = Some(slot);
            let state = &self.slots[slot as usize];
            let first = u64::from(state.leaf) * PAGES_PER_SLOT as u64;
            let end = first + PAGES_PER_SLOT as u64;
            if range.start <= first && end <= range.end {
                sum += u64::from(state.present);
            } else if state.present > 0 {
                let part = range.start.max(first)..range.end.min(end);
                let shown =
                    |&block: &u64| self.mmu.get(Slot(slot).page((block - first) as u32)).is_some();
                sum += part.filter(shown).count() as u64;
            }
        }
        sum
    }

    /// Takes away slots of a window, whose stores are durable then, until about `allowance` pages
    /// are gone; false if it has more.
    pub fn detach_some<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        window: Window,
        allowance: u64,
    ) -> Result<bool> {
        let file = self.files.file_of(window)?;
        let mut gone = 0;
        let mut at = self.next_slot(file, None);
        while let Some(slot) = at {
            at = self.next_slot(file, Some(slot));
            if self.slots[slot as usize].window == window.0 {
                if gone >= allowance {
                    return Ok(false);
                }
                gone += u64::from(self.slots[slot as usize].present);
                self.detach(blocks, Slot(slot))?;
            }
        }
        Ok(true)
    }
}
