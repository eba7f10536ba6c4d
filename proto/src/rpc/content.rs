//! Methods about the content of files.
//!
//! A *handle* is a file that this connection has open; it is a window of the server, and
//! it ends with the connection. The content of an open file lives on if its last name goes.

use super::method::request;
use super::{Done, Items};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

/// Opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Open<'a> {
    /// The file.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub path: &'a [u8],
    /// Bits of [`open`]; a bit that the server does not know is an error.
    #[n(1)]
    #[cbor(default)]
    pub flags: u32,
    /// Permission bits of a file that is created; absent: 0o644.
    #[n(2)]
    pub mode: Option<u16>,
}
request!(Open<'_>, OPEN, Opened);

/// The bits of [`Open::flags`].
pub mod open {
    /// Create the file if it is not there.
    pub const CREATE: u32 = 1;
    /// With [`CREATE`]: fail if it is there.
    pub const EXCLUSIVE: u32 = 2;
    /// Set the size to 0 if it is there.
    pub const TRUNCATE: u32 = 4;
    /// Alone: show what the file contains now, whatever becomes of it. Nothing can be changed
    /// through the handle, and the blocks that [`Extents`](super::Extents) names contain what they
    /// do until it is closed.
    pub const FROZEN: u32 = 8;
    /// All bits that are known.
    pub const ALL: u32 = CREATE | EXCLUSIVE | TRUNCATE | FROZEN;
}

/// Bytes at the start of the NVDIMM that no other volume has, and no other mount of this one.
pub const IDENTITY_LEN: usize = 128;

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Opened {
    /// Names it on this connection.
    #[n(0)]
    pub handle: u32,
    /// Its inode.
    #[n(1)]
    pub ino: u64,
    /// Its size in bytes.
    #[n(2)]
    pub size: u64,
    /// With [`open::FROZEN`]: the first bytes of the NVDIMM. Who reads blocks in an image of it
    /// finds the same there, or it is another one.
    #[n(3)]
    pub identity: Option<ByteArray<IDENTITY_LEN>>,
}

/// Creates a file that has no name, and opens it. [`Link`](super::Link) gives it one; without a
/// name it goes with the handle, with the connection, and with a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OpenUnnamed<'a> {
    /// A directory: where the file will have its name, most likely.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub path: &'a [u8],
    /// Permission bits; absent: 0o644.
    #[n(1)]
    pub mode: Option<u16>,
    /// Owner.
    #[n(2)]
    #[cbor(default)]
    pub uid: u32,
    /// Group.
    #[n(3)]
    #[cbor(default)]
    pub gid: u32,
}
request!(OpenUnnamed<'_>, OPEN_UNNAMED, Opened);

/// Closes a handle. What was stored through it is durable when this is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Close {
    /// The handle.
    #[n(0)]
    pub handle: u32,
}
request!(Close, CLOSE, Done);

/// Reads. The answer is one or more frames, whose payloads together are the bytes: fewer
/// than asked for only at the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Read {
    /// The file.
    #[n(0)]
    pub handle: u32,
    /// First byte.
    #[n(1)]
    pub offset: u64,
    /// Bytes; any number.
    #[n(2)]
    pub len: u64,
}
request!(Read, READ, Done);

/// Writes the payload; extends the file where needed. What had to be allocated or copied is
/// durable when this is answered, overwrites in place after a [`Sync`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Write {
    /// The file.
    #[n(0)]
    pub handle: u32,
    /// Where the first byte of the payload goes.
    #[n(1)]
    pub offset: u64,
    /// Sync the file before answering.
    #[n(2)]
    #[cbor(default)]
    pub sync: bool,
}
request!(Write, WRITE, Written);

/// Bytes were written or stored: all of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Written {
    /// How many.
    #[n(0)]
    pub done: u64,
}

/// Makes durable whatever was written or stored to a file, by anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sync {
    /// The file.
    #[n(0)]
    pub handle: u32,
}
request!(Sync, SYNC, Done);

/// Lists the runs of a file: data, holes, unwritten space. The answer is one or more
/// frames. The runs cover the file without gaps, from the block of `offset` to the end of `len`
/// or of the file; neighbours may be of one sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Extents {
    /// The file.
    #[n(0)]
    pub handle: u32,
    /// From this byte on (rounded down to a block).
    #[n(1)]
    #[cbor(default)]
    pub offset: u64,
    /// So many bytes; absent: to the end.
    #[n(2)]
    pub len: Option<u64>,
    /// At most so many runs; absent: all.
    #[n(3)]
    pub max: Option<u64>,
}
request!(Extents, EXTENTS, Items<Extent>);

/// A run of a file that is all of one sort. A multiple of blocks; the last one may
/// reach beyond the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Extent {
    /// First byte in the file.
    #[n(0)]
    pub offset: u64,
    /// Bytes.
    #[n(1)]
    pub len: u64,
    /// The block of the volume where it starts; absent: a hole.
    #[n(2)]
    pub block: Option<u64>,
    /// Allocated, but reads as zeros.
    #[n(3)]
    #[cbor(default)]
    pub unwritten: bool,
    /// Whether any other position refers to these blocks too.
    #[n(4)]
    #[cbor(default)]
    pub shared: bool,
    /// The blocks are on the list of bad blocks: what they have cannot be read. `block` is absent,
    /// though this is no hole.
    #[n(5)]
    #[cbor(default)]
    pub bad: bool,
}

impl Extent {
    /// Whether it reads as zeros for sure (a hole or unwritten).
    pub fn is_zero(&self) -> bool {
        (self.block.is_none() || self.unwritten) && !self.bad
    }
}

