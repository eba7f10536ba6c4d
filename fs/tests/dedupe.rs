//! Sharing what is equal: what is compared, what is shared, and what happens meanwhile.

use proptest::prelude::*;
use umbra_fs::dax;
use umbra_fs::testing::{MemPmem, SoftMachine, SoftMmu, new_volume};
use umbra_fs::{Block, Dedupe, Deduped, Error, FileBlock, Ino, Time, Volume};

type Vol = Volume<MemPmem, SoftMmu>;

const NOW: Time = Time(1);
const PAGE: u64 = 4096;

fn volume() -> Vol {
    new_volume(32 << 20, 4)
}

fn file(volume: &mut Vol, name: &str, content: &[u8]) -> Ino {
    let ino = volume.create(volume.root(), name.as_bytes(), 0o600, NOW).unwrap();
    for (i, piece) in content.chunks(1 << 20).enumerate() {
        assert_eq!(volume.write(ino, (i as u64) << 20, piece, NOW), Ok(piece.len()));
    }
    ino
}

fn content(len: u64) -> Vec<u8> {
    (0..len).map(|i| ((i / 7) ^ (i >> 12)) as u8 | 1).collect()
}

fn read(volume: &Vol, ino: Ino) -> Vec<u8> {
    let mut bytes = vec![0; volume.attributes(ino).unwrap().size as usize];
    volume.read(ino, 0, &mut bytes).unwrap();
    bytes
}

fn block(volume: &Vol, ino: Ino, block: u64) -> Option<Block> {
    volume.extent(ino, FileBlock(block)).unwrap().unwrap().at
}

fn finish(volume: &mut Vol, mut work: Dedupe) -> Deduped {
    loop {
        if let Some(done) = volume.dedupe_step(&mut work).unwrap() {
            assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
            return done;
        }
    }
}

fn dedupe(volume: &mut Vol, a: Ino, b: Ino, len: u64) -> Deduped {
    let work = volume.dedupe(a, 0, b, 0, len).unwrap();
    finish(volume, work)
}

fn settle(volume: &mut Vol) -> u64 {
    while volume.reclaim_step().unwrap() {}
    volume.space().free
}

#[test]
fn equal_files_share_all_blocks() {
    let mut v = volume();
    let bytes = content((5 << 20) + 100);
    let a = file(&mut v, "a", &bytes);
    let before = settle(&mut v);
    let b = file(&mut v, "b", &bytes);
    let len = bytes.len() as u64;
    assert_eq!(dedupe(&mut v, a, b, len), Deduped { shared: len, differs_at: None });
    assert!((0..len.div_ceil(PAGE)).all(|i| block(&v, a, i) == block(&v, b, i)));
    // The second file takes its top node, and the leaf that is not whole: two copies of each.
    assert_eq!(before - settle(&mut v), 4);
    assert_eq!(dedupe(&mut v, a, b, len), Deduped { shared: 0, differs_at: None });
    assert!(read(&v, b) == bytes && read(&v, a) == bytes);
    assert_eq!(v.write(b, 5000, b"own", NOW), Ok(3));
    assert!(read(&v, a) == bytes);
}

#[test]
fn a_difference_anywhere_changes_nothing() {
    let mut v = volume();
    let bytes = content((3 << 20) + 100);
    let a = file(&mut v, "a", &bytes);
    let len = bytes.len() as u64;
    for (n, at) in [0, 4095, 4096, 2 << 20, len - 1].into_iter().enumerate() {
        let mut other = bytes.clone();
        other[at as usize] ^= 0x80;
        let b = file(&mut v, &format!("b{n}"), &other);
        let free = settle(&mut v);
        assert_eq!(dedupe(&mut v, a, b, len), Deduped { shared: 0, differs_at: Some(at) });
        assert_eq!(settle(&mut v), free);
        assert!(read(&v, b) == other && read(&v, a) == bytes);
        v.unlink(v.root(), format!("b{n}").as_bytes(), NOW).unwrap();
    }
}

