//! Which server a new connection gets.

use crate::nbd::{NBD_PORT, Nbd};
use crate::platform::Platform;
use crate::raw::{DISCARD_PORT, Discard, ECHO_PORT, Echo, SOURCE_PORT, Source};
use crate::rpc::{RPC_PORT, Rpc, TurnedAway};
use crate::service::{Room, Service};
use crate::stream::Peer;
use alloc::boxed::Box;

/// Makes the server of a new connection of `peer` to `port`; `None` if nothing listens there, or
/// not any more.
pub fn accept<M: Platform>(port: u32, peer: Peer, room: Room) -> Option<Box<dyn Service<M>>> {
    match (port, room) {
        (RPC_PORT, Room::Plenty | Room::Kept) => return Some(Box::new(Rpc::default())),
        (RPC_PORT, Room::Full(_) | Room::NoMemory) => {
            return Some(Box::new(TurnedAway::new(room)));
        }
        (_, Room::Plenty) => {}
        _ => return None,
    }
    match port {
        NBD_PORT => Some(Box::new(Nbd::new(peer))),
        ECHO_PORT => Some(Box::new(Echo)),
        DISCARD_PORT => Some(Box::new(Discard::default())),
        SOURCE_PORT => Some(Box::new(Source::default())),
        _ => None,
    }
}
