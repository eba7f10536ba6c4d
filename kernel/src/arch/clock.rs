//! Time since start, the wall clock, and one deadline.
//!
//! The time-stamp counter is the clock. Its frequency is what CPUID or the hypervisor says, else
//! measured against the ACPI timer or, without one, the PIT. It starts at 0 when the machine
//! does, so it also tells how long ago that was. The wall clock is read once, from the
//! real-time clock, and goes on by the counter.
//!
//! There is no periodic tick: the timer is armed for the next deadline, if there is one.

use super::apic;
use crate::acpi::PmTimer;
use crate::calendar::RtcRegisters;
use crate::cpu;
use core::sync::atomic::{AtomicU64, Ordering};
use umbra_fs::Time;
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::instructions::port::{Port, PortReadOnly};

/// Time since the machine was started, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(pub(crate) u64);

impl Instant {
    /// This much later.
    pub(crate) fn after_ns(self, ns: u64) -> Instant {
        Instant(self.0.saturating_add(ns))
    }
    /// Nanoseconds since an earlier instant; 0 if it is later.
    pub(crate) fn since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Frequency of the ACPI timer (ACPI 6.5, section 4.8.2.1).
const PM_TIMER_HZ: u64 = 3_579_545;
/// Frequency of the PIT.
const PIT_HZ: u64 = 1_193_182;
/// How long the frequency is measured.
const MEASURE_MS: u64 = 8;

/// Nanoseconds in a tick of the counter, times 2^32.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(1 << 32);
static TSC_HZ: AtomicU64 = AtomicU64::new(1_000_000_000);
static TIMER_HZ: AtomicU64 = AtomicU64::new(1_000_000_000);
/// Wall clock at start, in nanoseconds since 1970.
static WALL_AT_START: AtomicU64 = AtomicU64::new(0);
/// The deadline that the timer is armed for.
static ARMED: AtomicU64 = AtomicU64::new(u64::MAX);

/// Now.
pub(crate) fn now() -> Instant {
    Instant(ticks_to_ns(cpu::tsc()))
}

/// Nanoseconds in a number of ticks of the counter.
pub(crate) fn ticks_to_ns(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(NS_PER_TICK.load(Ordering::Relaxed))) >> 32) as u64
}

/// The wall clock.
pub(crate) fn wall() -> Time {
    Time(WALL_AT_START.load(Ordering::Relaxed).saturating_add(now().0) as i64)
}

/// Frequency of the counter in Hz.
pub(crate) fn frequency() -> u64 {
    TSC_HZ.load(Ordering::Relaxed)
}

/// Finds the frequencies of counter and timer. The local APIC is started.
pub(crate) fn init(pm_timer: Option<PmTimer>) {
    let mut measured = (0, 1);
    let timer_ticks = apic::count_timer(|| {
        measured = match pm_timer {
            Some(timer) => measure_by_pm_timer(timer),
            None => measure_by_pit(),
        }
    });
    let (ticks, ns) = measured;
    let tsc_hz = cpu::features().tsc_hz.unwrap_or(ticks.saturating_mul(1_000_000_000) / ns).max(1);
    TSC_HZ.store(tsc_hz, Ordering::Relaxed);
    NS_PER_TICK.store(((1_000_000_000u128 << 32) / u128::from(tsc_hz)) as u64, Ordering::Relaxed);
    TIMER_HZ.store((timer_ticks.saturating_mul(1_000_000_000) / ns).max(1), Ordering::Relaxed);
    apic::enable_timer();
}

/// Counts ticks over a while, by the ACPI timer: (ticks, nanoseconds).
fn measure_by_pm_timer(timer: PmTimer) -> (u64, u64) {
    let mut port = PortReadOnly::<u32>::new(timer.port);
    let mask = if timer.bits_32 { u32::MAX } else { (1 << 24) - 1 };
    let mut sample = || {
        // Between two readings of the counter; their mean is when the timer was read. The
        // closest pair of a few is the least disturbed one.
        let samples = (0..4).map(|_| {
            let before = cpu::tsc();
            // SAFETY: the port is that of the ACPI timer, says firmware; reading changes nothing.
            let time = unsafe { port.read() } & mask;
            let after = cpu::tsc();
            (after - before, before + (after - before) / 2, time)
        });
        samples.min_by_key(|(width, ..)| *width).map_or((0, 0), |(_, tsc, time)| (tsc, time))
    };
    let (start_tsc, start) = sample();
    // A bound, so that a dead timer cannot hold the start.
    for _ in 0..1_000_000 {
        let (tsc, time) = sample();
        let passed = u64::from(time.wrapping_sub(start) & mask);
        if passed >= PM_TIMER_HZ * MEASURE_MS / 1000 {
            return (tsc - start_tsc, passed * 1_000_000_000 / PM_TIMER_HZ);
        }
    }
    measure_by_pit()
}

