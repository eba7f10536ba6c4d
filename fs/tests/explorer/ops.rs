//! The operations that are explored: what each does to a volume and to the model.

use super::during::During;
use super::tree::{Expected, File, Node};
use std::collections::BTreeMap;
use umbra_fs::dax;
use umbra_fs::testing::{LogPmem, SoftMachine, SoftMmu, mount};
use umbra_fs::{
    BLOCK_SIZE, Begun, Error, Existing, FileBlock, Ino, Kind, Operation, Pmem, Time, Window,
};

pub const NOW: Time = Time(5_000);
/// Slots for windows: few, so that mounting stays cheap.
pub const SLOTS: u32 = 3;

/// An operation. Paths are of the small set of files that a setup makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    Create(&'static str),
    Mkdir(&'static str),
    Unlink(&'static str),
    Rmdir(&'static str),
    Rename(&'static str, &'static str),
    /// What is there, and its further name.
    Link(&'static str, &'static str),
    /// The target, and the link.
    Symlink(&'static str, &'static str),
    Truncate(&'static str, u64),
    /// Offset, length.
    Write(&'static str, u64, u64),
    /// As `Write`, of what a device has received into blocks that are lent. From this block on.
    Receive(&'static str, u64, u64),
    Append(&'static str, u64),
    /// Offset, length.
    Punch(&'static str, u64, u64),
    /// Offset, length: zeros that take space.
    Provide(&'static str, u64, u64),
    Clone(&'static str, &'static str),
    /// Source, its block, target, its block, blocks.
    CloneRange(&'static str, u64, &'static str, u64, u64),
    /// As `CloneRange`, in steps of one block, until the source is frozen: nothing is decided then.
    BeginCloneRange(&'static str, u64, &'static str, u64, u64),
    /// Takes all steps of what was begun that are left.
    GoOn,
    /// Writes the content of the one to the start of the other.
    Copy(&'static str, &'static str),
    /// Shares all that both have, if it is equal.
    Dedupe(&'static str, &'static str),
    /// Through a window.
    Store(&'static str, u64, u64),
    Sync(&'static str),
    CloseWindow(&'static str),
    /// Opens a window on what a file contains now.
    Freeze(&'static str),
    /// Closes all windows of that sort.
    Thaw,
    /// Opens a file without a name, writes so many bytes to it, and stores over the first.
    Unnamed(u64),
    /// Gives the file that was opened so last a name, which may be another file's.
    Name(&'static str),
    /// Both, and closes the window.
    Put(&'static str, u64),
    Reclaim,
    Remount,
}

/// The volume, and the windows that are open.
pub struct World {
    machine: Option<SoftMachine<LogPmem>>,
    windows: BTreeMap<Ino, Window>,
    frozen: Vec<Window>,
    under_way: Option<UnderWay>,
    /// Files without a name, and what they contain.
    unnamed: Vec<(Ino, Window, File)>,
    pub expected: Expected,
}

/// A clone of a range that is under way.
struct UnderWay {
    operation: Operation,
    /// The number of the target, where the range is to be, and what it is to contain then.
    target: u32,
    at: u64,
    bytes: Vec<u8>,
    now: Time,
}

/// Bytes that differ from place to place and from write to write.
fn pattern(seed: u64, len: u64) -> Vec<u8> {
    (0..len)
        .map(|i| (seed.wrapping_mul(0x9e37_79b9).wrapping_add(i * 0x0101_0107 / 5) >> 3) as u8 | 1)
        .collect()
}

impl World {
    pub fn mount(pmem: &LogPmem, expected: Expected) -> Self {
        let volume = mount(pmem.clone(), SLOTS).expect("a setup can be mounted");
        World {
            machine: Some(SoftMachine { volume }),
            windows: BTreeMap::new(),
            frozen: Vec::new(),
            under_way: None,
            unnamed: Vec::new(),
            expected,
        }
    }

    fn machine(&mut self) -> &mut SoftMachine<LogPmem> {
        self.machine.as_mut().expect("the volume is mounted")
    }

    pub fn volume(&mut self) -> &mut umbra_fs::Volume<LogPmem, SoftMmu> {
        &mut self.machine().volume
    }

    fn ino(&mut self, path: &str) -> Result<Ino, Error> {
        self.volume().resolve(path.as_bytes())
    }

    /// Blocks that a write would overwrite in place.
    fn in_place(&mut self, ino: Ino, offset: u64, len: u64) -> Vec<u64> {
        let blocks = offset / BLOCK_SIZE..=(offset + len - 1) / BLOCK_SIZE;
        let volume = self.volume();
        let own = |block: &u64| {
            let extent = volume.extent(ino, FileBlock(*block)).expect("a file has extents");
            extent.is_some_and(|e| e.at.is_some() && !e.shared && !e.unwritten)
        };
        blocks.filter(own).collect()
    }

    /// Does an operation, and changes what is expected with it. `Ok(None)`: it makes no
    /// sense here. An operation that fails must be expected to.
    pub fn apply(&mut self, op: Op, seed: u64) -> Option<During> {
        let root = |world: &mut World, path: &'static str| {
            let (dir, name) = world.volume().resolve_parent(path.as_bytes()).ok()?;
            Some((dir, name.to_vec()))
        };
        let now = Time(NOW.0 + seed as i64);
        let mut new = self.expected.clone();
        let mut during = During::Atomic;
        match op {
            Op::Create(path) | Op::Mkdir(path) => {
                if new.names.contains_key(path) || !new.parent_exists(path) {
                    return None;
                }
                let (dir, name) = root(self, path)?;
                if let Op::Create(_) = op {
                    self.volume().create(dir, &name, 0o640, NOW).expect("create");
                    new.add_file(path, File::new(0o640, Vec::new()));
                } else {
                    self.volume().mkdir(dir, &name, 0o755, NOW).expect("mkdir");
                    new.names.insert(path.into(), Node::Dir);
                }
            }
            Op::Unlink(path) => {
                new.file(path)?;
                let (dir, name) = root(self, path)?;
                let ino = self.ino(path).expect("a file is found");
                self.volume().unlink(dir, &name, NOW).expect("unlink");
                new.names.remove(path);
                new.prune();
                let _ = ino;
            }
            Op::Rmdir(path) => {
                if new.names.get(path) != Some(&Node::Dir) || new.has_children(path) {
                    return None;
                }
                let (dir, name) = root(self, path)?;
                self.volume().rmdir(dir, &name, NOW).expect("rmdir");
                new.names.remove(path);
            }
            Op::Rename(from, to) => {
                let moved = *new.names.get(from)?;
                // Two names of one file: nothing happens.
                let same = new.names.get(to) == Some(&moved) && moved != Node::Dir;
                let fits = match (moved, new.names.get(to)) {
                    _ if !new.parent_exists(to)
                        || to.starts_with(&format!("{from}/"))
                        || from == to =>
                    {
                        false
                    }
                    (_, None) | (Node::File(_), Some(Node::File(_))) => true,
                    (Node::Dir, Some(Node::Dir)) => !new.has_children(to),
                    _ => false,
                };
                if !fits {
                    return None;
                }
                let ((dir, name), (to_dir, to_name)) = (root(self, from)?, root(self, to)?);
                self.volume().rename(dir, &name, to_dir, &to_name, NOW).expect("rename");
                if same {
                    return Some(during);
                }
                let below = format!("{from}/");
                let moved: Vec<String> = new
                    .names
                    .keys()
                    .filter(|k| *k == from || k.starts_with(&below))
                    .cloned()
                    .collect();
                for old in moved {
                    let node = new.names.remove(&old).expect("it was listed");
                    new.names.insert(format!("{to}{}", &old[from.len()..]), node);
                }
                new.prune();
            }
            Op::Link(from, to) => {
                let Some(Node::File(id)) = new.names.get(from).copied() else { return None };
                if new.names.contains_key(to) || !new.parent_exists(to) {
                    return None;
                }
                let (dir, name) = root(self, to)?;
                let ino = self.ino(from).expect("a file is found");
                self.volume().link(ino, dir, &name, NOW).expect("link");
                new.names.insert(to.into(), Node::File(id));
            }
            Op::Symlink(target, path) => {
                if new.names.contains_key(path) || !new.parent_exists(path) {
                    return None;
                }
                let (dir, name) = root(self, path)?;
                let ino =
                    self.volume().symlink(dir, &name, target.as_bytes(), NOW).expect("symlink");
                assert_eq!(self.volume().read_link(ino), Ok(target.as_bytes().to_vec()));
                let link = File { kind: Kind::Symlink, ..File::new(0o777, target.into()) };
                new.add_file(path, link);
            }
            Op::Truncate(path, size) => {
                new.regular(path)?;
                let ino = self.ino(path).expect("a file is found");
                self.volume().truncate(ino, size, now).expect("truncate");
                let file = new.file_mut(path)?;
                file.resize(size as usize);
                (file.mtime, file.synced) = (now, false);
            }
            Op::Append(path, len) => {
                let offset = new.regular(path)?.content.len() as u64;
                return self.apply(Op::Write(path, offset, len), seed);
            }
            Op::Write(..) | Op::Receive(..) | Op::Copy(..) => {
                let (path, offset, bytes) = match op {
                    Op::Write(path, offset, len) => (path, offset, pattern(seed, len)),
                    Op::Receive(path, block, len) => (path, block * BLOCK_SIZE, pattern(seed, len)),
                    Op::Copy(from, to) => (to, 0, new.regular(from)?.content.clone()),
                    _ => return None,
                };
                let len = bytes.len() as u64;
                let old = new.regular(path)?.clone();
                let Some(Node::File(id)) = new.names.get(path).copied() else { return None };
                let ino = self.ino(path).expect("a file is found");
                let in_place = self.in_place(ino, offset, len);
                let done = match op {
                    // Where no run is to be lent, a device receives elsewhere.
                    Op::Receive(..) if let Some(run) = self.volume().lend() => {
                        let volume = self.volume();
                        volume.pmem_mut().write(run.0 * BLOCK_SIZE, &bytes);
                        let done = volume.write_received(ino, offset, &bytes, run, now);
                        volume.take_back(run);
                        done
                    }
                    _ => self.volume().write(ino, offset, &bytes, now),
                };
                assert_eq!(done, Ok(len as usize));
                let file = new.file_mut(path)?;
                file.write(offset, &bytes, &|block| in_place.contains(&block));
                (file.mtime, file.synced) = (now, false);
                let mut sizes = vec![old.content.len(), file.content.len()];
                // A write goes in piece by piece, cut where leaves end.
                let end = offset + len;
                let leaf = 512 * BLOCK_SIZE;
                let borders = (offset / leaf + 1..=end / leaf).map(|b| (b * leaf) as usize);
                sizes.extend(
                    borders.filter(|b| (old.content.len()..file.content.len()).contains(b)),
                );
                // Whole blocks go in before a part of one.
                let whole = (offset + len / BLOCK_SIZE * BLOCK_SIZE) as usize;
                if matches!(op, Op::Receive(..))
                    && (old.content.len()..file.content.len()).contains(&whole)
                {
                    sizes.push(whole);
                }
                during =
                    During::Blocks { file: id, old, new: file.content.clone(), in_place, sizes };
            }
            Op::Punch(path, offset, len) | Op::Provide(path, offset, len) => {
                let old = new.file(path)?.clone();
                let Some(Node::File(id)) = new.names.get(path).copied() else { return None };
                let size = old.content.len() as u64;
                let end = (offset + len).min(size);
                if offset >= end {
                    return None;
                }
                let ino = self.ino(path).expect("a file is found");
                // Parts of blocks are overwritten where they are; whole blocks go, or are marked.
                let whole = |block: u64| {
                    offset <= block * BLOCK_SIZE && ((block + 1) * BLOCK_SIZE).min(size) <= end
                };
                let mut in_place = self.in_place(ino, offset, end - offset);
                in_place.retain(|block| !whole(*block));
                let mut done = 0;
                while done < len {
                    let (volume, at, left) = (self.volume(), offset + done, len - done);
                    let step = match op {
                        Op::Punch(..) => volume.punch(ino, at, left, now),
                        _ => volume.provide_zeros(ino, at, left, now),
                    };
                    done += step.expect("zeros");
                }
                let file = new.file_mut(path)?;
                let zeros = vec![0; (end - offset) as usize];
                file.write(offset, &zeros, &|block| in_place.contains(&block));
                (file.mtime, file.synced) = (now, false);
                let sizes = vec![old.content.len()];
                during =
                    During::Blocks { file: id, old, new: file.content.clone(), in_place, sizes };
            }
            Op::Clone(from, to) => {
                new.regular(from)?;
                if new.names.contains_key(to) || !new.parent_exists(to) {
                    return None;
                }
                let (dir, name) = root(self, to)?;
                let ino = self.ino(from).expect("a file is found");
                self.volume().clone_file(ino, dir, &name, NOW).expect("clone");
                new.file_mut(from)?.settle();
                let copy = File { synced: false, mtime: NOW, ..new.file(from)?.clone() };
                new.add_file(to, copy);
            }
            Op::CloneRange(from, block, to, to_block, blocks) => {
                let source = new.regular(from)?.content.clone();
                let target = new.regular(to)?.content.len() as u64;
                let (start, at) = (block * BLOCK_SIZE, to_block * BLOCK_SIZE);
                let len = (blocks * BLOCK_SIZE).min((source.len() as u64).saturating_sub(start));
                let same = from == to && block < to_block + blocks && to_block < block + blocks;
                if len == 0 || same || (len % BLOCK_SIZE != 0 && at + len < target) {
                    return None;
                }
                let (src, dst) = (
                    self.ino(from).expect("a file is found"),
                    self.ino(to).expect("a file is found"),
                );
                self.volume().clone_range(src, start, dst, at, len, now).expect("clone of a range");
                new.file_mut(from)?.settle();
                let file = new.file_mut(to)?;
                file.settle();
                (file.mtime, file.synced) = (now, false);
                file.write(at, &source[start as usize..(start + len) as usize], &|_| false);
            }
            Op::BeginCloneRange(from, block, to, to_block, blocks) => {
                let source = new.regular(from)?.content.clone();
                let size = new.regular(to)?.content.len() as u64;
                let Some(Node::File(target)) = new.names.get(to).copied() else { return None };
                let (start, at) = (block * BLOCK_SIZE, to_block * BLOCK_SIZE);
                let len = (blocks * BLOCK_SIZE).min((source.len() as u64).saturating_sub(start));
                if self.under_way.is_some() || from == to || len <= BLOCK_SIZE {
                    return None;
                }
                if len % BLOCK_SIZE != 0 && at + len < size {
                    return None;
                }
                let (src, dst) = (
                    self.ino(from).expect("a file is found"),
                    self.ino(to).expect("a file is found"),
                );
                self.volume().set_work_a_step(1);
                let inodes = self.volume().space().inodes;
                let begun = self.volume().begin_clone_range(src, start, dst, at, len, now);
                let Ok(Begun::GoesOn(mut operation)) = begun else { panic!("{begun:?}") };
                // It is frozen, and prepared: two files without a name.
                while self.volume().space().inodes < inodes + 2 {
                    let done = self.volume().step(&mut operation).expect("a step");
                    assert!(done.is_none(), "a range of {len} bytes in one step");
                }
                let done = self.volume().step(&mut operation).expect("a step");
                assert!(done.is_none(), "a range of {len} bytes in one step");
                self.volume().set_work_a_step(1024);
                let bytes = source[start as usize..(start + len) as usize].to_vec();
                self.under_way = Some(UnderWay { operation, target, at, bytes, now });
                new.file_mut(from)?.settle();
                new.file_mut(to)?.settle();
            }
            Op::GoOn => {
                let UnderWay { mut operation, target, at, bytes, now } = self.under_way.take()?;
                self.volume().set_work_a_step(1);
                let done = loop {
                    match self.volume().step(&mut operation) {
                        Ok(None) => {}
                        done => break done,
                    }
                };
                self.volume().set_work_a_step(1024);
                // Without a name it may be open, or not; it may have grown beyond what is no whole
                // block.
                let size = new.files.get(&target).map(|file| file.content.len() as u64);
                match (done, size) {
                    (Ok(_), Some(_)) => {
                        let file = new.files.get_mut(&target)?;
                        file.settle();
                        (file.mtime, file.synced) = (now, false);
                        file.write(at, &bytes, &|_| false);
                    }
                    (Err(Error::NotFound) | Ok(_), None) => {}
                    (Err(Error::Invalid(_)), Some(size))
                        if !bytes.len().is_multiple_of(4096)
                            && at + (bytes.len() as u64) < size => {}
                    (done, size) => panic!("{done:?}, the target has {size:?} bytes"),
                }
            }
            Op::Dedupe(from, to) => {
                let (a, b) = (new.regular(from)?.content.clone(), new.regular(to)?.content.clone());
                let len =
                    if a.len() == b.len() { a.len() } else { a.len().min(b.len()) / 4096 * 4096 };
                let (src, dst) = (
                    self.ino(from).expect("a file is found"),
                    self.ino(to).expect("a file is found"),
                );
                let begun = self.volume().dedupe(src, 0, dst, 0, len as u64);
                let Ok(mut work) = begun else { panic!("dedupe of {len} bytes: {begun:?}") };
                let done = loop {
                    if let Some(done) =
                        self.volume().dedupe_step(&mut work).expect("a step of a dedupe")
                    {
                        break done;
                    }
                };
                assert_eq!(done.differs_at, (0..len).find(|&i| a[i] != b[i]).map(|i| i as u64));
                for path in [from, to] {
                    new.file_mut(path)?.settle();
                }
            }
            Op::Store(path, offset, len) => {
                let size = new.regular(path)?.content.len() as u64;
                if offset + len > size {
                    return None;
                }
                let window = self.window(path)?;
                let bytes = pattern(seed, len);
                dax::store(self.machine(), window, offset, &bytes).expect("a store");
                new.file_mut(path)?.write(offset, &bytes, &|_| true);
            }
            Op::Sync(path) => {
                new.file(path)?;
                let ino = self.ino(path).expect("a file is found");
                self.volume().sync(ino).expect("sync");
                let file = new.file_mut(path)?;
                file.settle();
                file.synced = true;
            }
            Op::CloseWindow(path) => {
                new.file(path)?;
                let ino = self.ino(path).expect("a file is found");
                let window = self.windows.remove(&ino)?;
                self.volume().close_window(window).expect("close");
                new.file_mut(path)?.settle();
            }
            Op::Freeze(path) => {
                let content = new.regular(path)?.content.clone();
                let ino = self.ino(path).expect("a file is found");
                let (_, window) = self.volume().open_frozen(ino, now).expect("freeze");
                self.frozen.push(window);
                new.file_mut(path)?.settle();
                let mut seen = vec![0; content.len()];
                dax::load(self.machine(), window, 0, &mut seen).expect("a load");
                assert!(seen == content);
            }
            Op::Thaw => {
                for window in std::mem::take(&mut self.frozen) {
                    self.volume().close_window(window).expect("close");
                }
            }
            Op::Unnamed(len) => self.open_unnamed(pattern(seed, len), now),
            Op::Name(path) => {
                self.name(&mut new, path)?;
            }
            Op::Put(path, len) => {
                if new.names.get(path) == Some(&Node::Dir) || !new.parent_exists(path) {
                    return None;
                }
                self.open_unnamed(pattern(seed, len), now);
                let window = self.name(&mut new, path)?;
                self.volume().close_window(window).expect("close");
            }
            Op::Reclaim => while self.volume().reclaim_step().expect("reclaim") {},
            Op::Remount => {
                let machine = self.machine.take().expect("the volume is mounted");
                let (pmem, _) = machine.volume.unmount().expect("unmount");
                self.windows.clear();
                self.frozen.clear();
                self.under_way = None;
                self.unnamed.clear();
                let volume = mount(pmem, SLOTS).expect("what was unmounted can be mounted");
                assert!(!volume.was_rebuilt(), "a clean unmount left nothing to count");
                self.machine = Some(SoftMachine { volume });
                new.files.values_mut().for_each(File::settle);
            }
        }
        self.expected = new;
        Some(during)
    }

    fn open_unnamed(&mut self, content: Vec<u8>, now: Time) {
        let volume = self.volume();
        let (ino, window) = volume.open_unnamed(volume.root(), 0o600, (1, 2), now).expect("open");
        assert_eq!(volume.write(ino, 0, &content, now), Ok(content.len()));
        // What is stored through a window is durable with the name, too.
        let mut file = File::new(0o600, content);
        let stored = &[0x77; 30][..file.content.len().min(30)];
        dax::store(self.machine(), window, 0, stored).expect("a store");
        file.content[..stored.len()].copy_from_slice(stored);
        (file.mtime, file.synced) = (now, false);
        self.unnamed.push((ino, window, file));
    }

    /// Names the last file without a name. `None`: there is none, or the name cannot be had.
    fn name(&mut self, new: &mut Expected, path: &'static str) -> Option<Window> {
        let possible = new.names.get(path) != Some(&Node::Dir) && new.parent_exists(path);
        let (ino, window, file) = self.unnamed.pop_if(|_| possible)?;
        let (dir, name) =
            self.volume().resolve_parent(path.as_bytes()).expect("its directory is there");
        if new.names.contains_key(path) {
            assert_eq!(self.volume().link(ino, dir, name, NOW), Err(Error::Exists));
            self.volume().link_as(ino, dir, name, Existing::Replace, NOW).expect("link over");
        } else {
            self.volume().link(ino, dir, name, NOW).expect("link");
        }
        new.add_file(path, file);
        new.prune();
        Some(window)
    }

    /// The window of a file; it stays open.
    fn window(&mut self, path: &str) -> Option<Window> {
        let ino = self.ino(path).ok()?;
        if let Some(&window) = self.windows.get(&ino) {
            return Some(window);
        }
        let window = self.volume().open_window(ino).ok()?;
        self.windows.insert(ino, window);
        Some(window)
    }
}
