//! What servers need to know of the machine they run on.
//!
//! [`Machine`] is the volume and its windows; [`Platform`] adds the clock, some facts, and the
//! counters that outlive a connection. The kernel implements it with the real thing,
//! tests with numbers of their choice.

pub use crate::events::{Event, EventKind, Events, MemoryErrors};
pub use crate::turns::{Turn, Turns};
use alloc::vec::Vec;
use core::ops::Range;
use umbra_fs::dax::Machine;
use umbra_fs::{Block, Pmem, Time};
pub use umbra_proto::rpc::{MemoryUse, Sample};

/// A machine that servers run on.
pub trait Platform: Machine {
    /// An NVDIMM region that holds no volume.
    type Device: Pmem;

    /// The time of day; what a change is stamped with.
    fn now(&self) -> Time;

    /// Nanoseconds since boot; never goes back.
    fn uptime_ns(&self) -> u64;

    /// Nanoseconds that it took from the first instruction of the loader until clients were served.
    fn boot_ns(&self) -> u64;

    /// How the volume was mounted.
    fn mounted(&self) -> Mounted;

    /// The use of DRAM.
    fn memory(&self) -> MemoryUse;

    /// Allocations from the heap since boot.
    fn allocations(&self) -> u64;

    /// Whether a client may be given so many bytes of memory, or somewhat more. Everything that a
    /// client can make grow is asked for here first, so that what is kept back is enough for all
    /// else: no client runs the server out of memory.
    fn has_memory(&mut self, bytes: usize) -> bool;

    /// What was written back to the NVDIMM so far.
    fn persisted(&mut self) -> Persisted;

    /// The NVDIMM regions of the machine.
    fn nvdimms(&self) -> &[Region];

    /// The region of this number in [`nvdimms`](Self::nvdimms), if it can be used and holds no
    /// volume.
    fn device(&mut self, index: usize) -> Option<&mut Self::Device>;

    /// Asks for the machine to be switched off: soon after this returns, and after what is
    /// queued on connections was sent, the volume is unmounted and the power goes.
    fn power_off(&mut self);

    /// Whether that was asked for.
    fn is_closing(&self) -> bool;

    /// What the least costs that the machine's operations are made of: page faults, copies,
    /// write-back. Nothing where that cannot be told.
    fn floor(&mut self) -> Vec<Sample> {
        Vec::new()
    }

    /// Has whoever emulates the machine give memory for these blocks of the volume, which it may
    /// do at first touch only: before something is measured in them.
    fn fault_in(&mut self, blocks: Range<u64>) {
        let _ = blocks;
    }

    /// Memory errors since boot.
    fn memory_errors(&mut self) -> MemoryErrors;

    /// Does what is done when the memory reports that it lost a block of the NVDIMM that is served:
    /// before anything else is sent.
    fn lose(&mut self, block: Block);

    /// Adds an event. Its number is given to it then.
    fn add_event(&mut self, event: Event);

    /// The first event that is kept and has a greater number.
    fn event_behind(&self, number: u64) -> Option<Event>;

    /// The counters of the servers. They start as `Counters::default()`.
    fn counters(&mut self) -> &mut Counters;
}

/// How the volume was mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    /// Nanoseconds that it took.
    pub took_ns: u64,
    /// Everything was counted anew, since the last stop was not clean.
    pub rebuilt: bool,
}

/// What was written back to the NVDIMM since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// Lines that were flushed.
    pub flushes: u64,
    /// Fences.
    pub fences: u64,
}

/// One NVDIMM region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical address of its first byte.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the volume that is served is on it.
    pub served: bool,
    /// How a line is written back: `clwb`, `clflushopt`, `clflush` or `none`.
    pub flush: &'static str,
    /// Why it could not be served.
    pub problem: Option<alloc::string::String>,
}

/// Counts of what the servers do, since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections to the native protocol that are open now.
    pub connections: u32,
    /// Connections to it so far.
    pub connections_total: u64,
    /// Requests so far.
    pub requests: u64,
    /// Requests that failed so far.
    pub errors: u64,
    /// Handles open now.
    pub handles: u32,
    /// Steps of background reclaiming so far.
    pub reclaim_steps: u64,
    /// Whether the last of them left something to do.
    pub reclaiming: bool,
    /// How long others had to wait.
    pub turns: Turns,
}

/// Does one bounded step of the work that no client waits for: reclaiming what was deleted.
///
/// To be called when the connections have nothing to do, until it returns
/// [`Progress::Wait`](crate::Progress::Wait), and again after connections did something.
pub fn background<M: Platform>(machine: &mut M) -> crate::Progress {
    match take_turn(machine, Turn::Background, reclaim_step) {
        Ok(true) => crate::Progress::Again,
        // What could not be reclaimed is found again by the next check or rebuild; whoever
        // needs the space is told by "no space".
        Ok(false) | Err(_) => crate::Progress::Wait,
    }
}

/// One step of reclaiming; false if nothing is left.
pub(crate) fn reclaim_step<M: Platform>(machine: &mut M) -> umbra_fs::Result<bool> {
    let result = machine.volume(|v| v.reclaim_step());
    let counters = machine.counters();
    counters.reclaiming = matches!(result, Ok(true));
    counters.reclaim_steps += u64::from(counters.reclaiming);
    result
}

/// Lets somebody take a turn, which is for `what` unless they say otherwise, and notes how long it
/// was.
pub fn take_turn<M: Platform, R>(machine: &mut M, what: Turn, turn: impl FnOnce(&mut M) -> R) -> R {
    let start = machine.uptime_ns();
    machine.counters().turns.is_for(what);
    let result = turn(machine);
    let took = machine.uptime_ns().saturating_sub(start);
    machine.counters().turns.took(took);
    result
}