/// Counts ticks over a while, by the PIT's second channel: (ticks, nanoseconds).
fn measure_by_pit() -> (u64, u64) {
    let count = (PIT_HZ * MEASURE_MS / 1000) as u16;
    let mut gate = Port::<u8>::new(0x61);
    let (mut command, mut data) = (Port::<u8>::new(0x43), Port::<u8>::new(0x42));
    // SAFETY: the ports are the PIT's and its gate's: channel 2, mode 0 (output goes high when
    // the count is reached), with the speaker off.
    unsafe {
        let value = gate.read();
        gate.write(value & !3 | 1);
        command.write(0b1011_0000);
        data.write(count as u8);
        data.write((count >> 8) as u8);
        let start = cpu::tsc();
        for _ in 0..10_000_000 {
            if gate.read() & 0x20 != 0 {
                break;
            }
        }
        (cpu::tsc() - start, u64::from(count) * 1_000_000_000 / PIT_HZ)
    }
}

/// Reads the wall clock. `century` is the register for it, 0 if there is none.
pub(crate) fn read_wall_clock(century: u8) {
    let read = |register: u8| {
        // SAFETY: the ports are the real-time clock's; bit 7 keeps NMIs enabled.
        unsafe {
            Port::<u8>::new(0x70).write(register);
            Port::<u8>::new(0x71).read()
        }
    };
    let registers = || RtcRegisters {
        second: read(0),
        minute: read(2),
        hour: read(4),
        day: read(7),
        month: read(8),
        year: read(9),
        century: (century != 0).then(|| read(century)),
        status_b: read(0x0b),
    };
    // Two equal readings, neither while the clock updates itself.
    let mut last = None;
    for _ in 0..100_000 {
        if read(0x0a) & 0x80 != 0 {
            continue;
        }
        let current = registers();
        if last == Some(current) {
            break;
        }
        last = Some(current);
    }
    match last.and_then(RtcRegisters::time) {
        Some(time) => {
            WALL_AT_START.store((time.0 as u64).saturating_sub(now().0), Ordering::Relaxed)
        }
        None => log::warn!("the real-time clock shows no date; files will be dated 1970"),
    }
}

/// Asks to be woken at a time, unless an earlier one is asked for already. A caller that needs a
/// later one too asks again when woken.
pub(crate) fn wake_at(at: Instant) {
    without_interrupts(|| {
        if at.0 >= ARMED.load(Ordering::Relaxed) {
            return;
        }
        ARMED.store(at.0, Ordering::Relaxed);
        arm(at);
    });
}

fn arm(at: Instant) {
    let hz = |frequency: &AtomicU64| u128::from(frequency.load(Ordering::Relaxed));
    if cpu::features().tsc_deadline {
        let tsc = u128::from(at.0) * hz(&TSC_HZ) / 1_000_000_000;
        apic::arm_deadline(u64::try_from(tsc).unwrap_or(u64::MAX).max(1));
    } else {
        // A deadline beyond the timer's range takes several rounds.
        let ticks = u128::from(at.since(now())) * hz(&TIMER_HZ) / 1_000_000_000;
        apic::arm_ticks(u32::try_from(ticks).unwrap_or(u32::MAX));
    }
}

/// The timer's interrupt.
pub(crate) fn expired() {
    let armed = Instant(ARMED.load(Ordering::Relaxed));
    if armed > now() && armed.0 != u64::MAX {
        arm(armed);
    } else {
        ARMED.store(u64::MAX, Ordering::Relaxed);
    }
}
