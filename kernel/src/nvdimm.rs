//! Persistent memory: finding it in the NFIT, mapping it, and making stores durable.
//!
//! The NVDIMM is mapped read-only; [`Nvdimm`], the write path, stores through an alias of its own,
//! and loads words there; what is read in bulk is read through the read-only view. A store is
//! durable once its line was written back and a fence followed; where the platform promises to
//! write the CPU's caches back when power fails, lines need no writing back, but are counted all
//! the same.
//!
//! The first range that can be used is for the volume. Others that hold none are served as they are
//! ([`regions`]): nothing of them is ever part of a volume that is mounted.
//!
//! Left out: labels, more than one volume.
//!
//! Follows ACPI 6.5, section 5.2.25, and SDM volume 2 (`clwb`, `clflushopt`, `clflush`).

use crate::arch::{compare, copy, cpu};
use crate::mm::space::{self, MapError};
use crate::mm::{self, PAGE};
use crate::nfit::{self, Nfit, NfitError, SpaRange, Unusable};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;
use umbra_fs::pmem::{LINE, Poisoned};
use x86_64::{PhysAddr, VirtAddr};

/// Why there is no persistent memory to serve.
#[derive(Clone, Debug)]
pub enum NoNvdimm {
    /// The board has no NFIT.
    NoTable,
    /// The table is malformed.
    Table(NfitError),
    /// No range of the table is usable; why the first persistent one is not, if there is one.
    NoneUsable(Option<Unusable>),
    /// The range cannot be mapped.
    Map(MapError),
}

impl fmt::Display for NoNvdimm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoNvdimm::NoTable => f.write_str("no NVDIMM: the machine has no NFIT table"),
            NoNvdimm::Table(why) => write!(f, "no NVDIMM: the NFIT table is malformed: {why}"),
            NoNvdimm::NoneUsable(None) => {
                f.write_str("no NVDIMM: the NFIT table lists no persistent memory")
            }
            NoNvdimm::NoneUsable(Some(why)) => write!(f, "no usable NVDIMM: {why}"),
            NoNvdimm::Map(why) => write!(f, "the NVDIMM cannot be mapped: {why}"),
        }
    }
}

/// How a line is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlushBy {
    /// `clwb`.
    Clwb,
    /// `clflushopt`.
    ClflushOpt,
    /// `clflush`.
    Clflush,
}

impl FlushBy {
    /// The way that this processor has.
    fn best() -> FlushBy {
        match cpu::features() {
            f if f.clwb => FlushBy::Clwb,
            f if f.clflushopt => FlushBy::ClflushOpt,
            _ => FlushBy::Clflush,
        }
    }
}

/// Whether the platform writes the CPU's caches back when power fails.
fn caches_persist() -> bool {
    table().as_ref().is_ok_and(|nfit| nfit.capabilities.is_some_and(|c| c.cpu_cache))
}

/// The instruction that lines are written back by, or `none` where that is not needed.
pub fn flush_name() -> &'static str {
    match FlushBy::best() {
        _ if caches_persist() => "none",
        FlushBy::Clwb => "clwb",
        FlushBy::ClflushOpt => "clflushopt",
        FlushBy::Clflush => "clflush",
    }
}

/// What the NFIT said, for listings.
static TABLE: Once<Result<Nfit, NoNvdimm>> = Once::new();
/// The range that is served: (physical address, length).
static SERVED: Once<(u64, u64)> = Once::new();

/// The NFIT, or why there is none.
pub fn table() -> &'static Result<Nfit, NoNvdimm> {
    TABLE.call_once(|| {
        let bytes = crate::acpi::firmware_tables().nfit.ok_or(NoNvdimm::NoTable)?;
        nfit::parse(bytes).map_err(NoNvdimm::Table)
    })
}

/// The range that is served.
pub fn is_served(range: &SpaRange) -> bool {
    SERVED.get().is_some_and(|(base, _)| *base == range.base)
}

/// Whether an address is in the read-only view of the NVDIMM.
pub fn contains_view(address: u64) -> bool {
    SERVED
        .get()
        .is_some_and(|(base, len)| (mm::DIRECT + base..mm::DIRECT + base + len).contains(&address))
}

