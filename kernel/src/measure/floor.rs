//! Copies, comparisons, bare page faults, invalidation, write-back.

use super::{median, time};
use crate::arch::{compare, copy};
use crate::dax;
use crate::mm::{DIRECT, PAGE, WINDOWS, direct, frames, space};
use crate::nvdimm;
use crate::traps::stubs::{restore_scratch, save_scratch};
use crate::traps::tables;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;
use umbra_fs::pmem::LINE;
use umbra_server::platform::Sample;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::PageTableFlags as Flags;
use x86_64::{PhysAddr, VirtAddr};

const PAGES: u64 = 512;
/// Frames between what is copied from and what is copied to: not a power of two, so that they
/// share no entries of an emulator's TLB.
const APART: usize = 37;
/// The bare handler copies to other frames each time, as the real one does: what it stores to
/// is in no cache.
const AREAS: usize = 6;

global_asm!(
    r#"
    .text
    .balign 16
umbra_bare_page_fault:
"#,
    save_scratch!(),
    r#"
    subq $8, %rsp
    cld
    movq %cr2, %rdi
    call {handler}
    addq $8, %rsp
"#,
    restore_scratch!(),
    r#"
    addq $8, %rsp
    iretq
"#,
    handler = sym handle,
    options(att_syntax)
);

unsafe extern "C" {
    static umbra_bare_page_fault: u8;
}

const READ: u64 =
    Flags::PRESENT.union(Flags::NO_EXECUTE).union(Flags::ACCESSED).union(Flags::DIRTY).bits();
const WRITE: u64 = READ | Flags::WRITABLE.bits();

/// What the bare handler works on: where the pages are, their page table, the physical
/// addresses of the frames that are shown, and of those that are copied to (0: none).
static BASE: AtomicU64 = AtomicU64::new(0);
static TABLE: AtomicU64 = AtomicU64::new(0);
static FROM: AtomicU64 = AtomicU64::new(0);
static TO: AtomicU64 = AtomicU64::new(0);

/// The least that a handler can do: grants the store, to a copy if there is a place for one.
extern "C" fn handle(address: u64) {
    let offset = (address - BASE.load(Ordering::Relaxed)) & !(PAGE - 1);
    let from = FROM.load(Ordering::Relaxed) + offset;
    let to = TO.load(Ordering::Relaxed);
    let mut frame = from;
    // SAFETY: the tables and frames are those of a `Ground`, which lives as long as this handler
    // is in use; the offset is less than the 512 pages that it has.
    unsafe {
        if to != 0 {
            frame = to + offset;
            copy::chosen().copy(
                (DIRECT + frame) as *mut u8,
                (DIRECT + from) as *const u8,
                PAGE as usize,
            );
        }
        let entry = (TABLE.load(Ordering::Relaxed) as *mut u64).add((offset / PAGE) as usize);
        entry.write_volatile(frame | WRITE);
    }
}

/// A leaf page table behind the last slot, and the frames that it shows.
struct Ground {
    table: *mut u64,
    base: u64,
    /// 512 frames that are shown read-only.
    from: PhysAddr,
    /// As many frames for each area that is copied to.
    to: PhysAddr,
}

/// Frames of a ground: one run, of which `from` is the first part.
const FRAMES: usize = PAGES as usize + APART + AREAS * PAGES as usize;

impl Ground {
    fn new() -> Option<Ground> {
        // The page table stays for good; a second measurement uses it again.
        static HOOKED: Once<Option<(PhysAddr, u64)>> = Once::new();
        let hook = || {
            let base = WINDOWS + u64::from(dax::slots()) * dax::SLOT;
            let (table, _) = frames::alloc_contiguous(1)?;
            // SAFETY: the frame is zeroed and stays a page table; the address is behind the last
            // slot, and unused.
            unsafe { space::hook_leaf(VirtAddr::new(base), table).ok()? };
            Some((table, base))
        };
        let (table, base) = (*HOOKED.call_once(hook))?;
        // Zeroed, so that the host has memory for them.
        let (from, _) = frames::alloc_contiguous(FRAMES)?;
        let to = from + (PAGES + APART as u64) * PAGE;
        let ground = Ground { table: direct(table).as_mut_ptr(), base, from, to };
        BASE.store(base, Ordering::Relaxed);
        TABLE.store(ground.table as u64, Ordering::Relaxed);
        FROM.store(from.as_u64(), Ordering::Relaxed);
        Some(ground)
    }

    /// Where the kernel sees a page of an area that is copied to.
    fn target(&self, area: usize, index: usize) -> *mut u8 {
        assert!(area < AREAS && index < PAGES as usize);
        direct(self.to + (area as u64 * PAGES + index as u64) * PAGE).as_mut_ptr()
    }

