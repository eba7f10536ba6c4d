//! Who uses exports.
//!
//! A client is counted by what it holds: the inode of a file, which lives as long as its window is
//! open, or the number of a region. The name by which the client came is remembered beside that,
//! because the name may lead somewhere else by now: the file was renamed, or another file has its
//! path.

use super::backing::Backing;
use super::exports::{Found, Source, find_path};
use crate::platform::Platform;
use crate::stream::Peer;
use crate::text::Shown;
use alloc::vec::Vec;
use core::fmt;
use umbra_fs::memory::{copy, with_room};
use umbra_fs::{Begun, Error, Ino, Operation, Time};

/// The clients of all exports, and what they use.
#[derive(Default)]
pub struct Clients {
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
    backing: Backing,
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

impl Clients {
    /// How many exports are in use.
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

    /// Uses an export for another connection: opens its window, unless it is open already. A file
    /// is pinned as long as it has clients.
    ///
    /// # Errors
    ///
    /// Those of [`umbra_fs::Volume::open_window`], and [`Error::NoMemory`].
    #[allow(clippy::disallowed_methods, reason = "room is reserved before the window is opened")]
    pub fn open<M: Platform>(
        &mut self,
        machine: &mut M,
        found: &Found,
        peer: Option<Peer>,
    ) -> Result<(Backing, ClientId), Error> {
        let since = machine.now();
        let known = self.used.iter().position(|used| !used.evicted && used.is(found));
        let at = match known {
            Some(at) => {
                self.used[at].clients.try_reserve(1).map_err(|_| Error::NoMemory)?;
                at
            }
            None => {
                let used = Used::reserve(found)?;
                self.used.try_reserve(1).map_err(|_| Error::NoMemory)?;
                let backing = match found.source {
                    Source::File { ino, .. } => {
                        let window = machine.volume(|v| {
                            let window = v.open_window(ino)?;
                            v.pin(window).map(|()| window)
                        })?;
                        Backing::File { ino, window }
                    }
                    Source::Region(index) => Backing::Region(index),
                };
                self.used.push(Used { backing, ..used });
                self.used.len() - 1
            }
        };
        let id = ClientId(self.next);
        self.next += 1;
        let used = &mut self.used[at];
        used.clients.push(Client { id, since, peer, read_only: found.read_only, size: found.size });
        Ok((used.backing, id))
    }

    /// A connection no longer uses an export. For the last one, returns what goes on closing its
    /// window: what was stored through that is durable then.
    pub fn close<M: Platform>(&mut self, machine: &mut M, client: ClientId) -> Option<Operation> {
        let find = |used: &Used| used.clients.iter().position(|c| c.id == client);
        let mut all = self.used.iter().enumerate();
        let (at, within) = all.find_map(|(at, used)| Some((at, find(used)?)))?;
        self.used[at].clients.swap_remove(within);
        if !self.used[at].clients.is_empty() {
            return None;
        }
        match self.used.swap_remove(at).backing {
            // Nobody is left to be told of an error.
            Backing::File { window, .. } => match machine.volume(|v| v.begin_close(window)) {
                Ok(Begun::GoesOn(operation)) => Some(operation),
                Ok(Begun::Over(_)) | Err(_) => None,
            },
            Backing::Region(_) => None,
        }
    }

    /// Takes the export away from all clients that came by a name, whatever they hold, or by a path
    /// that leads to the same file as the name. Their connections end at their next turn, and no
    /// longer pin the file. Returns how many there were.
    pub fn evict<M: Platform>(&mut self, machine: &mut M, name: &[u8]) -> u32 {
        let file = find_path(machine, name).ok();
        let meant = |used: &&mut Used| {
            let by_path = used.by_path && file.is_some() && used.ino() == file;
            !used.evicted && (used.name == name || by_path)
        };
        let mut evicted = 0;
        for used in self.used.iter_mut().filter(meant) {
            used.evicted = true;
            evicted += used.clients.len() as u32;
            if let Backing::File { window, .. } = used.backing {
                // The window is open as long as it is used, so this cannot fail.
                let _ = machine.volume(|v| v.unpin(window));
            }
        }
        if evicted > 0 {
            self.evictions += 1;
            self.news = true;
        }
        evicted
    }

