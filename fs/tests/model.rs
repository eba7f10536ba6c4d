//! Random operations, compared with a plain model in memory; everything is checked after
//! each step.

mod pair;

use pair::{NOW, Op, Pair, REGION, op, overlay};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use umbra_fs::dax;
use umbra_fs::testing::{mount, new_volume};
use umbra_fs::{Error, Existing, Ino};

/// Cases of a property test: more by `PROPTEST_CASES` for a long run.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Applies the operations to both, with a check after each, and compares both in the end.
fn play(pair: &mut Pair, ops: &[Op]) -> Result<(), TestCaseError> {
    for op in ops {
        pair.apply(op);
        let report = pair.volume().check().unwrap();
        prop_assert_eq!(report.issues, Vec::<String>::new(), "after {:?}", op);
    }
    pair.compare();
    for _ in 0..3 {
        pair.remount();
        pair.compare();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(150), ..ProptestConfig::default() })]

    #[test]
    fn random_operations_do_what_the_model_does(ops in prop::collection::vec(op(), 1..120)) {
        let mut pair = Pair::new(3);
        play(&mut pair, &ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(100), ..ProptestConfig::default() })]

    /// All operations that may take steps take many.
    #[test]
    fn random_operations_in_small_steps_do_what_the_model_does(
        ops in prop::collection::vec(op(), 1..100),
        work in prop_oneof![Just(1u64), 2u64..80],
    ) {
        let mut pair = Pair::with_steps(3, work);
        play(&mut pair, &ops)?;
    }
}

#[test]
fn a_deleted_volume_is_as_free_as_a_new_one() {
    let mut pair = Pair::new(3);
    let fresh = pair.volume().space().free;
    for op in [
        Op::Create(0),
        Op::Write { file: 0, offset: 0, len: 3 << 20, fill: 1 },
        Op::Clone(0, 1),
        Op::Open(1),
        Op::Store { window: 0, offset: 100, len: 9000, fill: 7 },
        Op::CloneRange { src: 0, from: 1, dst: 1, to: 514, blocks: 200 },
        Op::Close(0),
        Op::Rename(1, 2),
        Op::Remove(0),
        Op::Remove(2),
    ] {
        pair.apply(&op);
        pair.compare();
    }
    // The root directory keeps its first bucket, and its twin.
    assert_eq!(pair.volume().space().free, fresh - 2);
}

#[test]
fn cloning_the_same_range_again_takes_nothing_more() {
    let mut pair = Pair::new(3);
    for op in [
        Op::Create(0),
        Op::Write { file: 0, offset: 0, len: 100, fill: 1 },
        Op::Create(1),
        Op::CloneRange { src: 0, from: 0, dst: 1, to: 0, blocks: 1 },
        Op::CloneRange { src: 0, from: 0, dst: 1, to: 0, blocks: 1 },
        Op::Write { file: 1, offset: 0, len: 9000, fill: 2 },
        Op::CloneRange { src: 1, from: 0, dst: 0, to: 0, blocks: 3 },
        Op::CloneRange { src: 1, from: 0, dst: 0, to: 0, blocks: 3 },
    ] {
        pair.apply(&op);
        pair.compare();
    }
}

#[test]
fn what_cannot_be_linked_is_refused() {
    let mut volume = new_volume(REGION, 3);
    let root = volume.root();
    let dir = volume.mkdir(root, b"d", 0o755, NOW).unwrap();
    let file = volume.create(root, b"f", 0o644, NOW).unwrap();
    assert_eq!(volume.link(dir, root, b"n", NOW), Err(Error::IsDirectory));
    assert_eq!(volume.link(file, root, b"d", NOW), Err(Error::Exists));
    assert_eq!(volume.link(file, file, b"n", NOW), Err(Error::NotDirectory));
    assert_eq!(volume.link(file, root, b"a/b", NOW), Err(Error::InvalidName));
    assert_eq!(volume.attributes(file).unwrap().nlink, 1);
    // A file that is open without a name gets none any more.
    let window = volume.open_window(file).unwrap();
    volume.unlink(root, b"f", NOW).unwrap();
    assert_eq!(volume.link(file, root, b"n", NOW), Err(Error::NotFound));
    volume.close_window(window).unwrap();
    for target in [&b""[..], b"a\0b", &[b't'; 4096]] {
        assert!(matches!(volume.symlink(root, b"n", target, NOW), Err(Error::Invalid(_))));
    }
    let link = volume.symlink(root, b"n", &[b't'; 4095], NOW).unwrap();
    assert_eq!(volume.read_link(link), Ok(vec![b't'; 4095]));
    assert!(matches!(volume.read_link(dir), Err(Error::Invalid(_))));
    // Nothing is followed: a link is no directory, and its content is its target.
    let link = volume.symlink(root, b"to-d", b"d", NOW).unwrap();
    assert_eq!(volume.resolve(b"/to-d"), Ok(link));
    assert_eq!(volume.resolve(b"/to-d/x"), Err(Error::NotDirectory));
    assert_eq!(volume.clone_file(link, root, b"c", NOW), Err(Error::Invalid("is a symbolic link")));
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}