/// The memory of blocks of the served NVDIMM, from this one on, as a device is told of it.
///
/// # Safety
///
/// The blocks are in the NVDIMM, lent by its volume, and nobody else has their memory.
pub unsafe fn lent_memory<const N: usize>(first: umbra_fs::Block) -> Option<&'static mut [u8; N]> {
    let (base, len) = SERVED.get().copied()?;
    let at = first.0.checked_mul(PAGE)?;
    if at.checked_add(N as u64).is_none_or(|end| end > len) {
        return None;
    }
    // SAFETY: the alias is mapped for good and covers the range, which is the caller's alone.
    Some(unsafe { &mut *((mm::WRITE_ALIAS + base + at) as *mut [u8; N]) })
}

/// Loads the word at `at` of the served NVDIMM and stores it as it was: for measuring, while
/// nobody else stores there.
pub fn rewrite_word(at: u64) {
    let (base, len) = SERVED.get().copied().unwrap_or_default();
    assert!(at.is_multiple_of(8) && at < len, "word at {at:#x} of {len:#x}");
    // SAFETY: the word is in the NVDIMM, whose alias is mapped, and aligned.
    unsafe {
        let word = (mm::WRITE_ALIAS + base + at) as *mut u64;
        word.write_volatile(word.read_volatile());
    }
}

static FLUSHES: AtomicU64 = AtomicU64::new(0);
static FENCES: AtomicU64 = AtomicU64::new(0);

/// Counts. By a load and a store: there is one processor, interrupts do not come here, and an
/// emulator makes a call of every locked instruction, of which a fault would have four for this
/// alone.
#[inline]
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

/// Counts of the write path since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Lines that were written back, or would have been.
    pub flushes: u64,
    /// Fences.
    pub fences: u64,
}

/// The counts.
pub fn counts() -> WriteCounts {
    WriteCounts { flushes: FLUSHES.load(Ordering::Relaxed), fences: FENCES.load(Ordering::Relaxed) }
}

/// Writes `lines` lines back, from `start` on. By hand, and unrolled: it is on the fault path, 64
/// lines at a time.
macro_rules! write_back {
    ($instruction:literal, $start:expr, $lines:expr) => {{
        let (start, lines): (u64, u64) = ($start, $lines);
        // SAFETY: writing lines back changes no memory; were one not mapped, the processor would
        // say so. It has the instruction, as CPUID says.
        unsafe {
            core::arch::asm!(
                "jmp 3f",
                "2:",
                concat!($instruction, " [{at}]"),
                concat!($instruction, " [{at} + 64]"),
                concat!($instruction, " [{at} + 128]"),
                concat!($instruction, " [{at} + 192]"),
                concat!($instruction, " [{at} + 256]"),
                concat!($instruction, " [{at} + 320]"),
                concat!($instruction, " [{at} + 384]"),
                concat!($instruction, " [{at} + 448]"),
                "add {at}, 512",
                "3:",
                "sub {left}, 8",
                "jae 2b",
                "add {left}, 8",
                "jz 5f",
                "4:",
                concat!($instruction, " [{at}]"),
                "add {at}, 64",
                "dec {left}",
                "jnz 4b",
                "5:",
                at = inout(reg) start => _,
                left = inout(reg) lines => _,
                options(nostack),
            )
        }
    }};
}

/// Writes lines back, with the best instruction, from a mapped address on.
pub fn write_back(start: u64, lines: u64) {
    write_back_by(FlushBy::best(), start, lines);
}

#[inline]
fn write_back_by(by: FlushBy, start: u64, lines: u64) {
    match by {
        FlushBy::Clwb => write_back!("clwb", start, lines),
        FlushBy::ClflushOpt => write_back!("clflushopt", start, lines),
        FlushBy::Clflush => write_back!("clflush", start, lines),
    }
}

/// Orders the stores before it before those behind it.
pub fn store_fence() {
    // SAFETY: orders stores, changes nothing.
    unsafe { core::arch::asm!("sfence", options(nostack, preserves_flags)) };
}

