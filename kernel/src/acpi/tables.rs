//! Reading the tables.

use super::memory::{Physical, table_bytes};
use super::wiring::{
    ISA_IRQS, Interrupts, IoApic, Line, MAX_IO_APICS, PciSegment, PmTimer, PowerOff,
};
use crate::acpi_sleep;
use acpi::sdt::fadt::Fadt;
use acpi::sdt::madt::{Madt, MadtEntry};
use acpi::sdt::mcfg::Mcfg;
use acpi::sdt::{SdtHeader, Signature};
use acpi::{AcpiTable, AcpiTables, Handler, PhysicalMapping};
use core::fmt;
use spin::Once;

/// Most entries of a MADT that are looked at; a malformed one could repeat for ever.
const MAX_MADT_ENTRIES: usize = 1024;

/// What the tables say. Tables that are absent or malformed leave `None`.
#[derive(Debug)]
pub(crate) struct FirmwareTables {
    /// Interrupt wiring.
    pub(crate) interrupts: Interrupts,
    /// The ACPI timer.
    pub(crate) pm_timer: Option<PmTimer>,
    /// Register of the real-time clock that holds the century, or 0.
    pub(crate) century_register: u8,
    /// PCI Express configuration space of segment 0.
    pub(crate) pci: Option<PciSegment>,
    /// The bytes of the NFIT, as firmware left them.
    pub(crate) nfit: Option<&'static [u8]>,
    /// How to power off.
    pub(crate) power_off: Option<PowerOff>,
}

static TABLES: Once<FirmwareTables> = Once::new();

/// What the tables say. Panics before [`init`].
pub(crate) fn firmware_tables() -> &'static FirmwareTables {
    TABLES.get().expect("the tables are read first")
}

/// Why there is nothing to go by.
#[derive(Debug)]
pub(crate) enum AcpiFailure {
    /// The loader gave no RSDP.
    NoRsdp,
    /// The crate's error.
    Tables(acpi::AcpiError),
    /// No (sound) MADT.
    NoMadt,
}

impl fmt::Display for AcpiFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcpiFailure::NoRsdp => f.write_str("the loader found no ACPI tables (no RSDP)"),
            AcpiFailure::Tables(why) => write!(f, "the ACPI tables cannot be used: {why:?}"),
            AcpiFailure::NoMadt => {
                f.write_str("the ACPI tables have no sound MADT: no interrupt controllers")
            }
        }
    }
}

/// Reads the tables.
pub(crate) fn init(rsdp: Option<u64>) -> Result<&'static FirmwareTables, AcpiFailure> {
    let rsdp = rsdp.ok_or(AcpiFailure::NoRsdp)?;
    // SAFETY: the loader passes the address of the RSDP that firmware made.
    let tables =
        unsafe { AcpiTables::from_rsdp(Physical, rsdp as usize) }.map_err(AcpiFailure::Tables)?;
    let interrupts = read_madt(&tables).ok_or(AcpiFailure::NoMadt)?;
    let fadt = sound::<Fadt>(&tables);
    let found = FirmwareTables {
        interrupts,
        pm_timer: fadt.as_ref().and_then(|f| read_pm_timer(f)),
        century_register: fadt.as_ref().map_or(0, |f| f.century),
        pci: read_mcfg(&tables),
        nfit: tables.find_table::<Nfit>().map(|table| table_bytes(&table)),
        power_off: fadt.as_ref().and_then(|f| read_power_off(f)),
    };
    Ok(TABLES.call_once(|| found))
}

/// A table whose checksum is right and that has all fields of `T`. (The FADT of revision 1
/// ends earlier; its missing fields lie within what is mapped, and are not used.)
fn sound<T: AcpiTable + Unpin>(
    tables: &AcpiTables<Physical>,
) -> Option<PhysicalMapping<Physical, T>> {
    let table = tables.find_table::<T>()?;
    match table.validate() {
        Ok(()) => Some(table),
        Err(why) => {
            log::warn!("ACPI table {:?}: {why:?}; ignored", T::SIGNATURE);
            None
        }
    }
}

