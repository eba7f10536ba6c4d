//! What the filesystem shows through page tables: windows, masters and shadows.
//!
//! | file | what |
//! |---|---|
//! | `mmu.rs` | the seam to page tables: slots, pages, translations |
//! | `windows.rs` | windows and their slots, the dirty list |
//! | `passes.rs` | sync, and other work on many pages |
//! | `shadows.rs` | the lists from a master to its shadows |
//! | `fault.rs` | the page-fault handler |
//! | `machine.rs` | loads and stores through windows |
//! | `invariants.rs` | what has to hold between page tables and trees, as a check |

mod fault;
mod invariants;
mod machine;
mod mmu;
mod passes;
mod shadows;
mod windows;

pub(crate) use invariants::WindowCheck;
pub use machine::*;
pub use mmu::*;
pub use windows::Window;
pub(crate) use windows::Windows;
