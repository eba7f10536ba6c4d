//! Which exports there are.
//!
//! A client names an export in one of three ways, looked at in this order: the name of one that was
//! added; `nvdimm:N`, the region N of the machine's list, if it holds no volume; the path of a
//! file. The empty name is the only export that was added, if there is just one.

use super::table::{self, Added};
use crate::platform::Platform;
use crate::text::{Message, Shown, write_text};
use alloc::vec::Vec;
use core::fmt;
use umbra_fs::memory::{copy, push};
use umbra_fs::{Error, Ino, Kind};

/// What is before the number in the name of a region.
const REGION: &[u8] = b"nvdimm:";
/// Longest name of a region in bytes.
const REGION_NAME: usize = 32;

/// An export that was found.
#[derive(Debug)]
pub struct Found {
    /// As the client would have to give it.
    pub name: Vec<u8>,
    /// Bytes that clients see.
    pub size: u64,
    /// Clients may not write.
    pub read_only: bool,
    /// What it leads to.
    pub source: Source,
}

/// What an export leads to.
#[derive(Debug)]
pub enum Source {
    /// A file.
    File {
        /// Its inode.
        ino: Ino,
        /// The path that led there.
        path: Vec<u8>,
        /// Whether the client gave the path, not the name of an export that was added.
        by_path: ByPath,
    },
    /// An NVDIMM region, by its number.
    Region(usize),
}

/// Whether a client gave the path of a file, not the name of an export that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByPath {
    /// The path.
    Yes,
    /// The name.
    No,
}

/// Why there is no such export.
#[derive(Debug)]
pub enum NoExport {
    /// Nothing has this name.
    Unknown(Message),
    /// Something has, but it cannot be served.
    Unusable(Message),
}

impl fmt::Display for NoExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (NoExport::Unknown(why) | NoExport::Unusable(why)) = self;
        why.fmt(f)
    }
}

impl From<Error> for NoExport {
    fn from(error: Error) -> Self {
        unusable(format_args!("{error}"))
    }
}

fn unknown(why: fmt::Arguments<'_>) -> NoExport {
    NoExport::Unknown(Message::new(why))
}

fn unusable(why: fmt::Arguments<'_>) -> NoExport {
    NoExport::Unusable(Message::new(why))
}

/// Finds the export of a name.
///
/// # Errors
///
/// There is none, it cannot be served, or there is no memory to say where it is.
pub fn find<M: Platform>(machine: &mut M, name: &[u8]) -> Result<Found, NoExport> {
    let table = table::read(machine)?;
    let added = match (name, table.as_slice()) {
        (b"", [only]) => Some(only),
        (b"", []) => {
            return Err(unknown(format_args!("no export was added, so there is none by default")));
        }
        (b"", _) => {
            return Err(unknown(format_args!("there are several exports, so one has to be named")));
        }
        _ => table.iter().find(|e| e.name.as_bytes() == name),
    };
    match added {
        Some(added) => file_of(machine, added),
        None if name.starts_with(REGION) => region_of(machine, name),
        None => {
            let by_path = ByPath::Yes;
            path_of(machine, Sought { name, path: name, size: None, read_only: false, by_path })
        }
    }
}

/// The inode that a path leads to.
///
/// # Errors
///
/// Those of [`umbra_fs::Volume::resolve`].
pub fn find_path<M: Platform>(machine: &mut M, path: &[u8]) -> umbra_fs::Result<Ino> {
    machine.volume(|v| v.resolve(path))
}

/// What an export that was added leads to.
///
/// # Errors
///
/// It leads to no file, or to one that is too short.
pub fn file_of<M: Platform>(machine: &mut M, added: &Added) -> Result<Found, NoExport> {
    let Added { name, path, read_only, size } = added;
    let (size, read_only, by_path) = (*size, *read_only, ByPath::No);
    path_of(machine, Sought { name: name.as_bytes(), path, size, read_only, by_path })
}

/// A file that is to be served.
struct Sought<'a> {
    name: &'a [u8],
    path: &'a [u8],
    /// The size, if it was fixed.
    size: Option<u64>,
    read_only: bool,
    by_path: ByPath,
}

