//! Unwritten blocks: space that a file has and that reads as zeros. What is written or stored there
//! is filled in place, and needs no free block.

use umbra_fs::dax;
use umbra_fs::testing::{MemPmem, SoftMachine, SoftMmu, free_blocks, mount, new_volume};
use umbra_fs::{Block, Error, Extent, FileBlock, Ino, Time, Volume};

type Soft = Volume<MemPmem, SoftMmu>;

const NOW: Time = Time(1);
const PAGE: u64 = 4096;
const LEAF: u64 = 512 * PAGE;

/// A volume whose free blocks hold something: what is not filled is seen.
fn volume() -> Soft {
    let mut volume = new_volume(16 << 20, 4);
    for block in free_blocks(&mut volume).unwrap() {
        use umbra_fs::Pmem;
        volume.pmem_mut().write(block.0 * PAGE, &[0xee; PAGE as usize]);
    }
    volume
}

fn provided(volume: &mut Soft, name: &[u8], size: u64) -> Ino {
    let ino = volume.create(volume.root(), name, 0o600, NOW).unwrap();
    volume.truncate(ino, size, NOW).unwrap();
    provide(volume, ino, 0, size);
    ino
}

fn provide(volume: &mut Soft, ino: Ino, offset: u64, len: u64) {
    let mut done = 0;
    while done < len {
        done += volume.provide_zeros(ino, offset + done, len - done, NOW).unwrap();
    }
}

/// Takes every block that a file can get.
fn fill(volume: &mut Soft) -> Ino {
    let ino = volume.create(volume.root(), b"filler", 0o600, NOW).unwrap();
    let mut at = 0;
    while let Ok(written) = volume.write(ino, at, &[1; PAGE as usize], NOW) {
        at += written as u64;
    }
    assert_eq!(volume.write(ino, at, &[1; PAGE as usize], NOW), Err(Error::NoSpace));
    ino
}

fn extent(volume: &Soft, ino: Ino, block: u64) -> Extent {
    volume.extent(ino, FileBlock(block)).unwrap().unwrap()
}

fn places(volume: &Soft, ino: Ino, size: u64) -> Vec<Block> {
    (0..size.div_ceil(PAGE)).map(|block| extent(volume, ino, block).at.unwrap()).collect()
}

fn content(volume: &Soft, ino: Ino, size: u64) -> Vec<u8> {
    let mut bytes = vec![0xaa; size as usize];
    assert_eq!(volume.read(ino, 0, &mut bytes), Ok(bytes.len()));
    bytes
}

