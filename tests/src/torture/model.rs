//! What one client's directory holds, and what it may hold while an operation is not answered.

use crate::random::Random;
use std::collections::BTreeMap;
use std::sync::Arc;
use umbra::client::rpc::{self, kind, open};
use umbra::client::{Client, Error, Msync, Result};

const BLOCK: u64 = 4096;
/// Bytes below one leaf of a tree: where a write is cut.
const LEAF: usize = 2 << 20;

/// Names that operations choose from, in two directories.
const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "s/a", "s/b", "s/c", "s/d", "s/e"];

/// A file or a symbolic link, whose content is its target.
#[derive(Clone, Debug, PartialEq)]
struct File {
    kind: u8,
    content: Arc<Vec<u8>>,
}

/// A directory: names, and the files behind them. Two names of one number are hard links.
#[derive(Clone, Debug, Default)]
pub struct Model {
    names: BTreeMap<&'static str, u64>,
    files: BTreeMap<u64, File>,
    next: u64,
}

/// An operation, with all that it needs.
#[derive(Clone, Debug)]
pub enum Op {
    Create(&'static str),
    Write { name: &'static str, offset: u64, bytes: Vec<u8> },
    Store { name: &'static str, offset: u64, bytes: Vec<u8> },
    Truncate(&'static str, u64),
    Clone { from: Option<&'static str>, to: &'static str },
    CloneRange { from: &'static str, to: &'static str, blocks: u64 },
    Rename(&'static str, &'static str),
    Link(&'static str, &'static str),
    Symlink(&'static str),
    Unlink(&'static str),
}

/// What was found under a name.
#[derive(Debug)]
pub struct Found {
    ino: u64,
    kind: u8,
    nlink: u32,
    content: Vec<u8>,
}

/// What was found, by name.
pub type Directory = BTreeMap<String, Found>;
/// `Err` says where it is not so.
pub type Outcome = std::result::Result<(), String>;

/// A path on the server.
pub fn path(dir: &str, name: &str) -> Vec<u8> {
    format!("{dir}/{name}").into_bytes()
}

impl Model {
    fn file(&self, name: &str) -> Option<&Arc<Vec<u8>>> {
        let file = self.files.get(self.names.get(name)?)?;
        (file.kind == kind::FILE).then_some(&file.content)
    }

    fn add(&mut self, name: &'static str, kind: u8, content: Arc<Vec<u8>>) {
        self.next += 1;
        self.files.insert(self.next, File { kind, content });
        self.names.insert(name, self.next);
    }

    fn set(&mut self, name: &str, content: Vec<u8>) {
        if let Some(file) = self.names.get(name).and_then(|id| self.files.get_mut(id)) {
            file.content = Arc::new(content);
        }
    }

    /// Chooses an operation that makes sense.
    pub fn choose(&self, random: &mut Random) -> Op {
        loop {
            let name = NAMES[random.below(10) as usize];
            let other = NAMES[random.below(10) as usize];
            let (there, free) = (self.names.contains_key(name), !self.names.contains_key(other));
            let size = self.file(name).map(|content| content.len() as u64);
            let mut len = 1 + random.below(9000);
            let op = match (random.below(14), size) {
                (0, _) if !there => Op::Create(name),
                (1 | 2, Some(size)) => {
                    // Over what is there, behind its end, and beyond it.
                    let offset = random.below(size + 5000);
                    Op::Write { name, offset, bytes: random.bytes(len as usize) }
                }
                (3..=5, Some(size)) if size > 0 => {
                    len = len.min(size);
                    let offset = random.below(size - len + 1);
                    Op::Store { name, offset, bytes: random.bytes(len as usize) }
                }
                (6, Some(size)) => Op::Truncate(name, random.below(size + 10_000)),
                (7 | 8, Some(_)) if free => Op::Clone { from: Some(name), to: other },
                (9, _) if !there => Op::Clone { from: None, to: name },
                // A range of a file into itself would overlap, also by another name.
                (10, Some(size))
                    if size >= BLOCK
                        && self.file(other).is_some()
                        && self.names.get(name) != self.names.get(other) =>
                {
                    Op::CloneRange { from: name, to: other, blocks: 1 + random.below(size / BLOCK) }
                }
                (11, _) if there => Op::Rename(name, other),
                (12, _) if there && free => Op::Link(name, other),
                (12, _) if free => Op::Symlink(other),
                (13, _) if there => Op::Unlink(name),
                _ => continue,
            };
            return op;
        }
    }

    /// What is there once the operation has happened.
    pub fn after(&self, op: &Op, golden: &Arc<Vec<u8>>) -> Model {
        let mut new = self.clone();
        let content = |name: &str| self.file(name).map(|rc| rc.to_vec()).unwrap_or_default();
        match op {
            Op::Create(name) => new.add(name, kind::FILE, Arc::default()),
            Op::Write { name, offset, bytes } | Op::Store { name, offset, bytes } => {
                new.set(name, overlaid(content(name), *offset, bytes));
            }
            Op::Truncate(name, size) => {
                let mut bytes = content(name);
                bytes.resize(*size as usize, 0);
                new.set(name, bytes);
            }
            Op::Clone { from, to } => {
                let source = from.and_then(|from| self.file(from)).unwrap_or(golden).clone();
                new.add(to, kind::FILE, source);
            }
            Op::CloneRange { from, to, blocks } => {
                let source = content(from);
                new.set(to, overlaid(content(to), 0, &source[..(blocks * BLOCK) as usize]));
            }
            Op::Rename(from, to) => {
                let id = self.names[from];
                // Of two names of one file none goes.
                if self.names.get(to) != Some(&id) {
                    new.names.remove(from);
                    new.names.insert(to, id);
                }
            }
            Op::Link(from, to) => drop(new.names.insert(to, self.names[from])),
            Op::Symlink(name) => new.add(name, kind::SYMLINK, Arc::new(b"where/ever".to_vec())),
            Op::Unlink(name) => drop(new.names.remove(name)),
        }
        let names = new.names.clone();
        new.files.retain(|id, _| names.values().any(|named| named == id));
        new
    }

    /// Whether this is what was found. Of the file that an operation writes to, which is not
    /// answered, each byte may be old or new.
    pub fn matches(&self, found: &Directory, pending: Option<&Pending>) -> Outcome {
        if !found.keys().map(String::as_str).eq(self.names.keys().copied()) {
            return Err(format!("names {:?}, not {:?}", found.keys(), self.names.keys()));
        }
        let mut inos = BTreeMap::new();
        for (name, id) in &self.names {
            let (seen, file) = (&found[*name], &self.files[id]);
            let names = self.names.values().filter(|other| *other == id).count();
            if seen.kind != file.kind || seen.nlink as usize != names {
                return Err(format!("{name}: kind {}, {} names", seen.kind, seen.nlink));
            }
            if *inos.entry(id).or_insert(seen.ino) != seen.ino {
                return Err(format!("{name} is another file than its other name"));
            }
            let content = match pending {
                Some(pending) if pending.partly == Some(*id) => pending.accepts(*id, &seen.content),
                _ => seen.content == *file.content,
            };
            if !content {
                return Err(format!("{name}: content differs"));
            }
        }
        Ok(())
    }

    /// Number of the file that a write or a store changes block by block.
    pub fn partly(&self, op: &Op) -> Option<u64> {
        match op {
            Op::Write { name, .. } | Op::Store { name, .. } => self.names.get(name).copied(),
            _ => None,
        }
    }
}

/// An operation that was sent, and not answered.
pub struct Pending {
    pub before: Model,
    pub after: Model,
    /// The file of which each byte may be old or new.
    pub partly: Option<u64>,
}

impl Pending {
    fn accepts(&self, id: u64, seen: &[u8]) -> bool {
        let (old, new) = (&self.before.files[&id].content, &self.after.files[&id].content);
        // A write that extends goes in piece by piece.
        let cut = seen.len().is_multiple_of(LEAF) && (old.len()..new.len()).contains(&seen.len());
        let old_or_new = |(i, byte)| old.get(i) == Some(byte) || new.get(i) == Some(byte);
        (seen.len() == old.len() || seen.len() == new.len() || cut)
            && seen.iter().enumerate().all(old_or_new)
            // What is behind the old end came with the size: it is new.
            && (old.len()..seen.len()).all(|i| new[i] == seen[i])
    }

    /// Whether it has happened, or not, or in part.
    pub fn matches(&self, found: &Directory) -> Outcome {
        let old = self.before.matches(found, Some(self));
        if old.is_ok() {
            return Ok(());
        }
        let new = self.after.matches(found, Some(self));
        new.map_err(|new| format!("old: {}; new: {new}", old.err().unwrap_or_default()))
    }
}

fn overlaid(mut content: Vec<u8>, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let end = offset as usize + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(bytes);
    content
}

impl Op {
    /// What a log says of it: no content.
    pub fn line(&self) -> String {
        match self {
            Op::Write { name, offset, bytes } => format!("write {name} {offset} {}", bytes.len()),
            Op::Store { name, offset, bytes } => format!("store {name} {offset} {}", bytes.len()),
            other => format!("{other:?}"),
        }
    }

    /// Does it on the server; what it did is durable when this returns.
    pub fn perform(&self, client: &mut Client, dir: &str) -> Result<()> {
        let at = |name: &str| path(dir, name);
        match self {
            Op::Create(name) => {
                let file = client.open(&at(name), open::CREATE | open::EXCLUSIVE)?;
                client.close(file)
            }
            Op::Write { name, offset, bytes } => {
                let file = client.open(&at(name), 0)?;
                let write = rpc::Write { handle: file.handle, offset: *offset, sync: true };
                client.call_with(&write, bytes)?;
                client.close(file)
            }
            Op::Store { name, offset, bytes } => {
                let file = client.open(&at(name), 0)?;
                client.store(&file, *offset, bytes, Msync::Now)?;
                client.close(file)
            }
            Op::Truncate(name, size) => client.truncate(&at(name), *size),
            Op::Clone { from, to } => {
                let source = from.map_or(b"/golden".to_vec(), at);
                client.clone_file(&source, &at(to)).map(drop)
            }
            Op::CloneRange { from, to, blocks } => {
                client.clone_range((&at(from), 0), (&at(to), 0), Some(blocks * BLOCK)).map(drop)
            }
            Op::Rename(from, to) => client.rename(&at(from), &at(to)),
            Op::Link(from, to) => client.link(&at(from), &at(to)),
            Op::Symlink(name) => client.symlink(&at(name), b"where/ever"),
            Op::Unlink(name) => client.unlink(&at(name)),
        }
    }
}

/// All that a client's directory shows.
pub fn look(client: &mut Client, dir: &str) -> Result<Directory> {
    let mut all = BTreeMap::new();
    for below in ["", "s/"] {
        for entry in client.list(&path(dir, below))? {
            let name = format!("{below}{}", String::from_utf8_lossy(&entry.name));
            let (at, Some(a)) = (path(dir, &name), entry.attributes) else {
                return Err(Error::Protocol(format!("{name} has no attributes")));
            };
            let content = match a.kind {
                kind::DIRECTORY => continue,
                kind::SYMLINK => client.read_link(&at)?,
                _ => {
                    let file = client.open(&at, 0)?;
                    let bytes = client.read(&file, 0, u64::MAX)?;
                    client.close(file)?;
                    bytes
                }
            };
            all.insert(name, Found { ino: a.ino, kind: a.kind, nlink: a.nlink, content });
        }
    }
    Ok(all)
}
