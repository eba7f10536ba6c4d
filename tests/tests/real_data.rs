//! A real disk image: in, out, cloned by the hundred, and stored into through mappings.

use std::env;
use std::fs;
use std::path::PathBuf;
use umbra::client::{Client, Msync};
use umbra::units::parse_bytes;
use umbra_tests::Vm;
use umbra_tests::edits::{Edit, edits, hash_with};
use umbra_tests::image::{
    Hash, REAL_FOLDERS, assert_ext4_clean, hash_file, hash_remote, make_ext4,
};
use umbra_tests::random::Random;

const CLONES: usize = 500;
/// Clones that are stored into.
const POKED: usize = 50;
/// Clones that are looked at although nobody touched them.
const UNTOUCHED: usize = 5;
const MIB: u64 = 1 << 20;

/// Size of the image: `$UMBRA_TEST_IMAGE`, or as much as suits every run.
fn image_size() -> u64 {
    env::var("UMBRA_TEST_IMAGE")
        .map_or(32 * MIB, |text| parse_bytes(&text).expect("UMBRA_TEST_IMAGE is a size"))
}

fn clone_name(number: usize) -> String {
    format!("/vm{number}.img")
}

/// What each file must hold, as the host computes it.
struct Expected {
    golden: Hash,
    poked: Vec<Hash>,
}

impl Expected {
    fn assert(&self, client: &mut Client) {
        assert!(hash_remote(client, "/golden.img") == self.golden, "the golden image has changed");
        for (number, hash) in self.poked.iter().enumerate() {
            assert!(hash_remote(client, &clone_name(number)) == *hash, "clone {number} is wrong");
        }
        // From the end: far from those that were stored into.
        for number in CLONES - UNTOUCHED..CLONES {
            assert!(
                hash_remote(client, &clone_name(number)) == self.golden,
                "clone {number} has changed"
            );
        }
    }
}

/// Stores into a clone after loading what is there, so that there are shadows to toss.
fn poke(client: &mut Client, number: usize, edits: &[Edit]) {
    let file = client.open(clone_name(number).as_bytes(), 0).unwrap();
    for edit in edits {
        client.load(&file, edit.offset, edit.bytes.len() as u64).unwrap();
    }
    for edit in edits {
        let stored = client.store(&file, edit.offset, &edit.bytes, Msync::Now).unwrap();
        assert_eq!(stored, edit.bytes.len() as u64);
    }
    client.close(file).unwrap();
}

#[test]
fn a_disk_image_and_five_hundred_clones_of_it() {
    let size = image_size();
    let vm = Vm::launch(&format!("{}M", (size / MIB) * 2 + 64));
    let image = vm.file("golden.img");
    let folders: Vec<PathBuf> = REAL_FOLDERS.iter().map(PathBuf::from).collect();
    make_ext4(&image, size, &folders);
    let golden = hash_file(&image);

    // In and out again.
    vm.ok(&["put", image.to_str().unwrap(), "/golden.img"]);
    let back = vm.file("back.img");
    vm.ok(&["get", "/golden.img", back.to_str().unwrap()]);
    assert!(hash_file(&back) == golden);
    assert_ext4_clean(&back);
    fs::remove_file(&back).unwrap();

    // Clones over one connection: space for names and inodes only.
    let mut client = vm.client();
    let before = client.space().unwrap();
    let mut fences = Vec::new();
    for number in 0..CLONES {
        fences
            .push(client.clone_file(b"/golden.img", clone_name(number).as_bytes()).unwrap().fences);
    }
    let after = client.space().unwrap();
    let grown = (before.blocks_free - after.blocks_free) * u64::from(after.block_size);
    assert!(grown <= MIB, "{CLONES} clones took {grown} bytes");
    fences.sort_unstable();
    assert_eq!(fences[fences.len() / 2], 2, "a clone takes two fences");

    // Stores into some of them, at offsets that overlap from clone to clone.
    let mut poked = Vec::new();
    for number in 0..POKED {
        let mut edits = edits(&mut Random::new(number as u64 / 5), size);
        edits[0].bytes.fill(number as u8);
        poke(&mut client, number, &edits);
        poked.push(hash_with(&image, &edits));
    }
    let faults = client.pages(None).unwrap().faults;
    assert_eq!(faults.foreign_unmapped, 0, "{faults:?}");
    assert!(
        faults.cow >= (POKED * 5) as u64 && faults.tossed > 0 && faults.failed == 0,
        "{faults:?}"
    );
    let expected = Expected { golden, poked };
    expected.assert(&mut client);
    drop(client);
    vm.assert_clean();

    // The same after a clean end, and after a hard one.
    vm.down();
    vm.up();
    vm.assert_clean();
    expected.assert(&mut vm.client());
    vm.kill_qemu();
    vm.up();
    vm.assert_clean();
    expected.assert(&mut vm.client());
}

#[test]
fn a_clone_takes_the_same_fences_whatever_the_file_is_like() {
    const BLOCK: u64 = 4096;
    let vm = Vm::launch("256M");
    let mut client = vm.client();
    let piece = Random::new(1).bytes(MIB as usize);
    let mut write = |path: &str, size: u64| {
        let file = client.open_or_create(path.as_bytes()).unwrap();
        for at in (0..size).step_by(MIB as usize) {
            client.write(&file, at, &piece).unwrap();
        }
        client.close(file).unwrap();
    };
    write("/small", MIB);
    write("/large", 64 * MIB);
    write("/pieces", 8 * MIB);
    // In 4 KiB pieces: every other block is moved elsewhere, by sharing it and storing into it.
    client.clone_file(b"/pieces", b"/fragmented").unwrap();
    let file = client.open(b"/fragmented", 0).unwrap();
    for at in (0..8 * MIB).step_by(2 * BLOCK as usize) {
        client.store(&file, at, b"x", Msync::Later).unwrap();
    }
    client.close(file).unwrap();
    let file = client.open(b"/fragmented", 0).unwrap();
    assert!(client.extents(&file, 0, None).unwrap().len() >= 2048, "it is not fragmented");
    client.close(file).unwrap();

    let mut counts = [const { Vec::new() }; 3];
    for number in 0..60 {
        for (index, source) in ["/small", "/large", "/fragmented"].iter().enumerate() {
            let name = format!("/{index}-{number}");
            let cloned = client.clone_file(source.as_bytes(), name.as_bytes()).unwrap();
            counts[index].push((cloned.fences, cloned.flushes));
        }
    }
    // The median: now and then a bucket of the directory splits, whoever's turn it is.
    let median = |counts: &mut Vec<(u64, u64)>| {
        counts.sort_unstable();
        counts[counts.len() / 2]
    };
    let [small, large, fragmented] = &mut counts;
    let small = median(small);
    assert_eq!(small.0, 2);
    assert_eq!(median(large), small);
    assert_eq!(median(fragmented), small);
    drop(client);
    vm.assert_clean();
}