#[test]
fn holes_contain_zeros() {
    let mut v = volume();
    let a = file(&mut v, "a", &vec![0; 3 << 20]);
    let b = file(&mut v, "b", &[]);
    v.truncate(b, 3 << 20, NOW).unwrap();
    // From the hole: the zeros of the other go.
    let free = settle(&mut v);
    assert_eq!(dedupe(&mut v, b, a, 3 << 20).differs_at, None);
    assert!(settle(&mut v) >= free + 768);
    assert!((0..768).all(|i| block(&v, a, i).is_none()));
    let c = file(&mut v, "c", &[0, 0, 1]);
    v.truncate(c, 3 << 20, NOW).unwrap();
    assert_eq!(dedupe(&mut v, b, c, 3 << 20).differs_at, Some(2));
    assert_eq!(dedupe(&mut v, c, b, 3 << 20).differs_at, Some(2));
}

#[test]
fn what_is_shared_is_not_read() {
    let mut v = volume();
    let bytes = content(2 << 20);
    let a = file(&mut v, "a", &bytes);
    let b = v.clone_file(a, v.root(), b"b", NOW).unwrap();
    assert_eq!(v.write(b, 9 * PAGE, &bytes[9 * PAGE as usize..][..5], NOW), Ok(5));
    let poisoned = block(&v, a, 3).unwrap();
    v.pmem_mut().poisoned.push(poisoned.0 * PAGE);
    assert_eq!(dedupe(&mut v, a, b, 2 << 20), Deduped { shared: PAGE, differs_at: None });
    // What has to be read and cannot be is an error.
    let c = file(&mut v, "c", &bytes);
    let mut work = v.dedupe(a, 0, c, 0, 2 << 20).unwrap();
    let result = loop {
        match v.dedupe_step(&mut work) {
            Ok(None) => {}
            end => break end,
        }
    };
    assert!(matches!(result, Err(Error::Poisoned(p)) if p.at == poisoned.0 * PAGE), "{result:?}");
}

#[test]
fn bad_ranges_are_refused() {
    let mut v = volume();
    let (a, b) = (file(&mut v, "a", &content(10_000)), file(&mut v, "b", &content(20_000)));
    let root = v.root();
    assert!(matches!(v.dedupe(a, 1, b, 0, PAGE), Err(Error::Invalid(_))));
    assert!(matches!(v.dedupe(a, 0, b, 0, 10_000), Err(Error::Invalid(_))));
    assert!(matches!(v.dedupe(a, 0, b, 0, 3 * PAGE), Err(Error::Invalid(_))));
    assert!(matches!(v.dedupe(b, 0, a, 0, 3 * PAGE), Err(Error::Invalid(_))));
    assert!(matches!(v.dedupe(b, 0, b, PAGE, 2 * PAGE), Err(Error::Invalid(_))));
    assert!(matches!(v.dedupe(a, u64::MAX - 4095, b, 0, 2 * PAGE), Err(Error::TooLarge)));
    assert!(matches!(v.dedupe(root, 0, b, 0, PAGE), Err(Error::IsDirectory)));
    assert!(matches!(v.dedupe(Ino(77), 0, b, 0, PAGE), Err(Error::NotFound)));
    assert_eq!(dedupe(&mut v, a, b, 0), Deduped { shared: 0, differs_at: None });
    assert_eq!(dedupe(&mut v, a, b, 2 * PAGE).differs_at, None);
}

#[test]
fn a_file_that_goes_meanwhile_is_not_mistaken_for_its_successor() {
    let mut v = volume();
    let bytes = content(2 << 20);
    let (a, b) = (file(&mut v, "a", &bytes), file(&mut v, "b", &bytes));
    let mut work = v.dedupe(a, 0, b, 0, 2 << 20).unwrap();
    assert_eq!(v.dedupe_step(&mut work), Ok(None));
    v.unlink(v.root(), b"b", NOW).unwrap();
    assert_eq!(v.dedupe_step(&mut work), Err(Error::NotFound));
    // Numbers are used again while many are free.
    let root = v.root();
    let name = |i| format!("x{i}").into_bytes();
    for i in 0..64 {
        v.create(root, &name(i), 0o600, NOW).unwrap();
    }
    (0..64).for_each(|i| v.unlink(root, &name(i), NOW).unwrap());
    let mut made =
        (0..80).map(|i| v.create(root, format!("new{i}").as_bytes(), 0o600, NOW).unwrap());
    let successor = made.find(|&ino| ino == b).unwrap();
    v.truncate(successor, 2 << 20, NOW).unwrap();
    assert_eq!(v.dedupe_step(&mut work), Err(Error::NotFound));
}

