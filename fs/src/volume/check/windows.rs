//! What has to hold between page tables, shadows and trees.

use super::report::CheckReport;
use crate::error::Result;
use crate::pmem::Pmem;
use crate::types::{BLOCK_SIZE, Block, FileBlock, FileKey, Ino};
use crate::volume::{FaultCounts, PagesReport, Volume};
use crate::windows::mmu::{Frame, Mmu, PAGES_PER_SLOT, Page, Rights, Slot};

/// How often sums are begun anew because translations changed meanwhile.
const MOST_TRIES: u32 = 8;

/// Sums over translations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    zero: u64,
    writable: u64,
    shadows: u64,
    masters: u64,
}

/// Sums over all translations that are being made while others work.
#[derive(Debug, Default)]
pub(crate) struct WindowCheck {
    sums: Sums,
    /// What would differ if any translation had changed since the first slot was looked at.
    before: Option<(FaultCounts, Sums)>,
    tries: u32,
    /// The next slot.
    pub next: u32,
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Verifies every translation of a slot; how many pages were looked at.
    pub(crate) fn check_slot(&self, slot: u32, report: &mut CheckReport) -> Result<u64> {
        let slot = Slot(slot);
        let Some(state) = self.dax.attached_slot(slot) else { return Ok(0) };
        let mut present = 0;
        for index in 0..PAGES_PER_SLOT {
            let page = slot.page(index);
            let translation = self.dax.mmu.get(page);
            let writable = matches!(translation, Some((_, Rights::Write)));
            if state.is_dirty(index) != writable {
                report.add(format_args!(
                    "page {}: on the dirty list or writable, but not both",
                    page.0
                ));
            }
            if let Some((frame, rights)) = translation {
                present += 1;
                self.check_page(slot, state.file.0, state.leaf, page, frame, rights, report)?;
            }
        }
        if present != state.present {
            report.add(format_args!(
                "slot {}: {present} translations, but {} recorded",
                slot.0, state.present
            ));
        }
        Ok(u64::from(PAGES_PER_SLOT))
    }

    /// What changes with every translation. Only faults make translations: they are counted.
    /// Whatever else happens takes rights away, which makes one of the sums smaller.
    fn translations_now(&self) -> (FaultCounts, Sums) {
        let dax = &self.dax;
        let (shadows, masters) = (dax.shadows.count(), dax.shadows.masters());
        let sums = Sums { zero: dax.zero, writable: dax.writable, shadows, masters };
        (self.faults, sums)
    }

    /// Adds the translations of a slot to the sums; how many pages were looked at. `None`: that was
    /// the last one, and the sums were judged, unless translations change all the time.
    pub(crate) fn sum_slot(
        &self,
        slot: u32,
        check: &mut WindowCheck,
        report: &mut CheckReport,
    ) -> Result<Option<u64>> {
        let now = self.translations_now();
        if check.before != Some(now) {
            // Others have changed some, or this is the first slot.
            if check.tries == MOST_TRIES {
                return Ok(None);
            }
            *check =
                WindowCheck { before: Some(now), tries: check.tries + 1, ..WindowCheck::default() };
            return Ok(Some(1));
        }
        if slot >= self.dax.slot_count() {
            self.judge_translations(check.sums, report);
            return Ok(None);
        }
        check.next = slot + 1;
        let slot = Slot(slot);
        if self.dax.attached_slot(slot).is_none() {
            return Ok(Some(0));
        }
        for index in 0..PAGES_PER_SLOT {
            let page = slot.page(index);
            match self.dax.mmu.get(page) {
                None => {}
                Some((_, Rights::Write)) => check.sums.writable += 1,
                Some((Frame::Zero, Rights::Read)) => check.sums.zero += 1,
                Some((Frame::Block(block), Rights::Read)) => {
                    check.sums.shadows += 1;
                    check.sums.masters += u64::from(self.tree.blocks.shadows(block)? == page.0 + 1);
                }
            }
        }
        Ok(Some(u64::from(PAGES_PER_SLOT)))
    }

