//! The floor: copies, bare page faults, invalidation.

use super::{Cost, median, time};
use crate::arch::{copy, tables};
use crate::dax;
use crate::mm::{PAGE, WINDOWS, frames, space};
use alloc::format;
use alloc::string::String;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::PageTableFlags as Flags;
use x86_64::{PhysAddr, VirtAddr};

const PAGES: u64 = 512;
/// Frames between what is copied from and what is copied to.
const APART: usize = 37;

/// A leaf page table behind the last slot, and the frames that it shows.
struct Ground {
    entries: *mut u64,
    /// Where its pages are.
    base: u64,
    /// 512 frames that are shown read-only, and 512 that the bare handler copies to.
    from: (PhysAddr, *mut u8),
    to: (PhysAddr, *mut u8),
}

// SAFETY: used by one thread of control: the console.
unsafe impl Send for Ground {}
// SAFETY: as above.
unsafe impl Sync for Ground {}

static GROUND: Once<Option<Ground>> = Once::new();
/// What the bare handler does: 0, grant; 1, copy and show the copy.
static COPIES: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .text
    .balign 16
umbra_bare_page_fault:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    subq $8, %rsp
    cld
    movq %cr2, %rdi
    call {handler}
    addq $8, %rsp
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rax
    addq $8, %rsp
    iretq
"#,
    handler = sym handle,
    options(att_syntax)
);

unsafe extern "C" {
    static umbra_bare_page_fault: u8;
}

const READ: u64 = Flags::PRESENT.union(Flags::NO_EXECUTE).union(Flags::ACCESSED).union(Flags::DIRTY).bits();

/// The least that a handler can do.
extern "C" fn handle(address: u64) {
    let Some(Some(ground)) = GROUND.get() else { return };
    let index = ((address - ground.base) / PAGE % PAGES) as usize;
    let mut frame = ground.from.0.as_u64() + index as u64 * PAGE;
    // SAFETY: both runs have 512 frames, the table has 512 entries, and the index is less.
    unsafe {
        if COPIES.load(Ordering::Relaxed) != 0 {
            let offset = index * PAGE as usize;
            copy::chosen().copy(ground.to.1.add(offset), ground.from.1.add(offset), PAGE as usize);
            frame = ground.to.0.as_u64() + offset as u64;
        }
        ground.entries.add(index).write_volatile(frame | READ | Flags::WRITABLE.bits());
    }
}

impl Ground {
    fn new() -> Option<Ground> {
        let base = WINDOWS + u64::from(dax::slots()) * dax::SLOT;
        let (table, entries) = frames::alloc_contiguous(1)?;
        let from = frames::alloc_contiguous(PAGES as usize)?;
        // Not a power of two apart: they would share the entries of an emulator's TLB.
        frames::take(APART, 1)?;
        let to = frames::alloc_contiguous(PAGES as usize)?;
        // SAFETY: the frame is zeroed and becomes a page table for good; the address is behind the
        // last slot, and unused.
        unsafe { space::hook_leaf(VirtAddr::new(base), table).ok()? };
        Some(Ground {
            entries: entries.as_ptr().cast(),
            base,
            from: (from.0, from.1.as_ptr()),
            to: (to.0, to.1.as_ptr()),
        })
    }

    /// Shows all pages read-only, and loads from each.
    fn show(&self) {
        for index in 0..PAGES {
            // SAFETY: the table has 512 entries; the frames are this ground's.
            unsafe {
                self.entries.add(index as usize).write_volatile((self.from.0.as_u64() + index * PAGE) | READ);
            }
        }
        reload();
        for index in 0..PAGES {
            // SAFETY: the page was mapped just now.
            unsafe { ((self.base + index * PAGE) as *const u64).read_volatile() };
        }
    }

    /// Time of a store to each page.
    fn store(&self) -> Cost {
        self.show();
        let entry = VirtAddr::from_ptr(&raw const umbra_bare_page_fault);
        let store = || {
            for index in 0..PAGES {
                // SAFETY: the page is mapped, and the bare handler grants the store.
                unsafe { ((self.base + index * PAGE) as *mut u64).write_volatile(index) };
            }
        };
        // SAFETY: the stores fault in this ground only, and its handler resolves that.
        time(PAGES, || unsafe { tables::with_page_fault_entry(entry, store) })
    }
}

fn reload() {
    let (root, flags) = Cr3::read();
    // SAFETY: the same tables as before.
    unsafe { Cr3::write(root, flags) };
}

/// Measures, and returns what a bare page fault with a copy of 4 KiB costs.
pub(super) fn run(line: &mut dyn FnMut(&str)) -> Result<Cost, String> {
    let ground = GROUND.call_once(Ground::new).as_ref().ok_or("no memory to measure in")?;
    for method in &copy::METHODS {
        let cost = median(|| {
            Ok(time(PAGES, || {
                for index in 0..PAGES as usize {
                    let offset = index * PAGE as usize;
                    // SAFETY: both runs have 512 frames.
                    unsafe { method.copy(ground.to.1.add(offset), ground.from.1.add(offset), PAGE as usize) };
                }
            }))
        })?;
        line(&format!("copy of 4 KiB by {}: {cost}", method.name));
    }
    ground.show();
    let invalidate = median(|| {
        Ok(time(PAGES, || {
            for index in 0..PAGES {
                x86_64::instructions::tlb::flush(VirtAddr::new(ground.base + index * PAGE));
            }
        }))
    })?;
    line(&format!("invalidation of a page that no longer is in the TLB: {invalidate}"));
    let touched = median(|| {
        Ok(time(PAGES, || {
            for index in 0..PAGES {
                let at = ground.base + index * PAGE;
                // SAFETY: the page is mapped.
                unsafe { (at as *const u64).read_volatile() };
                x86_64::instructions::tlb::flush(VirtAddr::new(at));
            }
        }))
    })?;
    line(&format!("load that fills the TLB, and invalidation: {touched}"));
    let all = median(|| {
        Ok(time(PAGES, || {
            for index in 0..PAGES {
                // SAFETY: the page is mapped.
                unsafe { ((ground.base + index * PAGE) as *const u64).read_volatile() };
                reload();
            }
        }))
    })?;
    line(&format!("load that fills the TLB, and invalidation of all windows: {all}"));
    COPIES.store(0, Ordering::Relaxed);
    let empty = median(|| Ok(ground.store()))?;
    line(&format!("bare page fault (store granted): {empty}"));
    COPIES.store(1, Ordering::Relaxed);
    let with_copy = median(|| Ok(ground.store()))?;
    line(&format!("bare page fault with a copy of 4 KiB (the floor): {with_copy}"));
    Ok(with_copy)
}
