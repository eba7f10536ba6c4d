//! Message-signalled interrupts: a device interrupts by writing a word (PCI 3.0, 6.8.2).
#![forbid(unsafe_code)]

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};

const CAPABILITY: u8 = 0x11;
const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;

/// Bytes of an entry of the table of messages.
pub(crate) const ENTRY: usize = 16;

/// The MSI-X capability of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capability {
    function: DeviceFunction,
    offset: u8,
    /// Entries of the table.
    pub(crate) entries: usize,
    /// The base address register that the table is behind.
    pub(crate) bar: u8,
    /// Where it is there.
    pub(crate) table: u32,
}

impl Capability {
    /// Finds it.
    pub(crate) fn find<C: ConfigurationAccess + Clone>(
        access: &C,
        function: DeviceFunction,
    ) -> Option<Self> {
        let root = PciRoot::new(access.clone());
        let capability =
            root.capabilities(function).find(|capability| capability.id == CAPABILITY)?;
        let table = access.read_word(function, capability.offset.checked_add(4)?);
        Some(Self {
            function,
            offset: capability.offset,
            entries: usize::from(capability.private_header & 0x7FF) + 1,
            bar: (table & 7) as u8,
            table: table & !7,
        })
    }

    /// Turns messages on; what the table masks stays quiet.
    pub(crate) fn enable<C: ConfigurationAccess>(&self, access: &mut C) {
        let control = access.read_word(self.function, self.offset);
        access.write_word(self.function, self.offset, control & !MASK_ALL | ENABLE);
    }
}

/// A message: what a device writes where to interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Where it is written to.
    pub(crate) address: u64,
    /// What is written.
    pub(crate) data: u32,
}

impl Message {
    /// Its table entry. The last word is 0: not masked.
    pub(crate) fn entry(&self) -> [u32; ENTRY / 4] {
        [self.address as u32, (self.address >> 32) as u32, self.data, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, at};
    use super::*;

    #[test]
    fn the_capability_is_found_and_enabled() {
        let bus = Fake::default();
        let function = at(0, 3, 0);
        bus.function(function, 0x1af4, 0x1053)
            .word(4, 0x0010_0000)
            .word(0x34, 0x98)
            .word(0x98, 0x0002_8411)
            .word(0x9C, 0x0000_0801)
            .word(0x84, 0x0010_0009);
        let found = Capability::find(&bus, function).unwrap();
        assert_eq!((found.entries, found.bar, found.table), (3, 1, 0x800));
        let plain = at(0, 4, 0);
        bus.function(plain, 0x1af4, 0x1000);
        assert_eq!(Capability::find(&bus, plain), None);
    }

    #[test]
    fn a_table_entry_is_laid_out_as_6_8_2_has_it() {
        let message = Message { address: 0x1_FEE0_1000, data: 0x41 };
        assert_eq!(message.entry(), [0xFEE0_1000, 1, 0x41, 0]);
    }
}
