//! Memory errors: a bad block costs what was in it, in the files that share it, and nothing else.

use umbra_fs::dax::{self, Access};
use umbra_fs::pmem::Poisoned;
use umbra_fs::testing::{
    MemPmem, SoftMachine, SoftMmu, free_blocks, mount, new_volume, twin_distance,
};
use umbra_fs::{BadBlockCounts, Block, Error, FileBlock, Ino, Pmem, Struck, Time, Volume};

type V = Volume<MemPmem, SoftMmu>;

const NOW: Time = Time(5);
const PAGE: u64 = 4096;
const ONE_NEW: Struck = Struck { new: 1, known: 0, superblocks: 0, derived: 0 };

/// A file of eight blocks, of which block `i` has bytes `i + 1`, and two clones.
fn cloned() -> (V, [Ino; 3]) {
    let mut volume = new_volume(8 << 20, 4);
    let root = volume.root();
    let file = volume.create(root, b"file", 0o600, NOW).unwrap();
    for block in 0..8 {
        volume.write(file, block * PAGE, &[block as u8 + 1; PAGE as usize], NOW).unwrap();
    }
    let clones = [b"one", b"two"].map(|name| volume.clone_file(file, root, name, NOW).unwrap());
    (volume, [file, clones[0], clones[1]])
}

fn block_of(volume: &V, ino: Ino, block: u64) -> Block {
    volume.extent(ino, FileBlock(block)).unwrap().unwrap().at.unwrap()
}

fn poisoned(block: Block) -> Error {
    Error::Poisoned(Poisoned { at: block.0 * PAGE })
}

fn read(volume: &V, ino: Ino, block: u64) -> Result<u8, Error> {
    let mut bytes = [0; PAGE as usize];
    volume.read(ino, block * PAGE, &mut bytes)?;
    assert!(bytes.iter().all(|&byte| byte == bytes[0]));
    Ok(bytes[0])
}

/// Which blocks of a file can be read, and what is in them; 0: it cannot.
fn contents(volume: &V, ino: Ino) -> [u8; 8] {
    core::array::from_fn(|block| read(volume, ino, block as u64).unwrap_or(0))
}

fn assert_sound(volume: &mut V) {
    let report = volume.check().unwrap();
    assert_eq!(report.issues, Vec::<String>::new());
}

/// The volume, mounted again after a clean stop or without one.
fn again(volume: V, clean: bool) -> V {
    let pmem = if clean { volume.unmount().unwrap().0 } else { volume.pmem().clone() };
    let volume = mount(pmem, 4).unwrap();
    assert_eq!(volume.was_rebuilt(), !clean);
    volume
}

#[test]
fn loads_fail_in_exactly_the_files_that_share_a_bad_block() {
    let (mut volume, all @ [file, one, two]) = cloned();
    // One of them has a block of its own where the others share the bad one.
    volume.write(two, 3 * PAGE, &[0x22; PAGE as usize], NOW).unwrap();
    let bad = block_of(&volume, file, 3);
    assert_eq!(volume.memory_error(bad, 1), Ok(ONE_NEW));
    assert_eq!(volume.memory_error(bad, 1).unwrap(), Struck { new: 0, known: 1, ..ONE_NEW });
    for ino in [file, one] {
        assert_eq!(read(&volume, ino, 3), Err(poisoned(bad)));
        assert_eq!(contents(&volume, ino), [1, 2, 3, 0, 5, 6, 7, 8]);
    }
    assert_eq!(contents(&volume, two), [1, 2, 3, 0x22, 5, 6, 7, 8]);
    // A clone shares the block as before.
    let late = volume.clone_file(one, volume.root(), b"late", NOW).unwrap();
    assert_eq!(read(&volume, late, 3), Err(poisoned(bad)));
    for ino in all {
        let extent = volume.extent(ino, FileBlock(3)).unwrap().unwrap();
        assert_eq!(extent.bad, ino != two);
        assert!(!volume.extent(ino, FileBlock(2)).unwrap().unwrap().bad);
    }
    assert_sound(&mut volume);
}

