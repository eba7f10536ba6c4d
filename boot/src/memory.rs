//! From the firmware's memory map to regions: sorted, disjoint, whole pages, each with one owner.
//!
//! ```text
//! firmware:   |RAM----|  |reserved|RAM----------------------------|reserved|   ...   |pmem|
//! regions:    |loader    |reserved|loader|usable------|loader|usable|reserved|
//!              0                   1 MiB               kernel's file          4 GiB, or RAM's end
//! ```
//!
//! Where entries overlap the stronger owner wins: loader over firmware over RAM. RAM that does not
//! fill its page is left out, other entries are widened to theirs. The kernel maps physical memory
//! as far as the last region ends, and an NVDIMM must not be in that writable mapping: what is not
//! RAM and lies above 4 GiB and above all RAM is left out.

use crate::PAGE;
use crate::pvh::{E820_RAM, Entry, MAX_MEMMAP};

/// The kernel is never given memory below this as usable: firmware and real mode live there.
pub const LOW_MEMORY: u64 = 1 << 20;

/// The owner of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// RAM that nobody uses.
    Nobody,
    /// Not RAM, or RAM that firmware keeps; the E820 type.
    Firmware(u32),
    /// Low memory, the loader, the kernel's file.
    Loader,
}

/// A run of whole pages that belongs to one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical address of the first byte.
    pub start: u64,
    /// Physical address after the last byte.
    pub end: u64,
    /// Its owner.
    pub owner: Owner,
}

/// Regions of one memory map can be this many: every start and every end may begin a new one.
const MAX_REGIONS: usize = 2 * (MAX_MEMMAP + MAX_KEPT + 1);
/// Ranges that the loader can keep to itself.
const MAX_KEPT: usize = 4;

/// The regions, lowest first.
#[derive(Debug)]
pub struct Regions {
    regions: [Region; MAX_REGIONS],
    used: usize,
}

impl Regions {
    /// Divides the firmware's map; `kept` are the loader's own ranges (start, end), at most four.
    pub fn new(memmap: &[Entry], kept: &[(u64, u64)]) -> Self {
        let memmap = &memmap[..memmap.len().min(MAX_MEMMAP)];
        let kept = &kept[..kept.len().min(MAX_KEPT)];

        let mut cuts = [0; MAX_REGIONS];
        let mut used = 1; // address 0 is a cut already
        let mut cut = |address| {
            cuts[used] = address;
            used += 1;
        };
        cut(LOW_MEMORY);
        for entry in memmap {
            let (start, end) = pages(entry);
            cut(start);
            cut(end);
        }
        for &(start, end) in kept {
            cut(start);
            cut(end);
        }
        let cuts = &mut cuts[..used];
        cuts.sort_unstable();

        let none = Region { start: 0, end: 0, owner: Owner::Nobody };
        let mut this = Self { regions: [none; MAX_REGIONS], used: 0 };
        for pair in cuts.windows(2) {
            let &[start, end] = pair else { continue };
            if start == end {
                continue;
            }
            if let Some(owner) = owner_of(start, memmap, kept) {
                this.push(Region { start, end, owner });
            }
        }
        this.drop_what_is_far_away();
        this
    }

    /// The regions, lowest first.
    pub fn as_slice(&self) -> &[Region] {
        &self.regions[..self.used]
    }

    /// Bytes that the loader can allocate: usable and below `limit`.
    pub fn usable_below(&self, limit: u64) -> u64 {
        let usable = self.as_slice().iter().filter(|region| region.owner == Owner::Nobody);
        usable.map(|region| region.end.min(limit).saturating_sub(region.start)).sum()
    }

    /// The address after the last region, at least 4 GiB: how far the kernel's mapping of physical
    /// memory goes.
    pub fn end(&self) -> u64 {
        self.as_slice().last().map_or(0, |region| region.end).max(crate::REACH)
    }

    fn push(&mut self, region: Region) {
        if let Some(last) = self.used.checked_sub(1).map(|index| &mut self.regions[index])
            && last.end == region.start
            && last.owner == region.owner
        {
            last.end = region.end;
        } else if let Some(slot) = self.regions.get_mut(self.used) {
            *slot = region;
            self.used += 1;
        }
    }

    fn drop_what_is_far_away(&mut self) {
        let is_ram = |region: &&Region| !matches!(region.owner, Owner::Firmware(_));
        let end_of_ram = self.as_slice().iter().rfind(is_ram).map_or(0, |region| region.end);
        let limit = end_of_ram.max(crate::REACH);
        while let Some(last) = self.used.checked_sub(1).map(|index| &mut self.regions[index]) {
            if last.start < limit {
                last.end = last.end.min(limit);
                break;
            }
            self.used -= 1;
        }
    }
}

