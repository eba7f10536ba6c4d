//! Reliable streams over virtio-vsock (virtio 1.2, 5.10).
//!
//! This is the protocol, without the hardware: it sees packets through the [`Device`]
//! seam and servers through the [`Handler`] seam, knows no address and no register, and is
//! tested on the host.
//!
//! The header and the counting of credit are in `umbra_proto::vsock`.
//!
//! | file | what |
//! |---|---|
//! | `device.rs` | the seam to the device |
//! | `exchange.rs` | receive buffers between RAM and blocks of the volume |
//! | `pool.rs` | memory for bytes that were received and not consumed |
//! | `table.rs` | the connections, found by hash |
//! | `connection.rs` | the state of one, and the stream that its server sees |
//! | `endpoint.rs` | connections and their servers, turns |
//! | `endpoint/arrival.rs` | what packets that arrive do |
//! | `endpoint/ending.rs` | how connections end, timers |
//! | `tests/` | all of it against a simulated peer |
//!
//! ```text
//!   device                     endpoint                            server
//!     |  packet  .------------------------------------------.         |
//!     |--------->| find connection, note credit             |         |
//!     |          | bytes: looked at where they lie ---------|-------->| received(), consume()
//!     |          |        what is left: copied to the pool  |         |
//!     |<---------| packet filled in place <-----------------|---------| buffer(), commit()
//!     |          | credit, if the peer runs low of it       |         |
//!     |          '------------------------------------------'         |
//! ```
//!
//! Nothing is kept to be sent later: a server gets room to fill only when the peer has given
//! credit for it and the device has a buffer, so a peer that does not read holds up nobody
//! else, and no memory. What a peer may send is reserved in the pool before it is told so.
//!
//! Servers take turns: those that waited for a buffer come first, in the order in which they
//! began to wait; nobody takes more than [`BUFFERS_A_TURN`] at once.
//!
//! Left out: connections that start here, and sockets of sequenced packets.
//!
//! # The host's side
//!
//! Linux's vhost-vsock, or the device that `umbra up` brings along (`host/src/vsock`). Some devices
//! drop what they still hold for a slow client when a connection is shut down. So one is shut down
//! only once the peer has counted everything as forwarded, for which it may have to be asked. Some
//! complete a receive buffer without writing a header, or with operation 0. So headers are cleared
//! before they are given to the device, and such packets are passed over.

mod connection;
mod device;
mod endpoint;
mod exchange;
mod pool;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use device::{Buffer, Busy, Device, PAYLOAD, Packet, Room, crosses};
pub(crate) use endpoint::{Endpoint, Handler, Next, Statistics, Vacancy};
pub(crate) use exchange::{Exchange, Lender, PayloadMemory};
pub(crate) use pool::{CHUNK, Page, Pool};
pub(crate) use umbra_proto::vsock::{Address, Cid, HEADER_LEN, Header, Port};
use umbra_proto::vsock::{packet, window};

/// Milliseconds since some moment in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Millis(pub(crate) u64);

impl Millis {
    /// This much later.
    #[must_use]
    pub(crate) fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// Connections at the same time at most; with little memory there are fewer.
pub(crate) const MAX_CONNECTIONS: usize = 1024;

/// Connections beyond these, whose clients are only told that there is no room.
const MAX_AT_DOOR: usize = 16;

/// Of all connections, the last so many are kept for servers that matter most.
const MAX_KEPT: usize = 32;

/// Receive window of a new connection, in bytes.
pub(crate) const BASE_WINDOW: u32 = 8 * 1024;

/// The same while so many connections may still come that the pool has to be kept for them.
pub(crate) const LEAST_WINDOW: u32 = 4 * 1024;

/// Receive window of a busy connection, in bytes, if the pool has that much.
pub(crate) const MAX_WINDOW: u32 = 1024 * 1024;

/// Chunks that every connection has, or will have when it comes.
pub(crate) const LEAST_CHUNKS: usize = pool::chunks_of(LEAST_WINDOW);

/// Chunks of a pool for all connections that there can be.
pub(crate) const BASE_CHUNKS: usize = (MAX_CONNECTIONS + MAX_AT_DOOR) * LEAST_CHUNKS;

/// Buffers that one server may fill in one turn.
pub(crate) const BUFFERS_A_TURN: usize = 8;
