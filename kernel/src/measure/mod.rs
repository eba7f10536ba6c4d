//! The floor: what the least costs that operations are made of, on this machine.
//!
//! Absolute figures say little under emulation; ratios taken in one run do. So benchmarks come with
//! these: a page fault whose handler does nothing but grant the access, one that copies 4 KiB
//! besides, copies, write-back, invalidation. Each is the median of several runs, with interrupts
//! off, in memory that was touched before.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the list, medians |
//! | `floor.rs` | copies, bare page faults, invalidation, write-back |
//! | `counts.rs` | counts that lie far apart |

mod counts;
mod floor;

use crate::arch::clock;
use crate::cpu;
use alloc::string::String;
use alloc::vec::Vec;
use umbra_server::platform::Sample;
use x86_64::instructions::interrupts::without_interrupts;

/// Runs of each measurement.
const RUNS: usize = 9;

/// Time of `ops` things that `f` does, in nanoseconds.
fn time(f: impl FnOnce()) -> u64 {
    without_interrupts(|| {
        let start = cpu::tsc();
        f();
        clock::ticks_to_ns(cpu::tsc() - start)
    })
}

/// The median of several runs of `f`, each of which takes this long for `ops` operations, after
/// one that warms up.
fn median(name: impl Into<String>, ops: u64, mut f: impl FnMut() -> u64) -> Sample {
    f();
    let mut times: Vec<u64> = (0..RUNS).map(|_| f()).collect();
    times.sort_unstable();
    Sample { name: name.into(), ops, ns: times[RUNS / 2], flushes: 0, fences: 0, allocations: 0 }
}

/// Measures. What there is no memory for is left out.
pub(crate) fn run() -> Vec<Sample> {
    let mut all = Vec::new();
    floor::run(&mut all);
    counts::run(&mut all);
    all
}
