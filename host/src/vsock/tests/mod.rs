//! The device against a guest that is memory here: its driver's side of the rings is done by hand.

mod connections;
mod hostile;

use super::GUEST_CID;
use super::connection::{PortChoice, WINDOW};
use super::events::Token;
use super::ring::{Broken, GuestMemory, Ring};
use super::session::{RECEIVE, TRANSMIT};
use super::switch::{Client, Left, Switch};
use super::worker::round;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use umbra_proto::vsock::packet::{SHUTDOWN_BOTH, SHUTDOWN_SEND, TYPE_STREAM};
use umbra_proto::vsock::{Address, Cid, HEADER_LEN, Header, Operation, Port};
use vm_memory::{Bytes, GuestAddress};

/// Descriptors of each ring; a packet takes two.
const SIZE: u16 = 16;
const CHAINS: u16 = SIZE / 2;
/// Bytes of payload of a buffer.
const PAYLOAD: usize = 4096;
const MEMORY: usize = 1 << 20;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// A port of the guest.
const PORT: u32 = 9;

/// The driver's side of a ring, which lies from `base` on: descriptors, available, used, buffers.
struct Driver {
    base: u64,
    added: u16,
    seen: u16,
}

impl Driver {
    fn buffer(&self, chain: u16) -> (u64, u64) {
        let payload = self.base + 0x4000 + u64::from(chain) * PAYLOAD as u64;
        (self.base + 0x3000 + u64::from(chain) * 64, payload)
    }

    fn descriptor(
        &self,
        memory: &GuestMemory,
        index: u16,
        at: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        memory.write_slice(&bytes, GuestAddress(self.base + u64::from(index) * 16)).unwrap();
    }

    /// Makes a chain of header and payload available.
    fn add(&mut self, memory: &GuestMemory, chain: u16, len: usize, flags: u16) {
        let (header, payload) = self.buffer(chain);
        let next = if len > 0 { NEXT } else { 0 };
        self.descriptor(memory, chain * 2, header, HEADER_LEN as u32, flags | next, chain * 2 + 1);
        self.descriptor(memory, chain * 2 + 1, payload, len as u32, flags, 0);
        self.publish(memory, chain * 2);
    }

    fn publish(&mut self, memory: &GuestMemory, head: u16) {
        let slot = u64::from(self.added % SIZE);
        memory.write_obj(head, GuestAddress(self.base + 0x1000 + 4 + slot * 2)).unwrap();
        self.added = self.added.wrapping_add(1);
        memory.write_obj(self.added, GuestAddress(self.base + 0x1000 + 2)).unwrap();
    }

    /// The next chain that the device has used, and how many bytes it wrote.
    fn used(&mut self, memory: &GuestMemory) -> Option<(u16, u32)> {
        let index: u16 = memory.read_obj(GuestAddress(self.base + 0x2000 + 2)).unwrap();
        if index == self.seen {
            return None;
        }
        let at = self.base + 0x2000 + 4 + u64::from(self.seen % SIZE) * 8;
        self.seen = self.seen.wrapping_add(1);
        let read = |at| memory.read_obj::<u32>(GuestAddress(at)).unwrap();
        Some((read(at) as u16 / 2, read(at + 4)))
    }
}

/// A guest, and the device that it has.
struct Guest {
    memory: GuestMemory,
    rings: [Ring; 2],
    drivers: [Driver; 2],
    free: Vec<u16>,
    switch: Switch,
    epoll: Arc<OwnedFd>,
    /// Packets that came.
    inbox: VecDeque<(Header, Vec<u8>)>,
    /// The next buffer that it offers holds a header and no more.
    small: bool,
}

impl Guest {
    fn new() -> Guest {
        Guest::with(GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap())
    }

    /// With this memory, of which the first [`MEMORY`] bytes are for the rings.
    fn with(memory: GuestMemory) -> Guest {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
        let drivers = [0, 0x20000].map(|base| Driver { base, added: 0, seen: 0 });
        let rings = [0, 1].map(|index: usize| {
            let base = drivers[index].base;
            let mut ring = Ring::new();
            ring.set_size(SIZE).unwrap();
            ring.place(base, base + 0x1000, base + 0x2000).unwrap();
            let kick = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
            ring.start(&memory, kick, false).unwrap();
            ring.set_enabled(true);
            ring
        });
        let switch = Switch::new(epoll.clone());
        let free = (0..CHAINS).collect();
        let mut guest = Guest {
            memory,
            rings,
            drivers,
            free,
            switch,
            epoll,
            inbox: VecDeque::new(),
            small: false,
        };
        for chain in 0..CHAINS {
            guest.offer(chain);
        }
        guest
    }

    /// Gives the device a buffer for a packet.
    fn offer(&mut self, chain: u16) {
        let len = if std::mem::take(&mut self.small) { 0 } else { PAYLOAD };
        self.drivers[RECEIVE].add(&self.memory, chain, len, WRITE);
    }

    /// Lets the device do all that it can do, until nothing is left, and takes what comes.
    fn run(&mut self) {
        while self.step() {}
    }