#[test]
fn a_write_of_the_whole_block_heals_one_file() {
    let (mut volume, [file, one, two]) = cloned();
    let bad = block_of(&volume, file, 3);
    volume.memory_error(bad, 1).unwrap();
    // A part of a block needs the rest.
    assert_eq!(volume.write(one, 3 * PAGE + 8, &[9; 8], NOW), Err(poisoned(bad)));
    assert_eq!(volume.punch(one, 3 * PAGE, 100, NOW), Err(poisoned(bad)));
    assert_eq!(contents(&volume, one), [1, 2, 3, 0, 5, 6, 7, 8]);
    volume.write(one, 2 * PAGE, &[9; 3 * PAGE as usize], NOW).unwrap();
    assert_eq!(contents(&volume, one), [1, 2, 9, 9, 9, 6, 7, 8]);
    assert_ne!(block_of(&volume, one, 3), bad);
    volume.punch(two, 3 * PAGE, PAGE, NOW).unwrap();
    assert_eq!(read(&volume, two, 3), Ok(0));
    assert_eq!(read(&volume, file, 3), Err(poisoned(bad)));
    // Now the block is this file's alone, and is not overwritten where it is all the same.
    assert_eq!(volume.write(file, 3 * PAGE + 8, &[9; 8], NOW), Err(poisoned(bad)));
    assert_eq!(volume.provide_zeros(file, 3 * PAGE, PAGE, NOW), Ok(PAGE));
    volume.write(file, 3 * PAGE + 8, &[9; 8], NOW).unwrap();
    assert_ne!(block_of(&volume, file, 3), bad);
    assert_eq!(volume.bad_block_counts().out_of_use, 1);
    volume.truncate(file, 0, NOW).unwrap();
    assert_sound(&mut volume);
    assert!(!free_blocks(&mut volume).unwrap().contains(&bad));
}

#[test]
fn translations_of_a_bad_block_go_and_no_others() {
    let (volume, inos) = cloned();
    let mut machine = SoftMachine { volume };
    let windows = inos.map(|ino| machine.volume.open_window(ino).unwrap());
    let mut byte = [0];
    for window in windows {
        dax::load(&mut machine, window, 0, &mut byte).unwrap();
    }
    // A page that is writable, in one window, and read-only in another one of that file.
    dax::store(&mut machine, windows[1], 5 * PAGE, &[0x55]).unwrap();
    let second = machine.volume.open_window(inos[1]).unwrap();
    dax::load(&mut machine, second, 5 * PAGE, &mut byte).unwrap();
    let own = block_of(&machine.volume, inos[1], 5);
    let shared = block_of(&machine.volume, inos[0], 2);
    let before = machine.volume.pages(None).unwrap();
    assert_eq!(machine.volume.memory_error(shared, 1), Ok(ONE_NEW));
    assert_eq!(machine.volume.memory_error(own, 1), Ok(ONE_NEW));
    let after = machine.volume.pages(None).unwrap();
    assert_eq!((before.writable, after.writable), (1, 0));
    // The shared one in three files and a second window; the own one in that second window.
    assert_eq!(before.shadows - after.shadows, 5);
    assert_sound(&mut machine.volume);
    for window in [windows[0], windows[1], windows[2], second] {
        let failed = dax::load(&mut machine, window, 2 * PAGE + 7, &mut byte).unwrap_err();
        assert_eq!((failed.done, failed.error), (0, poisoned(shared)));
        let failed = dax::store(&mut machine, window, 2 * PAGE + 7, &[1]).unwrap_err();
        assert_eq!((failed.done, failed.error), (0, poisoned(shared)));
        // What lies before it is delivered.
        let mut long = [0; 2 * PAGE as usize];
        let failed = dax::load(&mut machine, window, PAGE + 1, &mut long).unwrap_err();
        assert_eq!((failed.done, failed.error), (PAGE as usize - 1, poisoned(shared)));
        assert_eq!(long[..PAGE as usize - 1], [2; PAGE as usize - 1]);
        dax::load(&mut machine, window, 3 * PAGE, &mut long).unwrap();
    }
    let failed = dax::store(&mut machine, second, 5 * PAGE, &[1]).unwrap_err();
    assert_eq!(failed.error, poisoned(own));
    dax::load(&mut machine, windows[0], 5 * PAGE, &mut byte).unwrap();
    assert_eq!(byte, [6], "another file has another block there");
    // Neighbours are shown without it.
    let page = machine.volume.attach(windows[2], 0).unwrap().page(2);
    assert_eq!(machine.volume.fault(page, Access::Load), Err(poisoned(shared)));
    assert_sound(&mut machine.volume);
}

