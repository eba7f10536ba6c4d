//! ACPI: finding tables with the `acpi` crate, and powering off.
//!
//! The crate finds and checks tables; what it does not know (the NFIT, `\_S5`) is read by
//! pure functions elsewhere. Its interpreter of AML is not used, so most of what its handler
//! trait asks for is never called.
//!
//! Follows ACPI 6.5: 5.2 (tables), 4.8.3 (PM1 registers), 7.4.2 (`\_S5`).

use crate::mm::{direct, space};
use crate::{acpi_sleep, arch};
use acpi::aml::AmlError;
use acpi::sdt::fadt::Fadt;
use acpi::sdt::madt::{Madt, MadtEntry};
use acpi::sdt::mcfg::Mcfg;
use acpi::sdt::{SdtHeader, Signature};
use acpi::{AcpiTable, AcpiTables, Handle, Handler, PciAddress, PhysicalMapping};
use core::fmt;
use core::ptr::NonNull;
use spin::Once;
use x86_64::PhysAddr;
use x86_64::instructions::port::Port;

const MAX_IO_APICS: usize = 8;
/// Most entries of a MADT that are looked at; a malformed one could repeat for ever.
const MAX_MADT_ENTRIES: usize = 1024;
const ISA_IRQS: usize = 16;

/// An I/O APIC.
#[derive(Clone, Copy, Debug)]
pub struct IoApic {
    /// Physical address of its registers.
    pub address: u64,
    /// Global number of its first interrupt.
    pub gsi_base: u32,
}

/// How an interrupt line is wired.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Global number.
    pub gsi: u32,
    /// Active low, not high.
    pub active_low: bool,
    /// Level-triggered, not by edge.
    pub level: bool,
}

/// What the MADT says.
#[derive(Clone, Copy, Debug)]
pub struct Interrupts {
    /// Physical address of the local APIC.
    pub local_apic: u64,
    io_apics: [Option<IoApic>; MAX_IO_APICS],
    isa: [Line; ISA_IRQS],
}

impl Interrupts {
    /// The I/O APICs.
    pub fn io_apics(&self) -> impl Iterator<Item = IoApic> + '_ {
        self.io_apics.iter().flatten().copied()
    }
    /// How an ISA interrupt is wired.
    pub fn isa(&self, irq: u8) -> Line {
        self.isa[usize::from(irq) % ISA_IRQS]
    }
}

/// The ACPI timer.
#[derive(Clone, Copy, Debug)]
pub struct PmTimer {
    /// Its I/O port.
    pub port: u16,
    /// It counts 32 bits, not 24.
    pub bits_32: bool,
}

/// How to power off.
#[derive(Clone, Copy, Debug)]
struct PowerOff {
    pm1a: u16,
    pm1b: Option<u16>,
    types: acpi_sleep::SleepTypes,
    /// Port and value that switch the board to ACPI mode, if it is not.
    enable: Option<(u16, u8)>,
}

/// PCI Express configuration space of a range of buses.
#[derive(Clone, Copy, Debug)]
pub struct PciSegment {
    /// Physical address of bus 0.
    pub base: u64,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

/// What the tables say. Tables that are absent or malformed leave `None`.
#[derive(Debug)]
pub struct FirmwareTables {
    /// Interrupt wiring.
    pub interrupts: Interrupts,
    /// The ACPI timer.
    pub pm_timer: Option<PmTimer>,
    /// Register of the real-time clock that holds the century, or 0.
    pub century_register: u8,
    /// PCI Express configuration space of segment 0.
    pub pci: Option<PciSegment>,
    /// The bytes of the NFIT, as firmware left them.
    pub nfit: Option<&'static [u8]>,
    power_off: Option<PowerOff>,
}

static TABLES: Once<FirmwareTables> = Once::new();

/// What the tables say. Panics before [`init`].
pub fn firmware_tables() -> &'static FirmwareTables {
    TABLES.get().expect("the tables are read first")
}

/// Why there is nothing to go by.
#[derive(Debug)]
pub enum AcpiFailure {
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
pub fn init(rsdp: Option<u64>) -> Result<&'static FirmwareTables, AcpiFailure> {
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
    Some(PciSegment {
        base: entry.base_address,
        first_bus: entry.bus_number_start,
        last_bus: entry.bus_number_end,
    })
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

/// Powers off. Comes back only if that is not possible; says why not.
pub fn power_off() -> &'static str {
    const SLEEP_ENABLE: u16 = 1 << 13;
    const SCI_ENABLE: u16 = 1;
    let Some(power) = TABLES.get().and_then(|tables| tables.power_off) else {
        return "the ACPI tables do not say how to power off";
    };
    let value = |sleep_type: u8| SLEEP_ENABLE | u16::from(sleep_type) << 10;
    // SAFETY: the ports are those that the FADT gives for this; the machine is meant to end.
    unsafe {
        let mut pm1a = Port::<u16>::new(power.pm1a);
        if let (Some((port, value)), 0) = (power.enable, pm1a.read() & SCI_ENABLE) {
            Port::<u8>::new(port).write(value);
            for _ in 0..100_000 {
                if pm1a.read() & SCI_ENABLE != 0 {
                    break;
                }
            }
        }
        pm1a.write(value(power.types.a));
        if let Some(pm1b) = power.pm1b {
            Port::<u16>::new(pm1b).write(value(power.types.b));
        }
    }
    let start = arch::clock::now();
    while arch::clock::now().since(start) < 1_000_000_000 {
        core::hint::spin_loop();
    }
    "the board did not power off"
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

/// All bytes of a mapped table; mappings are never undone.
fn table_bytes<T>(table: &PhysicalMapping<Physical, T>) -> &'static [u8] {
    // SAFETY: the mapping has that many bytes, stays for good, and nobody writes to tables.
    unsafe {
        core::slice::from_raw_parts(table.virtual_start.as_ptr().cast::<u8>(), table.region_length)
    }
}

/// How the crate gets at memory.
#[derive(Clone, Copy)]
struct Physical;

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

    fn nanos_since_boot(&self) -> u64 {
        arch::clock::now().0
    }

    never_called! {
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
