//! The device against a guest that is memory here: its driver's side of the rings is done by hand.

use super::GUEST_CID;
use super::connection::{Target, WINDOW};
use super::device::{Token, round};
use super::ring::{Broken, Memory, Ring};
use super::session::{RECEIVE, TRANSMIT};
use super::switch::{Left, Switch};
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

    fn descriptor(&self, memory: &Memory, index: u16, at: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        memory.write_slice(&bytes, GuestAddress(self.base + u64::from(index) * 16)).unwrap();
    }

    /// Makes a chain of header and payload available.
    fn add(&mut self, memory: &Memory, chain: u16, len: usize, flags: u16) {
        let (header, payload) = self.buffer(chain);
        let next = if len > 0 { NEXT } else { 0 };
        self.descriptor(memory, chain * 2, header, HEADER_LEN as u32, flags | next, chain * 2 + 1);
        self.descriptor(memory, chain * 2 + 1, payload, len as u32, flags, 0);
        self.publish(memory, chain * 2);
    }

    fn publish(&mut self, memory: &Memory, head: u16) {
        let slot = u64::from(self.added % SIZE);
        memory.write_obj(head, GuestAddress(self.base + 0x1000 + 4 + slot * 2)).unwrap();
        self.added = self.added.wrapping_add(1);
        memory.write_obj(self.added, GuestAddress(self.base + 0x1000 + 2)).unwrap();
    }

    /// The next chain that the device has used, and how many bytes it wrote.
    fn used(&mut self, memory: &Memory) -> Option<(u16, u32)> {
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
    memory: Memory,
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
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
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
        let mut guest =
            Guest { memory, rings, drivers, free, switch, epoll, inbox: VecDeque::new(), small: false };
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
    fn connect(&mut self, target: Target) -> (UnixStream, End) {
        let (mut client, theirs) = UnixStream::pair().unwrap();
        if target == Target::Asked {
            client.write_all(format!("CONNECT {PORT}\n").as_bytes()).unwrap();
        }
        self.switch.accept(theirs, target).unwrap();
        let end = self.requested().expect("a request");
        self.send(&end.header(Operation::Response, 0), &[]);
        self.run();
        if target == Target::Asked {
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

#[test]
fn bytes_go_both_ways_within_the_credit() {
    let mut guest = Guest::new();
    let (mut client, mut end) = guest.connect(Target::Asked);
    let sent = pattern(300_000);
    let (mut written, mut got) = (0, Vec::new());
    while got.len() < sent.len() {
        written += write_some(&mut client, &sent[written..]);
        let came = guest.bytes();
        assert!(came.len() <= end.alloc as usize, "{} bytes for a credit of {}", came.len(), end.alloc);
        assert!(!came.is_empty());
        end.took(&mut guest, came.len());
        got.extend(came);
    }
    assert!(got == sent);
    end.data(&mut guest, &sent[..100_000]);
    guest.run();
    assert!(read_some(&mut client) == (sent[..100_000].to_vec(), false));
}

#[test]
fn what_is_sent_before_the_answer_is_kept() {
    for early in [&b""[..], b"early", &[b'\n'; 100]] {
        let mut guest = Guest::new();
        let (mut client, theirs) = UnixStream::pair().unwrap();
        guest.switch.accept(theirs, Target::Asked).unwrap();
        // The greeting in pieces, and what follows in the last of them.
        client.write_all(b"CONN").unwrap();
        guest.assert_idle(1);
        client.write_all(&[format!("ECT {PORT}\n").as_bytes(), early].concat()).unwrap();
        let end = guest.requested().unwrap();
        guest.assert_idle(1);
        guest.send(&end.header(Operation::Response, 0), &[]);
        assert_eq!(guest.bytes(), early);
    }
    // Without a greeting there is nothing to be mistaken for one.
    let mut guest = Guest::new();
    let (mut client, theirs) = UnixStream::pair().unwrap();
    client.write_all(b"CONNECT 1\n").unwrap();
    guest.switch.accept(theirs, Target::Port(PORT)).unwrap();
    let end = guest.requested().unwrap();
    guest.send(&end.header(Operation::Response, 0), &[]);
    assert_eq!(guest.bytes(), b"CONNECT 1\n");
}

#[test]
fn clients_that_leave_before_they_are_connected_leave_nothing() {
    let mut guest = Guest::new();
    for greeting in ["", "CONN", "CONNECT nine\n", "GET / HTTP/1.1\r\nHost: umbra.example.org\r\n\r\n"] {
        let (mut client, theirs) = UnixStream::pair().unwrap();
        guest.switch.accept(theirs, Target::Asked).unwrap();
        client.write_all(greeting.as_bytes()).unwrap();
        if greeting.contains('\n') {
            guest.assert_idle(0);
        }
        drop(client);
        guest.assert_idle(0);
        assert!(guest.take().is_empty());
    }
    // Between request and answer: the guest is told, and its answer is for nobody.
    let (mut client, theirs) = UnixStream::pair().unwrap();
    guest.switch.accept(theirs, Target::Asked).unwrap();
    client.write_all(format!("CONNECT {PORT}\n").as_bytes()).unwrap();
    let end = guest.requested().unwrap();
    drop(client);
    assert_eq!(guest.take(), [(Operation::Reset, vec![])]);
    guest.send(&end.header(Operation::Response, 0), &[]);
    assert_eq!(guest.take(), [(Operation::Reset, vec![])]);
    guest.assert_idle(0);
}

#[test]
fn a_port_that_refuses_is_an_end_of_file() {
    let mut guest = Guest::new();
    for target in [Target::Asked, Target::Port(PORT)] {
        let (mut client, theirs) = UnixStream::pair().unwrap();
        client.write_all(format!("CONNECT {PORT}\n").as_bytes()).unwrap();
        guest.switch.accept(theirs, target).unwrap();
        let end = guest.requested().unwrap();
        guest.send(&end.header(Operation::Reset, 0), &[]);
        guest.assert_idle(0);
        let read = client.read(&mut [0]);
        assert!(matches!(&read, Ok(0)) || read.is_err(), "{read:?}");
    }
}

#[test]
fn who_does_not_read_holds_up_nobody_else_and_loses_nothing() {
    let mut guest = Guest::new();
    let (mut slow, slow_end) = guest.connect(Target::Port(PORT));
    let (mut quick, quick_end) = guest.connect(Target::Port(PORT));
    // All of the credit, most of which no socket has room for.
    let sent = pattern(WINDOW as usize);
    slow_end.data(&mut guest, &sent);
    guest.run();
    quick_end.data(&mut guest, b"hello");
    guest.run();
    assert_eq!(read_some(&mut quick).0, b"hello");
    quick.write_all(b"hello").unwrap();
    slow.write_all(b"still here").unwrap();
    assert_eq!(guest.take().len(), 2);
    // No more credit was given than there is room.
    guest.send(&slow_end.header(Operation::CreditRequest, 0), &[]);
    guest.run();
    let (update, _) = guest.inbox.pop_back().unwrap();
    assert_eq!(update.operation, Operation::CreditUpdate as u16);
    assert!((update.fwd_cnt as usize) < sent.len() / 2, "{update:?}");
    // It begins to read, and the guest learns of it.
    slow_end.shutdown(&mut guest, SHUTDOWN_SEND);
    assert!(read_all(&mut guest, &mut slow) == sent);
    let told = guest.inbox.iter().any(|(header, _)| header.fwd_cnt as usize == sent.len());
    assert!(told, "{:?}", guest.inbox);
}

#[test]
fn more_than_the_credit_is_a_reset_and_what_was_within_it_arrives() {
    let mut guest = Guest::new();
    let (mut client, end) = guest.connect(Target::Port(PORT));
    // Without a word from the device: what it has passed on counts no more, as soon as it says so.
    let sent = pattern(2 * WINDOW as usize);
    end.data(&mut guest, &sent);
    let resets = guest.take();
    assert!(!resets.is_empty() && resets.iter().all(|(operation, _)| *operation == Operation::Reset));
    let got = read_all(&mut guest, &mut client);
    assert!(got.len() >= WINDOW as usize && got.len() < sent.len() && got == sent[..got.len()]);
    guest.assert_idle(0);
}

#[test]
fn each_direction_ends_by_itself() {
    // The client first, with answers that wait for it.
    let mut guest = Guest::new();
    let (mut client, end) = guest.connect(Target::Port(PORT));
    let sent = pattern(WINDOW as usize);
    end.data(&mut guest, &sent[..500_000]);
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    guest.run();
    let (header, _) = guest.inbox.pop_back().unwrap();
    assert_eq!((header.operation, header.flags), (Operation::Shutdown as u16, SHUTDOWN_SEND));
    assert_eq!(guest.bytes(), b"last words");
    end.data(&mut guest, &sent[500_000..]);
    end.shutdown(&mut guest, SHUTDOWN_BOTH);
    assert_eq!(guest.take(), [(Operation::Reset, vec![])]);
    assert!(read_all(&mut guest, &mut client) == sent);
    guest.assert_idle(0);

    // The guest first.
    let (mut client, end) = guest.connect(Target::Port(PORT));
    end.data(&mut guest, b"last words");
    end.shutdown(&mut guest, SHUTDOWN_SEND);
    guest.run();
    assert_eq!(read_some(&mut client), (b"last words".to_vec(), true));
    client.write_all(b"thanks").unwrap();
    assert_eq!(guest.bytes(), b"thanks");
    drop(client);
    let packets = guest.take();
    assert!(packets.iter().all(|(operation, _)| *operation == Operation::Shutdown) && !packets.is_empty());
    guest.send(&end.header(Operation::Reset, 0), &[]);
    guest.assert_idle(0);
}

#[test]
fn what_a_client_wrote_before_it_closed_arrives() {
    let mut guest = Guest::new();
    let (mut client, mut end) = guest.connect(Target::Port(PORT));
    let sent = pattern(100_000);
    assert_eq!(write_some(&mut client, &sent), sent.len());
    // It has not read what the guest sent, either.
    end.data(&mut guest, &sent);
    drop(client);
    let mut got = guest.bytes();
    while got.len() < sent.len() {
        end.took(&mut guest, got.len() - end.taken as usize);
        let more = guest.bytes();
        assert!(!more.is_empty());
        got.extend(more);
    }
    assert!(got == sent);
    end.taken = sent.len() as u32;
    // The guest was told of the end. What it sends now is for nobody.
    end.data(&mut guest, b"anyone?");
    assert_eq!(guest.take(), [(Operation::Reset, vec![])]);
    guest.assert_idle(0);
}

#[test]
fn what_a_client_of_a_plain_socket_wrote_arrives_though_it_closed_at_once() {
    let mut guest = Guest::new();
    let (mut client, theirs) = UnixStream::pair().unwrap();
    client.write_all(b"do this").unwrap();
    drop(client);
    guest.switch.accept(theirs, Target::Port(PORT)).unwrap();
    let end = guest.requested().unwrap();
    guest.send(&end.header(Operation::Response, 0), &[]);
    assert_eq!(guest.bytes(), b"do this");
    guest.send(&end.header(Operation::Reset, 0), &[]);
    guest.assert_idle(0);
}

#[test]
fn both_sides_can_send_at_once_though_neither_reads_at_first() {
    let mut guest = Guest::new();
    let (mut client, mut end) = guest.connect(Target::Port(PORT));
    let sent = pattern(WINDOW as usize);
    let mut written = write_some(&mut client, &sent);
    end.data(&mut guest, &sent);
    let mut in_guest = guest.bytes();
    written += write_some(&mut client, &sent[written..]);
    guest.run();
    let (mut in_client, mut stalled) = (Vec::new(), 0);
    while in_guest.len() < sent.len() || in_client.len() < sent.len() {
        let before = (in_guest.len(), in_client.len());
        end.took(&mut guest, in_guest.len() - end.taken as usize);
        written += write_some(&mut client, &sent[written..]);
        in_client.extend(read_some(&mut client).0);
        in_guest.extend(guest.bytes());
        stalled = if before == (in_guest.len(), in_client.len()) { stalled + 1 } else { 0 };
        assert!(stalled < 3, "{before:?} of {}", sent.len());
    }
    assert!(in_guest == sent && in_client == sent);
}

#[test]
fn hundreds_of_connections_take_turns() {
    let mut guest = Guest::new();
    let mut clients: Vec<_> = (0..400).map(|_| guest.connect(Target::Port(PORT))).collect();
    for (i, (client, _)) in clients.iter_mut().enumerate() {
        client.write_all(&(i as u32).to_le_bytes()).unwrap();
    }
    // One that has always more does not keep the others waiting.
    let (greedy, _) = &mut clients[0];
    write_some(greedy, &pattern(100_000));
    guest.run();
    let data: Vec<_> =
        guest.inbox.drain(..).filter(|(header, _)| header.operation == Operation::Data as u16).collect();
    let last = data.iter().rposition(|(_, content)| content.len() == 4).unwrap();
    assert!(last < 500, "the last small packet is number {last}");
    for (client, end) in &mut clients {
        end.data(&mut guest, &end.number.to_le_bytes());
        guest.run();
        assert_eq!(read_some(client).0, end.number.to_le_bytes());
    }
    // All of the others have ended.
    drop(clients);
    let packets = guest.take();
    assert_eq!(packets.iter().filter(|(operation, _)| *operation == Operation::Shutdown).count(), 399);
}

#[test]
fn connections_that_the_guest_starts_are_refused() {
    let mut guest = Guest::new();
    let stray = End { number: 77, alloc: 4096, taken: 0 };
    for operation in [Operation::Request, Operation::Data, Operation::Shutdown, Operation::CreditRequest] {
        guest.send(&stray.header(operation, 0), &[]);
        guest.run();
        let (header, _) = guest.inbox.pop_front().unwrap();
        assert_eq!(header.operation, Operation::Reset as u16);
        assert_eq!((header.source.port, header.destination.port), (Port(77), Port(PORT)));
    }
    guest.send(&stray.header(Operation::Reset, 0), &[]);
    assert!(guest.take().is_empty());
    // Another machine's packets, another type's, and of a connection by the wrong port.
    let (_client, end) = guest.connect(Target::Port(PORT));
    let mut header = end.header(Operation::Data, 0);
    header.source.cid = Cid(99);
    guest.send(&header, &[]);
    assert!(guest.take().is_empty());
    guest.send(&Header { kind: 2, ..end.header(Operation::Data, 0) }, &[]);
    let mut header = end.header(Operation::Data, 0);
    header.source.port = Port(PORT + 1);
    guest.send(&header, &[]);
    assert_eq!(guest.take(), vec![(Operation::Reset, vec![]); 2]);
    guest.assert_idle(1);
}

#[test]
fn resets_that_find_no_buffer_wait_and_hold_back_only_their_cause() {
    let mut guest = Guest::new();
    let stray = End { number: 77, alloc: 4096, taken: 0 };
    // The guest sends without taking anything.
    for _ in 0..1000 {
        if guest.free.is_empty() {
            guest.round().unwrap();
            while let Some((chain, _)) = guest.drivers[TRANSMIT].used(&guest.memory) {
                guest.free.push(chain);
            }
            if guest.free.is_empty() {
                break;
            }
        }
        guest.send(&stray.header(Operation::Data, 0), &[]);
    }
    assert!(guest.free.is_empty(), "resets are kept without bound");
    let (resets, _): (Vec<_>, Vec<_>) = guest.take().into_iter().partition(|it| it.0 == Operation::Reset);
    assert!(resets.len() > usize::from(CHAINS));
    assert_eq!(guest.free.len(), usize::from(CHAINS));
}

#[test]
fn bad_chains_are_given_back_and_change_nothing() {
    let mut guest = Guest::new();
    let (mut client, end) = guest.connect(Target::Port(PORT));
    let lying = end.header(Operation::Data, PAYLOAD + 1);
    guest.send(&lying, &[0; PAYLOAD]);
    guest.run();
    let memory = guest.memory.clone();
    // No header; half a header; memory that is not there; a chain that bites its tail; the wrong way round.
    let driver = &mut guest.drivers[TRANSMIT];
    let chains: [&[(u64, u32, u16, u16)]; 6] = [
        &[(0x30000, 0, 0, 0)],
        &[(0x30000, HEADER_LEN as u32 - 1, 0, 0)],
        &[(u64::MAX - 8, HEADER_LEN as u32, 0, 0)],
        &[(MEMORY as u64 - 8, HEADER_LEN as u32, 0, 0)],
        &[(0x30000, 16, NEXT, 1), (0x30000, u32::MAX / 2, NEXT, 0)],
        &[(0x30000, HEADER_LEN as u32, WRITE, 0)],
    ];
    for chain in chains {
        for (index, &(at, len, flags, next)) in chain.iter().enumerate() {
            driver.descriptor(&memory, index as u16, at, len, flags, next);
        }
        driver.publish(&memory, 0);
        round(&mut guest.switch, &mut guest.rings, &memory).unwrap();
        assert!(driver.used(&memory).is_some());
    }
    assert_eq!(guest.switch.dropped, 7);
    client.write_all(b"on it goes").unwrap();
    assert_eq!(guest.bytes(), b"on it goes");
    // A buffer that holds no packet is passed over.
    guest.small = true;
    for i in 0..20 {
        client.write_all(&[i]).unwrap();
        assert_eq!(guest.bytes(), [i]);
    }
    assert_eq!((guest.small, guest.switch.dropped), (false, 8));
}

#[test]
fn rings_that_contradict_themselves_are_an_error() {
    // An index that is further ahead than the ring is long.
    let mut guest = Guest::new();
    guest.memory.write_obj(1000u16, GuestAddress(guest.drivers[TRANSMIT].base + 0x1002)).unwrap();
    assert!(guest.round().unwrap_err().to_string().contains("rings are broken"));
    // A chain that begins outside of the table.
    let mut guest = Guest::new();
    let memory = guest.memory.clone();
    guest.drivers[TRANSMIT].publish(&memory, SIZE);
    assert!(guest.round().is_err());
    // A ring that is not in the memory.
    let mut ring = Ring::new();
    ring.place(MEMORY as u64 - 16, 0x1000, 0x2000).unwrap();
    let kick = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    assert!(ring.start(&guest.memory, kick, false).is_err());
    assert!(ring.place(8, 0x1000, 0x2000).is_err(), "a table that is not aligned");
}

#[test]
fn random_rings_and_packets_end_in_an_error_at_worst() {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..300 {
        let mut guest = Guest::new();
        let (mut client, end) = guest.connect(Target::Port(PORT));
        for _ in 0..30 {
            // It may have been hung up on.
            let _ = client.write(&[1; 1000]);
            // A packet with some bytes changed, or ring memory with some bytes changed.
            let mut bytes = [0; HEADER_LEN];
            end.header(Operation::from_number(random() as u16 % 8).unwrap(), 100).encode(&mut bytes);
            for _ in 0..random() % 3 {
                bytes[random() as usize % HEADER_LEN] = random() as u8;
            }
            if guest.free.is_empty() {
                break;
            }
            guest.send(&Header::parse(&bytes), &[1; 100]);
            if random().is_multiple_of(4) {
                let ring = guest.drivers[random() as usize % 2].base;
                let at = ring + [0, 0x1000, 0x2000][random() as usize % 3] + random() % 128;
                guest.memory.write_obj(random() as u8, GuestAddress(at)).unwrap();
            }
            if guest.round().is_err() {
                break;
            }
            while let Some((chain, _)) = guest.drivers[TRANSMIT].used(&guest.memory) {
                guest.free.retain(|it| *it != chain % CHAINS);
                guest.free.push(chain % CHAINS);
            }
        }
    }
}
