//! Methods about content, as far as they are done at once.

use super::connection::Session;
use super::exports::check_file_unused;
use super::failure::{During, Failure, Shown};
use super::handles::{Access, OpenFile};
use super::names::{Named, checked_mode, checked_path, optional_target};
use crate::platform::{Persisted, Platform};
use umbra_fs::{Error, Ino, Kind};
use umbra_proto::rpc::{self, ErrorCode};

/// Opens a file.
pub fn open<M: Platform>(s: &mut Session, machine: &mut M, r: rpc::Open) -> Result<rpc::Opened, Failure> {
    checked_path(r.path)?;
    let mode = checked_mode(r.mode, 0o644)?;
    if r.flags & !rpc::open::ALL != 0 {
        let message = format_args!("cannot open {}: unknown flags {:#x}", Shown(r.path), r.flags);
        return Err(Failure::new(ErrorCode::UNSUPPORTED, message));
    }
    let has = |flag| r.flags & flag != 0;
    if has(rpc::open::FROZEN) {
        return open_frozen(s, machine, r);
    }
    let handle = s.handles.reserve()?;
    if has(rpc::open::TRUNCATE)
        && let Ok(ino) = machine.volume(|v| v.resolve(r.path))
    {
        check_file_unused(machine, ino, format_args!("truncate {}", Shown(r.path)))?;
    }
    let now = machine.now();
    let (file, size) = machine
        .volume(|v| {
            let (ino, created) = match v.resolve(r.path) {
                Ok(_) if has(rpc::open::CREATE) && has(rpc::open::EXCLUSIVE) => return Err(Error::Exists),
                Ok(ino) => (ino, false),
                Err(Error::NotFound) if has(rpc::open::CREATE) => {
                    let (dir, name) = v.resolve_parent(r.path)?;
                    (v.create(dir, name, mode, now)?, true)
                }
                Err(e) => return Err(e),
            };
            let attributes = v.attributes(ino)?;
            match attributes.kind {
                Kind::File => {}
                Kind::Directory => return Err(Error::IsDirectory),
                Kind::Symlink => return Err(Error::Invalid("is a symbolic link")),
            }
            let mut size = attributes.size;
            if has(rpc::open::TRUNCATE) && !created && size > 0 {
                v.truncate(ino, 0, now)?;
                size = 0;
            }
            Ok((OpenFile { ino, window: v.open_window(ino)?, access: Access::Any }, size))
        })
        .during(format_args!("open {}", Shown(r.path)))?;
    s.handles.set(handle, file);
    machine.counters().handles += 1;
    Ok(rpc::Opened { handle, ino: file.ino.0, size, identity: None })
}

/// Opens what a file contains now.
fn open_frozen<M: Platform>(s: &mut Session, machine: &mut M, r: rpc::Open) -> Result<rpc::Opened, Failure> {
    if r.flags != rpc::open::FROZEN {
        let message = format_args!(
            "cannot open {}: what a file contains now is not created or cut (flags {:#x})",
            Shown(r.path),
            r.flags
        );
        return Err(Failure::new(ErrorCode::INVALID, message));
    }
    let handle = s.handles.reserve()?;
    let now = machine.now();
    let (file, size, identity) = machine
        .volume(|v| {
            let identity = v.identity()?;
            let from = v.resolve(r.path)?;
            let size = v.attributes(from)?.size;
            let (ino, window) = v.open_frozen(from, now)?;
            Ok((OpenFile { ino, window, access: Access::Frozen }, size, identity))
        })
        .during(format_args!("open {}", Shown(r.path)))?;
    s.handles.set(handle, file);
    machine.counters().handles += 1;
    Ok(rpc::Opened { handle, ino: file.ino.0, size, identity: Some(identity.into()) })
}

/// Closes a handle. It is gone even if what was stored through it could not be made durable.
pub fn close<M: Platform>(s: &mut Session, machine: &mut M, handle: u32) -> Result<(), Failure> {
    let file = s.handles.remove(handle)?;
    let counters = machine.counters();
    counters.handles = counters.handles.saturating_sub(1);
    machine
        .volume(|v| v.close_window(file.window))
        .during(format_args!("close handle {handle} of inode {}", file.ino.0))
}

