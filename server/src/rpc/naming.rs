//! Names for files that are there: further ones, and the first one of a file without a name.

use super::failure::{During, Failure};
use super::operating::STEP_COST;
use super::session::{Session, Step};
use super::subject::{Subject, checked_path};
use crate::platform::Platform;
use crate::text::Shown;
use alloc::vec::Vec;
use umbra_fs::memory::copy;
use umbra_fs::{Begun, Existing, Ino, Operation};
use umbra_proto::rpc;

/// A file without a name that is made durable, so that it can be given one.
pub struct Naming {
    sync: Operation,
    handle: u32,
    to: Vec<u8>,
    replace: bool,
}

/// Adds a name for a file, or says whether it could be added.
pub fn link<M: Platform>(
    s: &mut Session,
    machine: &mut M,
    r: rpc::Link,
) -> Result<Option<Naming>, Failure> {
    let Some(handle) = r.handle.filter(|_| !r.check) else {
        let created = name(s, machine, &r)?;
        s.reply(0, &created);
        return Ok(None);
    };
    // Refused before anything is made durable for it.
    let ino = Ino(name(s, machine, &rpc::Link { check: true, ..r })?.ino);
    if machine.volume(|v| v.attributes(ino)).is_ok_and(|found| found.nlink == 0) {
        let what = format_args!("sync an open file to name it {}", Shown(r.to));
        let to = copy(r.to).during(what)?;
        if let Begun::GoesOn(sync) = machine.volume(|v| v.begin_sync(ino)).during(what)? {
            return Ok(Some(Naming { sync, handle, to, replace: r.replace }));
        }
    }
    let created = name(s, machine, &r)?;
    s.reply(0, &created);
    Ok(None)
}

impl Naming {
    /// Makes more of the file durable; then names it.
    pub fn step<M: Platform>(&mut self, s: &mut Session, machine: &mut M) -> Result<Step, Failure> {
        let what = format_args!("sync an open file to name it {}", Shown(&self.to));
        if machine.volume(|v| v.step(&mut self.sync)).during(what)?.is_none() {
            return Ok(Step::Went(STEP_COST));
        }
        let (handle, replace) = (Some(self.handle), self.replace);
        let link = rpc::Link { path: None, to: &self.to, handle, replace, check: false };
        let created = name(s, machine, &link)?;
        s.reply(0, &created);
        Ok(Step::Done)
    }

    /// Gives it up: the client is gone, and the file goes with its handle.
    pub fn abandon<M: Platform>(self, machine: &mut M) {
        machine.volume(|v| v.abandon(self.sync));
    }
}

/// Looks whether a file may have a name, and gives it that unless only asked to look.
fn name<M: Platform>(s: &Session, machine: &mut M, r: &rpc::Link) -> Result<rpc::Created, Failure> {
    checked_path(r.to)?;
    let ino = Subject { path: r.path, handle: r.handle }.find_to_change(s, machine, "link")?;
    let existing = if r.replace { Existing::Replace } else { Existing::Keep };
    let now = machine.now();
    let named = machine.volume(|v| {
        let (dir, name) = v.resolve_parent(r.to)?;
        match r.check {
            true => v.may_link(ino, dir, name, existing),
            false => v.link_as(ino, dir, name, existing, now),
        }
    });
    match r.path {
        Some(path) => named.during(format_args!("link {} as {}", Shown(path), Shown(r.to)))?,
        None => named.during(format_args!("name an open file {}", Shown(r.to)))?,
    }
    Ok(rpc::Created { ino: ino.0 })
}