fn path_of<M: Platform>(machine: &mut M, sought: Sought<'_>) -> Result<Found, NoExport> {
    let Sought { name, path, size: fixed, read_only, by_path } = sought;
    let found = find_path(machine, path).and_then(|ino| machine.volume(|v| v.attributes(ino)));
    let found = match found {
        Ok(found) if found.kind == Kind::File => found,
        Ok(_) => return Err(unusable(format_args!("{} is not a file", Shown(path)))),
        Err(
            e @ (Error::NotFound | Error::NotDirectory | Error::NameTooLong | Error::InvalidName),
        ) => return Err(unknown(format_args!("cannot serve {}: {e}", Shown(path)))),
        Err(e) => return Err(unusable(format_args!("cannot serve {}: {e}", Shown(path)))),
    };
    match fixed {
        Some(size) if size > found.size => Err(unusable(format_args!(
            "{} has only {} of the {size} bytes of the export",
            Shown(path),
            found.size
        ))),
        _ => Ok(Found {
            name: copy(name)?,
            size: fixed.unwrap_or(found.size),
            read_only,
            source: Source::File { ino: found.ino, path: copy(path)?, by_path },
        }),
    }
}

fn region_of<M: Platform>(machine: &mut M, name: &[u8]) -> Result<Found, NoExport> {
    let number =
        name.strip_prefix(REGION).and_then(|n| core::str::from_utf8(n).ok()?.parse::<usize>().ok());
    let Some(index) = number else {
        let shown = Shown(name);
        return Err(unknown(format_args!("{shown} is no NVDIMM region: it has no number")));
    };
    if let Some(size) = machine.device(index).map(|device| umbra_fs::Pmem::len(device)) {
        let name = copy(region_name(index, &mut [0; REGION_NAME]))?;
        return Ok(Found { name, size, read_only: false, source: Source::Region(index) });
    }
    let regions = machine.nvdimms();
    let why = match regions.get(index) {
        None => {
            let (shown, count) = (Shown(name), regions.len());
            return Err(unknown(format_args!("there is no {shown}: regions here: {count}")));
        }
        Some(region) if region.served => "the volume is on it",
        Some(region) => match &region.problem {
            Some(problem) => problem,
            None => "it holds a volume of its own, which is left alone",
        },
    };
    Err(unusable(format_args!("cannot serve {}: {why}", Shown(name))))
}

/// The name of a region.
fn region_name(index: usize, into: &mut [u8; REGION_NAME]) -> &[u8] {
    write_text(into, format_args!("nvdimm:{index}")).as_bytes()
}

impl Found {
    /// A line for people.
    pub fn description(&self) -> Message {
        match &self.source {
            Source::File { path, .. } if self.read_only => {
                Message::new(format_args!("file {}, read-only", Shown(path)))
            }
            Source::File { path, .. } => Message::new(format_args!("file {}", Shown(path))),
            Source::Region(_) => Message::new(format_args!("a whole NVDIMM region")),
        }
    }

    /// The client gave the path of a file, not the name of an export that was added.
    pub fn by_path(&self) -> bool {
        matches!(self.source, Source::File { by_path: ByPath::Yes, .. })
    }

    /// The inode of its file.
    pub fn ino(&self) -> Option<Ino> {
        match self.source {
            Source::File { ino, .. } => Some(ino),
            Source::Region(_) => None,
        }
    }
}

/// What a client is offered: exports that were added, and regions.
///
/// # Errors
///
/// The list in the volume cannot be read, or there is no memory for it.
pub fn offers<M: Platform>(machine: &mut M) -> umbra_fs::Result<Vec<Found>> {
    let mut offers = Vec::new();
    for added in table::read(machine)? {
        if let Ok(found) = file_of(machine, &added) {
            push(&mut offers, found)?;
        }
    }
    for region in regions(machine)? {
        push(&mut offers, region)?;
    }
    Ok(offers)
}

/// The NVDIMM regions that can be served.
///
/// # Errors
///
/// There is no memory for the list.
pub fn regions<M: Platform>(machine: &mut M) -> umbra_fs::Result<Vec<Found>> {
    let mut all = Vec::new();
    for index in 0..machine.nvdimms().len() {
        if let Ok(found) = region_of(machine, region_name(index, &mut [0; REGION_NAME])) {
            push(&mut all, found)?;
        }
    }
    Ok(all)
}
