//! The filesystem: block numbers, never addresses.
//!
//! | module | what |
//! |---|---|
//! | [`pmem`] | the seam to persistent memory: every store, flush and fence |
//! | `format` | what the bytes on media mean |
//! | `blocks` | references to blocks, free blocks, reclaiming: derived state |
//! | `checkpoint` | the derived state across a clean unmount |
//! | `stage` | the order of a commit, as types |
//! | `path` | the way from the top of the volume to a block |
//! | `commit` | one change of any number of words, published by one store |
//! | `volume` | the operations ([`Volume`]) |
//! | [`dax`] | what is shown through page tables: windows, masters, shadows, faults |
//! | `testing` | memory that logs, a software MMU (feature `testing`) |
//!
//! Everything runs over the seams [`Pmem`] and [`dax::Mmu`], so all of it is tested on the host.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod blocks;
mod checkpoint;
mod commit;
pub mod dax;
mod error;
mod format;
/// A program that gets the order of a commit wrong: see `tests/order.rs`.
#[cfg(order_case)]
#[allow(dead_code, unused_imports)]
mod order_case {
    use crate::blocks::{Blocks, Content, Fresh};
    use crate::pmem::Pmem;
    use crate::stage::{Durable, Exclusive, Flushed, Place, Published, Shared, Stage, Written};
    use crate::types::Block;
    use alloc::vec::Vec;
    include!(env!("UMBRA_ORDER_CASE"));
}
mod path;
pub mod pmem;
mod stage;
#[cfg(feature = "testing")]
pub mod testing;
mod types;
mod volume;

pub use dax::Window;
pub use error::{Error, Result};
pub use pmem::Pmem;
pub use types::*;
pub use volume::*;
