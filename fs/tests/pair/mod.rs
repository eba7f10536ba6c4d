//! A volume and a plain model of it, side by side: random operations do the same to both.

mod op;
mod ranges;

pub use op::{Op, PATHS, op};
use ranges::UnderWay;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use umbra_fs::dax;
use umbra_fs::testing::{MemPmem, SoftMachine, SoftMmu, mount, new_volume};
use umbra_fs::{Block, Existing, FileBlock, Ino, Kind, LENT_RUN, Pmem, Time, Volume, Window};

pub const REGION: u64 = 24 << 20;
pub const NOW: Time = Time(5_000);

/// What a name stands for. Two names of one number are hard links.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Node {
    /// A file or a symbolic link.
    File(usize),
    Dir,
}

/// A file, or a symbolic link, whose target is its content. It stays when its names are gone:
/// windows may show it.
#[derive(Clone, Debug)]
struct File {
    content: Vec<u8>,
    kind: Kind,
}

/// A window on what a file contained.
#[derive(Clone, Debug)]
struct Frozen {
    window: Window,
    ino: Ino,
    content: Vec<u8>,
    blocks: Vec<Option<Block>>,
}

/// The volume and the model side by side.
pub struct Pair {
    pub machine: SoftMachine<MemPmem>,
    pub names: BTreeMap<String, Node>,
    files: Vec<File>,
    /// Windows, and the numbers of the files that they show.
    pub windows: Vec<(Window, usize)>,
    /// Windows on what files contained, with that, and where it is.
    frozen: Vec<Frozen>,
    /// Windows on files that have no name yet, and what they contain.
    unnamed: Vec<(Ino, Window, Vec<u8>)>,
    /// Runs of blocks that are lent.
    lent: Vec<Block>,
    /// Those that something was received into, and that were not given back.
    kept: Vec<Block>,
    remounts: u32,
    /// A clone of a range that is under way.
    under_way: Option<UnderWay>,
    /// Work that a step does.
    work: u64,
}

/// The bytes that a write of this sort leaves: they differ by position.
fn pattern(fill: u8, offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len).map(|at| fill ^ (at / 7) as u8).collect()
}

pub fn overlay(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(bytes);
}

impl Pair {
    pub fn new(slots: u32) -> Self {
        Pair::with_steps(slots, 1024)
    }

    /// Operations do so little in a step.
    pub fn with_steps(slots: u32, work: u64) -> Self {
        let mut volume = new_volume(REGION, slots);
        volume.set_work_a_step(work);
        Pair {
            machine: SoftMachine { volume },
            names: BTreeMap::new(),
            files: Vec::new(),
            windows: Vec::new(),
            frozen: Vec::new(),
            unnamed: Vec::new(),
            lent: Vec::new(),
            kept: Vec::new(),
            remounts: 0,
            under_way: None,
            work,
        }
    }

    pub fn volume(&mut self) -> &mut Volume<MemPmem, SoftMmu> {
        &mut self.machine.volume
    }

    fn parent(path: &str) -> Option<&str> {
        path.rfind('/').map(|at| &path[..at])
    }

    fn is_dir(&self, path: Option<&str>) -> bool {
        path.is_none_or(|p| self.names.get(p) == Some(&Node::Dir))
    }

    fn has_children(&self, path: &str) -> bool {
        self.names.keys().any(|k| k.starts_with(&format!("{path}/")))
    }

    /// The content of a regular file.
    pub fn file(&self, path: &str) -> Option<&Vec<u8>> {
        match self.names.get(path) {
            Some(&Node::File(id)) if self.files[id].kind == Kind::File => {
                Some(&self.files[id].content)
            }
            _ => None,
        }
    }

    pub fn ino(&mut self, path: &str) -> Ino {
        self.volume().resolve(path.as_bytes()).unwrap()
    }

    pub fn add(&mut self, path: &str, kind: Kind, content: Vec<u8>) {
        self.names.insert(path.into(), Node::File(self.files.len()));
        self.files.push(File { content, kind });
    }

    pub fn set_content(&mut self, path: &str, content: Vec<u8>) {
        if let Some(&Node::File(id)) = self.names.get(path) {
            self.files[id].content = content;
        }
    }

