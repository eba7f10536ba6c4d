//! Answers of many items, frame by frame: a frame a step.

use super::attributes::{attributes, kind};
use super::failure::{During, Failure};
use super::poison::{self, BadBlocks};
use super::scrub;
use super::session::{Session, Step};
use crate::platform::{Counters, Platform, reclaim_step};
use alloc::vec::Vec;
use core::ops::ControlFlow;
use minicbor::Encode;
use umbra_fs::memory::Boxed;
use umbra_fs::{BLOCK_SIZE, Check, CheckReport, Error, FileBlock, Ino, OwnerSearch};
use umbra_proto::rpc::{self, ErrorCode, ItemsWriter, MORE};

/// What a step costs: about that of moving this many bytes.
const STEP_COST: usize = 32 << 10;
/// What a step of a check costs: all of a turn.
const CHECK_COST: usize = 128 << 10;
/// Runs of a file that are looked at in one step.
const EXTENTS_A_STEP: usize = 32;
/// Longest line of a finding.
const MAX_LINE: usize = 1024;

/// What a list of a directory says of each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Name, kind and number.
    Entry,
    /// The attributes too.
    Attributes,
}

/// What a client that asks about reclaiming waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nothing: how far is it now?
    Now,
    /// Nothing is left to reclaim.
    Done,
}

/// A listing under way.
pub enum Listing {
    /// Entries of a directory.
    Directory {
        /// The directory.
        dir: Ino,
        /// Behind this entry.
        cookie: u64,
        /// Entries to list at most.
        left: u64,
        /// What of each entry.
        detail: Detail,
    },
    /// Runs of a file.
    Extents {
        /// The file.
        ino: Ino,
        /// The next block to look at.
        from: u64,
        /// The first block not to look at.
        end: u64,
        /// Runs to list at most.
        left: u64,
    },
    /// A check that is not over; `None`: it has not begun, since another is under way.
    Check(Boxed<Option<Check>>),
    /// Findings of a check.
    Issues {
        /// What it found.
        report: CheckReport,
        /// The next finding.
        next: usize,
    },
    /// A part of a scrub.
    Scrub(scrub::Part),
    /// A search for the owners of bad blocks.
    Owners(Boxed<OwnerSearch>),
    /// Bad blocks and their owners.
    BadBlocks(BadBlocks),
    /// Events.
    Events {
        /// Behind this number.
        since: u64,
    },
    /// Exports.
    Exports {
        /// All of them.
        all: Vec<rpc::Export>,
        /// The next one.
        next: usize,
    },
    /// Clients of exports.
    ExportClients {
        /// All of them.
        all: Vec<rpc::ExportClient>,
        /// The next one.
        next: usize,
    },
    /// Samples of a benchmark.
    Samples {
        /// What it measured.
        all: Vec<rpc::Sample>,
        /// The next one.
        next: usize,
    },
    /// NVDIMM regions.
    Nvdimms {
        /// The next one.
        next: usize,
    },
    /// No list, but work in steps too: reclaiming.
    Reclaim {
        /// What the client waits for.
        until: Until,
    },
}

impl Listing {
    /// Lists a directory.
    pub fn directory(dir: Ino, cookie: u64, left: u64, detail: Detail) -> Self {
        Listing::Directory { dir, cookie, left, detail }
    }

    /// Lists the runs of a file.
    pub fn extents(ino: Ino, r: rpc::Extents) -> Self {
        let end = r.len.map_or(u64::MAX, |len| r.offset.saturating_add(len).div_ceil(BLOCK_SIZE));
        Listing::Extents { ino, from: r.offset / BLOCK_SIZE, end, left: r.max.unwrap_or(u64::MAX) }
    }

    /// Lists what a check finds.
    ///
    /// # Errors
    ///
    /// There is no memory for a check.
    pub fn check() -> Result<Self, Failure> {
        Ok(Listing::Check(Boxed::new(None).during(format_args!("check the volume"))?))
    }

