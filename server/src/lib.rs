//! The servers.
//!
//! One poll loop, no blocking: each connection is a state machine over a byte stream.
//!
//! | file | what |
//! |---|---|
//! | `stream.rs` | the byte stream |
//! | `service.rs` | what a server is, and what the servers share |
//! | `shown.rs` | paths and names in messages |
//! | `turns.rs` | how long one of them holds up all others |
//! | `platform.rs` | what a server needs to know of the machine; work in the background |
//! | `rpc/` | the native protocol |
//! | `nbd/` | files as disks |
//! | `raw.rs` | discard, source and echo: what the transport can do |
//! | `testing/` | a machine and a connection in memory (feature `testing`) |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod nbd;
pub mod platform;
pub mod raw;
pub mod rpc;
mod service;
mod shown;
pub mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod turns;

pub use platform::{Platform, background};
pub use service::{Service, Shared};
pub use stream::{Peer, Progress, Stream};

use alloc::boxed::Box;

/// How much room there is for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Any may come.
    Plenty,
    /// What is left is kept for the native protocol: who administrates the server gets in.
    Kept,
    /// None: all connections, so many, are in use. A client of the native protocol is told so.
    Full(usize),
    /// No memory is left for one. A client of the native protocol is told so.
    NoMemory,
}

/// Makes the server of a new connection of `peer` to `port`; `None` if nothing listens there, or
/// not any more.
pub fn accept<M: Platform>(port: u32, peer: Peer, room: Room) -> Option<Box<dyn Service<M>>> {
    match (port, room) {
        (rpc::RPC_PORT, Room::Plenty | Room::Kept) => return Some(Box::new(rpc::Rpc::default())),
        (rpc::RPC_PORT, Room::Full(_) | Room::NoMemory) => {
            return Some(Box::new(rpc::TurnedAway::new(room)));
        }
        (_, Room::Plenty) => {}
        _ => return None,
    }
    match port {
        nbd::NBD_PORT => Some(Box::new(nbd::Nbd::new(peer))),
        raw::ECHO_PORT => Some(Box::new(raw::Echo)),
        raw::DISCARD_PORT => Some(Box::new(raw::Discard::default())),
        raw::SOURCE_PORT => Some(Box::new(raw::Source::default())),
        _ => None,
    }
}
