//! NBD, the network block device protocol: the wire formats of both ends.
//!
//! Follows `doc/proto.md` of <https://github.com/NetworkBlockDevice/nbd>, and for extended headers
//! the same file of its branch `extension-ext-header`. All numbers are big-endian. A connection
//! has two phases:
//!
//! ```text
//!  handshake      S: greeting             18 bytes            handshake.rs
//!                 C: flags                 4
//!                 C: option header        16, data            option.rs
//!                 S: option reply header  20, data   ...
//!  transmission   C: request              28, or 32 extended  request.rs
//!                 S: simple reply         16                  reply.rs
//!                    or chunk             20, or 32 extended
//! ```
//!
//! | file | what |
//! |---|---|
//! | `handshake.rs` | greeting, flags of both ends, transmission flags |
//! | `option.rs` | options and their replies |
//! | `request.rs` | requests |
//! | `reply.rs` | replies, chunks, block status |
//! | `error.rs` | error numbers |
//!
//! What it leaves out: the oldstyle handshake, TLS, and the experimental resize.

mod error;
mod handshake;
mod option;
mod reply;
mod request;

pub use error::*;
pub use handshake::*;
pub use option::*;
pub use reply::*;
pub use request::*;

/// The port of NBD, as registered for TCP; here of vsock.
pub const PORT: u32 = 10809;

/// Longest string: names of exports, queries, messages ("Conventions").
pub const MAX_STRING: usize = 4096;

/// What every client may send or ask for at once ("Size constraints"): 32 MiB.
pub const DEFAULT_MAX_PAYLOAD: u32 = 1 << 25;

/// A message does not begin with its magic number: the two ends disagree where messages begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMagic(pub u64);

impl core::fmt::Display for BadMagic {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a message begins with {:#x}, which is not its magic number", self.0)
    }
}

impl core::error::Error for BadMagic {}

/// Puts numbers of different sizes into an array, one after another.
struct Fields<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl<'b> Fields<'b> {
    fn new(bytes: &'b mut [u8]) -> Self {
        Fields { bytes, at: 0 }
    }
    fn put<const N: usize>(self, field: [u8; N]) -> Self {
        let end = self.at + N;
        self.bytes[self.at..end].copy_from_slice(&field);
        Fields { bytes: self.bytes, at: end }
    }
    fn u16(self, n: u16) -> Self {
        self.put(n.to_be_bytes())
    }
    fn u32(self, n: u32) -> Self {
        self.put(n.to_be_bytes())
    }
    fn u64(self, n: u64) -> Self {
        self.put(n.to_be_bytes())
    }
}

/// Takes numbers off the front of bytes.
#[derive(Clone, Copy)]
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    fn bytes(&mut self, len: usize) -> Option<&'b [u8]> {
        let (first, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(first)
    }
}
