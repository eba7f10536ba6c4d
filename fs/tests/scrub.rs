//! A scrub loads what is in use, mends metadata of which one copy is bad, and has the list of bad
//! blocks take what the memory cannot deliver; others work meanwhile.

mod content;

use content::{Soft, look, populated};
use umbra_fs::testing::damage::metadata;
use umbra_fs::testing::{MemPmem, mount, twin_distance};
use umbra_fs::{BLOCK_SIZE, Block, Error, FileBlock, Scrub, Time};

const SIZE: u64 = 8 << 20;
const NOW: Time = Time(7);
const ALL: Block = Block(u64::MAX);

/// A whole scrub.
fn scrub(volume: &mut Soft) -> Scrub {
    let number = volume.begin_scrub(NOW).number;
    // Each step goes on: it ends.
    for _ in 0..SIZE / BLOCK_SIZE * 2 {
        let scrub = volume.scrub_step(number, ALL, NOW).unwrap();
        if scrub.ended.is_some() {
            assert_eq!(volume.last_scrub(), Some(scrub));
            return scrub;
        }
    }
    panic!("it does not end");
}

/// What was found: lost, mended, different, damaged.
fn found(scrub: Scrub) -> [u64; 4] {
    [scrub.lost, scrub.mended, scrub.differ, scrub.damaged]
}

fn unmounted() -> Vec<u8> {
    populated(SIZE).unmount().unwrap().0.bytes().to_vec()
}

fn again(bytes: Vec<u8>) -> Soft {
    mount(MemPmem::from_bytes(bytes), 2).unwrap()
}

#[test]
fn what_is_in_use_is_loaded_and_nothing_is_found() {
    let mut volume = populated(SIZE);
    while volume.reclaim_step().unwrap() {}
    assert_eq!(volume.last_scrub(), None);
    let done = scrub(&mut volume);
    assert_eq!((found(done), done.findings()), ([0; 4], 0));
    assert_eq!((done.number, done.began, done.ended), (1, NOW, Some(NOW)));
    assert_eq!(done.pairs, metadata(volume.pmem().bytes()).len() as u64);
    let used = volume.space().total - volume.space().free;
    // Superblocks, records and the checkpoint are loaded too.
    assert!((used..used + 30).contains(&done.loaded), "{used} {done:?}");
    assert_eq!(scrub(&mut volume).number, 2);
}

/// Each block of metadata, each of its copies: what is bad is mended before anybody reads it.
#[test]
fn each_bad_copy_is_mended() {
    let image = unmounted();
    let (healthy, _) = look(&again(image.clone()), None);
    let twins = twin_distance(SIZE);
    for (block, kind) in metadata(&image) {
        for copy in [block.0, block.0 + twins / BLOCK_SIZE] {
            for damage in [0..4096usize, 64..128, 8..9] {
                let mut bytes = image.clone();
                let at = (copy * BLOCK_SIZE) as usize;
                let what = format!("{kind:?} {block:?}, copy {copy}, bytes {damage:?}");
                bytes[at + damage.start..at + damage.end].iter_mut().for_each(|it| *it ^= 0x55);
                let mut volume = again(bytes);
                let done = scrub(&mut volume);
                assert_eq!((done.lost, done.differ, done.damaged), (0, 0, 0), "{what}");
                assert!(volume.mended() > 0 || done.mended > 0, "{what}: nobody noticed");
                let now = volume.pmem().bytes();
                let [first, second] = [0, twins].map(|distance| {
                    let at = (block.0 * BLOCK_SIZE + distance) as usize;
                    &now[at..at + BLOCK_SIZE as usize]
                });
                assert!(first == second, "{what}: its copies differ");
                let (seen, errors) = look(&volume, None);
                assert!(errors == 0 && seen == healthy, "{what}");
                assert_eq!(volume.check().unwrap().issues, Vec::<String>::new(), "{what}");
            }
        }
    }
}

#[test]
fn what_is_bad_in_both_copies_is_counted_and_left_alone() {
    let image = unmounted();
    let twins = twin_distance(SIZE);
    for (block, kind) in metadata(&image) {
        let mut bytes = image.clone();
        for copy in [0, twins] {
            let at = (block.0 * BLOCK_SIZE + copy) as usize;
            bytes[at + 16..at + 24].fill(0xff);
        }
        // Some are needed by the mount.
        let Ok(mut volume) = mount(MemPmem::from_bytes(bytes), 2) else { continue };
        let before = volume.pmem().bytes().to_vec();
        let done = scrub(&mut volume);
        // Copies that are equal are no finding: what is wrong in both, a check finds.
        assert_eq!(found(done), [0; 4], "{kind:?} {block:?}");
        assert!(volume.pmem().bytes() == before, "{kind:?} {block:?}: something was changed");
    }
}