    /// Lists events.
    pub fn events(since: u64) -> Self {
        Listing::Events { since }
    }

    /// Lists exports.
    pub fn exports(all: Vec<rpc::Export>) -> Self {
        Listing::Exports { all, next: 0 }
    }

    /// Lists clients of exports.
    pub fn export_clients(all: Vec<rpc::ExportClient>) -> Self {
        Listing::ExportClients { all, next: 0 }
    }

    /// Lists what a benchmark measured.
    pub fn samples(all: Vec<rpc::Sample>) -> Self {
        Listing::Samples { all, next: 0 }
    }

    /// Lists the NVDIMMs.
    pub fn nvdimms() -> Self {
        Listing::Nvdimms { next: 0 }
    }

    /// Says how far reclaiming is.
    pub fn reclaim(until: Until) -> Self {
        Listing::Reclaim { until }
    }

    /// Gives it up: the client is gone.
    pub fn abandon<M: Platform>(self, machine: &mut M) {
        if let Listing::Check(check) = self
            && let Some(check) = check.into_inner()
        {
            machine.volume(|v| v.abandon_check(check));
        }
    }

    /// Sends the next frame, or does a step of the work before it.
    ///
    /// # Errors
    ///
    /// Why the request failed; the frames before stay sent.
    pub fn step<M: Platform>(&mut self, s: &mut Session, machine: &mut M) -> Result<Step, Failure> {
        match self {
            Listing::Check(check) => {
                if let Some(report) = check_step(machine, check)? {
                    *self = Listing::Issues { report, next: 0 };
                }
                return Ok(Step::Went(CHECK_COST));
            }
            Listing::Owners(search) => {
                if let Some(found) = poison::search(machine, search)? {
                    *self = Listing::BadBlocks(found);
                }
                return Ok(Step::Went(CHECK_COST));
            }
            Listing::Issues { report, next } if *next == report.issues.len() => {
                s.reply(0, &counts(report));
                return Ok(Step::Done);
            }
            Listing::Reclaim { until } => return reclaim(s, machine, *until),
            Listing::Scrub(part) => return scrub::step(s, machine, *part),
            _ => {}
        }
        let Some(mut frame) = ItemsWriter::new(s.out.room()) else {
            return Ok(Step::Wait);
        };
        let end = self.fill(machine, &mut frame)?;
        if !end && frame.is_empty() {
            // Either nothing but empty buckets so far, or an item that is too long for the frame:
            // then a larger one.
            if matches!(self, Listing::Directory { .. })
                || s.out.enlarge().during(format_args!("list what is long"))?
            {
                return Ok(Step::Went(STEP_COST));
            }
            return Err(Failure::new(
                ErrorCode::TOO_LONG,
                format_args!("an item of the list has no room in a body"),
            ));
        }
        let len = frame.finish() as u32;
        let flags = if end { 0 } else { MORE };
        s.out.start(s.request.header.response(flags, len, 0));
        Ok(if end { Step::Done } else { Step::Went(STEP_COST) })
    }

    /// Fills a frame with items; true if these are the last.
    fn fill<M: Platform>(
        &mut self,
        machine: &mut M,
        frame: &mut ItemsWriter<'_>,
    ) -> Result<bool, Failure> {
        match self {
            Listing::Directory { dir, cookie, left, detail } => {
                entries(machine, *dir, cookie, left, *detail, frame)
            }
            Listing::Extents { ino, from, end, left } => {
                extents(machine, *ino, from, *end, left, frame)
            }
            Listing::Issues { report, next } => {
                while let Some(line) = report.issues.get(*next)
                    && frame.push(&shortened(line))
                {
                    *next += 1;
                }
                // The counts follow in a frame of their own.
                Ok(false)
            }
            Listing::BadBlocks(found) => Ok(found.fill(frame)),
            Listing::Events { since } => Ok(poison::events(machine, since, frame)),
            Listing::Exports { all, next } => {
                while let Some(export) = all.get_mut(*next) {
                    if let Some(problem) = &mut export.problem {
                        problem.truncate(problem.floor_char_boundary(MAX_LINE));
                    }
                    if !frame.push(export) {
                        break;
                    }
                    *next += 1;
                }
                Ok(*next == all.len())
            }
            Listing::ExportClients { all, next } => Ok(push_all(all, next, frame)),
            Listing::Samples { all, next } => Ok(push_all(all, next, frame)),
            Listing::Nvdimms { next } => Ok(nvdimms(machine, next, frame)),
            Listing::Check(_)
            | Listing::Owners(_)
            | Listing::Scrub(_)
            | Listing::Reclaim { .. } => Ok(true),
        }
    }
}

