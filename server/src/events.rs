//! What happened to the machine: the last events, for clients that ask.

use core::fmt;
use umbra_fs::{Scrub, Time};

/// Events that are kept.
const KEPT: usize = 256;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Memory lost data: at the address, if that is known. With a block if it is in the NVDIMM.
    MemoryError,
    /// The hardware corrected a memory error.
    CorrectedError,
    /// Memory errors, so many, came too fast to be recorded.
    UnrecordedErrors,
    /// So many blocks, from this one on, are on the list of bad blocks.
    BadBlocks,
    /// The list of bad blocks could not take all that was lost, or could not be written.
    BadBlocksFailed,
    /// The list of bad blocks, which had so many, was emptied.
    BadBlocksCleared,
    /// A scrub is over: so many blocks had something that was mended, or is wrong.
    Scrubbed,
}

impl EventKind {
    /// Its name, as it goes over the wire.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::MemoryError => "memory-error",
            EventKind::CorrectedError => "corrected-error",
            EventKind::UnrecordedErrors => "unrecorded-errors",
            EventKind::BadBlocks => "bad-blocks",
            EventKind::BadBlocksFailed => "bad-blocks-failed",
            EventKind::BadBlocksCleared => "bad-blocks-cleared",
            EventKind::Scrubbed => "scrubbed",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts events, from 1 on.
    pub number: u64,
    /// When.
    pub time: Time,
    /// What.
    pub kind: EventKind,
    /// A physical address, in bytes.
    pub address: Option<u64>,
    /// A block of the served NVDIMM.
    pub block: Option<u64>,
    /// How many.
    pub count: Option<u64>,
}

/// As the kernel logs it, for a supervisor that keeps it: `NUMBER TIME KIND`, and then what is
/// known of `address=N`, `block=N` and `count=N`. The time is in nanoseconds; all digits are
/// decimal.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.number, self.time.0, self.kind)?;
        let numbers = [("address", self.address), ("block", self.block), ("count", self.count)];
        numbers
            .into_iter()
            .filter_map(|(name, number)| Some((name, number?)))
            .try_for_each(|(name, number)| write!(f, " {name}={number}"))
    }
}

/// The last events.
#[derive(Debug)]
pub struct Events {
    /// The event of number `n` is at place `(n - 1) % KEPT`.
    kept: [Option<Event>; KEPT],
    last: u64,
}

impl Default for Events {
    fn default() -> Self {
        Events::new()
    }
}

impl Events {
    /// Nothing happened yet.
    pub const fn new() -> Self {
        Events { kept: [None; KEPT], last: 0 }
    }

    /// Adds an event, whose number is given here, and returns it.
    pub fn add(&mut self, event: Event) -> Event {
        self.last += 1;
        let event = Event { number: self.last, ..event };
        self.kept[((self.last - 1) % KEPT as u64) as usize] = Some(event);
        event
    }

    /// The first event that is kept and has a greater number.
    pub fn behind(&self, number: u64) -> Option<Event> {
        let first = self.last.saturating_sub(KEPT as u64) + 1;
        let next = first.max(number.saturating_add(1));
        self.kept[((next - 1) % KEPT as u64) as usize].filter(|event| event.number == next)
    }
}

/// Memory errors since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryErrors {
    /// Those that lost data, those outside of the NVDIMM included.
    pub uncorrected: u64,
    /// Those that the hardware corrected.
    pub corrected: u64,
    /// Those that came too fast to be recorded.
    pub unrecorded: u64,
    /// Blocks on the list of bad blocks, which is older than this boot.
    pub bad_blocks: u64,
    /// Blocks of metadata of which one copy was written anew from the other.
    pub mended: u64,
    /// The last scrub that looked for them, of those that were begun since the mount.
    pub scrub: Option<Scrub>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;

    fn event(address: u64) -> Event {
        let (number, time, kind) = (0, Time(1), EventKind::MemoryError);
        Event { number, time, kind, address: Some(address), block: None, count: None }
    }

    fn all(events: &Events, since: u64) -> Vec<(u64, u64)> {
        let first = events.behind(since);
        let next = |event: &Event| events.behind(event.number);
        core::iter::successors(first, next).map(|e| (e.number, e.address.unwrap())).collect()
    }

    #[test]
    fn the_last_events_are_kept() {
        let mut events = Events::new();
        assert_eq!(all(&events, 0), []);
        (1..=3).for_each(|n| assert_eq!(events.add(event(n * 10)).number, n));
        assert_eq!(all(&events, 0), [(1, 10), (2, 20), (3, 30)]);
        assert_eq!(all(&events, 2), [(3, 30)]);
        assert_eq!(all(&events, 3), []);
        assert_eq!(all(&events, u64::MAX), []);
        for n in 4..=1000 {
            events.add(event(n * 10));
        }
        let kept = all(&events, 5);
        assert_eq!((kept.len(), kept[0], kept[255]), (256, (745, 7450), (1000, 10_000)));
    }

    #[test]
    fn an_event_is_a_line() {
        let (time, block, count) = (Time(-7), Some(5), Some(2));
        let all = Event { number: 3, time, block, count, ..event(4096) };
        assert_eq!(format!("{all}"), "3 -7 memory-error address=4096 block=5 count=2");
        let none = Event { address: None, block: None, count: None, ..all };
        assert_eq!(format!("{none}"), "3 -7 memory-error");
    }
}
