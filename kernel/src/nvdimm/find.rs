//! The ranges of persistent memory: which there are, which is served, and where it is mapped.

use super::pmem::Nvdimm;
use super::write_back::FlushBy;
use crate::acpi;
use crate::arch::loads;
use crate::mm::space::MapError;
use crate::mm::{self, PAGE};
use crate::nfit::{self, Nfit, NfitError, SpaRange, Unusable};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use spin::Once;
use umbra_fs::pmem::{LINE, Poisoned};
use umbra_fs::{Block, Pmem};

/// Why there is no persistent memory to serve.
#[derive(Clone, Debug)]
pub(crate) enum NoNvdimm {
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

/// What the NFIT said, for listings.
static TABLE: Once<Result<Nfit, NoNvdimm>> = Once::new();
/// The range that is served: (physical address, length).
static SERVED: Once<(u64, u64)> = Once::new();

/// The NFIT, or why there is none.
pub(crate) fn table() -> &'static Result<Nfit, NoNvdimm> {
    TABLE.call_once(|| {
        let bytes = acpi::firmware_tables().nfit.ok_or(NoNvdimm::NoTable)?;
        nfit::parse(bytes).map_err(NoNvdimm::Table)
    })
}

/// Whether a range is the one that is served.
pub(crate) fn is_served(range: &SpaRange) -> bool {
    SERVED.get().is_some_and(|(base, _)| *base == range.base)
}

/// The instruction that lines are written back by, or `none` where that is not needed.
pub(crate) fn flush_name() -> &'static str {
    table().as_ref().map_or(FlushBy::best(), FlushBy::needed).name()
}

/// Finds the first usable range and maps it. Once.
pub(crate) fn find() -> Result<Nvdimm, NoNvdimm> {
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
    let nvdimm = Nvdimm::map(nfit, range).map_err(NoNvdimm::Map)?;
    SERVED.call_once(|| (range.base, nvdimm.len()));
    Ok(nvdimm)
}

/// The ranges that hold no volume, each at its place in the table; `None` for the others. To be
/// called once, after [`find`].
pub(crate) fn regions() -> Vec<Option<Nvdimm>> {
    let Ok(nfit) = table() else { return Vec::new() };
    let usable = |range: &SpaRange| !is_served(range) && nfit.usable(range).is_ok();
    let region = |range: &SpaRange| match Nvdimm::map(nfit, range) {
        Ok(region) if umbra_fs::holds_volume(&region) => {
            log::info!("the NVDIMM at {:#x} holds a volume, too; it is left alone", range.base);
            None
        }
        Ok(region) => Some(region),
        Err(why) => {
            log::warn!("the NVDIMM at {:#x} cannot be mapped: {why}", range.base);
            None
        }
    };
    nfit.persistent().map(|range| if usable(range) { region(range) } else { None }).collect()
}

/// What the filesystem is told of the load from the served NVDIMM that ended early last.
pub(crate) fn poisoned() -> Poisoned {
    let (base, _) = SERVED.get().copied().unwrap_or_default();
    Poisoned { at: loads::lost_at().saturating_sub(base) & !(LINE - 1) }
}

/// The physical address of a block of the served NVDIMM, if it has that.
pub(crate) fn address_of(block: Block) -> Option<u64> {
    let (base, len) = SERVED.get().copied()?;
    block.0.checked_mul(PAGE).filter(|&at| at < len).map(|at| base + at)
}

/// The blocks of the served NVDIMM that have these physical addresses, or a part of them: the first
/// one, and how many.
pub(crate) fn blocks_of(addresses: &Range<u64>) -> Option<(Block, u64)> {
    let (base, len) = SERVED.get().copied()?;
    let (start, end) = (addresses.start.max(base), addresses.end.min(base + len));
    (start < end).then(|| {
        let first = (start - base) / PAGE;
        (Block(first), (end - base).div_ceil(PAGE) - first)
    })
}

/// Whether an address is in the read-only view of the NVDIMM.
pub(crate) fn contains_view(address: u64) -> bool {
    SERVED
        .get()
        .is_some_and(|(base, len)| (mm::DIRECT + base..mm::DIRECT + base + len).contains(&address))
}

/// The memory of blocks of the served NVDIMM, from this one on, as a device is told of it.
///
/// # Safety
///
/// The blocks are in the NVDIMM, lent by its volume, and nobody else has their memory.
pub(crate) unsafe fn lent_memory<const N: usize>(first: Block) -> Option<&'static mut [u8; N]> {
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
pub(crate) fn rewrite_word(at: u64) {
    let (base, len) = SERVED.get().copied().unwrap_or_default();
    assert!(at.is_multiple_of(8) && at < len, "word at {at:#x} of {len:#x}");
    // SAFETY: the word is in the NVDIMM, whose alias is mapped, and aligned.
    unsafe {
        let word = (mm::WRITE_ALIAS + base + at) as *mut u64;
        word.write_volatile(word.read_volatile());
    }
}
