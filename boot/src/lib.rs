//! What the loader computes: everything about its input that needs no hardware.
//!
//! | module     | turns                                   | into                                  |
//! |------------|-----------------------------------------|---------------------------------------|
//! | [`pvh`]    | the bytes of an `hvm_start_info`        | memory map, RSDP, the kernel's module |
//! | [`memory`] | that memory map and what must stay      | sorted page-aligned regions           |
//! | [`image`]  | the bytes of the kernel's ELF file      | proof that it can be loaded, and its need of memory |
//!
//! The binary of this package adds the rest: entry code, page tables, exceptions, the serial port.
//! Everything here looks at bytes that others wrote, and answers with an error, never with a panic.

#![no_std]
#![forbid(unsafe_code)]

pub mod image;
pub mod memory;
pub mod pvh;

/// Bytes in a page, and the unit of everything that the loader hands out.
pub const PAGE: u64 = 4096;

/// The loader's page tables reach this far, and PVH's pointers must stay below it.
pub const REACH: u64 = 1 << 32;

/// A little-endian `u32` at a byte offset, or `None` beyond the end.
fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// A little-endian `u64` at a byte offset, or `None` beyond the end.
fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    Some(u64::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// A little-endian `u16` at a byte offset, or `None` beyond the end.
fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let end = offset.checked_add(2)?;
    Some(u16::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}
