//! The endpoint against simulated peers, over a device that loses nothing and is in no hurry.

use super::packet::{SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};
use super::pool::test_pool;
use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};
use umbra_server::stream::send;
use umbra_server::{Progress, Stream};

const GUEST: Cid = Cid(5);
const HOST: Cid = Cid(2);

fn buffer() -> Buffer {
    let payload = vec![0xA5u8; PAYLOAD].into_boxed_slice();
    let payload = Box::leak(payload).as_mut_array().unwrap();
    Buffer { header: Box::leak(Box::new([0; HEADER_LEN])), payload }
}

/// A device with few buffers. What is sent lies in `sent` until the test takes it.
struct Fake {
    receive: Vec<Buffer>,
    arrived: VecDeque<Packet>,
    free: Vec<Buffer>,
    sent: VecDeque<(Header, Vec<u8>)>,
    under_way: VecDeque<Option<Buffer>>,
    controls: usize,
    total: usize,
    made_room: bool,
}

impl Fake {
    fn new(buffers: usize, controls: usize) -> Self {
        Self {
            receive: (0..buffers).map(|_| buffer()).collect(),
            arrived: VecDeque::new(),
            free: (0..buffers).map(|_| buffer()).collect(),
            sent: VecDeque::new(),
            under_way: VecDeque::new(),
            controls,
            total: buffers,
            made_room: false,
        }
    }

    /// Whether the peer can deliver a packet now.
    fn has_room(&self) -> bool {
        !self.receive.is_empty()
    }

    fn deliver(&mut self, header: Header, payload: &[u8]) {
        let buffer = self.receive.pop().expect("no receive buffer");
        header.encode(buffer.header);
        buffer.payload[..payload.len()].copy_from_slice(payload);
        self.arrived.push_back(Packet { buffer, written: HEADER_LEN + payload.len() });
    }

    /// The device is done with the first packet that was sent.
    fn complete(&mut self) -> Option<(Header, Vec<u8>)> {
        match self.under_way.pop_front()? {
            Some(buffer) => self.free.push(buffer),
            None => self.controls += 1,
        }
        self.made_room = true;
        self.sent.pop_front()
    }

    fn assert_whole(&self) {
        assert_eq!(self.receive.len() + self.arrived.len(), self.total, "a receive buffer was lost");
        let under_way = self.under_way.iter().filter(|buffer| buffer.is_some()).count();
        assert_eq!(self.free.len() + under_way, self.total, "a send buffer was lost");
    }
}

impl Device for Fake {
    fn receive(&mut self) -> Option<Packet> {
        self.arrived.pop_front()
    }
    fn recycle(&mut self, buffer: Buffer) {
        self.receive.push(buffer);
    }
    fn take(&mut self) -> Option<Buffer> {
        self.free.pop()
    }
    fn put_back(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }
    fn send(&mut self, header: &Header, buffer: Buffer) {
        assert!(header.len > 0);
        self.sent.push_back((*header, buffer.payload[..header.len as usize].to_vec()));
        self.under_way.push_back(Some(buffer));
    }
    fn send_control(&mut self, header: &Header) -> Result<(), Busy> {
        if self.controls == 0 {
            return Err(Busy);
        }
        self.controls -= 1;
        self.sent.push_back((*header, Vec::new()));
        self.under_way.push_back(None);
        Ok(())
    }
    fn reap(&mut self) -> Room {
        if core::mem::take(&mut self.made_room) { Room::Made } else { Room::AsBefore }
    }
    fn has_news(&self) -> bool {
        !self.arrived.is_empty()
    }
    fn listen(&self) -> bool {
        self.has_news()
    }
    fn is_drained(&mut self) -> bool {
        self.under_way.is_empty()
    }
    fn notify(&mut self) {}
}

/// Servers by port.
enum Server {
    /// 7: answers every byte with itself; closes when the peer has finished.
    Echo,
    /// 9: consumes everything, answers with the count, closes.
    Discard { total: u64, answered: usize },
    /// 19: sends bytes without end.
    Source,
    /// 20: never consumes, sends or closes.
    Stuck,
    /// 21: sends 1,000 bytes and closes at once.
    Hello,
    /// 22: wants another poll whatever happens.
    Busy,
}

#[derive(Default)]
struct Servers {
    /// Servers that were polled with their connection closed.
    ended: usize,
    /// What the largest `available` was.
    most: usize,
}

