//! The exports that were added, kept in the volume.
//!
//! They are in the file [`PATH`]: one CBOR map with key 0, a list of the bodies of the `export-add`
//! requests that made them. A change replaces the whole content at once, so it happens whole or not
//! at all; on a full volume a shorter list takes blocks of the reserve. Nothing of it is kept in
//! memory: who copies the volume copies its exports, and who restores an old file has the old
//! exports.

use crate::platform::Platform;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use umbra_fs::{Error, Kind};
use umbra_proto::rpc::{self, ExportAdd, Items};

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

/// The exports that were added.
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
    let mut bytes = vec![0; size];
    machine.volume(|v| v.read(found.ino, 0, &mut bytes))?;
    let items: Items<ExportAdd<'_>> = rpc::decode(&bytes).map_err(|_| DAMAGED)?;
    Ok(items
        .items
        .iter()
        .map(|e| Added {
            name: e.name.into(),
            path: e.path.to_vec(),
            read_only: e.read_only,
            size: e.size,
        })
        .collect())
}

/// Replaces the exports; durable at return.
pub fn write<M: Platform>(machine: &mut M, table: &[Added]) -> umbra_fs::Result<()> {
    let items = table.iter().map(|e| ExportAdd {
        name: &e.name,
        path: &e.path,
        read_only: e.read_only,
        size: e.size,
        replace: false,
    });
    let mut bytes = Vec::new();
    rpc::encode_append(&Items { items: items.collect() }, &mut bytes);
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Error::Invalid("there are too many exports: their list is limited to 128 KiB"));
    }
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
        v.replace_content(file, &bytes, now)
    })
}
