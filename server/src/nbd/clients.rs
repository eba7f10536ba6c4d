//! Who uses exports.
//!
//! A client is counted by what it holds: the inode of a file, which lives as long as its window is
//! open, or the number of a region. The name by which the client came is remembered beside that,
//! because the name may lead somewhere else by now: the file was renamed, or another file has its
//! path.

use super::exports::{Found, Source, find_path};
use super::target::Target;
use crate::platform::Platform;
use crate::rpc::Shown;
use crate::stream::Peer;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use umbra_fs::{Begun, Error, Ino, Operation, Time};
use umbra_proto::rpc;

/// The exports that clients use, of all connections.
#[derive(Default)]
pub struct Exports {
    used: Vec<Used>,
    /// The client that comes next.
    next: u64,
    /// How often clients were evicted.
    evictions: u64,
    /// Clients were evicted whose connections do not know it yet.
    news: bool,
}

/// A client of an export. No two have the same number, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId(u64);

/// An export in use. All connections to it share its window.
struct Used {
    name: Vec<u8>,
    by_path: bool,
    /// The path that led to the file; empty for a region.
    path: Vec<u8>,
    target: Target,
    clients: Vec<Client>,
    /// It was taken away from its clients. Their connections do not all know it yet; the last one
    /// closes the window.
    evicted: bool,
}

/// A connection that uses an export.
struct Client {
    id: ClientId,
    since: Time,
    peer: Option<Peer>,
    read_only: bool,
    /// Bytes that the client sees.
    size: u64,
}

impl Exports {
    /// How many there are.
    pub fn in_use(&self) -> usize {
        self.used.len()
    }

    /// How often clients were evicted: as long as this stays the same, each client is still one.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Whether this client was not evicted.
    pub fn has(&self, client: ClientId) -> bool {
        self.used().any(|used| used.clients.iter().any(|c| c.id == client))
    }

    /// All but those that were taken away.
    fn used(&self) -> impl Iterator<Item = &Used> {
        self.used.iter().filter(|used| !used.evicted)
    }

    /// Whether clients were evicted since the last call. Then every connection has to be polled,
    /// because those of evicted clients have nothing else to tell them that they end.
    pub fn take_news(&mut self) -> bool {
        core::mem::take(&mut self.news)
    }
}

impl Used {
    fn ino(&self) -> Option<Ino> {
        match self.target {
            Target::File { ino, .. } => Some(ino),
            Target::Region(_) => None,
        }
    }

    /// Whether this is what a client of an export uses that was found now.
    fn is(&self, found: &Found) -> bool {
        let same = match (self.target, &found.source) {
            (Target::File { ino, .. }, Source::File { ino: theirs, .. }) => ino == *theirs,
            (Target::Region(index), Source::Region(theirs)) => index == *theirs,
            _ => false,
        };
        // Whoever comes by a path or to a region may spell it in many ways.
        same && self.by_path == found.by_path()
            && (self.path_or_region() || self.name == found.name)
    }

    fn path_or_region(&self) -> bool {
        self.by_path || matches!(self.target, Target::Region(_))
    }
}

/// Uses an export for another connection: opens its window, unless it is open already.
pub fn open<M: Platform>(
    machine: &mut M,
    found: &Found,
    peer: Option<Peer>,
) -> Result<(Target, ClientId), Error> {
    let since = machine.now();
    let known = machine.exports().used.iter().position(|used| !used.evicted && used.is(found));
    let at = match known {
        Some(at) => at,
        None => {
            let (target, path) = match &found.source {
                Source::File { ino, path, .. } => {
                    let window = machine.volume(|v| v.open_window(*ino))?;
                    (Target::File { ino: *ino, window }, path.clone())
                }
                Source::Region(index) => (Target::Region(*index), Vec::new()),
            };
            let (name, by_path) = (found.name.clone(), found.by_path());
            let used = &mut machine.exports().used;
            used.push(Used { name, by_path, path, target, clients: Vec::new(), evicted: false });
            used.len() - 1
        }
    };
    let exports = machine.exports();
    let id = ClientId(exports.next);
    exports.next += 1;
    let used = &mut exports.used[at];
    used.clients.push(Client { id, since, peer, read_only: found.read_only, size: found.size });
    Ok((used.target, id))
}

