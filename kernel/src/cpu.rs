//! What the processor can do, and its control registers.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use spin::Once;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

/// Features by CPUID that the kernel makes use of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Features {
    /// Supervisor-mode execution prevention.
    pub(crate) smep: bool,
    /// Supervisor-mode access prevention.
    pub(crate) smap: bool,
    /// User-mode instruction prevention.
    pub(crate) umip: bool,
    /// Pages of 1 GiB.
    pub(crate) gib_pages: bool,
    /// `clwb`: writes a line back and keeps it.
    pub(crate) clwb: bool,
    /// `clflushopt`: writes a line back and drops it, unordered.
    pub(crate) clflushopt: bool,
    /// x2APIC: the local APIC's registers as model-specific ones.
    pub(crate) x2apic: bool,
    /// The local APIC's timer takes a time-stamp as deadline.
    pub(crate) tsc_deadline: bool,
    /// Random numbers.
    pub(crate) rdrand: bool,
    /// Machine-check exceptions and registers.
    pub(crate) mca: bool,
    /// Frequency of the time-stamp counter in Hz, where CPUID or the hypervisor says it.
    pub(crate) tsc_hz: Option<u64>,
}

static FEATURES: Once<Features> = Once::new();

/// The features.
pub(crate) fn features() -> &'static Features {
    FEATURES.call_once(detect)
}

fn detect() -> Features {
    let basic = __cpuid(0).eax;
    let one = __cpuid(1);
    let seven = if basic >= 7 { __cpuid_count(7, 0) } else { __cpuid(0x8000_0000) };
    let (seven_b, seven_c) = if basic >= 7 { (seven.ebx, seven.ecx) } else { (0, 0) };
    let extended = __cpuid(0x8000_0000).eax;
    let extended_d = if extended >= 0x8000_0001 { __cpuid(0x8000_0001).edx } else { 0 };
    let bit = |register: u32, bit: u32| register >> bit & 1 != 0;
    Features {
        smep: bit(seven_b, 7),
        smap: bit(seven_b, 20),
        umip: bit(seven_c, 2),
        gib_pages: bit(extended_d, 26),
        clwb: bit(seven_b, 24),
        clflushopt: bit(seven_b, 23),
        x2apic: bit(one.ecx, 21),
        tsc_deadline: bit(one.ecx, 24),
        rdrand: bit(one.ecx, 30),
        mca: bit(one.edx, 7) && bit(one.edx, 14),
        tsc_hz: tsc_hz(basic, bit(one.ecx, 31)),
    }
}

/// The counter's frequency: leaf 0x15 (SDM volume 3, 20.7.3), or the timing leaf that VMware
/// and KVM share.
fn tsc_hz(basic: u32, hypervisor: bool) -> Option<u64> {
    if basic >= 0x15 {
        let leaf = __cpuid(0x15);
        let (denominator, numerator, crystal) =
            (u64::from(leaf.eax), u64::from(leaf.ebx), u64::from(leaf.ecx));
        if denominator != 0 && numerator != 0 && crystal != 0 {
            return Some(crystal * numerator / denominator);
        }
    }
    if hypervisor && __cpuid(0x4000_0000).eax >= 0x4000_0010 {
        let khz = u64::from(__cpuid(0x4000_0010).eax);
        return (khz != 0).then_some(khz * 1000);
    }
    None
}

/// Turns on every protection that the processor has. CR0.WP stays on for good: shared pages
/// are protected from the kernel itself by it.
pub(crate) fn protect() {
    let features = features();
    let mut cr4 = Cr4::read() | Cr4Flags::PAGE_GLOBAL;
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, features.smep);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, features.smap);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, features.umip);
    // SAFETY: these only forbid what the kernel does not do; there are no user pages.
    unsafe {
        Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE));
        Cr0::update(|cr0| {
            cr0.insert(Cr0Flags::WRITE_PROTECT);
            cr0.remove(Cr0Flags::CACHE_DISABLE | Cr0Flags::NOT_WRITE_THROUGH);
        });
        Cr4::write(cr4);
    }
}

/// The time-stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: reads a counter that every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A random word by `rdrand`, if the processor has it and gives one.
pub(crate) fn random() -> Option<u64> {
    if !features().rdrand {
        return None;
    }
    (0..10).find_map(|_| {
        let (value, good): (u64, u8);
        // SAFETY: the processor has the instruction, as CPUID says; it changes flags only.
        unsafe {
            core::arch::asm!(
                "rdrand {}",
                "setc {}",
                out(reg) value,
                out(reg_byte) good,
                options(nomem, nostack)
            );
        }
        (good != 0).then_some(value)
    })
}

/// Stops for good.
pub(crate) fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
