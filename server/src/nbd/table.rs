//! The exports that were added, kept in the volume.
//!
//! They are in the file [`PATH`]: one CBOR map with key 0, a list of the bodies of the `export-add`
//! requests that made them. A change replaces the whole content at once, so it happens whole or not
//! at all; on a full volume a shorter list takes blocks of the reserve. Nothing of it is kept in
//! memory: who copies the volume copies its exports, and who restores an old file has the old
//! exports.

use crate::platform::Platform;
use alloc::string::String;
use alloc::vec::Vec;
use umbra_fs::memory::{copy, copy_text, filled, push};
use umbra_fs::{Error, Kind};
use umbra_proto::rpc::{self, ExportAdd};

/// The folder of what the server keeps for itself.
const FOLDER: &[u8] = b".umbra";
/// The file.
pub const PATH: &[u8] = b"/.umbra/exports";
const NAME: &[u8] = b"exports";
/// Largest size of the file.
const MAX_SIZE: u64 = 128 << 10;

/// An export that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its name.
    pub name: String,
    /// The file.
    pub path: Vec<u8>,
    /// Clients may not write.
    pub read_only: bool,
    /// The size, if it was fixed.
    pub size: Option<u64>,
}

/// What cannot be read as a table.
const DAMAGED: Error =
    Error::Invalid("the file /.umbra/exports is not a list of exports; remove it to have none");

/// Most bytes that an export takes in the list beside its name and path, and the list beside its
/// exports.
const MOST_BESIDE: usize = 64;
/// A list that is too long.
const TOO_MANY: Error =
    Error::Invalid("there are too many exports: their list is limited to 128 KiB");

/// The exports that were added.
///
/// # Errors
///
/// Those of the filesystem; the file is none of ours; there is no memory for the list.
pub fn read<M: Platform>(machine: &mut M) -> umbra_fs::Result<Vec<Added>> {
    let found = machine.volume(|v| match v.resolve(PATH) {
        Ok(ino) => v.attributes(ino).map(Some),
        Err(Error::NotFound) => Ok(None),
        Err(e) => Err(e),
    })?;
    let Some(found) = found.filter(|found| found.size > 0) else { return Ok(Vec::new()) };
    if found.kind != Kind::File || found.size > MAX_SIZE {
        return Err(DAMAGED);
    }
    let size = found.size as usize;
    // The bytes, what is decoded of them, and what is made of that.
    if !machine.has_memory(4 * size) {
        return Err(Error::NoMemory);
    }
    let mut bytes = filled(size, 0)?;
    machine.volume(|v| v.read(found.ino, 0, &mut bytes))?;
    let mut all = Vec::new();
    rpc::decode_items(&bytes, |e: ExportAdd<'_>| {
        let (name, path) = (copy_text(e.name)?, copy(e.path)?);
        push(&mut all, Added { name, path, read_only: e.read_only, size: e.size })
    })
    .map_err(|_| DAMAGED)??;
    Ok(all)
}

/// The bytes of a list of exports.
///
/// # Errors
///
/// There are too many exports, or there is no memory for their list.
pub fn encode(table: &[Added]) -> umbra_fs::Result<Vec<u8>> {
    let most = table.iter().map(|e| MOST_BESIDE + e.name.len() + e.path.len()).sum::<usize>();
    let mut bytes = filled(MOST_BESIDE + most, 0)?;
    let items = table.iter().map(|e| ExportAdd {
        name: &e.name,
        path: &e.path,
        read_only: e.read_only,
        size: e.size,
        replace: false,
    });
    let len = rpc::encode_items(items, &mut bytes).ok_or(TOO_MANY)?;
    if len as u64 > MAX_SIZE {
        return Err(TOO_MANY);
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Replaces the exports by those of an [encoded](encode) list; durable at return.
///
/// # Errors
///
/// Those of the filesystem.
pub fn write<M: Platform>(machine: &mut M, encoded: &[u8]) -> umbra_fs::Result<()> {
    let now = machine.now();
    machine.volume(|v| {
        let root = v.root();
        let folder = match v.lookup(root, FOLDER) {
            Err(Error::NotFound) => v.mkdir(root, FOLDER, 0o755, now)?,
            found => found?,
        };
        let file = match v.lookup(folder, NAME) {
            Err(Error::NotFound) => v.create(folder, NAME, 0o644, now)?,
            found => found?,
        };
        v.replace_content(file, encoded, now)
    })
}