/// A line of a finding, or a problem, as far as it is told.
fn shortened(line: &str) -> &str {
    &line[..line.floor_char_boundary(MAX_LINE)]
}

/// What a check says behind its findings.
fn counts(report: &CheckReport) -> rpc::CheckResponse {
    rpc::CheckResponse {
        issues: Vec::new(),
        issues_total: Some(report.issues_total),
        blocks: Some(report.blocks),
        inodes: Some(report.inodes),
        changed: Some(report.changed),
    }
}

/// Takes a step of reclaiming, if the client waits for its end; else says how far it is.
fn reclaim<M: Platform>(s: &mut Session, machine: &mut M, until: Until) -> Result<Step, Failure> {
    if until == Until::Done
        && reclaim_step(machine).during(format_args!("reclaim deleted files"))?
    {
        return Ok(Step::Went(STEP_COST));
    }
    let Counters { reclaiming, reclaim_steps, .. } = *machine.counters();
    s.reply(0, &rpc::ReclaimResponse { pending: reclaiming, steps: reclaim_steps });
    Ok(Step::Done)
}

/// Fills a frame with NVDIMM regions; true if these are the last.
fn nvdimms<M: Platform>(machine: &mut M, next: &mut usize, frame: &mut ItemsWriter<'_>) -> bool {
    let all = machine.nvdimms();
    while let Some(region) = all.get(*next) {
        let item = rpc::Nvdimm {
            address: region.address,
            size: region.size,
            served: region.served,
            flush: region.flush,
            problem: region.problem.as_deref().map(shortened),
        };
        if !frame.push(&item) {
            break;
        }
        *next += 1;
    }
    *next == all.len()
}

/// Fills a frame with items; true if these are the last.
fn push_all<T: Encode<()>>(all: &[T], next: &mut usize, frame: &mut ItemsWriter<'_>) -> bool {
    while let Some(item) = all.get(*next)
        && frame.push(item)
    {
        *next += 1;
    }
    *next == all.len()
}

/// Takes a step of a check, or begins one.
fn check_step<M: Platform>(
    machine: &mut M,
    check: &mut Option<Check>,
) -> Result<Option<CheckReport>, Failure> {
    let Some(under_way) = check else {
        let bytes = machine.volume(|v| v.check_memory());
        if !machine.has_memory(bytes) {
            return Err(Failure::no_memory("check the volume"));
        }
        match machine.volume(|v| v.begin_check()) {
            Ok(begun) => *check = Some(begun),
            // Another one is under way, and comes first.
            Err(Error::Busy(_)) => {}
            Err(error) => return Err(error).during(format_args!("check the volume")),
        }
        return Ok(None);
    };
    let result = machine.volume(|v| v.check_step(under_way));
    if !matches!(result, Ok(None)) {
        *check = None;
    }
    result.during(format_args!("check the volume"))
}

