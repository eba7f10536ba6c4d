//! Random operations, compared with a plain model in memory; everything is checked after
//! each step.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use umbra_fs::dax;
use umbra_fs::testing::{MemPmem, SoftMachine, SoftMmu, mount, new_volume};
use umbra_fs::{Error, FileBlock, Ino, Kind, Time, Volume, Window};

const REGION: u64 = 24 << 20;
const NOW: Time = Time(5_000);

/// A file or a directory by its path; files have their content.
#[derive(Clone, Debug, PartialEq)]
enum Node {
    File(Vec<u8>),
    Dir,
}

#[derive(Clone, Debug)]
enum Op {
    Create(usize),
    Mkdir(usize),
    Remove(usize),
    Rename(usize, usize),
    Write {
        file: usize,
        offset: u64,
        len: u64,
        fill: u8,
    },
    Truncate {
        file: usize,
        size: u64,
    },
    Clone(usize, usize),
    CloneRange {
        src: usize,
        from: u64,
        dst: usize,
        to: u64,
        blocks: u64,
    },
    /// With `copy` the range is written to the target before.
    Dedupe {
        src: usize,
        from: u64,
        dst: usize,
        to: u64,
        blocks: u64,
        copy: bool,
    },
    Open(usize),
    Close(usize),
    Load {
        window: usize,
        offset: u64,
        len: u64,
    },
    Store {
        window: usize,
        offset: u64,
        len: u64,
        fill: u8,
    },
    Sync(usize),
    Reclaim,
    Remount,
}

/// Paths that operations choose from: some below directories.
const PATHS: [&str; 12] = [
    "a",
    "b",
    "c",
    "d",
    "d/x",
    "d/y",
    "d/z",
    "e",
    "e/x",
    "e/f",
    "e/f/x",
    "a-longer-name-that-is-still-a-name",
];

/// Offsets near the borders of blocks and leaves, and near each other.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..20_000,
        (0u64..6, 0u64..200).prop_map(|(block, near)| (block * 4096 + near).saturating_sub(100)),
        (1u64..3, 0u64..9000).prop_map(|(leaf, near)| leaf * (2 << 20) + near - 4500),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let path = 0..PATHS.len();
    let len = prop_oneof![1u64..300, 3000u64..20_000];
    let blocks = prop_oneof![1u64..4, 500u64..600];
    prop_oneof![
        3 => path.clone().prop_map(Op::Create),
        1 => path.clone().prop_map(Op::Mkdir),
        1 => path.clone().prop_map(Op::Remove),
        2 => (path.clone(), path.clone()).prop_map(|(a, b)| Op::Rename(a, b)),
        6 => (path.clone(), offset(), len.clone(), any::<u8>())
            .prop_map(|(file, offset, len, fill)| Op::Write { file, offset, len, fill }),
        2 => (path.clone(), offset()).prop_map(|(file, size)| Op::Truncate { file, size }),
        3 => (path.clone(), path.clone()).prop_map(|(a, b)| Op::Clone(a, b)),
        2 => (path.clone(), 0u64..6, path.clone(), prop_oneof![0u64..6, 508u64..516], blocks)
            .prop_map(|(src, from, dst, to, blocks)| Op::CloneRange { src, from, dst, to, blocks }),
        3 => (path.clone(), 0u64..6, path.clone(), prop_oneof![0u64..6, 508u64..516], prop_oneof![1u64..4, 500u64..600], any::<bool>())
            .prop_map(|(src, from, dst, to, blocks, copy)| Op::Dedupe { src, from, dst, to, blocks, copy }),
        2 => path.clone().prop_map(Op::Open),
        1 => (0usize..4).prop_map(Op::Close),
        4 => (0usize..4, offset(), len.clone()).prop_map(|(window, offset, len)| Op::Load { window, offset, len }),
        6 => (0usize..4, offset(), len, any::<u8>())
            .prop_map(|(window, offset, len, fill)| Op::Store { window, offset, len, fill }),
        1 => path.prop_map(Op::Sync),
        1 => Just(Op::Reclaim),
        1 => Just(Op::Remount),
    ]
}

