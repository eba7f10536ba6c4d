//! Builds and launches the VM; client library.

pub mod build;
pub mod toolchain;
