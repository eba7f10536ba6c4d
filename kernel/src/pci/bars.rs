//! Base addresses of registers, where firmware assigned none.
//!
//! A minimal firmware leaves them all empty. They get addresses below 4 GiB, where boards
//! leave room between RAM and their own registers; what is taken there is known from
//! the memory map and from the functions that have addresses.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, MemoryBarType, PciRoot,
};

/// Physical addresses from `start` up to, without, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first.
    pub(crate) start: u64,
    /// Behind the last.
    pub(crate) end: u64,
}

impl Range {
    /// `size` bytes from `start`; `None` if that leaves the address space or is empty.
    pub(crate) fn of(start: u64, size: u64) -> Option<Self> {
        let end = start.checked_add(size)?;
        (size > 0).then_some(Self { start, end })
    }
}

/// Where QEMU's boards have no registers of their own: beside the memory-mapped configuration
/// space (at 0xB0000000 or 0xE0000000) and below the I/O APIC.
pub(crate) const HOLES: [Range; 2] = [
    Range { start: 0xC000_0000, end: 0xE000_0000 },
    Range { start: 0xF000_0000, end: 0xFE00_0000 },
];

/// Addresses to give to registers.
#[derive(Debug)]
pub(crate) struct Space {
    free: Vec<Range>,
}

impl Space {
    /// What is free of `holes` besides what is taken.
    pub(crate) fn new(holes: &[Range], taken: &[Range]) -> Self {
        let mut free: Vec<Range> = holes.to_vec();
        for taken in taken {
            free = free.iter().flat_map(|range| without(*range, *taken)).collect();
        }
        Self { free }
    }

    /// Takes `size` addresses aligned to `size`, a power of two.
    pub(crate) fn take(&mut self, size: u64) -> Option<u64> {
        if !size.is_power_of_two() {
            return None;
        }
        let fit = |range: &Range| {
            let start = range.start.checked_next_multiple_of(size)?;
            (start.checked_add(size)? <= range.end).then_some(start)
        };
        let (i, start) =
            self.free.iter().enumerate().find_map(|(i, range)| Some((i, fit(range)?)))?;
        let range = self.free.swap_remove(i);
        self.free.extend(without(range, Range { start, end: start + size }));
        Some(start)
    }
}

/// What is left of a range without another: nothing, one or two pieces.
fn without(range: Range, taken: Range) -> impl Iterator<Item = Range> {
    let before = Range { start: range.start, end: range.end.min(taken.start) };
    let behind = Range { start: range.start.max(taken.end), end: range.end };
    let overlap = taken.start < range.end && range.start < taken.end;
    let pieces = if overlap { [Some(before), Some(behind)] } else { [Some(range), None] };
    pieces.into_iter().flatten().filter(|piece| piece.start < piece.end)
}

/// Why a function cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarError {
    /// A base address register has a type that does not exist.
    Malformed,
    /// No room for registers of this many bytes.
    NoRoom(u64),
}

/// The registers of a function, by base address register.
pub(crate) type Bars = [Option<Range>; 6];

/// Gives addresses to the memory registers of a function that have none; returns where all of
/// them are. The function does not answer before [`enable`].
pub(crate) fn assign<C: ConfigurationAccess + Clone>(
    access: &C,
    function: DeviceFunction,
    space: &mut Space,
) -> Result<Bars, BarError> {
    let mut root = PciRoot::new(access.clone());
    let infos = root.bars(function).map_err(|_| BarError::Malformed)?;
    let mut bars = [None; 6];
    for (index, info) in infos.iter().enumerate() {
        let Some(BarInfo::Memory { address_type, address, size, .. }) = info else { continue };
        let mut address = *address;
        if address == 0 {
            address = space.take(*size).ok_or(BarError::NoRoom(*size))?;
            match address_type {
                MemoryBarType::Width64 => root.set_bar_64(function, index as u8, address),
                // All of the space is below 4 GiB.
                MemoryBarType::Width32 => root.set_bar_32(function, index as u8, address as u32),
                MemoryBarType::Below1MiB => return Err(BarError::NoRoom(*size)),
            }
        }
        bars[index] = Range::of(address, *size);
    }
    Ok(bars)
}

/// Lets a function answer to its addresses and reach memory by itself; its legacy interrupt stays
/// quiet.
///
/// To be called last: as long as a function does not answer, an emulator has nothing to
/// rearrange when its base addresses are written, or sized once more.
pub(crate) fn enable<C: ConfigurationAccess + Clone>(access: &C, function: DeviceFunction) {
    let mut root = PciRoot::new(access.clone());
    let (_, command) = root.get_status_command(function);
    let wanted = Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE;
    root.set_command(function, command | wanted);
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, at};
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    #[test]
    fn empty_base_addresses_are_assigned_and_others_kept() {
        let bus = Fake::default();
        let function = at(0, 3, 0);
        bus.function(function, 0x1af4, 0x1053)
            .bar_io(0, 0x20)
            .bar32(1, 0x1000)
            .assign(1, 0xFEBF_0000)
            .bar64(4, 0x4000);
        let mut space = Space::new(&HOLES, &[range(0xC000_0000, 0xC000_1000)]);
        let assigned = assign(&bus, function, &mut space).unwrap();
        assert_eq!(assigned[1], Range::of(0xFEBF_0000, 0x1000));
        assert_eq!(assigned[4], Range::of(0xC000_4000, 0x4000));
        enable(&bus, function);
        let bars = PciRoot::new(bus.clone()).bars(function).unwrap();
        assert_eq!(bars[1].as_ref().unwrap().memory_address_size(), Some((0xFEBF_0000, 0x1000)));
        assert_eq!(bars[4].as_ref().unwrap().memory_address_size(), Some((0xC000_4000, 0x4000)));
        let (_, command) = PciRoot::new(bus).get_status_command(function);
        assert!(command.contains(Command::MEMORY_SPACE | Command::BUS_MASTER));
    }

    #[test]
    fn no_room_is_said() {
        let bus = Fake::default();
        bus.function(at(0, 3, 0), 0x1af4, 0x1053).bar64(4, 0x4000);
        let mut space = Space::new(&[range(0x1000, 0x4000)], &[]);
        assert_eq!(assign(&bus, at(0, 3, 0), &mut space), Err(BarError::NoRoom(0x4000)));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_aligned_free_and_disjoint(
            taken in prop::collection::vec((0u64..1 << 16, 1u64..1 << 12), 0..10),
            sizes in prop::collection::vec(0u32..13, 0..30),
        ) {
            let hole = range(1 << 10, 1 << 16);
            let taken = taken.iter().map(|(start, len)| range(*start, start + len));
            let taken: Vec<Range> = taken.collect();
            let mut space = Space::new(&[hole], &taken);
            let mut used = taken.clone();
            for size in sizes {
                let size = 1 << size;
                let Some(start) = space.take(size) else { continue };
                let got = range(start, start + size);
                prop_assert_eq!(start % size, 0);
                prop_assert!(hole.start <= start && got.end <= hole.end);
                let apart = |used: &Range| got.end <= used.start || used.end <= got.start;
                prop_assert!(used.iter().all(apart));
                used.push(got);
            }
        }
    }
}
