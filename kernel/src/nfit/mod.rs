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

pub(crate) use parse::{NfitError, parse};

use alloc::vec::Vec;
use core::fmt;
use uuid::{Uuid, uuid};

/// What a system physical address range is, by its GUID (ACPI 6.5, table 5.148).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeKind {
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
    Other(Uuid),
}

/// What the specification's GUIDs mean.
const RANGE_KINDS: [(Uuid, RangeKind); 8] = [
    (uuid!("7305944f-fdda-44e3-b16c-3f22d252e5d0"), RangeKind::Volatile),
    (uuid!("66f0d379-b4f3-4074-ac43-0d3318b78cdb"), RangeKind::Persistent),
    (uuid!("92f701f6-13b4-405d-910b-299367e8234c"), RangeKind::Control),
    (uuid!("91af0530-5d86-470e-a6b0-0a2db9408249"), RangeKind::BlockData),
    (uuid!("77ab535a-45fc-624b-5560-f7b281d1f96e"), RangeKind::RamDisk),
    (uuid!("3d5abd30-4175-87ce-6d64-d2ade523c4bb"), RangeKind::RamDisk),
    (uuid!("5cea02c9-4d07-69d3-269f-4496fbe096f9"), RangeKind::RamDisk),
    (uuid!("08018188-42cd-bb48-100f-5387d53ded3d"), RangeKind::RamDisk),
];

impl RangeKind {
    fn of(guid: Uuid) -> Self {
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
pub(crate) struct SpaRange {
    /// Number by which region mappings refer to it; 0 when none do.
    pub(crate) index: u16,
    /// What it is.
    pub(crate) kind: RangeKind,
    /// First physical address.
    pub(crate) base: u64,
    /// Length in bytes, at least 1; the end does not overflow.
    pub(crate) length: u64,
    /// Memory attributes, as in the UEFI memory map.
    pub(crate) attributes: u64,
    /// NUMA proximity domain, where the table gives one.
    pub(crate) proximity: Option<u32>,
}

/// Which part of an NVDIMM is behind a SPA range (type 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionMapping {
    /// Handle of the NVDIMM.
    pub(crate) handle: u32,
    /// SMBIOS identifier of the NVDIMM.
    pub(crate) physical_id: u16,
    /// Identifies the region on its NVDIMM.
    pub(crate) region_id: u16,
    /// The SPA range, or 0.
    pub(crate) spa_index: u16,
    /// The control region, or 0.
    pub(crate) control_index: u16,
    /// Bytes of the NVDIMM that are mapped.
    pub(crate) size: u64,
    /// Where they start in the SPA range.
    pub(crate) offset: u64,
    /// Where they start on the NVDIMM.
    pub(crate) dpa: u64,
    /// The interleave structure, or 0.
    pub(crate) interleave_index: u16,
    /// NVDIMMs that are interleaved.
    pub(crate) ways: u16,
    /// Health of the NVDIMM.
    pub(crate) state: RegionState,
}

/// State flags of a region mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RegionState(pub(crate) u16);

impl RegionState {
    /// Why what is stored there must not be relied on, if so: an earlier save, restore or
    /// flush failed, the NVDIMM is not armed, or firmware could not map it.
    pub(crate) fn failure(self) -> Option<&'static str> {
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
pub(crate) struct Interleave {
    /// Number by which region mappings refer to it.
    pub(crate) index: u16,
    /// Bytes in a line.
    pub(crate) line_size: u32,
    /// Offset of each line, in lines.
    pub(crate) offsets: Vec<u32>,
}

/// What an NVDIMM says of itself (type 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ControlRegion {
    /// Number by which region mappings refer to it.
    pub(crate) index: u16,
    /// Vendor identifier.
    pub(crate) vendor: u16,
    /// Device identifier.
    pub(crate) device: u16,
    /// Serial number.
    pub(crate) serial: u32,
    /// Format interface code: the programming model.
    pub(crate) interface: u16,
}

/// Addresses to write to, so that what a fence ordered reaches the media (type 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlushHints {
    /// Handle of the NVDIMM.
    pub(crate) handle: u32,
    /// Physical addresses; a write of anything to one of them flushes.
    pub(crate) addresses: Vec<u64>,
}

/// What the platform does when power fails (type 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Dirty lines of the CPU caches are flushed: stores are durable without flushing.
    pub(crate) cpu_cache: bool,
    /// The memory controller's queues are flushed.
    pub(crate) memory_controller: bool,
    /// Memory is mirrored by hardware.
    pub(crate) mirroring: bool,
}

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nfit {
    /// SPA ranges.
    pub(crate) ranges: Vec<SpaRange>,
    /// Region mappings.
    pub(crate) regions: Vec<RegionMapping>,
    /// Interleave structures.
    pub(crate) interleaves: Vec<Interleave>,
    /// Control regions.
    pub(crate) controls: Vec<ControlRegion>,
    /// Flush hints.
    pub(crate) flush_hints: Vec<FlushHints>,
    /// Capabilities; `None` if the table has none: then stores need flushing.
    pub(crate) capabilities: Option<Capabilities>,
    /// Structures that were skipped: SMBIOS, block data windows and types unknown here.
    pub(crate) skipped: usize,
}

impl Nfit {
    /// The persistent ranges, by address: the table may list them in any order.
    pub(crate) fn persistent(&self) -> impl Iterator<Item = &SpaRange> {
        self.ranges.iter().filter(|range| range.kind == RangeKind::Persistent)
    }

    /// The region mappings behind a range.
    pub(crate) fn behind<'a>(
        &'a self,
        range: &SpaRange,
    ) -> impl Iterator<Item = &'a RegionMapping> + use<'a> {
        let index = range.index;
        self.regions.iter().filter(move |region| index != 0 && region.spa_index == index)
    }

    /// The control region of a mapping.
    pub(crate) fn control(&self, region: &RegionMapping) -> Option<&ControlRegion> {
        self.controls
            .iter()
            .find(|control| region.control_index != 0 && control.index == region.control_index)
    }

    /// The flush hint addresses of all NVDIMMs behind a range, one each.
    pub(crate) fn hints<'a>(&'a self, range: &SpaRange) -> impl Iterator<Item = u64> + use<'a> {
        self.behind(range).filter_map(|region| {
            self.flush_hints.iter().find(|h| h.handle == region.handle)?.addresses.first().copied()
        })
    }

    /// Whether a range can hold a volume; if not, why.
    pub(crate) fn usable(&self, range: &SpaRange) -> Result<(), Unusable> {
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
pub(crate) enum Unusable {
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
