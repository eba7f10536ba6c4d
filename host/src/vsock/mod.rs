//! A virtio-vsock device (virtio 1.2, 5.10) over vhost-user, for hosts whose kernel has none.
//!
//! It runs on one thread of the supervisor. QEMU connects to it, says where the guest's memory and
//! the rings are, and has no part in what goes through them. Clients are UNIX sockets.
//!
//! ```text
//!  client ──UNIX socket──▶ read(2) into the buffers of the guest's receive ring
//!         ◀─────────────── write(2) from those of its transmit ring
//!  QEMU ───vhost.sock────▶ memory, rings, eventfds
//! ```
//!
//! | file | what |
//! |---|---|
//! | `device.rs` | a running device, as the rest of the program knows it |
//! | `worker.rs` | the thread: one epoll loop over all that can happen |
//! | `commands.rs` | what other threads tell it |
//! | `session.rs` | what QEMU says (vhost-user) |
//! | `switch.rs` | what is done with packets: connections made, served, ended |
//! | `connection.rs` | one connection: its client, and credit |
//! | `ring.rs` | a virtqueue, and the chains of memory in it |
//! | `events.rs` | tokens of epoll |
//! | `tests/` | all of it against a guest that is memory in a test |
//!
//! Imports go from a line to lines below it.
//!
//! - Nothing waits for a client: what its socket has no room for is kept, up to the credit that the
//!   guest has for that connection. Nothing waits for the guest: a client is read only when there
//!   is credit and a buffer for its bytes. So who is slow holds up nobody else.
//! - Everything in a guest's packet is checked before it is used: a bad packet is dropped or resets
//!   its connection, a bad chain is given back unused. Only rings that contradict themselves end
//!   the device, with an error.
//! - Each direction of a connection ends by itself. What a client wrote before it closed is
//!   delivered.
//!
//! Left out: connections that the guest starts (refused), sockets of sequenced packets, migration.

mod commands;
mod connection;
mod device;
mod events;
mod ring;
mod session;
mod switch;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use connection::FULL;
pub use connection::PortChoice;
pub use device::{Device, Offer};
pub use switch::Client;

/// The guest's context id behind this device, which serves this one guest.
pub const GUEST_CID: u64 = 3;
