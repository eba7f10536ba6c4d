//! Ending loads of memory that is lost.
//!
//! An emulator reports an error whenever it is told to, and interrupts whatever runs then. So a
//! load is ended only if it loads from the page that is lost, or is about to go on there; all else
//! is resumed.

use super::frame::TrapFrame;
use crate::arch::loads::{self, LoadsAt, Sources};
use crate::arch::{compare, copy};
use crate::mm::{PAGE, space};
use core::ops::Range;
use x86_64::VirtAddr;
#[cfg(feature = "test-commands")]
use {crate::arch::stepping, core::sync::atomic::AtomicU64, core::sync::atomic::Ordering};

/// Has the interrupted load go on at its fixup if it loads from these physical addresses; returns
/// whether it does.
pub(super) fn end(frame: &mut TrapFrame, lost: &Range<u64>) -> bool {
    let at = copy::loads_at(frame.rip).or_else(|| compare::loads_at(frame.rip));
    let Some(LoadsAt { fixup, sources }) = at else { return false };
    let sources = match sources {
        Sources::Rsi => [Some(frame.rsi), None],
        Sources::Rdi => [Some(frame.rdi), None],
        Sources::RsiAndRdi => [Some(frame.rsi), Some(frame.rdi)],
    };
    let pages = lost.start & !(PAGE - 1)..lost.end;
    let is_lost = |at: u64| physical(at).is_some_and(|at| pages.contains(&at));
    if !sources.into_iter().flatten().any(is_lost) {
        return false;
    }
    loads::note_lost(lost.start);
    frame.rip = fixup;
    true
}

/// Where the page of an address is in physical memory.
fn physical(at: u64) -> Option<u64> {
    let (at, _) = space::look_up(VirtAddr::try_new(at & !(PAGE - 1)).ok()?)?;
    Some(at.as_u64())
}

/// The physical page that is lost for a test, or 0.
#[cfg(feature = "test-commands")]
static PRETENDED: AtomicU64 = AtomicU64::new(0);

/// Runs `f` as if a physical page were lost: each load from it that `f` comes to is ended as a
/// machine check would end it. (An emulator's machine checks do not wait for a load.)
#[cfg(feature = "test-commands")]
pub(crate) fn pretend<R>(page: u64, f: impl FnOnce() -> R) -> R {
    PRETENDED.store(page, Ordering::Relaxed);
    let result = stepping::step(f);
    PRETENDED.store(0, Ordering::Relaxed);
    result
}

/// The next instruction of a test is about to run.
#[cfg(feature = "test-commands")]
pub(super) fn step(frame: &mut TrapFrame) {
    match PRETENDED.load(Ordering::Relaxed) {
        0 => {}
        page => _ = end(frame, &(page..page + PAGE)),
    }
}
