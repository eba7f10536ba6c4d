//! The native protocol, served.
//!
//! One [`Rpc`] per connection. It reads a request, does it, answers it, and only then
//! looks at the next, so answers come in the order of the requests; requests that
//! were sent ahead wait in the receive window of the stream. What it leaves out: requests
//! that overtake others, and events that nobody asked for.
//!
//! ```text
//!            16 bytes          its length            answered at once
//!   Header ------------> Body ------------> begin ---------------------> Skip --> Header
//!     |                                       |                           ^
//!     | hopeless                              `--> Work: step, step, ... -'
//!     v
//!   Ending: give back the handles, send what is left, close
//! ```
//!
//! A connection owns a body of at most 16 KiB, one outgoing frame of 4 KiB and 64 handles,
//! and no queue: it handles nothing while a frame waits for room. Nothing is allocated per
//! request once the buffers are there, except texts of errors. Content is copied once,
//! between media and the ring of the stream.
//!
//! | file | what |
//! |---|---|
//! | `connection.rs` | the state machine of the picture |
//! | `session.rs` | what requests see of their connection |
//! | `work.rs` | requests that take more than one step |
//! | `subject.rs` | the file that a request is about: by path or by handle |
//! | `output.rs` | one frame on its way out |
//! | `failure.rs` | errors and their texts |
//! | `handles.rs` | open files |
//! | `begin.rs` | what each method does first, and which are let in when memory is short |
//! | `attributes.rs` | kinds and attributes on the wire |
//! | `names.rs` | methods about names and attributes |
//! | `naming.rs` | names for files that are there |
//! | `content.rs` | methods about content, as far as they are done at once |
//! | `exports.rs` | methods about exports |
//! | `bench/` | benchmarks in the server itself |
//! | `transfer.rs` | read, load, write, store, in pieces |
//! | `operating.rs` | what may take several steps of the filesystem |
//! | `sharing.rs` | dedupe, a few blocks at a time |
//! | `poison.rs` | methods about memory errors and events |
//! | `scrub.rs` | the method of a scrub |
//! | `listing.rs` | answers of many items, frame by frame |
//! | `turned_away.rs` | a client for whom there is no room |
//!
//! A new method gets its number and its body in `proto/src/rpc/`, then a line in `begin.rs`, a
//! function in `host/src/client/files.rs` or `exports.rs`, and a place in `docs/protocols.md`; the
//! tests say which of their rows are missing (`tests/src/ping/methods.rs`, `out_of_memory.rs`).

mod attributes;
mod begin;
mod bench;
mod connection;
mod content;
mod exports;
mod failure;
mod handles;
mod listing;
mod names;
mod naming;
mod operating;
mod output;
mod poison;
mod scrub;
mod session;
mod sharing;
mod subject;
mod transfer;
mod turned_away;
mod work;

pub use connection::Rpc;
pub use handles::MAX_HANDLES;
pub use turned_away::TurnedAway;

/// The vsock port of this protocol.
pub const RPC_PORT: u32 = umbra_proto::rpc::PORT;
