//! Verification of a running volume: every count, every name, every translation.
//!
//! It takes steps, so that others work meanwhile, and it judges only what has not changed since it
//! began to look:
//!
//! ```text
//!   Clear -> Walk -> Shaded -> Reclaim -> Judge -> Names -> Missed -> Inodes -> Windows -> Totals
//!   `--------- blocks: blocks/recount.rs -----'    `------ names.rs -------'    `-- windows.rs
//! ```
//!
//! So what it reports is true: on a volume that is sound it reports nothing, whatever others do.
//! What changes all the time may not be judged; how much that was is said. It ends: each phase has
//! work that is bounded by the size of the volume, and gives up judging if others make it more.
//!
//! Memory: three bits for each inode, up to 32 KiB of directories that wait to be walked, and an
//! entry for each inode with several names. What is known of blocks is in their records.

mod names;
pub(super) mod naming;
pub(crate) mod report;
mod windows;

use self::naming::{Missed, Naming};
use self::report::CheckReport;
use self::windows::WindowCheck;
use super::Volume;
use crate::blocks::{Content, Judged, Visit};
use crate::error::{Error, Result};
use crate::format::inode::INODE_WORDS;
use crate::format::superblock::GROUP;
use crate::pmem::Pmem;
use crate::types::*;
use crate::windows::mmu::Mmu;

/// A check under way: one at a time.
#[must_use = "a check is finished step by step, or abandoned"]
#[derive(Debug)]
pub struct Check {
    phase: Phase,
    report: CheckReport,
    windows: WindowCheck,
    /// The tables for names, until they are used.
    naming: Option<Naming>,
    /// What is left of the work that the current phase may take.
    patience: u64,
    /// Nothing was judged by counts: others changed more than it could keep up with.
    outrun: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Marks of records are cleared; the next group.
    Clear(u64),
    /// References are counted from the top down.
    Walk,
    /// Nodes are looked at that gained references meanwhile.
    Shaded,
    /// What waits to be reclaimed is.
    Reclaim,
    /// Records are compared with what was counted; the next group.
    Judge(u64),
    /// Directories are walked.
    Names,
    /// Directories are looked for that were missed; the next block of inodes.
    Missed(u64),
    /// Inodes are judged; the next block of them.
    Inodes(u64),
    /// Translations; the next slot.
    Windows(u32),
    /// Sums over all translations; the next slot.
    Totals(u32),
}