/// Fills a frame with entries of a directory; true if these are the last.
fn entries<M: Platform>(
    machine: &mut M,
    dir: Ino,
    cookie: &mut u64,
    left: &mut u64,
    detail: Detail,
    frame: &mut ItemsWriter<'_>,
) -> Result<bool, Failure> {
    if *left == 0 {
        return Ok(true);
    }
    let mut stopped = false;
    let start = *cookie;
    machine
        .volume(|v| {
            let mut failed = None;
            let next = v.read_dir_some(dir, start, &mut |entry| {
                let found = match (detail == Detail::Attributes).then(|| v.attributes(entry.ino)) {
                    Some(Ok(found)) => Some(attributes(found, None)),
                    // One inode that cannot be read must not hide the rest of the directory.
                    None | Some(Err(Error::Damaged { .. } | Error::Poisoned(_))) => None,
                    Some(Err(e)) => {
                        failed = Some(e);
                        return ControlFlow::Break(());
                    }
                };
                let item = rpc::EntryRef {
                    name: entry.name,
                    ino: entry.ino.0,
                    kind: kind(entry.kind),
                    cookie: entry.cookie,
                    attributes: found,
                };
                if !frame.push(&item) {
                    stopped = true;
                    return ControlFlow::Break(());
                }
                *cookie = entry.cookie;
                *left -= 1;
                if *left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if let Some(next) = next {
                *cookie = next;
                stopped = true;
            }
            failed.map_or(Ok(()), Err)
        })
        .during(format_args!("list the directory with inode {}", dir.0))?;
    Ok(!stopped)
}

/// Fills a frame with runs of a file; true if these are the last.
fn extents<M: Platform>(
    machine: &mut M,
    ino: Ino,
    from: &mut u64,
    end: u64,
    left: &mut u64,
    frame: &mut ItemsWriter<'_>,
) -> Result<bool, Failure> {
    let mut pending: Option<rpc::Extent> = None;
    let mut looked = 0;
    while *left > 0 && *from < end && looked < EXTENTS_A_STEP {
        looked += 1;
        let block = FileBlock(*from);
        let run = machine
            .volume(|v| v.extent(ino, block))
            .during(format_args!("list the extents of inode {} at block {}", ino.0, *from))?;
        let Some(run) = run else {
            // Beyond the end of the file.
            *from = end;
            break;
        };
        // A run that starts later leaves a hole before it; one that is empty would never end.
        let stop = run.start.0.saturating_add(run.blocks).min(end);
        let (stop, run) = if run.start.0 > *from {
            (run.start.0.min(end), None)
        } else {
            (stop.max(*from + 1), Some(run))
        };
        let skipped = run.map_or(0, |r| *from - r.start.0);
        let next = rpc::Extent {
            offset: from.saturating_mul(BLOCK_SIZE),
            len: (stop - *from).saturating_mul(BLOCK_SIZE),
            // Nobody is to read lost bytes from an image of the NVDIMM.
            block: run.filter(|r| !r.bad).and_then(|r| r.at).map(|b| b.0 + skipped),
            unwritten: run.is_some_and(|r| r.unwritten),
            shared: run.is_some_and(|r| r.shared),
            bad: run.is_some_and(|r| r.bad),
        };
        match &mut pending {
            Some(before) if goes_on(before, &next) => before.len += next.len,
            Some(before) => {
                if !frame.push(before) {
                    // It comes again with the next frame.
                    *from = before.offset / BLOCK_SIZE;
                    return Ok(false);
                }
                *left -= 1;
                pending = (*left > 0).then_some(next);
            }
            None => pending = Some(next),
        }
        if pending.is_none() {
            return Ok(true);
        }
        *from = stop;
    }
    if let Some(last) = pending {
        if !frame.push(&last) {
            *from = last.offset / BLOCK_SIZE;
            return Ok(false);
        }
        *left = left.saturating_sub(1);
    }
    Ok(*left == 0 || *from >= end)
}

/// Whether a run is the continuation of another on media too.
fn goes_on(before: &rpc::Extent, next: &rpc::Extent) -> bool {
    before.unwritten == next.unwritten
        && before.shared == next.shared
        && before.bad == next.bad
        && match (before.block, next.block) {
            (None, None) => true,
            (Some(a), Some(b)) => a + before.len / BLOCK_SIZE == b,
            _ => false,
        }
}