#[test]
fn copies_that_are_good_and_differ_are_counted_and_left_alone() {
    let mut volume = populated(SIZE);
    let stale = volume.pmem().bytes().to_vec();
    let small = volume.resolve(b"/small").unwrap();
    volume.write(small, 4096, b"later", Time(5)).unwrap();
    let mut bytes = volume.unmount().unwrap().0.bytes().to_vec();
    let twins = twin_distance(SIZE) as usize;
    let changed = |block: &(Block, _)| {
        let at = (block.0.0 * BLOCK_SIZE) as usize;
        stale[at..at + 4096] != bytes[at..at + 4096]
    };
    // The block of inodes that has `small`.
    let all = metadata(&stale);
    let (block, _) = all.iter().rfind(|it| changed(it)).expect("one has changed");
    let at = (block.0 * BLOCK_SIZE) as usize + twins;
    bytes[at..at + 4096].copy_from_slice(&stale[at..at + 4096]);
    let mut volume = again(bytes);
    assert_eq!(found(scrub(&mut volume)), [0, 0, 1, 0]);
    assert_eq!(found(scrub(&mut volume)), [0, 0, 1, 0]);
}

/// Content that cannot be delivered goes on the list; metadata is read from the other copy.
#[test]
fn what_the_memory_cannot_deliver_is_found() {
    let volume = populated(SIZE);
    let file = volume.resolve(b"/file").unwrap();
    let content = volume.extent(file, FileBlock(3)).unwrap().unwrap().at.unwrap();
    let pmem = volume.unmount().unwrap().0;
    let (node, _) = metadata(pmem.bytes())[5];
    let twins = twin_distance(SIZE);
    for (what, lost, bad) in [
        ("content", content.0 * BLOCK_SIZE + 640, vec![content]),
        ("the first copy", node.0 * BLOCK_SIZE + 4032, vec![node]),
        ("the second copy", node.0 * BLOCK_SIZE + twins, vec![Block(node.0 + twins / BLOCK_SIZE)]),
        ("a superblock", 64, vec![]),
    ] {
        let mut volume = mount(pmem.clone(), 2).unwrap();
        volume.pmem_mut().poisoned = vec![lost];
        let done = scrub(&mut volume);
        assert_eq!((done.lost, done.damaged), (1, 0), "{what}: {done:?}");
        assert_eq!(volume.bad_blocks(), bad, "{what}");
        // What is on the list is not loaded again.
        let done = scrub(&mut volume);
        assert_eq!(done.lost, u64::from(bad.is_empty()), "{what}: {done:?}");
        assert_eq!(done.mended, 0, "{what}: {done:?}");
    }
}

#[test]
fn others_change_the_volume_between_steps() {
    let mut volume = populated(SIZE);
    volume.set_check_work_a_step(1);
    let number = volume.begin_scrub(NOW).number;
    let root = volume.root();
    let mut steps = 0u64;
    loop {
        let scrub = volume.scrub_step(number, ALL, NOW).unwrap();
        assert_eq!(found(scrub), [0; 4], "step {steps}");
        if scrub.ended.is_some() {
            break;
        }
        steps += 1;
        let name = format!("{}", steps % 40);
        match volume.lookup(root, name.as_bytes()) {
            Ok(ino) if steps.is_multiple_of(3) => {
                volume.clone_file(ino, root, format!("c{steps}").as_bytes(), NOW).map(drop)
            }
            Ok(ino) if steps % 3 == 1 => volume.write(ino, steps * 512, b"x", NOW).map(drop),
            Ok(_) => volume.unlink(root, name.as_bytes(), NOW),
            Err(_) => {
                volume.symlink(root, name.as_bytes(), b"target", NOW).map(drop).and_then(|()| {
                    volume.unlink(root, name.as_bytes(), NOW)?;
                    volume.create(root, name.as_bytes(), 0o600, NOW).map(drop)
                })
            }
        }
        .or_else(|error| if error == Error::NoSpace { Ok(()) } else { Err(error) })
        .unwrap();
        volume.reclaim_step().unwrap();
    }
    assert!(steps > 500, "{steps}");
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}

#[test]
fn a_part_ends_where_it_should_and_the_last_scrub_counts() {
    let mut volume = populated(SIZE);
    let first = volume.begin_scrub(NOW).number;
    let part = loop {
        let scrub = volume.scrub_step(first, Block(100), NOW).unwrap();
        if scrub.next == Block(100) {
            break scrub;
        }
    };
    assert_eq!((part.ended, part.total), (None, SIZE / BLOCK_SIZE));
    // Nothing is left of this part.
    assert_eq!(volume.scrub_step(first, Block(100), NOW), Ok(part));
    let second = volume.begin_scrub(NOW).number;
    assert_eq!(volume.scrub_step(first, ALL, NOW), Err(Error::Busy("another scrub has begun")));
    assert_eq!(volume.scrub_step(second, Block(1), NOW).unwrap().next, Block(1));
}
