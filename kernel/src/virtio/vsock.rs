//! The vsock device: three queues and their buffers (virtio 1.2, 5.10).
//!
//! | queue | packets | descriptors |
//! |---|---|---|
//! | receive | 32, header and 64 KiB each, of RAM or of blocks that the volume lends | 64 of 128 |
//! | transmit | 32 with payload, 64 without | 128 of 128 |
//! | event | 8 | 8 |
//!
//! Header and payload are apart, so that payloads are aligned to pages. A header is cleared
//! before the device gets it: what a device completes without writing is then no packet.
//!
//! The device is told of a whole batch at once, by one doorbell a queue, and only if it wants to
//! know. What it has sent is looked at only when buffers run short: each look asks it for an
//! interrupt. Receive interrupts are armed only before the processor sleeps ([`Vsock::listen`]).

use super::hal::{KernelHal, shared};
use super::pci::{self, Doorbell, Error, Notifications};
use crate::dax::Volume;
use crate::vsock::{
    Buffer, Busy, Cid, Device, Exchange, HEADER_LEN, Header, Lender, PAYLOAD, Packet,
    PayloadMemory, Room,
};
use crate::{error_log, nvdimm};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitflags::bitflags;
use core::sync::atomic::{AtomicU16, Ordering, fence};
use umbra_fs::Block;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::{DeviceStatus, Transport};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENT: u16 = 2;
const QUEUES: u16 = 3;

const SIZE: usize = 128;
const EVENT_SIZE: usize = 8;
/// Buffers of each direction.
const BUFFERS: usize = 32;
/// Packets without payload under way at once.
const CONTROLS: usize = SIZE - 2 * BUFFERS;
/// Headers are this far apart.
const HEADER_STEP: usize = 64;
/// Bytes of an event (5.10.6.7).
const EVENT_LEN: usize = 4;
/// The event "all connections are lost".
const TRANSPORT_RESET: u32 = 0;

const PAGE: usize = crate::mm::PAGE as usize;

bitflags! {
    /// Features that are used if the device has them (virtio 1.2, 6).
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        /// Notifications by index: the device interrupts once for a batch.
        const EVENT_INDEX = 1 << 29;
        /// It is no legacy device.
        const VERSION_1 = 1 << 32;
    }
}

/// Blocks of the volume, to receive into.
struct Blocks<'a>(&'a mut Volume);

impl Lender for Blocks<'_> {
    fn lend(&mut self) -> Option<(Block, PayloadMemory)> {
        let run = self.0.lend()?;
        // SAFETY: the run is lent from here on; its memory is the buffer's that gets it until it is
        // taken back. What a file takes over of it is not looked at through the buffer any more.
        let memory = unsafe { nvdimm::lent_memory(run) }?;
        Some((run, memory))
    }

    fn take_back(&mut self, run: Block) {
        self.0.take_back(run);
    }
}

