//! QEMU's firmware configuration device: named files that the launcher passes.
//!
//! Used for options (`opt/umbra/config`) and a seed of randomness (`opt/umbra/seed`). Read
//! byte by byte through its ports; the files are small. Without the device there are none.
//!
//! Follows QEMU's docs/specs/fw_cfg.txt.

use alloc::vec::Vec;
use x86_64::instructions::port::{Port, PortReadOnly};

/// Options.
pub(crate) const CONFIG: &str = "opt/umbra/config";
/// Randomness.
pub(crate) const SEED: &str = "opt/umbra/seed";

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
const SIGNATURE: u16 = 0;
const DIRECTORY: u16 = 0x19;
/// Most files that are looked through.
const MAX_FILES: u32 = 256;
/// Largest file that is read.
const MAX_SIZE: u32 = 4096;

fn select(key: u16) {
    // SAFETY: the port is the device's, or nobody's; selecting changes only what is read next.
    unsafe { Port::<u16>::new(SELECTOR).write(key) };
}

fn read<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    for byte in &mut bytes {
        // SAFETY: as in `select`; reading moves on in the selected file.
        *byte = unsafe { PortReadOnly::new(DATA).read() };
    }
    bytes
}

/// Reads a file; `None` if there is no such file, or it is larger than 4 KiB.
pub(crate) fn file(name: &str) -> Option<Vec<u8>> {
    select(SIGNATURE);
    if read() != *b"QEMU" {
        return None;
    }
    select(DIRECTORY);
    let count = u32::from_be_bytes(read()).min(MAX_FILES);
    for _ in 0..count {
        let size = u32::from_be_bytes(read());
        let key = u16::from_be_bytes(read());
        let _reserved: [u8; 2] = read();
        let entry: [u8; 56] = read();
        let end = entry.iter().position(|byte| *byte == 0).unwrap_or(entry.len());
        if &entry[..end] == name.as_bytes() && size <= MAX_SIZE {
            select(key);
            return Some((0..size).map(|_| read::<1>()[0]).collect());
        }
    }
    None
}
