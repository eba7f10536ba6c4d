//! Exceptions.
//!
//! A page fault in the window area is resolved by the filesystem (see [`crate::dax`]). Machine
//! checks are recorded. Everything else is a bug: it is reported, and the machine ends.

#[cfg(feature = "test-commands")]
use super::stepping;
use super::{copy, mce, report};
use crate::dax::fault;
use x86_64::registers::control::Cr2;

/// The registers of what an exception interrupted, as the stub and the processor pushed them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the registers' names say it all")]
pub struct TrapFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// What a page fault pushes.
#[repr(C)]
pub struct FaultFrame {
    /// Error code.
    pub error: u64,
    /// The instruction that faulted.
    pub rip: u64,
    /// Its code segment.
    pub cs: u64,
    /// Its flags.
    pub rflags: u64,
    /// Its stack.
    pub rsp: u64,
    /// Its stack segment.
    pub ss: u64,
}

/// Bits of a page fault's error code (SDM volume 3, 4.7).
pub mod page_fault_error {
    /// The page is mapped, but not for this.
    pub const PROTECTION: u64 = 1;
    /// A store.
    pub const STORE: u64 = 1 << 1;
    /// A reserved bit is set in a page table.
    pub const RESERVED: u64 = 1 << 3;
    /// An instruction fetch.
    pub const FETCH: u64 = 1 << 4;
}

/// Page faults, first look: true if the access can be tried again, or goes on at its fixup.
pub extern "C" fn page_fault(frame: &mut FaultFrame, address: u64) -> bool {
    if !fault::in_windows(address)
        || frame.error & (page_fault_error::RESERVED | page_fault_error::FETCH) != 0
    {
        return false;
    }
    let store = frame.error & page_fault_error::STORE != 0 || copy::is_about_to_store(frame.rip);
    let fixup = copy::fixup_of(frame.rip);
    match fault::resolve(address, store, fixup.is_some()) {
        fault::Outcome::Retry => true,
        fault::Outcome::Parked | fault::Outcome::Failed => match fixup {
            Some(fixup) => {
                frame.rip = fixup;
                true
            }
            None => false,
        },
        fault::Outcome::Bug => false,
    }
}

/// All other exceptions, and page faults that were not resolved.
pub extern "C" fn exception(frame: &mut TrapFrame) {
    #[cfg(feature = "test-commands")]
    const DEBUG: u64 = 1;
    const BREAKPOINT: u64 = 3;
    const NMI: u64 = 2;
    const MACHINE_CHECK: u64 = 18;
    match frame.vector {
        MACHINE_CHECK => mce::handle(frame),
        NMI => log_nmi(),
        BREAKPOINT => log::warn!("breakpoint at {:#x}", frame.rip),
        #[cfg(feature = "test-commands")]
        DEBUG if stepping::is_on() => stepping::look(),
        _ => report::exception(frame, Cr2::read_raw()),
    }
}

/// Non-maskable interrupts are counted only: the one who interrupted may hold the console.
fn log_nmi() {
    use core::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed);
}