/// A connection no longer uses an export. For the last one, returns what goes on closing its
/// window: what was stored through that is durable then.
pub fn close<M: Platform>(machine: &mut M, client: ClientId) -> Option<Operation> {
    let used = &mut machine.exports().used;
    let find = |used: &Used| used.clients.iter().position(|c| c.id == client);
    let (at, within) = used.iter().enumerate().find_map(|(at, used)| Some((at, find(used)?)))?;
    used[at].clients.swap_remove(within);
    if !used[at].clients.is_empty() {
        return None;
    }
    match used.swap_remove(at).target {
        // Nobody is left to be told of an error.
        Target::File { window, .. } => match machine.volume(|v| v.begin_close(window)) {
            Ok(Begun::GoesOn(operation)) => Some(operation),
            Ok(Begun::Over(_)) | Err(_) => None,
        },
        Target::Region(_) => None,
    }
}

/// Takes the export away from all clients that came by a name, whatever they hold, or by a path
/// that leads to the same file as the name. Their connections end at their next turn. Returns how
/// many there were.
pub fn evict<M: Platform>(machine: &mut M, name: &[u8]) -> u32 {
    let file = find_path(machine, name).ok();
    let exports = machine.exports();
    let meant = |used: &&mut Used| {
        let by_path = used.by_path && file.is_some() && used.ino() == file;
        !used.evicted && (used.name == name || by_path)
    };
    let mut evicted = 0;
    for used in exports.used.iter_mut().filter(meant) {
        used.evicted = true;
        evicted += used.clients.len() as u32;
    }
    if evicted > 0 {
        exports.evictions += 1;
        exports.news = true;
    }
    evicted
}

/// Who uses a file: a text, if anybody does.
pub fn users<M: Platform>(machine: &mut M, file: Ino) -> Option<String> {
    let mut text: Option<String> = None;
    for used in machine.exports().used().filter(|used| used.ino() == Some(file)) {
        let count = used.clients.len();
        let plural = if count == 1 { "" } else { "s" };
        let who = format!("{count} NBD client{plural} of the export {}", Shown(&used.name));
        match &mut text {
            None => text = Some(format!("it is in use by {who}")),
            Some(text) => {
                text.push_str(" and ");
                text.push_str(&who);
            }
        }
    }
    text
}

/// How many clients use an export that was found: they came by its name, and hold what it leads to
/// now.
pub fn count<M: Platform>(machine: &mut M, found: &Found) -> u32 {
    machine
        .exports()
        .used()
        .filter(|used| used.is(found))
        .map(|used| used.clients.len() as u32)
        .sum()
}

/// A file in use that is none of the exports that were added.
pub struct Other {
    /// The name by which its clients came.
    pub name: Vec<u8>,
    /// The name is a path.
    pub by_path: bool,
    /// The path that led to the file.
    pub path: Vec<u8>,
    /// The file.
    pub ino: Ino,
    /// How many clients use it.
    pub clients: u32,
}

/// Files in use that are none of these exports.
pub fn others<M: Platform>(machine: &mut M, added: &[Found]) -> Vec<Other> {
    let others = machine.exports().used().filter_map(|used| {
        let ino = used.ino().filter(|_| !added.iter().any(|found| used.is(found)))?;
        Some(Other {
            name: used.name.clone(),
            by_path: used.by_path,
            path: used.path.clone(),
            ino,
            clients: used.clients.len() as u32,
        })
    });
    others.collect()
}

/// Everything that `export-clients` lists.
pub fn list<M: Platform>(machine: &mut M) -> Vec<rpc::ExportClient> {
    let each = |used: &Used, client: &Client| rpc::ExportClient {
        name: listed_name(&used.name),
        by_path: used.by_path,
        ino: used.ino().map(|ino| ino.0),
        since: client.since.0,
        cid: client.peer.map(|peer| peer.cid),
        port: client.peer.map(|peer| peer.port),
        read_only: client.read_only,
        size: client.size,
    };
    machine
        .exports()
        .used()
        .flat_map(|used| used.clients.iter().map(move |client| each(used, client)))
        .collect()
}

/// A name as lists have it: text, which may be longer than the name where that is none.
pub fn listed_name(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    text.truncate(text.floor_char_boundary(rpc::MAX_PATH));
    text
}
