//! The state machine of a connection.

use super::begin::begin;
use super::content;
use super::failure::Failure;
use super::handles::{Handles, OpenFile};
use super::listing::Listing;
use super::names::{Directories, Emptying};
use super::naming::Naming;
use super::operating::{Operating, STEP_COST};
use super::output::Output;
use super::sharing::Sharing;
use super::transfer::Transfer;
use crate::nbd::clients::Clients;
use crate::platform::{Platform, Turn as Whole};
use crate::service::{Service, Shared};
use crate::stream::{Progress, Stream, take};
use alloc::boxed::Box;
use alloc::vec::Vec;
use minicbor::Encode;
use umbra_fs::{Begun, Operation, PageCount};
use umbra_proto::rpc::{self, ERROR, ErrorCode, HEADER_LEN, Header, Method};

/// What one poll may cost, counted in bytes moved.
const TURN: usize = 128 << 10;
/// What a request costs beside the bytes that it moves.
const REQUEST_COST: usize = 8 << 10;
/// Every connection has a buffer for bodies of this size from its start; a larger one is given back
/// after use.
const KEPT_BODY: usize = 1 << 10;

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

/// What requests see of their connection.
#[derive(Default)]
pub(super) struct Session {
    /// The request that is being handled.
    pub request: Request,
    /// The frame that is being sent.
    pub out: Output,
    /// Open files.
    pub handles: Handles,
    /// A file that is being closed, since the connection ends.
    closing: Option<Operation>,
    /// Whether the first request was a hello.
    pub greeted: bool,
}

/// A request that is being handled.
pub(super) struct Request {
    /// Its header.
    pub header: Header,
    /// Bytes of its payload that were not consumed yet.
    pub payload_left: u32,
}

impl Default for Request {
    fn default() -> Self {
        Request { header: Header::request(0, 0, 0, 0), payload_left: 0 }
    }
}

/// What comes next. See the picture in the parent module.
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

/// A request that takes more than one step.
pub(super) enum Work {
    /// Bytes between a file and the stream.
    Transfer(Transfer),
    /// An answer of many items.
    Listing(Listing),
    /// A dedupe.
    Sharing(Box<Sharing>),
    /// A directory that is removed, or replaced.
    Emptying(Emptying),
    /// The pages of a file.
    Pages(Box<PageCount>),
    /// Directories, those above them too.
    Directories(Directories),
    /// A name for a file that is made durable first.
    Naming(Box<Naming>),
    /// Anything else that may be large.
    Operation(Box<Operating>),
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing can be done until the stream has something new.
    Wait,
    /// Something was done, for this many bytes' worth of time; there is more.
    Went(usize),
    /// Others have to get on first: to be tried again after their turn.
    Park,
    /// The answer is complete.
    Done,
}

impl Session {
    /// Answers the request (or with `MORE` in `flags`, a part of it).
    pub fn reply<T: Encode<()>>(&mut self, flags: u16, body: &T) {
        match rpc::encode_into(body, self.out.room()) {
            Some(len) => self.out.start(self.request.header.response(flags, len as u32, 0)),
            // No body that is sent through here comes near the room; were there one, its client
            // must not wait forever.
            None => {
                debug_assert!(
                    false,
                    "the body of method {} does not fit",
                    self.request.header.method
                );
                self.out.start(self.request.header.response(ERROR, 0, 0));
            }
        }
    }

    /// Takes a step of closing all that is open, whose client is gone: nobody is left to be told of
    /// an error. False: nothing is open.
    fn close_some<M: Platform>(&mut self, machine: &mut M) -> bool {
        if let Some(operation) = &mut self.closing {
            if !matches!(machine.volume(|v| v.step(operation)), Ok(None)) {
                self.closing = None;
            }
            return true;
        }
        let Some(file) = self.handles.pop() else { return false };
        let counters = machine.counters();
        counters.handles = counters.handles.saturating_sub(1);
        if let Ok(Begun::GoesOn(operation)) = machine.volume(|v| v.begin_close(file.window)) {
            self.closing = Some(operation);
        }
        true
    }

    /// The open file of a handle.
    pub fn file(&self, handle: u32) -> Result<OpenFile, Failure> {
        self.handles.get(handle)
    }

    /// The open file of a handle through which it is to be changed.
    pub fn file_to_change(&self, handle: u32) -> Result<OpenFile, Failure> {
        self.handles.get_to_change(handle)
    }
}

/// How a turn ended.
enum Turn {
    Wait,
    Went(usize),
}

