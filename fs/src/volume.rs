//! A mounted volume.
//!
//! The interface that servers and consoles use. Names are byte strings; paths are
//! resolved by the caller with [`Volume::resolve`].

use crate::dax::{Access, Mmu, Page, Slot};
use crate::error::Result;
use crate::pmem::Pmem;
use crate::types::*;
use core::ops::ControlFlow;

/// A mounted volume over persistent memory `P`, shown through the page tables `M`.
pub struct Volume<P, M> {
    _pmem: P,
    _mmu: M,
}
