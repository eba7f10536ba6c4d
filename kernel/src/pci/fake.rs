//! Configuration space of pretended functions, for tests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

/// The function at an address.
pub(crate) fn at(bus: u8, device: u8, function: u8) -> DeviceFunction {
    DeviceFunction { bus, device, function }
}

#[derive(Default)]
struct Config {
    words: HashMap<u8, u32>,
    /// Bits of a word that can be written.
    writable: HashMap<u8, u32>,
}

/// A bus with some functions.
#[derive(Clone, Default)]
pub(crate) struct Fake(Rc<RefCell<HashMap<DeviceFunction, Config>>>);

/// A function being described.
pub(crate) struct Describe<'a>(&'a Fake, DeviceFunction);

impl Fake {
    /// Adds a function.
    pub(crate) fn function(&self, at: DeviceFunction, vendor: u16, device: u16) -> Describe<'_> {
        let mut config = Config::default();
        config.words.insert(0, u32::from(device) << 16 | u32::from(vendor));
        config.writable.insert(4, 0x0407);
        self.0.borrow_mut().insert(at, config);
        Describe(self, at)
    }

    /// Adds a bridge with a bus behind it and a memory window.
    pub(crate) fn bridge(&self, at: DeviceFunction, behind: u8, first: u32, last: u32) {
        self.function(at, 0x1b36, 0x000c)
            .word(0x0C, 1 << 16)
            .word(0x18, u32::from(behind) << 8)
            .word(0x20, last & 0xFFF0_0000 | first >> 16 & 0xFFF0);
    }
}

impl Describe<'_> {
    /// Sets a word.
    pub(crate) fn word(self, offset: u8, value: u32) -> Self {
        self.0.0.borrow_mut().get_mut(&self.1).unwrap().words.insert(offset, value);
        self
    }

    fn bar(self, index: u8, size: u32, kind: u32) -> Self {
        let offset = 0x10 + 4 * index;
        self.0.0.borrow_mut().get_mut(&self.1).unwrap().writable.insert(offset, !(size - 1));
        self.word(offset, kind)
    }

    /// Adds a 32-bit memory base address register.
    pub(crate) fn bar32(self, index: u8, size: u32) -> Self {
        self.bar(index, size, 0)
    }

    /// Adds a 64-bit one, prefetchable.
    pub(crate) fn bar64(self, index: u8, size: u32) -> Self {
        self.0.0.borrow_mut().get_mut(&self.1).unwrap().writable.insert(0x14 + 4 * index, u32::MAX);
        self.bar(index, size, 0b1100)
    }

    /// Adds one in I/O space.
    pub(crate) fn bar_io(self, index: u8, size: u32) -> Self {
        self.bar(index, size, 1)
    }

    /// Sets the address of one.
    pub(crate) fn assign(self, index: u8, address: u32) -> Self {
        self.word(0x10 + 4 * index, address)
    }

    /// Makes the function answer to its memory addresses.
    pub(crate) fn enable(self) -> Self {
        self.word(4, 2)
    }
}

impl ConfigurationAccess for Fake {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        match self.0.borrow().get(&function) {
            Some(config) => config.words.get(&offset).copied().unwrap_or(0),
            None => u32::MAX,
        }
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        if let Some(config) = self.0.borrow_mut().get_mut(&function) {
            let writable = config.writable.get(&offset).copied().unwrap_or(0);
            let word = config.words.entry(offset).or_default();
            *word = *word & !writable | data & writable;
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}
