//! Functions of all buses that firmware has numbered.
#![forbid(unsafe_code)]

use super::bars::Range;
use alloc::vec::Vec;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, HeaderType, PciRoot,
};

/// Offset of the bus numbers of a bridge: primary, secondary, subordinate.
const BRIDGE_BUSES: u8 = 0x18;
/// Offsets of a bridge's memory base and limit, and of the prefetchable ones.
const BRIDGE_WINDOWS: [u8; 2] = [0x20, 0x24];

/// A function and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Where it is.
    pub(crate) at: DeviceFunction,
    /// Its vendor.
    pub(crate) vendor: u16,
    /// What it is, to its maker.
    pub(crate) device: u16,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// All functions but bridges.
    pub(crate) functions: Vec<Function>,
    /// Memory addresses that are taken: by base addresses of functions, by windows of bridges.
    pub(crate) taken: Vec<Range>,
}

/// Looks at all functions. Nothing of them is changed in the end; while a base address is being
/// sized, its function answers to no address.
pub(crate) fn scan<C: ConfigurationAccess + Clone>(access: &C) -> Scan {
    let mut found = Scan::default();
    let mut root = PciRoot::new(access.clone());
    let mut buses = Vec::from([0u8]);
    let mut next = 0;
    while let Some(&bus) = buses.get(next) {
        next += 1;
        let functions: Vec<_> = root.enumerate_bus(bus).collect();
        for (at, info) in functions {
            match info.header_type {
                HeaderType::Standard => {
                    found.functions.push(Function {
                        at,
                        vendor: info.vendor_id,
                        device: info.device_id,
                    });
                    found.taken.extend(taken_by(&mut root, at));
                }
                HeaderType::PciPciBridge => {
                    let behind = (access.read_word(at, BRIDGE_BUSES) >> 8) as u8;
                    if behind > bus && !buses.contains(&behind) {
                        buses.push(behind);
                    }
                    found.taken.extend(
                        BRIDGE_WINDOWS.iter().filter_map(|offset| window(access, at, *offset)),
                    );
                }
                _ => {}
            }
        }
    }
    found
}

/// Memory that a function answers to.
fn taken_by<C: ConfigurationAccess>(root: &mut PciRoot<C>, at: DeviceFunction) -> Vec<Range> {
    let (_, command) = root.get_status_command(at);
    if !command.contains(Command::MEMORY_SPACE) {
        return Vec::new();
    }
    let bars = root.bars(at).unwrap_or_default();
    let memory = bars.iter().flatten().filter_map(BarInfo::memory_address_size);
    memory
        .filter(|(address, _)| *address != 0)
        .filter_map(|(address, size)| Range::of(address, size))
        .collect()
}

/// A memory window of a bridge, if it is open.
fn window<C: ConfigurationAccess>(access: &C, at: DeviceFunction, offset: u8) -> Option<Range> {
    let word = access.read_word(at, offset);
    let start = u64::from(word & 0xFFF0) << 16;
    let end = u64::from(word & 0xFFF0_0000) + 0x10_0000;
    (word != 0 && start < end).then_some(Range { start, end })
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, at};
    use super::*;

    #[test]
    fn functions_behind_bridges_are_found_and_what_is_taken_is_known() {
        let bus = Fake::default();
        bus.function(at(0, 3, 0), 0x1af4, 0x1053).bar32(1, 0x1000).bar64(4, 0x4000);
        bus.bridge(at(0, 4, 0), 7, 0xFE20_0000, 0xFE3F_FFFF);
        bus.function(at(7, 0, 0), 0x8086, 0x10d3)
            .bar32(0, 0x2_0000)
            .assign(0, 0xFE20_0000)
            .enable();
        // A bridge that firmware did not number leads nowhere.
        bus.bridge(at(0, 5, 0), 0, 0xFFF0_0000, 0x000F_FFFF);
        let found = scan(&bus);
        assert_eq!(
            found.functions,
            [
                Function { at: at(0, 3, 0), vendor: 0x1af4, device: 0x1053 },
                Function { at: at(7, 0, 0), vendor: 0x8086, device: 0x10d3 },
            ]
        );
        assert_eq!(
            found.taken,
            [
                Range { start: 0xFE20_0000, end: 0xFE40_0000 },
                Range { start: 0xFE20_0000, end: 0xFE22_0000 },
            ]
        );
    }
}
