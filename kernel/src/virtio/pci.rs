//! Finding a virtio device on PCI, its registers and its interrupts (virtio 1.2, 4.1).

use super::hal::KernelHal;
use crate::acpi;
use crate::arch::{apic, interrupts};
use crate::mm::{direct, space};
use crate::pci::bars::{self, BarError, Bars, HOLES, Range, Space};
use crate::pci::msix::{Capability, ENTRY, Message};
use crate::pci::ports::Ports;
use crate::pci::registers::Registers;
use crate::pci::scan::{Function, scan};
use crate::vsock::crosses;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering, fence};
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{
    PciTransport, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_VENDOR_ID,
    VirtioPciError,
};
use x86_64::PhysAddr;

/// PCI device number of the vsock device, and the one that a transitional device has.
const VSOCK: u16 = 0x1053;
const VSOCK_TRANSITIONAL: u16 = 0x1012;

/// Vendor-specific capabilities: where virtio says where its registers are.
const VENDOR_CAPABILITY: u8 = 0x09;

/// Offsets in the common configuration (4.1.4.3).
const CONFIG_VECTOR: usize = 0x10;
const QUEUE_SELECT: usize = 0x16;
const QUEUE_VECTOR: usize = 0x1A;
const QUEUE_NOTIFY_OFFSET: usize = 0x1E;
const QUEUE_DRIVER: usize = 0x28;
const QUEUE_DEVICE: usize = 0x30;
const COMMON_LEN: usize = 0x38;
/// "No vector."
const NO_VECTOR: u16 = 0xFFFF;

/// Why a device cannot be used.
#[derive(Debug)]
pub(crate) enum Error {
    /// Its registers can have no addresses.
    Bars(BarError),
    /// Its registers cannot be mapped.
    Map(space::MapError),
    /// It does not speak virtio 1.
    Transport(VirtioPciError),
    /// A capability points nowhere.
    Capability(&'static str),
    /// It has no message-signalled interrupts, or too few of them.
    NoInterrupts,
    /// It refuses the features that it offered.
    Features,
    /// Its queues are too small, or there is no memory for them.
    Queue(virtio_drivers::Error),
    /// There is no memory for its buffers.
    NoMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Bars(BarError::Malformed) => f.write_str("a base address register is malformed"),
            Error::Bars(BarError::NoRoom(size)) => {
                write!(f, "no room below 4 GiB for {size:#x} bytes of registers")
            }
            Error::Map(why) => write!(f, "its registers cannot be mapped: {why}"),
            Error::Transport(why) => write!(f, "it does not speak virtio 1: {why}"),
            Error::Capability(which) => {
                write!(f, "its {which} capability is missing or points nowhere")
            }
            Error::NoInterrupts => f.write_str("it has no message-signalled interrupts"),
            Error::Features => f.write_str("it refuses the features that it offered"),
            Error::Queue(why) => write!(f, "a queue cannot be set up: {why}"),
            Error::NoMemory => f.write_str("there is no memory for its buffers"),
        }
    }
}

/// Configuration space in which a transitional vsock device has the number of a modern one: the
/// registers are the same, and `virtio-drivers` knows the transitional numbers of some devices
/// only.
#[derive(Clone)]
struct Modern(Ports);

impl ConfigurationAccess for Modern {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        let word = self.0.read_word(function, offset);
        if offset == 0 && word == transitional() {
            u32::from(VSOCK) << 16 | u32::from(VIRTIO_VENDOR_ID)
        } else {
            word
        }
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        self.0.write_word(function, offset, data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

fn transitional() -> u32 {
    u32::from(VSOCK_TRANSITIONAL) << 16 | u32::from(VIRTIO_VENDOR_ID)
}

/// A device that was found, with its registers mapped.
pub(crate) struct Device {
    /// The registers that `virtio-drivers` uses.
    pub(crate) transport: PciTransport,
    function: DeviceFunction,
    access: Ports,
    /// The common configuration once more, for what the transport does not do.
    common: Registers,
    notify: (PhysAddr, u32),
    notify_step: usize,
    messages: Registers,
    capability: Capability,
}

/// Of which entries of a queue a device is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notifications {
    /// Of each.
    All,
    /// Of those that the device chooses (VIRTIO_F_EVENT_IDX; 2.7.10).
    Chosen,
}

/// The register that tells a device of new buffers in one queue, and what the device wants to be
/// told of: writing it is what costs most of all that is done for a packet.
///
/// `should_notify` of the queue is not it: it errs when the 16-bit counters turn over, and
/// otherwise rings for everything.
#[derive(Debug)]
pub(crate) struct Doorbell {
    register: Registers,
    queue: u16,
    /// The entry after whose addition the device wants to be told (2.7.10); without, after each.
    wish: Option<&'static AtomicU16>,
    /// Entries that were added, modulo 2^16; and those of them that were there when the wish was
    /// last looked at.
    added: u16,
    looked: u16,
}

impl Doorbell {
    /// An entry was added to the queue.
    pub(crate) fn added(&mut self) {
        self.added = self.added.wrapping_add(1);
    }

