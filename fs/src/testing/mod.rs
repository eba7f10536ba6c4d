//! What tests run on: memory that knows what would survive a crash, and a software MMU.
//!
//! | file | what |
//! |---|---|
//! | `memory.rs` | plain memory with counters |
//! | `log.rs` | memory that keeps, for each line, every value that a crash could leave |
//! | `machine.rs` | a software MMU with a TLB, and a processor that runs on it |

mod log;
mod machine;
mod memory;

pub use log::{LogPmem, Survive};
pub use machine::{SoftMachine, SoftMmu};
pub use memory::MemPmem;

use crate::types::Time;
use crate::volume::{FormatOptions, Volume};
use crate::{MountError, Pmem};

/// Format options that are the same in every test.
pub const FORMAT: FormatOptions =
    FormatOptions { uuid: *b"umbra-test-volum", seed: 0x5eed, now: Time(1_000) };

/// A new volume of `len` bytes in plain memory, with `slots` slots for windows.
pub fn new_volume(len: u64, slots: u32) -> Volume<MemPmem, SoftMmu> {
    let mut pmem = MemPmem::new(len);
    Volume::<MemPmem, SoftMmu>::format(&mut pmem, FORMAT).expect("a blank region can be formatted");
    mount(pmem, slots).expect("a new volume can be mounted")
}

/// Mounts what is in a memory.
pub fn mount<P: Pmem>(pmem: P, slots: u32) -> Result<Volume<P, SoftMmu>, MountError> {
    Volume::mount(pmem, SoftMmu::new(slots), Time(2_000)).map_err(|(error, _, _)| error)
}