/// The volume and the model side by side.
struct Pair {
    machine: SoftMachine<MemPmem>,
    model: BTreeMap<String, Node>,
    windows: Vec<(Window, Ino, Option<String>, Vec<u8>)>,
    remounts: u32,
}

/// The bytes that a write of this sort leaves: they differ by position.
fn pattern(fill: u8, offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len).map(|at| fill ^ (at / 7) as u8).collect()
}

fn overlay(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(bytes);
}

impl Pair {
    fn new(slots: u32) -> Self {
        let volume = new_volume(REGION, slots);
        Pair { machine: SoftMachine { volume }, model: BTreeMap::new(), windows: Vec::new(), remounts: 0 }
    }

    fn volume(&mut self) -> &mut Volume<MemPmem, SoftMmu> {
        &mut self.machine.volume
    }

    fn parent(path: &str) -> Option<&str> {
        path.rfind('/').map(|at| &path[..at])
    }

    fn is_dir(&self, path: Option<&str>) -> bool {
        path.is_none_or(|p| self.model.get(p) == Some(&Node::Dir))
    }

    fn has_children(&self, path: &str) -> bool {
        self.model.keys().any(|k| k.starts_with(&format!("{path}/")))
    }

    fn file(&self, path: &str) -> Option<&Vec<u8>> {
        match self.model.get(path) {
            Some(Node::File(content)) => Some(content),
            _ => None,
        }
    }

    fn ino(&mut self, path: &str) -> Ino {
        self.volume().resolve(path.as_bytes()).unwrap()
    }

    /// A name was taken from a file that may be open: its windows go on without it.
    fn orphan(&mut self, path: &str) {
        for window in &mut self.windows {
            if window.2.as_deref() == Some(path) {
                window.2 = None;
            }
        }
    }

