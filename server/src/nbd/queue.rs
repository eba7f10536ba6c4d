//! Requests that are not answered yet.

use super::backing::RangeOp;
use super::contexts::Contexts;
use super::failure::Failure;
use crate::platform::Platform;
use alloc::collections::VecDeque;
use umbra_fs::Error;

/// Requests of a connection that may be open at once; what comes beyond that waits in its stream.
pub const MOST: usize = 128;

/// Requests that every connection has room for.
const FEW: usize = 4;

/// How much a request may move before others have their turn, in bytes.
pub const QUANTUM: u64 = 256 << 10;

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// Chosen by the client.
    pub cookie: u64,
    /// Its offset, as the client sent it.
    pub offset: u64,
    /// What is left to do.
    pub work: Work,
    /// What it has moved since it came to the front.
    pub moved: u64,
    /// How often it let others pass.
    pub waited: u8,
}

impl Pending {
    /// A request with this work to do.
    pub fn new(cookie: u64, offset: u64, work: Work) -> Self {
        Pending { cookie, offset, work, moved: 0, waited: 0 }
    }
}

/// What is left to do for a request.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Nothing: it succeeded.
    Done,
    /// Nothing: it failed, perhaps at a known place.
    Failed(Failure, Option<u64>),
    /// Send bytes.
    Read {
        /// The next one.
        at: u64,
        /// How many.
        left: u64,
        /// All in one chunk.
        whole: bool,
    },
    /// Do something to a range, in steps.
    Range {
        /// What.
        what: RangeOp,
        /// The next byte.
        at: u64,
        /// Bytes that are left.
        left: u64,
        /// Make it durable before answering.
        fua: bool,
    },
    /// Make everything durable that was written.
    Sync,
    /// Say what a range is.
    Status {
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
        /// One run is enough.
        one: bool,
        /// For these contexts.
        contexts: Contexts,
    },
}

/// The requests, in the order in which they get their turn.
pub struct Queue(VecDeque<Pending>);

#[allow(
    clippy::disallowed_methods,
    reason = "the caller has seen that there is room, or puts back what it took"
)]
impl Queue {
    /// None; the memory for a few is taken.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`].
    pub fn new() -> umbra_fs::Result<Self> {
        let mut all = VecDeque::new();
        all.try_reserve_exact(FEW).map_err(|_| Error::NoMemory)?;
        Ok(Queue(all))
    }

    /// Whether there is room for another one. Makes some, if the machine has memory; else requests
    /// wait in their stream until those before them are answered.
    pub fn has_room<M: Platform>(&mut self, machine: &mut M) -> bool {
        // One more may be on its way out and come back.
        let (len, most) = (self.0.len() + 1, self.0.capacity());
        if len < most || self.0.len() >= MOST {
            return self.0.len() < MOST;
        }
        let more = most.min(MOST + 1 - most);
        machine.has_memory((most + more) * size_of::<Pending>())
            && self.0.try_reserve_exact(more + 1).is_ok()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one; the caller has seen that there is room.
    pub fn push(&mut self, pending: Pending) {
        debug_assert!(self.0.len() < self.0.capacity());
        self.0.push_back(pending);
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<Pending> {
        self.0.pop_front()
    }

    /// Puts one behind all others.
    pub fn put_last(&mut self, pending: Pending) {
        self.0.push_back(pending);
    }

    /// Puts one before all others.
    pub fn put_first(&mut self, pending: Pending) {
        self.0.push_front(pending);
    }

    /// Gives back one that is not done: to the front, until it has moved so much that it is the
    /// turn of others.
    pub fn give_back(&mut self, mut pending: Pending) {
        if pending.moved < QUANTUM {
            self.0.push_front(pending);
        } else {
            pending.moved = 0;
            self.0.push_back(pending);
        }
    }
}
