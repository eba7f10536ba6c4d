//! Clones of ranges, between places that lie differently and of files that are mostly holes.

use std::time::Instant;
use umbra_fs::testing::{MemPmem, SoftMmu, new_volume};
use umbra_fs::{FileBlock, Ino, Time, Volume};

const NOW: Time = Time(5_000);
const GIB: u64 = 1 << 30;

type Vol = Volume<MemPmem, SoftMmu>;

fn create(volume: &mut Vol, name: &[u8]) -> Ino {
    let root = volume.root();
    volume.create(root, name, 0o644, NOW).unwrap()
}

fn settle(volume: &mut Vol) {
    while volume.reclaim_step().unwrap() {}
}

fn clean(volume: &mut Vol) {
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}

/// A file of 511 GiB with blocks here and there: alone, in a run over the border of two leaves, at
/// the very start and the very end. Returns the blocks, and the nodes that its tree has.
fn sparse(volume: &mut Vol, ino: Ino) -> (Vec<u64>, u64) {
    let before = volume.space().free;
    volume.truncate(ino, 511 * GIB, NOW).unwrap();
    let last = 511 * GIB / 4096 - 1;
    let mut blocks = vec![0, 700, 512 * 512 * 7 + 5, 512 * 512 * 100, last];
    blocks.extend(1_000_440..1_000_460);
    for (i, &block) in blocks.iter().enumerate() {
        volume.write(ino, block * 4096, &[i as u8 + 1; 4096], NOW).unwrap();
    }
    settle(volume);
    let nodes = before - volume.space().free - blocks.len() as u64;
    (blocks, nodes)
}

#[test]
fn holes_are_cloned_as_holes_by_the_nodes_that_exist() {
    // Not aligned; aligned below one leaf, one node of leaves; one block.
    for shift in [1 << 20, 2 << 20, GIB, 4096] {
        let mut volume = new_volume(24 << 20, 3);
        let (from, to) = (create(&mut volume, b"from"), create(&mut volume, b"to"));
        let (blocks, nodes) = sparse(&mut volume, from);
        let (free, start) = (volume.space().free, Instant::now());
        let len = 511 * GIB - if shift == GIB { 0 } else { GIB };
        volume.clone_range(from, 0, to, shift, len, NOW).unwrap();
        settle(&mut volume);
        let took = free - volume.space().free;
        assert!(took <= 2 * nodes + 3, "by {shift}: {took} blocks for {nodes} nodes");
        assert!(start.elapsed().as_millis() < 1000, "by {shift}: {:?}", start.elapsed());
        for (i, block) in blocks.into_iter().enumerate().filter(|(_, block)| block * 4096 < len) {
            let mut seen = [0; 4096];
            assert_eq!(volume.read(to, block * 4096 + shift, &mut seen), Ok(4096));
            assert_eq!(seen, [i as u8 + 1; 4096], "block {block}");
        }
        clean(&mut volume);
    }
}

#[test]
fn a_range_of_nothing_takes_nothing() {
    for shift in [1 << 20, 2 << 20, GIB] {
        let mut volume = new_volume(8 << 20, 3);
        let (from, to) = (create(&mut volume, b"from"), create(&mut volume, b"to"));
        volume.truncate(from, 511 * GIB, NOW).unwrap();
        let free = volume.space().free;
        volume.clone_range(from, 0, to, shift, 510 * GIB, NOW).unwrap();
        settle(&mut volume);
        assert_eq!(volume.space().free, free, "by {shift}");
        assert_eq!(volume.attributes(to).unwrap().size, 510 * GIB + shift);
        clean(&mut volume);
    }
}

/// What a hole replaces goes, and what is beside it stays.
#[test]
fn a_hole_replaces_what_was_there() {
    let mut volume = new_volume(24 << 20, 3);
    let (from, to) = (create(&mut volume, b"from"), create(&mut volume, b"to"));
    volume.truncate(from, 100 * GIB, NOW).unwrap();
    for block in [0u64, 300, 600, 1500, 2000] {
        volume.write(to, block * 4096, &[7; 4096], NOW).unwrap();
    }
    volume.clone_range(from, 256 * 4096, to, 100 * 4096, 1500 * 4096, NOW).unwrap();
    settle(&mut volume);
    let there =
        |volume: &Vol, block| volume.extent(to, FileBlock(block)).unwrap().unwrap().at.is_some();
    let kept: Vec<u64> =
        [0u64, 300, 600, 1500, 2000].into_iter().filter(|&b| there(&volume, b)).collect();
    assert_eq!(kept, [0, 2000]);
    clean(&mut volume);
}