/// A mapped NVDIMM: the write path.
pub struct Nvdimm {
    phys: PhysAddr,
    /// Where it is mapped read-only, and where it can be stored to. Plain numbers: the checks of
    /// `VirtAddr` at each addition would be a good part of a fault.
    view: u64,
    alias: u64,
    len: u64,
    flush_by: FlushBy,
    /// The platform writes the caches back when power fails.
    caches_persist: bool,
    /// Registers to write to after a fence (NFIT flush hints).
    hints: Vec<VirtAddr>,
}

impl Nvdimm {
    /// Finds the first usable range and maps it. Once.
    pub fn find() -> Result<Nvdimm, NoNvdimm> {
        let nfit = table().as_ref().map_err(Clone::clone)?;
        let mut why = None;
        let usable = nfit.persistent().find(|range| match nfit.usable(range) {
            Ok(()) => true,
            Err(reason) => {
                log::warn!("the NVDIMM at {:#x} is not usable: {reason}", range.base);
                why.get_or_insert(reason);
                false
            }
        });
        let range = usable.ok_or(NoNvdimm::NoneUsable(why))?;
        let nvdimm = Self::map(nfit, range)?;
        SERVED.call_once(|| (range.base, nvdimm.len));
        Ok(nvdimm)
    }

    /// Maps a range that is mapped nowhere yet.
    fn map(nfit: &Nfit, range: &SpaRange) -> Result<Nvdimm, NoNvdimm> {
        let (phys, len) = (PhysAddr::new(range.base), range.length & !(PAGE - 1));
        let (view, alias) = space::map_nvdimm(phys, len).map_err(NoNvdimm::Map)?;
        let mut hints = Vec::new();
        for hint in nfit.hints(range) {
            // SAFETY: the NFIT says that the address is a flush hint, to be written to at will.
            hints
                .push(unsafe { space::map_device(PhysAddr::new(hint), 8) }.map_err(NoNvdimm::Map)?);
        }
        let (flush_by, caches_persist) = (FlushBy::best(), caches_persist());
        Ok(Nvdimm {
            phys,
            view: view.as_u64(),
            alias: alias.as_u64(),
            len,
            flush_by,
            caches_persist,
            hints,
        })
    }

    /// Where the NVDIMM starts in physical memory.
    pub fn phys(&self) -> PhysAddr {
        self.phys
    }

    /// Checks a range; panics beyond the end, which is a bug of the filesystem.
    #[inline(always)]
    fn offset(&self, at: u64, len: u64) -> u64 {
        if at > self.len || len > self.len - at {
            beyond(at);
        }
        at
    }

    #[inline(always)]
    fn from(&self, at: u64, len: u64) -> *const u8 {
        (self.view + self.offset(at, len)) as *const u8
    }

    #[inline(always)]
    fn to(&mut self, at: u64, len: u64) -> *mut u8 {
        (self.alias + self.offset(at, len)) as *mut u8
    }
}

/// Out of line, so that what is checked on the fault path is not kept for a message.
#[cold]
#[inline(never)]
fn beyond(at: u64) -> ! {
    panic!("access at {at:#x} beyond the NVDIMM's end");
}

#[cold]
#[inline(never)]
fn unaligned(at: u64) -> ! {
    panic!("unaligned word at {at:#x}");
}

/// The ranges that hold no volume, each at its place in the table; `None` for the others. To be
/// called once, after [`Nvdimm::find`].
pub fn regions() -> Vec<Option<Nvdimm>> {
    let Ok(nfit) = table() else { return Vec::new() };
    let usable = |range: &SpaRange| !is_served(range) && nfit.usable(range).is_ok();
    let region = |range: &SpaRange| match Nvdimm::map(nfit, range) {
        Ok(region) if umbra_fs::holds_volume(&region) => {
            log::info!("the NVDIMM at {:#x} holds a volume, too; it is left alone", range.base);
            None
        }
        Ok(region) => Some(region),
        Err(why) => {
            log::warn!("the NVDIMM at {:#x}: {why}", range.base);
            None
        }
    };
    nfit.persistent().map(|range| if usable(range) { region(range) } else { None }).collect()
}

