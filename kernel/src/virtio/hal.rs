//! Memory and registers for `virtio-drivers`.
//!
//! Devices reach all of RAM, and the NVDIMM, at their physical addresses, so sharing memory with
//! one is only a matter of knowing where it is. All shared memory comes from the pool of frames and
//! is seen through the direct map, or is a run of blocks that the volume has lent, seen through the
//! write path's alias.

use crate::mm::{AREA, DIRECT, PAGE, WRITE_ALIAS, direct, frames, space};
use core::ptr::NonNull;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// The kernel's memory, as `virtio-drivers` wants it.
#[derive(Debug)]
pub(crate) struct KernelHal;

/// Memory shared with devices for good: `pages` zeroed frames in a row.
pub(crate) fn shared(pages: usize) -> Option<&'static mut [u8]> {
    let (_, start) = frames::alloc_contiguous(pages)?;
    let len = pages * PAGE as usize;
    // SAFETY: the frames are the caller's alone, in the direct map, zeroed, and never given
    // back.
    Some(unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), len) })
}

/// One page for good. What it holds is whatever the frame held: memory that is written before
/// it is read need not be touched at start.
pub(crate) fn page() -> Option<&'static mut [u8; PAGE as usize]> {
    let start = direct(frames::take(1, 1)?).as_mut_ptr::<[u8; PAGE as usize]>();
    // SAFETY: the frame is the caller's alone, in the direct map, and never given back; any bytes
    // are bytes.
    Some(unsafe { &mut *start })
}

// SAFETY: each method says why below.
unsafe impl Hal for KernelHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // The frames are zeroed, aligned to pages and given to nobody else. Address 0, which is
        // never in the pool, says that there are none.
        match frames::alloc_contiguous(pages) {
            Some((phys, start)) => (phys.as_u64(), start),
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller gives back what `dma_alloc` gave out.
        unsafe { frames::free_contiguous(x86_64::PhysAddr::new(paddr), pages) };
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        // SAFETY: the caller says that it is a range of device registers.
        let mapped = unsafe { space::map_device(x86_64::PhysAddr::new(paddr), size as u64) };
        let at = mapped.expect("no memory to map registers of a virtio device");
        // Addresses of the device area are never null.
        NonNull::new(at.as_mut_ptr()).expect("registers at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let at = buffer.cast::<u8>().as_ptr() as u64;
        let base = if at < WRITE_ALIAS { DIRECT } else { WRITE_ALIAS };
        debug_assert!((base..base + AREA).contains(&at), "{at:#x} is shared with a device");
        at - base
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