    /// Tells the device of what was added since the last call, if it wants to know.
    pub(crate) fn ring(&mut self) {
        if self.added == self.looked {
            return;
        }
        let wanted = self.wish.is_none_or(|wish| {
            // What was added is visible before the wish is read: either the device sees it when it
            // looks for the last time before it sleeps, or its wish is seen here.
            fence(Ordering::SeqCst);
            crosses(wish.load(Ordering::Relaxed), self.looked, self.added)
        });
        self.looked = self.added;
        if wanted {
            self.register.write(0, self.queue);
        }
    }
}

/// Finds the vsock device; `None` if there is none. Of several, the first.
pub(crate) fn find_vsock() -> Option<Result<Device, Error>> {
    // SAFETY: only one processor runs, and only start-up uses the ports.
    let access = unsafe { Ports::new() };
    let found = scan(&access);
    let mut taken = found.taken;
    taken.extend(configuration_space());
    let is_vsock = |f: &&Function| {
        f.vendor == VIRTIO_VENDOR_ID && (f.device == VSOCK || f.device == VSOCK_TRANSITIONAL)
    };
    let mut devices = found.functions.iter().filter(is_vsock);
    let function = devices.next()?.at;
    if devices.next().is_some() {
        log::warn!("vsock: several devices; the one at {function} is used");
    }
    Some(Device::new(access, function, Space::new(&HOLES, &taken)))
}

/// Where the board has its memory-mapped configuration space: 1 MiB a bus.
fn configuration_space() -> Option<Range> {
    let segment = acpi::firmware_tables().pci?;
    Range::of(segment.base, (u64::from(segment.last_bus) + 1) << 20)
}

impl Device {
    fn new(mut access: Ports, function: DeviceFunction, mut space: Space) -> Result<Self, Error> {
        let bars = bars::assign(&access, function, &mut space).map_err(Error::Bars)?;
        let transport =
            PciTransport::new::<KernelHal, _>(&mut PciRoot::new(Modern(access)), function)
                .map_err(Error::Transport)?;
        let (common, _) =
            virtio_region(access, function, &bars, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_LEN)
                .ok_or(Error::Capability("common configuration"))?;
        let (notify, offset) = virtio_region(access, function, &bars, VIRTIO_PCI_CAP_NOTIFY_CFG, 2)
            .ok_or(Error::Capability("notification"))?;
        let notify_step = access
            .read_word(function, offset.checked_add(16).ok_or(Error::Capability("notification"))?);
        let capability = Capability::find(&access, function).ok_or(Error::NoInterrupts)?;
        let messages = region(&bars, capability.bar, capability.table, capability.entries * ENTRY)
            .ok_or(Error::Capability("MSI-X"))?;
        let common = map(common, COMMON_LEN)?;
        let messages = map(messages, capability.entries * ENTRY)?;
        bars::enable(&access, function);
        capability.enable(&mut access);
        Ok(Self {
            transport,
            function,
            access,
            common,
            notify,
            notify_step: notify_step as usize,
            messages,
            capability,
        })
    }

    /// Lets all queues and changes of the configuration interrupt with one vector. Before the
    /// queues are set up.
    pub(crate) fn enable_interrupts(&mut self, queues: u16) -> Result<(), Error> {
        // What woke the processor is found by looking at the queues.
        let vector = interrupts::allocate_vector().ok_or(Error::NoInterrupts)?;
        let (address, data) = apic::msi_message(vector);
        let message = Message { address: address.as_u64(), data };
        for (i, word) in message.entry().into_iter().enumerate() {
            self.messages.write(4 * i, word);
        }
        self.common.write(CONFIG_VECTOR, 0u16);
        let mut accepted = self.common.read::<u16>(CONFIG_VECTOR) != NO_VECTOR;
        for queue in 0..queues {
            self.common.write(QUEUE_SELECT, queue);
            self.common.write(QUEUE_VECTOR, 0u16);
            accepted &= self.common.read::<u16>(QUEUE_VECTOR) != NO_VECTOR;
        }
        if accepted { Ok(()) } else { Err(Error::NoInterrupts) }
    }

