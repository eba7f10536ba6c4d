//! The processor and the board: registers, descriptor tables, traps, interrupts, time, copies.
//!
//! Left out: more than one processor, floating point, user mode.
//!
//! | file | what it holds |
//! |---|---|
//! | `cpu.rs` | what the processor can do; its control registers |
//! | `tables.rs` | GDT, TSS and IDT |
//! | `stubs.rs` | assembly entries of exceptions and interrupts |
//! | `traps.rs` | exceptions: page faults to windows, everything else to a report |
//! | `report.rs` | what is printed about an exception or a panic |
//! | `mce.rs` | machine checks |
//! | `apic.rs` | local APIC, I/O APIC, vectors |
//! | `clock.rs` | time since start, wall clock, one deadline |
//! | `copy.rs` | the one copy that everything uses, and copies that survive a fault |
//! | `stepping.rs` | looking at memory after each instruction (test builds) |
//! | `serial.rs` | the serial port |
//! | `exit.rs` | ending QEMU |
//!
//! Follows the Intel 64 and IA-32 Architectures Software Developer's Manual (SDM).

pub mod apic;
pub mod clock;
pub mod compare;
pub mod copy;
pub mod cpu;
pub mod exit;
pub mod mce;
pub mod report;
pub mod serial;
#[cfg(feature = "test-commands")]
pub mod stepping;
mod stubs;
pub mod tables;
pub mod traps;
