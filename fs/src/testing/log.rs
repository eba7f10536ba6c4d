//! Memory that keeps, for each line, every value that a crash could leave.
//!
//! A 64-byte line is what is durable, then the stores since then in order, in words of 8
//! bytes, and how many of them were flushed. A fence makes the flushed ones durable; what
//! was stored and not flushed stays undecided, across fences. After a crash each line
//! holds any prefix of its stores (the order of stores to one line is kept by x86).

use super::MemPmem;
use crate::pmem::{LINE, Pmem, Poisoned};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// A line with stores that may or may not have reached the media.
#[derive(Clone, Debug)]
struct Pending {
    durable: [u8; LINE as usize],
    /// Offset in the line, and the word.
    stores: Vec<(u8, u64)>,
    /// The first so many of them were flushed.
    flushed: usize,
}

/// What survives of a line with stores that are not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survive {
    /// None of them.
    Nothing,
    /// The first so many (or all, if there are fewer).
    First(usize),
    /// All of them.
    Everything,
}

/// Memory that logs.
#[derive(Clone, Debug)]
pub struct LogPmem {
    memory: MemPmem,
    pending: BTreeMap<u64, Pending>,
    /// Crash states are recorded at each fence: the pending lines, if wanted.
    recording: Option<Vec<LogPmem>>,
}

impl LogPmem {
    /// Memory in which everything is durable.
    pub fn new(memory: MemPmem) -> Self {
        LogPmem { memory, pending: BTreeMap::new(), recording: None }
    }

    /// Keeps a copy of the state right before each fence from now on.
    pub fn record(&mut self) {
        self.recording = Some(Vec::new());
    }

    /// The states that were recorded, and stops recording.
    pub fn recorded(&mut self) -> Vec<LogPmem> {
        self.recording.take().unwrap_or_default()
    }

    /// Lines with stores that are not durable, and how many each has.
    pub fn undecided(&self) -> impl Iterator<Item = (u64, usize)> {
        self.pending.iter().map(|(&line, pending)| (line, pending.stores.len()))
    }

    /// The memory as a crash now could leave it.
    pub fn crash(&self, mut survive: impl FnMut(u64, usize) -> Survive) -> MemPmem {
        let mut memory = self.memory.clone();
        for (&line, pending) in &self.pending {
            let kept = match survive(line, pending.stores.len()) {
                Survive::Nothing => 0,
                Survive::First(count) => count.min(pending.stores.len()),
                Survive::Everything => pending.stores.len(),
            };
            let mut content = pending.durable;
            for &(offset, word) in &pending.stores[..kept] {
                content[offset as usize..offset as usize + 8].copy_from_slice(&word.to_le_bytes());
            }
            memory.write(line, &content);
        }
        memory
    }

    /// The counters and the content as the processor sees it.
    pub fn memory(&self) -> &MemPmem {
        &self.memory
    }

    fn log(&mut self, at: u64, len: u64, change: impl FnOnce(&mut MemPmem)) {
        let first = at / LINE * LINE;
        let end = at + len;
        for line in (first..end).step_by(LINE as usize) {
            let memory = &self.memory;
            self.pending.entry(line).or_insert_with(|| {
                let mut durable = [0; LINE as usize];
                durable.copy_from_slice(&memory.bytes()[line as usize..(line + LINE) as usize]);
                Pending { durable, stores: Vec::new(), flushed: 0 }
            });
        }
        change(&mut self.memory);
        // A store of bytes is logged as the aligned words that it changes.
        let mut word = at / 8 * 8;
        while word < end {
            let mut raw = [0; 8];
            raw.copy_from_slice(&self.memory.bytes()[word as usize..word as usize + 8]);
            let line = word / LINE * LINE;
            if let Some(pending) = self.pending.get_mut(&line) {
                pending.stores.push(((word - line) as u8, u64::from_le_bytes(raw)));
            }
            word += 8;
        }
    }
}

impl Pmem for LogPmem {
    fn len(&self) -> u64 {
        self.memory.len()
    }
    fn load(&self, at: u64) -> Result<u64, Poisoned> {
        self.memory.load(at)
    }
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Poisoned> {
        self.memory.read(at, into)
    }
    fn store(&mut self, at: u64, value: u64) {
        self.log(at, 8, |memory| memory.store(at, value));
    }
    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.log(at, bytes.len() as u64, |memory| memory.write(at, bytes));
    }
    fn zero(&mut self, at: u64, len: u64) {
        self.log(at, len, |memory| memory.zero(at, len));
    }
    fn copy(&mut self, from: u64, to: u64, len: u64) -> Result<(), Poisoned> {
        let mut result = Ok(());
        self.log(to, len, |memory| result = memory.copy(from, to, len));
        result
    }
    fn flush(&mut self, at: u64, len: u64) {
        self.memory.flush(at, len);
        for line in (at / LINE * LINE..at + len).step_by(LINE as usize) {
            if let Some(pending) = self.pending.get_mut(&line) {
                pending.flushed = pending.stores.len();
            }
        }
    }
    fn fence(&mut self) {
        if let Some(mut recording) = self.recording.take() {
            recording.push(self.clone());
            self.recording = Some(recording);
        }
        self.memory.fence();
        self.pending.retain(|_, pending| {
            for (offset, word) in pending.stores.drain(..pending.flushed) {
                pending.durable[offset as usize..offset as usize + 8].copy_from_slice(&word.to_le_bytes());
            }
            pending.flushed = 0;
            !pending.stores.is_empty()
        });
    }
}