/// Creates a file that shares all content of another: atomic, durable when answered, in
/// a time that does not depend on its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CloneFile<'a> {
    /// The file to clone.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub from: &'a [u8],
    /// The name of the clone. It must not exist.
    #[cbor(b(1), with = "minicbor::bytes")]
    pub to: &'a [u8],
}
request!(CloneFile<'_>, CLONE, Cloned);

/// Shares a range of one file into another, which exists. Offsets are multiples of the block
/// size; so is the length, unless the range ends at the end of the source and at or
/// beyond that of the destination. Atomic, durable when answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CloneRange<'a> {
    /// The source.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub from: &'a [u8],
    /// The destination.
    #[cbor(b(1), with = "minicbor::bytes")]
    pub to: &'a [u8],
    /// First byte in the source.
    #[n(2)]
    pub from_offset: u64,
    /// First byte in the destination.
    #[n(3)]
    pub to_offset: u64,
    /// Bytes; absent: to the end of the source.
    #[n(4)]
    pub len: Option<u64>,
}
request!(CloneRange<'_>, CLONE_RANGE, Cloned);

/// What a clone took, in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Cloned {
    /// The inode of the clone or of the destination.
    #[n(0)]
    pub ino: u64,
    /// Time in nanoseconds, by the server's clock.
    #[n(1)]
    pub elapsed_ns: u64,
    /// Fences that were issued.
    #[n(2)]
    pub fences: u64,
    /// Lines that were flushed.
    #[n(3)]
    pub flushes: u64,
}

/// Shares a range of one file into another where both contain the same; holes contain zeros.
/// Offsets are multiples of the block size; so is the length, unless the range ends both files.
/// Nothing is shared if anything differs, and no content changes in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Dedupe<'a> {
    /// The source.
    #[cbor(b(0), with = "minicbor::bytes")]
    pub from: &'a [u8],
    /// The file whose blocks are given up for those of the source.
    #[cbor(b(1), with = "minicbor::bytes")]
    pub to: &'a [u8],
    /// First byte in the source.
    #[n(2)]
    pub from_offset: u64,
    /// First byte in the other file.
    #[n(3)]
    pub to_offset: u64,
    /// Bytes; absent: to the end of the source.
    #[n(4)]
    pub len: Option<u64>,
}
request!(Dedupe<'_>, DEDUPE, Deduped);

/// What a dedupe found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Deduped {
    /// Bytes that are shared now and were not before. Not 0 beside a difference only if that came
    /// to be while the dedupe was under way.
    #[n(0)]
    pub shared: u64,
    /// Where the first difference is, counted from the start of the range; absent: there is none.
    #[n(1)]
    pub differs_at: Option<u64>,
    /// Time in nanoseconds, by the server's clock.
    #[n(2)]
    pub elapsed_ns: u64,
}

/// Loads through the mapping of a handle. As [`Read`], but a range beyond the end of the
/// file is an error, as it is for a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Load {
    /// The file.
    #[n(0)]
    pub handle: u32,
    /// First byte.
    #[n(1)]
    pub offset: u64,
    /// Bytes; any number.
    #[n(2)]
    pub len: u64,
}
request!(Load, LOAD, Done);

/// Stores the payload through the mapping of a handle, by way of the page-fault handler:
/// shared blocks are copied by the first store. Never extends the file. Durable after
/// [`Msync`]. If it fails midway the bytes before that stay, and the error says how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Store {
    /// The file.
    #[n(0)]
    pub handle: u32,
    /// Where the first byte of the payload goes.
    #[n(1)]
    pub offset: u64,
    /// Do an [`Msync`] before answering.
    #[n(2)]
    #[cbor(default)]
    pub sync: bool,
}
request!(Store, STORE, Written);

/// Makes stores to a file durable, through whichever mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Msync {
    /// The file.
    #[n(0)]
    pub handle: u32,
}
request!(Msync, MSYNC, Done);

/// Asks for the state of windows, masters and shadows: of one file, or of all if neither
/// is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pages<'a> {
    /// Of this file,
    #[cbor(b(0), with = "super::method::optional_bytes", has_nil)]
    pub path: Option<&'a [u8]>,
    /// or of this one.
    #[n(1)]
    pub handle: Option<u32>,
}
request!(Pages<'_>, PAGES, PagesResponse);

/// The state of windows, masters and shadows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PagesResponse {
    /// Open windows.
    #[n(0)]
    pub windows: u64,
    /// Slots (2 MiB of address space) attached to windows now.
    #[n(1)]
    pub slots: u64,
    /// Blocks that are mapped read-only at least once.
    #[n(2)]
    pub masters: u64,
    /// Read-only translations of blocks.
    #[n(3)]
    pub shadows: u64,
    /// Translations of the zero page.
    #[n(4)]
    pub zero: u64,
    /// Writable translations (dirty pages).
    #[n(5)]
    pub writable: u64,
    /// What the fault handler did since mount, for all files.
    #[n(6)]
    pub faults: Faults,
    /// Lines that were flushed since boot.
    #[n(7)]
    pub flushes: u64,
    /// Fences since boot.
    #[n(8)]
    pub fences: u64,
}

/// Counts of what the fault handler did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Faults {
    /// Faults by loads.
    #[n(0)]
    pub read: u64,
    /// Faults by stores that only had to grant writing.
    #[n(1)]
    pub write: u64,
    /// Faults by stores that copied or allocated a block.
    #[n(2)]
    pub cow: u64,
    /// Faults that could not be resolved.
    #[n(3)]
    pub failed: u64,
    /// Shadows tossed by copies on write and grants.
    #[n(4)]
    pub tossed: u64,
    /// Shadows of other files unmapped by copies on write: always 0.
    #[n(5)]
    pub foreign_unmapped: u64,
}