/// What happens between two steps.
#[derive(Clone, Debug)]
enum Meanwhile {
    Write {
        target: bool,
        at: u64,
        byte: u8,
    },
    Store {
        target: bool,
        at: u64,
        byte: u8,
    },
    /// A store that changes nothing, but makes a page writable.
    Touch {
        target: bool,
        at: u64,
    },
    Clone,
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    let at = || 0u64..SIZE;
    prop_oneof![
        (any::<bool>(), at(), any::<u8>()).prop_map(|(target, at, byte)| Meanwhile::Write {
            target,
            at,
            byte
        }),
        (any::<bool>(), at(), any::<u8>()).prop_map(|(target, at, byte)| Meanwhile::Store {
            target,
            at,
            byte
        }),
        (any::<bool>(), at()).prop_map(|(target, at)| Meanwhile::Touch { target, at }),
        Just(Meanwhile::Clone),
    ]
}

const SIZE: u64 = 5 << 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is stored between the steps, and through whatever: both files contain what they
    /// would without the dedupe, and what it says to differ does.
    #[test]
    fn stores_between_the_steps_are_never_lost(
        shift in prop_oneof![Just(0u64), 1u64..5],
        steps in prop::collection::vec((0usize..60, meanwhile()), 0..6),
    ) {
        let mut machine = SoftMachine { volume: volume() };
        let bytes = content(SIZE);
        let shifted = [&vec![7; (shift * PAGE) as usize], &bytes[..]].concat();
        let files =
            [("a", &bytes), ("b", &shifted)].map(|(name, it)| file(&mut machine.volume, name, it));
        let windows = files.map(|ino| machine.volume.open_window(ino).unwrap());
        let mut models = [bytes, shifted];
        let mut work = machine.volume.dedupe(files[0], 0, files[1], shift * PAGE, SIZE).unwrap();
        let mut clones = 0;
        for step in 0.. {
            if let Some(done) = machine.volume.dedupe_step(&mut work).unwrap() {
                if let Some(at) = done.differs_at {
                    let (a, b) = (models[0][at as usize], models[1][(at + shift * PAGE) as usize]);
                    prop_assert_ne!(a, b);
                }
                break;
            }
            for (_, what) in steps.iter().filter(|(when, _)| *when == step) {
                match *what {
                    Meanwhile::Write { target, at, byte } => {
                        let side = target as usize;
                        machine.volume.write(files[side], at, &[byte], NOW).unwrap();
                        models[side][at as usize] = byte;
                    }
                    Meanwhile::Store { target, at, byte } => {
                        let side = target as usize;
                        dax::store(&mut machine, windows[side], at, &[byte]).unwrap();
                        models[side][at as usize] = byte;
                    }
                    Meanwhile::Touch { target, at } => {
                        let side = target as usize;
                        let same = models[side][at as usize];
                        dax::store(&mut machine, windows[side], at, &[same]).unwrap();
                    }
                    Meanwhile::Clone => {
                        clones += 1;
                        let (v, name) = (&mut machine.volume, format!("c{clones}"));
                        v.clone_file(files[1], v.root(), name.as_bytes(), NOW).unwrap();
                    }
                }
            }
        }
        let issues = machine.volume.check().unwrap().issues;
        prop_assert_eq!(issues, Vec::<String>::new());
        for side in 0..2 {
            prop_assert!(read(&machine.volume, files[side]) == models[side]);
            let mut seen = vec![0; models[side].len()];
            dax::load(&mut machine, windows[side], 0, &mut seen).unwrap();
            prop_assert!(seen == models[side], "a window of file {} shows something else", side);
        }
    }
}
