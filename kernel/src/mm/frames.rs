//! The pool of physical frames.
//!
//! Page tables, DMA buffers and the heap take frames from here; windows take theirs once, at
//! start. All frames of the pool are in the direct map.

use super::boot::{MemoryMap, Use};
use super::{PAGE, direct, round_up};
use crate::frame_map::FrameMap;
use core::ptr::NonNull;
use spin::{Mutex, Once};
use x86_64::PhysAddr;
use x86_64::structures::paging::{FrameAllocator, PhysFrame, Size4KiB};

struct Pool {
    map: FrameMap<'static>,
    total: usize,
    least_free: usize,
}

static POOL: Once<Mutex<Pool>> = Once::new();

/// Counts of the pool, in frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameCounts {
    /// Frames that the pool ever had to give.
    pub(crate) total: usize,
    /// Frames that are free.
    pub(crate) free: usize,
    /// The fewest that were ever free.
    pub(crate) least_free: usize,
}

/// Starts the pool with all free regions; the map itself is put into the first that fits.
///
/// # Safety
///
/// Once, with regions that nobody uses, and with RAM mapped at [`super::DIRECT`].
pub(crate) unsafe fn init(memory: &MemoryMap) {
    let frames = (memory.end() / PAGE) as usize;
    let words = FrameMap::words(frames);
    let bytes = round_up(words as u64 * 8, PAGE);
    let start_of = |r: &super::boot::Region| round_up(r.start, PAGE);
    let home = memory
        .regions()
        .iter()
        .find(|r| r.usage == Use::Free && start_of(r) + bytes <= r.end)
        .map(start_of)
        .expect("no region of RAM has room for the map of frames");
    // SAFETY: the caller says that the region is unused and mapped; it is page-aligned and
    // long enough, and reserved below, so that no one else gets it.
    let words = unsafe {
        core::slice::from_raw_parts_mut(direct(PhysAddr::new(home)).as_mut_ptr::<u64>(), words)
    };
    let mut map = FrameMap::new(words, frames);
    let mut total = 0;
    for region in memory.regions().iter().filter(|r| r.usage == Use::Free) {
        total += release_region(&mut map, region.start, region.end);
    }
    map.reserve((home / PAGE) as usize, (bytes / PAGE) as usize);
    POOL.call_once(|| Mutex::new(Pool { least_free: map.free(), map, total }));
}

fn release_region(map: &mut FrameMap<'_>, start: u64, end: u64) -> usize {
    let (first, last) = (round_up(start, PAGE) / PAGE, end / PAGE);
    map.release(first as usize, last.saturating_sub(first) as usize)
}

/// Adds the loader's memory, without the frames that `keep` names.
///
/// # Safety
///
/// Nothing of the loader is in use any more but the frames that are kept: not its page
/// tables, its stack, its information, nor the file of the kernel.
pub(crate) unsafe fn reclaim_loader(memory: &MemoryMap, keep: impl Iterator<Item = PhysFrame>) {
    with(|pool| {
        for region in memory.regions().iter().filter(|r| r.usage == Use::Loader) {
            pool.total += release_region(&mut pool.map, region.start, region.end);
        }
        for frame in keep {
            let frame = (frame.start_address().as_u64() / PAGE) as usize;
            if pool.map.is_free(frame) {
                pool.map.reserve(frame, 1);
                pool.total -= 1;
            }
        }
    });
}

fn with<R>(f: impl FnOnce(&mut Pool) -> R) -> R {
    let mut pool = POOL.get().expect("the pool of frames is started first").lock();
    f(&mut pool)
}

/// Takes `pages` frames in a row, the first at a multiple of `align` frames (a power of
/// two); their content is arbitrary. `None` if there is no such run.
pub(crate) fn take(pages: usize, align: usize) -> Option<PhysAddr> {
    with(|pool| {
        let frame = pool.map.take(pages, align)?;
        pool.least_free = pool.least_free.min(pool.map.free());
        Some(PhysAddr::new(frame as u64 * PAGE))
    })
}

/// Takes `pages` zeroed frames in a row, for DMA and tables: their physical address, and
/// where the kernel sees them. They stay taken until [`free_contiguous`].
pub(crate) fn alloc_contiguous(pages: usize) -> Option<(PhysAddr, NonNull<u8>)> {
    let phys = take(pages, 1)?;
    let ptr = direct(phys).as_mut_ptr::<u8>();
    // SAFETY: the frames were free, so nobody else uses them, and the direct map has them.
    unsafe { ptr.write_bytes(0, pages * PAGE as usize) };
    Some((phys, NonNull::new(ptr)?))
}

/// Gives frames back.
///
/// # Safety
///
/// The frames came from [`take`] or [`alloc_contiguous`], and neither the kernel nor a device
/// uses them any more.
pub(crate) unsafe fn free_contiguous(phys: PhysAddr, pages: usize) {
    with(|pool| pool.map.release((phys.as_u64() / PAGE) as usize, pages));
}

/// What the pool has.
pub(crate) fn counts() -> FrameCounts {
    with(|pool| FrameCounts {
        total: pool.total,
        free: pool.map.free(),
        least_free: pool.least_free,
    })
}

/// Single frames of the pool, for page tables.
pub(crate) struct TableFrames;

// SAFETY: each frame is handed out once, and is unused.
unsafe impl FrameAllocator<Size4KiB> for TableFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        take(1, 1).map(PhysFrame::containing_address)
    }
}
