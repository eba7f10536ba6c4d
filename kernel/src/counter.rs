//! Counters that cost no lock: each processor adds to a word of its own.
//!
//! A locked addition is a call in an emulator, and takes a cache line from the other processors on
//! hardware. So a processor adds by one instruction without lock to a word that only that processor
//! changes. An interrupt comes before the instruction or after it, so the interrupt's handler may
//! add to the same counter.

use core::sync::atomic::{AtomicU64, Ordering};

/// Processors that run. The kernel starts one.
const PROCESSORS: usize = 1;

/// Which of them runs this.
#[inline(always)]
fn processor() -> usize {
    0
}

/// The word of one processor, alone in its cache line.
#[repr(align(64))]
struct Word(AtomicU64);

/// A counter that starts at 0 and only grows.
pub(crate) struct Counter([Word; PROCESSORS]);

impl Counter {
    /// A counter at 0.
    pub(crate) const fn new() -> Self {
        Self([const { Word(AtomicU64::new(0)) }; PROCESSORS])
    }

    /// Adds to the word of this processor.
    #[inline(always)]
    pub(crate) fn add(&self, count: u64) {
        let word = self.0[processor()].0.as_ptr();
        // SAFETY: the word lives as long as `self`, and is aligned. Only this processor stores to
        // it, by this one instruction; other processors load it, whole.
        unsafe {
            core::arch::asm!(
                "add qword ptr [{}], {}",
                in(reg) word,
                in(reg) count,
                options(nostack)
            )
        };
    }

    /// The sum over all processors.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|word| word.0.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        static COUNTER: Counter = Counter::new();
        assert_eq!(COUNTER.total(), 0);
        for i in 1..=100 {
            COUNTER.add(i);
        }
        assert_eq!(COUNTER.total(), 5050);
    }
}
