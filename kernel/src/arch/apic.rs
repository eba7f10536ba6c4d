//! The local APIC with its timer, and the I/O APIC.
//!
//! Follows SDM volume 3, chapter 12, and the 82093AA I/O APIC datasheet.

use crate::acpi::{Interrupts, IoApic};
use crate::cpu;
use crate::mm::space;
use core::fmt;
use spin::Once;
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::Msr;
use x86_64::{PhysAddr, VirtAddr};

/// Vectors that the controllers are programmed with. Those below 32 are exceptions.
pub(crate) mod vector {
    /// The local APIC's timer.
    pub(crate) const TIMER: u8 = 32;
    /// The serial port.
    pub(crate) const SERIAL: u8 = 33;
    /// Only wakes the processor.
    pub(crate) const WAKE: u8 = 34;
    /// The first of those that devices get.
    pub(crate) const FIRST_FREE: u8 = 48;
    /// The last of those that devices get.
    pub(crate) const LAST_FREE: u8 = 239;
    /// Interrupts that went away before they were delivered.
    pub(crate) const SPURIOUS: u8 = 255;
}

/// Registers of the local APIC, as offsets of its MMIO page.
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const END_OF_INTERRUPT: u32 = 0xb0;
const SPURIOUS_VECTOR: u32 = 0xf0;
const INTERRUPT_COMMAND: u32 = 0x300;
/// Exists in x2APIC mode only.
const SELF_INTERRUPT: u32 = 0x3f0;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

const MASKED: u32 = 1 << 16;
const NMI: u32 = 4 << 8;
const DEADLINE_MODE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
const APIC_BASE: u32 = 0x1b;
const TSC_DEADLINE: u32 = 0x6e0;

/// How the registers are reached.
#[derive(Clone, Copy)]
enum Access {
    /// One page of memory.
    Page(VirtAddr),
    /// Model-specific registers.
    X2,
}

static LOCAL: Once<Access> = Once::new();
/// Why interrupts cannot be set up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ApicError {
    /// Its registers could not be mapped.
    Map(space::MapError),
    /// No I/O APIC serves the interrupt.
    NoIoApic {
        /// The global number of the interrupt.
        gsi: u32,
    },
}

impl fmt::Display for ApicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApicError::Map(why) => write!(f, "its registers cannot be mapped: {why}"),
            ApicError::NoIoApic { gsi } => write!(f, "no I/O APIC serves interrupt {gsi}"),
        }
    }
}

fn read(register: u32) -> u32 {
    match *LOCAL.get().expect("the local APIC is started first") {
        // SAFETY: the page is the local APIC's, mapped for good; the register is in it.
        Access::Page(base) => unsafe {
            (base + u64::from(register)).as_ptr::<u32>().read_volatile()
        },
        // SAFETY: the processor is in x2APIC mode, where these registers exist.
        Access::X2 => unsafe { Msr::new(0x800 + (register >> 4)).read() as u32 },
    }
}

fn write(register: u32, value: u32) {
    match *LOCAL.get().expect("the local APIC is started first") {
        // SAFETY: as in `read`; the values written are those that the manual gives.
        Access::Page(base) => unsafe {
            (base + u64::from(register)).as_mut_ptr::<u32>().write_volatile(value)
        },
        // SAFETY: as in `read`.
        Access::X2 => unsafe { Msr::new(0x800 + (register >> 4)).write(value.into()) },
    }
}

/// Starts the local APIC, with its timer stopped.
pub(crate) fn init(interrupts: &Interrupts) -> Result<(), ApicError> {
    mask_legacy();
    let x2 = cpu::features().x2apic;
    let access = if x2 {
        Access::X2
    } else {
        let phys = PhysAddr::new(interrupts.local_apic);
        // SAFETY: the address is the local APIC's, says firmware; nobody else uses it.
        Access::Page(unsafe { space::map_device(phys, 4096) }.map_err(ApicError::Map)?)
    };
    // SAFETY: sets "enabled", and x2APIC mode where the processor has it.
    unsafe {
        let mut base = Msr::new(APIC_BASE);
        let mode = if x2 { 3 << 10 } else { 1 << 11 };
        let value = base.read();
        base.write(value | mode);
    }
    LOCAL.call_once(|| access);
    write(TASK_PRIORITY, 0);
    write(LVT_TIMER, MASKED);
    write(LVT_LINT0, MASKED);
    write(LVT_LINT1, NMI);
    write(LVT_ERROR, MASKED);
    write(DIVIDE, DIVIDE_BY_1);
    write(SPURIOUS_VECTOR, 1 << 8 | u32::from(vector::SPURIOUS));
    Ok(())
}

