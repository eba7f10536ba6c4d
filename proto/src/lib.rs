//! Wire formats: encode and decode, nothing else.
//!
//! No input or output happens here, and nothing is trusted: a decoder takes any bytes and
//! gives a value or an error, in time and memory bounded by the length of its input.
//! The formats are described to the byte in `docs/protocols.md`; a test of this crate
//! compares that page's examples with the code.
//!
//! | module | what |
//! |---|---|
//! | [`nbd`] | network block devices: handshake, requests, replies |
//! | [`rpc`] | the native protocol: frames, methods, errors |
//! | [`vsock`] | virtio-vsock: packets and credit |
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]

extern crate alloc;

pub mod nbd;
pub mod rpc;
pub mod vsock;
