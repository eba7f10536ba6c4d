//! Which exports there are, and who uses them.
//!
//! A client names an export in one of three ways, looked at in this order: the name of one that was
//! added; `nvdimm:N`, the region N of the machine's list, if it holds no volume; the path of a file.
//! The empty name is the only export that was added, if there is just one.

use super::table::{self, Added};
use super::target::Target;
use crate::platform::Platform;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use umbra_fs::{Begun, Error, Ino, Kind, Operation};
use umbra_proto::rpc;

/// What is before the number in the name of a region.
const REGION: &[u8] = b"nvdimm:";

/// The exports that clients use, of all connections.
#[derive(Default)]
pub struct Exports {
    used: Vec<Used>,
}

impl Exports {
    /// How many there are.
    pub fn in_use(&self) -> usize {
        self.used.len()
    }
}

/// An export in use. All connections to it share its window.
struct Used {
    name: Vec<u8>,
    by_path: bool,
    target: Target,
    clients: u32,
}

/// An export that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// As the client would have to give it.
    pub name: Vec<u8>,
    /// Bytes that clients see.
    pub size: u64,
    /// Clients may not write.
    pub read_only: bool,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    File { ino: Ino, path: Vec<u8>, by_path: bool },
    Region(usize),
}

/// Why there is no such export.
#[derive(Debug, PartialEq, Eq)]
pub enum NoExport {
    /// Nothing has this name.
    Unknown(String),
    /// Something has, but it cannot be served.
    Unusable(String),
}

impl fmt::Display for NoExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (NoExport::Unknown(why) | NoExport::Unusable(why)) = self;
        f.write_str(why)
    }
}

fn shown(name: &[u8]) -> crate::rpc::Shown<'_> {
    crate::rpc::Shown(name)
}

/// Finds the export of a name.
pub fn find<M: Platform>(machine: &mut M, name: &[u8]) -> Result<Found, NoExport> {
    let table = table::read(machine).map_err(|e| NoExport::Unusable(format!("{e}")))?;
    let added = match (name, table.as_slice()) {
        (b"", [only]) => Some(only),
        (b"", []) => {
            return Err(NoExport::Unknown("no export was added, so there is none by default".into()));
        }
        (b"", _) => {
            return Err(NoExport::Unknown("there are several exports, so one has to be named".into()));
        }
        _ => table.iter().find(|e| e.name.as_bytes() == name),
    };
    match added {
        Some(added) => file_of(machine, added),
        None if name.starts_with(REGION) => region_of(machine, name),
        None => {
            let path = name.to_vec();
            path_of(machine, name, path, None, false, true)
        }
    }
}

fn file_of<M: Platform>(machine: &mut M, added: &Added) -> Result<Found, NoExport> {
    let Added { name, path, read_only, size } = added;
    path_of(machine, name.as_bytes(), path.clone(), *size, *read_only, false)
}

fn path_of<M: Platform>(
    machine: &mut M,
    name: &[u8],
    path: Vec<u8>,
    fixed: Option<u64>,
    read_only: bool,
    by_path: bool,
) -> Result<Found, NoExport> {
    let found = machine.volume(|v| v.resolve(&path).and_then(|ino| v.attributes(ino)));
    let found = match found {
        Ok(found) if found.kind == Kind::File => found,
        Ok(_) => return Err(NoExport::Unusable(format!("{} is not a file", shown(&path)))),
        Err(e @ (Error::NotFound | Error::NotDirectory | Error::NameTooLong | Error::InvalidName)) => {
            return Err(NoExport::Unknown(format!("cannot serve {}: {e}", shown(&path))));
        }
        Err(e) => return Err(NoExport::Unusable(format!("cannot serve {}: {e}", shown(&path)))),
    };
    match fixed {
        Some(size) if size > found.size => Err(NoExport::Unusable(format!(
            "{} has only {} of the {size} bytes of the export",
            shown(&path),
            found.size
        ))),
        _ => Ok(Found {
            name: name.to_vec(),
            size: fixed.unwrap_or(found.size),
            read_only,
            source: Source::File { ino: found.ino, path, by_path },
        }),
    }
}

fn region_of<M: Platform>(machine: &mut M, name: &[u8]) -> Result<Found, NoExport> {
    let number = name.strip_prefix(REGION).and_then(|n| core::str::from_utf8(n).ok()?.parse::<usize>().ok());
    let Some(index) = number else {
        return Err(NoExport::Unknown(format!("{} is no NVDIMM region: it has no number", shown(name))));
    };
    let regions = machine.nvdimms();
    let why = match regions.get(index) {
        None => {
            let count = regions.len();
            return Err(NoExport::Unknown(format!("there is no {}: regions here: {count}", shown(name))));
        }
        Some(region) if region.served => "the volume is on it".into(),
        Some(region) => match &region.problem {
            Some(problem) => problem.clone(),
            None => "it holds a volume of its own, which is left alone".into(),
        },
    };
    match machine.device(index).map(|device| umbra_fs::Pmem::len(device)) {
        Some(size) => {
            Ok(Found { name: name.to_vec(), size, read_only: false, source: Source::Region(index) })
        }
        None => Err(NoExport::Unusable(format!("cannot serve {}: {why}", shown(name)))),
    }
}

