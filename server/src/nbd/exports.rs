//! Which exports there are.
//!
//! A client names an export in one of three ways, looked at in this order: the name of one that was
//! added; `nvdimm:N`, the region N of the machine's list, if it holds no volume; the path of a
//! file. The empty name is the only export that was added, if there is just one.

use super::table::{self, Added};
use crate::platform::Platform;
use crate::text::Shown;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use umbra_fs::{Error, Ino, Kind};

/// What is before the number in the name of a region.
const REGION: &[u8] = b"nvdimm:";

/// An export that was found.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    File {
        /// Its inode.
        ino: Ino,
        /// The path that led there.
        path: Vec<u8>,
        /// The client gave the path, not the name of an export that was added.
        by_path: bool,
    },
    /// An NVDIMM region, by its number.
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

/// Finds the export of a name.
pub fn find<M: Platform>(machine: &mut M, name: &[u8]) -> Result<Found, NoExport> {
    let table = table::read(machine).map_err(|e| NoExport::Unusable(format!("{e}")))?;
    let added = match (name, table.as_slice()) {
        (b"", [only]) => Some(only),
        (b"", []) => {
            return Err(NoExport::Unknown(
                "no export was added, so there is none by default".into(),
            ));
        }
        (b"", _) => {
            return Err(NoExport::Unknown(
                "there are several exports, so one has to be named".into(),
            ));
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

/// The inode that a path leads to.
pub fn find_path<M: Platform>(machine: &mut M, path: &[u8]) -> umbra_fs::Result<Ino> {
    machine.volume(|v| v.resolve(path))
}

/// What an export that was added leads to.
pub fn file_of<M: Platform>(machine: &mut M, added: &Added) -> Result<Found, NoExport> {
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
    let found = find_path(machine, &path).and_then(|ino| machine.volume(|v| v.attributes(ino)));
    let found = match found {
        Ok(found) if found.kind == Kind::File => found,
        Ok(_) => return Err(NoExport::Unusable(format!("{} is not a file", Shown(&path)))),
        Err(
            e @ (Error::NotFound | Error::NotDirectory | Error::NameTooLong | Error::InvalidName),
        ) => {
            return Err(NoExport::Unknown(format!("cannot serve {}: {e}", Shown(&path))));
        }
        Err(e) => return Err(NoExport::Unusable(format!("cannot serve {}: {e}", Shown(&path)))),
    };
    match fixed {
        Some(size) if size > found.size => Err(NoExport::Unusable(format!(
            "{} has only {} of the {size} bytes of the export",
            Shown(&path),
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
    let number =
        name.strip_prefix(REGION).and_then(|n| core::str::from_utf8(n).ok()?.parse::<usize>().ok());
    let Some(index) = number else {
        return Err(NoExport::Unknown(format!(
            "{} is no NVDIMM region: it has no number",
            Shown(name)
        )));
    };
    let regions = machine.nvdimms();
    let why = match regions.get(index) {
        None => {
            let count = regions.len();
            return Err(NoExport::Unknown(format!(
                "there is no {}: regions here: {count}",
                Shown(name)
            )));
        }
        Some(region) if region.served => "the volume is on it".into(),
        Some(region) => match &region.problem {
            Some(problem) => problem.clone(),
            None => "it holds a volume of its own, which is left alone".into(),
        },
    };
    match machine.device(index).map(|device| umbra_fs::Pmem::len(device)) {
        Some(size) => {
            let name = format!("nvdimm:{index}").into_bytes();
            Ok(Found { name, size, read_only: false, source: Source::Region(index) })
        }
        None => Err(NoExport::Unusable(format!("cannot serve {}: {why}", Shown(name)))),
    }
}

impl Found {
    /// A line for people.
    pub fn description(&self) -> String {
        match &self.source {
            Source::File { path, .. } if self.read_only => {
                format!("file {}, read-only", Shown(path))
            }
            Source::File { path, .. } => format!("file {}", Shown(path)),
            Source::Region(_) => String::from("a whole NVDIMM region"),
        }
    }

    /// The client gave the path of a file, not the name of an export that was added.
    pub fn by_path(&self) -> bool {
        matches!(self.source, Source::File { by_path: true, .. })
    }

    /// The inode of its file.
    pub fn ino(&self) -> Option<Ino> {
        match self.source {
            Source::File { ino, .. } => Some(ino),
            Source::Region(_) => None,
        }
    }
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

/// The NVDIMM regions that can be served.
pub fn regions<M: Platform>(machine: &mut M) -> Vec<Found> {
    let count = machine.nvdimms().len();
    let names = (0..count).map(|index| format!("nvdimm:{index}"));
    names.filter_map(|name| region_of(machine, name.as_bytes()).ok()).collect()
}
