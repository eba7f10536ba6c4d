//! Traps: where the processor arrives when it cannot go on, or is interrupted.
//!
//! Left out: user mode, and with it the swap of anything but registers.
//!
//! | file | what it holds |
//! |---|---|
//! | `tables.rs` | GDT, TSS and IDT |
//! | `stubs.rs` | assembly entries of exceptions and interrupts |
//! | `frame.rs` | what is on the stack then |
//! | `exceptions.rs` | page faults to windows, machine checks; everything else to a report |
//! | `lost_loads.rs` | loads of memory that is lost end with a failure |
//! | `report.rs` | what is printed about an exception or a panic |
//!
//! Interrupts go on to [`arch::interrupts`](crate::arch::interrupts).
//!
//! Follows the Intel 64 and IA-32 Architectures Software Developer's Manual (SDM), volume 3,
//! chapter 7.

mod exceptions;
mod frame;
#[cfg(feature = "test-commands")]
pub(crate) mod lost_loads;
#[cfg(not(feature = "test-commands"))]
mod lost_loads;
mod report;
pub(crate) mod stubs;
pub(crate) mod tables;
