//! Memory for crash tests: it can be rolled back, and it records what is done to it.
//!
//! - Every store, flush and fence, each with its place in the source ([`Event`]), while a
//!   trace is on. [`super::Undecided`] builds crash states from such a trace.
//! - Which words were read before anything was stored to them, while reads are tracked:
//!   what a recovery depends on.
//! - A stack of marks: the content goes back to the last one in time by what was changed,
//!   so thousands of crash states share one region.
//! - One flush, fence or store, chosen by its place or its number, can be left out
//!   ([`Skip`]): the tests of the tests.

use super::MemPmem;
use crate::pmem::{LINE, Pmem, Poisoned};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::panic::Location;

/// A place in the source.
pub type Site = &'static Location<'static>;

const PAGE: usize = 4096;

/// Something that was done to the memory.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// An aligned word was stored; stores of bytes are logged as the words they change.
    Store {
        /// Byte offset of the word.
        at: u64,
        /// What it is from now on.
        value: u64,
        /// Where from.
        site: Site,
    },
    /// A line was flushed.
    Flush {
        /// Byte offset of the line.
        line: u64,
        /// Where from.
        site: Site,
    },
    /// What was flushed is durable from here on.
    Fence {
        /// Where from.
        site: Site,
    },
}

/// A sort of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `store`, `write`, `zero` or `copy`.
    Store,
    /// `flush`.
    Flush,
    /// `fence`.
    Fence,
}

/// A call that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// All calls from one place in the source.
    Site(Call, Site),
    /// The n-th call of a sort since the trace began, from 0.
    Nth(Call, u64),
    /// From one place, all lines of a flush but the first are forgotten.
    Tail(Site),
}

/// A level of the stack of marks.
#[derive(Default)]
struct Level {
    saved: Vec<(usize, Box<[u8; PAGE]>)>,
    changed: Vec<u64>,
}

#[derive(Default)]
struct Trace {
    events: Vec<Event>,
    /// Calls so far, by sort, and the places they came from.
    counts: [u64; 3],
    skip: Option<Skip>,
}

/// Words of lines that were read, or stored: a bit for each of the 8 words.
struct Reads {
    read: Vec<u8>,
    stored: Vec<u8>,
    touched: Vec<u32>,
}

struct Inner {
    memory: MemPmem,
    levels: Vec<Level>,
    pool: Vec<Box<[u8; PAGE]>>,
    trace: Option<Trace>,
    reads: Option<Reads>,
}

/// A handle of memory for crash tests; copies of the handle are the same memory.
#[derive(Clone)]
pub struct LogPmem {
    inner: Rc<RefCell<Inner>>,
}

impl Inner {
    /// Saves the pages of a range that is about to change.
    fn touch(&mut self, at: u64, len: u64) {
        let Some(level) = self.levels.last_mut() else { return };
        if len == 0 {
            return;
        }
        for page in at as usize / PAGE..=(at + len - 1) as usize / PAGE {
            let (word, bit) = (page / 64, 1u64 << (page % 64));
            if level.changed[word] & bit == 0 {
                level.changed[word] |= bit;
                let mut copy = self.pool.pop().unwrap_or_else(|| Box::new([0; PAGE]));
                copy.copy_from_slice(&self.memory.bytes()[page * PAGE..(page + 1) * PAGE]);
                level.saved.push((page, copy));
            }
        }
    }

    /// Whether a call is to be left out.
    fn skips(&mut self, call: Call, site: Site) -> bool {
        let Some(trace) = &mut self.trace else { return false };
        let number = trace.counts[call as usize];
        trace.counts[call as usize] += 1;
        match trace.skip {
            Some(Skip::Site(what, at)) => what == call && at == site,
            Some(Skip::Nth(what, n)) => what == call && n == number,
            _ => false,
        }
    }

