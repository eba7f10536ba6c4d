//! What faults, copies and counts cost on this machine.
//!
//! Absolute figures say little under emulation; ratios taken in one run do. So the floor is
//! measured here too: a page fault whose handler does nothing but grant the access, and one
//! that copies 4 KiB besides. Each figure is the median of several runs, with interrupts off.
//!
//! Everything is measured in memory that was touched before. The volume gets two files for the
//! time being, and the counts part stores words that it read just before.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod.rs` | the list, medians |
//! | `floor.rs` | copies, bare page faults, invalidation |
//! | `faults.rs` | the real fault path |
//! | `counts.rs` | counts that lie far apart |

mod counts;
mod faults;
mod floor;

use crate::arch::{clock, cpu};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use x86_64::instructions::interrupts::without_interrupts;

/// Runs of each measurement.
const RUNS: usize = 9;

/// A cost in tenths of nanoseconds: medians of a few nanoseconds need a digit more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost(u64);

impl core::fmt::Display for Cost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            tenths if tenths < 1000 => write!(f, "{}.{} ns", tenths / 10, tenths % 10),
            tenths if tenths < 10_000_000 => write!(f, "{}.{:02} us", tenths / 10_000, tenths / 100 % 100),
            tenths => write!(f, "{}.{:02} ms", tenths / 10_000_000, tenths / 100_000 % 100),
        }
    }
}

/// Time of one of `count` things that `f` does.
fn time(count: u64, f: impl FnOnce()) -> Cost {
    without_interrupts(|| {
        let start = cpu::tsc();
        f();
        Cost(clock::ticks_to_ns(cpu::tsc() - start) * 10 / count.max(1))
    })
}

/// The median of several runs of `f`, after one that warms up.
fn median(mut f: impl FnMut() -> Result<Cost, String>) -> Result<Cost, String> {
    f()?;
    let mut costs = (0..RUNS).map(|_| f()).collect::<Result<Vec<_>, _>>()?;
    costs.sort();
    Ok(costs[costs.len() / 2])
}

/// A ratio, to two digits.
fn ratio(cost: Cost, to: Cost) -> String {
    let hundredths = cost.0 * 100 / to.0.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Measures everything and hands out the lines of a report.
pub fn run(line: &mut dyn FnMut(&str)) -> Result<(), String> {
    let floor = floor::run(line)?;
    faults::run(line, floor)?;
    counts::run(line)
}
