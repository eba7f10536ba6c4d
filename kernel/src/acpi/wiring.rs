//! How the machine is wired, as the tables say it.

use crate::acpi_sleep::SleepTypes;

/// Most I/O APICs that are looked at.
pub(super) const MAX_IO_APICS: usize = 8;
/// Interrupt lines of the ISA bus.
pub(super) const ISA_IRQS: usize = 16;

/// An I/O APIC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IoApic {
    /// Physical address of its registers.
    pub(crate) address: u64,
    /// Global number of its first interrupt.
    pub(crate) gsi_base: u32,
}

/// How an interrupt line is wired.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Global number.
    pub(crate) gsi: u32,
    /// Active low, not high.
    pub(crate) active_low: bool,
    /// Level-triggered, not by edge.
    pub(crate) level: bool,
}

/// What the MADT says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupts {
    /// Physical address of the local APIC.
    pub(crate) local_apic: u64,
    pub(super) io_apics: [Option<IoApic>; MAX_IO_APICS],
    pub(super) isa: [Line; ISA_IRQS],
}

impl Interrupts {
    /// The I/O APICs.
    pub(crate) fn io_apics(&self) -> impl Iterator<Item = IoApic> + '_ {
        self.io_apics.iter().flatten().copied()
    }
    /// How an ISA interrupt is wired.
    pub(crate) fn isa(&self, irq: u8) -> Line {
        self.isa[usize::from(irq) % ISA_IRQS]
    }
}

/// The ACPI timer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PmTimer {
    /// Its I/O port.
    pub(crate) port: u16,
    /// It counts 32 bits, not 24.
    pub(crate) bits_32: bool,
}

/// PCI Express configuration space of a range of buses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PciSegment {
    /// Physical address of bus 0.
    pub(crate) base: u64,
    /// Last bus.
    pub(crate) last_bus: u8,
}

/// How to power off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PowerOff {
    /// Port of the control register PM1a.
    pub(crate) pm1a: u16,
    /// Port of PM1b, where there is one.
    pub(crate) pm1b: Option<u16>,
    /// What to write to them.
    pub(crate) types: SleepTypes,
    /// Port and value that switch the board to ACPI mode, if it is not.
    pub(crate) enable: Option<(u16, u8)>,
}
