//! The state of a connection that transmits.

use super::backing::Backing;
use super::clients::ClientId;
use super::contexts::Contexts;
use super::exports::Found;
use super::failure::Failure;
use super::out::Out;
use super::queue::{Pending, Queue};
use super::status::Answer;
use crate::platform::Platform;
use crate::stream::Stream;
use alloc::vec::Vec;
use umbra_fs::memory::{Boxed, Vacant, filled};
use umbra_fs::{BLOCK_SIZE, Operation};
use umbra_proto::nbd::{EXTENDED_REQUEST_LEN, Request, Style};

/// A connection that transmits.
pub struct Transmission {
    /// What is served.
    pub backing: Backing,
    /// This client, as the list of those who use exports has it.
    pub client: ClientId,
    /// Its size in bytes, for this connection.
    pub size: u64,
    /// Changes fail.
    pub read_only: bool,
    /// How requests and replies look.
    pub style: Style,
    /// The contexts that block status tells of.
    pub contexts: Contexts,
    /// What is being received.
    pub(super) input: Input,
    /// The header that is being received, and how much of it is there.
    pub(super) header: [u8; EXTENDED_REQUEST_LEN],
    pub(super) have: usize,
    /// Requests that are not answered yet.
    pub(super) queue: Queue,
    /// What is sent before anything else.
    pub(super) out: Out,
    /// The sync for the first request of the queue.
    pub(super) syncing: Option<Operation>,
    /// A chunk whose header was sent, and not all of its data.
    pub(super) streaming: Option<Streaming>,
    /// An answer that is being put together in the room of [`Self::out`].
    pub(super) asked: Option<Answer>,
    /// Where a block is put together that came in pieces.
    pub(super) block: Vec<u8>,
}

/// What one poll may cost, counted in bytes moved.
pub(super) const TURN: usize = 256 << 10;
/// What it costs to find out that an operation comes first which keeps others from the windows of a
/// file: the rest of a turn.
pub(super) const PARKED: usize = TURN;

/// Payload of a block status, in bytes: its length, and the ids of as many contexts as there could
/// be.
pub(super) const MOST_STATUS_PAYLOAD: usize = 8 + 4 * 4;

/// What is being received.
pub(super) enum Input {
    /// The header of a request.
    Header,
    /// The payload of a write.
    Write(Payload),
    /// The payload of a block status.
    Contexts {
        /// The request.
        request: Request,
        /// The payload, and how much of it is there.
        bytes: [u8; MOST_STATUS_PAYLOAD],
        /// How much of it is there.
        have: usize,
    },
    /// The payload of a request that was refused.
    Skip {
        /// Bytes that are left of it.
        left: u64,
        /// The answer.
        then: Pending,
    },
    /// The client sends no more.
    End,
}

/// A write whose payload is being received.
pub(super) struct Payload {
    pub cookie: u64,
    pub offset: u64,
    /// Where the next byte goes.
    pub at: u64,
    /// Bytes that are left.
    pub left: u64,
    /// Make it durable before answering.
    pub fua: bool,
    /// Why it failed, and where: what comes of the payload is dropped.
    pub failed: Option<(Failure, u64)>,
}

/// A chunk, or the data of a simple reply, whose header was sent.
pub(super) struct Streaming {
    /// The request.
    pub pending: Pending,
    /// The next byte.
    pub at: u64,
    /// Bytes of the chunk that are left.
    pub chunk: u64,
    /// Bytes of the request that are left, those of the chunk included.
    pub left: u64,
    /// Why the rest of the chunk is zeros, and from where on.
    pub failed: Option<(Failure, u64)>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing can be done until the stream has something new.
    Wait,
    /// Something was done, for this many bytes' worth of time.
    Went(usize),
    /// The two ends no longer agree, or an error can no longer be told: the connection ends now.
    Broken,
}

/// The memory of a connection that transmits, which is taken before its client counts as one.
pub struct Reserved {
    queue: Queue,
    out: Out,
    block: Vec<u8>,
    transmission: Vacant<Transmission>,
}

impl Reserved {
    /// Takes it.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`](umbra_fs::Error::NoMemory).
    pub fn new() -> umbra_fs::Result<Self> {
        Ok(Reserved {
            queue: Queue::new()?,
            out: Out::new()?,
            block: filled(BLOCK_SIZE as usize, 0)?,
            transmission: Boxed::vacant()?,
        })
    }

    /// Starts to transmit.
    pub fn start(
        self,
        found: &Found,
        (backing, client): (Backing, ClientId),
        style: Style,
        contexts: Contexts,
    ) -> Boxed<Transmission> {
        let Reserved { queue, out, block, transmission } = self;
        transmission.fill(Transmission {
            backing,
            client,
            size: found.size,
            read_only: found.read_only,
            style,
            contexts,
            input: Input::Header,
            header: [0; EXTENDED_REQUEST_LEN],
            have: 0,
            queue,
            out,
            syncing: None,
            streaming: None,
            asked: None,
            block,
        })
    }
}

impl Transmission {
    /// Does one step in each direction.
    pub fn turn<M: Platform>(&mut self, stream: &mut dyn Stream, machine: &mut M) -> Step {
        let received = self.receive(stream, machine);
        let sent =
            if received == Step::Broken { Step::Broken } else { self.answer(stream, machine) };
        match (received, sent) {
            (Step::Broken, _) | (_, Step::Broken) => Step::Broken,
            (Step::Wait, step) | (step, Step::Wait) => step,
            (Step::Went(a), Step::Went(b)) => Step::Went(a + b),
        }
    }

    /// Whether the client wants no more, and has everything that it asked for.
    pub fn is_over(&self) -> bool {
        matches!(self.input, Input::End)
            && self.queue.is_empty()
            && self.out.is_empty()
            && self.streaming.is_none()
            && self.asked.is_none()
    }

    /// A request was taken in.
    pub(super) fn push(&mut self, pending: Pending) {
        self.queue.push(pending);
        self.input = Input::Header;
    }
}
