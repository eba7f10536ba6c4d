//! Streams over virtio-vsock (virtio 1.2, 5.10), as far as both ends do the same.
//!
//! | module | what |
//! |---|---|
//! | [`packet`] | the header, to the byte |
//! | [`window`] | credit in both directions |
//!
//! The guest's end is `kernel/src/vsock`, the host's `host/src/vsock`.

pub mod packet;
pub mod window;

pub use packet::{Address, Cid, HEADER_LEN, Header, Operation, Port};
