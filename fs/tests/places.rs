//! Metadata that stands where other metadata belongs, or is gone, in both copies: every name,
//! attribute and byte that is shown is right, or it is an error, and something is an error. Nothing
//! is shown to be missing because it could not be read.

mod content;

use content::{Content, look, populated};
use umbra_fs::BLOCK_SIZE;
use umbra_fs::testing::damage::{Metadata, metadata};
use umbra_fs::testing::{MemPmem, mount, twin_distance};

const BLOCK: usize = BLOCK_SIZE as usize;
const SIZE: u64 = 8 << 20;

/// Mounts a volume whose unmounted image was changed, and looks at it: whether it was noticed.
fn noticed(bytes: Vec<u8>, healthy: &Content, what: &str) -> bool {
    let Ok(mut volume) = mount(MemPmem::from_bytes(bytes), 2) else { return true };
    let (found, mut errors) = look(&volume, Some(healthy));
    for (path, seen) in &found {
        let path = String::from_utf8_lossy(path);
        assert!(seen == &healthy[path.as_bytes()], "{what}: {path} shows something else");
    }
    match volume.check() {
        Ok(report) => errors += report.issues_total as u32,
        Err(_) => errors += 1,
    }
    errors > 0
}

/// Changes both copies of a block.
fn change(bytes: &mut [u8], block: u64, change: impl Fn(&mut [u8])) {
    for copy in [0, twin_distance(SIZE) as usize] {
        change(&mut bytes[block as usize * BLOCK + copy..][..BLOCK]);
    }
}

fn unmounted() -> (Vec<u8>, Content) {
    let volume = populated(SIZE);
    let (healthy, errors) = look(&volume, None);
    assert_eq!((errors, healthy.len() > 150), (0, true));
    (volume.unmount().unwrap().0.bytes().to_vec(), healthy)
}

#[test]
fn blocks_that_have_changed_places_are_noticed() {
    let (bytes, healthy) = unmounted();
    let blocks = metadata(&bytes);
    let kinds = [Metadata::Node(1), Metadata::Node(2), Metadata::Inodes, Metadata::Bucket];
    for kind in kinds {
        let same: Vec<_> = blocks.iter().filter(|b| b.1 == kind).map(|b| b.0.0).collect();
        assert!(same.len() > 1, "{kind:?}: {same:?}");
        for (i, &a) in same.iter().enumerate() {
            for &b in &same[i + 1..] {
                let mut changed = bytes.clone();
                for (to, from) in [(a, b), (b, a)] {
                    let from = &bytes[from as usize * BLOCK..][..BLOCK];
                    change(&mut changed, to, |block| block.copy_from_slice(from));
                }
                let what = format!("{kind:?} {a} and {b} swapped");
                assert!(noticed(changed, &healthy, &what), "{what}: nothing noticed");
            }
        }
    }
}

#[test]
fn a_line_of_zeros_is_noticed() {
    let (bytes, healthy) = unmounted();
    let mut cases = 0;
    for (block, kind) in metadata(&bytes) {
        // The payloads of a bucket are no words where no slot leads to them.
        let lines = match kind {
            Metadata::Bucket => 16,
            Metadata::Target => 1,
            _ => 64,
        };
        // Words that nothing leads to are not looked at: an inode that is free.
        for line in (0..lines).filter(|line| kind != Metadata::Inodes || line % 4 == 0) {
            let mut changed = bytes.clone();
            change(&mut changed, block.0, |block| block[line * 64..][..64].fill(0));
            let what = format!("line {line} of {kind:?} {}", block.0);
            assert!(noticed(changed, &healthy, &what), "{what}: nothing noticed");
            cases += 1;
        }
    }
    assert!(cases > 500, "{cases}");
}

#[test]
fn a_name_in_a_slot_that_cannot_be_read_is_not_said_to_be_missing() {
    let (bytes, healthy) = unmounted();
    let of_kind = |kind| metadata(&bytes).into_iter().filter(move |b| b.1 == kind);
    for (block, _) in of_kind(Metadata::Bucket) {
        let mut changed = bytes.clone();
        change(&mut changed, block.0, |block| block[..1024].fill(0));
        let volume = mount(MemPmem::from_bytes(changed), 2).unwrap();
        for path in healthy.keys() {
            let found = volume.resolve(path);
            assert_ne!(found, Err(umbra_fs::Error::NotFound), "{}", String::from_utf8_lossy(path));
        }
    }
}