impl Rpc {
    fn turn<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
        clients: &mut Clients,
    ) -> Turn {
        if !matches!(self.state, State::Ended) && !self.session.out.flush(stream) {
            return Turn::Wait;
        }
        match &mut self.state {
            State::Header => self.read_header(stream, machine),
            State::Body => self.read_body(stream, machine, clients),
            State::Work(work) => {
                let step = match work {
                    Work::Transfer(t) => t.step(&mut self.session, stream, machine),
                    Work::Listing(l) => l.step(&mut self.session, machine),
                    Work::Sharing(d) => d.step(&mut self.session, machine),
                    Work::Emptying(e) => e.step(&mut self.session, machine),
                    Work::Pages(p) => content::pages_step(&mut self.session, machine, p),
                    Work::Directories(d) => d.step(&mut self.session, machine),
                    Work::Naming(n) => n.step(&mut self.session, machine),
                    Work::Operation(o) => o.step(&mut self.session, machine),
                };
                match step {
                    Ok(Step::Wait) => self.wait(stream),
                    Ok(Step::Went(cost)) => Turn::Went(cost),
                    Ok(Step::Park) => Turn::Went(TURN),
                    Ok(Step::Done) => self.go(State::Skip, 0),
                    Err(failure) => self.fail_in(failure, State::Skip, machine, clients),
                }
            }
            State::Skip => {
                let request = &mut self.session.request;
                let n = stream.available().min(request.payload_left as usize);
                stream.consume(n);
                request.payload_left -= n as u32;
                if request.payload_left > 0 { self.wait(stream) } else { self.go(State::Header, 0) }
            }
            State::Ending => {
                if self.session.close_some(machine) {
                    return Turn::Went(STEP_COST);
                }
                stream.close();
                self.go(State::Ended, 0)
            }
            State::Ended => Turn::Wait,
        }
    }

    fn go(&mut self, next: State, cost: usize) -> Turn {
        self.state = next;
        Turn::Went(cost)
    }

    /// Waits for more of a frame; if the client said that nothing more comes, ends.
    fn wait(&mut self, stream: &dyn Stream) -> Turn {
        let missing = match self.state {
            State::Header => HEADER_LEN - self.have,
            State::Body => self.session.request.header.body() as usize - self.body.len(),
            _ => self.session.request.payload_left as usize,
        };
        if stream.finished() && stream.available() < missing {
            return self.go(State::Ending, 0);
        }
        Turn::Wait
    }

    fn fail<M: Platform>(&mut self, failure: Failure, next: State, machine: &mut M) -> Turn {
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
    ) -> Turn {
        failure.name_users(clients);
        self.fail(failure, next, machine)
    }

    fn read_header<M: Platform>(&mut self, stream: &mut dyn Stream, machine: &mut M) -> Turn {
        self.have += take(stream, &mut self.header[self.have..]);
        if self.have < HEADER_LEN {
            return self.wait(stream);
        }
        self.have = 0;
        let header = Header::decode(&self.header);
        self.session.request = Request { header, payload_left: header.payload };
        let counters = machine.counters();
        counters.requests += 1;
        counters.turns.is_for(Whole::Rpc(Method(header.method)));
        if !self.session.greeted && header.method != Method::HELLO.0 {
            let message = format_args!("the first request must be a hello");
            return self.fail(Failure::new(ErrorCode::NO_HELLO, message), State::Ending, machine);
        }
        if let Err(e) = header.check_request() {
            return self.fail(e.into(), State::Ending, machine);
        }
        self.body.clear();
        let body = header.body() as usize;
        if body > self.body.capacity() && !machine.has_memory(body) {
            // The body is skipped with the payload.
            self.session.request.payload_left += header.body();
            let next = if self.session.greeted { State::Skip } else { State::Ending };
            return self.fail(Failure::no_memory("take in the request"), next, machine);
        }
        self.body.reserve_exact(body);
        self.go(State::Body, 0)
    }

    fn read_body<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
        clients: &mut Clients,
    ) -> Turn {
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
        if self.body.capacity() > KEPT_BODY {
            self.body = Vec::with_capacity(KEPT_BODY);
        }
        match result {
            Ok(Some(work)) => self.go(State::Work(work), REQUEST_COST),
            Ok(None) => self.go(State::Skip, REQUEST_COST),
            Err(failure) => {
                // Two who do not agree on what they speak have nothing more to say.
                let hello = self.session.request.header.method == Method::HELLO.0;
                let next = if hello { State::Ending } else { State::Skip };
                self.fail_in(failure, next, machine, clients);
                Turn::Went(REQUEST_COST)
            }
        }
    }

    /// The connection is gone: gives back what it held. False if there was nothing left.
    fn give_back<M: Platform>(&mut self, machine: &mut M) -> bool {
        match core::mem::replace(&mut self.state, State::Ended) {
            State::Work(Work::Operation(operation)) => operation.abandon(machine),
            State::Work(Work::Sharing(sharing)) => sharing.abandon(machine),
            State::Work(Work::Naming(naming)) => naming.abandon(machine),
            State::Work(Work::Listing(listing)) => listing.abandon(machine),
            _ => {}
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
            // Whoever let the connection in has seen that there is memory.
            self.body.reserve_exact(KEPT_BODY);
            self.session.out.room();
            let counters = machine.counters();
            counters.connections += 1;
            counters.connections_total += 1;
        }
        let mut spent = 0;
        if !matches!(self.state, State::Header) {
            let method = Method(self.session.request.header.method);
            machine.counters().turns.is_for(Whole::Rpc(method));
        }
        while spent < TURN {
            match self.turn(stream, machine, &mut shared.clients) {
                Turn::Wait => return Progress::Wait,
                Turn::Went(cost) => spent += cost,
            }
        }
        Progress::Again
    }
}