impl Handler for Servers {
    type Server = Server;

    fn accept(&mut self, port: Port, _peer: Address) -> Option<Server> {
        Some(match port.0 {
            7 => Server::Echo,
            9 => Server::Discard { total: 0, answered: 0 },
            19 => Server::Source,
            20 => Server::Stuck,
            21 => Server::Hello,
            22 => Server::Busy,
            _ => return None,
        })
    }

    fn poll(&mut self, server: &mut Server, stream: &mut dyn Stream) -> Progress {
        self.most = self.most.max(stream.available());
        if stream.is_closed() {
            assert!(stream.buffer().is_empty());
            self.ended += 1;
            return Progress::Wait;
        }
        match server {
            Server::Echo => {
                loop {
                    let piece = stream.received().to_vec();
                    let n = send(stream, &piece);
                    if n == 0 {
                        break;
                    }
                    stream.consume(n);
                }
                if stream.finished() && stream.available() == 0 {
                    stream.close();
                }
            }
            Server::Discard { total, answered } => {
                *total += stream.available() as u64;
                stream.consume(usize::MAX);
                if stream.finished() {
                    *answered += send(stream, &total.to_le_bytes()[*answered..]);
                    if *answered == 8 {
                        stream.close();
                    }
                }
            }
            Server::Source => loop {
                let n = stream.buffer().len();
                if n == 0 {
                    break;
                }
                stream.commit(n);
            },
            Server::Stuck => {}
            Server::Hello => {
                send(stream, &[1; 1000]);
                stream.close();
                assert!(stream.buffer().is_empty());
            }
            Server::Busy => return Progress::Again,
        }
        Progress::Wait
    }
}

/// The machine under test.
struct Guest {
    endpoint: Endpoint<Server>,
    device: Fake,
    servers: Servers,
    now: Millis,
}

impl Guest {
    fn new(buffers: usize, controls: usize, chunks: usize) -> Self {
        Self {
            endpoint: Endpoint::new(GUEST, test_pool(chunks)),
            device: Fake::new(buffers, controls),
            servers: Servers::default(),
            now: Millis(1000),
        }
    }

    fn poll(&mut self) -> Next {
        let next = self.endpoint.poll(&mut self.device, &mut self.servers, self.now);
        self.device.assert_whole();
        next
    }

    /// Polls until there is nothing to do, completing what is sent; returns that.
    fn run(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut sent = Vec::new();
        for _ in 0..10_000 {
            let next = self.poll();
            let before = sent.len();
            while let Some(packet) = self.device.complete() {
                sent.push(packet);
            }
            if next != Next::Now && sent.len() == before {
                return sent;
            }
        }
        panic!("it never rests");
    }

    fn deliver(&mut self, header: Header, payload: &[u8]) -> Vec<(Header, Vec<u8>)> {
        self.device.deliver(header, payload);
        self.run()
    }
}

fn from_host(port: u32, to: u32, operation: Operation, len: usize) -> Header {
    Header {
        source: Address { cid: HOST, port: Port(port) },
        destination: Address { cid: GUEST, port: Port(to) },
        len: len as u32,
        kind: TYPE_STREAM,
        operation: operation as u16,
        flags: 0,
        buf_alloc: 64 * 1024,
        fwd_cnt: 0,
    }
}

fn operations(sent: &[(Header, Vec<u8>)]) -> Vec<Operation> {
    sent.iter().map(|(header, _)| Operation::from_number(header.operation).unwrap()).collect()
}

fn connect(guest: &mut Guest, port: u32, to: u32) -> Vec<(Header, Vec<u8>)> {
    let sent = guest.deliver(from_host(port, to, Operation::Request, 0), &[]);
    assert_eq!(operations(&sent)[0], Operation::Response);
    sent
}

#[test]
fn a_refused_port_is_a_reset_with_the_ends_swapped() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    let sent = guest.deliver(from_host(77, 4321, Operation::Request, 0), &[]);
    assert_eq!(operations(&sent), [Operation::Reset]);
    assert_eq!(sent[0].0.source, Address { cid: GUEST, port: Port(4321) });
    assert_eq!(sent[0].0.destination, Address { cid: HOST, port: Port(77) });
    assert_eq!(guest.endpoint.statistics().refused, 1);
}

