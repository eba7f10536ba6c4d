//! One operation while something grows: files, fragments, clones, directories.

use super::rig::{Bench, no_memory, path, paths};
use crate::platform::Platform;
use crate::rpc::failure::{During, Failure};
use crate::text::Shown;
use alloc::vec::Vec;
use umbra_fs::dax::PAGES_PER_SLOT;
use umbra_fs::memory::{filled, push};
use umbra_fs::{BLOCK_SIZE, Ino, MAX_FILE_SIZE};
use umbra_proto::rpc::ErrorCode;

const LEAF: u64 = PAGES_PER_SLOT as u64;
const LEAF_SIZE: u64 = LEAF * BLOCK_SIZE;
/// Clones, faults and names that a sample is the mean of.
const CLONES: u64 = 64;
const NAMES: u64 = 500;

/// Runs a part, with what grows at `n`.
pub(super) fn run<M: Platform>(b: &mut Bench<'_, M>, part: &str, n: u64) -> Result<(), Failure> {
    match part {
        "clone-size" => clone_size(b, n),
        "clone-fragments" => clone_fragments(b, n),
        "fault-clones" => fault_clones(b, n),
        "fault-shadows" => fault_shadows(b, n),
        "fault-size" => fault_size(b, n),
        "directory" => directory(b, n),
        _ => Err(Failure::new(
            ErrorCode::UNSUPPORTED,
            format_args!("there is no benchmark {}", Shown(part.as_bytes())),
        )),
    }
}

/// A file of this size without holes; what is beyond 2 MiB is the same 2 MiB again and again.
fn file<M: Platform>(b: &mut Bench<'_, M>, size: u64) -> Result<Ino, Failure> {
    let size = size.clamp(BLOCK_SIZE, MAX_FILE_SIZE) / BLOCK_SIZE * BLOCK_SIZE;
    b.prepare(4096)?;
    let ino = b.create(&path("file")?)?;
    let mut have = size.min(LEAF_SIZE);
    let piece = filled(have.min(64 << 10) as usize, 0x41).map_err(no_memory)?;
    b.fill(ino, have, &piece)?;
    while have < size {
        let more = have.min(size - have);
        let now = b.machine.now();
        b.machine
            .volume(|v| v.clone_range(ino, 0, ino, have, more, now))
            .during(format_args!("grow a file"))?;
        have += more;
    }
    while crate::platform::reclaim_step(b.machine).during(format_args!("reclaim"))? {}
    Ok(ino)
}

fn clones<M: Platform>(b: &mut Bench<'_, M>) -> Result<(), Failure> {
    let (file, names) = (path("file")?, paths("c", 0..CLONES)?);
    // Making a large file has left the caches cold.
    paths("w", 0..CLONES)?.iter().try_for_each(|name| b.clone(&file, name).map(drop))?;
    b.time("clone", CLONES, |b| names.iter().try_for_each(|name| b.clone(&file, name).map(drop)))
}

fn clone_size<M: Platform>(b: &mut Bench<'_, M>, size: u64) -> Result<(), Failure> {
    file(b, size)?;
    clones(b)
}

/// A file of as many extents: every second block is copied.
fn clone_fragments<M: Platform>(b: &mut Bench<'_, M>, extents: u64) -> Result<(), Failure> {
    let ino = file(b, extents.clamp(1, 1 << 18) * BLOCK_SIZE)?;
    b.prepare(extents + 4096)?;
    for block in (0..extents).step_by(2) {
        b.write(ino, block * BLOCK_SIZE, &[0x42; BLOCK_SIZE as usize])?;
    }
    clones(b)
}

/// Copy-on-write faults of one leaf, private before; then of one that is not.
fn faults<M: Platform>(b: &mut Bench<'_, M>, ino: Ino) -> Result<(), Failure> {
    b.prepare(4096)?;
    let window = b.open(ino)?;
    b.time("first_store", 1, |b| b.touch(window, 0..1, Some(1)))?;
    b.touch(window, 0..LEAF, None)?;
    b.time("cow_fault", LEAF - 1, |b| b.touch(window, 1..LEAF, Some(1)))?;
    b.close(window)
}

/// A fault on the last of `n` clones.
fn fault_clones<M: Platform>(b: &mut Bench<'_, M>, n: u64) -> Result<(), Failure> {
    file(b, LEAF_SIZE)?;
    let mut last = Ino(0);
    for i in 0..n.clamp(1, 100_000) {
        last = b.clone(&path("file")?, &path(format_args!("c{i}"))?)?;
    }
    faults(b, last)
}

/// A fault on the last clone of a file, while `n` others show the same blocks.
fn fault_shadows<M: Platform>(b: &mut Bench<'_, M>, n: u64) -> Result<(), Failure> {
    file(b, LEAF_SIZE)?;
    for name in paths("c", 0..n.clamp(1, 100_000))? {
        let ino = b.clone(&path("file")?, &name)?;
        let window = b.open(ino)?;
        // The first load shows some pages, the second all.
        b.touch(window, [0, LEAF - 1].into_iter(), None)?;
    }
    let last = b.clone(&path("file")?, &path("last")?)?;
    faults(b, last)
}

/// A fault in a clone of a file of this size.
fn fault_size<M: Platform>(b: &mut Bench<'_, M>, size: u64) -> Result<(), Failure> {
    file(b, size.max(LEAF_SIZE))?;
    let clone = b.clone(&path("file")?, &path("c")?)?;
    faults(b, clone)
}

/// Looks names up, and makes and removes some, in a directory of `n` names.
fn directory<M: Platform>(b: &mut Bench<'_, M>, n: u64) -> Result<(), Failure> {
    b.prepare(n / 20 + 4096)?;
    let dir = path("dir")?;
    let now = b.machine.now();
    b.machine
        .volume(|v| {
            let (parent, name) = v.resolve_parent(&dir)?;
            v.mkdir(parent, name, 0o755, now)
        })
        .during(format_args!("make the directory {}", Shown(&dir)))?;
    for i in 0..n {
        b.create(&path(format_args!("dir/{i}"))?)?;
    }
    let mut known = Vec::new();
    for i in 0..NAMES {
        let path = path(format_args!("dir/{}", i * 7919 % n.max(1)))?;
        push(&mut known, path).map_err(no_memory)?;
    }
    b.time("lookup", NAMES, |b| {
        known.iter().try_for_each(|path| {
            b.machine.volume(|v| v.resolve(path)).map(drop).during(format_args!("look a name up"))
        })
    })?;
    let new = paths("dir/", n..n + NAMES)?;
    b.time("create", NAMES, |b| new.iter().try_for_each(|path| b.create(path).map(drop)))?;
    b.time("unlink", NAMES, |b| new.iter().try_for_each(|path| b.unlink(path)))
}
