//! How the `acpi` crate gets at memory. Its interpreter of AML is not used, so most of what its
//! handler trait asks for is never called.

use crate::mm::{direct, space};
use acpi::aml::AmlError;
use acpi::{Handle, Handler, PciAddress, PhysicalMapping};
use core::ptr::NonNull;
use x86_64::PhysAddr;

/// All bytes of a mapped table; mappings are never undone.
pub(super) fn table_bytes<T>(table: &PhysicalMapping<Physical, T>) -> &'static [u8] {
    // SAFETY: the mapping has that many bytes, stays for good, and nobody writes to tables.
    unsafe {
        core::slice::from_raw_parts(table.virtual_start.as_ptr().cast::<u8>(), table.region_length)
    }
}

/// How the crate gets at memory.
#[derive(Clone, Copy)]
pub(super) struct Physical;

/// What the crate asks for to interpret AML, which it is not asked to do.
macro_rules! never_called {
    ($($name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        $(fn $name(&self, $($arg: $type),*) $(-> $ret)? {
            $(let _ = $arg;)*
            unreachable!("no AML is interpreted")
        })*
    };
}

impl Handler for Physical {
    unsafe fn map_physical_region<T>(
        &self,
        physical_address: usize,
        size: usize,
    ) -> PhysicalMapping<Self, T> {
        let phys = PhysAddr::new(physical_address as u64);
        let at = if space::is_ram(phys, size as u64) {
            direct(phys)
        } else {
            space::map_table(phys, size as u64).expect("a firmware table can be mapped")
        };
        PhysicalMapping {
            physical_start: physical_address,
            virtual_start: NonNull::new(at.as_mut_ptr()).expect("mapped in the high half"),
            region_length: size,
            mapped_length: size,
            handler: *self,
        }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}

    never_called! {
        nanos_since_boot() -> u64;
        read_u8(address: usize) -> u8;
        read_u16(address: usize) -> u16;
        read_u32(address: usize) -> u32;
        read_u64(address: usize) -> u64;
        write_u8(address: usize, value: u8);
        write_u16(address: usize, value: u16);
        write_u32(address: usize, value: u32);
        write_u64(address: usize, value: u64);
        read_io_u8(port: u16) -> u8;
        read_io_u16(port: u16) -> u16;
        read_io_u32(port: u16) -> u32;
        write_io_u8(port: u16, value: u8);
        write_io_u16(port: u16, value: u16);
        write_io_u32(port: u16, value: u32);
        read_pci_u8(address: PciAddress, offset: u16) -> u8;
        read_pci_u16(address: PciAddress, offset: u16) -> u16;
        read_pci_u32(address: PciAddress, offset: u16) -> u32;
        write_pci_u8(address: PciAddress, offset: u16, value: u8);
        write_pci_u16(address: PciAddress, offset: u16, value: u16);
        write_pci_u32(address: PciAddress, offset: u16, value: u32);
        stall(microseconds: u64);
        sleep(milliseconds: u64);
        create_mutex() -> Handle;
        acquire(mutex: Handle, timeout: u16) -> Result<(), AmlError>;
        release(mutex: Handle);
    }
}
