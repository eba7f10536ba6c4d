//! From start info to the kernel's entry point, by way of the crate `bootloader-x86_64-common`.
//!
//! That crate panics on what it does not expect, and its frame allocator has no bounds of its own,
//! so everything it is given has been checked before: the kernel's file, the regions, and that
//! there is memory enough.

use core::convert::Infallible;
use core::fmt;

use bootloader_api::info::MemoryRegionKind;
use bootloader_boot_config::BootConfig;
use bootloader_x86_64_common::legacy_memory_region::{LegacyFrameAllocator, LegacyMemoryRegion};
use bootloader_x86_64_common::{Kernel, PageTables, SystemInfo, load_and_switch_to_kernel};
use x86_64::structures::paging::{FrameAllocator, OffsetPageTable, PageTable, PhysFrame};
use x86_64::{PhysAddr, VirtAddr};

use umbra_boot::memory::{Owner, Region, Regions};
use umbra_boot::pvh::{PhysicalMemory, StartInfo};
use umbra_boot::{PAGE, REACH, image, pvh};

use crate::paging;
use crate::physical::Identity;

/// Why the kernel cannot be started.
pub enum Error {
    /// The start info is unusable.
    StartInfo(pvh::Error),
    /// The kernel's file is.
    Kernel(image::Error),
    /// There is too little memory, in KiB.
    TooLittleMemory { need: u64, have: u64 },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartInfo(error) => error.fmt(f),
            Self::Kernel(error) => error.fmt(f),
            Self::TooLittleMemory { need, have } => {
                write!(
                    f,
                    "too little memory: the kernel needs {need} KiB, {have} KiB are free; \
                     give QEMU more with -m"
                )
            }
        }
    }
}

/// A region as the crate wants to see it.
#[derive(Clone, Copy, Debug)]
struct Described(Region);

impl LegacyMemoryRegion for Described {
    fn start(&self) -> PhysAddr {
        PhysAddr::new(self.0.start)
    }

    fn len(&self) -> u64 {
        self.0.end - self.0.start
    }

    fn kind(&self) -> MemoryRegionKind {
        match self.0.owner {
            Owner::Nobody => MemoryRegionKind::Usable,
            Owner::Loader => MemoryRegionKind::Bootloader,
            Owner::Firmware(kind) => MemoryRegionKind::UnknownBios(kind),
        }
    }

    fn usable_after_bootloader_exit(&self) -> bool {
        self.0.owner == Owner::Nobody
    }
}

/// Checks what PVH handed over and starts the kernel; comes back only with a reason why not.
pub fn run(start_info: u64) -> Result<Infallible, Error> {
    let info = StartInfo::read(&Identity, start_info).map_err(Error::StartInfo)?;
    let file = Identity.bytes(info.kernel_start, info.kernel_length);
    let file =
        file.ok_or(Error::StartInfo(pvh::Error::OutOfReach("kernel's file", info.kernel_start)))?;
    let image_pages = image::check(file).map_err(Error::Kernel)?;
    let kernel = Kernel::parse(file);

    let kept = [
        paging::loader(),
        (info.kernel_start, info.kernel_start + info.kernel_length.next_multiple_of(PAGE)),
    ];
    let regions = Regions::new(info.memmap(), &kept);

    // The image; the stack with a table for each 512 pages; a table for each GiB of the direct
    // mapping; what is above those tables, GDT, BootInfo: 64 is generous.
    let stack_pages = kernel.config.kernel_stack_size.div_ceil(PAGE);
    let need = (image_pages + regions.end().div_ceil(1 << 30) + 64)
        .saturating_add(stack_pages)
        .saturating_add(stack_pages.div_ceil(512));
    let have = regions.usable_below(REACH) / PAGE;
    if need > have {
        let kib = |pages: u64| pages.saturating_mul(PAGE / 1024);
        return Err(Error::TooLittleMemory { need: kib(need), have: kib(have) });
    }

    let described = regions.as_slice().iter().map(|region| Described(*region));
    let mut frames = LegacyFrameAllocator::new(described);
    let page_tables = page_tables(&mut frames)
        .ok_or(Error::TooLittleMemory { need: need * PAGE / 1024, have: 0 })?;
    let system = SystemInfo {
        framebuffer: None,
        rsdp_addr: info.rsdp.and_then(|address| PhysAddr::try_new(address).ok()),
        ramdisk_addr: None,
        ramdisk_len: 0,
    };
    load_and_switch_to_kernel(kernel, BootConfig::default(), frames, page_tables, system)
}

/// The loader's own page tables, and an empty level 4 table for the kernel.
fn page_tables(
    frames: &mut impl FrameAllocator<x86_64::structures::paging::Size4KiB>,
) -> Option<PageTables> {
    let kernel_level_4_frame: PhysFrame = frames.allocate_frame()?;
    let (loader_level_4_frame, _) = x86_64::registers::control::Cr3::read();
    let table = |frame: PhysFrame| frame.start_address().as_u64() as *mut PageTable;
    let kernel = table(kernel_level_4_frame);
    // SAFETY: the frame is RAM below `REACH` that the allocator has just given away for good:
    // mapped, writable, page-aligned, and nobody else's. It is a valid table once it is zero.
    let kernel = unsafe {
        kernel.write(PageTable::new());
        &mut *kernel
    };
    // SAFETY: the table CR3 points to; `paging` keeps no reference to it (it changes lower ones),
    // and its frames are static. Physical memory is mapped at offset 0, which is what the level 4
    // tables are wrapped with.
    let (bootloader, kernel) = unsafe {
        let loader = &mut *table(loader_level_4_frame);
        let offset = VirtAddr::zero();
        (OffsetPageTable::new(loader, offset), OffsetPageTable::new(kernel, offset))
    };
    Some(PageTables { bootloader, kernel, kernel_level_4_frame })
}
