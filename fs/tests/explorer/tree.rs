//! What a volume shows, and what it may show after a crash.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use umbra_fs::dax::Mmu;
use umbra_fs::{Attributes, BLOCK_SIZE, Error, Ino, Kind, Pmem, Time, Volume};

/// What a volume shows under one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub kind: Kind,
    pub mode: u16,
    pub nlink: u32,
    pub mtime: Time,
    pub ino: Ino,
    pub content: Vec<u8>,
}

/// All names of a volume, by their path.
pub type Tree = BTreeMap<String, Seen>;

/// Reads everything that can be seen of a volume. `unreadable` decides about a file whose
/// content cannot be had.
pub fn dump<P: Pmem, M: Mmu>(volume: &Volume<P, M>) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    dump_dir(volume, volume.root(), "", &mut tree)?;
    Ok(tree)
}

fn dump_dir<P: Pmem, M: Mmu>(
    volume: &Volume<P, M>,
    dir: Ino,
    prefix: &str,
    tree: &mut Tree,
) -> Result<(), Error> {
    let mut names = Vec::new();
    volume.read_dir(dir, 0, &mut |entry| {
        names.push((String::from_utf8_lossy(entry.name).into_owned(), entry.ino));
        ControlFlow::Continue(())
    })?;
    for (name, ino) in names {
        let path = format!("{prefix}{name}");
        let found = volume.attributes(ino)?;
        let mut content = Vec::new();
        if found.kind == Kind::Directory {
            if path.len() < 4096 {
                dump_dir(volume, ino, &format!("{path}/"), tree)?;
            }
        } else if found.kind == Kind::Symlink {
            content = volume.read_link(ino)?;
        } else {
            // A damaged size may be anything up to the limit.
            content.resize(found.size.min(64 << 20) as usize, 0xee);
            volume.read(ino, 0, &mut content)?;
        }
        let Attributes { kind, mode, nlink, mtime, .. } = found;
        tree.insert(path, Seen { kind, mode, nlink, mtime, ino, content });
    }
    Ok(())
}

/// A file as the model has it.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    pub mode: u16,
    pub content: Vec<u8>,
    /// Earlier contents of the same size: each aligned 8 bytes of the file may still be
    /// as one of them, because they were overwritten in place and not synced.
    pub earlier: Vec<Vec<u8>>,
    /// Last change of content; durable once it was synced.
    pub mtime: Time,
    pub synced: bool,
    /// The target of a symbolic link is content too.
    pub kind: Kind,
}

/// A file that is judged in a way of its own.
pub type Judge<'a> = (u32, &'a dyn Fn(&[u8]) -> Result<(), String>);

/// What there should be: names, and the files behind them. Two names of one number are
/// hard links.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    pub names: BTreeMap<String, Node>,
    pub files: BTreeMap<u32, File>,
    next: u32,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Node {
    Dir,
    File(u32),
}

impl Expected {
    pub fn file(&self, path: &str) -> Option<&File> {
        match self.names.get(path) {
            Some(Node::File(id)) => self.files.get(id),
            _ => None,
        }
    }

    /// The file of a name that is neither a directory nor a symbolic link.
    pub fn regular(&self, path: &str) -> Option<&File> {
        self.file(path).filter(|file| file.kind == Kind::File)
    }

    pub fn file_mut(&mut self, path: &str) -> Option<&mut File> {
        match self.names.get(path) {
            Some(Node::File(id)) => self.files.get_mut(id),
            _ => None,
        }
    }

    pub fn add_file(&mut self, path: &str, file: File) {
        self.next += 1;
        self.files.insert(self.next, file);
        self.names.insert(path.into(), Node::File(self.next));
    }

    pub fn parent_exists(&self, path: &str) -> bool {
        path.rfind('/').is_none_or(|at| self.names.get(&path[..at]) == Some(&Node::Dir))
    }

    pub fn has_children(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        self.names.keys().any(|k| k.starts_with(&prefix))
    }

    /// Forgets files that have no name any more.
    pub fn prune(&mut self) {
        let names = &self.names;
        self.files.retain(|id, _| names.values().any(|n| *n == Node::File(*id)));
    }

