//! The state machine of a connection.

use super::begin::begin;
use super::failure::Failure;
use super::operating::STEP_COST;
use super::session::{Request, Session, Step};
use super::work::Work;
use crate::nbd::clients::Clients;
use crate::platform::{Platform, Turn};
use crate::service::{Service, Shared};
use crate::stream::{Progress, Stream, take};
use alloc::vec::Vec;
use umbra_fs::memory::{reset, with_room};
use umbra_proto::rpc::{ERROR, ErrorCode, HEADER_LEN, Header, Method};

/// What one poll may cost, counted in bytes moved.
const TURN: usize = 128 << 10;
/// What a request costs beside the bytes that it moves.
const REQUEST_COST: usize = 8 << 10;
/// Every connection has a buffer for bodies of this size from its start; a larger one is given back
/// after use.
const KEPT_BODY: usize = 1 << 10;

/// What a connection takes, beside its buffers, is little of what the kernel keeps for one.
const _: () = assert!(size_of::<Rpc>() <= 512);

/// The service of one connection.
#[derive(Default)]
pub struct Rpc {
    state: State,
    header: [u8; HEADER_LEN],
    have: usize,
    body: Vec<u8>,
    session: Session,
    known: bool,
}

/// What comes next. See the picture in the parent module.
///
/// The work of a request lies in here, so that it takes no memory of its own.
#[allow(clippy::large_enum_variant)]
#[derive(Default)]
enum State {
    #[default]
    Header,
    Body,
    Work(Work),
    Skip,
    Ending,
    Ended,
}

/// How a turn ended.
enum Moved {
    Wait,
    Went(usize),
}

