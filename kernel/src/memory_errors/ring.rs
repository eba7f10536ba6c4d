//! Records from the machine-check handler to the poll loop.
#![forbid(unsafe_code)]

use super::Record;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Records that a ring holds.
const RECORDS: usize = 32;

/// A ring without locks, since a machine check can interrupt anything: one handler fills it, one
/// loop takes from it.
pub(crate) struct Ring {
    records: [[AtomicU64; 4]; RECORDS],
    filled: AtomicUsize,
    taken: AtomicUsize,
    lost: AtomicU64,
}

impl Ring {
    /// An empty ring.
    pub(crate) const fn new() -> Self {
        Ring {
            records: [const { [const { AtomicU64::new(0) }; 4] }; RECORDS],
            filled: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Adds a record; if there is no room, it is only counted.
    pub(crate) fn push(&self, record: Record) {
        let filled = self.filled.load(Ordering::Relaxed);
        if filled.wrapping_sub(self.taken.load(Ordering::Acquire)) == RECORDS {
            // Only the handler stores here.
            self.lost.store(self.lost.load(Ordering::Relaxed) + 1, Ordering::Release);
            return;
        }
        let words = [record.bank, record.status, record.address, record.misc];
        for (word, value) in self.records[filled % RECORDS].iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        self.filled.store(filled.wrapping_add(1), Ordering::Release);
    }

    /// Takes the oldest record.
    pub(crate) fn take(&self) -> Option<Record> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.filled.load(Ordering::Acquire) {
            return None;
        }
        let [bank, status, address, misc] =
            self.records[taken % RECORDS].each_ref().map(|word| word.load(Ordering::Relaxed));
        self.taken.store(taken.wrapping_add(1), Ordering::Release);
        Some(Record { bank, status, address, misc })
    }

    /// Whether a record waits to be taken.
    pub(crate) fn is_pending(&self) -> bool {
        self.taken.load(Ordering::Relaxed) != self.filled.load(Ordering::Relaxed)
    }

    /// Records that were taken, modulo the size of the word: whether the loop has run between two
    /// errors.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Errors of which there is no record, because the ring was full when they came.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }
}

/// Notices an instruction that takes the same error again and again: nothing would ever come of it.
#[derive(Debug)]
pub(crate) struct Again {
    last: Option<(u64, u64, usize)>,
    times: u32,
}

/// So many times, and the same error is fatal.
const MOST_TIMES: u32 = 8;

impl Again {
    /// Nothing was taken yet.
    pub(crate) const fn new() -> Self {
        Again { last: None, times: 0 }
    }

    /// An instruction that cannot be given up took an error; `taken` is what the ring says. Returns
    /// whether it is the same as the last few times, and the loop did not run meanwhile.
    pub(crate) fn is_endless(&mut self, rip: u64, address: u64, taken: usize) -> bool {
        let this = Some((rip, address, taken));
        self.times = if self.last == this { self.times + 1 } else { 1 };
        self.last = this;
        self.times >= MOST_TIMES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn record(n: u64) -> Record {
        Record { bank: n, status: n + 1, address: n + 2, misc: n + 3 }
    }

    #[test]
    fn errors_that_come_too_fast_are_counted() {
        let ring = Ring::new();
        assert!(!ring.is_pending());
        (0..40).for_each(|n| ring.push(record(n)));
        assert_eq!(ring.lost(), 8);
        assert!(ring.is_pending());
        let taken: Vec<_> = core::iter::from_fn(|| ring.take()).collect();
        assert_eq!(taken, (0..32).map(record).collect::<Vec<_>>());
        assert!(!ring.is_pending());
        ring.push(record(50));
        assert_eq!((ring.take(), ring.lost()), (Some(record(50)), 8));
    }

    #[test]
    fn only_what_repeats_without_the_loop_is_endless() {
        let mut again = Again::new();
        assert!((1..8).all(|_| !again.is_endless(1, 2, 3)));
        assert!(again.is_endless(1, 2, 3));
        assert!(!again.is_endless(1, 2, 4), "the loop ran");
        // A store of another processor's data, an idle machine: the loop takes each.
        assert!((5..100).all(|taken| !again.is_endless(1, 2, taken)));
        assert!((0..100).all(|n| !again.is_endless(1, n, 0)), "other addresses");
    }

    proptest! {
        #[test]
        fn every_error_is_taken_or_counted(pushes in prop::collection::vec(any::<bool>(), 0..500)) {
            let (ring, mut model, mut lost) = (Ring::new(), VecDeque::new(), 0);
            for (n, push) in pushes.into_iter().enumerate() {
                if !push {
                    prop_assert_eq!(ring.take(), model.pop_front());
                } else {
                    ring.push(record(n as u64));
                    match model.len() {
                        RECORDS => lost += 1,
                        _ => model.push_back(record(n as u64)),
                    }
                }
                prop_assert_eq!(ring.lost(), lost);
                prop_assert_eq!(ring.is_pending(), !model.is_empty());
            }
        }
    }
}
