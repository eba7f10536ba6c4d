//! Machine checks: the banks of registers that say which memory is in error.
//!
//! The handler records what each bank says, clears the bank and MCG_STATUS.MCIP (a second machine
//! check before that resets the machine), and resumes what was interrupted, or ends the load that
//! the error belongs to. An error whose processor state is lost ends the machine.
//!
//! Follows SDM volume 3, chapter 17.

use crate::cpu;
use crate::memory_errors::{ADDRESS_VALID, MISC_VALID, RING, Record, VALID};
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MCG_CTL: u32 = 0x17b;
const MC0_CTL: u32 = 0x400;

/// MCG_STATUS: the instruction pointer on the stack can be returned to.
const RIPV: u64 = 1;
/// MCG_STATUS: the error belongs to the instruction that the pointer names.
const EIPV: u64 = 1 << 1;
/// Turns machine checks on.
pub(crate) fn enable() {
    if !cpu::features().mca {
        log::warn!("the processor reports no machine checks: memory errors will not be seen");
        return;
    }
    // SAFETY: the processor has these registers, as CPUID says; all ones enables each error,
    // and zero clears what earlier software left.
    unsafe {
        let cap = Msr::new(MCG_CAP).read();
        if cap & (1 << 8) != 0 {
            Msr::new(MCG_CTL).write(u64::MAX);
        }
        for bank in 0..(cap & 0xff) as u32 {
            Msr::new(MC0_CTL + 4 * bank).write(u64::MAX);
            Msr::new(MC0_CTL + 4 * bank + 1).write(0);
        }
        Cr4::update(|cr4| cr4.insert(Cr4Flags::MACHINE_CHECK_EXCEPTION));
    }
}

/// Records what the banks say and clears them, in the machine-check exception; `each` is told of
/// every error. Returns MCG_STATUS.
pub(crate) fn collect(each: impl FnMut(&Record)) -> McgStatus {
    read_banks(|_| true, each);
    // SAFETY: the exception comes only after `enable`, so the register exists.
    McgStatus(unsafe { Msr::new(MCG_STATUS).read() })
}

/// Records errors that were corrected: they raise no exception.
pub(crate) fn poll() {
    if cpu::features().mca {
        read_banks(|record| !record.uncorrected(), |_| ());
    }
}

/// Records and clears the errors in the banks that `wanted` says.
fn read_banks(wanted: impl Fn(&Record) -> bool, mut each: impl FnMut(&Record)) {
    // SAFETY: the processor has these registers, as CPUID says; zero clears a bank.
    unsafe {
        let banks = (Msr::new(MCG_CAP).read() & 0xff) as u32;
        for bank in 0..banks {
            let base = MC0_CTL + 4 * bank;
            let status = Msr::new(base + 1).read();
            if status & VALID == 0 {
                continue;
            }
            let read = |register, valid| {
                if status & valid != 0 { Msr::new(base + register).read() } else { 0 }
            };
            let record = Record {
                bank: bank.into(),
                status,
                address: read(2, ADDRESS_VALID),
                misc: read(3, MISC_VALID),
            };
            if wanted(&record) {
                RING.push(record);
                each(&record);
                Msr::new(base + 1).write(0);
            }
        }
    }
}

/// MCG_STATUS, as it was in the exception.
#[derive(Clone, Copy, Debug)]
pub(crate) struct McgStatus(pub(crate) u64);

impl McgStatus {
    /// The interrupted instruction can be resumed.
    pub(crate) fn resumable(self) -> bool {
        self.0 & RIPV != 0
    }

    /// The error belongs to the interrupted instruction.
    pub(crate) fn belongs_to_rip(self) -> bool {
        self.0 & EIPV != 0
    }
}

/// The exception is handled: another machine check can be delivered.
pub(crate) fn done() {
    // SAFETY: clears MCIP.
    unsafe { Msr::new(MCG_STATUS).write(0) };
}
