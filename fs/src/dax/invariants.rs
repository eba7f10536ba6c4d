//! What has to hold between page tables, shadows and trees.

use super::mmu::{Frame, Mmu, PAGES_PER_SLOT, Page, Rights, Slot};
use crate::error::Result;
use crate::pmem::Pmem;
use crate::types::{BLOCK_SIZE, Block, FileBlock, Ino};
use crate::volume::{CheckReport, PagesReport, Volume};
use alloc::format;

/// Sums over all translations.
#[derive(Default)]
struct Seen {
    zero: u64,
    writable: u64,
    shadows: u64,
    masters: u64,
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Verifies every translation of every window.
    pub(crate) fn check_invariants(&self, report: &mut CheckReport) -> Result<()> {
        let mut seen = Seen::default();
        for (slot, state) in self.dax.attached() {
            let mut present = 0;
            for index in 0..PAGES_PER_SLOT {
                let page = slot.page(index);
                let translation = self.dax.mmu.get(page);
                let writable = matches!(translation, Some((_, Rights::Write)));
                if state.is_dirty(index) != writable {
                    report.add(format!("page {}: on the dirty list or writable, but not both", page.0));
                }
                if let Some((frame, rights)) = translation {
                    present += 1;
                    self.check_page(slot, state.ino, state.leaf, page, frame, rights, &mut seen, report)?;
                }
            }
            if present != state.present {
                report
                    .add(format!("slot {}: {present} translations, but {} recorded", slot.0, state.present));
            }
        }
        let recorded =
            [self.dax.zero, self.dax.writable, self.dax.shadows.count(), self.dax.shadows.masters()];
        let counted = [seen.zero, seen.writable, seen.shadows, seen.masters];
        for (what, (is, said)) in
            ["zero pages", "writable pages", "shadows", "masters"].iter().zip(counted.iter().zip(recorded))
        {
            if *is != said {
                report.add(format!("{is} {what}, but {said} are recorded"));
            }
        }
        Ok(())
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
        seen: &mut Seen,
        report: &mut CheckReport,
    ) -> Result<()> {
        let block = FileBlock(leaf as u64 * PAGES_PER_SLOT as u64 + page.index() as u64);
        let (path, root) = self.leaf_path(ino, block)?;
        let entry = self.entry(root, block)?.filter(|p| !p.unwritten).map(|p| p.block);
        let size = self.attributes(ino)?.size;
        if block.0 >= size.div_ceil(BLOCK_SIZE) {
            report.add(format!(
                "slot {}: page {} is beyond the end of inode {}",
                slot.0,
                page.index(),
                ino.0
            ));
        }
        match (frame, rights) {
            (Frame::Zero, Rights::Write) => report.add(format!("page {}: the zero page is writable", page.0)),
            (Frame::Zero, Rights::Read) => {
                seen.zero += 1;
                if entry.is_some() {
                    report.add(format!("page {}: shows zeros, but inode {} has data there", page.0, ino.0));
                }
            }
            (Frame::Block(shown), rights) => {
                if entry != Some(shown) {
                    report.add(format!(
                        "page {}: shows block {}, but inode {} has {entry:?}",
                        page.0, shown.0, ino.0
                    ));
                }
                match rights {
                    Rights::Write => {
                        seen.writable += 1;
                        let exclusive =
                            self.exclusive_steps(&path)? == path.len() && self.blocks.count(shown)? == 1;
                        if !exclusive {
                            report.add(format!("page {}: block {} is writable, but shared", page.0, shown.0));
                        }
                    }
                    Rights::Read => self.check_shadow(page, shown, seen, report)?,
                }
            }
        }
        Ok(())
    }

    fn check_shadow(
        &self,
        page: Page,
        block: Block,
        seen: &mut Seen,
        report: &mut CheckReport,
    ) -> Result<()> {
        seen.shadows += 1;
        seen.masters += (self.blocks.shadows(block)? == page.0 + 1) as u64;
        if !self.dax.shadows.is_shadow(&self.blocks, page, block)? {
            report.add(format!("page {}: block {} does not know this shadow", page.0, block.0));
        }
        Ok(())
    }

    /// The state of windows of one file.
    pub(crate) fn pages_of(&self, ino: Ino, at: &mut u32, report: &mut PagesReport) -> Result<bool> {
        let mut allowance = self.work_a_step;
        while let Some(state) = self.dax.slots.get((*at / PAGES_PER_SLOT) as usize) {
            let slot = Slot(*at / PAGES_PER_SLOT);
            if state.window == u32::MAX || state.ino != ino {
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
                    let shadows = self.dax.shadows.of(&self.blocks, block)?;
                    let mut shadows = shadows.inspect(|_| allowance = allowance.saturating_sub(1));
                    let first = shadows.find(|page| self.dax.slots[page.slot().0 as usize].ino == ino);
                    report.masters += u64::from(first == Some(page));
                }
            }
            *at += 1;
        }
        Ok(true)
    }
}
