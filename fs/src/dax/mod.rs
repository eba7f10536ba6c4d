//! What the filesystem shows through page tables: windows, masters and shadows.

mod machine;
mod mmu;
pub use machine::*;
pub use mmu::*;
