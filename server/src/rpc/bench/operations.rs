//! The operations of a filesystem, each for itself: those that `tests/peers/xfs/bench.c` measures
//! on Linux, in the same order, by the same names, on the same amounts.

use super::rig::{Bench, PIECE, no_memory, path, paths};
use crate::platform::{Platform, reclaim_step};
use crate::rpc::failure::{During, Failure};
use alloc::vec::Vec;
use umbra_fs::memory::{filled, with_room};
use umbra_fs::{BLOCK_SIZE, Ino};

const CLONES: u64 = 64;
const NAMES: u64 = 500;
/// A stride that has no factor in common with the number of pages: it reaches all of them.
const STRIDE: u64 = 7919;

/// Measures all of them on a file of `mib` MiB.
#[allow(clippy::disallowed_methods, reason = "there is room for all clones")]
pub(super) fn run<M: Platform>(b: &mut Bench<'_, M>, mib: u64) -> Result<(), Failure> {
    let mib = mib.clamp(2, 4096);
    let size = mib << 20;
    let pages = size / BLOCK_SIZE;
    let (np, nr) = (pages.min(4096), pages.min(2048));
    let large = 2 << 20;
    let dedupe = size.min(16 << 20);
    // The file, what its clones copy of it, and two copies of the range that is shared again.
    b.prepare(pages + 2 * np + 3 * nr + 2 * dedupe / BLOCK_SIZE + 2048)?;
    let mut buffer = filled(PIECE, 0x41).map_err(no_memory)?;
    let random = |i: u64| (i * STRIDE) % pages * BLOCK_SIZE;

    let golden = path("a")?;
    let a = b.create(&golden)?;
    b.time("seq_write_2MiB", size / large, |b| {
        b.fill(a, size, &buffer)?;
        b.sync(a)
    })?;
    let window = b.open(a)?;
    b.time("seq_read_2MiB", size / large, |b| {
        (0..size).step_by(PIECE).try_for_each(|at| b.read(window, at, &mut buffer))
    })?;
    b.time("rand_read_4K", 2000, |b| {
        (0..2000).try_for_each(|i| b.read(window, random(i), &mut buffer[..BLOCK_SIZE as usize]))
    })?;
    b.close(window)?;
    let block = filled(BLOCK_SIZE as usize, 0x41).map_err(no_memory)?;
    b.time("rand_write_4K_unshared", 2000, |b| {
        (0..2000).try_for_each(|i| b.write(a, random(i), &block))
    })?;
    let names = paths("c", 0..CLONES)?;
    let mut clones: Vec<Ino> = with_room(names.len()).map_err(no_memory)?;
    b.time("clone_contiguous", CLONES, |b| {
        names.iter().try_for_each(|name| b.clone(&golden, name).map(|ino| clones.push(ino)))
    })?;

    faults(b, &clones, pages)?;
    let fragmented = paths("f", 0..16)?;
    b.time("clone_fragmented_2048ext", 16, |b| {
        fragmented.iter().try_for_each(|name| b.clone(&names[2], name).map(drop))
    })?;
    b.time("pwrite_4K_cow", 2000, |b| {
        (0..2000).try_for_each(|i| b.write(clones[3], random(i), &block))
    })?;
    b.time("pwrite_4K_cow_fsync", 200, |b| {
        (0..200).try_for_each(|i| {
            b.write(clones[4], (i * STRIDE + 13) % pages * BLOCK_SIZE, &block)?;
            b.sync(clones[4])
        })
    })?;

    let d = b.create(&path("d")?)?;
    b.fill(d, dedupe, &buffer)?;
    b.fill(clones[5], dedupe, &buffer)?;
    b.time("dedupe_compare_16MiB", 1, |b| {
        let during = || format_args!("dedupe");
        let mut work =
            b.machine.volume(|v| v.dedupe(clones[5], 0, d, 0, dedupe)).during(during())?;
        while b.machine.volume(|v| v.dedupe_step(&mut work)).during(during())?.is_none() {}
        Ok(())
    })?;

    let new = paths("n", 0..NAMES)?;
    b.time("create", NAMES, |b| new.iter().try_for_each(|name| b.create(name).map(drop)))?;
    b.time("unlink", NAMES, |b| new.iter().try_for_each(|name| b.unlink(name)))?;
    b.time("unlink_clone", CLONES, |b| names.iter().try_for_each(|name| b.unlink(name)))?;
    // What unlinking leaves to the background, for each clone.
    b.time("reclaim_clone", CLONES, |b| {
        while reclaim_step(b.machine).during(format_args!("reclaim"))? {}
        Ok(())
    })
}

/// Loads and stores through windows of clones: the first five, and the seventh, of a file of so
/// many pages.
fn faults<M: Platform>(b: &mut Bench<'_, M>, clones: &[Ino], pages: u64) -> Result<(), Failure> {
    let (np, nr) = (pages.min(4096), pages.min(2048));
    let window = b.open(clones[0])?;
    b.time("mmap_read_fault_shared", np, |b| b.touch(window, 0..np, None))?;
    b.time("mmap_cow_fault_ro_mapped", np, |b| b.touch(window, 0..np, Some(1)))?;
    b.close(window)?;
    let window = b.open(clones[1])?;
    b.time("mmap_cow_fault_unmapped", np, |b| b.touch(window, 0..np, Some(1)))?;
    b.time("mmap_store_after_cow", np, |b| b.touch(window, 0..np, Some(2)))?;
    b.time("msync_per_page", np, |b| b.sync(clones[1]))?;
    b.time("mmap_rewrite_after_msync", np, |b| b.touch(window, 0..np, Some(3)))?;
    b.close(window)?;
    private_leaves(b, clones[6], np)?;
    let window = b.open(clones[2])?;
    b.time("mmap_cow_fault_random", nr, |b| {
        b.touch(window, (0..nr).map(|i| i * STRIDE % pages), Some(1))
    })?;
    b.close(window)?;
    Ok(())
}

/// Copy-on-write faults alone: the leaf above the pages is the file's own already, and all pages
/// are shown.
fn private_leaves<M: Platform>(
    b: &mut Bench<'_, M>,
    clone: Ino,
    pages: u64,
) -> Result<(), Failure> {
    let window = b.open(clone)?;
    let leaf = umbra_fs::dax::PAGES_PER_SLOT as u64;
    b.touch(window, (0..pages).step_by(leaf as usize), Some(1))?;
    b.touch(window, 0..pages, None)?;
    let shared = pages - pages.div_ceil(leaf);
    let rest = (0..pages).filter(|page| page % leaf != 0);
    b.time("mmap_cow_fault_private_leaf", shared, |b| b.touch(window, rest, Some(1)))?;
    b.close(window)
}