/// The whole pages of an entry: those that it fills if it is RAM, those that it touches if not.
fn pages(entry: &Entry) -> (u64, u64) {
    // The last page of the address space is nobody's RAM; leaving it out keeps `end` representable.
    let last = !(PAGE - 1);
    let end = entry.start.saturating_add(entry.length);
    if entry.kind == E820_RAM {
        let start = entry.start.checked_next_multiple_of(PAGE).unwrap_or(last);
        (start, (end & !(PAGE - 1)).max(start))
    } else if entry.length == 0 {
        (0, 0)
    } else {
        (entry.start & !(PAGE - 1), end.checked_next_multiple_of(PAGE).unwrap_or(last))
    }
}

/// Whose the memory at an address is that lies between two cuts; `None` if no entry has it.
fn owner_of(address: u64, memmap: &[Entry], kept: &[(u64, u64)]) -> Option<Owner> {
    let within = |(start, end)| start <= address && address < end;
    if kept.iter().copied().any(within) {
        return Some(Owner::Loader);
    }
    let mut entries = memmap.iter().filter(|entry| within(pages(entry)));
    let is_ram = entries.clone().next().is_some();
    match entries.find(|entry| entry.kind != E820_RAM) {
        Some(entry) => Some(Owner::Firmware(entry.kind)),
        None if !is_ram => None,
        None if address < LOW_MEMORY => Some(Owner::Loader),
        None => Some(Owner::Nobody),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn entry(start: u64, end: u64, kind: u32) -> Entry {
        Entry { start, length: end - start, kind }
    }

    fn check(memmap: &[Entry], kept: &[(u64, u64)], expected: &[(u64, u64, Owner)]) {
        let regions = Regions::new(memmap, kept);
        let found = regions.as_slice().iter().map(|r| (r.start, r.end, r.owner));
        assert!(found.eq(expected.iter().copied()), "{:x?}", regions.as_slice());
    }

    #[test]
    fn a_machine_of_64_mib() {
        check(
            &[
                entry(0, 0x9fc00, 1),
                entry(0x9fc00, 0xa0000, 2),
                entry(0xf0000, 0x100000, 2),
                entry(MIB, 64 * MIB, 1),
                entry(0xb000_0000, 0xc000_0000, 2),
                entry(0xfd_0000_0000, 0x100_0000_0000, 2),
            ],
            &[(MIB, MIB + 0x20000), (60 * MIB, 60 * MIB + 0x30_0000)],
            &[
                (0, 0x9f000, Owner::Loader),
                (0x9f000, 0xa0000, Owner::Firmware(2)),
                (0xf0000, 0x100000, Owner::Firmware(2)),
                (MIB, MIB + 0x20000, Owner::Loader),
                (MIB + 0x20000, 60 * MIB, Owner::Nobody),
                (60 * MIB, 63 * MIB, Owner::Loader),
                (63 * MIB, 64 * MIB, Owner::Nobody),
                (0xb000_0000, 0xc000_0000, Owner::Firmware(2)),
            ],
        );
    }

    #[test]
    fn an_nvdimm_is_never_usable_and_never_within_the_mapping() {
        for kind in [2, 7, 12] {
            check(
                &[entry(MIB, 64 * MIB, 1), entry(4 * GIB, 5 * GIB, kind)],
                &[],
                &[(MIB, 64 * MIB, Owner::Nobody)],
            );
        }
        let far = [entry(MIB, 2 * GIB, 1), entry(4 * GIB, 6 * GIB, 1), entry(7 * GIB, 8 * GIB, 7)];
        assert_eq!(Regions::new(&far, &[]).end(), 6 * GIB);
    }

    #[test]
    fn the_stronger_owner_wins_an_overlap() {
        check(
            &[entry(MIB, 8 * MIB, 1), entry(2 * MIB, 3 * MIB, 2), entry(3 * MIB, 4 * MIB, 1)],
            &[(2 * MIB + 0x8000, 4 * MIB)],
            &[
                (MIB, 2 * MIB, Owner::Nobody),
                (2 * MIB, 2 * MIB + 0x8000, Owner::Firmware(2)),
                (2 * MIB + 0x8000, 4 * MIB, Owner::Loader),
                (4 * MIB, 8 * MIB, Owner::Nobody),
            ],
        );
    }

    #[test]
    fn nonsense_is_harmless() {
        check(
            &[
                entry(u64::MAX - 1, u64::MAX, 1),
                Entry { start: u64::MAX - 5, length: u64::MAX, kind: 2 },
                Entry { start: 5 * MIB + 1, length: 10, kind: 1 },
                Entry { start: 6 * MIB, length: 0, kind: 2 },
                entry(MIB, 2 * MIB, 1),
            ],
            &[],
            &[(MIB, 2 * MIB, Owner::Nobody)],
        );
        assert!(Regions::new(&[], &[]).as_slice().is_empty());
        let many = [entry(0, u64::MAX, 1); 200];
        let end = !(PAGE - 1);
        check(&many, &[], &[(0, MIB, Owner::Loader), (MIB, end, Owner::Nobody)]);
    }

    #[test]
    fn only_memory_within_reach_counts() {
        let regions = Regions::new(&[entry(MIB, 3 * MIB, 1), entry(4 * GIB, 9 * GIB, 1)], &[]);
        assert_eq!(regions.usable_below(4 * GIB), 2 * MIB);
    }
}
