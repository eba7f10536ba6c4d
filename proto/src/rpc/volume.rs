//! Methods about names, attributes and space.
//!
//! Paths are byte strings that start at the root, `/` between the names; empty names and
//! `.` are skipped and `..` goes up. Where a request has both `path` and `handle`, exactly
//! one is given.

use super::method::request;
use super::{Done, Items, owned};
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// Asks for the space of the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Space {}
request!(Space, SPACE, SpaceResponse);

/// Space of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SpaceResponse {
    /// Bytes in a block.
    #[n(0)]
    pub block_size: u32,
    /// Blocks that can hold content and what describes it.
    #[n(1)]
    pub blocks_total: u64,
    /// Free blocks, the reserve included. Those still being reclaimed are not free yet.
    #[n(2)]
    pub blocks_free: u64,
    /// Blocks that more than one reference leads to directly.
    #[n(3)]
    pub blocks_shared: u64,
    /// Inodes in use.
    #[n(4)]
    pub inodes: u64,
    /// Free blocks that content can have, with what describes it: those of `blocks_free` without
    /// the reserve, and without those that are still being reclaimed.
    #[n(5)]
    pub blocks_available: Option<u64>,
}

/// What an inode is, as a number: [`kind::FILE`] and so on.
pub type Kind = u8;

/// The values of [`Kind`].
pub mod kind {
    /// A regular file.
    pub const FILE: u8 = 1;
    /// A directory.
    pub const DIRECTORY: u8 = 2;
    /// A symbolic link.
    pub const SYMLINK: u8 = 3;
}

/// Asks for the attributes of a path or an open file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stat<'a> {
    /// Either this,
    #[cbor(b(0), with = "super::method::optional_bytes", has_nil)]
    pub path: Option<&'a [u8]>,
    /// or this.
    #[n(1)]
    pub handle: Option<u32>,
    /// Also count the blocks, which takes time by the size of the file.
    #[n(2)]
    #[cbor(default)]
    pub blocks: bool,
}
request!(Stat<'_>, STAT, Attributes);

/// The attributes of an inode. Times are nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attributes {
    /// Number of the inode.
    #[n(0)]
    pub ino: u64,
    /// What it is.
    #[n(1)]
    pub kind: Kind,
    /// Permission bits (0o7777).
    #[n(2)]
    pub mode: u16,
    /// Names that refer to it.
    #[n(3)]
    pub nlink: u32,
    /// Owner.
    #[n(4)]
    pub uid: u32,
    /// Group.
    #[n(5)]
    pub gid: u32,
    /// Size in bytes.
    #[n(6)]
    pub size: u64,
    /// Last change of content.
    #[n(7)]
    pub mtime: i64,
    /// Last change of the inode.
    #[n(8)]
    pub ctime: i64,
    /// Last access, as far as it is kept.
    #[n(9)]
    pub atime: i64,
    /// Creation.
    #[n(10)]
    pub btime: i64,
    /// Blocks that the content refers to, shared ones counted in full; where asked for.
    #[n(11)]
    pub blocks: Option<u64>,
}

/// Lists a directory. The answer is one or more frames. What is added or removed
/// meanwhile may or may not be in it; what is there all the time is in it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct List<'a> {
    /// The directory.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub path: &'a [u8],
    /// Start behind the entry with this cookie; 0 or absent: at the start.
    #[n(1)]
    #[cbor(default)]
    pub cookie: u64,
    /// At most so many entries; absent: all.
    #[n(2)]
    pub max: Option<u64>,
    /// With the attributes of each.
    #[n(3)]
    #[cbor(default)]
    pub attributes: bool,
}
request!(List<'_>, LIST, Items<Entry>);

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    /// Its name: 1 to 255 bytes without `/` and NUL.
    #[cbor(n(0), with = "owned::bytes")]
    pub name: Vec<u8>,
    /// The inode.
    #[n(1)]
    pub ino: u64,
    /// What that is.
    #[n(2)]
    pub kind: Kind,
    /// To go on behind this entry. Never 0.
    #[n(3)]
    pub cookie: u64,
    /// Attributes, where asked for.
    #[n(4)]
    pub attributes: Option<Attributes>,
}

/// As [`Entry`], for a sender that has the name elsewhere.
#[derive(Clone, Copy, Debug, Encode)]
#[cbor(map)]
pub struct EntryRef<'a> {
    /// Its name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: &'a [u8],
    /// The inode.
    #[n(1)]
    pub ino: u64,
    /// What that is.
    #[n(2)]
    pub kind: Kind,
    /// To go on behind this entry.
    #[n(3)]
    pub cookie: u64,
    /// Attributes, where asked for.
    #[n(4)]
    pub attributes: Option<Attributes>,
}