#[test]
fn a_free_block_that_is_bad_is_never_handed_out() {
    for clean in [true, false] {
        let (mut volume, [file, ..]) = cloned();
        let free = free_blocks(&mut volume).unwrap();
        let (before, bad) = (volume.space(), free[0]);
        assert_eq!(volume.memory_error(bad, 1), Ok(ONE_NEW));
        // One for the block, two for the list.
        assert_eq!(volume.space().free, before.free - 3);
        assert_eq!(volume.space().shared, before.shared);
        let mut volume = again(volume, clean);
        let counts = BadBlockCounts { listed: 1, out_of_use: 1, ..BadBlockCounts::default() };
        assert_eq!(volume.bad_block_counts(), counts);
        assert_eq!(volume.space().free, before.free - 3);
        assert_sound(&mut volume);
        let mut at = 8 * PAGE;
        while volume.write(file, at, &[7; PAGE as usize], NOW) == Ok(PAGE as usize) {
            assert_ne!(block_of(&volume, file, at / PAGE), bad);
            at += PAGE;
        }
        assert_sound(&mut volume);
        volume.unlink(volume.root(), b"file", NOW).unwrap();
        assert_eq!(volume.clear_bad_blocks(), Ok(1));
        assert!(free_blocks(&mut volume).unwrap().contains(&bad));
        assert_sound(&mut volume);
    }
}

#[test]
fn the_list_survives_a_stop_and_a_crash() {
    for clean in [true, false] {
        let (mut volume, [file, one, _]) = cloned();
        let bad = block_of(&volume, file, 3);
        volume.memory_error(bad, 1).unwrap();
        let mut volume = again(volume, clean);
        assert_eq!(volume.bad_blocks(), [bad]);
        assert_eq!(read(&volume, file, 3), Err(poisoned(bad)));
        // The last owner goes after the restart, and with it the block.
        for name in [&b"file"[..], b"one", b"two"] {
            volume.unlink(volume.root(), name, NOW).unwrap();
        }
        assert!(!free_blocks(&mut volume).unwrap().contains(&bad));
        assert_sound(&mut volume);
        let mut volume = again(volume, clean);
        assert!(!free_blocks(&mut volume).unwrap().contains(&bad));
        assert_eq!(volume.bad_block_counts().out_of_use, 1);
        assert_eq!(volume.clear_bad_blocks(), Ok(1));
        let mut volume = again(volume, clean);
        assert_eq!(volume.bad_block_counts(), BadBlockCounts::default());
        assert!(free_blocks(&mut volume).unwrap().contains(&bad));
        assert_sound(&mut volume);
        let _ = one;
    }
}

#[test]
fn a_list_of_many_blocks_is_kept_and_one_more_is_counted() {
    let (mut volume, _) = cloned();
    let free = free_blocks(&mut volume).unwrap();
    let bad: Vec<Block> = free.iter().copied().step_by(3).take(600).collect();
    for &block in &bad {
        assert_eq!(volume.memory_error(block, 1), Ok(ONE_NEW));
    }
    assert_sound(&mut volume);
    let volume = again(volume, false);
    assert_eq!(volume.bad_blocks(), bad);

    // A volume larger than the list: what has no room is said.
    let mut volume = new_volume(64 << 20, 1);
    let first = free_blocks(&mut volume).unwrap()[0];
    let struck = volume.memory_error(first, 4500);
    assert_eq!(struck, Err(Error::NoSpace));
    let counts = volume.bad_block_counts();
    // The second superblock is among them.
    assert_eq!((counts.listed, counts.unlisted), (4096, 4499 - 4096));
    assert!(!counts.unsaved);
    assert_sound(&mut volume);
    let mut volume = again(volume, false);
    assert_eq!(volume.bad_block_counts().listed, 4096);
    assert_sound(&mut volume);
}

