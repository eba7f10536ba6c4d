//! A volume and a plain model of it, side by side: random operations do the same to both.

mod acts;
mod compare;
mod op;
mod ranges;

pub use op::{Op, PATHS, op};
use ranges::UnderWay;
use std::collections::BTreeMap;
use umbra_fs::dax;
use umbra_fs::testing::{MemPmem, SoftMachine, SoftMmu, mount, new_volume};
use umbra_fs::{Block, Existing, Ino, Kind, LENT_RUN, Pmem, Time, Volume, Window};

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

/// A range of blocks in bytes: where it is in the source, where in the target, and how much of it
/// the source has.
fn in_bytes(source: &[u8], from: u64, to: u64, blocks: u64) -> [u64; 3] {
    let (from, to) = (from * 4096, to * 4096);
    [from, to, (blocks * 4096).min((source.len() as u64).saturating_sub(from))]
}

/// Whether two ranges have no block in common. Two names may be of one file.
fn are_apart<F: PartialEq>((a, from): (F, u64), (b, to): (F, u64), len: u64) -> bool {
    let round = len.next_multiple_of(4096);
    a != b || from + round <= to || to + round <= from
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
}
