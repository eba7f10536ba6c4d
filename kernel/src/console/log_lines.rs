//! The logger: lines with the time since start, on the serial port.

use crate::arch::clock;
use crate::arch::serial::println;
use log::{Level, LevelFilter, Log, Metadata, Record};

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let us = clock::now().0 / 1000;
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            _ => "",
        };
        println!("[{:5}.{:06}] {level}{}", us / 1_000_000, us % 1_000_000, record.args());
    }

    fn flush(&self) {}
}

/// Starts logging.
pub(crate) fn init() {
    static LOGGER: Logger = Logger;
    // It is set once; were it set already, that one would do.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(LevelFilter::Info);
}
