//! A volume that is filled to the last block, once for each operation that gives something back: it
//! must work.

use umbra_fs::testing::{MemPmem, SoftMmu, new_volume};
use umbra_fs::{BLOCK_SIZE, Error, Existing, Ino, SetAttributes, Time, Volume};

type Full = Volume<MemPmem, SoftMmu>;

const NOW: Time = Time(1);

/// Directories `d` and `e`, with some files, one of them with a clone and a link; then no block is
/// left for anything.
fn full() -> Full {
    let mut v = new_volume(8 << 20, 4);
    let root = v.root();
    for dir in [b"d", b"e"] {
        let dir = v.mkdir(root, dir, 0o700, NOW).unwrap();
        v.mkdir(dir, b"empty", 0o700, NOW).unwrap();
        for name in [&b"small"[..], b"large", b"linked"] {
            let file = v.create(dir, name, 0o600, NOW).unwrap();
            let blocks = if name == b"large" { 600 / 3 } else { 1 };
            v.write(file, 0, &vec![7; blocks * BLOCK_SIZE as usize], NOW).unwrap();
        }
        let linked = v.lookup(dir, b"linked").unwrap();
        v.link(linked, dir, b"link", NOW).unwrap();
        let large = v.lookup(dir, b"large").unwrap();
        v.clone_file(large, dir, b"clone", NOW).unwrap();
        v.symlink(dir, b"symlink", b"target", NOW).unwrap();
    }
    fill(&mut v);
    v
}

