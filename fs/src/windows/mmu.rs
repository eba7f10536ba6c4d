//! The seam to a memory-management unit.
//!
//! The address space for windows is an array of *slots*. A slot is one leaf page table:
//! 512 pages, 2 MiB of address space. It shows one leaf (512 blocks, aligned) of one
//! window's file, so a slot lines up with exactly one leaf node of the file's radix tree.
//! Slots are a cache: a window has slots attached only while it is being accessed.

use crate::types::Block;

/// Pages in a slot.
pub const PAGES_PER_SLOT: u32 = 512;

/// A slot: one leaf page table of the window area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A page of the window area, counted over all slots: `slot * 512 + index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Page(pub u32);

impl Slot {
    /// The page `index` (0 to 511) of this slot.
    pub fn page(self, index: u32) -> Page {
        debug_assert!(index < PAGES_PER_SLOT);
        Page(self.0 * PAGES_PER_SLOT + index)
    }
}

impl Page {
    /// The slot this page is in.
    pub fn slot(self) -> Slot {
        Slot(self.0 / PAGES_PER_SLOT)
    }
    /// Its index in the slot.
    pub fn index(self) -> u32 {
        self.0 % PAGES_PER_SLOT
    }
}

/// What a translation shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The page of zeros that stands for holes and unwritten blocks. Never writable.
    Zero,
    /// A block of the volume.
    Block(Block),
}

/// What a translation allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Loads only.
    Read,
    /// Loads and stores.
    Write,
}

/// How an access failed to translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Load,
    /// A store.
    Store,
}

/// Page tables of the window area.
///
/// Changing a translation does not reach accesses until [`Mmu::invalidate`] was called
/// for the page: until then the old translation may still be used (a stale TLB entry).
/// Two exceptions: a page that was not present is never cached, and a fault drops what is
/// cached of its own page.
pub trait Mmu {
    /// Number of slots. The page tables of all of them exist from the start.
    fn slots(&self) -> u32;

    /// Makes `page` show `frame` with these rights.
    fn set(&mut self, page: Page, frame: Frame, rights: Rights);

    /// Removes the translation of `page`.
    fn clear(&mut self, page: Page);

    /// The current translation of `page`, as the tables have it.
    fn get(&self, page: Page) -> Option<(Frame, Rights)>;

    /// Drops cached translations of `page`.
    fn invalidate(&mut self, page: Page);

    /// Drops cached translations of all pages of `slot`.
    fn invalidate_slot(&mut self, slot: Slot);
}
