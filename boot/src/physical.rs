//! Physical memory through the loader's identity mapping.

use umbra_boot::REACH;
use umbra_boot::pvh::PhysicalMemory;

/// Everything below [`REACH`], which `entry.s` maps at its own addresses.
pub struct Identity;

/// Only the null pointer cannot be read: QEMU's option ROM puts its memory map into the page at 0.
const FIRST: u64 = 1;

impl PhysicalMemory for Identity {
    fn bytes(&self, address: u64, length: u64) -> Option<&'static [u8]> {
        let end = address.checked_add(length)?;
        if address < FIRST || end > REACH {
            return None;
        }
        // SAFETY: the range is mapped (all of [FIRST, REACH) is, readable), and every bit pattern
        // is a u8. Where there is no RAM a read gives all ones. Nothing stores to it while the
        // slice lives: these are start info, its tables (copied out at once) and the kernel's file,
        // which the loader keeps out of the memory it allocates from.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, length as usize) })
    }
}
