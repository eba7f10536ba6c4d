//! Tests of what has no way in from outside.

use super::Volume;
use crate::dax::Access;
use crate::error::Error;
use crate::format::superblock::{COPIES, GROUP, RECORD_SIZE, Superblock};
use crate::pmem::Pmem;
use crate::testing::{claims_clean, mount, new_volume};
use crate::tree::scan::Found;
use crate::types::{BLOCK_SIZE, FileBlock, FileKey, Time};
use alloc::vec::Vec;

extern crate std;

#[test]
fn what_exists_is_found_and_holes_are_passed() {
    let mut volume = new_volume(8 << 20, 1);
    let ino = volume.create(volume.root(), b"a", 0o600, Time(1)).unwrap();
    let blocks = [3, 511, 512, 1_000_000, 100_000_000];
    for block in blocks {
        volume.write(ino, block * 4096, &[1; 4096], Time(1)).unwrap();
    }
    let (_, root) = volume.tree.inode_path(ino).unwrap();
    for level in 0..3 {
        let span = 512u64.pow(level);
        let mut wanted: Vec<_> = blocks.iter().map(|block| block / span * span).collect();
        wanted.dedup();
        for allowance in [1u64, 3, u64::MAX] {
            let (mut found, mut at) = (Vec::new(), 0);
            loop {
                // A descent needs an entry of each level, or it would never get anywhere.
                match volume.tree.seek(root, at, level as u8, &mut allowance.max(3)).unwrap() {
                    Found::At(block, _) => {
                        found.push(block);
                        at = block + span;
                    }
                    Found::Later(block) => {
                        assert!(block >= at);
                        at = block;
                    }
                    Found::Nothing => break,
                }
            }
            assert_eq!(found, wanted, "level {level}, {allowance} at a time");
        }
    }
    let empty = volume.create(volume.root(), b"b", 0o600, Time(1)).unwrap();
    let (_, root) = volume.tree.inode_path(empty).unwrap();
    assert_eq!(volume.tree.seek(root, 0, 0, &mut 10), Ok(Found::Nothing));
}

/// What is durable has happened, whatever becomes of the blocks that it dropped.
#[test]
fn an_inode_that_a_rename_replaced_is_gone_though_its_block_cannot_be_freed() {
    let mut volume = new_volume(8 << 20, 2);
    let root = volume.root();
    let [a, b, c] =
        [b"a", b"b", b"c"].map(|name| volume.create(root, name, 0o600, Time(1)).unwrap());
    // On all sides of it is data of another file: nothing else has its record in the same line.
    volume.write(c, 0, &[1; 8 * 4096], Time(1)).unwrap();
    volume.write(b, 0, &[1; 4096], Time(1)).unwrap();
    volume.write(c, 8 * 4096, &[1; 8 * 4096], Time(1)).unwrap();
    let block = volume.extent(b, FileBlock(0)).unwrap().unwrap().at.unwrap();
    let inodes = volume.space().inodes;
    let (records, _) = volume.tree.blocks.group_records(block.0 / GROUP);
    let line = (records + block.0 % GROUP * RECORD_SIZE) / 64 * 64;
    volume.pmem_mut().poisoned.push(line);
    let failed = volume.rename(root, b"a", root, b"b", Time(2));
    assert!(matches!(failed, Err(Error::Poisoned(_))), "{failed:?}");
    // The next change has the memory of the lists, too: it allocates none.
    assert!(volume.tree.retired.capacity() > 0 && volume.tree.lists.have_memory());
    volume.pmem_mut().poisoned.clear();
    assert_eq!(volume.lookup(root, b"b"), Ok(a));
    assert_eq!(volume.lookup(root, b"a"), Err(Error::NotFound));
    assert_eq!(volume.space().inodes, inodes - 1);
}

/// The count is of what happens to translations, not of what the fault handler means to do.
#[test]
fn a_shadow_that_goes_by_the_store_of_another_file_is_counted() {
    let mut volume = new_volume(8 << 20, 2);
    let ino = volume.create(volume.root(), b"a", 0o600, Time(1)).unwrap();
    volume.write(ino, 0, &[1; 4096], Time(1)).unwrap();
    let window = volume.open_window(ino).unwrap();
    let page = volume.attach(window, 0).unwrap().page(0);
    for (storing, count) in [(None, 0), (Some(FileKey(ino)), 0), (Some(FileKey(volume.root())), 1)]
    {
        volume.fault(page, Access::Load).unwrap();
        volume.dax.storing = storing;
        volume.dax.unmap(&mut volume.tree.blocks, FileKey(ino), 0, 1).unwrap();
        volume.dax.storing = None;
        assert_eq!(volume.pages(None).unwrap().faults.foreign_unmapped, count);
    }
}