    fn set_content(&mut self, path: &str, content: Vec<u8>) {
        for window in &mut self.windows {
            if window.2.as_deref() == Some(path) {
                window.3 = content.clone();
            }
        }
        self.model.insert(path.into(), Node::File(content));
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Create(p) | Op::Mkdir(p) => {
                let path = PATHS[p];
                let made = self.volume().resolve_parent(path.as_bytes()).and_then(|(dir, name)| match op {
                    Op::Create(_) => self.machine.volume.create(dir, name, 0o644, NOW),
                    _ => self.machine.volume.mkdir(dir, name, 0o755, NOW),
                });
                let possible = self.is_dir(Self::parent(path)) && !self.model.contains_key(path);
                assert_eq!(made.is_ok(), possible, "{made:?}");
                if possible {
                    let node = if matches!(op, Op::Create(_)) { Node::File(Vec::new()) } else { Node::Dir };
                    self.model.insert(path.into(), node);
                }
            }
            Op::Remove(p) => {
                let path = PATHS[p];
                let file = self.file(path).is_some();
                let done = self.volume().resolve_parent(path.as_bytes()).and_then(|(dir, name)| match file {
                    true => self.machine.volume.unlink(dir, name, NOW),
                    false => self.machine.volume.rmdir(dir, name, NOW),
                });
                let possible = self.model.contains_key(path) && !self.has_children(path);
                assert_eq!(done.is_ok(), possible, "{done:?}");
                if possible {
                    self.model.remove(path);
                    self.orphan(path);
                }
            }
            Op::Rename(a, b) => self.rename(PATHS[a], PATHS[b]),
            Op::Write { file, offset, len, fill } => {
                let path = PATHS[file];
                let Some(mut content) = self.file(path).cloned() else { return };
                let ino = self.ino(path);
                let bytes = pattern(fill, offset, len);
                assert_eq!(self.volume().write(ino, offset, &bytes, NOW), Ok(len as usize));
                overlay(&mut content, offset, &bytes);
                self.set_content(path, content);
            }
            Op::Truncate { file, size } => {
                let path = PATHS[file];
                let Some(mut content) = self.file(path).cloned() else { return };
                let ino = self.ino(path);
                self.volume().truncate(ino, size, NOW).unwrap();
                content.resize(size as usize, 0);
                self.set_content(path, content);
            }
            Op::Clone(a, b) => {
                let (src, dst) = (PATHS[a], PATHS[b]);
                let Some(content) = self.file(src).cloned() else { return };
                if !self.is_dir(Self::parent(dst)) {
                    return;
                }
                let ino = self.ino(src);
                let (dir, name) = self.volume().resolve_parent(dst.as_bytes()).unwrap();
                let made = self.volume().clone_file(ino, dir, name, NOW);
                let possible = !self.model.contains_key(dst);
                assert_eq!(made.is_ok(), possible, "{made:?}");
                if possible {
                    self.model.insert(dst.into(), Node::File(content));
                }
            }
            Op::CloneRange { src, from, dst, to, blocks } => {
                self.clone_range(PATHS[src], from, PATHS[dst], to, blocks)
            }
            Op::Dedupe { src, from, dst, to, blocks, copy } => {
                self.dedupe(PATHS[src], from, PATHS[dst], to, blocks, copy)
            }
            Op::Open(p) => {
                let path = PATHS[p];
                let Some(content) = self.file(path).cloned() else { return };
                let ino = self.ino(path);
                let window = self.volume().open_window(ino).unwrap();
                if self.windows.len() == 4 {
                    let (old, ..) = self.windows.remove(0);
                    self.volume().close_window(old).unwrap();
                }
                self.windows.push((window, ino, Some(path.into()), content));
            }
            Op::Close(w) if w < self.windows.len() => {
                let (window, ..) = self.windows.remove(w);
                self.volume().close_window(window).unwrap();
            }
            Op::Load { window, offset, len } if window < self.windows.len() => {
                let (id, _, _, content) = self.windows[window].clone();
                let mut bytes = vec![0xaa; len as usize];
                let end = content.len() as u64;
                let pages = end.next_multiple_of(4096);
                let result = dax::load(&mut self.machine, id, offset, &mut bytes);
                assert_eq!(result.is_ok(), offset + len <= pages, "{result:?}");
                let seen = end.saturating_sub(offset).min(len) as usize;
                if seen > 0 {
                    assert_eq!(bytes[..seen], content[offset as usize..offset as usize + seen]);
                }
            }
            Op::Store { window, offset, len, fill } if window < self.windows.len() => {
                let (id, ino, path, mut content) = self.windows[window].clone();
                let end = content.len() as u64;
                if end == 0 {
                    return;
                }
                // Up to the end of the file only: behind it nothing is defined.
                let offset = offset % end;
                let bytes = pattern(fill, offset, len.min(end - offset));
                dax::store(&mut self.machine, id, offset, &bytes).unwrap();
                overlay(&mut content, offset, &bytes);
                if let Some(path) = path {
                    self.set_content(&path, content);
                } else {
                    self.windows
                        .iter_mut()
                        .filter(|w| w.1 == ino && w.2.is_none())
                        .for_each(|w| w.3 = content.clone());
                }
            }
            Op::Sync(p) if self.file(PATHS[p]).is_some() => {
                let ino = self.ino(PATHS[p]);
                self.volume().sync(ino).unwrap();
            }
            Op::Reclaim => {
                self.volume().reclaim_step().unwrap();
            }
            Op::Remount => self.remount(),
            _ => {}
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        if !self.is_dir(Self::parent(from)) || !self.is_dir(Self::parent(to)) {
            return;
        }
        let (dir, name) = self.volume().resolve_parent(from.as_bytes()).unwrap();
        let (to_dir, to_name) = self.volume().resolve_parent(to.as_bytes()).unwrap();
        let done = self.volume().rename(dir, name, to_dir, to_name, NOW);
        let possible = match (self.model.get(from), self.model.get(to)) {
            (None, _) => false,
            (Some(_), Some(_)) if from == to => true,
            (Some(Node::Dir), _) if to.starts_with(&format!("{from}/")) => false,
            (Some(_), None) => true,
            (Some(Node::File(_)), Some(Node::File(_))) => true,
            (Some(Node::Dir), Some(Node::Dir)) => !self.has_children(to),
            _ => false,
        };
        assert_eq!(done.is_ok(), possible, "{done:?}");
        if !possible || from == to {
            return;
        }
        self.orphan(to);
        let moved: Vec<_> =
            self.model.keys().filter(|k| *k == from || k.starts_with(&format!("{from}/"))).cloned().collect();
        for old in moved {
            let new = format!("{to}{}", &old[from.len()..]);
            let node = self.model.remove(&old).unwrap();
            self.model.insert(new.clone(), node);
            for window in &mut self.windows {
                if window.2.as_deref() == Some(&old) {
                    window.2 = Some(new.clone());
                }
            }
        }
    }

