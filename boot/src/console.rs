//! The way out for a loader that cannot go on: a line on the serial port and an exit status for
//! QEMU.

use core::fmt::{self, Write};

use bootloader_x86_64_common::serial::SerialPort;
use x86_64::instructions::{hlt, interrupts, port::Port};

/// I/O port of QEMU's `isa-debug-exit` device.
pub const EXIT_PORT: u16 = 0xf4;

/// What is written there: QEMU exits with status 2 * 2 + 1 = 5.
pub const FAILURE: u32 = 2;

/// Prints `umbra-boot: REASON` and ends QEMU with a failure; halts where it has no exit device.
pub fn fail(reason: fmt::Arguments<'_>) -> ! {
    // SAFETY: the constructor may be called once at a time, because it reprograms the UART at
    // 0x3f8. The loader has one thread, prints nowhere else, and does not return from here; should
    // printing itself panic, the UART is only programmed once more.
    let mut serial = unsafe { SerialPort::init() };
    let _ = writeln!(serial, "umbra-boot: {reason}");
    // SAFETY: writing to the exit port ends QEMU; where the device is missing nothing listens at
    // this port.
    unsafe { Port::new(EXIT_PORT).write(FAILURE) };
    loop {
        interrupts::disable();
        hlt();
    }
}