#[test]
fn what_is_no_block_that_is_handed_out_is_told_apart() {
    let (mut volume, _) = cloned();
    let struck = volume.memory_error(Block(0), 3).unwrap();
    assert_eq!(struck, Struck { superblocks: 1, derived: 2, ..Struck::default() });
    assert_eq!(volume.memory_error(Block(2047), 5).unwrap().superblocks, 1);
    assert_eq!(volume.memory_error(Block(u64::MAX), 5), Ok(Struck::default()));
    assert_eq!(volume.bad_blocks(), []);
    assert_sound(&mut volume);
}

/// Whatever a device receives into a block that is bad by then does not become a file's.
#[test]
fn a_block_that_is_lent_when_it_turns_bad_is_not_taken_over() {
    let (mut volume, [file, ..]) = cloned();
    let run = volume.lend().unwrap();
    let bad = Block(run.0 + 1);
    volume.memory_error(bad, 1).unwrap();
    let bytes = [0x77; 4 * PAGE as usize];
    assert_eq!(volume.write_received(file, 8 * PAGE, &bytes, run, NOW), Ok(bytes.len()));
    assert!((8..12).all(|block| read(&volume, file, block) == Ok(0x77)));
    volume.take_back(run);
    assert!(!free_blocks(&mut volume).unwrap().contains(&bad));
    assert_eq!(volume.bad_block_counts().out_of_use, 1);
    assert_sound(&mut volume);
}