    fn clone_range(&mut self, src: &str, from: u64, dst: &str, to: u64, blocks: u64) {
        let (Some(source), Some(mut target)) = (self.file(src).cloned(), self.file(dst).cloned()) else {
            return;
        };
        let (from, to) = (from * 4096, to * 4096);
        let len = (blocks * 4096).min((source.len() as u64).saturating_sub(from));
        let (a, b) = (self.ino(src), self.ino(dst));
        let done = self.volume().clone_range(a, from, b, to, len, NOW);
        let whole = len.is_multiple_of(4096) || to + len >= target.len() as u64;
        let round = len.next_multiple_of(4096);
        let apart = src != dst || from + round <= to || to + round <= from;
        let possible = from <= source.len() as u64 && whole && apart;
        if len == 0 {
            return;
        }
        assert_eq!(done.is_ok(), possible, "{done:?}");
        if possible {
            overlay(&mut target, to, &source[from as usize..(from + len) as usize]);
            self.set_content(dst, target);
        }
    }

    fn dedupe(&mut self, src: &str, from: u64, dst: &str, to: u64, blocks: u64, copy: bool) {
        let (Some(source), Some(mut target)) = (self.file(src).cloned(), self.file(dst).cloned()) else {
            return;
        };
        let (from, to) = (from * 4096, to * 4096);
        let len = (blocks * 4096).min((source.len() as u64).saturating_sub(from));
        let (a, b) = (self.ino(src), self.ino(dst));
        let bytes = source[source.len().min(from as usize)..][..len as usize].to_vec();
        let round = len.next_multiple_of(4096);
        let apart = src != dst || from + round <= to || to + round <= from;
        if copy && apart && len > 0 {
            assert_eq!(self.volume().write(b, to, &bytes, NOW), Ok(len as usize));
            overlay(&mut target, to, &bytes);
            self.set_content(dst, target.clone());
        }
        let begun = self.volume().dedupe(a, from, b, to, len);
        // A write into the source's own file may have moved its end.
        let ends =
            if src == dst { [target.len() as u64; 2] } else { [source.len() as u64, target.len() as u64] };
        let whole = len.is_multiple_of(4096) || [from + len, to + len] == ends;
        let possible = from + len <= ends[0] && to + len <= ends[1] && whole && apart;
        assert_eq!(begun.is_ok(), possible, "{begun:?}");
        let Ok(mut work) = begun else { return };
        let done = loop {
            if let Some(done) = self.volume().dedupe_step(&mut work).unwrap() {
                break done;
            }
        };
        let there = &target[to as usize..(to + len) as usize];
        let differs_at = (0..len).find(|&i| bytes[i as usize] != there[i as usize]);
        assert_eq!(done.differs_at, differs_at);
        for i in (0..len.div_ceil(4096)).filter(|_| differs_at.is_none()) {
            let at =
                |v: &mut Self, ino, block| v.volume().extent(ino, FileBlock(block)).unwrap().map(|e| e.at);
            assert_eq!(at(self, a, from / 4096 + i), at(self, b, to / 4096 + i), "block {i} is not shared");
        }
    }