#[test]
fn connections_beyond_the_bound_are_refused_and_the_others_live() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    for port in 0..MAX_CONNECTIONS as u32 {
        connect(&mut guest, port, 7);
    }
    assert_eq!(guest.endpoint.statistics().chunks_unreserved, 0);
    let sent = guest.deliver(from_host(9999, 7, Operation::Request, 0), &[]);
    assert_eq!(operations(&sent), [Operation::Reset]);
    let sent = guest.deliver(from_host(3, 7, Operation::Data, 2), b"hi");
    assert_eq!(sent.last().unwrap().1, b"hi");
    guest.deliver(from_host(3, 7, Operation::Reset, 0), &[]);
    connect(&mut guest, 9999, 7);
}

#[test]
fn a_server_learns_once_that_its_connection_is_gone() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 20);
    guest.deliver(from_host(1, 20, Operation::Data, 3), b"abc");
    assert!(guest.deliver(from_host(1, 20, Operation::Reset, 0), &[]).is_empty());
    assert_eq!(guest.servers.ended, 1);
    assert_eq!(guest.servers.most, 3);
    assert_eq!(guest.endpoint.statistics().connections, 0);
    assert_eq!(guest.endpoint.statistics().chunks_unreserved, BASE_CHUNKS as u64);
    let sent = guest.deliver(from_host(1, 20, Operation::Data, 3), b"abc");
    assert_eq!(operations(&sent), [Operation::Reset], "nobody is there any more");
}

#[test]
fn a_shutdown_waits_until_the_peer_has_forwarded_everything() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    let sent = connect(&mut guest, 1, 21);
    assert_eq!(operations(&sent), [Operation::Response, Operation::Data, Operation::CreditRequest]);
    // It was asked, and has forwarded a part.
    let answer = |fwd_cnt| Header { fwd_cnt, ..from_host(1, 21, Operation::CreditUpdate, 0) };
    assert!(guest.deliver(answer(400), &[]).is_empty());
    guest.now = guest.now.after(25);
    assert_eq!(operations(&guest.run()), [Operation::CreditRequest]);
    let sent = guest.deliver(answer(1000), &[]);
    assert_eq!(operations(&sent), [Operation::Shutdown]);
    assert_eq!(sent[0].0.flags, SHUTDOWN_BOTH);
    assert!(guest.deliver(from_host(1, 21, Operation::Reset, 0), &[]).is_empty());
    assert_eq!(guest.endpoint.statistics().connections, 0);
}

#[test]
fn a_peer_that_never_takes_what_it_is_owed_is_given_up() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 21);
    let mut asked = 0;
    for _ in 0..200 {
        match guest.poll() {
            Next::At(at) => guest.now = at,
            Next::Event => break,
            Next::Now => {}
        }
        asked += operations(&guest.run()).iter().filter(|o| **o == Operation::CreditRequest).count();
    }
    assert!((5..30).contains(&asked), "asked {asked} times");
    assert_eq!(guest.endpoint.statistics().timeouts, 1);
    assert_eq!(guest.endpoint.statistics().connections, 0);
    assert_eq!(guest.servers.ended, 1);
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    for flags in [SHUTDOWN_SEND, SHUTDOWN_BOTH] {
        let mut guest = Guest::new(4, 4, BASE_CHUNKS);
        connect(&mut guest, 1, 9);
        guest.deliver(from_host(1, 9, Operation::Data, 5), b"hello");
        let shutdown = Header { flags, ..from_host(1, 9, Operation::Shutdown, 0) };
        let sent = guest.deliver(shutdown, &[]);
        assert_eq!(operations(&sent), [Operation::Data, Operation::CreditRequest]);
        assert_eq!(sent[0].1, 5u64.to_le_bytes());
        let credit = Header { fwd_cnt: 8, ..from_host(1, 9, Operation::CreditUpdate, 0) };
        let last = if flags == SHUTDOWN_BOTH { Operation::Reset } else { Operation::Shutdown };
        assert_eq!(operations(&guest.deliver(credit, &[])), [last]);
    }
}