    fn note_read(&mut self, at: u64, len: u64) {
        let Some(reads) = &mut self.reads else { return };
        if len == 0 {
            return;
        }
        for line in at / LINE..=(at + len - 1) / LINE {
            let mask = words_of(line, at, len) & !reads.stored[line as usize];
            let known = &mut reads.read[line as usize];
            if *known & mask != mask {
                if *known == 0 && reads.stored[line as usize] == 0 {
                    reads.touched.push(line as u32);
                }
                *known |= mask;
            }
        }
    }

    fn note_stored(&mut self, at: u64, len: u64) {
        let Some(reads) = &mut self.reads else { return };
        if len == 0 {
            return;
        }
        for line in at / LINE..=(at + len - 1) / LINE {
            let i = line as usize;
            if reads.read[i] == 0 && reads.stored[i] == 0 {
                reads.touched.push(line as u32);
            }
            reads.stored[i] |= words_of(line, at, len);
        }
    }

    /// Changes a range: everything that storing has in common.
    fn change(&mut self, at: u64, len: u64, site: Site, change: impl FnOnce(&mut MemPmem)) {
        if self.skips(Call::Store, site) {
            return;
        }
        self.touch(at, len);
        self.note_stored(at, len);
        change(&mut self.memory);
        if let Some(trace) = &mut self.trace {
            let bytes = self.memory.bytes();
            for word in (at / 8 * 8..at + len).step_by(8) {
                let mut raw = [0; 8];
                raw.copy_from_slice(&bytes[word as usize..word as usize + 8]);
                trace.events.push(Event::Store { at: word, value: u64::from_le_bytes(raw), site });
            }
        }
    }
}

/// The words of a line that a range covers, wholly or in part.
fn words_of(line: u64, at: u64, len: u64) -> u8 {
    let start = line * LINE;
    let first = at.max(start) - start;
    let last = (at + len).min(start + LINE) - start - 1;
    let (first, last) = (first / 8, last / 8);
    ((1u16 << (last + 1)) - (1u16 << first)) as u8
}

impl LogPmem {
    /// Memory with this content, no marks, nothing recorded.
    pub fn new(memory: MemPmem) -> Self {
        let inner =
            Inner { memory, levels: Vec::new(), pool: Vec::new(), trace: None, reads: None };
        LogPmem { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Sets a mark to go back to.
    pub fn mark(&self) {
        let mut inner = self.inner.borrow_mut();
        let pages = inner.memory.bytes().len() / PAGE;
        inner.levels.push(Level { saved: Vec::new(), changed: vec![0; pages.div_ceil(64)] });
    }

    /// Goes back to the last mark, and removes it.
    pub fn rollback(&self) {
        let inner = &mut *self.inner.borrow_mut();
        let level = inner.levels.pop().expect("there is a mark to go back to");
        for (page, saved) in level.saved {
            inner.memory.bytes_mut()[page * PAGE..(page + 1) * PAGE].copy_from_slice(&saved[..]);
            inner.pool.push(saved);
        }
    }

    /// Records what is done from now on, leaving out what `skip` says.
    pub fn start_trace(&self, skip: Option<Skip>) {
        self.inner.borrow_mut().trace = Some(Trace { skip, ..Trace::default() });
    }

    /// Events recorded so far.
    pub fn traced(&self) -> usize {
        self.inner.borrow().trace.as_ref().map_or(0, |t| t.events.len())
    }

    /// Ends the trace.
    pub fn stop_trace(&self) -> Vec<Event> {
        self.inner.borrow_mut().trace.take().map_or(Vec::new(), |t| t.events)
    }

    /// Notes from now on which words are read before they are stored to.
    pub fn track_reads(&self) {
        let mut inner = self.inner.borrow_mut();
        let lines = inner.memory.bytes().len() / LINE as usize;
        inner.reads =
            Some(Reads { read: vec![0; lines], stored: vec![0; lines], touched: Vec::new() });
    }

    /// Number of a line and the words of it that were read, for all since the last call, in
    /// no order; tracking goes on.
    pub fn take_reads(&self) -> Vec<(u32, u8)> {
        let inner = &mut *self.inner.borrow_mut();
        let Some(reads) = &mut inner.reads else { return Vec::new() };
        let mut list = Vec::new();
        for &line in &reads.touched {
            let mask = core::mem::take(&mut reads.read[line as usize]);
            reads.stored[line as usize] = 0;
            if mask != 0 {
                list.push((line, mask));
            }
        }
        reads.touched.clear();
        list
    }

    /// Makes lines unreadable (none: all can be read again).
    pub fn poison(&self, lines: &[u64]) {
        self.inner.borrow_mut().memory.poisoned = lines.to_vec();
    }

    /// Looks at all content.
    pub fn with_bytes<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(self.inner.borrow().memory.bytes())
    }

    /// Puts bytes in, as if they had always been there: no event, but a rollback undoes it.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        let inner = &mut *self.inner.borrow_mut();
        inner.touch(at, bytes.len() as u64);
        inner.memory.bytes_mut()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    /// Fences since the memory was made.
    pub fn fences(&self) -> u64 {
        self.inner.borrow().memory.fences
    }

    /// Lines flushed since the memory was made.
    pub fn flushes(&self) -> u64 {
        self.inner.borrow().memory.flushes
    }

    /// A word, without a note that it was read.
    pub fn peek(&self, at: u64) -> u64 {
        let mut raw = [0; 8];
        raw.copy_from_slice(&self.inner.borrow().memory.bytes()[at as usize..at as usize + 8]);
        u64::from_le_bytes(raw)
    }
}

impl Pmem for LogPmem {
    fn len(&self) -> u64 {
        self.inner.borrow().memory.len()
    }