    /// Shows all pages read-only, and loads from each.
    fn show(&self) {
        for index in 0..PAGES {
            let entry = (self.from.as_u64() + index * PAGE) | READ;
            // SAFETY: the table has 512 entries; the frames are this ground's.
            unsafe { self.table.add(index as usize).write_volatile(entry) };
        }
        reload();
        (0..PAGES).for_each(|index| self.load(index));
    }

    fn load(&self, index: u64) {
        // SAFETY: `show` mapped all pages.
        unsafe { ((self.base + index * PAGE) as *const u64).read_volatile() };
    }

    /// Time of a store to each page.
    fn store(&self) -> u64 {
        self.show();
        let entry = VirtAddr::from_ptr(&raw const umbra_bare_page_fault);
        let store = || {
            for index in 0..PAGES {
                // SAFETY: the page is mapped, and the bare handler grants the store.
                unsafe { ((self.base + index * PAGE) as *mut u64).write_volatile(index) };
            }
        };
        // SAFETY: the stores fault in this ground only, and its handler resolves that.
        time(|| unsafe { tables::with_page_fault_entry(entry, store) })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for index in 0..PAGES {
            // SAFETY: the table has 512 entries.
            unsafe { self.table.add(index as usize).write_volatile(0) };
        }
        reload();
        // SAFETY: the frames are this ground's, and shown nowhere any more.
        unsafe { frames::free_contiguous(self.from, FRAMES) };
    }
}

fn reload() {
    let (root, flags) = Cr3::read();
    // SAFETY: the same tables as before.
    unsafe { Cr3::write(root, flags) };
}

/// Measures.
pub(super) fn run(all: &mut Vec<Sample>) {
    let Some(ground) = Ground::new() else { return };
    let mut areas = (0..AREAS).cycle();
    let mut next = || areas.next().unwrap_or(0);
    TO.store(0, Ordering::Relaxed);
    all.push(median("empty_fault", PAGES, || ground.store()));
    all.push(median("fault_copy_4k", PAGES, || {
        let area = next() as u64;
        TO.store((ground.to + area * PAGES * PAGE).as_u64(), Ordering::Relaxed);
        ground.store()
    }));
    let mut copies = |name, method: &copy::Method| {
        median(name, PAGES, || {
            let area = next();
            time(|| {
                for index in 0..PAGES as usize {
                    let from = direct(ground.from + index as u64 * PAGE).as_ptr();
                    // SAFETY: both pages are this ground's.
                    unsafe { method.copy(ground.target(area, index), from, PAGE as usize) };
                }
            })
        })
    };
    all.push(copies("copy_4k", copy::chosen()));
    for (name, method) in
        ["copy_4k_moves", "copy_4k_rep_movsq", "copy_4k_rep_movsb"].iter().zip(&copy::METHODS)
    {
        all.push(copies(name, method));
    }
    all.push(median("compare_4k", PAGES, || {
        let area = next();
        for index in 0..PAGES as usize {
            let from = direct(ground.from + index as u64 * PAGE).as_ptr();
            // SAFETY: both pages are this ground's.
            unsafe { copy::chosen().copy(ground.target(area, index), from, PAGE as usize) };
        }
        time(|| {
            for index in 0..PAGES as usize {
                let from = direct(ground.from + index as u64 * PAGE).as_ptr();
                // SAFETY: both pages are this ground's, and nobody stores there.
                let found = unsafe {
                    compare::first_difference(from, ground.target(area, index), PAGE as usize)
                };
                assert_eq!(found, Ok(None), "a copy differs");
            }
        })
    }));
    ground.show();
    let invalidate =
        |index| x86_64::instructions::tlb::flush(VirtAddr::new(ground.base + index * PAGE));
    all.push(median("invalidate_page", PAGES, || time(|| (0..PAGES).for_each(invalidate))));
    let load_and = |then: &dyn Fn(u64)| {
        (0..PAGES).for_each(|index| {
            ground.load(index);
            then(index);
        });
    };
    all.push(median("load_and_invalidate_page", PAGES, || time(|| load_and(&invalidate))));
    all.push(median("load_and_invalidate_all", PAGES, || time(|| load_and(&|_| reload()))));
    let lines = PAGE / LINE;
    all.push(median("flush_line", PAGES * lines, || {
        // Lines of the ground cost what lines of the NVDIMM do; nothing is counted.
        time(|| {
            (0..PAGES as usize)
                .for_each(|index| nvdimm::write_back(ground.target(0, index) as u64, lines))
        })
    }));
    all.push(median("fence", PAGES, || time(|| (0..PAGES).for_each(|_| nvdimm::store_fence()))));
}
