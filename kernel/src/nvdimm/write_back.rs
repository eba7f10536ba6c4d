//! Writing lines of the processor's caches back, and ordering stores.

use crate::counter::Counter;
use crate::cpu;
use crate::nfit::Nfit;
use core::arch::asm;

/// How a line is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushBy {
    /// `clwb`.
    Clwb,
    /// `clflushopt`.
    ClflushOpt,
    /// `clflush`.
    Clflush,
    /// Not at all, because the platform writes the caches back when power fails.
    Nothing,
}

impl FlushBy {
    /// The way that this processor has.
    pub(super) fn best() -> FlushBy {
        match cpu::features() {
            f if f.clwb => FlushBy::Clwb,
            f if f.clflushopt => FlushBy::ClflushOpt,
            _ => FlushBy::Clflush,
        }
    }

    /// What makes stores durable on this platform.
    pub(super) fn needed(nfit: &Nfit) -> FlushBy {
        match nfit.capabilities {
            Some(capabilities) if capabilities.cpu_cache => FlushBy::Nothing,
            _ => FlushBy::best(),
        }
    }

    /// The name of the instruction, or `none`.
    pub(super) fn name(self) -> &'static str {
        match self {
            FlushBy::Clwb => "clwb",
            FlushBy::ClflushOpt => "clflushopt",
            FlushBy::Clflush => "clflush",
            FlushBy::Nothing => "none",
        }
    }
}

/// Lines that were written back, or would have been.
pub(super) static FLUSHES: Counter = Counter::new();
/// Fences.
pub(super) static FENCES: Counter = Counter::new();

/// Counts of the write path since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteCounts {
    /// Lines that were written back, or would have been.
    pub(crate) flushes: u64,
    /// Fences.
    pub(crate) fences: u64,
}

/// The counts.
pub(crate) fn counts() -> WriteCounts {
    WriteCounts { flushes: FLUSHES.total(), fences: FENCES.total() }
}

/// Writes `lines` lines back, from `start` on. By hand, and unrolled: it is on the fault path, 64
/// lines at a time.
macro_rules! write_back {
    ($instruction:literal, $start:expr, $lines:expr) => {{
        let (start, lines): (u64, u64) = ($start, $lines);
        // SAFETY: writing lines back changes no memory; were one not mapped, the processor would
        // say so. It has the instruction, as CPUID says.
        unsafe {
            asm!(
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

/// Writes lines back, by the best instruction, from a mapped address on; for measuring.
pub(crate) fn write_back(start: u64, lines: u64) {
    write_back_by(FlushBy::best(), start, lines);
}

#[inline]
pub(super) fn write_back_by(by: FlushBy, start: u64, lines: u64) {
    match by {
        FlushBy::Clwb => write_back!("clwb", start, lines),
        FlushBy::ClflushOpt => write_back!("clflushopt", start, lines),
        FlushBy::Clflush => write_back!("clflush", start, lines),
        FlushBy::Nothing => {}
    }
}

/// Writes the line back that a mapped address is in.
#[inline(always)]
pub(super) fn write_line_back_by(by: FlushBy, at: u64) {
    // SAFETY: as for several lines.
    unsafe {
        // One comparison, where a table of all would be a jump.
        if by == FlushBy::Clwb {
            asm!("clwb [{at}]", at = in(reg) at, options(nostack));
        } else {
            write_back_by(by, at, 1);
        }
    }
}

/// Orders the stores before it before those behind it.
pub(crate) fn store_fence() {
    // SAFETY: orders stores, changes nothing.
    unsafe { asm!("sfence", options(nostack, preserves_flags)) };
}
