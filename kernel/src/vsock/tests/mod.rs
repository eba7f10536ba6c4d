//! The endpoint against simulated peers, over a device that loses nothing and is in no hurry.

mod connections;
mod peer;

use super::packet::{Operation, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};
use super::pool::test_pool;
use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};
use umbra_fs::Block;
use umbra_server::stream::send;
use umbra_server::{Progress, Stream};

const GUEST: Cid = Cid(5);
const HOST: Cid = Cid(2);

fn buffer() -> Buffer {
    let payload = vec![0xA5u8; PAYLOAD].into_boxed_slice();
    let payload = Box::leak(payload).as_mut_array().unwrap();
    Buffer { header: Box::leak(Box::new([0; HEADER_LEN])), payload, blocks: None }
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
    wants_blocks: bool,
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
            wants_blocks: false,
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
        assert_eq!(
            self.receive.len() + self.arrived.len(),
            self.total,
            "a receive buffer was lost"
        );
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
    fn want_blocks(&mut self) {
        self.wants_blocks = true;
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
    /// 23: consumes 5,000 bytes at a time, and asks where they are.
    Keeper,
}

#[derive(Default)]
struct Servers {
    /// Servers that were polled with their connection closed.
    ended: usize,
    /// What the largest `available` was.
    most: usize,
    /// The room that there was for each connection that came.
    vacancies: Vec<Vacancy>,
    /// Where pieces were, and how long.
    pieces: Vec<(Option<Block>, usize)>,
}

impl Handler for Servers {
    type Server = Server;

    fn accept(&mut self, port: Port, _peer: Address, vacancy: Vacancy) -> Option<Server> {
        self.vacancies.push(vacancy);
        Some(match port.0 {
            7 => Server::Echo,
            9 => Server::Discard { total: 0, answered: 0 },
            19 => Server::Source,
            20 => Server::Stuck,
            21 => Server::Hello,
            22 => Server::Busy,
            23 => Server::Keeper,
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
            Server::Keeper => {
                while stream.available() > 0 {
                    let block = stream.received_in();
                    self.pieces.push((block, stream.received().len()));
                    stream.consume(5000.min(stream.received().len()));
                }
            }
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
