//! What the kernel does about memory errors: it counts and logs each of them.

use crate::arch::{clock, mce};
use crate::counter::Counter;
use crate::memory_errors::RING;
use core::sync::atomic::{AtomicU64, Ordering};

/// How long corrected errors may wait in their banks, in nanoseconds, while the loop runs.
const POLL_NS: u64 = 1_000_000_000;

static CORRECTED: Counter = Counter::new();
static UNCORRECTED: Counter = Counter::new();
/// Errors without a record that were logged.
static LOST_LOGGED: AtomicU64 = AtomicU64::new(0);

/// Memory errors since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorCounts {
    /// Errors whose data the hardware restored.
    pub(crate) corrected: u64,
    /// Errors that lost data.
    pub(crate) uncorrected: u64,
    /// Errors that came while there was no room to record them. Of which sort they were, and where,
    /// is not known.
    pub(crate) lost: u64,
}

/// The counts of errors that the loop has taken.
pub(crate) fn counts() -> ErrorCounts {
    ErrorCounts {
        corrected: CORRECTED.total(),
        uncorrected: UNCORRECTED.total(),
        lost: LOST_LOGGED.load(Ordering::Relaxed),
    }
}

/// Takes, counts and logs what was recorded. Returns whether there was anything.
pub(crate) fn act() -> bool {
    static NEXT_POLL: AtomicU64 = AtomicU64::new(0);
    let now = clock::now();
    if now.0 >= NEXT_POLL.load(Ordering::Relaxed) {
        NEXT_POLL.store(now.after_ns(POLL_NS).0, Ordering::Relaxed);
        mce::poll();
    }
    take_all()
}

/// Acts on what was recorded, if there is anything, before a packet leaves that could rest on what
/// is lost.
#[inline]
pub(crate) fn act_before_sending() {
    if RING.is_pending() {
        take_all();
    }
}

#[cold]
fn take_all() -> bool {
    let mut acted = false;
    while let Some(record) = RING.take() {
        acted = true;
        let (sort, counter) = match record.uncorrected() {
            true => ("uncorrected", &UNCORRECTED),
            false => ("corrected", &CORRECTED),
        };
        counter.add(1);
        match record.physical() {
            Some(address) => {
                log::error!("{sort} memory error at {address:#x} (bank {})", record.bank)
            }
            None => log::error!(
                "{sort} machine check without address (bank {}, {:#x})",
                record.bank,
                record.status
            ),
        }
    }
    let lost = RING.lost();
    let unsaid = lost - LOST_LOGGED.swap(lost, Ordering::Relaxed);
    if unsaid > 0 {
        acted = true;
        log::error!("{unsaid} more memory errors, which came too fast to be recorded");
    }
    acted
}