#[test]
fn a_file_without_a_name_is_named_once_or_goes() {
    let mut volume = new_volume(REGION, 3);
    let root = volume.root();
    let dir = volume.mkdir(root, b"d", 0o755, NOW).unwrap();
    volume.create(root, b"old", 0o644, NOW).unwrap();
    let before = volume.space();
    assert_eq!(volume.open_unnamed(Ino(7777), 0o600, (1, 2), NOW).err(), Some(Error::NotFound));
    let (ino, window) = volume.open_unnamed(dir, 0o600, (1, 2), NOW).unwrap();
    volume.write(ino, 0, &[1; 100_000], NOW).unwrap();
    let found = volume.attributes(ino).unwrap();
    assert_eq!((found.mode, found.uid, found.gid, found.nlink), (0o600, 1, 2, 0));
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
    volume.close_window(window).unwrap();
    while volume.reclaim_step().unwrap() {}
    assert_eq!(volume.space(), before);
    // With a name it stays. A file that had one, or shows what another contained, gets none.
    let (ino, window) = volume.open_unnamed(dir, 0o600, (1, 2), NOW).unwrap();
    assert_eq!(volume.link_as(ino, root, b"d", Existing::Replace, NOW), Err(Error::IsDirectory));
    assert_eq!(volume.link(ino, root, b"old", NOW), Err(Error::Exists));
    assert_eq!(volume.link_as(ino, root, b"old", Existing::Replace, NOW), Ok(()));
    assert_eq!(volume.link_as(ino, root, b"old", Existing::Replace, NOW), Ok(()));
    assert_eq!((volume.lookup(root, b"old"), volume.attributes(ino).unwrap().nlink), (Ok(ino), 1));
    volume.unlink(root, b"old", NOW).unwrap();
    assert_eq!(volume.link(ino, root, b"again", NOW), Err(Error::NotFound));
    let (frozen, view) = volume.open_frozen(ino, NOW).unwrap();
    assert_eq!(volume.link(frozen, root, b"again", NOW), Err(Error::NotFound));
    volume.close_window(view).unwrap();
    volume.close_window(window).unwrap();
    assert_eq!(volume.attributes(ino), Err(Error::NotFound));
    // With the volume it goes, too.
    volume.open_unnamed(root, 0o600, (1, 2), NOW).unwrap();
    let mut volume = mount(volume.unmount().unwrap().0, 1).unwrap();
    assert_eq!(volume.space().inodes, before.inodes - 1);
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}

#[test]
fn a_link_that_finds_no_space_leaves_the_count_as_it_was() {
    let mut volume = new_volume(8 << 20, 1);
    let root = volume.root();
    let file = volume.create(root, b"f", 0o644, NOW).unwrap();
    let filler = volume.create(root, b"filler", 0o644, NOW).unwrap();
    let mut at = 0;
    while let Ok(written) = volume.write(filler, at, &[1; 4096], NOW) {
        at += written as u64;
    }
    // Names that do not fit into the bucket need a new one.
    let mut linked = 0;
    let failed = (0..200).find_map(|i| {
        let name = format!("{i:0250}");
        let done = volume.link(file, root, name.as_bytes(), NOW).err();
        linked += done.is_none() as u32;
        done
    });
    assert_eq!(failed, Some(Error::NoSpace));
    assert_eq!(volume.symlink(root, b"s", b"f", NOW), Err(Error::NoSpace));
    assert_eq!(volume.attributes(file).unwrap().nlink, 1 + linked);
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}

