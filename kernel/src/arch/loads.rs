//! Loads that can be given up where memory is lost.
//!
//! A load of memory that the hardware cannot deliver raises a machine check, and would raise it
//! again if it were resumed. So such loads are in assembly that says where each of them goes on
//! then.

use core::sync::atomic::{AtomicU64, Ordering};

/// The physical address that the last load was given up at.
static LOST_AT: AtomicU64 = AtomicU64::new(0);

/// Notes where memory was lost, before the load is given up.
pub(crate) fn note_lost(physical: u64) {
    LOST_AT.store(physical, Ordering::Relaxed);
}

/// The physical address at which the last load was given up, for the caller of that load.
pub(crate) fn lost_at() -> u64 {
    LOST_AT.load(Ordering::Relaxed)
}

/// What an instruction loads, and where it goes on if that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoadsAt {
    /// The instruction to go on with.
    pub(crate) fixup: u64,
    /// What it loads.
    pub(crate) sources: Sources,
}

/// The registers that say where the next bytes are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sources {
    /// `rsi`.
    Rsi,
    /// `rdi`.
    Rdi,
    /// Both: memory is compared.
    RsiAndRdi,
}
