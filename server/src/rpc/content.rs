//! Methods about content, as far as they are done at once.

use super::failure::{During, Failure};
use super::handles::{Access, OpenFile};
use super::names::checked_mode;
use super::operating::{Operating, Reply, STEP_COST};
use super::session::{Session, Step};
use super::subject::{Subject, checked_path};
use crate::platform::Platform;
use crate::text::Shown;
use umbra_fs::{Error, Kind, PageCount, PagesReport};
use umbra_proto::rpc::{self, ErrorCode};

/// Opens a file.
pub fn open<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::Open,
) -> Result<Option<Operating>, Failure> {
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
    let now = machine.now();
    let (file, size, cut) = machine
        .volume(|v| {
            let (ino, created) = match v.resolve(r.path) {
                Ok(_) if has(rpc::open::CREATE) && has(rpc::open::EXCLUSIVE) => {
                    return Err(Error::Exists);
                }
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
            let cut = has(rpc::open::TRUNCATE) && !created && attributes.size > 0;
            let file = OpenFile { ino, window: v.open_window(ino)?, access: Access::Any };
            Ok((file, attributes.size, cut))
        })
        .during(format_args!("open {}", Shown(r.path)))?;
    s.handles.set(handle, file);
    machine.counters().handles += 1;
    if cut {
        let begun = machine.volume(|v| v.begin_truncate(file.ino, 0, now));
        return s.operate(
            machine,
            begun,
            Reply::Opened(handle),
            format_args!("open {}", Shown(r.path)),
        );
    }
    s.reply(0, &rpc::Opened { handle, ino: file.ino.0, size, identity: None });
    Ok(None)
}

/// Opens what a file contains now.
fn open_frozen<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::Open,
) -> Result<Option<Operating>, Failure> {
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
    let begun = machine.volume(|v| {
        let from = v.resolve(r.path)?;
        v.begin_freeze(from, now)
    });
    s.operate(machine, begun, Reply::Frozen(handle), format_args!("open {}", Shown(r.path)))
}

/// Opens a file that has no name.
pub fn open_unnamed<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::OpenUnnamed,
) -> Result<rpc::Opened, Failure> {
    checked_path(r.path)?;
    let mode = checked_mode(r.mode, 0o644)?;
    let handle = s.handles.reserve()?;
    let now = machine.now();
    let (ino, window) = machine
        .volume(|v| {
            let dir = v.resolve(r.path)?;
            v.open_unnamed(dir, mode, (r.uid, r.gid), now)
        })
        .during(format_args!("open a file without a name in {}", Shown(r.path)))?;
    s.handles.set(handle, OpenFile { ino, window, access: Access::Any });
    machine.counters().handles += 1;
    Ok(rpc::Opened { handle, ino: ino.0, size: 0, identity: None })
}

/// Closes a handle. It is gone even if what was stored through it could not be made durable.
pub fn close<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    handle: u32,
) -> Result<Option<Operating>, Failure> {
    let file = s.handles.get(handle)?;
    let begun = machine.volume(|v| v.begin_close(file.window));
    let what = format_args!("close handle {handle} of inode {}", file.ino.0);
    s.operate(machine, begun, Reply::Closed(handle), what)
}

/// Makes a file durable.
pub fn sync<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    handle: u32,
) -> Result<Option<Operating>, Failure> {
    let ino = s.file(handle)?.ino;
    let begun = machine.volume(|v| v.begin_sync(ino));
    s.operate(machine, begun, Reply::Done, format_args!("sync inode {}", ino.0))
}

/// Clones a file.
pub fn clone<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::CloneFile,
) -> Result<Option<Operating>, Failure> {
    checked_path(r.from)?;
    checked_path(r.to)?;
    let reply =
        Reply::Cloned { into: None, before: machine.persisted(), start_ns: machine.uptime_ns() };
    let now = machine.now();
    let from =
        machine.volume(|v| v.resolve(r.from)).during(format_args!("clone {}", Shown(r.from)))?;
    let begun = machine.volume(|v| {
        let (dir, name) = v.resolve_parent(r.to)?;
        v.begin_clone(from, dir, name, now)
    });
    s.operate(machine, begun, reply, format_args!("clone {} to {}", Shown(r.from), Shown(r.to)))
}

/// Shares a range of a file into another.
pub fn clone_range<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::CloneRange,
) -> Result<Option<Operating>, Failure> {
    checked_path(r.from)?;
    checked_path(r.to)?;
    let (before, start_ns) = (machine.persisted(), machine.uptime_ns());
    let now = machine.now();
    let from = machine
        .volume(|v| v.resolve(r.from))
        .during(format_args!("clone a range of {}", Shown(r.from)))?;
    let mut into = None;
    let begun = machine.volume(|v| {
        let to = v.resolve(r.to)?;
        into = Some(to);
        let len = match r.len {
            Some(len) => len,
            None => (v.attributes(from)?.size)
                .checked_sub(r.from_offset)
                .ok_or(Error::Invalid("the range starts beyond the end of the source"))?,
        };
        v.begin_clone_range(from, r.from_offset, to, r.to_offset, len, now)
    });
    let reply = Reply::Cloned { into, before, start_ns };
    let (at, to) = (r.from_offset, r.to_offset);
    let what =
        format_args!("clone a range of {} at {at} to {} at {to}", Shown(r.from), Shown(r.to));
    s.operate(machine, begun, reply, what)
}

/// The state of windows, masters and shadows.
pub fn pages<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::Pages,
) -> Result<Option<PageCounting>, Failure> {
    let subject = Subject { path: r.path, handle: r.handle };
    if subject.is_absent() {
        let report = machine.volume(|v| v.pages(None)).during(format_args!("list pages"))?;
        answer_pages(s, machine, report);
        return Ok(None);
    }
    let ino = subject.find(s, machine, "list the pages of")?;
    machine
        .volume(|v| v.attributes(ino))
        .during(format_args!("list the pages of {}", subject.shown(ino)))?;
    let mut counting = PageCounting(machine.volume(|v| v.count_pages(ino)));
    match counting.step(s, machine)? {
        Step::Done => Ok(None),
        _ => Ok(Some(counting)),
    }
}

/// The pages of a file that are being counted.
pub struct PageCounting(PageCount);

impl PageCounting {
    /// Counts some more.
    pub fn step<M: Platform>(&mut self, s: &mut Session, machine: &mut M) -> Result<Step, Failure> {
        let report = machine
            .volume(|v| v.count_pages_step(&mut self.0))
            .during(format_args!("list pages"))?;
        let Some(report) = report else { return Ok(Step::Went(STEP_COST)) };
        answer_pages(s, machine, report);
        Ok(Step::Done)
    }
}

fn answer_pages<M: Platform>(s: &mut Session, machine: &mut M, report: PagesReport) {
    let persisted = machine.persisted();
    let faults = report.faults;
    let response = rpc::PagesResponse {
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
    };
    s.reply(0, &response);
}
