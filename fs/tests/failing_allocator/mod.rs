//! An allocator that fails the n-th allocation of a thread. The server's tests use it too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Whether allocations of this thread count.
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    /// How many counted so far.
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// The one that fails; 0 for none.
    static FAILING: Cell<u64> = const { Cell::new(0) };
}

/// An allocator that fails the n-th allocation, if it is told to.
struct Failing;

#[global_allocator]
static ALLOCATOR: Failing = Failing;

fn fails() -> bool {
    if !COUNTING.get() {
        return false;
    }
    COUNT.set(COUNT.get() + 1);
    COUNT.get() == FAILING.get()
}

// SAFETY: all memory is that of the system's allocator, which keeps the contract; a null pointer is
// what an allocator answers that has no memory.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this function, which is that of the other.
        if fails() { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory is from there.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        if fails() { std::ptr::null_mut() } else { unsafe { System.realloc(at, layout, size) } }
    }
}

/// Runs what is being tested: its allocations count.
pub fn counted<R>(f: impl FnOnce() -> R) -> R {
    COUNTING.set(true);
    let result = f();
    COUNTING.set(false);
    result
}

/// From now on, the n-th allocation that counts fails.
pub fn fail(n: u64) {
    COUNT.set(0);
    FAILING.set(n);
}

/// Whether that allocation was come to; from now on, none fails.
pub fn has_failed() -> bool {
    let failed = COUNT.get() >= FAILING.get();
    FAILING.set(0);
    failed
}

/// Runs a case with `n` = 1, 2, ... until it says that there was no n-th allocation to fail; how
/// many there were.
pub fn each(mut case: impl FnMut(u64) -> bool) -> u64 {
    let mut n = 1;
    while case(n) {
        n += 1;
    }
    n - 1
}
