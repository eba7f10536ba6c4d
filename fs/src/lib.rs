//! The filesystem: block numbers, never addresses.
//!
//! | module | what |
//! |---|---|
//! | [`pmem`] | the seam to persistent memory: every store, flush and fence |
//! | [`memory`] | memory that may not be there |
//! | `format` | what the bytes on media mean |
//! | `blocks` | references to blocks, free blocks, reclaiming, checkpoint: derived state |
//! | `tree` | the way from the top of the volume to a block; one change, published by one store |
//! | `windows` | what is shown through page tables: windows, masters, shadows |
//! | `volume` | the operations ([`Volume`]) |
//! | [`dax`] | the page-fault handler, and loads and stores through windows |
//! | `testing` | memory that logs, a software MMU (feature `testing`) |
//!
//! Everything runs over the seams [`Pmem`] and [`dax::Mmu`], so all of it is tested on the host.
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::missing_errors_doc)]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::disallowed_macros))]

extern crate alloc;

mod blocks;
pub mod dax;
mod error;
mod format;
pub mod memory;
/// A program that gets the order of a commit wrong: see `tests/order.rs`.
#[cfg(order_case)]
#[allow(dead_code, unused_imports)]
mod order_case {
    use crate::blocks::{Blocks, Content, Distance, Fresh};
    use crate::format::word::Pointer;
    use crate::pmem::Pmem;
    use crate::tree::stage::{
        Durable, Exclusive, Flushed, Place, Published, Shared, Stage, Unwritten, Written,
    };
    use crate::types::Block;
    use alloc::vec::Vec;
    include!(env!("UMBRA_ORDER_CASE"));
}
pub mod pmem;
#[cfg(feature = "testing")]
#[allow(clippy::disallowed_methods, clippy::disallowed_macros)]
pub mod testing;
mod tree;
mod types;
mod volume;
mod windows;

pub use blocks::{LENT_RUN, Lending};
pub use error::{Error, Result};
pub use pmem::Pmem;
pub use types::*;
pub use volume::check::Check;
pub use volume::check::report::CheckReport;
pub use volume::climb::Climb;
pub use volume::dedupe::{Dedupe, Deduped};
pub use volume::links::{Existing, check_target};
pub use volume::mount::{FormatOptions, MountError, holds_volume};
pub use volume::owners::{BadBlock, Loss, Owned, OwnerSearch, Owners};
pub use volume::paths::{Component, components};
pub use volume::work::{Begun, Operation, Outcome};
pub use volume::{
    BadBlockCounts, FaultCounts, IDENTITY_LEN, PageCount, PagesReport, Scrub, Struck, Volume,
};
pub use windows::Window;