impl Rpc {
    fn turn<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
        clients: &mut Clients,
    ) -> Moved {
        if !matches!(self.state, State::Ended) && !self.session.out.flush(stream) {
            return Moved::Wait;
        }
        match &mut self.state {
            State::Header => self.read_header(stream, machine),
            State::Body => self.read_body(stream, machine, clients),
            State::Work(work) => match work.step(&mut self.session, stream, machine) {
                Ok(Step::Wait) => self.wait(stream),
                Ok(Step::Went(cost)) => Moved::Went(cost),
                Ok(Step::Park) => Moved::Went(TURN),
                Ok(Step::Done) => self.go(State::Skip, 0),
                Err(failure) => self.fail_in(failure, State::Skip, machine, clients),
            },
            State::Skip => {
                let request = &mut self.session.request;
                let n = stream.available().min(request.payload_left as usize);
                stream.consume(n);
                request.payload_left -= n as u32;
                if request.payload_left > 0 { self.wait(stream) } else { self.go(State::Header, 0) }
            }
            State::Ending => {
                if self.session.close_some(machine) {
                    return Moved::Went(STEP_COST);
                }
                stream.close();
                self.go(State::Ended, 0)
            }
            State::Ended => Moved::Wait,
        }
    }

    fn go(&mut self, next: State, cost: usize) -> Moved {
        self.state = next;
        Moved::Went(cost)
    }

    /// Waits for more of a frame; if the client said that nothing more comes, ends.
    fn wait(&mut self, stream: &dyn Stream) -> Moved {
        let missing = match self.state {
            State::Header => HEADER_LEN - self.have,
            State::Body => self.session.request.header.body() as usize - self.body.len(),
            _ => self.session.request.payload_left as usize,
        };
        if stream.finished() && stream.available() < missing {
            return self.go(State::Ending, 0);
        }
        Moved::Wait
    }

    fn fail<M: Platform>(&mut self, failure: Failure, next: State, machine: &mut M) -> Moved {
        machine.counters().errors += 1;
        self.session.reply(ERROR, &failure.body());
        self.go(next, 0)
    }

    /// As [`fail`](Self::fail), where the file may be in use.
    fn fail_in<M: Platform>(
        &mut self,
        mut failure: Failure,
        next: State,
        machine: &mut M,
        clients: &Clients,
    ) -> Moved {
        failure.name_users(clients);
        self.fail(failure, next, machine)
    }

    fn read_header<M: Platform>(&mut self, stream: &mut dyn Stream, machine: &mut M) -> Moved {
        self.have += take(stream, &mut self.header[self.have..]);
        if self.have < HEADER_LEN {
            return self.wait(stream);
        }
        self.have = 0;
        let header = Header::decode(&self.header);
        self.session.request = Request { header, payload_left: header.payload };
        let counters = machine.counters();
        counters.requests += 1;
        counters.turns.is_for(Turn::Rpc(Method(header.method)));
        if !self.session.greeted && header.method != Method::HELLO.0 {
            let message = format_args!("the first request must be a hello");
            return self.fail(Failure::new(ErrorCode::NO_HELLO, message), State::Ending, machine);
        }
        if let Err(e) = header.check_request() {
            return self.fail(e.into(), State::Ending, machine);
        }
        self.body.clear();
        let body = header.body() as usize;
        let room = body.saturating_sub(self.body.capacity());
        let has_memory = room == 0 || machine.has_memory(body);
        if !has_memory || self.body.try_reserve_exact(body).is_err() {
            // The body is skipped with the payload.
            self.session.request.payload_left += header.body();
            let next = if self.session.greeted { State::Skip } else { State::Ending };
            return self.fail(Failure::no_memory("take in the request"), next, machine);
        }
        self.go(State::Body, 0)
    }

    #[allow(clippy::disallowed_methods, reason = "room for the body was reserved with its header")]
    fn read_body<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
        clients: &mut Clients,
    ) -> Moved {
        let len = self.session.request.header.body() as usize;
        while self.body.len() < len {
            let piece = stream.received();
            let n = piece.len().min(len - self.body.len());
            if n == 0 {
                return self.wait(stream);
            }
            self.body.extend_from_slice(&piece[..n]);
            stream.consume(n);
        }
        let result = begin(&mut self.session, &self.body, machine, clients);
        reset(&mut self.body, KEPT_BODY);
        match result {
            Ok(Some(work)) => self.go(State::Work(work), REQUEST_COST),
            Ok(None) => self.go(State::Skip, REQUEST_COST),
            Err(failure) => {
                // Two who do not agree on what they speak have nothing more to say.
                let hello = self.session.request.header.method == Method::HELLO.0;
                let next = if hello { State::Ending } else { State::Skip };
                self.fail_in(failure, next, machine, clients);
                Moved::Went(REQUEST_COST)
            }
        }
    }

    /// The connection is gone: gives back what it held. False if there was nothing left.
    fn give_back<M: Platform>(&mut self, machine: &mut M) -> bool {
        if let State::Work(work) = core::mem::replace(&mut self.state, State::Ended) {
            work.abandon(machine);
        }
        if self.session.close_some(machine) {
            return true;
        }
        if core::mem::take(&mut self.known) {
            let counters = machine.counters();
            counters.connections = counters.connections.saturating_sub(1);
        }
        false
    }
}

impl<M: Platform> Service<M> for Rpc {
    fn poll(&mut self, stream: &mut dyn Stream, machine: &mut M, shared: &mut Shared) -> Progress {
        if stream.is_closed() {
            return if self.give_back(machine) { Progress::Again } else { Progress::Wait };
        }
        if !core::mem::replace(&mut self.known, true) {
            // Whoever let the connection in has seen that there is memory. If not even this is
            // there, the client cannot be told.
            let prepared = self.session.out.prepare().and_then(|()| with_room(KEPT_BODY));
            match prepared {
                Ok(body) => self.body = body,
                Err(_) => {
                    stream.close();
                    self.state = State::Ended;
                }
            }
            let counters = machine.counters();
            counters.connections += 1;
            counters.connections_total += 1;
        }
        let mut spent = 0;
        if !matches!(self.state, State::Header) {
            let method = Method(self.session.request.header.method);
            machine.counters().turns.is_for(Turn::Rpc(method));
        }
        while spent < TURN {
            match self.turn(stream, machine, &mut shared.clients) {
                Moved::Wait => return Progress::Wait,
                Moved::Went(cost) => spent += cost,
            }
        }
        Progress::Again
    }
}
