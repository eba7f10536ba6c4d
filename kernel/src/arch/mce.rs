//! Machine checks: errors that memory reports.
//!
//! The handler records bank and address, clears the bank and MCG_STATUS.MCIP (a second machine
//! check before that resets the machine), and resumes what was interrupted; the poll loop acts
//! on the record before any reply leaves. An error whose processor state is lost is reported
//! and ends the machine.
//!
//! Follows SDM volume 3, chapter 17.

use super::report;
use super::traps::TrapFrame;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MCG_CTL: u32 = 0x17b;
const MC0_CTL: u32 = 0x400;

/// MCG_STATUS: the instruction pointer on the stack can be returned to.
const RIPV: u64 = 1;
const VALID: u64 = 1 << 63;
const UNCORRECTED: u64 = 1 << 61;
const MISC_VALID: u64 = 1 << 59;
const ADDRESS_VALID: u64 = 1 << 58;
/// The processor's own state may be wrong.
const CONTEXT_CORRUPT: u64 = 1 << 57;

/// One error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// The bank that reported it.
    pub bank: u64,
    /// MCi_STATUS.
    pub status: u64,
    /// MCi_ADDR: a physical address, if bit 58 of `status` is set.
    pub address: u64,
    /// MCi_MISC, if bit 59 of `status` is set: bits 0 to 5 say which low bits of the address
    /// mean nothing.
    pub misc: u64,
}

impl Record {
    /// The physical address of the error, if it is known.
    pub fn physical(&self) -> Option<u64> {
        (self.status & ADDRESS_VALID != 0).then_some(self.address)
    }
    /// Whether data was lost.
    pub fn uncorrected(&self) -> bool {
        self.status & UNCORRECTED != 0
    }
}

/// Records that the handler filled and the poll loop has not taken yet: a ring without locks,
/// since a machine check can interrupt anything.
const RING: usize = 32;
static RECORDS: [[AtomicU64; 4]; RING] = [const { [const { AtomicU64::new(0) }; 4] }; RING];
static FILLED: AtomicUsize = AtomicUsize::new(0);
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// Turns machine checks on.
pub fn enable() {
    if !super::cpu::features().mca {
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

/// The machine-check exception, on its own stack.
pub fn handle(frame: &TrapFrame) {
    let mut context_corrupt = false;
    // SAFETY: the exception comes only after `enable`, so the registers exist.
    let status = unsafe {
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
            context_corrupt |= status & CONTEXT_CORRUPT != 0;
            push(record);
            Msr::new(base + 1).write(0);
        }
        Msr::new(MCG_STATUS).read()
    };
    if status & RIPV == 0 || context_corrupt {
        report::machine_check(frame, status);
    }
    // SAFETY: clears MCIP, so that the next machine check is delivered.
    unsafe { Msr::new(MCG_STATUS).write(0) };
    super::apic::wake();
}

fn push(record: Record) {
    let filled = FILLED.load(Ordering::Relaxed);
    if filled - TAKEN.load(Ordering::Acquire) == RING {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let slot = &RECORDS[filled % RING];
    for (word, value) in slot.iter().zip([record.bank, record.status, record.address, record.misc])
    {
        word.store(value, Ordering::Relaxed);
    }
    FILLED.store(filled + 1, Ordering::Release);
}

/// Takes the oldest record.
pub fn take() -> Option<Record> {
    let taken = TAKEN.load(Ordering::Relaxed);
    if taken == FILLED.load(Ordering::Acquire) {
        return None;
    }
    let [bank, status, address, misc] = &RECORDS[taken % RING];
    let value = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let record = Record {
        bank: value(bank),
        status: value(status),
        address: value(address),
        misc: value(misc),
    };
    TAKEN.store(taken + 1, Ordering::Release);
    Some(record)
}

/// Errors that came faster than they were taken.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Whether an error waits to be taken.
pub fn pending() -> bool {
    TAKEN.load(Ordering::Relaxed) != FILLED.load(Ordering::Acquire)
}
