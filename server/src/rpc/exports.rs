//! Methods about exports.

use super::failure::{During, Failure};
use super::subject::checked_path;
use crate::nbd::clients::Clients;
use crate::nbd::exports::{self, Found, NoExport, file_of, find_path};
use crate::nbd::table;
use crate::platform::Platform;
use crate::text::{Message, Shown};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use umbra_fs::memory::{copy, copy_text, push, with_room};
use umbra_fs::{Error, Kind};
use umbra_proto::rpc::{self, ErrorCode, MAX_EXPORT_NAME};

/// Adds an export.
///
/// # Errors
///
/// The name or the path is none; the export exists, or is in use; the list in the volume cannot be
/// read or written; there is no memory for it.
pub fn add<M: Platform>(
    machine: &mut M,
    clients: &Clients,
    r: rpc::ExportAdd,
) -> Result<(), Failure> {
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
        check_unused(machine, clients, &all[at], what)?;
    }
    let added = table::Added {
        name: copy_text(r.name).during(what)?,
        path: copy(r.path).during(what)?,
        read_only: r.read_only,
        size: r.size,
    };
    match known {
        Some(at) => all[at] = added,
        None => push(&mut all, added).during(what)?,
    }
    let encoded = table::encode(&all).during(what)?;
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
    table::write(machine, &encoded).during(what)
}

/// Removes an export; with force, also from whoever came by this name.
///
/// # Errors
///
/// There is none of this name, or it is in use; the list in the volume cannot be read or written;
/// there is no memory for it.
pub fn remove<M: Platform>(
    machine: &mut M,
    clients: &mut Clients,
    r: rpc::ExportRemove,
) -> Result<rpc::ExportRemoved, Failure> {
    let what = format_args!("remove the export {}", Shown(r.name.as_bytes()));
    let mut all = table::read(machine).during(what)?;
    let at = all.iter().position(|e| e.name == r.name);
    if let Some(at) = at {
        if !r.force {
            check_unused(machine, clients, &all[at], what)?;
        }
        all.remove(at);
        // First the name goes: a client that is evicted must not come back by it.
        let encoded = table::encode(&all).during(what)?;
        table::write(machine, &encoded).during(what)?;
    }
    let evicted = if r.force { clients.evict(machine, r.name.as_bytes()) } else { 0 };
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
    clients: &Clients,
    added: &table::Added,
    what: core::fmt::Arguments<'_>,
) -> Result<(), Failure> {
    let used = file_of(machine, added).map_or(0, |found| clients.count(&found));
    match used {
        0 => Ok(()),
        n => Err(Failure::new(ErrorCode::BUSY, format_args!("cannot {what}: clients use it: {n}"))),
    }
}

/// Everything that `export-list` lists: exports that were added, other files that clients use,
/// regions.
///
/// # Errors
///
/// The list in the volume cannot be read, or there is no memory for it.
pub fn list<M: Platform>(machine: &mut M, clients: &Clients) -> umbra_fs::Result<Vec<rpc::Export>> {
    let (mut all, mut known) = (Vec::new(), Vec::new());
    for added in table::read(machine)? {
        let found = file_of(machine, &added);
        let export = rpc::Export {
            path: Some(added.path),
            read_only: added.read_only,
            fixed_size: added.size.is_some(),
            ..listed(clients, added.name, &found)?
        };
        push(&mut all, export)?;
        if let Ok(found) = found {
            push(&mut known, found)?;
        }
    }
    for other in clients.others(&known) {
        let leads_here = find_path(machine, other.path) == Ok(other.ino);
        let size = machine.volume(|v| v.attributes(other.ino)).map(|found| found.size);
        let export = rpc::Export {
            name: listed_name(other.name)?,
            path: Some(copy(other.path)?),
            read_only: false,
            size: size.ok(),
            fixed_size: false,
            clients: other.clients,
            by_path: other.by_path,
            problem: size.err().map(problem).transpose()?,
            moved: !(other.by_path && leads_here),
            ino: Some(other.ino.0),
        };
        push(&mut all, export)?;
    }
    for found in exports::regions(machine)? {
        let name = listed_name(&found.name)?;
        push(&mut all, listed(clients, name, &Ok(found))?)?;
    }
    Ok(all)
}

fn listed(
    clients: &Clients,
    name: String,
    found: &Result<Found, NoExport>,
) -> umbra_fs::Result<rpc::Export> {
    let there = found.as_ref().ok();
    Ok(rpc::Export {
        name,
        path: None,
        read_only: false,
        size: there.map(|found| found.size),
        fixed_size: false,
        clients: there.map_or(0, |found| clients.count(found)),
        by_path: false,
        problem: found.as_ref().err().map(problem).transpose()?,
        moved: false,
        ino: there.and_then(|found| found.ino()).map(|ino| ino.0),
    })
}

/// Why an export cannot be used, as lists have it.
fn problem(why: impl fmt::Display) -> umbra_fs::Result<String> {
    copy_text(Message::new(format_args!("{why}")).as_str())
}

/// Everything that `export-clients` lists.
///
/// # Errors
///
/// There is no memory for the list.
#[allow(clippy::disallowed_methods, reason = "there is room for all clients")]
pub fn list_clients(clients: &Clients) -> umbra_fs::Result<Vec<rpc::ExportClient>> {
    let mut all = with_room(clients.all().count())?;
    for client in clients.all() {
        all.push(rpc::ExportClient {
            name: listed_name(client.name)?,
            by_path: client.by_path,
            ino: client.ino.map(|ino| ino.0),
            since: client.since.0,
            cid: client.peer.map(|peer| peer.cid),
            port: client.peer.map(|peer| peer.port),
            read_only: client.read_only,
            size: client.size,
        });
    }
    Ok(all)
}

/// A name as lists have it: text, in which the replacement character stands for what is none.
#[allow(clippy::disallowed_methods, reason = "room is reserved piece by piece")]
fn listed_name(name: &[u8]) -> umbra_fs::Result<String> {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        let invalid = if chunk.invalid().is_empty() { "" } else { "\u{fffd}" };
        for piece in [chunk.valid(), invalid] {
            text.try_reserve(piece.len()).map_err(|_| Error::NoMemory)?;
            text.push_str(piece);
        }
    }
    text.truncate(text.floor_char_boundary(rpc::MAX_PATH));
    Ok(text)
}
