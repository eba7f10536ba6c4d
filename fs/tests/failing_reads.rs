//! An operation in which one read of the media fails, each in its turn: where nothing that can be
//! seen has changed, no block is missing either.

use umbra_fs::dax::Access;
use umbra_fs::testing::{MemPmem, SoftMmu, mount, new_volume};
use umbra_fs::{Error, Existing, Extent, FileBlock, Ino, Time, Volume};

type V = Volume<MemPmem, SoftMmu>;

const NOW: Time = Time(5);
const PAGE: u64 = 4096;

/// A volume with files of several shapes: `a`, its clone `b`, a small one `c`.
fn prepared() -> MemPmem {
    let mut volume = new_volume(8 << 20, 2);
    let root = volume.root();
    let a = volume.create(root, b"a", 0o600, Time(1)).unwrap();
    for block in [0, 1, 5] {
        volume.write(a, block * PAGE, &[block as u8 + 1; PAGE as usize], Time(1)).unwrap();
    }
    volume.clone_file(a, root, b"b", Time(1)).unwrap();
    let c = volume.create(root, b"c", 0o600, Time(1)).unwrap();
    volume.write(c, 0, &[7; 3 * PAGE as usize], Time(1)).unwrap();
    while volume.reclaim_step().unwrap() {}
    volume.unmount().unwrap().0
}

/// What can be seen of a name: inode, size, count of names, content, and where that is.
type Seen = (Vec<u8>, Ino, u64, u32, Vec<u8>, Vec<Option<Extent>>);

/// Everything that can be seen but times.
fn seen(volume: &V) -> Vec<Seen> {
    let mut names = Vec::new();
    volume
        .read_dir(volume.root(), 0, &mut |entry| {
            names.push((entry.name.to_vec(), entry.ino));
            core::ops::ControlFlow::Continue(())
        })
        .unwrap();
    names.sort();
    let look = |(name, ino)| {
        let found = volume.attributes(ino).unwrap();
        let mut content = vec![0; found.size as usize];
        volume.read(ino, 0, &mut content).unwrap();
        let blocks = (0..found.size.div_ceil(PAGE)).map(FileBlock);
        let places = blocks.map(|block| volume.extent(ino, block).unwrap()).collect();
        (name, ino, found.size, found.nlink, content, places)
    };
    names.into_iter().map(look).collect()
}

fn free(volume: &mut V) -> u64 {
    while volume.reclaim_step().unwrap() {}
    volume.space().free
}

type Work = fn(&mut V, [Ino; 3]) -> Result<(), Error>;

const WORK: &[(&str, Work)] = &[
    ("create", |v, _| v.create(v.root(), b"new", 0o600, NOW).map(drop)),
    ("symlink", |v, _| v.symlink(v.root(), b"new", b"target", NOW).map(drop)),
    ("link", |v, [a, ..]| v.link(a, v.root(), b"new", NOW)),
    ("link in the place of another", |v, [a, ..]| {
        v.link_as(a, v.root(), b"c", Existing::Replace, NOW)
    }),
    ("rename", |v, _| v.rename(v.root(), b"a", v.root(), b"c", NOW)),
    ("unlink", |v, _| v.unlink(v.root(), b"c", NOW)),
    ("clone", |v, [_, _, c]| v.clone_file(c, v.root(), b"new", NOW).map(drop)),
    ("clone of a range", |v, [a, _, c]| v.clone_range(a, 0, c, 3 * PAGE, 2 * PAGE, NOW)),
    ("replace", |v, [_, _, c]| v.replace_content(c, &[9; 2 * PAGE as usize], NOW)),
    ("replace with more", |v, [_, _, c]| v.replace_content(c, &[9; 9 * PAGE as usize], NOW)),
    ("write over shared blocks", |v, [a, ..]| v.write(a, 0, &[9; 5000], NOW).map(drop)),
    ("write to a hole", |v, [a, ..]| v.write(a, 2 * PAGE, &[9; 5000], NOW).map(drop)),
    ("truncate", |v, [a, ..]| v.truncate(a, PAGE, NOW)),
    ("punch", |v, [a, ..]| v.punch(a, PAGE, 5 * PAGE, NOW).map(drop)),
    ("store", |v, [a, ..]| {
        let window = v.open_window(a)?;
        let page = v.attach(window, 0)?.page(1);
        v.fault(page, Access::Store)
    }),
];

#[test]
fn a_read_that_fails_costs_no_block() {
    let image = prepared();
    let (mut cases, mut unchanged, mut clones) = (0, 0, 0);
    for (name, work) in WORK {
        for reads in 0.. {
            let mut volume = mount(image.clone(), 2).unwrap();
            let files = [b"a", b"b", b"c"].map(|name| volume.lookup(volume.root(), name).unwrap());
            let before = (seen(&volume), free(&mut volume));
            volume.pmem().reads_left.set(Some(reads));
            let result = work(&mut volume, files);
            let ended = volume.pmem().reads_left.replace(None).is_some();
            if ended {
                assert_eq!(result, Ok(()), "{name}");
                break;
            }
            cases += 1;
            let after = (seen(&volume), free(&mut volume));
            if after.0 == before.0 && result.is_err() {
                unchanged += 1;
                assert_eq!(after.1, before.1, "{name}, read {reads}: {result:?}: free blocks");
            }
            // A clone that is there although an error was reported is a clone: what is written to
            // its source does not show in it.
            if let Ok(new) = volume.lookup(volume.root(), b"new")
                && *name == "clone"
            {
                let content = |v: &V| {
                    let mut bytes = [0; PAGE as usize];
                    v.read(new, 0, &mut bytes).unwrap();
                    bytes
                };
                let cloned = content(&volume);
                volume.write(files[2], 0, &[99; PAGE as usize], NOW).unwrap();
                assert_eq!(content(&volume), cloned, "read {reads}: {result:?}");
                clones += 1;
            }
        }
    }
    println!("{cases} reads failed, {unchanged} operations changed nothing");
    assert!(cases > 500 && unchanged > 200 && clones > 0);
}