/// A packet that the device is sending.
enum Sending {
    /// With this many bytes of payload.
    Data(Buffer, usize),
    Control(&'static mut [u8; HEADER_LEN]),
}

/// The vsock device.
pub(crate) struct Vsock {
    transport: PciTransport,
    receive: VirtQueue<KernelHal, SIZE>,
    transmit: VirtQueue<KernelHal, SIZE>,
    event: VirtQueue<KernelHal, EVENT_SIZE>,
    doorbells: [Doorbell; QUEUES as usize],
    /// The received packet after which the device is to interrupt, if that can be said; and how
    /// many there were, modulo 2^16.
    interrupt: Option<&'static AtomicU16>,
    received: u16,
    /// What the device has, by token.
    receiving: Box<[Option<Buffer>; SIZE]>,
    /// Receive buffers that are to be given to the device with other memory.
    exchange: Exchange,
    sending: Box<[Option<Sending>; SIZE]>,
    events: [Option<&'static mut [u8; EVENT_LEN]>; EVENT_SIZE],
    /// What it does not have.
    free: Vec<Buffer>,
    controls: Vec<&'static mut [u8; HEADER_LEN]>,
    /// Something came back since that was last told.
    made_room: bool,
    /// It did something that no device does; nothing more is expected of it.
    broken: bool,
}

/// Splits the first `N` bytes off.
fn split<const N: usize>(
    memory: &mut &'static mut [u8],
    step: usize,
) -> Option<&'static mut [u8; N]> {
    let (piece, rest) = core::mem::take(memory).split_at_mut_checked(step)?;
    *memory = rest;
    piece.first_chunk_mut()
}

/// Buffers in shared memory.
fn buffers() -> Option<Vec<Buffer>> {
    let mut headers = shared((BUFFERS * HEADER_STEP).div_ceil(PAGE))?;
    let mut all = Vec::with_capacity(BUFFERS);
    for _ in 0..BUFFERS {
        let mut payload = shared(PAYLOAD / PAGE)?;
        all.push(Buffer {
            header: split(&mut headers, HEADER_STEP)?,
            payload: split(&mut payload, PAYLOAD)?,
            blocks: None,
        });
    }
    Some(all)
}

impl Vsock {
    /// Finds and starts the device; `None` if the machine has none.
    pub(crate) fn start() -> Option<Result<Self, Error>> {
        Some(pci::find_vsock()?.and_then(Self::new))
    }

    fn new(mut device: pci::Device) -> Result<Self, Error> {
        let transport = &mut device.transport;
        let features = transport.begin_init(Features::all());
        if !features.contains(Features::VERSION_1)
            || !transport.get_status().contains(DeviceStatus::FEATURES_OK)
        {
            return Err(Error::Features);
        }
        device.enable_interrupts(QUEUES)?;
        let by_index = features.contains(Features::EVENT_INDEX);
        let transport = &mut device.transport;
        let receive = VirtQueue::new(transport, RECEIVE, false, by_index).map_err(Error::Queue)?;
        let transmit =
            VirtQueue::new(transport, TRANSMIT, false, by_index).map_err(Error::Queue)?;
        let event = VirtQueue::new(transport, EVENT, false, by_index).map_err(Error::Queue)?;
        let notifications = if by_index { Notifications::Chosen } else { Notifications::All };
        let doorbells = [
            device.doorbell(RECEIVE, SIZE, notifications)?,
            device.doorbell(TRANSMIT, SIZE, notifications)?,
            device.doorbell(EVENT, EVENT_SIZE, notifications)?,
        ];
        let interrupt = by_index.then(|| device.interrupt_wish(RECEIVE, SIZE));
        let mut headers = shared((CONTROLS * HEADER_STEP).div_ceil(PAGE)).ok_or(Error::NoMemory)?;
        let mut controls = Vec::with_capacity(CONTROLS);
        for _ in 0..CONTROLS {
            controls.push(split(&mut headers, HEADER_STEP).ok_or(Error::NoMemory)?);
        }
        log::info!("vsock: {device}");
        let mut vsock = Self {
            transport: device.transport,
            receive,
            transmit,
            event,
            doorbells,
            interrupt,
            received: 0,
            receiving: Box::new([const { None }; SIZE]),
            exchange: Exchange::new(BUFFERS),
            sending: Box::new([const { None }; SIZE]),
            events: [const { None }; EVENT_SIZE],
            free: buffers().ok_or(Error::NoMemory)?,
            controls,
            made_room: false,
            broken: false,
        };
        for buffer in buffers().ok_or(Error::NoMemory)? {
            vsock.offer(buffer);
        }
        let mut events = shared(1).ok_or(Error::NoMemory)?;
        for _ in 0..EVENT_SIZE {
            let event = split(&mut events, HEADER_STEP).ok_or(Error::NoMemory)?;
            vsock.offer_event(event);
        }
        vsock.transport.finish_init();
        vsock.notify();
        Ok(vsock)
    }

