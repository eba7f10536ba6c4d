//! Metadata that stands where other metadata belongs, or is gone: every name, attribute and byte
//! that is shown is right, or it is an error, and something is an error. Nothing is shown to be
//! missing because it could not be read.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use umbra_fs::testing::damage::{Metadata, metadata};
use umbra_fs::testing::{MemPmem, SoftMmu, mount, new_volume};
use umbra_fs::{Attributes, BLOCK_SIZE, Ino, Kind, Result, Time, Volume};

const NOW: Time = Time(1_790_000_000_123_456_789);
const BLOCK: usize = BLOCK_SIZE as usize;

type Soft = Volume<MemPmem, SoftMmu>;

/// What a path shows.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    attributes: Attributes,
    content: Vec<u8>,
    names: Vec<Vec<u8>>,
}

/// Directories of several buckets, clones, trees of each height, links.
fn build() -> Soft {
    let mut volume = new_volume(8 << 20, 2);
    let root = volume.root();
    let dir = volume.mkdir(root, b"dir", 0o755, NOW).unwrap();
    for number in 0..150 {
        let name = format!("{number}-{}", "a-name-that-takes-room-".repeat(3));
        volume.create(dir, name.as_bytes(), 0o600 + number, NOW).unwrap();
    }
    let small = volume.create(root, b"small", 0o644, NOW).unwrap();
    volume.write(small, 0, b"a block", NOW).unwrap();
    let file = volume.create(root, b"file", 0o644, NOW).unwrap();
    volume.write(file, 0, &[7; 40_000], NOW).unwrap();
    let clone = volume.clone_file(file, dir, b"clone", NOW).unwrap();
    volume.write(clone, 5000, b"another leaf", NOW).unwrap();
    let tall = volume.create(root, b"tall", 0o644, NOW).unwrap();
    for at in [0, 3 << 20, 2 << 30] {
        volume.write(tall, at, b"far out", NOW).unwrap();
        volume.truncate(tall, 4096, NOW).unwrap();
    }
    volume.write(tall, 3 << 20, b"far out", NOW).unwrap();
    volume.symlink(root, b"link", b"dir/clone", NOW).unwrap();
    volume.link(small, dir, b"again", NOW).unwrap();
    volume
}

/// Looks at all that is expected; `Err` counts what was an error.
fn look(
    volume: &Soft,
    expected: Option<&BTreeMap<Vec<u8>, Seen>>,
) -> (BTreeMap<Vec<u8>, Seen>, u32) {
    let mut found = BTreeMap::new();
    let mut errors = 0;
    let mut waiting = match expected {
        Some(expected) => expected.keys().cloned().collect(),
        None => vec![b"/".to_vec()],
    };
    while let Some(path) = waiting.pop() {
        let seen = (|| -> Result<Seen> {
            let ino: Ino = volume.resolve(&path)?;
            let attributes = volume.attributes(ino)?;
            let (mut content, mut names) = (Vec::new(), Vec::new());
            match attributes.kind {
                Kind::Directory => volume.read_dir(ino, 0, &mut |entry| {
                    names.push(entry.name.to_vec());
                    ControlFlow::Continue(())
                })?,
                Kind::Symlink => content = volume.read_link(ino)?,
                Kind::File => {
                    content = vec![0; attributes.size.min(4 << 20) as usize];
                    volume.read(ino, 0, &mut content)?;
                }
            }
            Ok(Seen { attributes, content, names })
        })();
        match seen {
            Ok(seen) => {
                if expected.is_none() {
                    for name in &seen.names {
                        waiting.push([&path[..], b"/", name].concat());
                    }
                }
                found.insert(path, seen);
            }
            Err(_) => errors += 1,
        }
    }
    (found, errors)
}

/// Mounts a volume whose unmounted image was changed, and looks at it: whether it was noticed.
fn noticed(bytes: Vec<u8>, healthy: &BTreeMap<Vec<u8>, Seen>, what: &str) -> bool {
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

fn block_of(bytes: &mut [u8], block: u64) -> &mut [u8] {
    &mut bytes[block as usize * BLOCK..][..BLOCK]
}

fn unmounted() -> (Vec<u8>, BTreeMap<Vec<u8>, Seen>) {
    let volume = build();
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
                block_of(&mut changed, a).copy_from_slice(&bytes[b as usize * BLOCK..][..BLOCK]);
                block_of(&mut changed, b).copy_from_slice(&bytes[a as usize * BLOCK..][..BLOCK]);
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
        let lines = if kind == Metadata::Bucket { 16 } else { 64 };
        // Words that nothing leads to are not looked at: an inode that is free.
        for line in (0..lines).filter(|line| kind != Metadata::Inodes || line % 4 == 0) {
            let mut changed = bytes.clone();
            block_of(&mut changed, block.0)[line * 64..][..64].fill(0);
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
        block_of(&mut changed, block.0)[..1024].fill(0);
        let volume = mount(MemPmem::from_bytes(changed), 2).unwrap();
        for path in healthy.keys() {
            let found = volume.resolve(path);
            assert_ne!(found, Err(umbra_fs::Error::NotFound), "{}", String::from_utf8_lossy(path));
        }
    }
}