#[test]
fn a_server_that_never_closes_a_dead_connection_is_ended() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 20);
    guest.deliver(Header { flags: SHUTDOWN_BOTH, ..from_host(1, 20, Operation::Shutdown, 0) }, &[]);
    guest.now = guest.now.after(29_000);
    assert!(guest.run().is_empty());
    guest.now = guest.now.after(2_000);
    assert_eq!(operations(&guest.run()), [Operation::Reset]);
    assert_eq!(guest.endpoint.statistics().connections, 0);
    // A half-closed one may stay: its peer still listens.
    connect(&mut guest, 1, 20);
    guest.deliver(Header { flags: SHUTDOWN_SEND, ..from_host(1, 20, Operation::Shutdown, 0) }, &[]);
    guest.now = guest.now.after(100_000);
    assert!(guest.run().is_empty());
}

#[test]
fn more_than_the_window_is_a_reset() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 20);
    let len = BASE_WINDOW as usize;
    assert!(guest.deliver(from_host(1, 20, Operation::Data, len), &vec![1; len]).is_empty());
    let sent = guest.deliver(from_host(1, 20, Operation::Data, 1), &[1]);
    assert_eq!(operations(&sent), [Operation::Reset]);
    assert_eq!(guest.endpoint.statistics().overruns, 1);
}

#[test]
fn a_request_for_credit_is_answered_when_there_is_some() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 20);
    let sent = guest.deliver(from_host(1, 20, Operation::CreditRequest, 0), &[]);
    assert_eq!(operations(&sent), [Operation::CreditUpdate]);
    let len = BASE_WINDOW as usize;
    guest.deliver(from_host(1, 20, Operation::Data, len), &vec![1; len]);
    let sent = guest.deliver(from_host(1, 20, Operation::CreditRequest, 0), &[]);
    assert!(sent.is_empty(), "there is none, and saying so would be asked for again");
}

#[test]
fn a_peer_that_comes_back_with_the_same_port_gets_a_new_connection() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 20);
    guest.deliver(from_host(1, 20, Operation::Data, 3), b"old");
    connect(&mut guest, 1, 20);
    assert_eq!(guest.servers.ended, 1);
    assert_eq!(guest.endpoint.statistics().connections, 1);
}

#[test]
fn a_transport_reset_ends_all_connections() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    for port in 0..10 {
        connect(&mut guest, port, 20);
    }
    guest.endpoint.transport_reset(Cid(9));
    assert!(guest.run().is_empty());
    assert_eq!(guest.servers.ended, 10);
    assert_eq!(guest.endpoint.statistics().connections, 0);
    assert!(guest.deliver(from_host(1, 20, Operation::Request, 0), &[]).is_empty());
    let mut request = from_host(1, 20, Operation::Request, 0);
    request.destination.cid = Cid(9);
    assert_eq!(operations(&guest.deliver(request, &[])), [Operation::Response]);
}

#[test]
fn slow_receivers_hold_up_nobody_and_all_sources_get_their_turn() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS);
    // Ten whose peers never give credit again, ten whose peers give plenty.
    for port in 0..20 {
        let mut request = from_host(port, 19, Operation::Request, 0);
        request.buf_alloc = if port < 10 { 1000 } else { 1 << 30 };
        guest.device.deliver(request, &[]);
        guest.poll();
        while guest.device.complete().is_some() {}
    }
    let mut received: HashMap<u32, usize> = HashMap::new();
    for _ in 0..2000 {
        guest.poll();
        // The device is slow: one packet at a time.
        if let Some((header, payload)) = guest.device.complete() {
            *received.entry(header.destination.port.0).or_default() += payload.len();
        }
    }
    let fast: Vec<usize> = (10..20).map(|port| received[&port]).collect();
    let (least, most) = (fast.iter().min().unwrap(), fast.iter().max().unwrap());
    assert!(most < &(least * 2), "unfair: {fast:?}");
}

#[test]
fn what_servers_could_not_send_yet_is_not_drained() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS);
    let mut request = from_host(1, 19, Operation::Request, 0);
    request.buf_alloc = 10 * PAYLOAD as u32;
    guest.device.deliver(request, &[]);
    let mut received = 0;
    let mut rounds = 0;
    loop {
        while guest.poll() == Next::Now {}
        // The device is done with everything at once, and all buffers are back.
        while let Some((_, payload)) = guest.device.complete() {
            received += payload.len();
        }
        if guest.endpoint.is_drained(&mut guest.device) {
            break;
        }
        rounds += 1;
    }
    assert_eq!(received, 10 * PAYLOAD);
    assert!(rounds >= 2, "four buffers held it all");
}

