//! Writes beside stores through windows, on full volumes, and to what has become a file's own.

use std::collections::BTreeMap;
use umbra_fs::dax;
use umbra_fs::testing::{
    Event, LogPmem, MemPmem, SoftMachine, SoftMmu, free_blocks, mount, new_volume,
};
use umbra_fs::{Block, Error, FileBlock, Ino, LENT_RUN, Lending, Pmem, Time, Volume};

const NOW: Time = Time(1);
const PAGE: u64 = 4096;
const LEAF: u64 = 512 * PAGE;

/// Lines that are not durable after these events.
fn undecided(events: &[Event]) -> Vec<u64> {
    let mut flushed = BTreeMap::new();
    for event in events {
        match *event {
            Event::Store { at, .. } => drop(flushed.insert(at / 64, false)),
            Event::Flush { line, .. } => drop(flushed.entry(line / 64).and_modify(|f| *f = true)),
            Event::Fence { .. } => flushed.retain(|_, flushed| !*flushed),
        }
    }
    flushed.into_keys().collect()
}

/// Lines of the blocks that a file refers to.
fn lines_of(volume: &Volume<LogPmem, SoftMmu>, ino: Ino) -> Vec<u64> {
    let mut lines = Vec::new();
    let mut at = 0;
    while let Some(run) = volume.extent(ino, FileBlock(at)).unwrap() {
        if let Some(first) = run.at {
            lines.extend(first.0 * PAGE / 64..(first.0 + run.blocks) * PAGE / 64);
        }
        at += run.blocks;
    }
    lines
}

/// A write that leaves a block in place and replaces another must not take the one for clean that
/// somebody stored to through a window.
#[test]
fn what_was_stored_beside_a_write_is_durable_after_sync() {
    // What is a hole when the write comes, and what is written.
    for (hole, offset, len) in [
        (1, 100, 2 * PAGE - 100),
        (1, 100, 5 * PAGE),
        (0, PAGE, 3 * PAGE + 5),
        (2, 2 * PAGE, 2 * PAGE + 5),
        (1, PAGE, PAGE),
    ] {
        let mut memory = MemPmem::new(16 << 20);
        Volume::<_, SoftMmu>::format(&mut memory, umbra_fs::testing::FORMAT).unwrap();
        let pmem = LogPmem::new(memory);
        let mut volume = mount(pmem.clone(), 4).unwrap();
        let ino = volume.create(volume.root(), b"f", 0o600, NOW).unwrap();
        volume.write(ino, 0, &[1; 8 * PAGE as usize], NOW).unwrap();
        assert_eq!(volume.punch(ino, hole * PAGE, PAGE, NOW), Ok(PAGE));
        let window = volume.open_window(ino).unwrap();
        let mut machine = SoftMachine { volume };
        pmem.start_trace(None);
        for block in (0..8).filter(|&block| block != hole) {
            for at in [0, PAGE - 8] {
                dax::store(&mut machine, window, block * PAGE + at, &[2; 8]).unwrap();
            }
        }
        machine.volume.write(ino, offset, &vec![3; len as usize], NOW).unwrap();
        machine.volume.sync(ino).unwrap();
        let lost = undecided(&pmem.stop_trace());
        let lines = lines_of(&machine.volume, ino);
        let lost: Vec<_> = lost.into_iter().filter(|line| lines.contains(line)).collect();
        assert!(
            lost.is_empty(),
            "hole {hole}, {len} bytes at {offset}: lines {lost:?} are not durable"
        );
    }
}

/// The last owner copies nothing, even if it was not the last when its page was first looked at.
#[test]
fn what_reclaiming_makes_exclusive_is_not_copied() {
    let mut volume = new_volume(32 << 20, 4);
    let root = volume.root();
    let a = volume.create(root, b"a", 0o600, NOW).unwrap();
    for at in (0..2 * LEAF).step_by(1 << 20) {
        volume.write(a, at, &vec![1; 1 << 20], NOW).unwrap();
    }
    let b = volume.clone_file(a, root, b"b", NOW).unwrap();
    volume.write(b, 0, &[2; PAGE as usize], NOW).unwrap();
    let window = volume.open_window(a).unwrap();
    volume.unlink(root, b"b", NOW).unwrap();
    let mut machine = SoftMachine { volume };
    let mut byte = [0];
    dax::load(&mut machine, window, LEAF, &mut byte).unwrap();
    let free = free_blocks(&mut machine.volume).unwrap().len();
    dax::store(&mut machine, window, LEAF, &[3]).unwrap();
    let faults = machine.volume.pages(None).unwrap().faults;
    assert_eq!((faults.cow, faults.write), (0, 1), "the block was the file's own");
    assert_eq!(free_blocks(&mut machine.volume).unwrap().len(), free);
}