/// Work of a step, in units that take some 20 instructions each: a word of a node, a quarter of a
/// reference.
const WORK_A_STEP: u64 = 1 << 15;
/// Units of a reference that is counted.
const REFERENCE: u64 = 4;
/// Units of two copies that are compared.
const COMPARED: u64 = 128;
/// Units of a block that is reclaimed.
const RECLAIMED: u64 = 1024;
/// Units of a slot.
const SLOT: u64 = 1 << 15;
/// Units of a page whose translation is only looked at.
const PAGE: u64 = 1;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Bytes of memory that a check takes when it begins.
    pub fn check_memory(&self) -> usize {
        Naming::memory(self.inodes.room)
    }

    /// Begins to verify the volume and the invariants of windows.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`]: another check is under way. [`Error::NoMemory`]: there is not as much as
    /// [`Volume::check_memory`] says.
    pub fn begin_check(&mut self) -> Result<Check> {
        if self.tree.blocks.recount.is_some() || self.naming.is_some() || self.checking {
            return Err(Error::Busy("another check is under way"));
        }
        let naming = Some(Naming::new(self.inodes.room)?);
        self.tree.blocks.begin_recount()?;
        self.checking = true;
        let report = CheckReport::default();
        let windows = WindowCheck::default();
        let (phase, patience) = (Phase::Clear(0), u64::MAX);
        Ok(Check { phase, report, windows, naming, patience, outrun: false })
    }

    /// Takes one bounded step of a check. `None`: there is more to do. After anything else, an
    /// error too, the check is over. It finishes background reclaiming, and changes nothing else.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`], or a [media error](Error#media-errors) where the walk cannot go on.
    /// Findings are no errors.
    pub fn check_step(&mut self, check: &mut Check) -> Result<Option<CheckReport>> {
        let mut left = self.check_work_a_step.unwrap_or(WORK_A_STEP);
        let result = loop {
            match self.check_some(check, &mut left) {
                Ok(true) => break Ok(Some(core::mem::take(&mut check.report))),
                Ok(false) if left > 0 => {}
                Ok(false) => break Ok(None),
                Err(error) => break Err(error),
            }
        };
        if !matches!(result, Ok(None)) {
            self.end_check();
        }
        result
    }

    /// Gives up a check.
    pub fn abandon_check(&mut self, _check: Check) {
        self.end_check();
    }

    /// Takes all steps of a check. Nobody else may have one under way.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if another check is under way, and as [`Volume::check_step`].
    pub fn check(&mut self) -> Result<CheckReport> {
        let mut check = self.begin_check()?;
        loop {
            if let Some(report) = self.check_step(&mut check)? {
                return Ok(report);
            }
        }
    }

    /// Has steps of checks do less: so that small volumes need many.
    #[cfg(feature = "testing")]
    pub fn set_check_work_a_step(&mut self, work: u64) {
        self.check_work_a_step = Some(work);
    }

    fn end_check(&mut self) {
        self.checking = false;
        self.tree.blocks.end_recount();
        self.naming = None;
    }

    /// Does some work of the current phase, and turns to the next one where that is done; true if
    /// it was the last.
    fn check_some(&mut self, check: &mut Check, left: &mut u64) -> Result<bool> {
        let groups = self.tree.blocks.geometry.groups();
        let before = *left;
        let phase = check.phase;
        let next = match phase {
            Phase::Clear(group) if group < groups => {
                let records = self.tree.blocks.clear_marks(group)?;
                *left = left.saturating_sub(records + 1);
                Phase::Clear(group + 1)
            }
            Phase::Clear(_) => {
                self.tree.blocks.begin_walk();
                // Each block once, and as much again for what others add.
                check.patience =
                    self.tree.blocks.geometry.total.saturating_mul(2 * 512 * (1 + REFERENCE));
                self.visit(self.system_top(), Content::InodeNode(2), &mut check.report);
                Phase::Walk
            }
            Phase::Walk if self.walk_on(check, left)? => Phase::Shaded,
            Phase::Shaded if self.walk_shaded(check, left)? => {
                self.tree.blocks.end_walk();
                check.patience = self.tree.blocks.geometry.total.saturating_mul(2 * RECLAIMED);
                Phase::Reclaim
            }
            Phase::Reclaim if !self.tree.blocks.has_pending() => Phase::Judge(0),
            Phase::Reclaim => {
                self.tree.blocks.reclaim_step()?;
                *left = left.saturating_sub(RECLAIMED);
                Phase::Reclaim
            }
            Phase::Judge(group) if group < groups => {
                self.judge_group(check, group)?;
                *left = left.saturating_sub(2 * GROUP);
                Phase::Judge(group + 1)
            }
            Phase::Judge(_) => {
                self.judge_sums(&mut check.report);
                self.tree.blocks.end_recount();
                if let Some(mut naming) = check.naming.take() {
                    // Inodes were made since the check began.
                    naming.grow(self.inodes.room)?;
                    self.naming = Some(naming);
                }
                Phase::Names
            }
            Phase::Names if self.walk_names(&mut check.report, left)? => Phase::Missed(0),
            Phase::Missed(at) => match self.find_missed(at, left)? {
                Missed::Some => Phase::Names,
                Missed::More(at) => Phase::Missed(at),
                Missed::None => Phase::Inodes(0),
            },
            Phase::Inodes(at) => match self.judge_inodes(at, &mut check.report, left)? {
                Some(at) => Phase::Inodes(at),
                None => {
                    self.judge_used(&mut check.report);
                    self.naming = None;
                    Phase::Windows(0)
                }
            },
            Phase::Windows(slot) if slot < self.dax.slot_count() => {
                let pages = self.check_slot(slot, &mut check.report)?;
                *left = left.saturating_sub(1 + pages * SLOT / 512);
                Phase::Windows(slot + 1)
            }
            Phase::Windows(_) => Phase::Totals(0),
            Phase::Totals(slot) => {
                let pages = match self.sum_slot(slot, &mut check.windows, &mut check.report)? {
                    Some(pages) => pages,
                    None => return Ok(true),
                };
                *left = left.saturating_sub(1 + pages * PAGE);
                // It may have begun anew.
                Phase::Totals(check.windows.next)
            }
            same => same,
        };
        check.phase = next;
        self.lose_patience(check, before - *left);
        Ok(false)
    }

    /// Ends what others make longer and longer, without judging by it.
    fn lose_patience(&mut self, check: &mut Check, work: u64) {
        check.patience = check.patience.saturating_sub(work);
        if check.patience == 0
            && matches!(check.phase, Phase::Walk | Phase::Shaded | Phase::Reclaim)
        {
            self.tree.blocks.end_walk();
            check.outrun = true;
            check.patience = u64::MAX;
            check.phase = Phase::Judge(0);
        }
    }

    /// Counts a reference.
    fn visit(&mut self, block: Block, content: Content, report: &mut CheckReport) {
        match self.tree.blocks.visit(block, content) {
            Ok(Visit::Counted) => {}
            Ok(Visit::Pending) => {
                report.add(format_args!(
                    "block {}: it is referred to, but waits to be reclaimed",
                    block.0
                ));
            }
            Ok(Visit::TooDeep) => {
                report.add(format_args!("block {}: a tree is deeper than any can be", block.0));
            }
            Err(poisoned) => {
                report.add(format_args!("block {}: {}", block.0, Error::from(poisoned)))
            }
        }
    }

    /// Looks at more of the nodes on the stack; true if it is empty.
    fn walk_on(&mut self, check: &mut Check, left: &mut u64) -> Result<bool> {
        while *left > 0 {
            let Some(frame) = self.tree.blocks.recount.as_mut().and_then(|r| r.stack.last_mut())
            else {
                return Ok(true);
            };
            let (Some(block), index, content) = (frame.block, frame.next, frame.content) else {
                self.pop_frame();
                continue;
            };
            if index == 0 {
                self.compare(block, content, &mut check.report);
                *left = left.saturating_sub(COMPARED);
            }
            if index >= 512 {
                self.pop_frame();
                continue;
            }
            let Some(frame) = self.tree.blocks.recount.as_mut().and_then(|r| r.stack.last_mut())
            else {
                return Ok(true);
            };
            frame.next += if content == Content::Inodes { INODE_WORDS } else { 1 };
            *left = left.saturating_sub(1);
            match self.word_of(block, content, index) {
                Ok(None) => {}
                Ok(Some((child, content))) => {
                    *left = left.saturating_sub(REFERENCE - 1);
                    self.visit(child, content, &mut check.report);
                    if content == Content::Bucket {
                        self.compare(child, content, &mut check.report);
                        *left = left.saturating_sub(COMPARED);
                    }
                }
                Err(error) => check.report.add(format_args!("{error} (word {index})")),
            }
        }
        Ok(false)
    }

    /// Compares both copies of a block of metadata, and mends what is bad in one of them.
    fn compare(&mut self, block: Block, content: Content, report: &mut CheckReport) {
        if !self.tree.blocks.compare(block, content) {
            report.add(format_args!("block {}: its two copies are good, and differ", block.0));
        }
    }

    fn pop_frame(&mut self) {
        if let Some(recount) = &mut self.tree.blocks.recount {
            recount.stack.pop();
        }
    }

    /// What a word of a node refers to.
    fn word_of(
        &self,
        block: Block,
        content: Content,
        index: u16,
    ) -> Result<Option<(Block, Content)>> {
        if block == self.tree.system {
            return self.system_reference(index);
        }
        self.block_in(block, content, index)
    }

    /// Looks at nodes that gained references while the walk was under way; true if there are none
    /// left.
    fn walk_shaded(&mut self, check: &mut Check, left: &mut u64) -> Result<bool> {
        while *left > 0 {
            if !self.walk_on(check, left)? {
                return Ok(false);
            }
            let first = self.tree.blocks.geometry.first;
            let Some(recount) = &mut self.tree.blocks.recount else { return Ok(true) };
            if recount.shaded == 0 {
                return Ok(true);
            }
            if recount.lowest >= self.tree.blocks.geometry.total {
                recount.lowest = first;
            }
            let records = self.tree.blocks.find_shaded(*left)?;
            *left = left.saturating_sub(records);
        }
        Ok(false)
    }

    fn judge_group(&mut self, check: &mut Check, group: u64) -> Result<()> {
        let (report, outrun) = (&mut check.report, check.outrun);
        let judged = self.tree.blocks.judge_group(group, &mut |block, judged| {
            let Judged { count, counted, changed, shown, alone } = judged;
            let (block, unjudged) = (block.0, changed || outrun);
            report.changed += u64::from(unjudged);
            report.blocks += u64::from(if unjudged { count > 0 } else { counted > 0 });
            if !unjudged && count != counted && count != u32::MAX {
                report.add(format_args!(
                    "block {block}: {counted} references, but {count} are recorded"
                ));
            }
            if alone {
                report
                    .add(format_args!("block {block}: it and its twin are recorded as two things"));
            }
            if shown {
                report.add(format_args!("block {block}: free, but still shown by a window"));
            }
        })?;
        let (is, said) = judged;
        if is != said {
            report.add(format_args!(
                "blocks from {} on: {is} are free, but {said} are recorded",
                group * GROUP
            ));
        }
        Ok(())
    }

    /// Sums over all records, at one moment.
    fn judge_sums(&mut self, report: &mut CheckReport) {
        let Some(recount) = &self.tree.blocks.recount else { return };
        let (shared, lent) = (recount.shared, recount.lent);
        let free = self.tree.blocks.free_in.iter().map(|&free| u64::from(free)).sum::<u64>();
        let sums = [
            (free + lent, self.tree.blocks.free_or_lent(), "free"),
            (lent, self.tree.blocks.lending().lent, "lent"),
            (shared, self.tree.blocks.shared(), "shared"),
        ];
        for (is, said, what) in sums.into_iter().filter(|(is, said, _)| is != said) {
            report.add(format_args!("{is} blocks are {what}, but {said} are recorded"));
        }
    }
}
