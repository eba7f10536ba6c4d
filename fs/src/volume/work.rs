//! Operations that take steps: what they are, and what each holds between two of them.

use super::settle::Settle;
use crate::format::inode::Generation;
use crate::memory::Boxed;
use crate::types::{Ino, MAX_NAME, Time};
use crate::windows::Window;
use arrayvec::ArrayVec;

/// An operation under way.
#[must_use = "an operation is finished step by step, or abandoned"]
#[derive(Debug)]
pub struct Operation(pub(super) Work);

/// What has to be done. Only what is large has memory of its own: closing a window, above all, must
/// not fail for want of memory.
#[derive(Debug)]
pub(crate) enum Work {
    Sync(Syncing),
    Close(Window),
    Count(Counting),
    Clone(Boxed<Cloning>),
    Freeze(Freezing),
    Range(Boxed<RangeClone>),
    Truncate(Truncation),
}

/// An operation whose first step was taken.
#[must_use = "an operation is finished step by step, or abandoned"]
#[derive(Debug)]
pub enum Begun {
    /// That was all.
    Over(Outcome),
    /// There is more to do.
    GoesOn(Operation),
}

/// What an operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// The file that was made.
    Made(Ino),
    /// A file without a name, and the window that keeps it.
    Frozen(Ino, Window),
    /// So many blocks.
    Blocks(u64),
}

/// A file that an operation is about, whatever becomes of it between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub ino: Ino,
    /// Tells whether the number was given to another file since; not known in the first step.
    pub generation: Option<Generation>,
}

impl Held {
    pub fn new(ino: Ino) -> Self {
        Held { ino, generation: None }
    }
}

/// A file that is being made durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syncing {
    pub ino: Ino,
    /// The next page of the pass over all slots.
    pub at: Option<u32>,
}

/// A file whose size is being set.
#[derive(Debug)]
pub(crate) struct Truncation {
    pub file: Held,
    pub size: u64,
    pub now: Time,
    pub settle: Settle,
}

/// A clone that is being made.
#[derive(Debug)]
pub(crate) struct Cloning {
    pub src: Held,
    pub dir: Held,
    pub name: ArrayVec<u8, MAX_NAME>,
    pub now: Time,
    pub settle: Settle,
}

/// A file that is being frozen.
#[derive(Debug)]
pub(crate) struct Freezing {
    pub src: Held,
    pub now: Time,
    pub settle: Settle,
}

/// Blocks that are being counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counting {
    pub file: Held,
    /// File blocks before this one are counted.
    pub at: u64,
    pub sum: u64,
}

/// A range that is being cloned.
#[derive(Debug)]
pub(crate) struct RangeClone {
    pub src: Held,
    pub dst: Held,
    pub from: u64,
    pub to: u64,
    pub len: u64,
    pub now: Time,
    pub settle: [Settle; 2],
    pub way: RangeProgress,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RangeProgress {
    /// Nothing was done yet.
    Begun,
    /// The range is being prepared.
    Preparing { frozen: Nameless, prepared: Nameless, done: u64 },
    /// It is prepared.
    Prepared(Nameless),
}

/// A file without a name, and the window that keeps it.
pub(crate) type Nameless = (Ino, Window);