/// Makes a file durable.
pub fn sync<M: Platform>(s: &Session, machine: &mut M, handle: u32) -> Result<(), Failure> {
    sync_file(machine, s.file(handle)?.ino)
}

/// Makes a file durable.
pub fn sync_file<M: Platform>(machine: &mut M, ino: Ino) -> Result<(), Failure> {
    machine.volume(|v| v.sync(ino)).during(format_args!("sync inode {}", ino.0))
}

/// Clones a file.
pub fn clone<M: Platform>(machine: &mut M, r: rpc::CloneFile) -> Result<rpc::Cloned, Failure> {
    checked_path(r.from)?;
    checked_path(r.to)?;
    measured(machine, |machine| {
        let now = machine.now();
        let from = machine.volume(|v| v.resolve(r.from)).during(format_args!("clone {}", Shown(r.from)))?;
        machine
            .volume(|v| {
                let (dir, name) = v.resolve_parent(r.to)?;
                v.clone_file(from, dir, name, now)
            })
            .during(format_args!("clone {} to {}", Shown(r.from), Shown(r.to)))
    })
}

/// Shares a range of a file into another.
pub fn clone_range<M: Platform>(machine: &mut M, r: rpc::CloneRange) -> Result<rpc::Cloned, Failure> {
    checked_path(r.from)?;
    checked_path(r.to)?;
    measured(machine, |machine| {
        let now = machine.now();
        let from = machine
            .volume(|v| v.resolve(r.from))
            .during(format_args!("clone a range of {}", Shown(r.from)))?;
        machine
            .volume(|v| {
                let to = v.resolve(r.to)?;
                let len = match r.len {
                    Some(len) => len,
                    None => (v.attributes(from)?.size)
                        .checked_sub(r.from_offset)
                        .ok_or(Error::Invalid("the range starts beyond the end of the source"))?,
                };
                v.clone_range(from, r.from_offset, to, r.to_offset, len, now).map(|()| to)
            })
            .during(format_args!(
                "clone a range of {} at {} to {} at {}",
                Shown(r.from),
                r.from_offset,
                Shown(r.to),
                r.to_offset
            ))
    })
}

/// Does something that makes or changes a file, and says what it took.
fn measured<M: Platform>(
    machine: &mut M,
    work: impl FnOnce(&mut M) -> Result<Ino, Failure>,
) -> Result<rpc::Cloned, Failure> {
    let (before, start) = (machine.persisted(), machine.uptime_ns());
    let ino = work(machine)?;
    let elapsed_ns = machine.uptime_ns().saturating_sub(start);
    let Persisted { flushes, fences } = machine.persisted();
    Ok(rpc::Cloned {
        ino: ino.0,
        elapsed_ns,
        fences: fences.saturating_sub(before.fences),
        flushes: flushes.saturating_sub(before.flushes),
    })
}

/// The state of windows, masters and shadows.
pub fn pages<M: Platform>(
    s: &Session,
    machine: &mut M,
    r: rpc::Pages,
) -> Result<rpc::PagesResponse, Failure> {
    let ino = optional_target(s, machine, r.path, r.handle, "list the pages of")?;
    if let Some(ino) = ino {
        machine
            .volume(|v| v.attributes(ino))
            .during(format_args!("list the pages of {}", Named(r.path, ino)))?;
    }
    let report = machine.volume(|v| v.pages(ino)).during(format_args!("list pages"))?;
    let persisted = machine.persisted();
    let faults = report.faults;
    Ok(rpc::PagesResponse {
        windows: report.windows,
        slots: report.slots,
        masters: report.masters,
        shadows: report.shadows,
        zero: report.zero,
        writable: report.writable,
        faults: rpc::Faults {
            read: faults.read,
            write: faults.write,
            cow: faults.cow,
            failed: faults.failed,
            tossed: faults.tossed,
            foreign_unmapped: faults.foreign_unmapped,
        },
        flushes: persisted.flushes,
        fences: persisted.fences,
    })
}
