//! From a master to its shadows.
//!
//! A *master* is a block that is mapped read-only at least once; a *shadow* is one
//! read-only translation of it. The shadows of a block form a doubly linked list: the
//! head is in the block's record, so the master is found by block number; the links are
//! in an array beside the page tables, one link for each page of the window area. So a
//! shadow costs 8 bytes beside its page-table entry, and making one allocates nothing.
//!
//! Translations of the zero page have no list: nothing ever has to be found from it.

use super::mmu::{PAGES_PER_SLOT, Page};
use crate::blocks::Blocks;
use crate::pmem::{Pmem, Poisoned};
use crate::types::Block;
use alloc::vec;
use alloc::vec::Vec;

/// Neighbours in the list of a block's shadows: page number plus 1, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    next: u32,
    prev: u32,
}

/// The lists of all shadows.
pub(crate) struct Shadows {
    links: Vec<Link>,
    shadows: u64,
    masters: u64,
}

impl Shadows {
    /// No shadows, over a window area of this size.
    #[allow(clippy::disallowed_macros, reason = "a mount takes what it needs for good")]
    pub fn new(slots: u32) -> Self {
        let pages = slots as usize * PAGES_PER_SLOT as usize;
        Shadows { links: vec![Link::default(); pages], shadows: 0, masters: 0 }
    }

    /// Number of shadows.
    pub fn count(&self) -> u64 {
        self.shadows
    }

    /// Number of blocks that have shadows.
    pub fn masters(&self) -> u64 {
        self.masters
    }

    /// Makes a page a shadow of a block.
    #[inline]
    pub fn add<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        page: Page,
        block: Block,
    ) -> Result<(), Poisoned> {
        let head = blocks.replace_shadows(block, page.0 + 1)?;
        self.links[page.0 as usize] = Link { next: head, prev: 0 };
        match head {
            0 => self.masters += 1,
            head => self.links[head as usize - 1].prev = page.0 + 1,
        }
        self.shadows += 1;
        Ok(())
    }

    /// Tosses a shadow; with the last one the block stops being a master.
    #[inline(always)]
    pub fn remove<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        page: Page,
        block: Block,
    ) -> Result<(), Poisoned> {
        let Link { next, prev } = self.links[page.0 as usize];
        match prev {
            0 => blocks.set_shadows(block, next)?,
            prev => self.links[prev as usize - 1].next = next,
        }
        if next != 0 {
            self.links[next as usize - 1].prev = prev;
        }
        self.masters -= (next == 0 && prev == 0) as u64;
        self.shadows -= 1;
        self.links[page.0 as usize] = Link::default();
        Ok(())
    }

    /// Whether a page is in the list of the block's shadows.
    pub fn is_shadow<P: Pmem>(
        &self,
        blocks: &Blocks<P>,
        page: Page,
        block: Block,
    ) -> Result<bool, Poisoned> {
        let Link { next, prev } = self.links[page.0 as usize];
        let before = match prev {
            0 => blocks.shadows(block)?,
            prev => self.links[prev as usize - 1].next,
        };
        let behind = next == 0 || self.links[next as usize - 1].prev == page.0 + 1;
        Ok(before == page.0 + 1 && behind)
    }

    /// All shadows of a block.
    pub fn of<P: Pmem>(
        &self,
        blocks: &Blocks<P>,
        block: Block,
    ) -> Result<impl Iterator<Item = Page>, Poisoned> {
        let mut at = blocks.shadows(block)?;
        Ok(core::iter::from_fn(move || {
            let page = at.checked_sub(1)?;
            at = self.links.get(page as usize)?.next;
            Some(Page(page))
        }))
    }
}
