//! Methods about exports: what NBD serves under a name of its own.
//!
//! Any file can be reached over NBD by its path. An export gives one a name, and can make it
//! read-only or fix its size. Exports are kept in the volume.

use super::method::request;
use super::{Done, Items, owned};
use minicbor::{Decode, Encode};

/// Longest name of an export in bytes.
pub const MAX_EXPORT_NAME: usize = 255;

/// Adds an export, or replaces one that nobody uses. This is also how each is kept in the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExportAdd<'a> {
    /// The name that clients use: text without NUL.
    #[b(0)]
    pub name: &'a str,
    /// The file. It must exist.
    #[cbor(b(1), with = "minicbor::bytes")]
    pub path: &'a [u8],
    /// Clients may not write.
    #[n(2)]
    #[cbor(default)]
    pub read_only: bool,
    /// Size in bytes, whatever the file's: a shorter file is made longer now, of a longer one only
    /// the front is served. Absent: the size that the file has when a client connects.
    #[n(3)]
    pub size: Option<u64>,
    /// Replace an export of this name.
    #[n(4)]
    #[cbor(default)]
    pub replace: bool,
}
request!(ExportAdd<'_>, EXPORT_ADD, Done);

/// Removes an export. The file stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExportRemove<'a> {
    /// Its name.
    #[b(0)]
    pub name: &'a str,
    /// End the connections of all clients that came by this name, whether an export has it or it is
    /// the path of a file.
    #[n(1)]
    #[cbor(default)]
    pub force: bool,
}
request!(ExportRemove<'_>, EXPORT_REMOVE, ExportRemoved);

/// An export was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExportRemoved {
    /// Clients whose connections were ended.
    #[n(0)]
    #[cbor(default)]
    pub evicted: u32,
}

/// Lists exports: those that were added, files that clients use by their path, and NVDIMM
/// regions that hold no volume. The answer is one or more frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExportList {}
request!(ExportList, EXPORT_LIST, Items<Export>);

/// An export.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Export {
    /// The name that clients use.
    #[cbor(n(0), with = "owned::text")]
    pub name: alloc::string::String,
    /// The file; absent for an NVDIMM region.
    #[cbor(n(1), with = "owned::optional_bytes", has_nil)]
    pub path: Option<alloc::vec::Vec<u8>>,
    /// Clients may not write.
    #[n(2)]
    #[cbor(default)]
    pub read_only: bool,
    /// Size in bytes that clients see; absent if there is a problem.
    #[n(3)]
    pub size: Option<u64>,
    /// The size was fixed.
    #[n(4)]
    #[cbor(default)]
    pub fixed_size: bool,
    /// Connections that came by this name, and hold the file that it leads to.
    #[n(5)]
    #[cbor(default)]
    pub clients: u32,
    /// It was not added: it is a file that clients use by its path, and is listed as long as they
    /// do.
    #[n(6)]
    #[cbor(default)]
    pub by_path: bool,
    /// Why no client can use it.
    #[cbor(n(7), with = "owned::optional_text", has_nil)]
    pub problem: Option<alloc::string::String>,
    /// Clients hold a file to which the name no longer leads: the file was renamed, or the export
    /// changed.
    #[n(8)]
    #[cbor(default)]
    pub moved: bool,
    /// The inode of the file; absent for an NVDIMM region, and if there is a problem.
    #[n(9)]
    pub ino: Option<u64>,
}

/// Lists the clients of all exports. The answer is one or more frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExportClients {}
request!(ExportClients, EXPORT_CLIENTS, Items<ExportClient>);

/// A client of an export: a connection.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExportClient {
    /// The name of the export, as the list of exports has it.
    #[cbor(n(0), with = "owned::text")]
    pub name: alloc::string::String,
    /// The name is the path of a file, and no export was added for it.
    #[n(1)]
    #[cbor(default)]
    pub by_path: bool,
    /// The inode of the file that it holds; absent for an NVDIMM region.
    #[n(2)]
    pub ino: Option<u64>,
    /// When it chose the export.
    #[n(3)]
    pub since: i64,
    /// Context id of its end of the connection.
    #[n(4)]
    pub cid: Option<u64>,
    /// Port of its end of the connection.
    #[n(5)]
    pub port: Option<u32>,
    /// It may not write.
    #[n(6)]
    #[cbor(default)]
    pub read_only: bool,
    /// Size in bytes of the disk that it sees.
    #[n(7)]
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn an_export_and_back() {
        let export = Export {
            name: "golden".into(),
            path: Some(b"/g".to_vec()),
            read_only: true,
            size: Some(5),
            fixed_size: false,
            clients: 2,
            by_path: false,
            problem: None,
            moved: false,
            ino: Some(9),
        };
        let mut bytes = Vec::new();
        crate::rpc::encode_append(&export, &mut bytes);
        assert_eq!(crate::rpc::decode::<Export>(&bytes).unwrap(), export);
        let region = Export { path: None, ino: None, ..export };
        bytes.clear();
        crate::rpc::encode_append(&region, &mut bytes);
        assert_eq!(crate::rpc::decode::<Export>(&bytes).unwrap(), region);
    }
}
