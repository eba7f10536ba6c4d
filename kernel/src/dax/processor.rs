//! Loads and stores through windows, by the processor itself.

use super::{VOLUME, Volume, WindowTables, fault, tables};
use crate::arch::copy;
use crate::mm::PAGE;
use crate::nvdimm::{self, Nvdimm};
use umbra_fs::Error;
use umbra_fs::dax::{AccessError, Machine, PAGES_PER_SLOT, Page};

/// This processor, while a volume is served.
pub(crate) struct Processor(());

impl Processor {
    /// The processor, if a volume is served.
    pub(crate) fn new() -> Option<Processor> {
        super::is_served().then_some(Processor(()))
    }
}

/// Where an access starts; panics if it does not end within its slot, which is a bug.
fn place(page: Page, offset: usize, len: usize) -> u64 {
    let room = u64::from(PAGES_PER_SLOT - page.index()) * PAGE;
    assert!(
        page.slot().0 < tables::slots()
            && offset as u64 <= room
            && len as u64 <= room - offset as u64,
        "access of {len} bytes beyond the slot of page {}",
        page.0
    );
    tables::address_of(page) + offset as u64
}

/// What the caller is told of a copy that ended early. Out of line, so that an access that succeeds
/// saves no registers for it.
#[cold]
#[inline(never)]
fn failure(start: u64, len: usize) -> AccessError {
    match fault::take_failure() {
        Some(f) => AccessError {
            done: f.address.saturating_sub(start).min(len as u64) as usize,
            error: f.error,
        },
        // Without a failed fault, the memory itself could not be loaded. How much was copied before
        // is not known.
        None => AccessError { done: 0, error: Error::Poisoned(nvdimm::poisoned()) },
    }
}

impl Machine for Processor {
    type Pmem = Nvdimm;
    type Mmu = WindowTables;

    fn volume<R>(&mut self, f: impl FnOnce(&mut Volume) -> R) -> R {
        f(VOLUME.lock().as_mut().expect("a volume is served as long as a Processor is in use"))
    }

    #[inline]
    fn load(&mut self, page: Page, offset: usize, into: &mut [u8]) -> Result<(), AccessError> {
        let start = place(page, offset, into.len());
        // SAFETY: the range is in the window area; `into` is valid; the lock is not held, so no
        // reference into the filesystem is alive.
        unsafe { copy::load(into.as_mut_ptr(), start as *const u8, into.len()) }
            .map_err(|copy::Failed| failure(start, into.len()))
    }

    #[inline]
    fn store(&mut self, page: Page, offset: usize, from: &[u8]) -> Result<(), AccessError> {
        let start = place(page, offset, from.len());
        // SAFETY: as in `load`.
        unsafe { copy::store(start as *mut u8, from.as_ptr(), from.len()) }
            .map_err(|copy::Failed| failure(start, from.len()))
    }
}