/// What is the file's own can be overwritten when nothing is free.
#[test]
fn a_full_volume_can_be_overwritten_in_place() {
    let mut volume = new_volume(8 << 20, 4);
    let ino = volume.create(volume.root(), b"f", 0o600, NOW).unwrap();
    let mut size = 0;
    let full = loop {
        match volume.write(ino, size, &[1; 64 << 10], NOW) {
            Ok(written) => size += written as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(full, Error::NoSpace);
    assert!(size > 4 << 20);
    let (again, at) = (vec![2; 3 * PAGE as usize + 50], LEAF - PAGE - 17);
    assert_eq!(volume.write(ino, at, &again, NOW), Ok(again.len()));
    let mut bytes = vec![0; again.len() + 2];
    volume.read(ino, at - 1, &mut bytes).unwrap();
    assert_eq!((bytes[0], &bytes[1..=again.len()], bytes[again.len() + 1]), (1, &again[..], 1));
}

/// A block that a file took over and dropped again is free, but not lent once more before the run
/// that it was in is given back: it would be given back with that, while the device has it.
#[test]
fn no_block_is_lent_twice() {
    let mut volume = new_volume(8 << 20, 4);
    let root = volume.root();
    let run = volume.lend().unwrap();
    let f = volume.create(root, b"f", 0o600, NOW).unwrap();
    let bytes = vec![7; LENT_RUN as usize * PAGE as usize];
    volume.pmem_mut().write(run.0 * PAGE, &bytes);
    assert_eq!(volume.write_received(f, 0, &bytes, run, NOW), Ok(bytes.len()));
    assert_eq!(volume.lending(), Lending { lent: 0, taken_over: LENT_RUN });
    // Of all else, but for the reserve, every other block is taken.
    let tail = volume.create(root, b"tail", 0o600, NOW).unwrap();
    let mut at = 0;
    while let Ok(written) = volume.write(tail, at, &[1; PAGE as usize], NOW) {
        at += written as u64;
    }
    for block in (0..at / PAGE).step_by(2) {
        volume.punch(tail, block * PAGE, PAGE, NOW).unwrap();
    }
    volume.truncate(f, 0, NOW).unwrap();
    while volume.reclaim_step().unwrap() {}
    let free = volume.space().free;
    let overlaps = |other: &Block| other.0 < run.0 + LENT_RUN && run.0 < other.0 + LENT_RUN;
    let lend_all = |volume: &mut Volume<MemPmem, SoftMmu>| -> Vec<Block> {
        (0..free).filter_map(|_| volume.lend()).collect()
    };
    let all = lend_all(&mut volume);
    assert!(!all.iter().any(overlaps), "{all:?} beside {run:?}");
    assert_eq!((volume.lending().lent, volume.space().free), (all.len() as u64 * LENT_RUN, free));
    volume.take_back(run);
    assert_eq!(volume.lending().lent, all.len() as u64 * LENT_RUN);
    all.into_iter().for_each(|run| volume.take_back(run));
    assert!(lend_all(&mut volume).iter().any(overlaps), "now it can be lent");
    assert_eq!(volume.space().free, free);
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}

/// A volume that is full but for nodes takes what was received before.
#[test]
fn what_is_received_needs_no_blocks_but_those_it_is_in() {
    let mut volume = new_volume(8 << 20, 4);
    let root = volume.root();
    let f = volume.create(root, b"f", 0o600, NOW).unwrap();
    let bytes = vec![7; LENT_RUN as usize * PAGE as usize];
    let run = volume.lend().unwrap();
    volume.pmem_mut().write(run.0 * PAGE, &bytes);
    let filler = volume.create(root, b"filler", 0o600, NOW).unwrap();
    let mut at = 0;
    // Room for metadata is left, and for nothing else.
    while let Ok(written) = volume.write(filler, at, &[1; PAGE as usize], NOW) {
        at += written as u64;
    }
    assert_eq!(volume.write_received(f, 0, &bytes, run, NOW), Ok(bytes.len()));
    let taken_over = volume.lending().taken_over;
    assert_eq!(taken_over, LENT_RUN);
    volume.take_back(run);
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}

/// What is lent and comes back as it was is lent again, not the next that is free.
#[test]
fn a_run_that_nobody_wanted_is_lent_again() {
    let mut volume = new_volume(8 << 20, 4);
    let runs: Vec<Block> = (0..5).map(|_| volume.lend().unwrap()).collect();
    for _ in 0..100 {
        runs.iter().for_each(|&run| volume.take_back(run));
        let mut again: Vec<Block> = (0..5).map(|_| volume.lend().unwrap()).collect();
        again.sort();
        assert_eq!(again, runs);
    }
    // One that is in use meanwhile is passed over.
    volume.take_back(runs[2]);
    let f = volume.create(volume.root(), b"f", 0o600, NOW).unwrap();
    let mut at = 0;
    while let Ok(written) = volume.write(f, at, &[1; PAGE as usize], NOW) {
        at += written as u64;
    }
    volume.punch(f, 0, at / 2 / PAGE * PAGE, NOW).unwrap();
    while let Some(run) = volume.lend() {
        assert_ne!(run, runs[2]);
    }
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}
