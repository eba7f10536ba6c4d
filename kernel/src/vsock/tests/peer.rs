//! A peer that keeps the rules, and one that sends garbage, in any order of events.

use super::*;

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
                        let port = header.destination.port.0;
                        let peer = peers.iter_mut().find(|p| p.port == port).unwrap();
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
                        let header = peer.header(Operation::Shutdown, 0);
                        let header = Header { flags: SHUTDOWN_SEND, ..header };
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
                (
                    prop_oneof![9 => Just(1u16), 1 => any::<u16>()],
                    prop_oneof![9 => 0..8u16, 1 => any::<u16>()],
                ),
                (0..4u32, prop_oneof![Just(0u32), 0..100_000u32, any::<u32>()], any::<u32>()),
                prop_oneof![Just(None), (0..70_000usize).prop_map(Some)],
                0..20_000u64,
            ),
            1..120,
        ),
    ) {
        let mut guest = Guest::new(3, 3, BASE_CHUNKS + 20);
        for packet in packets {
            let (cids, ports, len, (kind, operation), rest, written, wait) = packet;
            let (flags, buf_alloc, fwd_cnt) = rest;
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
