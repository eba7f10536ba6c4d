//! The board: interrupts, time, machine checks, the serial port, copies.
//!
//! Left out: more than one processor, floating point.
//!
//! | file | what it holds |
//! |---|---|
//! | `apic.rs` | local APIC with its timer, I/O APIC |
//! | `interrupts.rs` | what interrupts do, and the sleep that they end |
//! | `clock.rs` | time since start, wall clock, one deadline |
//! | `mce.rs` | machine checks |
//! | `copy/` | the one copy that everything uses, and copies that survive a fault |
//! | `compare.rs` | comparing memory |
//! | `loads.rs` | loads that can be given up |
//! | `stepping.rs` | looking at memory after each instruction (test builds) |
//! | `serial.rs` | the serial port |
//! | `exit.rs` | ending QEMU |
//!
//! Follows the Intel 64 and IA-32 Architectures Software Developer's Manual (SDM).

#[cfg(target_os = "none")]
pub(crate) mod apic;
#[cfg(target_os = "none")]
pub(crate) mod clock;
pub(crate) mod compare;
pub(crate) mod copy;
#[cfg(target_os = "none")]
pub(crate) mod exit;
#[cfg(target_os = "none")]
pub(crate) mod interrupts;
pub(crate) mod loads;
#[cfg(target_os = "none")]
pub(crate) mod mce;
#[cfg(target_os = "none")]
pub(crate) mod serial;
#[cfg(all(target_os = "none", feature = "test-commands"))]
pub(crate) mod stepping;
