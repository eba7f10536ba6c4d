//! ACPI: finding tables with the `acpi` crate, and what they say of the machine.
//!
//! The crate finds and checks tables; what it does not know (the NFIT, `\_S5`) is read by pure
//! functions elsewhere ([`nfit`](crate::nfit), [`acpi_sleep`](crate::acpi_sleep)).
//!
//! Left out: AML. The crate's interpreter is not used.
//!
//! | file | what it holds |
//! |---|---|
//! | `tables.rs` | reading the tables, once |
//! | `wiring.rs` | what they say: interrupts, timers, configuration space, power |
//! | `memory.rs` | how the crate gets at the tables |
//!
//! Follows ACPI 6.5: 5.2 (tables), 4.8.3 (PM1 registers), 7.4.2 (`\_S5`).

mod memory;
mod tables;
mod wiring;

pub(crate) use tables::{firmware_tables, init};
pub(crate) use wiring::{Interrupts, IoApic, PmTimer, PowerOff};
