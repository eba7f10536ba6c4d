//! The state of a connection that transmits.

use super::clients::ClientId;
use super::exports::Found;
use super::out::Out;
use super::queue::{Pending, Queue};
use super::read::Input;
use super::reply::Streaming;
use super::status::{Answer, Contexts};
use super::target::Target;
use crate::platform::Platform;
use crate::stream::Stream;
use alloc::boxed::Box;
use umbra_fs::{BLOCK_SIZE, Operation};
use umbra_proto::nbd::{EXTENDED_REQUEST_LEN, Style};

/// A connection that transmits.
pub struct Transmission {
    /// What is served.
    pub target: Target,
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
    pub(super) block: Box<[u8; BLOCK_SIZE as usize]>,
}

/// What it costs to find out that an operation comes first which keeps others from the windows of a
/// file: the rest of a turn.
pub(super) const PARKED: usize = super::connection::TURN;

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

impl Transmission {
    /// Starts to transmit.
    pub fn new(
        found: &Found,
        (target, client): (Target, ClientId),
        style: Style,
        contexts: Contexts,
    ) -> Self {
        Transmission {
            target,
            client,
            size: found.size,
            read_only: found.read_only,
            style,
            contexts,
            input: Input::Header,
            header: [0; EXTENDED_REQUEST_LEN],
            have: 0,
            queue: Queue::new(),
            out: Out::new(),
            syncing: None,
            streaming: None,
            asked: None,
            block: Box::new([0; BLOCK_SIZE as usize]),
        }
    }

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
