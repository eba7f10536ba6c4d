//! The NVDIMM Firmware Interface Table (NFIT).
//!
//! The table says which physical address ranges are persistent, which NVDIMMs are behind
//! them, and how stores to them become durable. [`parse()`] is a pure function over the
//! bytes of the table, which firmware and hypervisors write: it trusts nothing, and never
//! panics.
//!
//! Left out: block data windows (type 5; obsolete, and dropped by ACPI 6.5's successors),
//! SMBIOS handles (type 3), and de-interleaving: a system physical address range is
//! contiguous whatever NVDIMMs are behind it.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the records and what can be asked of them |
//! | `parse.rs` | bytes to records |
//!
//! Follows ACPI 6.5, section 5.2.25.
#![forbid(unsafe_code)]

mod parse;

pub use parse::{NfitError, parse};

use alloc::vec::Vec;
use core::fmt;

/// A GUID as ACPI stores it: the first three fields little-endian.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Guid(pub [u8; 16]);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let g = &self.0;
        let (a, b, c) = (
            u32::from_le_bytes([g[0], g[1], g[2], g[3]]),
            u16::from_le_bytes([g[4], g[5]]),
            u16::from_le_bytes([g[6], g[7]]),
        );
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{:02x}{:02x}-", g[8], g[9])?;
        g[10..].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a system physical address range is, by its GUID (ACPI 6.5, table 5.148).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// Volatile memory.
    Volatile,
    /// Byte-addressable persistent memory.
    Persistent,
    /// Control registers of NVDIMMs.
    Control,
    /// Windows onto block-addressed NVDIMMs.
    BlockData,
    /// RAM disks: volatile or persistent, disk or CD image.
    RamDisk,
    /// A GUID that the specification does not list.
    Other(Guid),
}

/// A GUID as it is written.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> Guid {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    Guid([
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6],
        d[7],
    ])
}

/// What the specification's GUIDs mean.
const RANGE_KINDS: [(Guid, RangeKind); 8] = [
    (guid(0x7305944f, 0xfdda, 0x44e3, 0xb16c_3f22d252e5d0), RangeKind::Volatile),
    (guid(0x66f0d379, 0xb4f3, 0x4074, 0xac43_0d3318b78cdb), RangeKind::Persistent),
    (guid(0x92f701f6, 0x13b4, 0x405d, 0x910b_299367e8234c), RangeKind::Control),
    (guid(0x91af0530, 0x5d86, 0x470e, 0xa6b0_0a2db9408249), RangeKind::BlockData),
    (guid(0x77ab535a, 0x45fc, 0x624b, 0x5560_f7b281d1f96e), RangeKind::RamDisk),
    (guid(0x3d5abd30, 0x4175, 0x87ce, 0x6d64_d2ade523c4bb), RangeKind::RamDisk),
    (guid(0x5cea02c9, 0x4d07, 0x69d3, 0x269f_4496fbe096f9), RangeKind::RamDisk),
    (guid(0x08018188, 0x42cd, 0xbb48, 0x100f_5387d53ded3d), RangeKind::RamDisk),
];

impl RangeKind {
    fn of(guid: Guid) -> Self {
        let known = RANGE_KINDS.iter().find(|(known, _)| *known == guid);
        known.map_or(RangeKind::Other(guid), |(_, kind)| *kind)
    }
}

impl fmt::Display for RangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RangeKind::Volatile => f.write_str("volatile memory"),
            RangeKind::Persistent => f.write_str("persistent memory"),
            RangeKind::Control => f.write_str("control region"),
            RangeKind::BlockData => f.write_str("block data window"),
            RangeKind::RamDisk => f.write_str("RAM disk"),
            RangeKind::Other(guid) => write!(f, "unknown range {guid}"),
        }
    }
}

/// A system physical address (SPA) range (type 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaRange {
    /// Number by which region mappings refer to it; 0 when none do.
    pub index: u16,
    /// What it is.
    pub kind: RangeKind,
    /// First physical address.
    pub base: u64,
    /// Length in bytes, at least 1; the end does not overflow.
    pub length: u64,
    /// Memory attributes, as in the UEFI memory map.
    pub attributes: u64,
    /// NUMA proximity domain, where the table gives one.
    pub proximity: Option<u32>,
}

/// Which part of an NVDIMM is behind a SPA range (type 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionMapping {
    /// Handle of the NVDIMM.
    pub handle: u32,
    /// SMBIOS identifier of the NVDIMM.
    pub physical_id: u16,
    /// Identifies the region on its NVDIMM.
    pub region_id: u16,
    /// The SPA range, or 0.
    pub spa_index: u16,
    /// The control region, or 0.
    pub control_index: u16,
    /// Bytes of the NVDIMM that are mapped.
    pub size: u64,
    /// Where they start in the SPA range.
    pub offset: u64,
    /// Where they start on the NVDIMM.
    pub dpa: u64,
    /// The interleave structure, or 0.
    pub interleave_index: u16,
    /// NVDIMMs that are interleaved.
    pub ways: u16,
    /// Health of the NVDIMM.
    pub state: RegionState,
}

