//! The real fault path, on two files that exist for the time being.

use super::{Cost, median, ratio, time};
use crate::arch::clock;
use crate::dax::{self, Processor, Volume};
use crate::mm::PAGE;
use crate::nvdimm::{self, WriteCounts};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use umbra_fs::dax::{Machine, PAGES_PER_SLOT, Slot};
use umbra_fs::{Error, FileBlock, Ino, Pmem, Window};

const SOURCE: &[u8] = b"measure-source.tmp";
const CLONE: &[u8] = b"measure-clone.tmp";
/// The first page of a leaf is stored to before, so that the leaf is private.
const PAGES: u64 = PAGES_PER_SLOT as u64 - 1;
/// Blocks that are touched beforehand: more than all runs together allocate.
const WARM: u64 = 32 << 10;

fn volume<R>(f: impl FnOnce(&mut Volume) -> Result<R, Error>) -> Result<R, String> {
    Processor::new().ok_or("no volume")?.volume(f).map_err(|why| why.to_string())
}

/// Removes a file if it is there, and drives its reclaiming to the end.
fn remove(name: &[u8]) -> Result<(), String> {
    volume(|v| match v.unlink(v.root(), name, clock::wall()) {
        Err(Error::NotFound) => Ok(()),
        other => other,
    })?;
    while volume(|v| v.reclaim_step())? {}
    Ok(())
}

/// Touches the blocks behind a file's last one, which are allocated next, so that the host has
/// memory for them.
fn warm(source: Ino) -> Result<(), String> {
    volume(|v| {
        let last = v.extent(source, FileBlock(PAGES))?.and_then(|run| run.at);
        let (first, end) = (last.map_or(0, |block| block.0), v.pmem().len() / PAGE);
        // The volume is held, so nobody stores meanwhile.
        (first..end.min(first + WARM)).for_each(|block| nvdimm::rewrite_word(block * PAGE));
        Ok(())
    })
}

/// A fresh clone of the source, in a window of its own.
fn clone(source: Ino) -> Result<(Ino, Window, Slot), String> {
    remove(CLONE)?;
    volume(|v| {
        let ino = v.clone_file(source, v.root(), CLONE, clock::wall())?;
        let window = v.open_window(ino)?;
        Ok((ino, window, v.attach(window, 0)?))
    })
}

fn close(window: Window) -> Result<(), String> {
    volume(|v| v.close_window(window))
}

fn pages(slot: Slot) -> impl Iterator<Item = u64> {
    (1..PAGES_PER_SLOT).map(move |index| dax::address_of(slot.page(index)))
}

/// Loads from all pages but the first.
fn load(slot: Slot) {
    for at in pages(slot) {
        // SAFETY: a page of an open window within its file; the fault path maps it.
        unsafe { (at as *const u64).read_volatile() };
    }
}

/// Stores to all pages but the first.
fn store(slot: Slot) {
    for at in pages(slot) {
        // SAFETY: as in `load`; there is space, or the fault path reports that it failed.
        unsafe { (at as *mut u64).write_volatile(at) };
    }
}

/// Stores to the first page.
fn store_first(slot: Slot) {
    // SAFETY: as in `store`.
    unsafe { (dax::address_of(slot.page(0)) as *mut u64).write_volatile(1) };
}

fn per_fault(before: WriteCounts, after: WriteCounts) -> (u64, u64) {
    ((after.flushes - before.flushes) / PAGES, (after.fences - before.fences) / PAGES)
}

/// Measures against `floor`: a bare page fault with a copy of 4 KiB.
pub(super) fn run(line: &mut dyn FnMut(&str), floor: Cost) -> Result<(), String> {
    if !dax::is_served() {
        line("no volume is served: the fault path was not measured");
        return Ok(());
    }
    let result = measure(line, floor);
    remove(CLONE)?;
    remove(SOURCE)?;
    result
}

fn measure(line: &mut dyn FnMut(&str), floor: Cost) -> Result<(), String> {
    remove(SOURCE)?;
    let block = vec![0x5a; PAGE as usize];
    let source = volume(|v| v.create(v.root(), SOURCE, 0o600, clock::wall()))?;
    for index in 0..u64::from(PAGES_PER_SLOT) {
        let written = volume(|v| v.write(source, index * PAGE, &block, clock::wall()))?;
        if written < block.len() {
            return Err(Error::NoSpace.to_string());
        }
    }
    warm(source)?;
    let read = median(|| {
        let (_, window, slot) = clone(source)?;
        let cost = time(PAGES, || load(slot));
        close(window)?;
        Ok(cost)
    })?;
    line(&format!("load from a page not shown yet, neighbours filled in: {read} a page"));
    let first = median(|| {
        let (_, window, slot) = clone(source)?;
        let cost = time(1, || store_first(slot));
        close(window)?;
        Ok(cost)
    })?;
    line(&format!("first store to a clone (its leaf is copied too): {first}"));
    let mut counts = (0, 0);
    let copy = median(|| {
        let (_, window, slot) = clone(source)?;
        store_first(slot);
        load(slot);
        let before = nvdimm::counts();
        let cost = time(PAGES, || store(slot));
        counts = per_fault(before, nvdimm::counts());
        close(window)?;
        Ok(cost)
    })?;
    line(&format!(
        "store to a shared page, leaf private: {copy}, {} lines flushed, {} fences; {} times the floor",
        counts.0,
        counts.1,
        ratio(copy, floor)
    ));
    let grant = median(|| {
        let (ino, window, slot) = clone(source)?;
        store_first(slot);
        store(slot);
        volume(|v| v.sync(ino))?;
        let before = nvdimm::counts();
        let cost = time(PAGES, || store(slot));
        counts = per_fault(before, nvdimm::counts());
        close(window)?;
        Ok(cost)
    })?;
    line(&format!(
        "store to a page of one's own after sync: {grant}, {} lines, {} fences",
        counts.0, counts.1
    ));
    Ok(())
}