    pub fn nlink(&self, id: u32) -> u32 {
        self.names.values().filter(|n| **n == Node::File(id)).count() as u32
    }

    /// Whether a volume shows this; `Err` says where it does not. A file named in `special`
    /// is judged by `judge` instead.
    pub fn matches(&self, tree: &Tree, special: Option<Judge<'_>>) -> Result<(), String> {
        if let Some(path) = self.names.keys().find(|p| !tree.contains_key(*p)) {
            return Err(format!("{path} is missing"));
        }
        if let Some(path) = tree.keys().find(|p| !self.names.contains_key(*p)) {
            return Err(format!("{path} should not be there"));
        }
        for (path, node) in &self.names {
            let seen = &tree[path];
            match node {
                Node::Dir => {
                    if seen.kind != Kind::Directory {
                        return Err(format!("{path} is no directory"));
                    }
                }
                Node::File(id) => {
                    let file = &self.files[id];
                    if (seen.kind, seen.mode) != (file.kind, file.mode) {
                        return Err(format!("{path}: kind or mode differs"));
                    }
                    if file.synced && seen.mtime != file.mtime {
                        return Err(format!(
                            "{path}: the time of change was synced, and went back"
                        ));
                    }
                    if seen.nlink != self.nlink(*id) {
                        return Err(format!("{path}: {} names are recorded", seen.nlink));
                    }
                    let content = match special {
                        Some((number, judge)) if number == *id => judge(&seen.content),
                        _ => file.accepts(&seen.content),
                    };
                    content.map_err(|e| format!("{path}: {e}"))?;
                }
            }
        }
        Ok(())
    }
}

impl File {
    pub fn new(mode: u16, content: Vec<u8>) -> Self {
        File {
            mode,
            content,
            earlier: Vec::new(),
            mtime: super::ops::NOW,
            synced: false,
            kind: Kind::File,
        }
    }

    /// Whether each 8 bytes are as they are now, or as they may still be.
    pub fn accepts(&self, seen: &[u8]) -> Result<(), String> {
        if seen == self.content {
            return Ok(());
        }
        if seen.len() != self.content.len() {
            return Err(format!("its size is {}, not {}", seen.len(), self.content.len()));
        }
        for at in (0..seen.len()).step_by(8) {
            let word = at..(at + 8).min(seen.len());
            let fits = |old: &[u8]| old[word.clone()] == seen[word.clone()];
            if !fits(&self.content) && !self.earlier.iter().any(|old| fits(old)) {
                return Err(format!("byte {at} is neither old nor new"));
            }
        }
        Ok(())
    }

    /// What was overwritten is durable now.
    pub fn settle(&mut self) {
        self.earlier.clear();
    }

    /// Changes the size of the content and of what it may still be.
    pub fn resize(&mut self, size: usize) {
        self.content.resize(size, 0);
        self.earlier.iter_mut().for_each(|old| old.resize(size, 0));
    }

    /// Replaces bytes; `in_place` tells of a block whether it was overwritten in place, so
    /// that it may tear until it is synced.
    pub fn write(&mut self, offset: u64, bytes: &[u8], in_place: &dyn Fn(u64) -> bool) {
        let end = offset as usize + bytes.len();
        let old = self.content.len();
        if end > old {
            self.resize(end);
        }
        let before = self.content.clone();
        self.content[offset as usize..end].copy_from_slice(bytes);
        self.earlier.push(before);
        let (first, last) = (offset / BLOCK_SIZE, (end as u64 - 1) / BLOCK_SIZE);
        for block in first..=last {
            let start = (block * BLOCK_SIZE) as usize;
            let stop = (start + BLOCK_SIZE as usize).min(self.content.len());
            // A copy is durable as a whole; and what raises the size is, before the size is.
            let settled = match in_place(block) {
                false => start..stop,
                true if end > old => start.max(offset as usize)..stop.min(end),
                true => continue,
            };
            for earlier in &mut self.earlier {
                earlier[settled.clone()].copy_from_slice(&self.content[settled.clone()]);
            }
        }
        self.earlier.retain(|earlier| *earlier != self.content);
        self.earlier.dedup();
    }
}
