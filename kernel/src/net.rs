//! Clients: the connections of the vsock device, each with its server.
//!
//! The main loop's one call moves packets, gives every server with something to do its turn,
//! and says whether there is more. It never waits. Interrupts of the device only wake the
//! loop.

use crate::arch::clock;
use crate::mm::{frames, heap};
use crate::platform::KernelPlatform;
use crate::virtio::{self, Vsock};
use crate::vsock::{
    Address, BASE_CHUNKS, Endpoint, Handler, Millis, Next, Page, Pool, Port, Statistics, Vacancy,
};
use alloc::boxed::Box;
use alloc::vec::Vec;
use spin::Mutex;
use umbra_fs::dax::Machine;
use umbra_server::platform::{Turn, take_turn};
use umbra_server::{Peer, Progress, Room, Service, Shared, Stream};

/// One part in this many of RAM, at most, is for the smallest windows of all connections: with less
/// RAM there are fewer.
const BASE_SHARE: usize = 6;
/// One part in this many of RAM, at most so many chunks, is for larger windows.
const SPARE_SHARE: usize = 16;
const MOST_SPARE: usize = 8192;
/// What a connection takes from the heap before it asks for anything.
const CONNECTION_MEMORY: usize = 8 << 10;

struct Net {
    device: Vsock,
    endpoint: Endpoint<Box<dyn Service<KernelPlatform>>>,
}

/// The device, if the machine has one. Page faults of servers do not come here.
static NET: Mutex<Option<Net>> = Mutex::new(None);

/// The servers; without a volume there are none.
struct Servers<'a> {
    platform: Option<&'a mut KernelPlatform>,
    shared: &'a mut Shared,
}

impl Handler for Servers<'_> {
    type Server = Box<dyn Service<KernelPlatform>>;

    fn accept(&mut self, port: Port, peer: Address, vacancy: Vacancy) -> Option<Self::Server> {
        self.platform.as_ref()?;
        let room = match vacancy {
            Vacancy::Full(connections) => Room::Full(connections),
            _ if !heap::admits(CONNECTION_MEMORY) => Room::NoMemory,
            Vacancy::Kept => Room::Kept,
            Vacancy::Plenty => Room::Plenty,
        };
        umbra_server::accept(port.0, Peer { cid: peer.cid.0, port: peer.port.0 }, room)
    }

    fn poll(&mut self, server: &mut Self::Server, stream: &mut dyn Stream) -> Progress {
        match &mut self.platform {
            Some(platform) => {
                let shared = &mut *self.shared;
                take_turn(*platform, Turn::Other, |platform| server.poll(stream, platform, shared))
            }
            None => Progress::Wait,
        }
    }
}

/// Finds and starts the vsock device.
pub(crate) fn init() {
    match Vsock::start() {
        None => log::warn!("vsock: the machine has no such device; only the console is served"),
        Some(Err(why)) => log::error!("vsock: the device cannot be used: {why}"),
        Some(Ok(device)) => {
            let cid = device.cid();
            log::info!("vsock: this machine is {}", cid.0);
            let endpoint = Endpoint::new(cid, pool());
            log::info!("vsock: room for {} connections", endpoint.capacity());
            *NET.lock() = Some(Net { device, endpoint });
        }
    }
}

/// Does what can be done now, with the machine that servers run on if a volume is served, and what
/// the servers share; returns whether there is more to do at once. Otherwise an interrupt will come
/// when there is.
pub(crate) fn poll(mut platform: Option<&mut KernelPlatform>, shared: &mut Shared) -> bool {
    let mut net = NET.lock();
    let Some(Net { device, endpoint }) = net.as_mut() else { return false };
    if device.was_reset() {
        log::warn!("vsock: the transport was reset; all connections are lost");
        endpoint.transport_reset(device.cid());
    }
    let mut servers = Servers { platform: platform.as_deref_mut(), shared };
    let mut next = endpoint.poll(device, &mut servers, now());
    if let Some(platform) = platform {
        if device.is_unsettled() {
            platform.volume(|volume| device.settle(volume));
        }
        if shared.take_news() {
            endpoint.wake_all();
            next = Next::Now;
        }
    }
    match next {
        Next::Now => true,
        Next::Event => false,
        Next::At(at) => {
            clock::wake_at(clock::Instant(at.0.saturating_mul(1_000_000)));
            false
        }
    }
}

/// Whether a packet has come that can be looked at.
pub(crate) fn has_news() -> bool {
    NET.lock().as_ref().is_some_and(|net| net.endpoint.has_news(&net.device))
}

/// Makes packets interrupt, as they do not while they are looked at anyway; returns whether one has
/// come already.
pub(crate) fn listen() -> bool {
    NET.lock().as_ref().is_some_and(|net| net.endpoint.listen(&net.device))
}

/// Whether everything that servers could send has left.
pub(crate) fn is_drained() -> bool {
    NET.lock().as_mut().is_none_or(|net| net.endpoint.is_drained(&mut net.device))
}

/// What happened since the start, if there is a device.
pub(crate) fn statistics() -> Option<Statistics> {
    NET.lock().as_ref().map(|net| net.endpoint.statistics())
}

fn now() -> Millis {
    Millis(clock::now().0 / 1_000_000)
}

/// The memory for bytes that were received and not consumed.
fn pool() -> Pool {
    let total = frames::counts().total;
    let chunks = BASE_CHUNKS.min(total / BASE_SHARE) + MOST_SPARE.min(total / SPARE_SHARE);
    let mut pages: Vec<Page> = Vec::with_capacity(chunks);
    pages.extend((0..chunks).map_while(|_| virtio::page()));
    Pool::new(pages)
}
