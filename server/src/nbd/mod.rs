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
//!   read.rs: header ---> write.rs ----------------.              .---> out.rs
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
//! | `handshake.rs` | options |
//! | `exports.rs` | which exports there are |
//! | `clients.rs` | who uses them |
//! | `table.rs` | the exports that were added, kept in the volume |
//! | `target.rs` | what is served: a file through its window, or a region of an NVDIMM |
//! | `transmission.rs` | the state of a connection that transmits |
//! | `read.rs`, `write.rs` | requests and their payloads |
//! | `queue.rs` | requests that are not answered yet |
//! | `reply.rs` | work and answers |
//! | `status.rs` | block status |
//! | `out.rs` | small replies on their way out |
//! | `failure.rs` | why a request failed |
//!
//! What it leaves out: TLS, which ends in front of this server if it is wanted, and resizing. What
//! is supported to the letter is in `docs/protocols.md`.

pub(crate) mod clients;
mod connection;
pub(crate) mod exports;
mod failure;
mod handshake;
mod out;
mod queue;
mod read;
mod reply;
mod status;
pub(crate) mod table;
mod target;
mod transmission;
mod write;

pub use clients::Users;
pub use connection::Nbd;

/// The vsock port of this protocol.
pub const NBD_PORT: u32 = umbra_proto::nbd::PORT;

/// Largest payload of a request, as advertised, and largest read that is not cut into chunks.
const MAX_PAYLOAD: u32 = umbra_proto::nbd::DEFAULT_MAX_PAYLOAD;