/// State flags of a region mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionState(pub u16);

impl RegionState {
    /// Why what is stored there must not be relied on, if so: an earlier save, restore or
    /// flush failed, the NVDIMM is not armed, or firmware could not map it.
    pub fn failure(self) -> Option<&'static str> {
        const WHY: [(u16, &str); 5] = [
            (1 << 0, "the last save failed"),
            (1 << 1, "the last restore failed"),
            (1 << 2, "the last flush failed"),
            (1 << 3, "not armed: stores would not survive a power loss"),
            (1 << 6, "firmware could not map it"),
        ];
        WHY.iter().find(|(bit, _)| self.0 & bit != 0).map(|(_, why)| *why)
    }
}

/// How the lines of interleaved NVDIMMs alternate (type 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interleave {
    /// Number by which region mappings refer to it.
    pub index: u16,
    /// Bytes in a line.
    pub line_size: u32,
    /// Offset of each line, in lines.
    pub offsets: Vec<u32>,
}

/// What an NVDIMM says of itself (type 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegion {
    /// Number by which region mappings refer to it.
    pub index: u16,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Serial number.
    pub serial: u32,
    /// Format interface code: the programming model.
    pub interface: u16,
}

/// Addresses to write to, so that what a fence ordered reaches the media (type 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushHints {
    /// Handle of the NVDIMM.
    pub handle: u32,
    /// Physical addresses; a write of anything to one of them flushes.
    pub addresses: Vec<u64>,
}

/// What the platform does when power fails (type 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Dirty lines of the CPU caches are flushed: stores are durable without flushing.
    pub cpu_cache: bool,
    /// The memory controller's queues are flushed.
    pub memory_controller: bool,
    /// Memory is mirrored by hardware.
    pub mirroring: bool,
}

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nfit {
    /// SPA ranges.
    pub ranges: Vec<SpaRange>,
    /// Region mappings.
    pub regions: Vec<RegionMapping>,
    /// Interleave structures.
    pub interleaves: Vec<Interleave>,
    /// Control regions.
    pub controls: Vec<ControlRegion>,
    /// Flush hints.
    pub flush_hints: Vec<FlushHints>,
    /// Capabilities; `None` if the table has none: then stores need flushing.
    pub capabilities: Option<Capabilities>,
    /// Structures that were skipped: SMBIOS, block data windows and types unknown here.
    pub skipped: usize,
}

impl Nfit {
    /// The persistent ranges, by address: the table may list them in any order.
    pub fn persistent(&self) -> impl Iterator<Item = &SpaRange> {
        self.ranges.iter().filter(|range| range.kind == RangeKind::Persistent)
    }

    /// The region mappings behind a range.
    pub fn behind<'a>(
        &'a self,
        range: &SpaRange,
    ) -> impl Iterator<Item = &'a RegionMapping> + use<'a> {
        let index = range.index;
        self.regions.iter().filter(move |region| index != 0 && region.spa_index == index)
    }

    /// The control region of a mapping.
    pub fn control(&self, region: &RegionMapping) -> Option<&ControlRegion> {
        self.controls
            .iter()
            .find(|control| region.control_index != 0 && control.index == region.control_index)
    }

    /// The flush hint addresses of all NVDIMMs behind a range, one each.
    pub fn hints<'a>(&'a self, range: &SpaRange) -> impl Iterator<Item = u64> + use<'a> {
        self.behind(range).filter_map(|region| {
            self.flush_hints.iter().find(|h| h.handle == region.handle)?.addresses.first().copied()
        })
    }

    /// Whether a range can hold a volume; if not, why.
    pub fn usable(&self, range: &SpaRange) -> Result<(), Unusable> {
        if range.kind != RangeKind::Persistent {
            return Err(Unusable::Kind(range.kind));
        }
        if !range.base.is_multiple_of(4096) {
            return Err(Unusable::Unaligned);
        }
        if let Some(why) = self.behind(range).find_map(|region| region.state.failure()) {
            return Err(Unusable::State(why));
        }
        let overlaps = |other: &&SpaRange| {
            **other != *range
                && other.base < range.base + range.length
                && range.base < other.base + other.length
        };
        if let Some(other) = self.ranges.iter().find(overlaps) {
            return Err(Unusable::Overlap { base: other.base });
        }
        Ok(())
    }
}

/// Why a range cannot hold a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not persistent memory.
    Kind(RangeKind),
    /// It does not start at a page.
    Unaligned,
    /// An NVDIMM behind it is not well.
    State(&'static str),
    /// It overlaps another range.
    Overlap {
        /// Where the other one starts.
        base: u64,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Kind(kind) => write!(f, "{kind}, not persistent memory"),
            Unusable::Unaligned => f.write_str("does not start at a multiple of 4096"),
            Unusable::State(why) => f.write_str(why),
            Unusable::Overlap { base } => write!(f, "overlaps the range at {base:#x}"),
        }
    }
}
