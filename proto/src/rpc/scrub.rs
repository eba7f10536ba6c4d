//! The method of a scrub.

use super::method::request;
use minicbor::{Decode, Encode};

/// Has the server take a part of a scrub: all that is in use is loaded once, so that the memory
/// reports what it cannot deliver, and metadata is compared with its second copy. How fast that
/// goes, the client says by when it asks for the next part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Scrub {
    /// The scrub to go on with; `None`: a new one begins, in the place of the last.
    #[n(0)]
    pub number: Option<u64>,
    /// How many blocks at most.
    #[n(1)]
    pub blocks: u64,
}
request!(Scrub, SCRUB, ScrubState);

/// How far a scrub is, and what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ScrubState {
    /// Counts the scrubs since the volume was mounted, from 1 on.
    #[n(0)]
    pub number: u64,
    /// When it began, in nanoseconds since 1970-01-01 UTC.
    #[n(1)]
    pub began: i64,
    /// When it was over; `None`: it is not.
    #[n(2)]
    pub ended: Option<i64>,
    /// The next block.
    #[n(3)]
    pub next: u64,
    /// Blocks of the volume.
    #[n(4)]
    pub total: u64,
    /// Blocks that were loaded, both copies of metadata included.
    #[n(5)]
    pub loaded: u64,
    /// Blocks of metadata whose copies were compared.
    #[n(6)]
    pub pairs: u64,
    /// Of these: one copy was bad, and was written anew from the other.
    #[n(7)]
    pub mended: u64,
    /// Both copies are good, and differ; nothing was done.
    #[n(8)]
    pub differ: u64,
    /// Words are bad in both copies.
    #[n(9)]
    pub damaged: u64,
    /// Blocks that the memory cannot deliver.
    #[n(10)]
    pub lost: u64,
}
