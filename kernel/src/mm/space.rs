//! Building the address space, and mapping into it.

use super::boot::MemoryMap;
use super::frames::{self, TableFrames};
use super::image::{self, Rights};
use super::stack::Stack;
use super::{AREA, DEVICES, DIRECT, HEAP, PAGE, WRITE_ALIAS, direct, round_up};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::{MapToError, TranslateResult};
use x86_64::structures::paging::{
    Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags as Flags, PhysFrame,
    Size1GiB, Size2MiB, Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

const LARGE: u64 = Size2MiB::SIZE;
const READ: Flags = Flags::PRESENT.union(Flags::NO_EXECUTE).union(Flags::GLOBAL);
const WRITE: Flags = READ.union(Flags::WRITABLE);
const EXECUTE: Flags = Flags::PRESENT.union(Flags::GLOBAL);
const DEVICE: Flags = WRITE.union(Flags::NO_CACHE).union(Flags::WRITE_THROUGH);

/// Why memory could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapError {
    /// No frames are left for page tables.
    NoFrames,
    /// The range is beyond what the address space has room for.
    OutOfReach,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MapError::NoFrames => "no memory for page tables",
            MapError::OutOfReach => "beyond the first 512 GiB of physical addresses",
        })
    }
}

impl<S: PageSize + fmt::Debug> From<MapToError<S>> for MapError {
    fn from(error: MapToError<S>) -> Self {
        match error {
            MapToError::FrameAllocationFailed => MapError::NoFrames,
            // Each range below is mapped once, at a place of its own.
            other => panic!("mapping twice: {other:?}"),
        }
    }
}

/// The page tables in use, once they are the kernel's own.
static SPACE: Mutex<Option<OffsetPageTable<'static>>> = Mutex::new(None);
/// Bytes of the device area that are taken.
static DEVICES_TAKEN: AtomicU64 = AtomicU64::new(0);
/// End of RAM in the direct map.
static RAM_END: AtomicU64 = AtomicU64::new(0);

fn table(phys: PhysAddr) -> *mut PageTable {
    direct(phys).as_mut_ptr()
}

/// The page tables that the processor uses.
///
/// # Safety
///
/// Their frames are in the direct map, and nobody else holds them.
unsafe fn active() -> OffsetPageTable<'static> {
    let root = table(Cr3::read().0.start_address());
    // SAFETY: the caller's duty; the root is valid since the processor uses it.
    unsafe { OffsetPageTable::new(&mut *root, VirtAddr::new(DIRECT)) }
}

/// Builds the kernel's address space and switches to it. The stack in use is the loader's
/// still, which is kept mapped nowhere: the caller passes what continues on the main stack.
///
/// # Safety
///
/// Once, with the loader's page tables active, RAM mapped at [`DIRECT`] and the pool of
/// frames started; `continue_on_main` never returns.
pub(crate) unsafe fn enter(memory: &MemoryMap, continue_on_main: extern "C" fn() -> !) -> ! {
    // SAFETY: the caller says that the loader mapped RAM there.
    let loader = unsafe { active() };
    let root = frames::take(1, 1).expect("no frame for the top page table");
    // SAFETY: the frame is free and in the direct map.
    let root_table = unsafe { &mut *table(root) };
    root_table.zero();
    // SAFETY: the table is new; its frames are in the direct map.
    let mut space = unsafe { OffsetPageTable::new(root_table, VirtAddr::new(DIRECT)) };
    map_ram(&mut space, memory).expect("no memory for the direct map");
    map_image(&mut space, &loader).expect("no memory to map the kernel");
    for stack in Stack::ALL {
        let frame = frames::take((stack.size() / PAGE) as usize, 1).expect("no memory for stacks");
        map(&mut space, VirtAddr::new(stack.bottom()), frame, stack.size(), WRITE)
            .expect("no memory to map stacks");
    }
    // The heap's top table entry: growing then needs lower tables only.
    RAM_END.store(memory.end(), Ordering::Relaxed);
    *SPACE.lock() = Some(space);
    let root = PhysFrame::<Size4KiB>::containing_address(root).start_address().as_u64();
    // SAFETY: the new tables map the image and its data where they are, and the main stack;
    // nothing on the old stack is used any more, since the function never returns.
    unsafe {
        core::arch::asm!(
            "mov cr3, {root}",
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {next}",
            "ud2",
            root = in(reg) root | Cr3Flags::empty().bits(),
            stack = in(reg) Stack::Main.top().as_u64(),
            next = in(reg) continue_on_main,
            options(noreturn)
        )
    }
}

