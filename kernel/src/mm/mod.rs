//! Memory: the address space, physical frames, the heap.
//!
//! ```text
//! ffff_8000_0000_0000  direct map      all of RAM, writable but for the frames of the kernel's
//!                                      code and constants; the NVDIMM, read-only, at its
//!                                      physical address
//! ffff_8080_0000_0000  write alias     the NVDIMM once more, writable: the write path's own
//! ffff_8100_0000_0000  windows         slots of 2 MiB: what files show (dax)
//! ffff_8180_0000_0000  devices         registers, uncached
//! ffff_8200_0000_0000  stacks          each above a guard page that is never mapped
//! ffff_8280_0000_0000  heap            grows, never shrinks
//! ffff_ffff_8000_0000  kernel image    code r-x, constants r--, data rw-
//! ```
//!
//! Each of the first six has one entry of the top table (512 GiB). Nothing is writable and
//! executable, nothing that is executable has a writable alias, and the low half is empty, so
//! that null pointers fault. CR0.WP is on and stays on.
//!
//! Only the direct map and the write alias use pages of 2 MiB and 1 GiB. They share the
//! aligned terabyte at ffff_8000_0000_0000, and all else is outside: an emulator that keeps
//! one span for all large pages flushes everything when a page within it is invalidated.
//!
//! Left out: processes, swapping, giving frames back to a host.
//!
//! | file | what it holds |
//! |---|---|
//! | `boot.rs` | which memory there is, as the loader says |
//! | `frames.rs` | the pool of physical frames |
//! | `space.rs` | building the address space, mapping devices and the NVDIMM |
//! | `image.rs` | the kernel's own segments |
//! | `stack.rs` | stacks and their guard pages |
//! | `heap.rs` | the global allocator |

pub(crate) mod boot;
pub(crate) mod frames;
pub(crate) mod heap;
pub(crate) mod image;
pub(crate) mod space;
pub(crate) mod stack;

use x86_64::{PhysAddr, VirtAddr};

/// Where physical memory is mapped (see the drawing above).
pub const DIRECT: u64 = 0xffff_8000_0000_0000;
/// Where the NVDIMM is mapped for writing, at its physical address.
pub(crate) const WRITE_ALIAS: u64 = 0xffff_8080_0000_0000;
/// Where windows are.
pub(crate) const WINDOWS: u64 = 0xffff_8100_0000_0000;
/// Where device registers are mapped.
pub(crate) const DEVICES: u64 = 0xffff_8180_0000_0000;
/// Where stacks are.
pub(crate) const STACKS: u64 = 0xffff_8200_0000_0000;
/// Where the heap is.
pub(crate) const HEAP: u64 = 0xffff_8280_0000_0000;
/// What each of these areas may hold.
pub(crate) const AREA: u64 = 512 << 30;

/// Bytes in a frame and in a small page.
pub(crate) const PAGE: u64 = 4096;

/// Where the direct map has a physical address. Whether anything is mapped there is another
/// question: RAM and the NVDIMM are.
pub(crate) fn direct(phys: PhysAddr) -> VirtAddr {
    VirtAddr::new(DIRECT + phys.as_u64())
}

/// Rounds up to a multiple of `unit`, a power of two.
pub(crate) const fn round_up(value: u64, unit: u64) -> u64 {
    (value + unit - 1) & !(unit - 1)
}