    /// One round. Returns whether there was anything.
    fn step(&mut self) -> bool {
        let mut events = Vec::with_capacity(64);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&*self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)).unwrap();
        for event in &events {
            match Token::unpack(event.data.u64()) {
                Token::Client(number) => self.switch.client(number, event.flags),
                other => panic!("an event of {other:?}"),
            }
        }
        let left = self.round().unwrap();
        self.collect() || left == Left::More || !events.is_empty()
    }

    fn round(&mut self) -> Result<Left, Broken> {
        round(&mut self.switch, &mut self.rings, &self.memory)
    }

    fn collect(&mut self) -> bool {
        let mut came = false;
        while let Some((chain, written)) = self.drivers[RECEIVE].used(&self.memory) {
            came = true;
            if written == 0 {
                self.offer(chain);
                continue;
            }
            let (header, payload) = self.drivers[RECEIVE].buffer(chain);
            let mut bytes = [0; HEADER_LEN];
            self.memory.read_slice(&mut bytes, GuestAddress(header)).unwrap();
            let header = Header::parse(&bytes);
            assert_eq!(written as usize, HEADER_LEN + header.len as usize);
            let mut content = vec![0; header.len as usize];
            self.memory.read_slice(&mut content, GuestAddress(payload)).unwrap();
            self.inbox.push_back((header, content));
            self.offer(chain);
        }
        while let Some((chain, _)) = self.drivers[TRANSMIT].used(&self.memory) {
            came = true;
            self.free.push(chain);
        }
        came
    }

    /// Sends a packet.
    fn send(&mut self, header: &Header, payload: &[u8]) {
        while self.free.is_empty() {
            assert!(self.step(), "the device gives no buffer back");
        }
        let chain = self.free.pop().unwrap();
        let (at, content) = self.drivers[TRANSMIT].buffer(chain);
        let mut bytes = [0; HEADER_LEN];
        header.encode(&mut bytes);
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
        self.memory.write_slice(payload, GuestAddress(content)).unwrap();
        self.drivers[TRANSMIT].add(&self.memory, chain, payload.len(), 0);
    }

    /// Packets of a connection that came, without those that only carry credit.
    fn take(&mut self) -> Vec<(Operation, Vec<u8>)> {
        self.run();
        let packets = self
            .inbox
            .drain(..)
            .map(|(header, content)| (Operation::from_number(header.operation).unwrap(), content));
        packets.filter(|(operation, _)| *operation != Operation::CreditUpdate).collect()
    }

    /// All bytes that came on the only connection.
    fn bytes(&mut self) -> Vec<u8> {
        self.take().into_iter().flat_map(|(_, content)| content).collect()
    }

    /// A client that connects to [`PORT`], and the guest's end of it.
    fn connect(&mut self, port: PortChoice) -> (UnixStream, End) {
        let (mut client, theirs) = UnixStream::pair().unwrap();
        if port == PortChoice::Asked {
            client.write_all(format!("CONNECT {PORT}\n").as_bytes()).unwrap();
        }
        self.switch.accept(theirs, port).unwrap();
        let end = self.requested().expect("a request");
        self.send(&end.header(Operation::Response, 0), &[]);
        self.run();
        if port == PortChoice::Asked {
            let mut answer = vec![0; format!("OK {}\n", end.number).len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, format!("OK {}\n", end.number).as_bytes());
        }
        client.set_nonblocking(true).unwrap();
        (client, end)
    }

    /// The request that has come.
    fn requested(&mut self) -> Option<End> {
        self.run();
        let (header, _) = self.inbox.pop_front()?;
        assert_eq!(header.operation, Operation::Request as u16);
        assert_eq!((header.source.cid, header.destination.cid), (Cid(2), Cid(GUEST_CID)));
        assert_eq!((header.destination.port, header.buf_alloc), (Port(PORT), WINDOW));
        Some(End { number: header.source.port.0, alloc: 64 << 10, taken: 0 })
    }

    /// Nothing of a connection is left, and nothing keeps the device busy.
    #[track_caller]
    fn assert_idle(&mut self, connections: usize) {
        self.run();
        assert_eq!(self.switch.len(), connections);
        assert!(!self.step());
    }
}

/// The guest's end of a connection.
struct End {
    number: u32,
    alloc: u32,
    taken: u32,
}

impl End {
    fn header(&self, operation: Operation, len: usize) -> Header {
        Header {
            source: Address { cid: Cid(GUEST_CID), port: Port(PORT) },
            destination: Address { cid: Cid(2), port: Port(self.number) },
            len: len as u32,
            kind: TYPE_STREAM,
            operation: operation as u16,
            flags: 0,
            buf_alloc: self.alloc,
            fwd_cnt: self.taken,
        }
    }

    fn data(&self, guest: &mut Guest, bytes: &[u8]) {
        for piece in bytes.chunks(PAYLOAD) {
            guest.send(&self.header(Operation::Data, piece.len()), piece);
        }
    }

    fn shutdown(&self, guest: &mut Guest, flags: u32) {
        guest.send(&Header { flags, ..self.header(Operation::Shutdown, 0) }, &[]);
    }

    /// Gives credit for what came.
    fn took(&mut self, guest: &mut Guest, len: usize) {
        self.taken = self.taken.wrapping_add(len as u32);
        guest.send(&self.header(Operation::CreditUpdate, 0), &[]);
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 + i) as u8).collect()
}

/// Writes as much as the socket takes.
fn write_some(client: &mut UnixStream, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        match client.write(&bytes[done..]) {
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    done
}

/// Reads all that is there; whether it is the end, too.
fn read_some(client: &mut UnixStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    match client.read_to_end(&mut all) {
        Ok(_) => (all, true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => (all, false),
        Err(error) => panic!("{error}"),
    }
}

/// Reads until the end, with the device at work.
fn read_all(guest: &mut Guest, client: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        guest.run();
        let (more, end) = read_some(client);
        assert!(end || !more.is_empty(), "neither bytes nor an end");
        all.extend(more);
        if end {
            return all;
        }
    }
}