/// Maps RAM in pages of 2 MiB.
fn map_ram(space: &mut OffsetPageTable<'_>, memory: &MemoryMap) -> Result<(), MapError> {
    let mut mapped = 0;
    for region in memory.regions() {
        let start = (region.start & !(LARGE - 1)).max(mapped);
        let end = round_up(region.end, LARGE);
        if end > AREA {
            return Err(MapError::OutOfReach);
        }
        for at in (start..end).step_by(LARGE as usize) {
            let page = Page::<Size2MiB>::containing_address(direct(PhysAddr::new(at)));
            let frame = PhysFrame::containing_address(PhysAddr::new(at));
            // SAFETY: RAM, at its place in the direct map, which is unused in the new tables.
            unsafe { space.map_to(page, frame, WRITE, &mut TableFrames)?.ignore() };
        }
        mapped = mapped.max(end);
    }
    Ok(())
}

/// Maps the image with the rights of its segments, and takes the write permission from the
/// direct map's view of what is not data.
fn map_image(
    space: &mut OffsetPageTable<'_>,
    loader: &OffsetPageTable<'_>,
) -> Result<(), MapError> {
    for segment in image::segments() {
        let flags = match segment.rights {
            Rights::Execute => EXECUTE,
            Rights::Read => READ,
            Rights::Write => WRITE,
        };
        for at in (segment.start..segment.end).step_by(PAGE as usize) {
            let at = VirtAddr::new(at);
            let phys = loader.translate_addr(at).expect("the loader mapped the whole image");
            map(space, at, phys, PAGE, flags)?;
            if segment.rights != Rights::Write {
                protect_direct(space, phys)?;
            }
        }
    }
    Ok(())
}

/// Makes one page of the direct map read-only, splitting the large page that it is part of.
fn protect_direct(space: &mut OffsetPageTable<'_>, phys: PhysAddr) -> Result<(), MapError> {
    let at = direct(phys);
    let top = &mut space.level_4_table_mut()[at.p4_index()];
    // SAFETY: `map_ram` filled the tables down to this entry, whose frames are in the direct map.
    let entry = unsafe {
        let third = &mut *table(top.addr());
        let second = &mut *table(third[at.p3_index()].addr());
        &mut second[at.p2_index()]
    };
    if entry.flags().contains(Flags::HUGE_PAGE) {
        let frame = frames::take(1, 1).ok_or(MapError::NoFrames)?;
        // SAFETY: the frame is free and in the direct map.
        let pages = unsafe { &mut *table(frame) };
        pages.zero();
        for (index, page) in pages.iter_mut().enumerate() {
            page.set_addr(entry.addr() + index as u64 * PAGE, WRITE);
        }
        entry.set_addr(frame, Flags::PRESENT | Flags::WRITABLE);
    }
    // SAFETY: the entry is a table now, in the direct map.
    let pages = unsafe { &mut *table(entry.addr()) };
    pages[at.p1_index()].set_flags(READ);
    Ok(())
}

/// Maps a range with the largest pages that fit its alignment and that the processor has.
fn map(
    space: &mut OffsetPageTable<'_>,
    at: VirtAddr,
    phys: PhysAddr,
    len: u64,
    flags: Flags,
) -> Result<(), MapError> {
    let parents = Flags::PRESENT | Flags::WRITABLE;
    let gib_pages = crate::cpu::features().gib_pages;
    let large_allowed = at.as_u64() < WRITE_ALIAS + AREA;
    let mut done = 0;
    while done < len {
        let (page, frame, left) = (at + done, phys + done, len - done);
        let fits = |size: u64| {
            large_allowed && left >= size && page.is_aligned(size) && frame.is_aligned(size)
        };
        // SAFETY: the caller owns the physical range, or maps it read-only; the virtual range is
        // unused (mapping twice panics).
        unsafe {
            if gib_pages && fits(Size1GiB::SIZE) {
                let (page, frame) = (
                    Page::<Size1GiB>::containing_address(page),
                    PhysFrame::containing_address(frame),
                );
                space
                    .map_to_with_table_flags(page, frame, flags, parents, &mut TableFrames)?
                    .flush();
                done += Size1GiB::SIZE;
            } else if fits(LARGE) {
                let (page, frame) = (
                    Page::<Size2MiB>::containing_address(page),
                    PhysFrame::containing_address(frame),
                );
                space
                    .map_to_with_table_flags(page, frame, flags, parents, &mut TableFrames)?
                    .flush();
                done += LARGE;
            } else {
                let (page, frame) = (
                    Page::<Size4KiB>::containing_address(page),
                    PhysFrame::containing_address(frame),
                );
                space
                    .map_to_with_table_flags(page, frame, flags, parents, &mut TableFrames)?
                    .flush();
                done += PAGE;
            }
        }
    }
    Ok(())
}

