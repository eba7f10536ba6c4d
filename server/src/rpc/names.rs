//! Methods about names, attributes and space.

use super::attributes::attributes;
use super::failure::{During, Failure};
use super::listing::{Detail, Listing};
use super::operating::{Operating, Reply, STEP_COST};
use super::session::{Session, Step};
use super::subject::{Subject, checked_path};
use crate::platform::Platform;
use crate::text::Shown;
use alloc::vec::Vec;
use umbra_fs::dax::Mmu;
use umbra_fs::memory::{copy, push};
use umbra_fs::{
    Climb, Component, Error, Ino, Kind, MAX_FILE_SIZE, Pmem, SetAttributes, Time, Volume,
    check_target, components,
};
use umbra_proto::rpc::{self, ErrorCode};

/// Permission bits that exist.
const MODE_BITS: u16 = 0o7777;
/// Directories that one step makes.
const DIRECTORIES_A_STEP: u32 = 32;

/// Permission bits within the limits.
pub fn checked_mode(mode: Option<u16>, default: u16) -> Result<u16, Failure> {
    match mode {
        Some(mode) if mode & !MODE_BITS != 0 => Err(Failure::new(
            ErrorCode::INVALID,
            format_args!("the mode {mode:#o} has bits beyond {MODE_BITS:#o}"),
        )),
        Some(mode) => Ok(mode),
        None => Ok(default),
    }
}

/// Space of the volume.
pub fn space<M: Platform>(machine: &mut M) -> rpc::SpaceResponse {
    let space = machine.volume(|v| v.space());
    rpc::SpaceResponse {
        block_size: umbra_fs::BLOCK_SIZE as u32,
        blocks_total: space.total,
        blocks_free: space.free,
        blocks_shared: space.shared,
        inodes: space.inodes,
        blocks_available: Some(space.available),
    }
}

/// Attributes of a path or handle.
pub fn stat<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::Stat,
) -> Result<Option<Operating>, Failure> {
    let subject = Subject { path: r.path, handle: r.handle };
    let ino = subject.find(s, machine, "stat")?;
    let what = subject.shown(ino);
    if r.blocks {
        let begun = machine.volume(|v| v.begin_count(ino));
        return s.operate(machine, begun, Reply::Attributes(ino), format_args!("stat {what}"));
    }
    let found = machine.volume(|v| v.attributes(ino)).during(format_args!("stat {what}"))?;
    s.reply(0, &attributes(found, None));
    Ok(None)
}

/// Starts to list a directory.
pub fn list<M: Platform>(machine: &mut M, r: rpc::List) -> Result<Listing, Failure> {
    checked_path(r.path)?;
    let dir = machine
        .volume(|v| {
            let ino = v.resolve(r.path)?;
            match v.attributes(ino)?.kind {
                Kind::Directory => Ok(ino),
                _ => Err(Error::NotDirectory),
            }
        })
        .during(format_args!("list {}", Shown(r.path)))?;
    let detail = if r.attributes { Detail::Attributes } else { Detail::Entry };
    Ok(Listing::directory(dir, r.cookie, r.max.unwrap_or(u64::MAX), detail))
}

/// Creates an empty file.
pub fn create<M: Platform>(machine: &mut M, r: rpc::Create) -> Result<rpc::Created, Failure> {
    checked_path(r.path)?;
    let mode = checked_mode(r.mode, 0o644)?;
    let now = machine.now();
    let ino = machine
        .volume(|v| {
            let (dir, name) = v.resolve_parent(r.path)?;
            v.create(dir, name, mode, now)
        })
        .during(format_args!("create {}", Shown(r.path)))?;
    Ok(rpc::Created { ino: ino.0 })
}

/// Creates a directory.
pub fn make_directory<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::MakeDirectory,
) -> Result<Option<Directories>, Failure> {
    checked_path(r.path)?;
    let mode = checked_mode(r.mode, 0o755)?;
    let now = machine.now();
    let made = machine
        .volume(|v| {
            if r.parents {
                return make_directories(v, r.path, mode, now);
            }
            let (dir, name) = v.resolve_parent_of_directory(r.path)?;
            v.mkdir(dir, name, mode, now).map(Some)
        })
        .during(format_args!("make the directory {}", Shown(r.path)))?;
    match made {
        Some(ino) => {
            s.reply(0, &rpc::Created { ino: ino.0 });
            Ok(None)
        }
        None => {
            let path = copy(r.path).during(format_args!("make the directory {}", Shown(r.path)))?;
            Ok(Some(Directories { path, mode }))
        }
    }
}