/// Masks the two 8259 controllers, behind vectors that are no exceptions.
fn mask_legacy() {
    let write = |port: u16, value: u8| {
        // SAFETY: the ports are those of the interrupt controllers, which the kernel does not use.
        unsafe { Port::<u8>::new(port).write(value) }
    };
    for (command, data, vector, cascade) in [(0x20, 0x21, 240, 4), (0xa0, 0xa1, 248, 2)] {
        write(command, 0x11);
        write(data, vector);
        write(data, cascade);
        write(data, 1);
        write(data, 0xff);
    }
}

/// Routes an interrupt of the ISA bus to this processor.
pub(crate) fn route_isa(interrupts: &Interrupts, irq: u8, vector: u8) -> Result<(), ApicError> {
    let line = interrupts.isa(irq);
    let io_apic =
        interrupts.io_apics().filter(|io| io.gsi_base <= line.gsi).max_by_key(|io| io.gsi_base);
    let IoApic { address, gsi_base } = io_apic.ok_or(ApicError::NoIoApic { gsi: line.gsi })?;
    // SAFETY: the address is the I/O APIC's, says firmware; nobody else uses it.
    let base =
        unsafe { space::map_device(PhysAddr::new(address), 4096) }.map_err(ApicError::Map)?;
    let access = |register: u32, value: Option<u32>| {
        // SAFETY: the I/O APIC's index register is at 0, its data register at 16.
        unsafe {
            base.as_mut_ptr::<u32>().write_volatile(register);
            let data = (base + 16u64).as_mut_ptr::<u32>();
            match value {
                Some(value) => data.write_volatile(value),
                None => return data.read_volatile(),
            }
        }
        0
    };
    let pin = line.gsi - gsi_base;
    let last = access(1, None) >> 16 & 0xff;
    if pin > last {
        return Err(ApicError::NoIoApic { gsi: line.gsi });
    }
    let flags = u32::from(line.active_low) << 13 | u32::from(line.level) << 15;
    access(0x10 + 2 * pin + 1, Some(id() << 24));
    access(0x10 + 2 * pin, Some(flags | u32::from(vector)));
    Ok(())
}

/// The local APIC's number.
pub(crate) fn id() -> u32 {
    match LOCAL.get() {
        Some(Access::X2) => read(ID),
        _ => read(ID) >> 24,
    }
}

/// What a device must write where, to raise a vector (SDM volume 3, 12.11).
pub(crate) fn msi_message(vector: u8) -> (PhysAddr, u32) {
    (PhysAddr::new(0xfee0_0000 | u64::from(id() & 0xff) << 12), vector.into())
}

/// Sends this processor an interrupt, if the local APIC is started.
pub(crate) fn interrupt_self(vector: u8) {
    const SELF: u32 = 1 << 18;
    match LOCAL.get() {
        Some(Access::Page(_)) => write(INTERRUPT_COMMAND, SELF | u32::from(vector)),
        Some(Access::X2) => write(SELF_INTERRUPT, vector.into()),
        None => {}
    }
}

/// Tells the local APIC that the handler of an interrupt is done.
pub(crate) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Counts the timer's ticks over `wait`: how many there were.
pub(crate) fn count_timer(wait: impl FnOnce()) -> u64 {
    write(INITIAL_COUNT, u32::MAX);
    wait();
    let left = read(CURRENT_COUNT);
    write(INITIAL_COUNT, 0);
    u64::from(u32::MAX - left)
}

/// Chooses how the timer is armed.
pub(crate) fn enable_timer() {
    let mode = if cpu::features().tsc_deadline { DEADLINE_MODE } else { 0 };
    write(LVT_TIMER, u32::from(vector::TIMER) | mode);
}

/// Arms the timer for a time-stamp (deadline mode).
pub(crate) fn arm_deadline(tsc: u64) {
    // SAFETY: the processor has the register: the timer is in deadline mode.
    unsafe { Msr::new(TSC_DEADLINE).write(tsc) };
}

/// Arms the timer for a number of its ticks, at least one (one-shot mode).
pub(crate) fn arm_ticks(ticks: u32) {
    write(INITIAL_COUNT, ticks.max(1));
}
