//! What a processor sees of files: the page-fault handler, and loads and stores through windows.
//!
//! | file | what |
//! |---|---|
//! | `fault.rs` | the page-fault handler |
//! | `machine.rs` | loads and stores through windows |
//!
//! The tables that both work on are in `windows/`, below the volume.

mod fault;
mod machine;

pub use crate::windows::mmu::*;
pub use machine::*;