#[test]
fn a_full_volume_says_so_and_can_be_emptied() {
    let mut pair = Pair::new(3);
    pair.apply(&Op::Create(0));
    let ino = pair.ino("a");
    let chunk = vec![0x5a; 1 << 20];
    let mut written = 0;
    loop {
        match pair.volume().write(ino, written, &chunk, NOW) {
            Ok(len) if len > 0 => written += len as u64,
            Ok(_) => panic!("a write of nothing"),
            Err(error) => break assert_eq!(error, Error::NoSpace),
        }
    }
    // What content leaves alone is for a few more names.
    let root = pair.volume().root();
    let name = |number: u64| format!("{number:0200}").into_bytes();
    let mut clones = 0;
    while pair.volume().clone_file(ino, root, &name(clones), NOW).is_ok() {
        clones += 1;
    }
    assert_eq!(pair.volume().clone_file(ino, root, b"one", NOW), Err(Error::NoSpace));
    assert!(pair.volume().space().free <= 2 * 96, "{:?}", pair.volume().space());
    assert_eq!(pair.volume().check().unwrap().issues, Vec::<String>::new());
    (0..clones).for_each(|number| pair.volume().unlink(root, &name(number), NOW).unwrap());
    pair.volume().unlink(root, b"a", NOW).unwrap();
    pair.apply(&Op::Create(1));
    pair.names.remove("a");
    pair.apply(&Op::Write { file: 1, offset: 0, len: 1 << 20, fill: 3 });
    pair.compare();
}

#[test]
fn a_store_that_finds_no_space_fails_and_changes_nothing() {
    let mut pair = Pair::new(3);
    pair.apply(&Op::Create(0));
    pair.apply(&Op::Write { file: 0, offset: 0, len: 40_960, fill: 9 });
    pair.apply(&Op::Clone(0, 1));
    pair.apply(&Op::Open(1));
    pair.apply(&Op::Load { window: 0, offset: 0, len: 40_960 });
    let root = pair.volume().root();
    let filler = pair.volume().create(root, b"e", 0o600, NOW).unwrap();
    let mut written = 0;
    while let Ok(len) = pair.volume().write(filler, written, &[1; 65_536], NOW) {
        written += len as u64;
    }
    let window = pair.windows[0].0;
    // A fault needs a little less than a write leaves: the first pages may still get a copy.
    let mut failed = 0;
    for page in 0..10 {
        let offset = page * 4096 + 5;
        match dax::store(&mut pair.machine, window, offset, b"no room for this") {
            Ok(()) => {
                let mut content = pair.file("b").unwrap().clone();
                overlay(&mut content, offset, b"no room for this");
                pair.set_content("b", content);
            }
            Err(error) => {
                assert_eq!((error.done, error.error), (0, Error::NoSpace));
                failed += 1;
            }
        }
    }
    assert!(failed >= 5, "{failed}");
    assert_eq!(pair.volume().pages(None).unwrap().faults.failed, failed);
    pair.volume().unlink(root, b"e", NOW).unwrap();
    pair.compare();
    pair.apply(&Op::Store { window: 0, offset: 5000, len: 16, fill: 1 });
    pair.compare();
}

#[test]
fn many_names_are_all_found_and_listed_once() {
    let mut volume = new_volume(REGION, 1);
    let root = volume.root();
    let name = |i: usize| format!("{i:0width$}", width = 1 + i % 200).into_bytes();
    let mut inos = BTreeMap::new();
    for i in 0..3000 {
        match volume.create(root, &name(i), 0o644, NOW) {
            Ok(ino) => assert!(inos.insert(name(i), ino).is_none()),
            Err(error) => assert_eq!(error, Error::Exists),
        }
    }
    // Listed in small pieces, as a client does, while names come and go.
    let (mut cookie, mut listed) = (0, BTreeMap::new());
    loop {
        let mut page = 0;
        let before = cookie;
        volume
            .read_dir(root, before, &mut |entry| {
                if !entry.name.starts_with(b"new") {
                    assert!(
                        listed.insert(entry.name.to_vec(), entry.ino).is_none(),
                        "listed twice"
                    );
                }
                cookie = entry.cookie;
                page += 1;
                if page == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        if page == 0 {
            break;
        }
        volume.create(root, format!("new{before}").as_bytes(), 0o644, NOW).unwrap();
    }
    assert_eq!(listed, inos);
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
    for (name, ino) in &inos {
        assert_eq!(volume.lookup(root, name), Ok(*ino));
        volume.unlink(root, name, NOW).unwrap();
    }
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}