/// Creates an empty file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Create<'a> {
    /// Where.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub path: &'a [u8],
    /// Permission bits; absent: 0o644.
    #[n(1)]
    pub mode: Option<u16>,
}
request!(Create<'_>, CREATE, Created);

/// Creates a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MakeDirectory<'a> {
    /// Where.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub path: &'a [u8],
    /// Permission bits; absent: 0o755.
    #[n(1)]
    pub mode: Option<u16>,
    /// Also create what is missing above it, and do not fail if it is a directory already.
    #[n(2)]
    #[cbor(default)]
    pub parents: bool,
}
request!(MakeDirectory<'_>, MAKE_DIRECTORY, Created);

/// What came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Created {
    /// The new inode, or the one that was there.
    #[n(0)]
    pub ino: u64,
}

/// Removes the name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Unlink<'a> {
    /// The file.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub path: &'a [u8],
}
request!(Unlink<'_>, UNLINK, Done);

/// Removes an empty directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RemoveDirectory<'a> {
    /// The directory.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub path: &'a [u8],
}
request!(RemoveDirectory<'_>, REMOVE_DIRECTORY, Done);

/// Renames atomically; replaces a file by a file, an empty directory by a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Rename<'a> {
    /// The name now.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub from: &'a [u8],
    /// The new name.
    #[cbor(b(1), with = "minicbor::bytes")]
    pub to: &'a [u8],
}
request!(Rename<'_>, RENAME, Done);

/// Sets the size of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Truncate<'a> {
    /// Either this,
    #[cbor(b(0), with = "super::method::optional_bytes", has_nil)]
    pub path: Option<&'a [u8]>,
    /// or this.
    #[n(1)]
    pub handle: Option<u32>,
    /// The new size in bytes; what it gains reads as zeros.
    #[n(2)]
    pub size: u64,
}
request!(Truncate<'_>, TRUNCATE, Done);

/// Sets attributes; absent ones stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SetAttributes<'a> {
    /// Either this,
    #[cbor(b(0), with = "super::method::optional_bytes", has_nil)]
    pub path: Option<&'a [u8]>,
    /// or this.
    #[n(1)]
    pub handle: Option<u32>,
    /// Permission bits.
    #[n(2)]
    pub mode: Option<u16>,
    /// Owner.
    #[n(3)]
    pub uid: Option<u32>,
    /// Group.
    #[n(4)]
    pub gid: Option<u32>,
    /// Last access, nanoseconds since 1970-01-01 UTC.
    #[n(5)]
    pub atime: Option<i64>,
    /// Last change of content, nanoseconds since 1970-01-01 UTC.
    #[n(6)]
    pub mtime: Option<i64>,
}
request!(SetAttributes<'_>, SET_ATTRIBUTES, Done);

/// Adds a name for a file or a symbolic link. What a file contains that had no name before is
/// durable with its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Link<'a> {
    /// Of this,
    #[cbor(b(0), with = "super::method::optional_bytes", has_nil)]
    pub path: Option<&'a [u8]>,
    /// The name.
    #[cbor(b(1), with = "minicbor::bytes")]
    pub to: &'a [u8],
    /// or of this.
    #[n(2)]
    pub handle: Option<u32>,
    /// Take the name from another file or symbolic link that has it, atomically.
    #[n(3)]
    #[cbor(default)]
    pub replace: bool,
    /// Change nothing: only say whether it would be refused now.
    #[n(4)]
    #[cbor(default)]
    pub check: bool,
}
request!(Link<'_>, LINK, Created);

/// Creates a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Symlink<'a> {
    /// Where.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub path: &'a [u8],
    /// What it says: 1 to 4,095 bytes without NUL, which the server does not interpret.
    #[cbor(b(1), with = "minicbor::bytes")]
    pub target: &'a [u8],
}
request!(Symlink<'_>, SYMLINK, Created);

/// Asks what a symbolic link says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReadLink<'a> {
    /// The link.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub path: &'a [u8],
}
request!(ReadLink<'_>, READ_LINK, Target);

/// What a symbolic link says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Target {
    /// Its target.
    #[cbor(n(0), with = "owned::bytes")]
    pub target: Vec<u8>,
}