    /// The doorbell of a queue that was set up with this many entries and has none yet.
    pub(crate) fn doorbell(
        &mut self,
        queue: u16,
        size: usize,
        wanted: Notifications,
    ) -> Result<Doorbell, Error> {
        self.common.write(QUEUE_SELECT, queue);
        let number = usize::from(self.common.read::<u16>(QUEUE_NOTIFY_OFFSET));
        let offset = number * self.notify_step;
        let (start, len) = self.notify;
        if offset + 2 > len as usize || !offset.is_multiple_of(2) {
            return Err(Error::Capability("notification"));
        }
        let register = map((start + offset as u64, 2), 2)?;
        // Behind flags, index and the entries of the used ring (2.7.8).
        let wish = match wanted {
            Notifications::Chosen => Some(self.wish(queue, QUEUE_DEVICE, 4 + 8 * size)),
            Notifications::All => None,
        };
        Ok(Doorbell { register, queue, wish, added: 0, looked: 0 })
    }

    /// Where the driver says after which entry of such a queue it wants an interrupt (2.7.7).
    pub(crate) fn interrupt_wish(&mut self, queue: u16, size: usize) -> &'static AtomicU16 {
        // Behind flags, index and the entries of the available ring (2.7.6).
        self.wish(queue, QUEUE_DRIVER, 4 + 2 * size)
    }

    /// The word at `offset` in a ring of a queue that was set up.
    fn wish(&mut self, queue: u16, ring: usize, offset: usize) -> &'static AtomicU16 {
        self.common.write(QUEUE_SELECT, queue);
        let half = |at| u64::from(self.common.read::<u32>(ring + at));
        let at = PhysAddr::new((half(0) | half(4) << 32) + offset as u64);
        // SAFETY: the queue has just been set up with this ring, which is in the direct map,
        // aligned, and never given back; whoever writes there writes these 2 bytes at once.
        unsafe { &*direct(at).as_ptr::<AtomicU16>() }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.access.read_word(self.function, 0);
        let kind = if id == transitional() { "transitional" } else { "modern" };
        write!(f, "PCI {}, {kind}, {} messages", self.function, self.capability.entries)
    }
}

/// Where the registers of a virtio capability are, and the offset of the capability itself.
fn virtio_region(
    access: Ports,
    function: DeviceFunction,
    bars: &Bars,
    kind: u8,
    least: usize,
) -> Option<((PhysAddr, u32), u8)> {
    let root = PciRoot::new(access);
    let capability = root.capabilities(function).find(|capability| {
        capability.id == VENDOR_CAPABILITY && (capability.private_header >> 8) as u8 == kind
    })?;
    let word = |at: u8| Some(access.read_word(function, capability.offset.checked_add(at)?));
    let (bar, offset, len) = (word(4)? as u8, word(8)?, word(12)?);
    let start = region(bars, bar, offset, len as usize)?;
    (len as usize >= least).then_some((start, capability.offset))
}

/// A range behind a base address register.
fn region(bars: &Bars, bar: u8, offset: u32, len: usize) -> Option<(PhysAddr, u32)> {
    let registers = (*bars.get(usize::from(bar))?)?;
    let start = registers.start.checked_add(u64::from(offset))?;
    if start.checked_add(len as u64)? > registers.end {
        return None;
    }
    Some((PhysAddr::try_new(start).ok()?, u32::try_from(len).ok()?))
}

/// Maps registers of a device.
fn map((start, len): (PhysAddr, u32), least: usize) -> Result<Registers, Error> {
    debug_assert!(len as usize >= least);
    // SAFETY: the range is behind a base address register of the device, which this room owns.
    let at = unsafe { space::map_device(start, u64::from(len)) }.map_err(Error::Map)?;
    let base = NonNull::new(at.as_mut_ptr()).ok_or(Error::Capability("register"))?;
    // SAFETY: just mapped, uncached and for good. What is written through it are vectors and
    // doorbells; the addresses of queues are the transport's business.
    Ok(unsafe { Registers::new(base, len as usize) })
}