    fn remount(&mut self) {
        let slots = 3;
        let fresh = new_volume(8 << 20, 1);
        let volume = std::mem::replace(&mut self.machine.volume, fresh);
        self.remounts += 1;
        self.machine.volume = if self.remounts.is_multiple_of(2) {
            mount(volume.unmount().unwrap().0, slots).unwrap()
        } else {
            // A crash in which every store had reached the media.
            mount(volume.pmem().clone(), slots).unwrap()
        };
        assert_eq!(self.machine.volume.was_rebuilt(), self.remounts % 2 == 1);
        self.windows.clear();
    }

    /// Everything is as the model says.
    fn compare(&mut self) {
        let report = self.volume().check().unwrap();
        assert_eq!(report.issues, Vec::<String>::new());
        let mut found = BTreeMap::new();
        let root = self.volume().root();
        list(self.volume(), root, "", &mut found);
        assert_eq!(found.keys().collect::<Vec<_>>(), self.model.keys().collect::<Vec<_>>());
        for (path, node) in &found {
            assert!(node == &self.model[path], "content of {path} differs");
        }
        for (window, _, _, content) in self.windows.clone() {
            let mut bytes = vec![0; content.len()];
            dax::load(&mut self.machine, window, 0, &mut bytes).unwrap();
            assert!(bytes == content, "a window shows something else");
        }
    }
}

fn list(volume: &Volume<MemPmem, SoftMmu>, dir: Ino, prefix: &str, into: &mut BTreeMap<String, Node>) {
    let mut names = Vec::new();
    volume
        .read_dir(dir, 0, &mut |entry| {
            names.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.ino, entry.kind));
            ControlFlow::Continue(())
        })
        .unwrap();
    for (name, ino, kind) in names {
        let path = format!("{prefix}{name}");
        if kind == Kind::Directory {
            list(volume, ino, &format!("{path}/"), into);
            into.insert(path, Node::Dir);
        } else {
            let size = volume.attributes(ino).unwrap().size;
            let mut content = vec![0; size as usize];
            assert_eq!(volume.read(ino, 0, &mut content), Ok(size as usize));
            into.insert(path, Node::File(content));
        }
    }
}

/// Cases of a property test: more by `PROPTEST_CASES` for a long run.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(150), ..ProptestConfig::default() })]

    #[test]
    fn random_operations_do_what_the_model_does(ops in prop::collection::vec(op(), 1..120)) {
        let mut pair = Pair::new(3);
        for op in &ops {
            pair.apply(op);
            let report = pair.volume().check().unwrap();
            prop_assert_eq!(report.issues, Vec::<String>::new(), "after {:?}", op);
        }
        pair.compare();
        for _ in 0..3 {
            pair.remount();
            pair.compare();
        }
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
    // The root directory keeps its first bucket.
    assert_eq!(pair.volume().space().free, fresh - 1);
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
    let (dir, name) = pair.volume().resolve_parent(b"b").unwrap();
    assert_eq!(pair.volume().clone_file(ino, dir, name, NOW), Err(Error::NoSpace));
    assert!(pair.volume().space().free <= 128, "{:?}", pair.volume().space());
    assert_eq!(pair.volume().check().unwrap().issues, Vec::<String>::new());
    let root = pair.volume().root();
    pair.volume().unlink(root, b"a", NOW).unwrap();
    pair.apply(&Op::Create(1));
    pair.model.remove("a");
    pair.model.insert("b".into(), Node::File(Vec::new()));
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
                    assert!(listed.insert(entry.name.to_vec(), entry.ino).is_none(), "listed twice");
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
