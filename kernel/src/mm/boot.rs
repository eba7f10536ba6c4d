//! What the loader says about memory, copied before its own memory is given back.

use bootloader_api::BootInfo;
use bootloader_api::info::MemoryRegionKind;

/// Most regions that are looked at.
const MAX_REGIONS: usize = 64;
/// MemoryMap below this address is left to firmware.
const LOW: u64 = 1 << 20;
/// How far a reserved region that touches RAM is taken for a part of it (firmware tables).
const MAX_TABLES: u64 = 16 << 20;

/// What a region of memory may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Free.
    Free,
    /// The loader's: free once its page tables, and the file of the kernel, are not needed.
    Loader,
    /// Firmware's tables: mapped, never handed out.
    Firmware,
}

/// A region of RAM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    /// First byte.
    pub(crate) start: u64,
    /// Byte behind the last.
    pub(crate) end: u64,
    /// What it may be used for.
    pub(crate) usage: Use,
}

/// RAM, and where firmware's tables start.
pub(crate) struct MemoryMap {
    regions: [Region; MAX_REGIONS],
    len: usize,
    /// Physical address of the RSDP.
    pub(crate) rsdp: Option<u64>,
}

impl MemoryMap {
    /// Copies what matters out of the loader's information.
    pub(crate) fn new(info: &BootInfo) -> Self {
        let empty = Region { start: 0, end: 0, usage: Use::Firmware };
        let mut memory =
            MemoryMap { regions: [empty; MAX_REGIONS], len: 0, rsdp: info.rsdp_addr.into_option() };
        let mut ram_end = 0;
        for region in info.memory_regions.iter() {
            let usage = match region.kind {
                MemoryRegionKind::Usable => Use::Free,
                MemoryRegionKind::Bootloader => Use::Loader,
                // E820 types 3 and 4: ACPI tables, ACPI non-volatile storage.
                MemoryRegionKind::UnknownBios(3 | 4) => Use::Firmware,
                // Type 2, reserved: SeaBIOS keeps ACPI tables so, right behind usable RAM.
                _ if region.start == ram_end && region.end - region.start <= MAX_TABLES => {
                    Use::Firmware
                }
                _ => continue,
            };
            let start = region.start.max(LOW);
            if start < region.end && memory.len < MAX_REGIONS {
                memory.regions[memory.len] = Region { start, end: region.end, usage };
                memory.len += 1;
                ram_end = region.end;
            }
        }
        memory
    }

    /// The regions of RAM.
    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions[..self.len]
    }

    /// Address behind the last byte of RAM.
    pub(crate) fn end(&self) -> u64 {
        self.regions().iter().map(|r| r.end).max().unwrap_or(0)
    }

    /// Bytes of RAM that the kernel may use, now or after start-up.
    pub(crate) fn usable(&self) -> u64 {
        self.regions().iter().filter(|r| r.usage != Use::Firmware).map(|r| r.end - r.start).sum()
    }
}
