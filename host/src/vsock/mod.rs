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
//! | file            | what                                                          |
//! |-----------------|---------------------------------------------------------------|
//! | `device.rs`     | the thread: one epoll loop over all that can happen           |
//! | `session.rs`    | what QEMU says (vhost-user)                                   |
//! | `ring.rs`       | a virtqueue, and the chains of memory in it                   |
//! | `switch.rs`     | what is done with packets: connections made, served, ended    |
//! | `connection.rs` | one connection: its client, and credit                        |
//! | `tests/`        | all of it against a guest that is memory in a test            |
//!
//! - Nothing waits for a client: what its socket has no room for is kept, up to the credit that the
//!   guest has for that connection. Nothing waits for the guest: a client is read only when there
//!   is credit and a buffer for its bytes. So who is slow holds up nobody else.
//! - A stream of packets from the guest is believed in nothing: a bad packet is dropped or resets
//!   its connection, a bad chain is given back unused. Only rings that contradict themselves end
//!   the device, with an error.
//! - Each direction of a connection ends by itself. What a client wrote before it closed is
//!   delivered.
//!
//! Left out: connections that the guest starts (refused), sockets of sequenced packets, migration.

mod connection;
mod device;
mod ring;
mod session;
mod switch;
#[cfg(test)]
mod tests;

pub(crate) use connection::FULL;
pub use connection::Target;
pub use device::{Client, Device, Offer};

/// The guest's context id behind this device, which serves this one guest.
pub const GUEST_CID: u64 = 3;