#[test]
fn resets_without_room_are_waited_for_asleep() {
    let mut guest = Guest::new(4, 2, BASE_CHUNKS);
    let mut port = 0;
    // Nobody takes what is sent: two are under way, and the others wait.
    while guest.device.has_room() {
        assert!(port < 1000, "no bound on what waits");
        guest.device.deliver(from_host(port, 1, Operation::Data, 0), &[]);
        guest.poll();
        port += 1;
    }
    assert_eq!(guest.poll(), Next::Event);
    assert!(guest.device.has_news());
    assert!(!guest.endpoint.has_news(&guest.device) && !guest.endpoint.listen(&guest.device));
    assert!(!guest.endpoint.is_drained(&mut guest.device));
    // With room it goes on, and every packet has its answer.
    let mut answers = 0;
    while guest.device.complete().is_some() {
        answers += 1;
        while guest.poll() == Next::Now {}
    }
    assert!(!guest.device.has_news());
    assert_eq!(answers, port);
    assert!(guest.endpoint.is_drained(&mut guest.device));
}

#[test]
fn a_busy_server_does_not_keep_others_waiting() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS);
    for port in 0..3 {
        guest.device.deliver(from_host(port, 22, Operation::Request, 0), &[]);
        assert_eq!(guest.poll(), Next::Now);
    }
    guest.device.deliver(from_host(5, 7, Operation::Request, 0), &[]);
    guest.poll();
    guest.device.deliver(from_host(5, 7, Operation::Data, 4), b"ping");
    guest.poll();
    assert_eq!(guest.device.sent.back().unwrap().1, b"ping");
}

#[test]
fn counters_turn_over_and_the_bytes_go_on() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS + 1024);
    let mut alloc = connect(&mut guest, 1, 9)[0].0.buf_alloc;
    let payload = vec![7; PAYLOAD];
    let (mut sent, mut forwarded) = (0u64, 0u32);
    // Beyond 4 GiB twice.
    while sent < 9 << 30 {
        let free = alloc - (sent as u32).wrapping_sub(forwarded);
        assert!(free > 0, "no credit after {sent} bytes");
        let n = PAYLOAD.min(free as usize);
        guest.device.deliver(from_host(1, 9, Operation::Data, n), &payload[..n]);
        sent += n as u64;
        guest.poll();
        while let Some((header, _)) = guest.device.complete() {
            assert_eq!(header.operation, Operation::CreditUpdate as u16);
            (alloc, forwarded) = (header.buf_alloc, header.fwd_cnt);
        }
    }
    assert_eq!(alloc, MAX_WINDOW);
    guest.device.deliver(Header { flags: SHUTDOWN_SEND, ..from_host(1, 9, Operation::Shutdown, 0) }, &[]);
    let answer = guest.run();
    assert_eq!(answer[0].1, sent.to_le_bytes());
}

#[test]
fn windows_grow_only_from_what_is_spare() {
    let mut guest = Guest::new(4, 8, BASE_CHUNKS + 4);
    connect(&mut guest, 1, 9);
    let mut forwarded = 0;
    let mut alloc = BASE_WINDOW;
    for _ in 0..100 {
        for (header, _) in guest.deliver(from_host(1, 9, Operation::Data, 4096), &[0; 4096]) {
            (alloc, forwarded) = (header.buf_alloc, header.fwd_cnt);
        }
    }
    assert!(forwarded > 0);
    assert!(alloc > BASE_WINDOW && alloc <= BASE_WINDOW + 4 * CHUNK as u32, "{alloc}");
    for port in 10..10 + MAX_CONNECTIONS as u32 - 1 {
        connect(&mut guest, port, 7);
    }
}

/// A peer's end of one connection, which keeps to the protocol.
struct Peer {
    port: u32,
    to: u32,
    accepted: bool,
    to_send: Vec<u8>,
    sent: usize,
    guest_alloc: u32,
    guest_forwarded: u32,
    received: Vec<u8>,
    /// How much of it was taken from the buffer.
    forwarded: usize,
    told: usize,
    alloc: u32,
    finished: bool,
    closed: bool,
}