/// Takes every block that anything but giving back can get.
fn fill(v: &mut Full) {
    while v.reclaim_step().unwrap() {}
    let root = v.root();
    let filler = match v.lookup(root, b"filler") {
        Ok(filler) => filler,
        Err(_) => v.create(root, b"filler", 0o600, NOW).unwrap(),
    };
    let mut at = v.attributes(filler).unwrap().size;
    let block = [1; BLOCK_SIZE as usize];
    while v.write(filler, at, &block, NOW) == Ok(block.len()) {
        at += BLOCK_SIZE;
    }
    // A write leaves room for nodes; copies of shared blocks through clones take that, too.
    for number in 0u32.. {
        let digits = [0, 7, 14].map(|digit| (number >> digit) as u8 | 0x80);
        match v.create(root, &[&b"filler"[..], &digits].concat(), 0o600, NOW) {
            Ok(_) | Err(Error::Exists) => {}
            Err(Error::NoSpace) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let file = v.lookup(root, b"filler").unwrap();
    assert_eq!(v.write(file, at, &block, NOW), Err(Error::NoSpace));
    assert_eq!(v.create(root, b"one-more", 0o600, NOW), Err(Error::NoSpace));
}

fn of(v: &Full, path: &[u8]) -> Ino {
    v.resolve(path).unwrap()
}

/// What is done, by its name.
type Operation = fn(&mut Full) -> Result<(), Error>;

fn names(v: &Full, from: &[u8], to: &[u8]) -> [(Ino, Vec<u8>); 2] {
    [from, to].map(|path| {
        let (dir, name) = v.resolve_parent_of_directory(path).unwrap();
        (dir, name.to_vec())
    })
}

fn rename(v: &mut Full, from: &[u8], to: &[u8]) -> Result<(), Error> {
    let [(dir, name), (to_dir, to_name)] = names(v, from, to);
    v.rename(dir, &name, to_dir, &to_name, NOW)
}

fn unlink(v: &mut Full, path: &[u8]) -> Result<(), Error> {
    let (dir, name) = v.resolve_parent(path)?;
    v.unlink(dir, name, NOW)
}

const OPERATIONS: &[(&str, Operation)] = &[
    ("unlink a small file", |v| unlink(v, b"/d/small")),
    ("unlink a large file", |v| unlink(v, b"/d/large")),
    ("unlink a clone", |v| unlink(v, b"/d/clone")),
    ("unlink one of two names", |v| unlink(v, b"/d/link")),
    ("unlink a symbolic link", |v| unlink(v, b"/d/symlink")),
    ("unlink an open file", |v| {
        let file = of(v, b"/d/small");
        let window = v.open_window(file)?;
        unlink(v, b"/d/small")?;
        v.close_window(window)
    }),
    ("remove a directory", |v| {
        let dir = of(v, b"/d");
        v.rmdir(dir, b"empty", NOW)
    }),
    ("replace a file by a rename", |v| rename(v, b"/d/small", b"/d/large")),
    ("replace a file in another directory", |v| rename(v, b"/d/small", b"/e/clone")),
    ("replace a directory", |v| rename(v, b"/d/empty", b"/e/empty")),
    ("replace one of two names", |v| rename(v, b"/d/small", b"/e/link")),
    ("replace an open file", |v| {
        let file = of(v, b"/e/large");
        let window = v.open_window(file)?;
        rename(v, b"/d/small", b"/e/large")?;
        v.close_window(window)
    }),
    ("name a file in the place of another", |v| {
        let (file, dir) = (of(v, b"/d/small"), of(v, b"/e"));
        v.link_as(file, dir, b"large", Existing::Replace, NOW)
    }),
    ("truncate to nothing", |v| v.truncate(of(v, b"/d/large"), 0, NOW)),
    ("truncate to a part of a block", |v| {
        v.truncate(of(v, b"/d/large"), 100 * BLOCK_SIZE + 5, NOW)
    }),
    ("truncate a clone", |v| v.truncate(of(v, b"/d/clone"), 100 * BLOCK_SIZE, NOW)),
    ("punch a file", |v| v.punch(of(v, b"/d/large"), 0, u64::MAX, NOW).map(drop)),
    ("punch the middle of a clone", |v| {
        v.punch(of(v, b"/d/clone"), 7 * BLOCK_SIZE, 50 * BLOCK_SIZE, NOW).map(drop)
    }),
    ("set attributes", |v| {
        let set = SetAttributes {
            mode: Some(0o444),
            uid: Some(7),
            mtime: Some(Time(3)),
            ..Default::default()
        };
        v.set_attributes(of(v, b"/d/clone"), set, NOW)
    }),
    ("sync", |v| v.sync(of(v, b"/d/large"))),
    ("replace content by less", |v| v.replace_content(of(v, b"/d/large"), &[5; 10_000], NOW)),
    ("replace content by nothing", |v| v.replace_content(of(v, b"/d/small"), b"", NOW)),
    ("replace content of a clone", |v| v.replace_content(of(v, b"/d/clone"), &[5; 4000], NOW)),
    ("overwrite in place", |v| {
        let block = [9; BLOCK_SIZE as usize];
        v.write(of(v, b"/d/small"), 0, &block, NOW).map(|n| assert_eq!(n, block.len()))
    }),
];

#[test]
fn what_gives_back_works_without_a_free_block() {
    let mut failed = Vec::new();
    for (what, operation) in OPERATIONS {
        let mut v = full();
        if let Err(error) = operation(&mut v) {
            failed.push(format!("{what}: {error}"));
        }
        while v.reclaim_step().unwrap() {}
        assert_eq!(v.check().unwrap().issues, Vec::<String>::new(), "{what}");
    }
    assert_eq!(failed, Vec::<String>::new());
}

#[test]
fn a_full_volume_can_be_emptied() {
    let mut v = full();
    // One after the other, and what each gave back is taken at once.
    for (what, operation) in OPERATIONS.iter().filter(|(what, _)| what.starts_with("unlink")) {
        if *what != "unlink an open file" {
            assert_eq!(operation(&mut v), Ok(()), "{what}");
            fill(&mut v);
        }
    }
    let root = v.root();
    unlink(&mut v, b"/filler").unwrap();
    while v.reclaim_step().unwrap() {}
    v.create(root, b"new", 0o600, NOW).unwrap();
    assert_eq!(v.check().unwrap().issues, Vec::<String>::new());
}

#[test]
fn content_is_replaced_whole() {
    let mut v = new_volume(16 << 20, 4);
    let root = v.root();
    let file = v.create(root, b"f", 0o600, NOW).unwrap();
    let window = v.open_window(file).unwrap();
    let sizes = [0, 1, 4096, 4097, 10_000, 512 * 4096, 5, 0, 100_000, 0];
    for (n, size) in sizes.into_iter().enumerate() {
        let bytes = vec![n as u8 + 1; size];
        v.replace_content(file, &bytes, NOW).unwrap();
        let mut found = vec![0; size + 10];
        assert_eq!(v.read(file, 0, &mut found), Ok(size));
        assert!(found[..size] == bytes[..], "{size}");
        assert_eq!(v.attributes(file).unwrap().size, size as u64);
        // What lies behind the end is zeros when the file grows.
        v.truncate(file, size as u64 + 9000, NOW).unwrap();
        let mut behind = vec![1; 9000];
        assert_eq!(v.read(file, size as u64, &mut behind), Ok(9000));
        assert!(behind.iter().all(|&byte| byte == 0), "{size}");
        assert_eq!(v.check().unwrap().issues, Vec::<String>::new());
    }
    assert!(matches!(
        v.replace_content(file, &vec![0; 512 * 4096 + 1], NOW),
        Err(Error::Invalid(_))
    ));
    assert_eq!(v.replace_content(root, b"x", NOW), Err(Error::IsDirectory));
    v.close_window(window).unwrap();
}