/// A directory and those above it, some of which are still to be made.
pub struct Directories {
    path: Vec<u8>,
    mode: u16,
}

impl Directories {
    /// Makes some more.
    pub fn step<M: Platform>(&mut self, s: &mut Session, machine: &mut M) -> Result<Step, Failure> {
        let now = machine.now();
        let made = machine
            .volume(|v| make_directories(v, &self.path, self.mode, now))
            .during(format_args!("make the directory {}", Shown(&self.path)))?;
        let Some(ino) = made else { return Ok(Step::Went(STEP_COST)) };
        s.reply(0, &rpc::Created { ino: ino.0 });
        Ok(Step::Done)
    }
}

/// Makes the directories of a path that are missing, a few of them: `None` if there are more.
fn make_directories<P: Pmem, M: Mmu>(
    v: &mut Volume<P, M>,
    path: &[u8],
    mode: u16,
    now: Time,
) -> umbra_fs::Result<Option<Ino>> {
    // The directories from the root to here; walked with memory, so that a long path
    // with many `..` costs no more than its length.
    let mut way: Vec<Ino> = Vec::new();
    let mut made = 0;
    for component in components(path) {
        let Component::Name(name) = component else {
            way.pop();
            continue;
        };
        let dir = way.last().copied().unwrap_or(v.root());
        let ino = match v.lookup(dir, name) {
            Ok(ino) if v.attributes(ino)?.kind == Kind::Directory => ino,
            Ok(_) => return Err(Error::NotDirectory),
            Err(Error::NotFound) if made == DIRECTORIES_A_STEP => return Ok(None),
            Err(Error::NotFound) => {
                made += 1;
                v.mkdir(dir, name, mode, now)?
            }
            Err(e) => return Err(e),
        };
        push(&mut way, ino)?;
    }
    Ok(Some(way.last().copied().unwrap_or(v.root())))
}

/// Removes the name of a file.
pub fn unlink<M: Platform>(machine: &mut M, r: rpc::Unlink) -> Result<(), Failure> {
    checked_path(r.path)?;
    let now = machine.now();
    machine
        .volume(|v| {
            let (dir, name) = v.resolve_parent(r.path)?;
            v.unlink(dir, name, now)
        })
        .during(format_args!("remove {}", Shown(r.path)))
}

/// What is removed, or renamed: whether a directory that goes is empty, and that one that is moved
/// does not get below itself, is found out in steps.
pub struct Emptying {
    path: Vec<u8>,
    /// What gets this path, unless what has it is removed.
    from: Option<Vec<u8>>,
    climb: Climb,
}

impl Emptying {
    /// Begins to remove a directory.
    pub fn removing<M: Platform>(
        s: &mut Session,
        machine: &mut M,
        r: rpc::RemoveDirectory,
    ) -> Result<Option<Self>, Failure> {
        checked_path(r.path)?;
        let mut climb = Climb::default();
        if examined(machine, r.path, None, &mut climb) {
            remove_directory(machine, r)?;
            s.reply(0, &rpc::Done {});
            return Ok(None);
        }
        let what = format_args!("remove the directory {}", Shown(r.path));
        Ok(Some(Emptying { path: copy(r.path).during(what)?, from: None, climb }))
    }

    /// Begins to rename.
    pub fn renaming<M: Platform>(
        s: &mut Session,
        machine: &mut M,
        r: rpc::Rename,
    ) -> Result<Option<Self>, Failure> {
        checked_path(r.from)?;
        checked_path(r.to)?;
        let mut climb = Climb::default();
        if examined(machine, r.to, Some(r.from), &mut climb) {
            rename(machine, r, &mut climb)?;
            s.reply(0, &rpc::Done {});
            return Ok(None);
        }
        let what = format_args!("rename {} to {}", Shown(r.from), Shown(r.to));
        let (from, path) = (Some(copy(r.from).during(what)?), copy(r.to).during(what)?);
        Ok(Some(Emptying { path, from, climb }))
    }

