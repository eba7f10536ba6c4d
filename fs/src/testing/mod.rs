//! What tests run on: memory that knows what would survive a crash, and a software MMU.
//!
//! | file | what |
//! |---|---|
//! | `memory.rs` | plain memory with counters |
//! | `log.rs` | memory that records what is done to it, and can be rolled back |
//! | `undecided.rs` | for each line, every value that a crash could leave |
//! | `damage.rs` | damage whose checks are right |
//! | `fuzz.rs` | what the fuzz targets do |
//! | `machine.rs` | a software MMU with a TLB, and a processor that runs on it |

pub mod damage;
pub mod fuzz;
mod log;
mod machine;
mod memory;
mod undecided;

pub use log::{Call, Event, LogPmem, Site, Skip};
pub use machine::{SoftMachine, SoftMmu};
pub use memory::MemPmem;
pub use undecided::{Choice, Model, Undecided};

use crate::pmem::Pmem;
use crate::types::{Block, Time};
use crate::volume::Volume;
use crate::volume::mount::{FormatOptions, MountError};
use alloc::vec::Vec;

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
///
/// # Errors
///
/// Why it cannot be mounted.
pub fn mount<P: Pmem>(pmem: P, slots: u32) -> Result<Volume<P, SoftMmu>, MountError> {
    Volume::mount(pmem, SoftMmu::new(slots), Time(2_000)).map_err(|(error, _, _)| error)
}

/// Blocks that are free, once everything that waits is reclaimed.
///
/// # Errors
///
/// What cannot be read.
pub fn free_blocks<P: Pmem>(volume: &mut Volume<P, SoftMmu>) -> crate::Result<Vec<Block>> {
    while volume.reclaim_step()? {}
    let geometry = volume.tree.blocks.geometry;
    let mut free = Vec::new();
    for block in (geometry.first..geometry.total).map(Block) {
        if volume.tree.blocks.count(block)? == 0 {
            free.push(block);
        }
    }
    Ok(free)
}

/// Whether a block is one of the two copies of a block of metadata, as its record has it.
///
/// # Errors
///
/// Its record cannot be read.
pub fn is_metadata<P: Pmem>(volume: &Volume<P, SoftMmu>, block: Block) -> crate::Result<bool> {
    Ok(volume.tree.blocks.is_metadata(block)?)
}

/// How many bytes behind a block of metadata of a volume its twin is.
pub fn twin_distance(len: u64) -> u64 {
    let geometry = crate::format::superblock::Geometry::new(len / crate::BLOCK_SIZE);
    geometry.twins * crate::BLOCK_SIZE
}

/// Byte range of the areas of a volume that hold derived state: scratch and checkpoint.
pub fn derived_area(len: u64) -> core::ops::Range<u64> {
    let geometry = crate::format::superblock::Geometry::new(len / crate::BLOCK_SIZE);
    geometry.scratch * crate::BLOCK_SIZE..geometry.first * crate::BLOCK_SIZE
}

/// Where the two superblocks are: byte offsets in the region.
pub fn superblocks() -> [u64; 2] {
    crate::format::superblock::COPIES.map(|block| block.0 * crate::BLOCK_SIZE)
}

/// Whether a byte of the region is in one of the two superblocks.
pub fn in_superblocks(at: u64) -> bool {
    superblocks().contains(&(at - at % crate::BLOCK_SIZE))
}

/// Whether the superblocks say that the derived state is valid.
pub fn claims_clean(pmem: &impl Pmem) -> bool {
    crate::volume::mount::claims_clean(pmem)
}
