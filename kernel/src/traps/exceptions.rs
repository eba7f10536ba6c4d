//! Exceptions.
//!
//! A page fault in the window area is resolved by the filesystem (see [`crate::dax`]). Machine
//! checks are recorded. Everything else is a bug: it is reported, and the machine ends.

use super::frame::{FaultFrame, TrapFrame};
use super::{lost_loads, report};
#[cfg(feature = "test-commands")]
use crate::arch::stepping;
use crate::arch::{copy, interrupts, mce};
use crate::counter::Counter;
use crate::dax::fault;
use crate::memory_errors::{Again, RING};
use spin::Mutex;
use umbra_fs::dax::Access;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::{ExceptionVector, PageFaultErrorCode};

/// Non-maskable interrupts. They are counted only, because what they interrupted may hold the
/// console.
static NMIS: Counter = Counter::new();

/// Page faults, first look: true if the access can be tried again, or goes on at its fixup.
pub(crate) extern "C" fn page_fault(frame: &mut FaultFrame, address: u64) -> bool {
    const NEVER_RESOLVED: PageFaultErrorCode =
        PageFaultErrorCode::MALFORMED_TABLE.union(PageFaultErrorCode::INSTRUCTION_FETCH);
    let error = frame.error();
    if !fault::in_windows(address) || error.intersects(NEVER_RESOLVED) {
        return false;
    }
    let stores = error.contains(PageFaultErrorCode::CAUSED_BY_WRITE);
    let access =
        if stores || copy::is_about_to_store(frame.rip) { Access::Store } else { Access::Load };
    match fault::resolve(address, access, copy::fixup_of(frame.rip)) {
        fault::Outcome::Retry => true,
        fault::Outcome::EndsAt(fixup) => {
            frame.rip = fixup;
            true
        }
        fault::Outcome::Bug => false,
    }
}

/// All other exceptions, and page faults that were not resolved.
pub(crate) extern "C" fn exception(frame: &mut TrapFrame) {
    match ExceptionVector::try_from(frame.vector as u8) {
        Ok(ExceptionVector::MachineCheck) => machine_check(frame),
        Ok(ExceptionVector::NonMaskableInterrupt) => NMIS.add(1),
        Ok(ExceptionVector::Breakpoint) => log::warn!("breakpoint at {:#x}", frame.rip),
        #[cfg(feature = "test-commands")]
        Ok(ExceptionVector::Debug) => {
            stepping::look();
            lost_loads::step(frame);
        }
        _ => report::exception(frame, Cr2::read_raw()),
    }
}

/// Records what the machine check says, and goes on if the processor can: with the interrupted
/// instruction, or with the failure of the load that the error belongs to.
fn machine_check(frame: &mut TrapFrame) {
    static AGAIN: Mutex<Again> = Mutex::new(Again::new());
    let rip = frame.rip;
    let (mut ended, mut fatal) = (false, false);
    let status = mce::collect(|record| {
        fatal |= record.context_corrupt();
        let Some(lost) = record.lost() else { return };
        if ended || lost_loads::end(frame, &lost) {
            ended = true;
        } else if let Some(mut again) = AGAIN.try_lock() {
            fatal |= again.is_endless(rip, lost.start, RING.taken());
        }
    });
    let goes_on = status.resumable() || ended && status.belongs_to_rip();
    if fatal || !goes_on {
        report::machine_check(frame, status.0);
    }
    mce::done();
    interrupts::wake();
}
