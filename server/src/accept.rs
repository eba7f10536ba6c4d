//! Which server a new connection gets.

use crate::nbd::{NBD_PORT, Nbd};
use crate::platform::Platform;
use crate::raw::{DISCARD_PORT, Discard, ECHO_PORT, Echo, SOURCE_PORT, Source};
use crate::rpc::{RPC_PORT, Rpc, TurnedAway};
use crate::service::{Room, Service};
use crate::stream::Peer;
use alloc::boxed::Box;
use umbra_fs::memory::Boxed;

/// Makes the server of a new connection of `peer` to `port`; `None` if nothing listens there, or
/// not any more, or if there is no memory for it.
pub fn accept<M: Platform>(port: u32, peer: Peer, room: Room) -> Option<Box<dyn Service<M>>> {
    match (port, room) {
        (RPC_PORT, Room::Plenty | Room::Kept) => return boxed(Rpc::default()),
        (RPC_PORT, Room::Full(_) | Room::NoMemory) => {
            return boxed(TurnedAway::new(room));
        }
        (_, Room::Plenty) => {}
        _ => return None,
    }
    match port {
        NBD_PORT => boxed(Nbd::new(peer)),
        ECHO_PORT => boxed(Echo),
        DISCARD_PORT => boxed(Discard::default()),
        SOURCE_PORT => boxed(Source::default()),
        _ => None,
    }
}

/// A service in memory of its own; `None` if there is none.
fn boxed<M: Platform>(service: impl Service<M> + 'static) -> Option<Box<dyn Service<M>>> {
    Some(Boxed::new(service).ok()?.into_box())
}
