//! A software MMU with a TLB, and a processor that runs on it.

use crate::dax::{AccessError, Machine};
use crate::error::Error;
use crate::pmem::Pmem;
use crate::types::BLOCK_SIZE;
use crate::volume::Volume;
use crate::windows::mmu::{Access, Frame, Mmu, PAGES_PER_SLOT, Page, Rights, Slot};
use alloc::vec;
use alloc::vec::Vec;

/// Page tables in memory, and a TLB that keeps every translation that was used until it
/// is invalidated.
#[derive(Clone, Debug)]
pub struct SoftMmu {
    table: Vec<Option<(Frame, Rights)>>,
    /// By page, as the table.
    tlb: Vec<Option<(Frame, Rights)>>,
    /// Pages invalidated one by one.
    pub invalidations: u64,
}

impl SoftMmu {
    /// Page tables for this many slots, all empty.
    pub fn new(slots: u32) -> Self {
        let table = vec![None; slots as usize * PAGES_PER_SLOT as usize];
        SoftMmu { tlb: table.clone(), table, invalidations: 0 }
    }

    /// Translates as a processor does: the TLB first, right or stale.
    fn translate(&mut self, page: Page, access: Access) -> Option<Frame> {
        let allows = |rights| access == Access::Load || rights == Rights::Write;
        let cached = self.tlb[page.0 as usize];
        if let Some((frame, rights)) = cached
            && allows(rights)
        {
            return Some(frame);
        }
        if let Some((frame, rights)) = self.table[page.0 as usize]
            && allows(rights)
        {
            self.tlb[page.0 as usize] = Some((frame, rights));
            return Some(frame);
        }
        // The fault drops what the TLB has of this page.
        self.tlb[page.0 as usize] = None;
        None
    }
}

impl Mmu for SoftMmu {
    fn slots(&self) -> u32 {
        (self.table.len() / PAGES_PER_SLOT as usize) as u32
    }
    fn set(&mut self, page: Page, frame: Frame, rights: Rights) {
        assert!(frame != Frame::Zero || rights == Rights::Read, "the zero page is never writable");
        self.table[page.0 as usize] = Some((frame, rights));
    }
    fn clear(&mut self, page: Page) {
        self.table[page.0 as usize] = None;
    }
    fn get(&self, page: Page) -> Option<(Frame, Rights)> {
        self.table[page.0 as usize]
    }
    fn invalidate(&mut self, page: Page) {
        self.invalidations += 1;
        self.tlb[page.0 as usize] = None;
    }
    fn invalidate_slot(&mut self, slot: Slot) {
        let first = slot.page(0).0 as usize;
        self.tlb[first..first + PAGES_PER_SLOT as usize].fill(None);
    }
}

/// A processor with the software MMU: its loads and stores fault as real ones do.
pub struct SoftMachine<P> {
    /// The mounted volume.
    pub volume: Volume<P, SoftMmu>,
}

impl<P: Pmem> SoftMachine<P> {
    /// Calls `each` for every piece of an access within one page: frame, offset in the page,
    /// and the range of the caller's bytes.
    fn access(
        &mut self,
        page: Page,
        offset: usize,
        len: usize,
        access: Access,
        mut each: impl FnMut(&mut P, Frame, u64, core::ops::Range<usize>) -> Result<(), Error>,
    ) -> Result<(), AccessError> {
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let here = Page(page.0 + (at / BLOCK_SIZE as usize) as u32);
            let within = at % BLOCK_SIZE as usize;
            let piece = (BLOCK_SIZE as usize - within).min(len - done);
            let mut tries = 0;
            let frame = loop {
                if let Some(frame) = self.volume.mmu_mut().translate(here, access) {
                    break frame;
                }
                assert!(tries < 2, "the fault handler said yes, and the access still faults");
                tries += 1;
                self.volume.fault(here, access).map_err(|error| AccessError { done, error })?;
            };
            each(self.volume.pmem_mut(), frame, within as u64, done..done + piece)
                .map_err(|error| AccessError { done, error })?;
            done += piece;
        }
        Ok(())
    }
}

impl<P: Pmem> Machine for SoftMachine<P> {
    type Pmem = P;
    type Mmu = SoftMmu;

    fn volume<R>(&mut self, f: impl FnOnce(&mut Volume<P, SoftMmu>) -> R) -> R {
        f(&mut self.volume)
    }

    fn load(&mut self, page: Page, offset: usize, into: &mut [u8]) -> Result<(), AccessError> {
        self.access(page, offset, into.len(), Access::Load, |pmem, frame, within, range| {
            match frame {
                Frame::Zero => into[range].fill(0),
                Frame::Block(block) => {
                    pmem.read(block.0 * BLOCK_SIZE + within, &mut into[range])?
                }
            }
            Ok(())
        })
    }

    fn store(&mut self, page: Page, offset: usize, from: &[u8]) -> Result<(), AccessError> {
        self.access(page, offset, from.len(), Access::Store, |pmem, frame, within, range| {
            let Frame::Block(block) = frame else {
                unreachable!("the zero page is never writable")
            };
            pmem.write(block.0 * BLOCK_SIZE + within, &from[range]);
            Ok(())
        })
    }
}