    /// Whether a new name can be made.
    fn is_free(&self, path: &str) -> bool {
        self.is_dir(Self::parent(path)) && !self.names.contains_key(path)
    }

    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::Create(p) | Op::Mkdir(p) => {
                let path = PATHS[p];
                let made =
                    self.volume().resolve_parent(path.as_bytes()).and_then(
                        |(dir, name)| match op {
                            Op::Create(_) => self.machine.volume.create(dir, name, 0o644, NOW),
                            _ => self.machine.volume.mkdir(dir, name, 0o755, NOW),
                        },
                    );
                let possible = self.is_free(path);
                assert_eq!(made.is_ok(), possible, "{made:?}");
                match op {
                    _ if !possible => {}
                    Op::Create(_) => self.add(path, Kind::File, Vec::new()),
                    _ => drop(self.names.insert(path.into(), Node::Dir)),
                }
            }
            Op::Remove(p) => {
                let path = PATHS[p];
                let file = matches!(self.names.get(path), Some(Node::File(_)));
                let done =
                    self.volume().resolve_parent(path.as_bytes()).and_then(
                        |(dir, name)| match file {
                            true => self.machine.volume.unlink(dir, name, NOW),
                            false => self.machine.volume.rmdir(dir, name, NOW),
                        },
                    );
                let possible = self.names.contains_key(path) && !self.has_children(path);
                assert_eq!(done.is_ok(), possible, "{done:?}");
                if possible {
                    self.names.remove(path);
                }
            }
            Op::Rename(a, b) => self.rename(PATHS[a], PATHS[b]),
            Op::Link(a, b) => {
                let (from, to) = (PATHS[a], PATHS[b]);
                let (Some(node), true) =
                    (self.names.get(from).copied(), self.is_dir(Self::parent(to)))
                else {
                    return;
                };
                let ino = self.ino(from);
                let (dir, name) = self.volume().resolve_parent(to.as_bytes()).unwrap();
                let done = self.volume().link(ino, dir, name, NOW);
                let possible = node != Node::Dir && !self.names.contains_key(to);
                assert_eq!(done.is_ok(), possible, "{done:?}");
                if possible {
                    self.names.insert(to.into(), node);
                }
            }
            Op::Symlink(target, p) => {
                let (target, path) = (PATHS[target].as_bytes(), PATHS[p]);
                if !self.is_dir(Self::parent(path)) {
                    return;
                }
                let (dir, name) = self.volume().resolve_parent(path.as_bytes()).unwrap();
                let made = self.volume().symlink(dir, name, target, NOW);
                let possible = self.is_free(path);
                assert_eq!(made.is_ok(), possible, "{made:?}");
                if let Ok(ino) = made {
                    assert_eq!(self.volume().read_link(ino), Ok(target.to_vec()));
                    assert!(self.volume().write(ino, 0, b"x", NOW).is_err());
                    assert!(self.volume().truncate(ino, 0, NOW).is_err());
                    assert!(self.volume().open_window(ino).is_err());
                    self.add(path, Kind::Symlink, target.to_vec());
                }
            }
            Op::Write { file, offset, len, fill } => {
                let path = PATHS[file];
                let Some(mut content) = self.file(path).cloned() else { return };
                let ino = self.ino(path);
                let bytes = pattern(fill, offset, len);
                assert_eq!(self.volume().write(ino, offset, &bytes, NOW), Ok(len as usize));
                overlay(&mut content, offset, &bytes);
                self.set_content(path, content);
            }
            Op::Lend => self.lent.extend(self.machine.volume.lend()),
            Op::DeviceWrites => {
                for run in self.lent.clone() {
                    self.volume().pmem_mut().write(run.0 * 4096, &[0xdd; LENT_RUN as usize * 4096]);
                }
            }
            Op::Receive { file, block, at, len, fill, keep } => {
                let run = self.receive(PATHS[file], block, at, len, fill);
                if keep {
                    self.kept.extend(run);
                } else if let Some(run) = run {
                    self.volume().take_back(run);
                }
            }
            Op::TakeBack(n) if n < self.kept.len() => {
                let run = self.kept.remove(n);
                self.volume().take_back(run);
            }
            Op::Truncate { file, size } => {
                let path = PATHS[file];
                let Some(mut content) = self.file(path).cloned() else { return };
                let ino = self.ino(path);
                self.volume().truncate(ino, size, NOW).unwrap();
                content.resize(size as usize, 0);
                self.set_content(path, content);
            }
            Op::Punch { file, offset, len } => self.zero(PATHS[file], offset, len, true),
            Op::Provide { file, offset, len } => self.zero(PATHS[file], offset, len, false),
            Op::Clone(a, b) => {
                let (src, dst) = (PATHS[a], PATHS[b]);
                let Some(content) = self.file(src).cloned() else { return };
                if !self.is_dir(Self::parent(dst)) {
                    return;
                }
                let ino = self.ino(src);
                let (dir, name) = self.volume().resolve_parent(dst.as_bytes()).unwrap();
                let made = self.volume().clone_file(ino, dir, name, NOW);
                let possible = !self.names.contains_key(dst);
                assert_eq!(made.is_ok(), possible, "{made:?}");
                if possible {
                    self.add(dst, Kind::File, content);
                }
            }
            Op::CloneRange { src, from, dst, to, blocks } => {
                self.clone_range(PATHS[src], from, PATHS[dst], to, blocks)
            }
            Op::BeginCloneRange { src, from, dst, to, blocks, steps } => {
                self.begin_clone_range(PATHS[src], from, PATHS[dst], to, blocks);
                (0..steps).for_each(|_| self.go_on());
            }
            Op::GoOn(steps) => (0..steps).for_each(|_| self.go_on()),
            Op::GiveUp => {
                if let Some(under_way) = self.under_way.take() {
                    self.volume().abandon(under_way.operation);
                }
            }
            Op::Dedupe { src, from, dst, to, blocks, copy } => {
                self.dedupe(PATHS[src], from, PATHS[dst], to, blocks, copy)
            }
            Op::Open(p) => {
                let path = PATHS[p];
                let (Some(_), Some(&Node::File(id))) = (self.file(path), self.names.get(path))
                else {
                    return;
                };
                let ino = self.ino(path);
                let window = self.volume().open_window(ino).unwrap();
                if self.windows.len() >= 4 {
                    let (old, ..) = self.windows.remove(0);
                    self.volume().close_window(old).unwrap();
                }
                self.windows.push((window, id));
            }
            Op::Close(w) if w < self.windows.len() => {
                let (window, ..) = self.windows.remove(w);
                self.volume().close_window(window).unwrap();
            }
            Op::Freeze(p) => self.freeze(PATHS[p]),
            Op::Thaw(n) if n < self.frozen.len() => {
                let Frozen { window, .. } = self.frozen.remove(n);
                self.volume().close_window(window).unwrap();
            }
            Op::Unnamed => {
                if self.unnamed.len() == 3 {
                    self.apply(&Op::Drop(0));
                }
                let root = self.volume().root();
                let (ino, window) = self.volume().open_unnamed(root, 0o600, (1, 2), NOW).unwrap();
                self.unnamed.push((ino, window, Vec::new()));
            }
            Op::WriteUnnamed { file, offset, len, fill } if file < self.unnamed.len() => {
                let bytes = pattern(fill, offset, len);
                let (ino, window, content) = &mut self.unnamed[file];
                assert_eq!(self.machine.volume.write(*ino, offset, &bytes, NOW), Ok(len as usize));
                overlay(content, offset, &bytes);
                let stored = pattern(!fill, offset, len.min(100));
                dax::store(&mut self.machine, *window, offset, &stored).unwrap();
                overlay(content, offset, &stored);
            }
            Op::Name { file, path, over } if file < self.unnamed.len() => {
                self.name(file, PATHS[path], over)
            }
            Op::Drop(n) if n < self.unnamed.len() => {
                let (ino, window, _) = self.unnamed.remove(n);
                self.volume().close_window(window).unwrap();
                assert!(self.volume().attributes(ino).is_err());
            }
            Op::LinkOver(a, b) => {
                let (from, to) = (PATHS[a], PATHS[b]);
                let (Some(node), true) =
                    (self.names.get(from).copied(), self.is_dir(Self::parent(to)))
                else {
                    return;
                };
                let ino = self.ino(from);
                let (dir, name) = self.volume().resolve_parent(to.as_bytes()).unwrap();
                let done = self.volume().link_as(ino, dir, name, Existing::Replace, NOW);
                let possible = node != Node::Dir && self.names.get(to) != Some(&Node::Dir);
                assert_eq!(done.is_ok(), possible, "{done:?}");
                if possible {
                    self.names.insert(to.into(), node);
                }
            }
            Op::Load { window, offset, len } if window < self.windows.len() => {
                let (window, id) = self.windows[window];
                let content = self.files[id].content.clone();
                let mut bytes = vec![0xaa; len as usize];
                let end = content.len() as u64;
                let pages = end.next_multiple_of(4096);
                let result = dax::load(&mut self.machine, window, offset, &mut bytes);
                assert_eq!(result.is_ok(), offset + len <= pages, "{result:?}");
                let seen = end.saturating_sub(offset).min(len) as usize;
                if seen > 0 {
                    assert_eq!(bytes[..seen], content[offset as usize..offset as usize + seen]);
                }
            }
            Op::Store { window, offset, len, fill } if window < self.windows.len() => {
                let (window, id) = self.windows[window];
                let end = self.files[id].content.len() as u64;
                if end == 0 {
                    return;
                }
                // Up to the end of the file only: behind it nothing is defined.
                let offset = offset % end;
                let bytes = pattern(fill, offset, len.min(end - offset));
                dax::store(&mut self.machine, window, offset, &bytes).unwrap();
                overlay(&mut self.files[id].content, offset, &bytes);
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

    /// Writes what a device has received into a run that is lent: new blocks are those of the run,
    /// and nothing of it is copied.
    fn receive(&mut self, path: &str, block: u64, at: u64, len: u64, fill: u8) -> Option<Block> {
        let mut content = self.file(path).cloned()?;
        let run = self.lent.pop().or_else(|| self.volume().lend())?;
        let ino = self.ino(path);
        let (offset, len) = (block * 4096, len.min((LENT_RUN - at) * 4096));
        let bytes = pattern(fill, offset, len);
        let first = Block(run.0 + at);
        self.volume().pmem_mut().write(first.0 * 4096, &bytes);
        let before = self.own(ino, block, len / 4096);
        assert_eq!(self.volume().write_received(ino, offset, &bytes, first, NOW), Ok(len as usize));
        for (i, own) in before.into_iter().enumerate() {
            let is = self.volume().extent(ino, FileBlock(block + i as u64)).unwrap().unwrap().at;
            assert_eq!(is == Some(Block(first.0 + i as u64)), !own, "block {i} of {len} bytes");
        }
        overlay(&mut content, offset, &bytes);
        self.set_content(path, content);
        Some(run)
    }

    fn freeze(&mut self, path: &str) {
        let Some(content) = self.file(path).cloned() else { return };
        let ino = self.ino(path);
        let (ino, window) = self.volume().open_frozen(ino, NOW).unwrap();
        let blocks = self.blocks(ino);
        self.frozen.push(Frozen { window, ino, content, blocks });
        if self.frozen.len() > 3 {
            self.apply(&Op::Thaw(0));
        }
    }

    fn name(&mut self, file: usize, path: &str, over: bool) {
        if !self.is_dir(Self::parent(path)) {
            return;
        }
        let (ino, window, content) = self.unnamed[file].clone();
        let (dir, name) = self.volume().resolve_parent(path.as_bytes()).unwrap();
        let done = match over {
            true => self.volume().link_as(ino, dir, name, Existing::Replace, NOW),
            false => self.volume().link(ino, dir, name, NOW),
        };
        let possible = match self.names.get(path) {
            None => true,
            Some(Node::File(_)) => over,
            Some(Node::Dir) => false,
        };
        assert_eq!(done.is_ok(), possible, "{done:?}");
        if possible {
            self.unnamed.remove(file);
            // The window stays open.
            self.windows.push((window, self.files.len()));
            self.add(path, Kind::File, content);
        }
    }

    /// Where the blocks of a file are.
    fn blocks(&mut self, ino: Ino) -> Vec<Option<Block>> {
        let mut blocks = Vec::new();
        while let Some(run) = self.volume().extent(ino, FileBlock(blocks.len() as u64)).unwrap() {
            blocks.extend((0..run.blocks).map(|i| run.at.map(|at| Block(at.0 + i))));
        }
        blocks
    }

    /// Which blocks of a range are the file's own.
    fn own(&mut self, ino: Ino, block: u64, count: u64) -> Vec<bool> {
        let own = |at| {
            let run = self.machine.volume.extent(ino, FileBlock(at)).unwrap();
            run.is_some_and(|run| run.at.is_some() && !run.shared)
        };
        (block..block + count).map(own).collect()
    }

    /// Makes a range read as zeros: a hole, or blocks of the file's own.
    fn zero(&mut self, path: &str, offset: u64, len: u64, hole: bool) {
        let Some(mut content) = self.file(path).cloned() else { return };
        let ino = self.ino(path);
        let mut done = 0;
        while done < len {
            let step = match hole {
                true => self.volume().punch(ino, offset + done, len - done, NOW),
                false => self.volume().provide_zeros(ino, offset + done, len - done, NOW),
            };
            let step = step.unwrap();
            assert!(step > 0 && step <= len - done, "{step} of {}", len - done);
            done += step;
        }
        let size = content.len() as u64;
        let end = (offset + len).min(size);
        if offset >= end {
            return;
        }
        content[offset as usize..end as usize].fill(0);
        self.set_content(path, content);
        let stop = if end == size { end.div_ceil(4096) } else { end / 4096 };
        let mut block = offset.div_ceil(4096);
        while block < stop {
            let run = self.volume().extent(ino, FileBlock(block)).unwrap().unwrap();
            assert_eq!(run.at.is_none(), hole, "block {block}: {run:?}");
            assert!(hole || run.unwritten && !run.shared, "block {block}: {run:?}");
            block += run.blocks;
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        if !self.is_dir(Self::parent(from)) || !self.is_dir(Self::parent(to)) {
            return;
        }
        let (dir, name) = self.volume().resolve_parent(from.as_bytes()).unwrap();
        let (to_dir, to_name) = self.volume().resolve_parent(to.as_bytes()).unwrap();
        let done = self.volume().rename(dir, name, to_dir, to_name, NOW);
        let possible = match (self.names.get(from), self.names.get(to)) {
            (None, _) => false,
            (Some(_), Some(_)) if from == to => true,
            (Some(Node::Dir), _) if to.starts_with(&format!("{from}/")) => false,
            (Some(_), None) => true,
            (Some(Node::File(_)), Some(Node::File(_))) => true,
            (Some(Node::Dir), Some(Node::Dir)) => !self.has_children(to),
            _ => false,
        };
        assert_eq!(done.is_ok(), possible, "{done:?}");
        // Of two names of one file, none goes.
        let same =
            self.names.get(from) == self.names.get(to) && self.names.get(from) != Some(&Node::Dir);
        if !possible || from == to || same {
            return;
        }
        let moved: Vec<_> = self
            .names
            .keys()
            .filter(|k| *k == from || k.starts_with(&format!("{from}/")))
            .cloned()
            .collect();
        for old in moved {
            let new = format!("{to}{}", &old[from.len()..]);
            let node = self.names.remove(&old).unwrap();
            self.names.insert(new, node);
        }
    }

    fn dedupe(&mut self, src: &str, from: u64, dst: &str, to: u64, blocks: u64, copy: bool) {
        let (Some(source), Some(mut target)) = (self.file(src).cloned(), self.file(dst).cloned())
        else {
            return;
        };
        let (from, to) = (from * 4096, to * 4096);
        let len = (blocks * 4096).min((source.len() as u64).saturating_sub(from));
        let (a, b) = (self.ino(src), self.ino(dst));
        let bytes = source[source.len().min(from as usize)..][..len as usize].to_vec();
        let round = len.next_multiple_of(4096);
        // Two names may be of one file.
        let apart = a != b || from + round <= to || to + round <= from;
        if copy && apart && len > 0 {
            assert_eq!(self.volume().write(b, to, &bytes, NOW), Ok(len as usize));
            overlay(&mut target, to, &bytes);
            self.set_content(dst, target.clone());
        }
        let begun = self.volume().dedupe(a, from, b, to, len);
        // A write into the source's own file may have moved its end.
        let ends = if a == b {
            [target.len() as u64; 2]
        } else {
            [source.len() as u64, target.len() as u64]
        };
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
            let at = |v: &mut Self, ino, block| {
                v.volume().extent(ino, FileBlock(block)).unwrap().map(|e| e.at)
            };
            assert_eq!(
                at(self, a, from / 4096 + i),
                at(self, b, to / 4096 + i),
                "block {i} is not shared"
            );
        }
    }

    pub fn remount(&mut self) {
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
        let work = self.work;
        self.volume().set_work_a_step(work);
        self.under_way = None;
        self.windows.clear();
        self.frozen.clear();
        self.unnamed.clear();
        self.lent.clear();
        self.kept.clear();
    }

    /// Everything is as the model says.
    pub fn compare(&mut self) {
        let report = self.volume().check().unwrap();
        assert_eq!(report.issues, Vec::<String>::new());
        let mut found = BTreeMap::new();
        let root = self.volume().root();
        list(self.volume(), root, "", &mut found);
        assert_eq!(found.keys().collect::<Vec<_>>(), self.names.keys().collect::<Vec<_>>());
        let mut inos = BTreeMap::new();
        for (path, seen) in &found {
            let Node::File(id) = self.names[path] else {
                assert_eq!(seen.kind, Kind::Directory, "{path}");
                continue;
            };
            let file = &self.files[id];
            assert_eq!(seen.kind, file.kind, "{path}");
            assert!(seen.content == file.content, "content of {path} differs");
            let names = self.names.values().filter(|node| **node == Node::File(id)).count();
            assert_eq!(seen.nlink as usize, names, "{path}");
            assert_eq!(*inos.entry(id).or_insert(seen.ino), seen.ino, "{path}");
        }
        for (window, id) in self.windows.clone() {
            let content = &self.files[id].content;
            let mut bytes = vec![0; content.len()];
            dax::load(&mut self.machine, window, 0, &mut bytes).unwrap();
            assert!(bytes == *content, "a window shows something else");
        }
        for Frozen { window, ino, content, blocks } in self.frozen.clone() {
            let mut bytes = vec![0; content.len()];
            dax::load(&mut self.machine, window, 0, &mut bytes).unwrap();
            assert!(bytes == content, "a file that is frozen has changed");
            assert_eq!(self.blocks(ino), blocks, "blocks of a file that is frozen have moved");
        }
    }
}

/// What a volume shows under a name.
struct Seen {
    ino: Ino,
    kind: Kind,
    nlink: u32,
    content: Vec<u8>,
}

fn list(
    volume: &Volume<MemPmem, SoftMmu>,
    dir: Ino,
    prefix: &str,
    into: &mut BTreeMap<String, Seen>,
) {
    let mut names = Vec::new();
    volume
        .read_dir(dir, 0, &mut |entry| {
            names.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.ino, entry.kind));
            ControlFlow::Continue(())
        })
        .unwrap();
    for (name, ino, kind) in names {
        let path = format!("{prefix}{name}");
        let found = volume.attributes(ino).unwrap();
        assert_eq!(found.kind, kind);
        let mut content = Vec::new();
        match kind {
            Kind::Directory => list(volume, ino, &format!("{path}/"), into),
            Kind::Symlink => content = volume.read_link(ino).unwrap(),
            Kind::File => {
                content.resize(found.size as usize, 0);
                assert_eq!(volume.read(ino, 0, &mut content), Ok(found.size as usize));
            }
        }
        into.insert(path, Seen { ino, kind, nlink: found.nlink, content });
    }
}
