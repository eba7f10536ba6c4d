//! The servers.
//!
//! One poll loop, no blocking: each connection is a state machine over a byte stream.
//!
//! | file | what |
//! |---|---|
//! | `stream.rs` | the byte stream |
//! | `accept.rs` | which server a new connection gets |
//! | `service.rs` | what a server is, and what the servers share |
//! | `text.rs` | messages for people, in memory of fixed size |
//! | `events.rs` | what happened to the machine |
//! | `turns.rs` | how long one of them holds up all others |
//! | `platform.rs` | what a server needs to know of the machine; work in the background |
//! | `rpc/` | the native protocol |
//! | `nbd/` | files as disks |
//! | `raw.rs` | discard, source and echo: what the transport can do |
//! | `testing/` | a machine and a connection in memory (feature `testing`) |
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_macros))]

extern crate alloc;

mod accept;
mod events;
pub mod nbd;
pub mod platform;
pub mod raw;
pub mod rpc;
mod service;
pub mod stream;
#[cfg(feature = "testing")]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
pub mod testing;
mod text;
mod turns;

pub use accept::accept;
pub use platform::{Platform, background};
pub use service::{Room, Service, Shared};
pub use stream::{Peer, Progress, Stream};
