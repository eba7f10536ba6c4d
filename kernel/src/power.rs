//! Powering off, by the control registers that the ACPI tables name (ACPI 6.5, 4.8.3 and 7.4.2).

use crate::acpi::{self, PowerOff};
use crate::arch::clock;
use x86_64::instructions::port::Port;

/// Sets the sleep type that the register holds.
const SLEEP_ENABLE: u16 = 1 << 13;
/// The board is in ACPI mode.
const SCI_ENABLE: u16 = 1;
/// How long the board may take, in nanoseconds.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Powers off. Comes back only if that is not possible; says why not.
pub(crate) fn off() -> &'static str {
    let Some(PowerOff { pm1a, pm1b, types, enable }) = acpi::firmware_tables().power_off else {
        return "the ACPI tables do not say how to power off";
    };
    let value = |sleep_type: u8| SLEEP_ENABLE | u16::from(sleep_type) << 10;
    // SAFETY: the ports are those that the FADT gives for this; the machine is meant to end.
    unsafe {
        let mut pm1a = Port::<u16>::new(pm1a);
        if let (Some((port, value)), 0) = (enable, pm1a.read() & SCI_ENABLE) {
            Port::<u8>::new(port).write(value);
            for _ in 0..100_000 {
                if pm1a.read() & SCI_ENABLE != 0 {
                    break;
                }
            }
        }
        pm1a.write(value(types.a));
        if let Some(pm1b) = pm1b {
            Port::<u16>::new(pm1b).write(value(types.b));
        }
    }
    let start = clock::now();
    while clock::now().since(start) < PATIENCE_NS {
        // A pause would make an emulator give up its turn, and there is nobody to give it to.
    }
    "the board did not power off"
}
