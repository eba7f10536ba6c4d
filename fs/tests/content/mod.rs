//! A volume with some of everything, and what it shows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use umbra_fs::testing::{MemPmem, SoftMmu, new_volume};
use umbra_fs::{Attributes, Ino, Kind, Result, Time, Volume};

const NOW: Time = Time(1_790_000_000_123_456_789);

pub type Soft = Volume<MemPmem, SoftMmu>;

/// What all paths show.
pub type Content = BTreeMap<Vec<u8>, Seen>;

/// What a path shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub attributes: Attributes,
    pub content: Vec<u8>,
    pub names: Vec<Vec<u8>>,
}

/// Directories of several buckets, clones, trees of each height, links.
pub fn populated(len: u64) -> Soft {
    let mut volume = new_volume(len, 2);
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
pub fn look(volume: &Soft, expected: Option<&Content>) -> (Content, u32) {
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