#[test]
fn a_dedupe_does_not_look_at_a_bad_block() {
    let (mut volume, [file, one, _]) = cloned();
    let bad = block_of(&volume, file, 3);
    volume.write(one, 3 * PAGE, &[4; PAGE as usize], NOW).unwrap();
    volume.memory_error(bad, 1).unwrap();
    let mut dedupe = volume.dedupe(file, 0, one, 0, 8 * PAGE).unwrap();
    let error = loop {
        match volume.dedupe_step(&mut dedupe) {
            Ok(None) => {}
            Ok(Some(done)) => panic!("{done:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, poisoned(bad));
    assert_eq!(read(&volume, one, 3), Ok(4));
    assert_sound(&mut volume);
}

/// A list that lies, in both copies, is not believed, and never in the way.
#[test]
fn a_damaged_list_is_left_out_and_counted() {
    let (mut volume, [file, ..]) = cloned();
    let bad = [block_of(&volume, file, 3), block_of(&volume, file, 4)];
    let free = free_blocks(&mut volume).unwrap();
    bad.iter().for_each(|&block| assert_eq!(volume.memory_error(block, 1), Ok(ONE_NEW)));
    let taken = free_blocks(&mut volume).unwrap();
    let list = free.iter().find(|block| !taken.contains(block)).unwrap().0 as usize;
    let pmem = volume.pmem().clone();
    for byte in (0..16).chain([4095]) {
        let mut pmem = pmem.clone();
        for copy in [0, twin_distance(pmem.len())] {
            pmem.bytes_mut()[list * PAGE as usize + copy as usize + byte] ^= 0x10;
        }
        let mut volume = mount(pmem, 4).unwrap();
        let counts = volume.bad_block_counts();
        assert_eq!(counts.unreadable, 1, "byte {byte}");
        assert_eq!(counts.listed, if byte < 16 { 1 } else { 2 });
        assert_sound(&mut volume);
    }
}

/// All steps of a search for owners.
fn owners(volume: &V) -> umbra_fs::Owners {
    let mut search = volume.begin_owners().unwrap();
    loop {
        if let Some(owners) = volume.owners_step(&mut search).unwrap() {
            return owners;
        }
    }
}

/// What was found, as `path loss first+blocks`, sorted; `-`: no path.
fn said(owners: &umbra_fs::Owners, block: Block) -> Vec<String> {
    let ranges = owners.ranges.iter().filter(|range| range.block == block);
    let mut lines: Vec<String> = ranges
        .map(|r| {
            let path = owners.path(r.ino).map_or("-".into(), String::from_utf8_lossy);
            format!("{path} {:?} {}+{}", r.loss, r.first.0, r.blocks)
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn owners_are_named_by_path_and_range() {
    let (mut volume, [file, one, two]) = cloned();
    let root = volume.root();
    let dir = volume.mkdir(root, b"dir", 0o700, NOW).unwrap();
    let below = volume.mkdir(dir, b"below", 0o700, NOW).unwrap();
    volume.clone_file(one, below, b"deep", NOW).unwrap();
    // Twice in one file, in a tree of two levels.
    let large = volume.create(below, b"large", 0o600, NOW).unwrap();
    volume.truncate(large, 3 << 30, NOW).unwrap();
    volume.clone_range(file, 2 * PAGE, large, 0, 3 * PAGE, NOW).unwrap();
    volume.clone_range(file, 2 * PAGE, large, 2 << 30, 3 * PAGE, NOW).unwrap();
    volume.write(two, 3 * PAGE, &[1; PAGE as usize], NOW).unwrap();
    let bad = block_of(&volume, file, 3);
    let free = *free_blocks(&mut volume).unwrap().last().unwrap();
    volume.memory_error(bad, 1).unwrap();
    volume.memory_error(free, 1).unwrap();
    let found = owners(&volume);
    assert_eq!(
        said(&found, bad),
        [
            "/dir/below/deep Content 3+1",
            "/dir/below/large Content 1+1",
            "/dir/below/large Content 524289+1",
            "/file Content 3+1",
            "/one Content 3+1",
        ]
    );
    assert_eq!(said(&found, free), [""; 0]);
    let states: Vec<(Block, bool, u64)> =
        found.blocks.iter().map(|bad| (bad.block, bad.out_of_use, bad.more)).collect();
    assert_eq!(states, [(bad, false, 0), (free, true, 0)]);
    // A file that is open without a name has none.
    let window = volume.open_window(large).unwrap();
    volume.unlink(below, b"large", NOW).unwrap();
    assert_eq!(said(&owners(&volume), bad)[0], "- Content 1+1");
    volume.close_window(window).unwrap();
    assert_sound(&mut volume);
}

#[test]
fn an_answer_is_bounded_and_says_how_much_it_leaves_out() {
    let (mut volume, [file, ..]) = cloned();
    let bad = block_of(&volume, file, 3);
    // One block, at every other place of a file, and everywhere in another one.
    let root = volume.root();
    let [often, all] = [b"often", b"all__"].map(|name| {
        let ino = volume.create(root, name, 0o600, NOW).unwrap();
        volume.truncate(ino, 1000 * PAGE, NOW).unwrap();
        ino
    });
    for at in 0..1000 {
        volume.clone_range(file, 3 * PAGE, all, at * PAGE, PAGE, NOW).unwrap();
        if at % 2 == 0 {
            volume.clone_range(file, 3 * PAGE, often, at * PAGE, PAGE, NOW).unwrap();
        }
    }
    volume.memory_error(bad, 1).unwrap();
    let found = owners(&volume);
    let lines = said(&found, bad);
    assert!(lines.contains(&"/all__ Content 0+1000".into()), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("/often")).count(), 16);
    assert_eq!(found.blocks[0].more, 500 - 16);
}

#[test]
fn metadata_that_is_bad_has_owners_too() {
    let (mut volume, [file, one, _]) = cloned();
    let root = volume.root();
    // The nodes of a tree and a bucket are among what a new directory and a file take.
    let before = free_blocks(&mut volume).unwrap();
    let dir = volume.mkdir(root, b"dir", 0o700, NOW).unwrap();
    volume.clone_file(one, dir, b"name", NOW).unwrap();
    let taken = |volume: &mut V| {
        let after = free_blocks(volume).unwrap();
        before.iter().copied().filter(|block| !after.contains(block)).collect::<Vec<_>>()
    };
    let bucket = taken(&mut volume)[0];
    let contents = contents(&volume, file);
    for block in taken(&mut volume) {
        volume.memory_error(block, 1).unwrap();
    }
    let found = owners(&volume);
    assert!(said(&found, bucket).iter().all(|line| line.starts_with("/dir Names")), "{found:?}");
    // Their content can be read, and names found: that is for the memory to say.
    assert_eq!(self::contents(&volume, file), contents);
    assert!(volume.lookup(dir, b"name").is_ok());
    assert_sound(&mut volume);
}
