//! Loads and stores through windows.

use crate::error::Error;
use crate::pmem::Pmem;
use crate::types::BLOCK_SIZE;
use crate::volume::Volume;
use crate::windows::Window;
use crate::windows::mmu::{Mmu, PAGES_PER_SLOT, Page};

/// A load or store that could not be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessError {
    /// Bytes that were loaded or stored before it failed.
    pub done: usize,
    /// Why the fault was not resolved.
    pub error: Error,
}

/// A processor that has the window area mapped.
///
/// The kernel implements it with real loads and stores, whose page faults call
/// [`Volume::fault`]; tests with a software MMU. No reference into the volume is alive
/// across `load` and `store`: the fault handler needs it.
pub trait Machine {
    /// The persistent memory.
    type Pmem: Pmem;
    /// The page tables.
    type Mmu: Mmu;

    /// Runs `f` on the volume.
    fn volume<R>(&mut self, f: impl FnOnce(&mut Volume<Self::Pmem, Self::Mmu>) -> R) -> R;

    /// Loads bytes that start `offset` bytes into `page` and end within its slot.
    ///
    /// # Errors
    ///
    /// Why a page fault was not resolved, and how many bytes were loaded before it.
    fn load(&mut self, page: Page, offset: usize, into: &mut [u8]) -> Result<(), AccessError>;

    /// Stores bytes that start `offset` bytes into `page` and end within its slot.
    ///
    /// # Errors
    ///
    /// Why a page fault was not resolved, and how many bytes were stored before it.
    fn store(&mut self, page: Page, offset: usize, from: &[u8]) -> Result<(), AccessError>;
}

const SLOT_SIZE: u64 = BLOCK_SIZE * PAGES_PER_SLOT as u64;

/// Cuts an access of `len` bytes at `at` where slots end: (leaf, page index, offset in page,
/// length).
fn first_piece(at: u64, len: usize) -> (u32, u32, usize, usize) {
    let leaf = (at / SLOT_SIZE) as u32;
    let within = at % SLOT_SIZE;
    let piece = (SLOT_SIZE - within).min(len as u64) as usize;
    (leaf, (within / BLOCK_SIZE) as u32, (within % BLOCK_SIZE) as usize, piece)
}

/// Loads from a window at byte `at` of its file.
///
/// # Errors
///
/// Why the window got no slot or a page fault was not resolved, and how many bytes were loaded
/// before it.
pub fn load<T: Machine>(
    machine: &mut T,
    window: Window,
    at: u64,
    into: &mut [u8],
) -> Result<(), AccessError> {
    let mut done = 0;
    while done < into.len() {
        let (leaf, index, offset, piece) = first_piece(at + done as u64, into.len() - done);
        let slot = machine
            .volume(|v| v.attach(window, leaf))
            .map_err(|error| AccessError { done, error })?;
        machine
            .load(slot.page(index), offset, &mut into[done..done + piece])
            .map_err(|e| AccessError { done: done + e.done, error: e.error })?;
        done += piece;
    }
    Ok(())
}

/// Stores into a window at byte `at` of its file. Durable after [`Volume::sync`].
///
/// # Errors
///
/// Why the window got no slot or a page fault was not resolved, and how many bytes were stored
/// before it.
pub fn store<T: Machine>(
    machine: &mut T,
    window: Window,
    at: u64,
    from: &[u8],
) -> Result<(), AccessError> {
    let mut done = 0;
    while done < from.len() {
        let (leaf, index, offset, piece) = first_piece(at + done as u64, from.len() - done);
        let slot = machine
            .volume(|v| v.attach(window, leaf))
            .map_err(|error| AccessError { done, error })?;
        machine
            .store(slot.page(index), offset, &from[done..done + piece])
            .map_err(|e| AccessError { done: done + e.done, error: e.error })?;
        done += piece;
    }
    Ok(())
}