/// What was provided can be written, whole blocks and parts of them, and stored to, when nothing is
/// free: in trees of each height that fits, and where leaves end.
#[test]
fn what_was_provided_is_written_and_stored_on_a_full_volume() {
    for size in [3000, PAGE, 5 * PAGE + 700, LEAF + 6 * PAGE] {
        for by_store in [false, true] {
            let mut volume = volume();
            let ino = provided(&mut volume, b"f", size);
            let other = provided(&mut volume, b"whole", size);
            let before = places(&volume, ino, size);
            assert!(content(&volume, ino, size).iter().all(|&byte| byte == 0));
            for block in 0..size.div_ceil(PAGE) {
                let Extent { unwritten, shared, .. } = extent(&volume, ino, block);
                assert!(unwritten && !shared, "block {block} of {size} bytes");
            }
            fill(&mut volume);
            let free = volume.space().free;
            let [window, beside] = [(); 2].map(|()| volume.open_window(ino).unwrap());
            let mut machine = SoftMachine { volume };
            let mut expected = vec![0; size as usize];
            for block in 0..size.div_ceil(PAGE) {
                // The zero page is shown to somebody else when the block gets its content.
                let mut byte = [1];
                dax::load(&mut machine, beside, block * PAGE, &mut byte).unwrap();
                assert_eq!(byte, [0]);
                let at = block * PAGE + block % 100 * 8;
                let bytes = vec![block as u8 | 1; (300 + block % 70).min(size - at) as usize];
                match by_store {
                    true => dax::store(&mut machine, window, at, &bytes).unwrap(),
                    false => {
                        assert_eq!(machine.volume.write(ino, at, &bytes, NOW), Ok(bytes.len()))
                    }
                }
                expected[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
                let found = extent(&machine.volume, ino, block);
                assert_eq!((found.unwritten, found.at), (false, Some(before[block as usize])));
                let mut seen = vec![0; bytes.len()];
                dax::load(&mut machine, beside, at, &mut seen).unwrap();
                assert!(seen == bytes, "block {block} through another window");
            }
            assert!(content(&machine.volume, ino, size) == expected, "{size} bytes");
            // Whole blocks, many with one write.
            let mut volume = machine.volume;
            assert_eq!(volume.write(other, 0, &expected, NOW), Ok(expected.len()));
            assert!(content(&volume, other, size) == expected);
            assert_eq!(volume.space().free, free, "no block was taken");
            volume.sync(ino).unwrap();
            assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
            let again: Soft = mount(volume.pmem().clone(), 4).unwrap();
            assert!(content(&again, ino, size) == expected && again.was_rebuilt());
        }
    }
}

/// Blocks that are a file's own are marked, so that takes no free block either, and nothing of what
/// they contained comes back.
#[test]
fn zeros_are_provided_over_content_on_a_full_volume() {
    let mut volume = volume();
    let (ino, size) = (volume.create(volume.root(), b"f", 0o600, NOW).unwrap(), LEAF + 9 * PAGE);
    volume.write(ino, 0, &vec![7; size as usize], NOW).unwrap();
    let before = places(&volume, ino, size);
    fill(&mut volume);
    let free = volume.space().free;
    let window = volume.open_window(ino).unwrap();
    let mut machine = SoftMachine { volume };
    // One page is shown, one is dirty.
    dax::load(&mut machine, window, PAGE, &mut [0; 8]).unwrap();
    dax::store(&mut machine, window, 2 * PAGE, &[8; 8]).unwrap();
    let (from, to) = (PAGE - 100, size - PAGE - 50);
    provide(&mut machine.volume, ino, from, to - from);
    let mut expected = vec![7; size as usize];
    expected[from as usize..to as usize].fill(0);
    assert!(content(&machine.volume, ino, size) == expected);
    let mut seen = vec![1; size as usize];
    dax::load(&mut machine, window, 0, &mut seen).unwrap();
    assert!(seen == expected, "through the window");
    assert_eq!(places(&machine.volume, ino, size), before);
    // The first and the last one have content still.
    let marked = |volume: &Soft, block| extent(volume, ino, block).unwritten;
    let last = to / PAGE;
    for block in 0..size / PAGE {
        assert_eq!(marked(&machine.volume, block), (1..last).contains(&block), "block {block}");
    }
    assert_eq!(machine.volume.space().free, free);
    // Part of what is there comes back with none of what was there before.
    dax::store(&mut machine, window, 2 * PAGE + 8, &[9; 8]).unwrap();
    machine.volume.write(ino, 3 * PAGE + 8, &[9; 8], NOW).unwrap();
    for block in [2, 3] {
        let at = (block * PAGE + 8) as usize;
        expected[at..at + 8].fill(9);
    }
    assert!(content(&machine.volume, ino, size) == expected);
    let report = machine.volume.check().unwrap();
    assert_eq!(report.issues, Vec::<String>::new());
}

/// A clone shares unwritten blocks. Whoever writes first gets a block of zeros of its own; the last
/// owner fills the one that there is.
#[test]
fn unwritten_blocks_are_shared_and_copied_as_zeros() {
    let mut volume = volume();
    let (ino, size) = (provided(&mut volume, b"f", 3 * PAGE), 3 * PAGE);
    let root = volume.root();
    let clone = volume.clone_file(ino, root, b"clone", NOW).unwrap();
    let before = places(&volume, ino, size);
    assert_eq!(places(&volume, clone, size), before);
    volume.write(ino, 100, &[5; 50], NOW).unwrap();
    let window = volume.open_window(ino).unwrap();
    let mut machine = SoftMachine { volume };
    dax::store(&mut machine, window, PAGE + 100, &[6; 50]).unwrap();
    let mut expected = vec![0; size as usize];
    expected[100..150].fill(5);
    expected[PAGE as usize + 100..PAGE as usize + 150].fill(6);
    let mut volume = machine.volume;
    assert!(content(&volume, ino, size) == expected);
    assert!(content(&volume, clone, size).iter().all(|&byte| byte == 0));
    let after = places(&volume, ino, size);
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2]);
    assert_eq!(places(&volume, clone, size), before);
    // Provided anew, the one that is shared is the file's own then.
    assert!(extent(&volume, ino, 2).shared);
    provide(&mut volume, ino, 0, size);
    for block in 0..3 {
        let Extent { unwritten, shared, .. } = extent(&volume, ino, block);
        assert!(unwritten && !shared, "block {block}");
    }
    volume.write(clone, 0, &vec![8; size as usize], NOW).unwrap();
    assert_eq!(places(&volume, clone, size), before, "the last owner fills what there is");
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}

/// Two fences for a block that is filled where it is, as for a new one; one for marks alone.
#[test]
fn fences_of_what_is_filled_in_place() {
    let mut volume = volume();
    let ino = provided(&mut volume, b"f", 8 * PAGE);
    let window = volume.open_window(ino).unwrap();
    let mut machine = SoftMachine { volume };
    let fences = |machine: &SoftMachine<MemPmem>| machine.volume.pmem().fences;
    let mut before = fences(&machine);
    let mut spent = |machine: &SoftMachine<MemPmem>| {
        let spent = fences(machine) - before;
        before += spent;
        spent
    };
    dax::store(&mut machine, window, 5, &[1]).unwrap();
    assert_eq!(spent(&machine), 2, "a store");
    machine.volume.write(ino, PAGE + 5, &vec![1; 3 * PAGE as usize], NOW).unwrap();
    assert_eq!(spent(&machine), 2, "a write to four blocks");
    provide(&mut machine.volume, ino, 0, 8 * PAGE);
    assert_eq!(spent(&machine), 1, "marks");
    provide(&mut machine.volume, ino, 0, 8 * PAGE);
    assert_eq!(spent(&machine), 0, "nothing to do");
    let faults = machine.volume.pages(None).unwrap().faults;
    assert_eq!((faults.cow, faults.failed), (1, 0));
}
