//! What interrupts do, and the sleep that they end.
//!
//! Handlers only note what happened; the poll loop does the work. Every interrupt marks the loop
//! as woken, so that it does not sleep over what a handler noted. Interrupts of devices do nothing
//! else: what they brought is found by looking at the devices.

use super::apic::{self, vector};
use super::{clock, serial};
use crate::counter::Counter;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use x86_64::instructions::interrupts;

static WOKEN: AtomicBool = AtomicBool::new(false);
static COUNT: Counter = Counter::new();

/// Gives a device a vector. `None` if all are taken.
pub(crate) fn allocate_vector() -> Option<u8> {
    static NEXT: AtomicU8 = AtomicU8::new(vector::FIRST_FREE);
    let free = |next: u8| (next <= vector::LAST_FREE).then(|| next + 1);
    NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()
}

/// The entry of all interrupts, from the stub.
pub(crate) extern "C" fn interrupt(vector: u32) {
    COUNT.add(1);
    WOKEN.store(true, Ordering::Relaxed);
    match vector as u8 {
        vector::TIMER => clock::expired(),
        vector::SERIAL => serial::interrupt(),
        // A spurious interrupt is not acknowledged.
        vector::SPURIOUS => return,
        _ => {}
    }
    apic::end_of_interrupt();
}

/// Wakes the poll loop from an exception that no interrupt follows. It may come between the
/// loop's last look and its sleep, so the processor is sent an interrupt.
pub(crate) fn wake() {
    WOKEN.store(true, Ordering::Relaxed);
    apic::interrupt_self(vector::WAKE);
}

/// Interrupts so far.
pub(crate) fn count() -> u64 {
    COUNT.total()
}

/// The poll loop starts a round: whatever wakes it from here on keeps it from sleeping.
pub(crate) fn begin_round() {
    WOKEN.store(false, Ordering::Relaxed);
}

/// Whether an interrupt came since [`begin_round`].
pub(crate) fn is_woken() -> bool {
    WOKEN.load(Ordering::Relaxed)
}

/// Sleeps until an interrupt, unless one came since [`begin_round`].
pub(crate) fn sleep() {
    interrupts::disable();
    if WOKEN.load(Ordering::Relaxed) {
        interrupts::enable();
    } else {
        // `sti` takes effect behind the next instruction: no interrupt can come in between.
        interrupts::enable_and_hlt();
    }
}
