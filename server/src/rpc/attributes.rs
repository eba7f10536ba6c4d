//! Kinds and attributes of inodes, as they are on the wire.

use umbra_fs::{Attributes, Kind};
use umbra_proto::rpc;

/// The number of a kind on the wire.
pub fn kind(kind: Kind) -> rpc::Kind {
    match kind {
        Kind::File => rpc::kind::FILE,
        Kind::Directory => rpc::kind::DIRECTORY,
        Kind::Symlink => rpc::kind::SYMLINK,
    }
}

/// Attributes on the wire.
pub fn attributes(a: Attributes, blocks: Option<u64>) -> rpc::Attributes {
    rpc::Attributes {
        ino: a.ino.0,
        kind: kind(a.kind),
        mode: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        size: a.size,
        mtime: a.mtime.0,
        ctime: a.ctime.0,
        atime: a.atime.0,
        btime: a.btime.0,
        blocks,
    }
}