fn read_madt(tables: &AcpiTables<Physical>) -> Option<Interrupts> {
    let madt = tables.find_table::<Madt>()?;
    let table = madt.get();
    if table.validate().is_err() || (table.header.length as usize) < size_of::<Madt>() {
        return None;
    }
    // ISA interrupts are active high and edge-triggered, unless an entry says otherwise.
    let mut isa = [Line { gsi: 0, active_low: false, level: false }; ISA_IRQS];
    for (irq, line) in isa.iter_mut().enumerate() {
        line.gsi = irq as u32;
    }
    let mut local_apic = u64::from(table.local_apic_address);
    let mut io_apics = [None; MAX_IO_APICS];
    let mut next = io_apics.iter_mut();
    for entry in table.entries().take(MAX_MADT_ENTRIES) {
        match entry {
            MadtEntry::IoApic(io) => {
                if let Some(slot) = next.next() {
                    let (address, gsi_base) =
                        (io.io_apic_address.into(), io.global_system_interrupt_base);
                    *slot = Some(IoApic { address, gsi_base });
                }
            }
            MadtEntry::InterruptSourceOverride(o) => {
                if let Some(line) = isa.get_mut(usize::from(o.irq)) {
                    let flags = o.flags;
                    *line = Line {
                        gsi: o.global_system_interrupt,
                        active_low: flags & 3 == 3,
                        level: flags >> 2 & 3 == 3,
                    };
                }
            }
            MadtEntry::LocalApicAddressOverride(o) => local_apic = o.local_apic_address,
            _ => {}
        }
    }
    Some(Interrupts { local_apic, io_apics, isa })
}

fn read_pm_timer(fadt: &Fadt) -> Option<PmTimer> {
    let block = fadt.pm_timer_block;
    let port = u16::try_from(block).ok().filter(|port| *port != 0)?;
    let flags = fadt.flags;
    Some(PmTimer { port, bits_32: flags.pm_timer_is_32_bit() })
}

fn read_mcfg(tables: &AcpiTables<Physical>) -> Option<PciSegment> {
    let mcfg = sound::<Mcfg>(tables)?;
    if (mcfg.header.length as usize) < size_of::<Mcfg>() {
        return None;
    }
    let entry = mcfg.entries().iter().find(|entry| entry.pci_segment_group == 0)?;
    Some(PciSegment { base: entry.base_address, last_bus: entry.bus_number_end })
}

fn read_power_off(fadt: &Fadt) -> Option<PowerOff> {
    let port = |block: u32| u16::try_from(block).ok().filter(|port| *port != 0);
    let (pm1a, pm1b) = (fadt.pm1a_control_block, fadt.pm1b_control_block);
    let (smi, value) = (fadt.smi_cmd_port, fadt.acpi_enable);
    let dsdt = fadt.dsdt_address().ok()?;
    // SAFETY: the FADT, whose checksum is right, says that a table is there.
    let dsdt = unsafe { Physical.map_physical_region::<SdtHeader>(dsdt, size_of::<SdtHeader>()) };
    if dsdt.signature != Signature::DSDT {
        return None;
    }
    let length = dsdt.length as usize;
    // SAFETY: its header says how long it is.
    let dsdt = unsafe { Physical.map_physical_region::<SdtHeader>(dsdt.physical_start, length) };
    let types = acpi_sleep::find(table_bytes(&dsdt).get(size_of::<SdtHeader>()..)?)?;
    let enable = port(smi).filter(|_| value != 0).map(|port| (port, value));
    Some(PowerOff { pm1a: port(pm1a)?, pm1b: port(pm1b), types, enable })
}

/// The NFIT: only its header matters to the crate.
#[repr(transparent)]
struct Nfit(SdtHeader);

// SAFETY: every table starts with this header.
unsafe impl AcpiTable for Nfit {
    const SIGNATURE: Signature = Signature::NFIT;
    fn header(&self) -> &SdtHeader {
        &self.0
    }
}
