//! NBD, served: files as disks.
//!
//! One [`Nbd`] per connection. It answers options until the client has chosen an export, then
//! serves requests. Requests overlap: they are taken in as they come, as long as there is room
//! for them, and answered as they are done; long ones give way to others after some time.
//!
//! ```text
//!   received bytes                                                bytes to send
//!        |                                                              ^
//!        v           payload of a write goes to the file                |
//!   intake.rs: header ---> payload.rs ------------.              .---> out.rs
//!        |                                        v              |
//!        '------------------------------------> queue.rs ---> reply.rs
//!                                    what is not yet answered    one chunk, or one step
//!                                                                of work, at a time
//! ```
//!
//! Content is copied once: reads load from the file's window into the buffer of the stream, writes
//! go from the received bytes to the media. The exception both ways is a place where a buffer ends
//! in the middle of a block: at most a block goes through the connection's own memory there. That
//! is taken when the client starts to transmit, so no request allocates.
//!
//! Writes of whole blocks go through the write path of the filesystem: in place where the block is
//! the file's own, else to a new block, without reading the old one. Parts of blocks are stored
//! through the window, so the page-fault handler copies what is shared. FLUSH makes the dirty pages
//! durable.
//!
//! | file | what |
//! |---|---|
//! | `connection.rs` | a connection from its greeting to its end |
//! | `handshake.rs` | options, and the flags that say which commands there are |
//! | `exports.rs` | which exports there are |
//! | `clients.rs` | who uses them |
//! | `table.rs` | the exports that were added, kept in the volume |
//! | `backing.rs` | a file through its window, or a region: what commands on ranges do to it |
//! | `transmission.rs` | the state of a connection that transmits |
//! | `intake.rs`, `payload.rs` | which commands and flags there are; the payloads of writes |
//! | `queue.rs` | requests that are not answered yet |
//! | `reply.rs` | work and answers |
//! | `contexts.rs`, `status.rs` | metadata contexts, and block status in their view |
//! | `out.rs` | small replies on their way out |
//! | `failure.rs` | why a request failed |
//! | `limits.rs` | numbers that a client is told |
//!
//! A new command is added in `proto/src/nbd/request.rs`, its flag in both `handshake.rs`, then in
//! `intake.rs`, `queue.rs`, `reply.rs` and `backing.rs`; the tests say which of their rows are
//! missing (`tests/src/ping/nbd.rs`).
//!
//! What it leaves out: TLS, which ends in front of this server if it is wanted, and resizing. What
//! is supported to the letter is in `docs/protocols.md`.

mod backing;
pub(crate) mod clients;
mod connection;
mod contexts;
pub(crate) mod exports;
mod failure;
mod handshake;
mod intake;
mod limits;
mod out;
mod payload;
mod queue;
mod reply;
mod status;
pub(crate) mod table;
mod transmission;

pub use clients::Users;
pub use connection::Nbd;
pub use limits::NBD_PORT;
