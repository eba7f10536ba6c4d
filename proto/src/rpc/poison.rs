//! Methods about memory errors, and what happened since the server started.

use super::method::request;
use super::{Items, Text, owned};
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

/// Lists the blocks whose memory has lost data, and which files have them. The answer is one or
/// more frames. It takes time by the size of the volume; others work meanwhile, and each file is
/// looked at when its turn comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PoisonList {}
request!(PoisonList, POISON_LIST, Items<BadBlock>);

/// What a file loses with a bad block, as a number: [`loss::CONTENT`] and so on.
pub type Loss = u8;

/// The values of [`Loss`].
pub mod loss {
    /// Content: it cannot be read until the block of the file is written as a whole.
    pub const CONTENT: u8 = 1;
    /// A node of the file's tree.
    pub const NODE: u8 = 2;
    /// The block that has the inode.
    pub const INODE: u8 = 3;
    /// Names of a directory.
    pub const NAMES: u8 = 4;
}

/// A bad block, or a range of a file that it has: an item with `ino` for each range, and one
/// without for each block, which comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BadBlock {
    /// The block, counted from the start of the NVDIMM.
    #[n(0)]
    pub block: u64,
    /// Nothing refers to the block, and it is not handed out. Only without `ino`.
    #[n(1)]
    #[cbor(default)]
    pub out_of_use: bool,
    /// How many more ranges have the block than are listed. Only without `ino`.
    #[n(2)]
    #[cbor(default)]
    pub more: u64,
    /// The inode.
    #[n(3)]
    pub ino: Option<u64>,
    /// A path of it; empty: it has none, or none that was found.
    #[cbor(n(4), with = "owned::bytes")]
    pub path: Vec<u8>,
    /// What the file loses.
    #[n(5)]
    pub loss: Option<Loss>,
    /// Where in the file, in bytes.
    #[n(6)]
    pub offset: Option<u64>,
    /// How many bytes.
    #[n(7)]
    pub len: Option<u64>,
}

/// As [`BadBlock`], for a sender that has the path elsewhere.
#[derive(Clone, Copy, Debug, Default, Encode)]
#[cbor(map)]
pub struct BadBlockRef<'a> {
    /// The block.
    #[n(0)]
    pub block: u64,
    /// Nothing refers to it.
    #[n(1)]
    pub out_of_use: bool,
    /// How many more ranges have it.
    #[n(2)]
    pub more: u64,
    /// The inode.
    #[n(3)]
    pub ino: Option<u64>,
    /// A path of it.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub path: &'a [u8],
    /// What the file loses.
    #[n(5)]
    pub loss: Option<Loss>,
    /// Where in the file.
    #[n(6)]
    pub offset: Option<u64>,
    /// How many bytes.
    #[n(7)]
    pub len: Option<u64>,
}

/// Has the server act as if the memory had reported that it lost a block. What is in the block
/// stays, but is not read any more. Either a path and an offset are given, or a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PoisonInject<'a> {
    /// A file,
    #[cbor(b(0), with = "super::method::optional_bytes", has_nil)]
    pub path: Option<&'a [u8]>,
    /// and a byte of it.
    #[n(1)]
    #[cbor(default)]
    pub offset: u64,
    /// A block of the NVDIMM.
    #[n(2)]
    pub block: Option<u64>,
}
request!(PoisonInject<'_>, POISON_INJECT, PoisonInjected);

/// What was injected. The server has acted on it before this comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PoisonInjected {
    /// The block.
    #[n(0)]
    pub block: u64,
}

/// Empties the list of bad blocks: whoever sends this knows that the memory is good again. What the
/// blocks hold is read as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PoisonClear {}
request!(PoisonClear, POISON_CLEAR, PoisonCleared);

/// What was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PoisonCleared {
    /// Blocks that were on the list.
    #[n(0)]
    pub blocks: u64,
}

/// Lists what happened since the server started: the last 256 events. The answer is one or more
/// frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Events {
    /// Only those whose number is greater.
    #[n(0)]
    #[cbor(default)]
    pub since: u64,
}
request!(Events, EVENTS, Items<Event>);

/// Something that happened. `T` is a text: owned where it was received, borrowed where it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Event<T = Text> {
    /// Counts the events of this server, from 1 on. A number that is missing is one of an event
    /// that came before the last 256.
    #[n(0)]
    pub number: u64,
    /// When, in nanoseconds since 1970-01-01 UTC.
    #[n(1)]
    pub time: i64,
    /// What happened, a name of small letters and dashes: see `docs/protocols.md`.
    #[n(2)]
    pub kind: T,
    /// The physical address that the processor reported.
    #[n(3)]
    pub address: Option<u64>,
    /// The first block of the NVDIMM that it is about.
    #[n(4)]
    pub block: Option<u64>,
    /// How many.
    #[n(5)]
    pub count: Option<u64>,
}