/// Store faults of one file while another one is cloned again and again: what is known of the
/// first stays known.
#[test]
fn a_clone_of_one_file_voids_nothing_that_is_known_of_another() {
    const LEAVES: u64 = 8;
    const CLONES: u64 = 50;
    let mut volume = new_volume(32 << 20, 16);
    let root = volume.root();
    let [a, b] = [b"a", b"b"].map(|name| volume.create(root, name, 0o600, Time(1)).unwrap());
    // The inode file grows by a level now and not between the faults.
    for name in 0..32 {
        volume.create(root, &[b'e', 128 + name], 0o600, Time(1)).unwrap();
    }
    // Their places in the table of epochs differ.
    assert_ne!(a.0 % 64, b.0 % 64);
    for leaf in 0..LEAVES {
        volume.write(a, leaf * 512 * 4096, &[1; 4096], Time(1)).unwrap();
    }
    volume.write(b, 0, &[2; 4096], Time(1)).unwrap();
    let window = volume.open_window(a).unwrap();
    let store = |volume: &mut Volume<_, _>| {
        for leaf in 0..LEAVES as u32 {
            let page = volume.attach(window, leaf).unwrap().page(0);
            volume.fault(page, Access::Store).unwrap();
        }
        volume.sync(a).unwrap();
    };
    store(&mut volume);
    let before = volume.tree.leaf_searches;
    for clone in 0..CLONES {
        let name = [b'c', 128 + clone as u8];
        volume.clone_file(b, root, &name, Time(2)).unwrap();
        store(&mut volume);
    }
    let searches = volume.tree.leaf_searches - before;
    std::println!("{} faults, {CLONES} clones: {searches} searches", LEAVES * CLONES);
    assert_eq!(searches, 0);
    // A clone of the file itself does void it: its pages are copied from then on.
    volume.clone_file(a, root, b"d", Time(3)).unwrap();
    let (page, cow) = (volume.attach(window, 3).unwrap().page(0), volume.faults.cow);
    volume.fault(page, Access::Store).unwrap();
    assert_eq!(volume.faults.cow, cow + 1);
    assert!(volume.tree.leaf_searches > before);
    assert_eq!(volume.check().unwrap().issues, Vec::<alloc::string::String>::new());
}

/// A volume that is marked as damaged is counted anew by each mount, and never unmounted as clean;
/// the mark stays. A new inode of a later mount has another generation, under the same number, too.
#[test]
fn a_damaged_volume_is_counted_anew_by_each_mount() {
    let volume = new_volume(8 << 20, 2);
    let (mut pmem, _) = volume.unmount().unwrap();
    let mut bytes = [0; BLOCK_SIZE as usize];
    pmem.read(0, &mut bytes).unwrap();
    let superblock = Superblock { damaged: true, ..Superblock::decode(&bytes).unwrap() };
    // One copy that says so is enough.
    pmem.write(COPIES[1].0 * BLOCK_SIZE, &superblock.encode());
    let mut generations = Vec::new();
    for _ in 0..3 {
        let mut volume = mount(pmem, 2).unwrap();
        assert!(volume.was_rebuilt());
        let root = volume.root();
        let ino = volume.create(root, b"name", 0o600, Time(1)).unwrap();
        generations.push((ino, volume.generation(ino).unwrap()));
        volume.unlink(root, b"name", Time(1)).unwrap();
        assert_eq!(volume.check().unwrap().issues, Vec::<alloc::string::String>::new());
        (pmem, _) = volume.unmount().unwrap();
        assert!(!claims_clean(&pmem));
    }
    assert!(generations[0] != generations[1] && generations[1] != generations[2]);
}

/// A volume that is filled to its last block has not used the second superblock, whether its
/// records were counted anew or are those of a checkpoint.
#[test]
fn the_second_superblock_is_never_handed_out() {
    let mut volume = new_volume(8 << 20, 2);
    for round in 0..2 {
        let root = volume.root();
        let ino = volume.create(root, b"all", 0o600, Time(1)).unwrap();
        let mut at = 0;
        while let Ok(BLOCK_SIZE) = volume.write(ino, at, &[9; 4096], Time(1)).map(|n| n as u64) {
            at += BLOCK_SIZE;
        }
        assert_eq!(volume.space().available, 0);
        let mut from = 0;
        while let Some(extent) = volume.extent(ino, FileBlock(from)).unwrap() {
            let first = extent.at.unwrap().0;
            assert!(!(first..first + extent.blocks).contains(&COPIES[1].0));
            from += extent.blocks;
        }
        assert!(from > 1800, "{from}");
        volume.unlink(root, b"all", Time(1)).unwrap();
        let (mut pmem, _) = volume.unmount().unwrap();
        pmem.zero(0, BLOCK_SIZE);
        volume = mount(pmem, 2).unwrap();
        assert!(!volume.was_rebuilt(), "round {round}");
    }
    assert_eq!(volume.check().unwrap().issues, Vec::<alloc::string::String>::new());
}