    /// Who uses a file.
    pub fn users(&self, file: Ino) -> Users<'_> {
        Users { clients: self, file }
    }

    /// How many clients use an export that was found: they came by its name, and hold what it leads
    /// to now.
    pub fn count(&self, found: &Found) -> u32 {
        self.used().filter(|used| used.is(found)).map(|used| used.clients.len() as u32).sum()
    }

    /// Files in use that are none of these exports.
    pub fn others<'a>(&'a self, added: &'a [Found]) -> impl Iterator<Item = Other<'a>> {
        self.used().filter_map(|used| {
            let ino = used.ino().filter(|_| !added.iter().any(|found| used.is(found)))?;
            Some(Other {
                name: &used.name,
                by_path: used.by_path,
                path: &used.path,
                ino,
                clients: used.clients.len() as u32,
            })
        })
    }

    /// All clients, export by export.
    pub fn all(&self) -> impl Iterator<Item = Connected<'_>> {
        self.used().flat_map(|used| used.clients.iter().map(|client| client.of(used)))
    }
}

impl Client {
    fn of<'a>(&self, used: &'a Used) -> Connected<'a> {
        Connected {
            name: &used.name,
            by_path: used.by_path,
            ino: used.ino(),
            since: self.since,
            peer: self.peer,
            read_only: self.read_only,
            size: self.size,
        }
    }
}

/// Who uses a file, as a message says it behind "it is in use"; nothing if nobody does.
#[derive(Clone, Copy)]
pub struct Users<'a> {
    clients: &'a Clients,
    file: Ino,
}

impl fmt::Display for Users<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = " by";
        for used in self.clients.used().filter(|used| used.ino() == Some(self.file)) {
            let count = used.clients.len();
            let plural = if count == 1 { "" } else { "s" };
            let name = Shown(&used.name);
            write!(f, "{before} {count} NBD client{plural} of the export {name}")?;
            before = " and";
        }
        Ok(())
    }
}

/// A file in use that is none of the exports that were added.
#[derive(Clone, Copy)]
pub struct Other<'a> {
    /// The name by which its clients came.
    pub name: &'a [u8],
    /// The name is a path.
    pub by_path: bool,
    /// The path that led to the file.
    pub path: &'a [u8],
    /// The file.
    pub ino: Ino,
    /// How many clients use it.
    pub clients: u32,
}

/// A client of an export.
#[derive(Clone, Copy)]
pub struct Connected<'a> {
    /// The name by which it came.
    pub name: &'a [u8],
    /// The name is a path.
    pub by_path: bool,
    /// The file that it holds; `None` for a region.
    pub ino: Option<Ino>,
    /// When it chose the export.
    pub since: Time,
    /// Its end of the connection.
    pub peer: Option<Peer>,
    /// It may not write.
    pub read_only: bool,
    /// Bytes that it sees.
    pub size: u64,
}

impl Used {
    /// The memory for an export and its first client; what backs it is still to be opened.
    fn reserve(found: &Found) -> Result<Self, Error> {
        let path = match &found.source {
            Source::File { path, .. } => copy(path)?,
            Source::Region(_) => Vec::new(),
        };
        Ok(Used {
            name: copy(&found.name)?,
            by_path: found.by_path(),
            path,
            backing: Backing::Region(usize::MAX),
            clients: with_room(1)?,
            evicted: false,
        })
    }

    fn ino(&self) -> Option<Ino> {
        match self.backing {
            Backing::File { ino, .. } => Some(ino),
            Backing::Region(_) => None,
        }
    }

    /// Whether this is what a client of an export uses that was found now.
    fn is(&self, found: &Found) -> bool {
        let same = match (self.backing, &found.source) {
            (Backing::File { ino, .. }, Source::File { ino: theirs, .. }) => ino == *theirs,
            (Backing::Region(index), Source::Region(theirs)) => index == *theirs,
            _ => false,
        };
        // Whoever comes by a path or to a region may spell it in many ways.
        same && self.by_path == found.by_path()
            && (self.path_or_region() || self.name == found.name)
    }

    fn path_or_region(&self) -> bool {
        self.by_path || matches!(self.backing, Backing::Region(_))
    }
}