fn with<R>(f: impl FnOnce(&mut OffsetPageTable<'static>) -> R) -> R {
    f(SPACE.lock().as_mut().expect("the address space is built first"))
}

/// Maps device registers, uncached. They stay mapped.
///
/// # Safety
///
/// The physical range belongs to a device whose registers the caller owns, not to RAM.
pub(crate) unsafe fn map_device(phys: PhysAddr, len: u64) -> Result<VirtAddr, MapError> {
    map_pages(phys, len, DEVICE)
}

/// Maps a range that is not RAM in this kernel's view, such as a firmware table far away,
/// cached and read-only. It stays mapped.
pub(crate) fn map_table(phys: PhysAddr, len: u64) -> Result<VirtAddr, MapError> {
    map_pages(phys, len, READ)
}

fn map_pages(phys: PhysAddr, len: u64, flags: Flags) -> Result<VirtAddr, MapError> {
    let offset = phys.as_u64() % PAGE;
    let len = round_up(offset.checked_add(len).ok_or(MapError::OutOfReach)?, PAGE);
    let taken = DEVICES_TAKEN.fetch_add(len, Ordering::Relaxed);
    if taken + len > AREA {
        return Err(MapError::OutOfReach);
    }
    let at = VirtAddr::new(DEVICES + taken);
    with(|space| map(space, at, phys - offset, len, flags))?;
    Ok(at + offset)
}

/// Maps the NVDIMM: read-only in the direct map, writable in the alias. Returns both places.
pub(crate) fn map_nvdimm(phys: PhysAddr, len: u64) -> Result<(VirtAddr, VirtAddr), MapError> {
    if phys.as_u64().checked_add(len).is_none_or(|end| end > AREA) {
        return Err(MapError::OutOfReach);
    }
    let (view, alias) = (direct(phys), VirtAddr::new(WRITE_ALIAS + phys.as_u64()));
    with(|space| {
        map(space, view, phys, len, READ)?;
        map(space, alias, phys, len, WRITE)
    })?;
    Ok((view, alias))
}

/// Maps frames of the pool at the heap's end; returns how many bytes it managed.
pub(crate) fn map_heap(at: VirtAddr, len: u64) -> u64 {
    debug_assert!(at.as_u64() >= HEAP);
    with(|space| {
        (0..len).step_by(PAGE as usize).find(|done| {
            let Some(frame) = frames::take(1, 1) else { return true };
            if map(space, at + *done, frame, PAGE, WRITE).is_err() {
                // SAFETY: the frame was taken just now and is mapped nowhere but in the direct map.
                unsafe { frames::free_contiguous(frame, 1) };
                return true;
            }
            false
        })
    })
    .unwrap_or(len)
}

/// Makes an entry of the second level point to a leaf page table (windows).
///
/// # Safety
///
/// `leaf` is a zeroed frame in the direct map that stays a page table for good, and `at` is
/// unused so far.
pub(crate) unsafe fn hook_leaf(at: VirtAddr, leaf: PhysAddr) -> Result<(), MapError> {
    let parents = Flags::PRESENT | Flags::WRITABLE;
    with(|space| {
        let mut level = space.level_4_table_mut() as *mut PageTable;
        for index in [at.p4_index(), at.p3_index()] {
            // SAFETY: page tables in use are in the direct map.
            let entry = unsafe { &mut (&mut *level)[index] };
            if entry.is_unused() {
                let frame = frames::take(1, 1).ok_or(MapError::NoFrames)?;
                // SAFETY: the frame is free and in the direct map.
                unsafe { (*table(frame)).zero() };
                entry.set_addr(frame, parents);
            }
            level = table(entry.addr());
        }
        // SAFETY: as above.
        unsafe { (&mut *level)[at.p2_index()].set_addr(leaf, parents) };
        Ok(())
    })
}

/// The frames that the image lies in.
pub(crate) fn image_frames() -> impl Iterator<Item = PhysFrame> {
    image::range().step_by(PAGE as usize).filter_map(|at| {
        let phys = with(|space| space.translate_addr(VirtAddr::new(at)))?;
        Some(PhysFrame::containing_address(phys))
    })
}

/// Whether the direct map has a physical range, as RAM or firmware tables.
pub(crate) fn is_ram(phys: PhysAddr, len: u64) -> bool {
    let end = phys.as_u64().checked_add(len);
    let mapped = |at: u64| with(|space| space.translate_addr(direct(PhysAddr::new(at)))).is_some();
    end.is_some_and(|end| {
        end <= RAM_END.load(Ordering::Relaxed)
            && (phys.as_u64() & !(PAGE - 1)..end).step_by(PAGE as usize).all(mapped)
    })
}

/// How an address is translated now, for reports: its frame and rights. Does not wait for
/// anything: `None` also while the tables are being changed.
pub(crate) fn look_up(at: VirtAddr) -> Option<(PhysAddr, Flags)> {
    let space = SPACE.try_lock()?;
    match space.as_ref()?.translate(at) {
        TranslateResult::Mapped { frame, offset, flags } => {
            Some((frame.start_address() + offset, flags))
        }
        _ => None,
    }
}
