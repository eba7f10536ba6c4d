//! The heap: a first-fit list for the few things that live long, and a count of them.
//!
//! What is on a hot path does not allocate here: the list is searched from its start. The
//! heap grows by frames of the pool when an allocation does not fit, and never shrinks.

use super::{AREA, HEAP, PAGE, frames, round_up, space};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use linked_list_allocator::Heap;
use spin::Mutex;
use x86_64::VirtAddr;

/// The heap grows by at least this much.
const STEP: u64 = 256 << 10;
/// Frames that growing leaves to page tables and DMA.
const RESERVE: usize = 64;
/// What is kept back from what clients can make grow: requests that need little are done from it,
/// whatever others took.
const KEPT_BACK: usize = 256 << 10;

struct State {
    heap: Heap,
    size: u64,
    counts: HeapCounts,
}

/// Counts of the heap.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeapCounts {
    /// Bytes that the heap has, used or not.
    pub(crate) size: u64,
    /// Bytes in use.
    pub(crate) used: u64,
    /// The most bytes that were ever in use.
    pub(crate) peak: u64,
    /// Allocations that live.
    pub(crate) live: u64,
    /// Allocations ever made.
    pub(crate) allocations: u64,
}

/// The global allocator.
struct KernelHeap(Mutex<State>);

#[global_allocator]
static ALLOCATOR: KernelHeap = KernelHeap(Mutex::new(State {
    heap: Heap::empty(),
    size: 0,
    counts: HeapCounts { size: 0, used: 0, peak: 0, live: 0, allocations: 0 },
}));

impl State {
    /// Maps more memory behind the heap's end. Whether there was enough.
    fn grow(&mut self, need: u64) -> bool {
        // The list needs room for its own entries, and for alignment.
        let wanted = round_up(need.saturating_add(2 * PAGE).max(STEP), PAGE);
        let least = round_up(need.saturating_add(2 * PAGE), PAGE);
        let free = frames::counts().free.saturating_sub(RESERVE) as u64 * PAGE;
        let by = wanted.min(free);
        if by < least || self.size.checked_add(by).is_none_or(|size| size > AREA) {
            return false;
        }
        let mapped = space::map_heap(VirtAddr::new(HEAP + self.size), by);
        if mapped == 0 {
            return false;
        }
        if self.size == 0 {
            // SAFETY: the range was just mapped, and is used by nobody else.
            unsafe { self.heap.init(HEAP as *mut u8, mapped as usize) };
        } else {
            // SAFETY: the range behind the heap's end was just mapped, and is used by nobody else.
            unsafe { self.heap.extend(mapped as usize) };
        }
        self.size += mapped;
        self.counts.size = self.size;
        mapped >= least
    }
}

// SAFETY: blocks come from `Heap`, which hands out each byte once; the lock serialises.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut state = self.0.lock();
        let state = &mut *state;
        let block = match state.heap.allocate_first_fit(layout) {
            Ok(block) => block,
            Err(()) if state.grow(layout.size() as u64 + layout.align() as u64) => {
                match state.heap.allocate_first_fit(layout) {
                    Ok(block) => block,
                    Err(()) => return null_mut(),
                }
            }
            Err(()) => return null_mut(),
        };
        let counts = &mut state.counts;
        counts.used += layout.size() as u64;
        counts.peak = counts.peak.max(counts.used);
        counts.live += 1;
        counts.allocations += 1;
        block.as_ptr()
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let mut state = self.0.lock();
        if let Some(ptr) = NonNull::new(ptr) {
            // SAFETY: the caller gives back what `alloc` gave out, with the same layout.
            unsafe { state.heap.deallocate(ptr, layout) };
            state.counts.used -= layout.size() as u64;
            state.counts.live -= 1;
        }
    }
}

/// Whether `bytes` can be allocated, in one piece, and what is kept back besides.
pub(crate) fn admits(bytes: usize) -> bool {
    let need = bytes + KEPT_BACK;
    // Mostly there are frames that the heap can still grow by.
    if frames::counts().free.saturating_sub(RESERVE) * PAGE as usize >= need + 2 * PAGE as usize {
        return true;
    }
    let Ok(layout) = Layout::from_size_align(need, align_of::<u64>()) else { return false };
    let state = &mut *ALLOCATOR.0.lock();
    match state.heap.allocate_first_fit(layout) {
        Ok(block) => {
            // SAFETY: it was just allocated, with this layout.
            unsafe { state.heap.deallocate(block, layout) };
            true
        }
        Err(()) => false,
    }
}

/// What the heap has.
pub(crate) fn counts() -> HeapCounts {
    ALLOCATOR.0.lock().counts
}
