//! A connection without a network: a stream over two rings, a client beside it, and machines.
#![allow(dead_code)]

pub mod bare;
pub mod exports;
pub mod files;
pub mod nbd;

use umbra_proto::rpc::{self, HEADER_LEN, Header};
use umbra_server::rpc::Rpc;
use umbra_server::testing::{Keeper, Wire, poll};
use umbra_server::{Progress, Stream};

/// A response, put together from its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub id: u32,
    pub method: u16,
    pub failed: bool,
    /// The body of each frame.
    pub bodies: Vec<Vec<u8>>,
    pub payload: Vec<u8>,
}

impl Response {
    pub fn error(&self) -> rpc::ErrorBody {
        assert!(self.failed, "{self:?}");
        rpc::decode(self.bodies.last().unwrap()).unwrap()
    }
    pub fn body<T: for<'b> minicbor::Decode<'b, ()>>(&self) -> T {
        assert!(!self.failed, "{:?}", self.error());
        assert_eq!(self.bodies.len(), 1);
        rpc::decode(&self.bodies[0]).unwrap()
    }
    pub fn items<T: for<'b> minicbor::Decode<'b, ()>>(&self) -> Vec<T> {
        assert!(!self.failed, "{:?}", self.error());
        self.bodies.iter().flat_map(|b| rpc::decode::<rpc::Items<T>>(b).unwrap().items).collect()
    }
}

/// The bytes of a request.
pub fn request<R: rpc::Request>(id: u32, body: &R, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    rpc::encode_append(body, &mut bytes);
    let header = Header::request(id, R::METHOD.0, bytes.len() as u32, payload.len() as u32);
    [&header.encode(), &bytes[..], payload].concat()
}

/// The bytes of the usual hello, with id 0.
pub fn hello() -> Vec<u8> {
    request(0, &rpc::Hello { magic: rpc::MAGIC, version: 1, features: 0, client: None }, &[])
}

/// Takes whole responses off the front of what was received; panics at what is none.
pub fn parse(received: &mut Vec<u8>) -> Vec<Response> {
    let mut done: Vec<Response> = Vec::new();
    let mut open: Option<Response> = None;
    let (mut at, mut whole) = (0, 0);
    while let Some(head) = received.get(at..at + HEADER_LEN) {
        let header = Header::decode(head.try_into().unwrap());
        header.check_response().unwrap();
        let Some(rest) = received.get(at + HEADER_LEN..at + HEADER_LEN + header.length as usize)
        else {
            break;
        };
        at += HEADER_LEN + header.length as usize;
        let (body, payload) = rest.split_at(header.body() as usize);
        let r = open.get_or_insert_with(|| Response {
            id: header.id,
            method: header.method,
            failed: false,
            bodies: Vec::new(),
            payload: Vec::new(),
        });
        assert_eq!(
            (r.id, r.method),
            (header.id, header.method),
            "frames of two responses are mixed"
        );
        r.bodies.push(body.to_vec());
        r.payload.extend_from_slice(payload);
        r.failed = header.is_error();
        if !header.has_more() {
            done.extend(open.take());
            whole = at;
        } else {
            assert!(!header.is_error());
        }
    }
    received.drain(..whole);
    done
}

/// A connection: service, stream, and what its client received.
pub struct Connection {
    pub rpc: Rpc,
    pub wire: Wire,
    pub received: Vec<u8>,
    next_id: u32,
}

impl Connection {
    pub fn new(window: usize, ring: usize) -> Self {
        Connection {
            rpc: Rpc::default(),
            wire: Wire::new(window, ring),
            received: Vec::new(),
            next_id: 1,
        }
    }

    pub fn poll<M: Keeper>(&mut self, machine: &mut M) -> Progress {
        poll(&mut self.rpc, &mut self.wire, machine)
    }

    /// Sends bytes and reads answers, both as fast as the rings allow, until nothing moves.
    pub fn run<M: Keeper>(&mut self, machine: &mut M, mut bytes: &[u8]) {
        loop {
            let n = self.wire.to_server.push(bytes);
            bytes = &bytes[n..];
            let progress = self.poll(machine);
            let before = self.received.len();
            self.wire.to_client.pull(usize::MAX, &mut self.received);
            let idle = n == 0 && progress == Progress::Wait && before == self.received.len();
            if idle || self.wire.is_closed() {
                return;
            }
        }
    }

    /// Says hello.
    pub fn greet<M: Keeper>(&mut self, machine: &mut M) -> rpc::HelloResponse {
        self.run(machine, &hello());
        parse(&mut self.received).pop().unwrap().body()
    }

    /// One request with its response.
    pub fn call<M: Keeper, R: rpc::Request>(
        &mut self,
        machine: &mut M,
        body: &R,
        payload: &[u8],
    ) -> Response {
        let id = self.next_id;
        self.next_id += 1;
        self.run(machine, &request(id, body, payload));
        let mut responses = parse(&mut self.received);
        assert_eq!(responses.len(), 1, "{responses:?}");
        let response = responses.pop().unwrap();
        assert_eq!((response.id, response.method), (id, R::METHOD.0));
        response
    }

    /// One request that succeeds.
    pub fn ok<M: Keeper, R: rpc::Request>(&mut self, machine: &mut M, body: &R) -> R::Response {
        self.call(machine, body, &[]).body()
    }

    /// Lets the client vanish.
    pub fn vanish<M: Keeper>(&mut self, machine: &mut M) {
        self.wire.reset = true;
        while self.poll(machine) == Progress::Again {}
    }
}

/// A small generator of numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
