//! Looking at memory after each instruction, for tests: whether each aligned word is old or new at
//! any moment.
//!
//! The processor traps after each instruction, and after each turn of a repeated one, while the
//! trap flag is set (SDM volume 3, 18.3.1.4).

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::Mutex;

/// Runs `f` with a trap after each instruction.
pub(crate) fn step<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: sets the trap flag, whose exception is handled.
    unsafe { asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq") };
    let result = f();
    // SAFETY: clears it.
    unsafe { asm!("pushfq", "and dword ptr [rsp], 0xfffffeff", "popfq") };
    result
}

/// What is looked at, as addresses: so many words, what they were before, and what they will be.
#[derive(Clone, Copy)]
struct Watch {
    words: usize,
    now: usize,
    old: usize,
    new: usize,
}

static WATCH: Mutex<Option<Watch>> = Mutex::new(None);
static STEPS: AtomicU64 = AtomicU64::new(0);
static TORN: AtomicBool = AtomicBool::new(false);

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Instructions after which memory was looked at.
    pub(crate) steps: u64,
    /// A word was neither old nor new after one of them.
    pub(crate) torn: bool,
}

/// Runs `f`, which changes the words at `now` from `old` to `new`, and looks at them after each
/// instruction.
///
/// # Safety
///
/// The words can be read as long as `f` runs, and nothing else changes them.
pub(crate) unsafe fn watch(now: *const u64, old: &[u64], new: &[u64], f: impl FnOnce()) -> Seen {
    assert_eq!(old.len(), new.len());
    STEPS.store(0, Ordering::Relaxed);
    TORN.store(false, Ordering::Relaxed);
    let (old, new, words) = (old.as_ptr().addr(), new.as_ptr().addr(), old.len());
    *WATCH.lock() = Some(Watch { words, now: now.addr(), old, new });
    step(f);
    *WATCH.lock() = None;
    Seen { steps: STEPS.load(Ordering::Relaxed), torn: TORN.load(Ordering::Relaxed) }
}

/// An instruction is done.
pub(crate) fn look() {
    let Some(Some(watch)) = WATCH.try_lock().map(|watch| *watch) else { return };
    STEPS.fetch_add(1, Ordering::Relaxed);
    let word = |base: usize, at: usize| {
        // SAFETY: the caller of `watch` vouches for the words.
        unsafe { (base as *const u64).add(at).read_volatile() }
    };
    for at in 0..watch.words {
        let now = word(watch.now, at);
        if now != word(watch.old, at) && now != word(watch.new, at) {
            TORN.store(true, Ordering::Relaxed);
        }
    }
}
