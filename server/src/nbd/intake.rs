//! Requests as they come in: which are allowed, and what they ask for.

use super::backing::{MOST_CACHED, RangeOp};
use super::contexts::Contexts;
use super::failure::Failure;
use super::limits::MAX_PAYLOAD;
use super::queue::{Pending, Work};
use super::transmission::{Input, MOST_STATUS_PAYLOAD, Payload, Step, Transmission};
use crate::platform::{Platform, Turn};
use crate::stream::{Stream, take};
use umbra_proto::nbd::{Command, Errno, REQUEST_LEN, Request, Style, command_flags as flag};

/// What a request costs beside the bytes that it moves.
const REQUEST_COST: usize = 4 << 10;
fn refuse<T>(errno: Errno, why: &'static str) -> Result<T, Failure> {
    Err(Failure::Rule(errno, why))
}

impl Transmission {
    /// Takes in what came.
    pub(super) fn receive<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
    ) -> Step {
        let step = match &mut self.input {
            Input::Header => self.header(stream, machine),
            Input::Write(_) => self.payload(stream, machine),
            Input::Contexts { request, bytes, have } => {
                let len = request.length as usize;
                *have += take(stream, &mut bytes[*have..len]);
                if *have < len {
                    Step::Wait
                } else {
                    let (request, bytes) = (*request, *bytes);
                    let work = self.status_of(&request, &bytes[..len]);
                    self.push(pending(&request, work));
                    Step::Went(REQUEST_COST)
                }
            }
            Input::Skip { left, then } => {
                let n = (*left).min(stream.available() as u64);
                stream.consume(n as usize);
                *left -= n;
                if *left > 0 {
                    Step::Wait
                } else {
                    let then = *then;
                    self.push(then);
                    Step::Went(0)
                }
            }
            Input::End => return Step::Wait,
        };
        // A client that ends in the middle of a request gets the answers to those before.
        if step == Step::Wait && stream.finished() && self.wants_more(stream) {
            self.input = Input::End;
            return Step::Went(0);
        }
        step
    }

    /// Whether what is there is not enough to go on.
    fn wants_more(&self, stream: &dyn Stream) -> bool {
        match &self.input {
            Input::Header => self.have + stream.available() < self.style.request_len(),
            Input::Write(write) => (stream.available() as u64) < write.left,
            Input::Contexts { .. } | Input::Skip { .. } => stream.available() == 0,
            Input::End => false,
        }
    }

    fn header<M: Platform>(&mut self, stream: &mut dyn Stream, machine: &mut M) -> Step {
        if !self.queue.has_room(machine) {
            return Step::Wait;
        }
        let len = self.style.request_len();
        self.have += take(stream, &mut self.header[self.have..len]);
        if self.have < len {
            return Step::Wait;
        }
        self.have = 0;
        let request = match (self.style, self.header.first_chunk::<REQUEST_LEN>()) {
            (Style::Extended, _) => Request::decode_extended(&self.header),
            (_, Some(compact)) => Request::decode(compact),
            (_, None) => return Step::Broken,
        };
        let Ok(request) = request else { return Step::Broken };
        self.begin(request, machine)
    }

    /// Starts a request.
    fn begin<M: Platform>(&mut self, request: Request, machine: &mut M) -> Step {
        machine.counters().turns.is_for(Turn::Nbd(request.command));
        if request.command == Command::DISC {
            self.input = Input::End;
            return Step::Went(0);
        }
        let payload = request.payload(self.style);
        if self.style == Style::Extended && payload > MAX_PAYLOAD.into() {
            return Step::Broken;
        }
        match self.admit(&request, machine) {
            Ok(Admitted::Write) => {
                self.input = Input::Write(Payload::new(&request));
            }
            Ok(Admitted::Contexts) => {
                self.input = Input::Contexts { request, bytes: [0; MOST_STATUS_PAYLOAD], have: 0 };
            }
            Ok(Admitted::Work(work)) => self.push(pending(&request, Ok(work))),
            Err(why) if payload > 0 => {
                self.input = Input::Skip { left: payload, then: pending(&request, Err(why)) };
            }
            Err(why) => self.push(pending(&request, Err(why))),
        }
        Step::Went(REQUEST_COST)
    }

    /// Whether a request is allowed, and what comes of it.
    fn admit<M: Platform>(
        &mut self,
        request: &Request,
        machine: &mut M,
    ) -> Result<Admitted, Failure> {
        let Request { command, offset, length, .. } = *request;
        let structured = self.style != Style::Simple;
        let extended = self.style == Style::Extended;
        let known = flag::FUA
            | match command {
                Command::READ if structured => flag::DF,
                Command::READ | Command::FLUSH | Command::TRIM | Command::CACHE => 0,
                Command::WRITE if extended => flag::PAYLOAD_LEN,
                Command::WRITE => 0,
                Command::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
                Command::BLOCK_STATUS if extended => flag::REQ_ONE | flag::PAYLOAD_LEN,
                Command::BLOCK_STATUS => flag::REQ_ONE,
                _ => return refuse(Errno::EINVAL, "this server knows no such command"),
            };
        if request.flags & !known != 0 {
            return refuse(
                Errno::EINVAL,
                "the command has no such flag, or not on this connection",
            );
        }
        if machine.is_closing() {
            return refuse(Errno::ESHUTDOWN, "the server is being switched off");
        }
        let changes = matches!(command, Command::WRITE | Command::TRIM | Command::WRITE_ZEROES);
        if changes && self.read_only {
            return refuse(Errno::EPERM, "the export is read-only");
        }
        // The length of a block status with a payload is in the payload.
        let filtered = request.length_is_payload_only(self.style);
        if !filtered && offset.checked_add(length).is_none_or(|end| end > self.size) {
            return match command {
                Command::WRITE | Command::WRITE_ZEROES => {
                    refuse(Errno::ENOSPC, "the range goes beyond the end of the export")
                }
                _ => refuse(Errno::EINVAL, "the range goes beyond the end of the export"),
            };
        }
        let fua = request.has(flag::FUA);
        let range = |what| Work::Range { what, at: offset, left: length, fua };
        let work = match command {
            Command::READ => self.read(request)?,
            Command::WRITE if length > MAX_PAYLOAD.into() => {
                return refuse(Errno::EINVAL, "the payload is larger than 32 MiB");
            }
            Command::WRITE => return Ok(Admitted::Write),
            Command::FLUSH if (offset, length) != (0, 0) => {
                return refuse(Errno::EINVAL, "a flush has neither offset nor length");
            }
            Command::FLUSH => Work::Sync,
            Command::TRIM => range(RangeOp::Trim),
            Command::CACHE => Work::Range {
                what: RangeOp::Cache,
                at: offset,
                left: length.min(MOST_CACHED),
                fua: false,
            },
            Command::WRITE_ZEROES => {
                let what =
                    if request.has(flag::NO_HOLE) { RangeOp::AllocateZeros } else { RangeOp::Zero };
                if request.has(flag::FAST_ZERO) && !self.backing.zeroes_fast(what) {
                    return refuse(
                        Errno::ENOTSUP,
                        "zeroing this would take as long as writing zeros",
                    );
                }
                range(what)
            }
            _ if filtered && !(8..=MOST_STATUS_PAYLOAD as u64).contains(&length) => {
                return refuse(Errno::EINVAL, "the payload is no length with ids of contexts");
            }
            _ if filtered => return Ok(Admitted::Contexts),
            _ => self.status(request, length, self.contexts)?,
        };
        Ok(Admitted::Work(work))
    }

    fn read(&self, request: &Request) -> Result<Work, Failure> {
        let whole = request.has(flag::DF);
        if request.length > MAX_PAYLOAD.into() {
            if whole {
                return refuse(Errno::EOVERFLOW, "more than 32 MiB are not sent in one chunk");
            }
            if self.style == Style::Simple {
                return refuse(
                    Errno::EINVAL,
                    "more than 32 MiB are read with structured replies only",
                );
            }
        }
        Ok(Work::Read { at: request.offset, left: request.length, whole })
    }

    /// The question of a block status whose payload says for which contexts it is.
    fn status_of(&self, request: &Request, payload: &[u8]) -> Result<Work, Failure> {
        let Some((length, ids)) = payload.split_first_chunk::<8>() else {
            return refuse(Errno::EINVAL, "the payload is no length with ids of contexts");
        };
        let contexts = if ids.len().is_multiple_of(4) { self.contexts.named_by(ids) } else { None };
        let Some(contexts) = contexts else {
            return refuse(
                Errno::EINVAL,
                "an id in the payload is of no selected context, or comes twice",
            );
        };
        let length = u64::from_be_bytes(*length);
        if request.offset.checked_add(length).is_none_or(|end| end > self.size) {
            return refuse(Errno::EINVAL, "the range goes beyond the end of the export");
        }
        self.status(request, length, contexts)
    }

    fn status(&self, request: &Request, len: u64, contexts: Contexts) -> Result<Work, Failure> {
        if contexts.is_empty() {
            return refuse(Errno::EINVAL, "no metadata context was selected");
        }
        if len == 0 {
            return refuse(Errno::EINVAL, "the status of no bytes");
        }
        Ok(Work::Status { at: request.offset, len, one: request.has(flag::REQ_ONE), contexts })
    }
}

/// What comes of a request that is allowed.
enum Admitted {
    Write,
    Contexts,
    Work(Work),
}

fn pending(request: &Request, work: Result<Work, Failure>) -> Pending {
    let work = work.unwrap_or_else(|why| Work::Failed(why, None));
    Pending::new(request.cookie, request.offset, work)
}
