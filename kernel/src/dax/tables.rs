//! Page tables of the window area.
//!
//! The leaf tables of all slots are one run of frames, so that the entry of a page is found
//! by its number alone; the tables above them are filled once and never change. An entry
//! is not global: reloading CR3 invalidates all windows, and nothing else.

use crate::mm::{PAGE, WINDOWS, frames, space};
use core::sync::atomic::{AtomicU32, Ordering};
use umbra_fs::Block;
use umbra_fs::dax::{Frame, Mmu, PAGES_PER_SLOT, Page, Rights, Slot};
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::PageTableFlags as Flags;
use x86_64::{PhysAddr, VirtAddr};

/// RAM for each slot that the window area has: its leaf table is a sixteenth of that.
const RAM_PER_SLOT: u64 = 64 << 10;
const FEWEST_SLOTS: u64 = 16;
const MOST_SLOTS: u64 = 4096;
/// Bytes of address space in a slot.
pub(crate) const SLOT: u64 = PAGE * PAGES_PER_SLOT as u64;

/// Bits 12 to 51 of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Accessed and dirty are set from the start: the processor then has no reason to write to
/// the entry, and nothing here reads them.
const READ: u64 =
    Flags::PRESENT.union(Flags::NO_EXECUTE).union(Flags::ACCESSED).union(Flags::DIRTY).bits();
const WRITE: u64 = READ | Flags::WRITABLE.bits();

static SLOTS: AtomicU32 = AtomicU32::new(0);

/// Number of slots that are mapped.
#[inline]
pub(crate) fn slots() -> u32 {
    SLOTS.load(Ordering::Relaxed)
}

/// Where a page of the window area is.
pub(crate) fn address_of(page: Page) -> u64 {
    WINDOWS + u64::from(page.0) * PAGE
}

/// The page that an address is in, if it is in the window area.
#[inline]
pub(crate) fn page_of(address: u64) -> Option<Page> {
    let offset = address.wrapping_sub(WINDOWS);
    (offset < u64::from(slots()) * SLOT).then_some(Page((offset / PAGE) as u32))
}

/// The page tables.
pub(crate) struct WindowTables {
    /// The entries of all leaf tables, in the direct map.
    entries: *mut u64,
    slots: u32,
    zero: u64,
    /// Where block 0 is.
    media: u64,
}

// SAFETY: the tables belong to this value alone, on whichever thread it is.
unsafe impl Send for WindowTables {}

impl WindowTables {
    /// Takes frames for as many slots as are wanted, or else suit `ram` bytes of RAM, and hooks
    /// them into the address space. Blocks are counted from `media`. Once; `None` if there is no
    /// memory.
    pub(crate) fn new(ram: u64, wanted: Option<u32>, media: PhysAddr) -> Option<WindowTables> {
        assert_eq!(slots(), 0, "the window area is built once");
        let mut slots = match wanted {
            Some(wanted) => u64::from(wanted).min(MOST_SLOTS),
            None => (ram / RAM_PER_SLOT).clamp(FEWEST_SLOTS, MOST_SLOTS),
        };
        let (tables, entries) = loop {
            match frames::alloc_contiguous(slots as usize) {
                Some((tables, entries)) => break (tables, entries.as_ptr().cast()),
                None if slots == 0 => break (PhysAddr::zero(), core::ptr::null_mut()),
                None if slots > FEWEST_SLOTS => slots /= 2,
                None => return None,
            }
        };
        for slot in 0..slots {
            // SAFETY: the frames are zeroed and become page tables for good; the window area is
            // unused so far.
            unsafe {
                space::hook_leaf(VirtAddr::new(WINDOWS + slot * SLOT), tables + slot * PAGE).ok()?
            };
        }
        let (zero, _) = frames::alloc_contiguous(1)?;
        SLOTS.store(slots as u32, Ordering::Relaxed);
        Some(WindowTables {
            entries,
            slots: slots as u32,
            zero: zero.as_u64(),
            media: media.as_u64(),
        })
    }

    #[inline]
    fn entry(&self, page: Page) -> *mut u64 {
        assert!(page.slot().0 < self.slots, "a page is beyond the last slot");
        // SAFETY: the run of tables has 512 entries for each slot.
        unsafe { self.entries.add(page.0 as usize) }
    }
}

impl Mmu for WindowTables {
    fn slots(&self) -> u32 {
        self.slots
    }

    #[inline]
    fn set(&mut self, page: Page, frame: Frame, rights: Rights) {
        let flags = match rights {
            Rights::Read => READ,
            Rights::Write => WRITE,
        };
        let address = match frame {
            Frame::Zero => {
                assert!(rights == Rights::Read, "the zero page is never writable");
                self.zero
            }
            Frame::Block(block) => self.media + block.0 * PAGE,
        };
        // SAFETY: the entry is this value's; the frame is the zero page, or a block of the NVDIMM
        // that the filesystem vouches for.
        unsafe { self.entry(page).write_volatile(address & ADDRESS | flags) };
    }

    #[inline]
    fn clear(&mut self, page: Page) {
        // SAFETY: the entry is this value's.
        unsafe { self.entry(page).write_volatile(0) };
    }

    #[inline]
    fn get(&self, page: Page) -> Option<(Frame, Rights)> {
        // SAFETY: the entry is this value's.
        let entry = unsafe { self.entry(page).read_volatile() };
        if entry & Flags::PRESENT.bits() == 0 {
            return None;
        }
        let rights = if entry & Flags::WRITABLE.bits() != 0 { Rights::Write } else { Rights::Read };
        let frame = match entry & ADDRESS {
            address if address == self.zero => Frame::Zero,
            address => Frame::Block(Block((address - self.media) / PAGE)),
        };
        Some((frame, rights))
    }

    #[inline]
    fn invalidate(&mut self, page: Page) {
        x86_64::instructions::tlb::flush(VirtAddr::new(address_of(page)));
    }

    fn invalidate_slot(&mut self, _: Slot) {
        // All windows at once: cheaper than 512 pages one by one.
        let (root, flags) = Cr3::read();
        // SAFETY: the same tables as before.
        unsafe { Cr3::write(root, flags) };
    }
}