    fn load(&self, at: u64) -> Result<u64, Poisoned> {
        let mut inner = self.inner.borrow_mut();
        inner.note_read(at, 8);
        inner.memory.load(at)
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Poisoned> {
        let mut inner = self.inner.borrow_mut();
        inner.note_read(at, into.len() as u64);
        inner.memory.read(at, into)
    }

    #[track_caller]
    fn store(&mut self, at: u64, value: u64) {
        let site = Location::caller();
        self.inner.borrow_mut().change(at, 8, site, |memory| memory.store(at, value));
    }

    #[track_caller]
    fn write(&mut self, at: u64, bytes: &[u8]) {
        let site = Location::caller();
        let len = bytes.len() as u64;
        self.inner.borrow_mut().change(at, len, site, |memory| memory.write(at, bytes));
    }

    #[track_caller]
    fn zero(&mut self, at: u64, len: u64) {
        let site = Location::caller();
        self.inner.borrow_mut().change(at, len, site, |memory| memory.zero(at, len));
    }

    #[track_caller]
    fn copy(&mut self, from: u64, to: u64, len: u64) -> Result<(), Poisoned> {
        let site = Location::caller();
        let mut result = Ok(());
        let mut inner = self.inner.borrow_mut();
        inner.note_read(from, len);
        inner.change(to, len, site, |memory| result = memory.copy(from, to, len));
        result
    }

    #[track_caller]
    fn flush(&mut self, at: u64, len: u64) {
        let site = Location::caller();
        let mut inner = self.inner.borrow_mut();
        if inner.skips(Call::Flush, site) {
            return;
        }
        if let Some(trace) = &mut inner.trace {
            let tail = trace.skip == Some(Skip::Tail(site));
            let lines = (at / LINE * LINE..at + len).step_by(LINE as usize);
            let lines = lines.take(if tail { 1 } else { usize::MAX });
            trace.events.extend(lines.map(|line| Event::Flush { line, site }));
        }
        inner.memory.flush(at, len);
    }

    #[track_caller]
    fn fence(&mut self) {
        let site = Location::caller();
        let mut inner = self.inner.borrow_mut();
        if inner.skips(Call::Fence, site) {
            return;
        }
        if let Some(trace) = &mut inner.trace {
            trace.events.push(Event::Fence { site });
        }
        inner.memory.fence();
    }
}
