//! The serial port: a 16550 at its usual place.
//!
//! Output waits for the device. Input comes by interrupt into a ring, from which the console
//! takes it; what does not fit into the ring is lost, and counted.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{FifoTriggerLevel, IER};
use uart_16550::{BaudRate, Config, Uart16550};
use x86_64::instructions::interrupts::without_interrupts;

const PORT: u16 = 0x3f8;
/// ISA interrupt of the first serial port.
pub(crate) const IRQ: u8 = 4;
const RING: usize = 4096;

struct Port {
    uart: Uart16550<PioBackend>,
    present: bool,
    ring: [u8; RING],
    head: usize,
    len: usize,
}

static PORT_1: Mutex<Port> = Mutex::new(Port {
    // SAFETY: the first serial port is the kernel's alone.
    uart: match unsafe { Uart16550::new_port(PORT) } {
        Ok(uart) => uart,
        Err(_) => panic!("the port is valid"),
    },
    present: false,
    ring: [0; RING],
    head: 0,
    len: 0,
});
static LOST: AtomicU64 = AtomicU64::new(0);

/// Starts the device. Without one, output goes nowhere.
pub(crate) fn init() {
    let config = Config {
        baud_rate: BaudRate::Baud115200,
        // An interrupt for each byte: console input is rare, and is wanted at once.
        fifo_trigger_level: Some(FifoTriggerLevel::One),
        ..Config::DEFAULT
    };
    with(|port| port.present = port.uart.init(config).is_ok());
}

/// Lets the device interrupt when bytes arrive.
pub(crate) fn enable_input() {
    with(|port| {
        if port.present {
            port.uart.enable_interrupts(IER::DATA_READY);
        }
    });
}

fn with<R>(f: impl FnOnce(&mut Port) -> R) -> R {
    // The interrupt handler takes the lock too.
    without_interrupts(|| f(&mut PORT_1.lock()))
}

/// The interrupt of the device.
pub(crate) fn interrupt() {
    with(|port| {
        // A bounded number, so that a device gone mad cannot hold the processor.
        for _ in 0..RING {
            let Ok(byte) = port.uart.try_receive_byte() else { break };
            if port.len == RING {
                LOST.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let at = (port.head + port.len) % RING;
            port.ring[at] = byte;
            port.len += 1;
        }
    });
}

/// Takes a received byte.
pub(crate) fn take() -> Option<u8> {
    with(|port| {
        if port.len == 0 {
            return None;
        }
        let byte = port.ring[port.head];
        port.head = (port.head + 1) % RING;
        port.len -= 1;
        Some(byte)
    })
}

/// Bytes lost since the last call, because the ring was full.
pub(crate) fn take_lost() -> u64 {
    LOST.swap(0, Ordering::Relaxed)
}

/// Writes bytes, in pieces so that interrupts wait for no more than one of them.
pub(crate) fn write(bytes: &[u8]) {
    for piece in bytes.chunks(16) {
        with(|port| {
            if port.present {
                port.uart.send_bytes_exact(piece);
            }
        });
    }
}

/// Writes text.
pub(crate) struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write(text.as_bytes());
        Ok(())
    }
}

/// Takes the port by force, for a last report: the code that holds it was interrupted for good.
///
/// # Safety
///
/// The caller never returns to what it interrupted.
pub(crate) unsafe fn seize() {
    if PORT_1.is_locked() {
        // SAFETY: the holder never runs again, as the caller promises.
        unsafe { PORT_1.force_unlock() };
    }
}

/// Prints to the serial port.
macro_rules! print {
    ($($arg:tt)*) => {{
        use core::fmt::Write;
        let _ = core::write!($crate::arch::serial::Serial, $($arg)*);
    }};
}
pub(crate) use print;

/// Prints a line to the serial port.
macro_rules! println {
    () => { $crate::arch::serial::print!("\n") };
    ($($arg:tt)*) => { $crate::arch::serial::print!("{}\n", core::format_args!($($arg)*)) };
}
pub(crate) use println;
