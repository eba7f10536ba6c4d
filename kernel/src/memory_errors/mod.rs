//! Memory errors: what the hardware reports, on the way to the log.
//!
//! ```text
//!  machine check        arch::mce reads the banks, and puts a record for each error into the ring
//!       |               traps: a load of the lost memory ends with a failure; all else is resumed
//!       v
//!     ring              32 records; errors beyond that are counted
//!       |
//!       v
//!   error_log           by the poll loop, and before any packet leaves: counted, logged; the
//!                       volume is told which blocks are lost (Volume::memory_error)
//! ```
//!
//! Every error leaves a trace: a line in the log, and a count (the console's `errors`). Errors that
//! the hardware corrected raise no machine check: the loop asks for them, once a second at most.
//!
//! Left out: single words of metadata are loaded without a fixup.
//!
//! | file | what it holds |
//! |---|---|
//! | `record.rs` | what a bank says |
//! | `ring.rs` | records that wait for the loop |
//!
//! Follows SDM volume 3, chapter 17.

mod record;
mod ring;

pub(crate) use record::{ADDRESS_VALID, INJECTED, MISC_VALID, Record, VALID};
pub(crate) use ring::{Again, Ring};

/// What the machine-check handler found, and the loop has not taken yet.
pub(crate) static RING: Ring = Ring::new();
