//! Benchmarks in the server itself: what operations cost without the way to a client.
//!
//! Each operation goes the way that a client's request goes: names through the functions that
//! answer requests, writes through the volume's write path in the pieces that a transfer has,
//! loads and stores through windows and the fault handler. Times are of the machine's clock;
//! where that counts instructions, so do they. One call is one round: whoever asks for several
//! has medians, and the spread.
//!
//! | file | what |
//! |---|---|
//! | `rig.rs` | what the parts have in common: files, samples |
//! | `operations.rs` | the operations of a filesystem, each for itself |
//! | `growth.rs` | one operation while something grows |

mod growth;
mod operations;
pub(crate) mod rig;

use super::failure::Failure;
use crate::platform::Platform;
use alloc::vec::Vec;
use rig::Bench;
use umbra_proto::rpc;

/// Runs a part.
pub fn run<M: Platform>(machine: &mut M, r: rpc::Bench) -> Result<Vec<rpc::Sample>, Failure> {
    let mut bench = Bench::new(machine);
    bench.clean()?;
    let result = match r.part {
        "floor" => {
            bench.samples = bench.machine.floor();
            Ok(())
        }
        "operations" => operations::run(&mut bench, r.parameter.unwrap_or(64)),
        part => growth::run(&mut bench, part, r.parameter.unwrap_or(1)),
    };
    let closed = bench.close_all();
    let cleaned = if r.keep { Ok(()) } else { bench.clean() };
    let samples = bench.samples;
    result.and(closed).and(cleaned).map(|()| samples)
}
