//! The network: what the poll loop asks for work.

use crate::arch::clock::Instant;

/// Finds and starts the devices.
pub fn init() {}

/// Handles what arrived; whether there was anything to do.
pub fn poll(_now: Instant) -> bool {
    false
}