    /// The number of this machine.
    pub(crate) fn cid(&self) -> Cid {
        let half = |at| self.transport.read_config_space::<u32>(at).unwrap_or(0);
        let read = || Ok(u64::from(half(0)) | u64::from(half(4)) << 32);
        Cid(self.transport.read_consistent(read).unwrap_or(0))
    }

    /// Whether the transport was reset since the last call: all connections are lost, and this
    /// machine may have another number.
    pub(crate) fn was_reset(&mut self) -> bool {
        let mut reset = false;
        while let Some(token) = self.event.peek_used() {
            let Some(event) = self.events.get_mut(usize::from(token)).and_then(Option::take) else {
                self.break_down("completed an event that it does not have");
                break;
            };
            // SAFETY: the buffer is the one that was added under this token.
            let done = unsafe { self.event.pop_used(token, &[], &mut [event]) };
            if done.is_err() {
                self.break_down("completed an event that it does not have");
                break;
            }
            reset |= u32::from_le_bytes(*event) == TRANSPORT_RESET;
            self.offer_event(event);
        }
        reset
    }

    /// Whether there are receive buffers that wait for [`settle`](Self::settle).
    pub(crate) fn is_unsettled(&self) -> bool {
        self.exchange.is_pending()
    }

    /// Gives receive buffers to the device that waited for other memory.
    pub(crate) fn settle(&mut self, volume: &mut Volume) {
        let mut exchange = core::mem::replace(&mut self.exchange, Exchange::new(0));
        exchange.settle(&mut Blocks(volume), |buffer| self.offer(buffer));
        self.exchange = exchange;
        self.notify();
    }

    /// Gives the device a buffer to receive into.
    fn offer(&mut self, buffer: Buffer) {
        buffer.header.fill(0);
        // SAFETY: the slices are kept in `receiving`, untouched, until the token is popped.
        match unsafe {
            self.receive.add(&[], &mut [&mut buffer.header[..], &mut buffer.payload[..]])
        } {
            Ok(token) => self.receiving[usize::from(token)] = Some(buffer),
            Err(_) => self.break_down("has no room for a receive buffer"),
        }
        self.doorbells[usize::from(RECEIVE)].added();
    }

    fn offer_event(&mut self, event: &'static mut [u8; EVENT_LEN]) {
        // No event has this number.
        *event = [0xFF; EVENT_LEN];
        // SAFETY: the buffer is kept in `events`, untouched, until the token is popped.
        match unsafe { self.event.add(&[], &mut [event]) } {
            Ok(token) => self.events[usize::from(token)] = Some(event),
            Err(_) => self.break_down("has no room for an event"),
        }
        self.doorbells[usize::from(EVENT)].added();
    }

    /// The device did what no device does. Its queues are left alone from now on.
    fn break_down(&mut self, what: &str) {
        if !self.broken {
            log::error!("vsock: the device {what}; no client is served any more");
            self.broken = true;
        }
    }

    /// Takes back what was sent; the device interrupts when there is more of it.
    fn collect(&mut self) {
        while !self.broken
            && let Some(token) = Self::used(&self.transmit)
        {
            let sent = self.sending.get_mut(usize::from(token)).and_then(Option::take);
            let done = match &sent {
                None => Err(virtio_drivers::Error::WrongToken),
                // SAFETY: the slices are those that were added under this token.
                Some(Sending::Data(buffer, len)) => unsafe {
                    self.transmit.pop_used(
                        token,
                        &[&buffer.header[..], &buffer.payload[..*len]],
                        &mut [],
                    )
                },
                // SAFETY: as above.
                Some(Sending::Control(header)) => unsafe {
                    self.transmit.pop_used(token, &[&header[..]], &mut [])
                },
            };
            if done.is_err() {
                self.break_down("completed a packet that it does not have");
                break;
            }
            match sent {
                Some(Sending::Data(buffer, _)) => self.free.push(buffer),
                Some(Sending::Control(header)) => self.controls.push(header),
                None => {}
            }
            self.made_room = true;
        }
    }