impl Peer {
    fn header(&mut self, operation: Operation, len: usize) -> Header {
        self.told = self.forwarded;
        Header {
            buf_alloc: self.alloc,
            fwd_cnt: self.forwarded as u32,
            ..from_host(self.port, self.to, operation, len)
        }
    }

    fn credit(&self) -> usize {
        (self.guest_alloc - (self.sent as u32).wrapping_sub(self.guest_forwarded)) as usize
    }

    fn take(&mut self, device: &mut Fake, header: &Header, payload: &[u8]) {
        self.guest_alloc = header.buf_alloc;
        self.guest_forwarded = header.fwd_cnt;
        match Operation::from_number(header.operation).unwrap() {
            Operation::Response => self.accepted = true,
            Operation::Data => {
                self.received.extend(payload);
                let unread = self.received.len() - self.forwarded;
                assert!(unread <= self.alloc as usize, "the guest overran the peer's buffer");
            }
            Operation::CreditRequest => {
                let header = self.header(Operation::CreditUpdate, 0);
                device.deliver(header, &[]);
            }
            Operation::Shutdown => {
                assert_eq!(self.forwarded, self.received.len(), "shut down while bytes were held");
                let header = self.header(Operation::Reset, 0);
                device.deliver(header, &[]);
                self.closed = true;
            }
            Operation::Reset => panic!("reset by the guest"),
            Operation::CreditUpdate => {}
            other => panic!("the guest sent {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Several connections to the echo server: every byte comes back, in order, once,
    /// whatever the sizes, the buffers and the order of things.
    #[test]
    fn every_byte_comes_back(
        lengths in prop::collection::vec(0usize..200_000, 1..6),
        alloc in prop_oneof![Just(1u32), 2..5000u32, Just(65536)],
        buffers in 1usize..6,
        controls in 1usize..4,
        spare in 0usize..100,
        seed: u64,
    ) {
        let mut guest = Guest::new(buffers, controls, BASE_CHUNKS + spare);
        let alloc = if lengths.iter().any(|n| *n > 20_000) { alloc.max(500) } else { alloc };
        let mut peers: Vec<Peer> = lengths.iter().enumerate().map(|(i, n)| Peer {
            port: 100 + i as u32,
            to: 7,
            accepted: false,
            to_send: (0..*n).map(|j| (j * 7 + i) as u8).collect(),
            sent: 0,
            guest_alloc: 0,
            guest_forwarded: 0,
            received: Vec::new(),
            forwarded: 0,
            told: 0,
            alloc,
            finished: false,
            closed: false,
        }).collect();
        let mut random = seed | 1;
        let mut next = move |n: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 16) as usize % n
        };
        for peer in &mut peers {
            guest.device.deliver(peer.header(Operation::Request, 0), &[]);
            guest.poll();
        }
        for step in 0.. {
            prop_assert!(step < 2_000_000, "stalled");
            if peers.iter().all(|peer| peer.closed) {
                break;
            }
            guest.now = guest.now.after(1);
            match next(4) {
                0 => { guest.poll(); }
                1 => {
                    let room = guest.device.has_room();
                    if room && let Some((header, payload)) = guest.device.complete() {
                        let peer = peers.iter_mut().find(|p| p.port == header.destination.port.0).unwrap();
                        peer.take(&mut guest.device, &header, &payload);
                    }
                }
                2 => {
                    let i = next(peers.len());
                    let peer = &mut peers[i];
                    let unread = peer.received.len() - peer.forwarded;
                    peer.forwarded += next(unread + 1).max(unread.min(100));
                    let news = peer.forwarded - peer.told;
                    if news > alloc as usize / 2 && guest.device.has_room() && !peer.closed {
                        guest.device.deliver(peer.header(Operation::CreditUpdate, 0), &[]);
                    }
                }
                _ => {
                    let i = next(peers.len());
                    let peer = &mut peers[i];
                    if !peer.accepted || peer.finished || !guest.device.has_room() {
                        continue;
                    }
                    let left = peer.to_send.len() - peer.sent;
                    let most = left.min(peer.credit()).min(PAYLOAD);
                    if left == 0 {
                        peer.finished = true;
                        let header = Header { flags: SHUTDOWN_SEND, ..peer.header(Operation::Shutdown, 0) };
                        guest.device.deliver(header, &[]);
                    } else if most > 0 {
                        let n = if next(3) == 0 { 1 } else { next(most) + 1 };
                        let bytes = peer.to_send[peer.sent..peer.sent + n].to_vec();
                        guest.device.deliver(peer.header(Operation::Data, n), &bytes);
                        peer.sent += n;
                    }
                }
            }
        }
        guest.run();
        for peer in &peers {
            prop_assert!(peer.received == peer.to_send, "port {} differs", peer.port);
        }
        let statistics = guest.endpoint.statistics();
        prop_assert_eq!(statistics.connections, 0);
        prop_assert_eq!(statistics.resets, 0);
        prop_assert_eq!(statistics.chunks_unreserved, (BASE_CHUNKS + spare) as u64);
    }

    /// Whatever packets come, nothing panics, no buffer is lost, and a new client is served.
    #[test]
    fn garbage_ends_at_worst_the_connection_that_it_names(
        packets in prop::collection::vec(
            (
                (prop_oneof![Just(5u64), any::<u64>()], prop_oneof![Just(2u64), any::<u64>()]),
                (0..4u32, prop_oneof![Just(7u32), Just(9), Just(19), Just(20), Just(21), 0..30u32]),
                prop_oneof![Just(0u32), 0..5000u32, Just(65536), any::<u32>()],
                (prop_oneof![9 => Just(1u16), 1 => any::<u16>()], prop_oneof![9 => 0..8u16, 1 => any::<u16>()]),
                (0..4u32, prop_oneof![Just(0u32), 0..100_000u32, any::<u32>()], any::<u32>()),
                prop_oneof![Just(None), (0..70_000usize).prop_map(Some)],
                0..20_000u64,
            ),
            1..120,
        ),
    ) {
        let mut guest = Guest::new(3, 3, BASE_CHUNKS + 20);
        for (cids, ports, len, (kind, operation), (flags, buf_alloc, fwd_cnt), written, wait) in packets {
            let header = Header {
                source: Address { cid: Cid(cids.1), port: Port(ports.0) },
                destination: Address { cid: Cid(cids.0), port: Port(ports.1) },
                len, kind, operation, flags, buf_alloc, fwd_cnt,
            };
            let buffer = guest.device.receive.pop().unwrap();
            header.encode(buffer.header);
            let written = written.unwrap_or(HEADER_LEN + len as usize % 100_000);
            guest.device.arrived.push_back(Packet { buffer, written });
            guest.now = guest.now.after(wait);
            // Busy servers never rest, sources without end neither.
            for _ in 0..4 {
                guest.poll();
                guest.device.complete();
                guest.device.complete();
            }
        }
        while guest.device.complete().is_some() {}
        for _ in 0..40 {
            guest.poll();
            while guest.device.complete().is_some() {}
        }
        guest.device.deliver(from_host(4242, 7, Operation::Request, 0), &[]);
        guest.poll();
        guest.device.deliver(from_host(4242, 7, Operation::Data, 4), b"ping");
        guest.poll();
        let mut seen = Vec::new();
        while let Some((header, payload)) = guest.device.complete() {
            if header.destination.port == Port(4242) {
                seen.push((header, payload));
            }
        }
        prop_assert_eq!(operations(&seen), [Operation::Response, Operation::Data]);
        prop_assert_eq!(&seen[1].1, b"ping");
    }
}

#[test]
fn a_direction_the_peer_will_not_receive_in_is_not_an_end_of_the_other() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 9);
    guest.deliver(Header { flags: SHUTDOWN_RECEIVE, ..from_host(1, 9, Operation::Shutdown, 0) }, &[]);
    assert!(guest.deliver(from_host(1, 9, Operation::Data, 5), b"hello").is_empty());
    assert_eq!(guest.endpoint.statistics().bytes_in, 5);
}

#[test]
fn a_server_that_cannot_send_to_a_dead_client_is_ended_soon() {
    let mut guest = Guest::new(4, 4, BASE_CHUNKS);
    connect(&mut guest, 1, 19);
    guest.deliver(Header { flags: SHUTDOWN_BOTH, ..from_host(1, 19, Operation::Shutdown, 0) }, &[]);
    guest.now = guest.now.after(900);
    assert!(guest.run().is_empty());
    guest.now = guest.now.after(200);
    assert_eq!(operations(&guest.run()), [Operation::Reset]);
    assert_eq!(guest.servers.ended, 1);
}