    fn judge_translations(&self, is: Sums, report: &mut CheckReport) {
        let said = self.translations_now().1;
        let sums = [
            ("zero pages", is.zero, said.zero),
            ("writable pages", is.writable, said.writable),
            ("shadows", is.shadows, said.shadows),
            ("masters", is.masters, said.masters),
        ];
        for (what, is, said) in sums.into_iter().filter(|(_, is, said)| is != said) {
            report.add(format_args!("{is} {what}, but {said} are recorded"));
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn check_page(
        &self,
        slot: Slot,
        ino: Ino,
        leaf: u32,
        page: Page,
        frame: Frame,
        rights: Rights,
        report: &mut CheckReport,
    ) -> Result<()> {
        let block = FileBlock(leaf as u64 * PAGES_PER_SLOT as u64 + page.index() as u64);
        let (path, root) = self.tree.leaf_path(ino, block)?;
        let entry = self.tree.entry(root, block)?.filter(|p| !p.unwritten).map(|p| p.block);
        let size = self.attributes(ino)?.size;
        if block.0 >= size.div_ceil(BLOCK_SIZE) {
            report.add(format_args!(
                "slot {}: page {} is beyond the end of inode {}",
                slot.0,
                page.index(),
                ino.0
            ));
        }
        match (frame, rights) {
            (Frame::Zero, Rights::Write) => {
                report.add(format_args!("page {}: the zero page is writable", page.0))
            }
            (Frame::Zero, Rights::Read) => {
                if entry.is_some() {
                    report.add(format_args!(
                        "page {}: shows zeros, but inode {} has data there",
                        page.0, ino.0
                    ));
                }
            }
            (Frame::Block(shown), rights) => {
                if entry != Some(shown) {
                    report.add(format_args!(
                        "page {}: shows block {}, but inode {} has {entry:?}",
                        page.0, shown.0, ino.0
                    ));
                }
                match rights {
                    Rights::Write => {
                        let exclusive = self.tree.exclusive_steps(&path)? == path.len()
                            && self.tree.blocks.count(shown)? == 1;
                        if !exclusive {
                            report.add(format_args!(
                                "page {}: block {} is writable, but shared",
                                page.0, shown.0
                            ));
                        }
                    }
                    Rights::Read => self.check_shadow(page, shown, report)?,
                }
            }
        }
        Ok(())
    }

    fn check_shadow(&self, page: Page, block: Block, report: &mut CheckReport) -> Result<()> {
        if !self.dax.shadows.is_shadow(&self.tree.blocks, page, block)? {
            report
                .add(format_args!("page {}: block {} does not know this shadow", page.0, block.0));
        }
        Ok(())
    }

    /// The state of windows of one file.
    pub(crate) fn pages_of(
        &self,
        ino: Ino,
        at: &mut u32,
        report: &mut PagesReport,
    ) -> Result<bool> {
        let mut allowance = self.work_a_step;
        while let Some(state) = self.dax.slots.get((*at / PAGES_PER_SLOT) as usize) {
            let slot = Slot(*at / PAGES_PER_SLOT);
            if state.window == u32::MAX || state.file != FileKey(ino) {
                *at = (slot.0 + 1) * PAGES_PER_SLOT;
                continue;
            }
            if allowance == 0 {
                return Ok(false);
            }
            allowance -= 1;
            let page = slot.page(*at % PAGES_PER_SLOT);
            report.slots += u64::from(page.index() == 0);
            match self.dax.mmu.get(page) {
                None => {}
                Some((Frame::Zero, _)) => report.zero += 1,
                Some((Frame::Block(_), Rights::Write)) => report.writable += 1,
                Some((Frame::Block(block), Rights::Read)) => {
                    report.shadows += 1;
                    // The first of the block's shadows that is this file's stands for the master.
                    let shadows = self.dax.shadows.of(&self.tree.blocks, block)?;
                    let mut shadows = shadows.inspect(|_| allowance = allowance.saturating_sub(1));
                    let first = shadows
                        .find(|page| self.dax.slots[page.slot().0 as usize].file == FileKey(ino));
                    report.masters += u64::from(first == Some(page));
                }
            }
            *at += 1;
        }
        Ok(true)
    }
}
