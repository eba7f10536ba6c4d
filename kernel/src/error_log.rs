//! What the kernel does about memory errors: it counts and logs each of them, and tells the volume
//! which blocks are lost, before any packet leaves that could rest on them.

use crate::arch::{clock, mce};
use crate::counter::Counter;
use crate::dax::{self, Volume};
use crate::memory_errors::{INJECTED, RING, Record};
use crate::nvdimm;
use alloc::format;
use alloc::string::String;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;
use umbra_fs::{Block, Struck};
use umbra_server::platform::{Event, EventKind, Events, MemoryErrors};

/// How long corrected errors may wait in their banks, in nanoseconds, while the loop runs.
const POLL_NS: u64 = 1_000_000_000;

static CORRECTED: Counter = Counter::new();
static UNCORRECTED: Counter = Counter::new();
/// Errors without a record that were logged.
static LOST_LOGGED: AtomicU64 = AtomicU64::new(0);
/// What happened.
static EVENTS: Mutex<Events> = Mutex::new(Events::new());

/// The counts of errors that the loop has taken, and of bad blocks.
pub(crate) fn counts() -> MemoryErrors {
    let of_volume = |volume: &mut Volume| {
        (volume.bad_blocks().len() as u64, volume.mended(), volume.last_scrub())
    };
    let (bad_blocks, mended, scrub) = dax::with_volume(of_volume).unwrap_or_default();
    MemoryErrors {
        corrected: CORRECTED.total(),
        uncorrected: UNCORRECTED.total(),
        unrecorded: LOST_LOGGED.load(Ordering::Relaxed),
        bad_blocks,
        mended,
        scrub,
    }
}

/// Adds an event. It is said on the console in a line of its own, which the supervisor keeps.
pub(crate) fn add_event(event: Event) {
    let event = EVENTS.lock().add(event);
    log::info!("event: {event}");
}

/// The first event that is kept and has a greater number.
pub(crate) fn event_behind(number: u64) -> Option<Event> {
    EVENTS.lock().behind(number)
}

/// Notes what happened, now.
fn note(kind: EventKind, address: Option<u64>, block: Option<u64>, count: Option<u64>) {
    add_event(Event { number: 0, time: clock::wall(), kind, address, block, count });
}

/// Has the page at a physical address be lost, because a client says so: what follows is what
/// follows a machine check. The ring is the handler's alone, and is passed by.
pub(crate) fn report(address: u64) {
    dax::if_idle(|volume| take(&Record::injected(address), volume));
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

/// Nothing is sent while somebody is at work on the volume. If somebody is all the same, the
/// records wait.
#[cold]
fn take_all() -> bool {
    dax::if_idle(take_all_for).unwrap_or(false)
}

fn take_all_for(mut volume: Option<&mut Volume>) -> bool {
    let mut acted = false;
    while let Some(record) = RING.take() {
        acted = true;
        take(&record, volume.as_deref_mut());
    }
    let lost = RING.lost();
    let unsaid = lost - LOST_LOGGED.swap(lost, Ordering::Relaxed);
    if unsaid > 0 {
        acted = true;
        log::error!("{unsaid} more memory errors, which came too fast to be recorded");
        note(EventKind::UnrecordedErrors, None, None, Some(unsaid));
    }
    acted
}

fn take(record: &Record, volume: Option<&mut Volume>) {
    let (sort, kind, counter) = match record.uncorrected() {
        true => ("uncorrected", EventKind::MemoryError, &UNCORRECTED),
        false => ("corrected", EventKind::CorrectedError, &CORRECTED),
    };
    counter.add(1);
    match record.physical() {
        Some(address) if record.bank == INJECTED => {
            log::error!("{sort} memory error at {address:#x} (injected)")
        }
        Some(address) => log::error!("{sort} memory error at {address:#x} (bank {})", record.bank),
        None => log::error!(
            "{sort} machine check without address (bank {}, {:#x})",
            record.bank,
            record.status
        ),
    }
    let blocks = record.lost().and_then(|lost| nvdimm::blocks_of(&lost));
    note(kind, record.physical(), blocks.map(|(block, _)| block.0), None);
    if let (Some((first, count)), Some(volume)) = (blocks, volume) {
        strike(volume, first.0..first.0 + count);
    }
}

/// Tells the volume of blocks that are lost.
fn strike(volume: &mut Volume, blocks: Range<u64>) {
    let count = blocks.end - blocks.start;
    let (kind, said) = match volume.memory_error(Block(blocks.start), count) {
        Ok(struck) => (EventKind::BadBlocks, what(struck)),
        Err(error) => (EventKind::BadBlocksFailed, format!("they may be read again: {error}")),
    };
    log::error!("{count} blocks from block {} on: {said}", blocks.start);
    note(kind, None, Some(blocks.start), Some(count));
}

/// What became of blocks that are lost.
fn what(struck: Struck) -> String {
    let Struck { new, known, superblocks, derived } = struck;
    match (superblocks, derived) {
        (0, 0) => format!("{new} are new on the list of bad blocks, {known} were there"),
        _ => format!(
            "{new} are new on the list of bad blocks, {known} were there; {superblocks} have a \
             superblock, and {derived} what can be counted anew"
        ),
    }
}