    /// Takes a step.
    pub fn step<M: Platform>(&mut self, s: &mut Session, machine: &mut M) -> Result<Step, Failure> {
        if !examined(machine, &self.path, self.from.as_deref(), &mut self.climb) {
            return Ok(Step::Went(STEP_COST));
        }
        match &self.from {
            None => remove_directory(machine, rpc::RemoveDirectory { path: &self.path })?,
            Some(from) => {
                rename(machine, rpc::Rename { from, to: &self.path }, &mut self.climb)?;
            }
        }
        s.reply(0, &rpc::Done {});
        Ok(Step::Done)
    }
}

/// Takes a step of what has to be known before what a path leads to is removed, or replaced by what
/// is at `from`; true once that takes no more.
fn examined<M: Platform>(
    machine: &mut M,
    path: &[u8],
    from: Option<&[u8]>,
    climb: &mut Climb,
) -> bool {
    machine
        .volume(|v| {
            if let Some(from) = from {
                let [from, to] = v.resolve_rename(from, path)?;
                return v.examine_rename(from, to, climb);
            }
            let ino = v.resolve(path)?;
            match v.attributes(ino)?.kind {
                Kind::Directory => v.examine(ino),
                _ => Ok(true),
            }
        })
        // Whatever is wrong: who acts says so.
        .unwrap_or(true)
}

/// Removes an empty directory.
fn remove_directory<M: Platform>(machine: &mut M, r: rpc::RemoveDirectory) -> Result<(), Failure> {
    checked_path(r.path)?;
    let now = machine.now();
    machine
        .volume(|v| {
            let (dir, name) = v.resolve_parent_of_directory(r.path)?;
            v.rmdir(dir, name, now)
        })
        .during(format_args!("remove the directory {}", Shown(r.path)))
}

/// Renames.
fn rename<M: Platform>(machine: &mut M, r: rpc::Rename, climb: &mut Climb) -> Result<(), Failure> {
    checked_path(r.from)?;
    checked_path(r.to)?;
    let now = machine.now();
    machine
        .volume(|v| {
            let [from, to] = v.resolve_rename(r.from, r.to)?;
            v.rename_examined(from, to, now, climb)
        })
        .during(format_args!("rename {} to {}", Shown(r.from), Shown(r.to)))
}

/// Creates a symbolic link.
pub fn symlink<M: Platform>(machine: &mut M, r: rpc::Symlink) -> Result<rpc::Created, Failure> {
    checked_path(r.path)?;
    let what = format_args!("make the symbolic link {}", Shown(r.path));
    check_target(r.target).during(what)?;
    let now = machine.now();
    let ino = machine
        .volume(|v| {
            let (dir, name) = v.resolve_parent(r.path)?;
            v.symlink(dir, name, r.target, now)
        })
        .during(what)?;
    Ok(rpc::Created { ino: ino.0 })
}

/// Asks what a symbolic link says.
pub fn read_link<M: Platform>(machine: &mut M, r: rpc::ReadLink) -> Result<rpc::Target, Failure> {
    checked_path(r.path)?;
    let target = machine
        .volume(|v| {
            let ino = v.resolve(r.path)?;
            v.read_link(ino)
        })
        .during(format_args!("read the link {}", Shown(r.path)))?;
    Ok(rpc::Target { target })
}

/// Sets the size of a file.
pub fn truncate<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::Truncate,
) -> Result<Option<Operating>, Failure> {
    if r.size > MAX_FILE_SIZE {
        return Err(Failure::during(Error::TooLarge, format_args!("truncate to {} bytes", r.size)));
    }
    let subject = Subject { path: r.path, handle: r.handle };
    let ino = subject.find_to_change(s, machine, "truncate")?;
    let now = machine.now();
    let begun = machine.volume(|v| v.begin_truncate(ino, r.size, now));
    let what = subject.shown(ino);
    s.operate(machine, begun, Reply::Done, format_args!("truncate {what} to {} bytes", r.size))
}

/// Sets attributes.
pub fn set_attributes<M: Platform>(
    s: &Session,
    machine: &mut M,
    r: rpc::SetAttributes,
) -> Result<(), Failure> {
    checked_mode(r.mode, 0)?;
    let subject = Subject { path: r.path, handle: r.handle };
    let ino = subject.find_to_change(s, machine, "set attributes of")?;
    let set = SetAttributes {
        mode: r.mode,
        uid: r.uid,
        gid: r.gid,
        atime: r.atime.map(Time),
        mtime: r.mtime.map(Time),
    };
    let now = machine.now();
    machine
        .volume(|v| v.set_attributes(ino, set, now))
        .during(format_args!("set attributes of {}", subject.shown(ino)))
}