impl umbra_fs::Pmem for Nvdimm {
    fn len(&self) -> u64 {
        self.len
    }

    #[inline(always)]
    fn load(&self, at: u64) -> Result<u64, Poisoned> {
        if !at.is_multiple_of(8) {
            unaligned(at);
        }
        // Through the alias: the next access mostly stores there. An emulator's TLB is
        // direct-mapped, and has a page of the view and that of the alias in the same entry, so
        // that each change between them is a miss.
        let at = self.alias + self.offset(at, 8);
        // SAFETY: `offset` checked the range, which is mapped for good; the word is aligned.
        Ok(unsafe { (at as *const u64).read_volatile() })
    }

    #[inline]
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Poisoned> {
        let from = self.from(at, into.len() as u64);
        // SAFETY: `from` checked the range; the kernel's memory and the NVDIMM do not overlap.
        unsafe { copy::chosen().copy(into.as_mut_ptr(), from, into.len()) };
        Ok(())
    }

    fn first_difference(&self, a: u64, b: u64, len: u64) -> Result<Option<u64>, Poisoned> {
        assert!(
            a.is_multiple_of(8) && b.is_multiple_of(8),
            "unaligned ranges at {a:#x} and {b:#x}"
        );
        let (left, right) = (self.from(a, len), self.from(b, len));
        // SAFETY: `from` checked the ranges, which are aligned; the one processor compares.
        let found = unsafe { compare::first_difference(left, right, len as usize) };
        Ok(found.map(|at| at as u64))
    }

    fn first_nonzero(&self, at: u64, len: u64) -> Result<Option<u64>, Poisoned> {
        assert!(at.is_multiple_of(8), "unaligned range at {at:#x}");
        // SAFETY: as above.
        let found = unsafe { compare::first_nonzero(self.from(at, len), len as usize) };
        Ok(found.map(|at| at as u64))
    }

    #[inline(always)]
    fn store(&mut self, at: u64, value: u64) {
        if !at.is_multiple_of(8) {
            unaligned(at);
        }
        // SAFETY: `to` checked the range, whose alias is writable; the word is aligned.
        unsafe { self.to(at, 8).cast::<u64>().write_volatile(value) };
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let to = self.to(at, bytes.len() as u64);
        // SAFETY: `to` checked the range. It does not overlap what is written: that is the kernel's
        // memory, or blocks that are lent, and no block that is written to is.
        unsafe { copy::write(to, bytes.as_ptr(), bytes.len()) };
    }

    fn zero(&mut self, at: u64, len: u64) {
        let to = self.to(at, len);
        // SAFETY: `to` checked the range, whose alias is writable; the NVDIMM is whole pages.
        unsafe { copy::zero(to, len as usize) };
    }

    #[inline]
    fn copy(&mut self, from: u64, to: u64, len: u64) -> Result<(), Poisoned> {
        assert!(
            from + len <= to || to + len <= from || len == 0,
            "overlapping copy {from:#x} to {to:#x}"
        );
        let from = self.from(from, len);
        let to = self.to(to, len);
        // SAFETY: both ranges were checked and do not overlap.
        unsafe { copy::chosen().copy(to, from, len as usize) };
        Ok(())
    }

    #[inline]
    fn flush(&mut self, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        self.offset(at, len);
        let first = at & !(LINE - 1);
        let lines = (at + len - first).div_ceil(LINE);
        add(&FLUSHES, lines);
        if self.caches_persist {
            return;
        }
        write_back_by(self.flush_by, self.view + first, lines);
    }

    #[inline]
    fn fence(&mut self) {
        add(&FENCES, 1);
        store_fence();
        for hint in &self.hints {
            // SAFETY: a flush hint register, mapped for good; any value does. The second fence
            // orders it before what follows.
            unsafe {
                hint.as_mut_ptr::<u64>().write_volatile(0);
                core::arch::asm!("sfence", options(nostack, preserves_flags));
            }
        }
    }
}