    /// The next token in the used ring of a queue, if any. Before it says that there is
    /// none, it looks once more behind a fence: the device may have added one just before it
    /// could see that an interrupt is wanted.
    fn used<const N: usize>(queue: &VirtQueue<KernelHal, N>) -> Option<u16> {
        queue.peek_used().or_else(|| {
            fence(Ordering::SeqCst);
            queue.peek_used()
        })
    }
}

impl Device for Vsock {
    fn receive(&mut self) -> Option<Packet> {
        if self.broken {
            return None;
        }
        let token = self.receive.peek_used()?;
        let Some(buffer) = self.receiving.get_mut(usize::from(token)).and_then(Option::take) else {
            self.break_down("completed a buffer that it does not have");
            return None;
        };
        // SAFETY: the slices are those that were added under this token.
        let written = unsafe {
            self.receive.pop_used(
                token,
                &[],
                &mut [&mut buffer.header[..], &mut buffer.payload[..]],
            )
        };
        match written {
            Ok(written) => {
                self.received = self.received.wrapping_add(1);
                if let Some(interrupt) = self.interrupt {
                    // One that has been is one that never comes.
                    interrupt.store(self.received.wrapping_sub(1), Ordering::Relaxed);
                }
                Some(Packet { buffer, written: written as usize })
            }
            Err(_) => {
                self.break_down("completed a buffer that it does not have");
                None
            }
        }
    }

    fn recycle(&mut self, buffer: Buffer) {
        if let Some(buffer) = self.exchange.keep(buffer) {
            self.offer(buffer);
        }
    }

    fn want_blocks(&mut self) {
        self.exchange.want();
    }

    fn take(&mut self) -> Option<Buffer> {
        self.free.pop()
    }

    fn put_back(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    fn send(&mut self, header: &Header, buffer: Buffer) {
        error_log::act_before_sending();
        header.encode(buffer.header);
        let len = header.len as usize;
        // SAFETY: the slices are kept in `sending`, untouched, until the token is popped.
        match unsafe { self.transmit.add(&[&buffer.header[..], &buffer.payload[..len]], &mut []) } {
            Ok(token) => self.sending[usize::from(token)] = Some(Sending::Data(buffer, len)),
            Err(_) => self.break_down("has no room for a packet"),
        }
        self.doorbells[usize::from(TRANSMIT)].added();
    }

    fn send_control(&mut self, header: &Header) -> Result<(), Busy> {
        let control = self.controls.pop().ok_or(Busy)?;
        error_log::act_before_sending();
        header.encode(control);
        // SAFETY: the header is kept in `sending`, untouched, until the token is popped.
        match unsafe { self.transmit.add(&[&control[..]], &mut []) } {
            Ok(token) => self.sending[usize::from(token)] = Some(Sending::Control(control)),
            Err(_) => self.break_down("has no room for a packet"),
        }
        self.doorbells[usize::from(TRANSMIT)].added();
        Ok(())
    }

    fn reap(&mut self) -> Room {
        if self.free.len() <= BUFFERS / 2 || self.controls.len() <= CONTROLS / 2 {
            self.collect();
        }
        if core::mem::take(&mut self.made_room) { Room::Made } else { Room::AsBefore }
    }

    fn has_news(&self) -> bool {
        !self.broken && self.receive.peek_used().is_some()
    }

    fn listen(&self) -> bool {
        if let Some(interrupt) = self.interrupt {
            interrupt.store(self.received, Ordering::Relaxed);
            // Either the device sees the wish when it has added one, or that is seen here.
            fence(Ordering::SeqCst);
        }
        self.has_news()
    }

    fn is_drained(&mut self) -> bool {
        self.collect();
        self.free.len() == BUFFERS && self.controls.len() == CONTROLS
    }

    fn notify(&mut self) {
        self.doorbells.iter_mut().for_each(Doorbell::ring);
    }
}
