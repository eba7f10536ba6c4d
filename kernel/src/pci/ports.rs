//! Configuration space through ports 0xCF8 and 0xCFC (PCI 3.0, 3.2.2.3.2).

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use x86_64::instructions::port::Port;

const ADDRESS: u16 = 0xCF8;
const DATA: u16 = 0xCFC;

/// The two ports. Nobody uses them but this, from one processor and never from an interrupt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports(());

impl Ports {
    /// The ports.
    ///
    /// # Safety
    ///
    /// Nobody uses them in between: there is one processor, and interrupts stay away.
    pub(crate) const unsafe fn new() -> Self {
        Self(())
    }

    fn select(self, function: DeviceFunction, offset: u8) {
        let address = 1 << 31
            | u32::from(function.bus) << 16
            | u32::from(function.device) << 11
            | u32::from(function.function) << 8
            | u32::from(offset & 0xFC);
        // SAFETY: the port only says what the other one accesses.
        unsafe { Port::new(ADDRESS).write(address) }
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        self.select(function, offset);
        // SAFETY: reading configuration space changes nothing.
        unsafe { Port::new(DATA).read() }
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        self.select(function, offset);
        // SAFETY: what is written are base addresses that `bars` found to be free, command bits and
        // the MSI-X control: a device reaches only memory that was shared with it.
        unsafe { Port::new(DATA).write(data) }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}
