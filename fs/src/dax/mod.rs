//! What the filesystem shows through page tables: windows, masters and shadows.

mod mmu;
pub use mmu::*;