impl Found {
    /// A line for people.
    pub fn description(&self) -> String {
        match &self.source {
            Source::File { path, .. } if self.read_only => format!("file {}, read-only", shown(path)),
            Source::File { path, .. } => format!("file {}", shown(path)),
            Source::Region(_) => String::from("a whole NVDIMM region"),
        }
    }

    /// Uses the export for another connection: opens its window, unless it is open already.
    pub fn open<M: Platform>(&self, machine: &mut M) -> Result<Target, Error> {
        let this = |target: &Target| match (target, &self.source) {
            (Target::File { ino, .. }, Source::File { ino: mine, .. }) => ino == mine,
            (Target::Region(index), Source::Region(mine)) => index == mine,
            _ => false,
        };
        let used = &mut machine.exports().used;
        if let Some(used) = used.iter_mut().find(|used| used.name == self.name && this(&used.target)) {
            used.clients += 1;
            return Ok(used.target);
        }
        let (target, by_path) = match self.source {
            Source::File { ino, by_path, .. } => {
                (Target::File { ino, window: machine.volume(|v| v.open_window(ino))? }, by_path)
            }
            Source::Region(index) => (Target::Region(index), false),
        };
        machine.exports().used.push(Used { name: self.name.clone(), by_path, target, clients: 1 });
        Ok(target)
    }
}

/// A connection no longer uses a target. For the last one, returns what goes on closing its window: what was
/// stored through that is durable then.
pub fn close<M: Platform>(machine: &mut M, target: Target) -> Option<Operation> {
    let used = &mut machine.exports().used;
    let at = used.iter().position(|used| used.target == target)?;
    used[at].clients -= 1;
    if used[at].clients > 0 {
        return None;
    }
    used.swap_remove(at);
    match target {
        // Nobody is left to be told of an error.
        Target::File { window, .. } => match machine.volume(|v| v.begin_close(window)) {
            Ok(Begun::GoesOn(operation)) => Some(operation),
            Ok(Begun::Over(_)) | Err(_) => None,
        },
        Target::Region(_) => None,
    }
}

/// Who uses a file: a text, if anybody does.
pub fn users<M: Platform>(machine: &mut M, file: Ino) -> Option<String> {
    let mut text: Option<String> = None;
    for used in &machine.exports().used {
        if matches!(used.target, Target::File { ino, .. } if ino == file) {
            let who = format!(
                "{} NBD client{} of the export {}",
                used.clients,
                plural(used.clients),
                shown(&used.name)
            );
            match &mut text {
                None => text = Some(format!("it is in use by {who}")),
                Some(text) => {
                    text.push_str(" and ");
                    text.push_str(&who);
                }
            }
        }
    }
    text
}

fn plural(n: u32) -> &'static str {
    if n == 1 { "" } else { "s" }
}

/// How many clients use the export of a name.
pub fn clients<M: Platform>(machine: &mut M, name: &[u8]) -> u32 {
    machine.exports().used.iter().filter(|used| used.name == name).map(|used| used.clients).sum()
}

/// Names and descriptions of what a client is offered: exports that were added, and regions.
pub fn offers<M: Platform>(machine: &mut M) -> umbra_fs::Result<Vec<Found>> {
    let mut offers = Vec::new();
    for added in table::read(machine)? {
        offers.extend(file_of(machine, &added));
    }
    offers.extend(regions(machine));
    Ok(offers)
}

fn regions<M: Platform>(machine: &mut M) -> Vec<Found> {
    let count = machine.nvdimms().len();
    let names = (0..count).map(|index| format!("nvdimm:{index}"));
    names.filter_map(|name| region_of(machine, name.as_bytes()).ok()).collect()
}

/// Everything that `export-list` lists.
pub fn list<M: Platform>(machine: &mut M) -> umbra_fs::Result<Vec<rpc::Export>> {
    let mut all = Vec::new();
    for added in table::read(machine)? {
        let found = file_of(machine, &added);
        all.push(rpc::Export {
            clients: clients(machine, added.name.as_bytes()),
            size: found.as_ref().ok().map(|found| found.size),
            problem: found.err().map(|why| format!("{why}")),
            fixed_size: added.size.is_some(),
            name: added.name,
            path: Some(added.path),
            read_only: added.read_only,
            by_path: false,
        });
    }
    let by_path: Vec<Vec<u8>> =
        machine.exports().used.iter().filter(|used| used.by_path).map(|used| used.name.clone()).collect();
    for name in by_path {
        let found = path_of(machine, &name, name.clone(), None, false, true);
        all.push(listed(machine, &name, found, Some(name.clone())));
    }
    for found in regions(machine) {
        let name = found.name.clone();
        all.push(listed(machine, &name, Ok(found), None));
    }
    Ok(all)
}

fn listed<M: Platform>(
    machine: &mut M,
    name: &[u8],
    found: Result<Found, NoExport>,
    path: Option<Vec<u8>>,
) -> rpc::Export {
    rpc::Export {
        name: String::from_utf8_lossy(name).into_owned(),
        by_path: path.is_some(),
        path,
        read_only: false,
        size: found.as_ref().ok().map(|found| found.size),
        fixed_size: false,
        clients: clients(machine, name),
        problem: found.err().map(|why| format!("{why}")),
    }
}
