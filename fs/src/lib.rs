//! The filesystem: block numbers, never addresses.
//!
//! Everything here runs over the [`Pmem`] seam, so all of it is tested on the host.
//! What the filesystem shows through page tables is in [`dax`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod dax;
mod error;
pub mod pmem;
mod types;
mod volume;

pub use error::{Error, Result};
pub use pmem::Pmem;
pub use types::*;
pub use volume::*;
