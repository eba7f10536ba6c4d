//! Methods about exports.

use super::failure::{During, Failure, Shown};
use super::names::checked_path;
use crate::nbd::{clients, exports, table};
use crate::platform::Platform;
use umbra_fs::{Error, Ino, Kind};
use umbra_proto::rpc::{self, ErrorCode, MAX_EXPORT_NAME};

/// Adds an export.
pub fn add<M: Platform>(machine: &mut M, r: rpc::ExportAdd) -> Result<(), Failure> {
    checked_path(r.path)?;
    let what = format_args!("export {} as {}", Shown(r.path), Shown(r.name.as_bytes()));
    if r.name.is_empty() || r.name.len() > MAX_EXPORT_NAME || r.name.contains(char::is_control) {
        return Err(Failure::new(
            ErrorCode::INVALID_NAME,
            format_args!(
                "cannot {what}: a name has 1 to {MAX_EXPORT_NAME} bytes, and no control characters"
            ),
        ));
    }
    let mut all = table::read(machine).during(what)?;
    let known = all.iter().position(|e| e.name == r.name);
    if known.is_some() && !r.replace {
        return Err(Failure::new(
            ErrorCode::EXISTS,
            format_args!("cannot {what}: there is an export of this name"),
        ));
    }
    if let Some(at) = known {
        check_unused(machine, &all[at], what)?;
    }
    let now = machine.now();
    machine
        .volume(|v| {
            let ino = v.resolve(r.path)?;
            let found = v.attributes(ino)?;
            match found.kind {
                Kind::File => {}
                Kind::Directory => return Err(Error::IsDirectory),
                Kind::Symlink => return Err(Error::Invalid("is a symbolic link")),
            }
            match r.size {
                Some(size) if size > found.size && r.read_only => {
                    Err(Error::Invalid("the file is shorter than the size of the read-only export"))
                }
                Some(size) if size > found.size => v.truncate(ino, size, now),
                _ => Ok(()),
            }
        })
        .during(what)?;
    let added = table::Added {
        name: r.name.into(),
        path: r.path.to_vec(),
        read_only: r.read_only,
        size: r.size,
    };
    match known {
        Some(at) => all[at] = added,
        None => all.push(added),
    }
    table::write(machine, &all).during(what)
}

/// Removes an export; with force, also from whoever came by this name.
pub fn remove<M: Platform>(
    machine: &mut M,
    r: rpc::ExportRemove,
) -> Result<rpc::ExportRemoved, Failure> {
    let what = format_args!("remove the export {}", Shown(r.name.as_bytes()));
    let mut all = table::read(machine).during(what)?;
    let at = all.iter().position(|e| e.name == r.name);
    if let Some(at) = at {
        if !r.force {
            check_unused(machine, &all[at], what)?;
        }
        all.remove(at);
        // First the name goes: a client that is evicted must not come back by it.
        table::write(machine, &all).during(what)?;
    }
    let evicted = if r.force { clients::evict(machine, r.name.as_bytes()) } else { 0 };
    if at.is_none() && evicted == 0 {
        return Err(Failure::new(
            ErrorCode::NOT_FOUND,
            format_args!("cannot {what}: there is none of this name"),
        ));
    }
    Ok(rpc::ExportRemoved { evicted })
}

/// Refuses to take an export away from clients that use what it leads to.
fn check_unused<M: Platform>(
    machine: &mut M,
    added: &table::Added,
    what: core::fmt::Arguments<'_>,
) -> Result<(), Failure> {
    let used = exports::file_of(machine, added).map_or(0, |found| clients::count(machine, &found));
    match used {
        0 => Ok(()),
        n => Err(Failure::new(ErrorCode::BUSY, format_args!("cannot {what}: clients use it: {n}"))),
    }
}

/// Refuses to take away the last name of a file that clients of NBD use.
pub fn check_name_unused<M: Platform>(
    machine: &mut M,
    ino: Ino,
    what: core::fmt::Arguments<'_>,
) -> Result<(), Failure> {
    match machine.volume(|v| v.attributes(ino)) {
        Ok(found) if found.nlink > 1 => Ok(()),
        _ => check_file_unused(machine, ino, what),
    }
}

/// Refuses what would take a part of a file away from clients of NBD.
pub fn check_file_unused<M: Platform>(
    machine: &mut M,
    ino: Ino,
    what: core::fmt::Arguments<'_>,
) -> Result<(), Failure> {
    match clients::users(machine, ino) {
        None => Ok(()),
        Some(who) => Err(Failure::new(ErrorCode::BUSY, format_args!("cannot {what}: {who}"))),
    }
}
