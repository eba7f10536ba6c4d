//! Clones, faults and directories, by the benchmarks in the guest: instructions on a machine that
//! counts them, times on one that does not.

use crate::Options;
use crate::curve::{Aim, Curve, Series, count, size, time};
use std::collections::BTreeMap;
use std::time::Duration;
use umbra::bench;
use umbra::client::Client;
use umbra::plot::{Axis, Scale};
use umbra_tests::Machine;

/// The largest directory takes a minute to fill and empty.
const PATIENCE: Duration = Duration::from_secs(600);
/// From here on a round warms itself up.
const LARGE: u64 = 100_000;

/// A part of `umbra bench`, what grows in it, and at which values.
struct Part {
    name: &'static str,
    title: &'static str,
    x: Axis<'static>,
    points: &'static [u64],
    quick: [u64; 2],
    /// Its operations: what people call them.
    operations: &'static [(&'static str, &'static str)],
    /// How many of them, from the first on, cost the same everywhere.
    flat: usize,
    scale: Scale,
}

const SIZES: &[u64] = &[4 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20, 4 << 30, 64 << 30];
const LEAVES: &[u64] = &[2 << 20, 16 << 20, 128 << 20, 1 << 30, 8 << 30, 64 << 30];
const EXTENTS: &[u64] = &[1, 8, 64, 512, 4096, 32_768, 262_144];
const CLONES: &[u64] = &[1, 2, 10, 100, 1000, 10_000];
/// 2,000 files with 512 shadows each: a million.
const SHOWING: &[u64] = &[1, 10, 100, 500, 2000];
const NAMES: &[u64] = &[1000, 4000, 10_000, 20_000, 30_000, 60_000, 100_000, 300_000, 1_000_000];
const FAULTS: &[(&str, &str)] =
    &[("cow_fault", "copy-on-write fault"), ("first_store", "first store below a shared leaf")];

const PARTS: &[Part] = &[
    Part {
        name: "clone-size",
        title: "Clone, against the size of the file",
        x: Axis { label: "size of the file", show: size },
        points: SIZES,
        quick: [4 << 10, 64 << 30],
        operations: &[("clone", "clone")],
        flat: 1,
        scale: Scale::Linear,
    },
    Part {
        name: "clone-fragments",
        title: "Clone, against the extents of the file",
        x: Axis { label: "extents", show: count },
        points: EXTENTS,
        quick: [1, 4096],
        operations: &[("clone", "clone")],
        flat: 1,
        scale: Scale::Linear,
    },
    Part {
        name: "fault-clones",
        title: "Store into the last of many clones",
        x: Axis { label: "clones", show: count },
        points: CLONES,
        quick: [1, 1000],
        operations: FAULTS,
        flat: 2,
        scale: Scale::Logarithmic,
    },
    Part {
        name: "fault-shadows",
        title: "Store while others show the same blocks",
        x: Axis { label: "files that show the same 512 blocks", show: count },
        points: SHOWING,
        quick: [1, 100],
        operations: FAULTS,
        flat: 2,
        scale: Scale::Logarithmic,
    },
    Part {
        name: "fault-size",
        title: "Store into a clone, against the size of the file",
        x: Axis { label: "size of the file", show: size },
        points: LEAVES,
        quick: [2 << 20, 64 << 30],
        operations: FAULTS,
        flat: 1,
        scale: Scale::Logarithmic,
    },
    Part {
        name: "directory",
        title: "Names, against the entries of the directory",
        x: Axis { label: "entries", show: count },
        points: NAMES,
        quick: [1000, 4000],
        operations: &[("create", "create"), ("unlink", "unlink"), ("lookup", "lookup")],
        flat: 0,
        scale: Scale::Linear,
    },
];

/// What one operation takes: by part, operation and point.
type Measured = BTreeMap<(&'static str, String), Vec<(f64, f64)>>;

fn run(client: &mut Client, options: &Options, rounds: usize) -> Measured {
    let mut all = Measured::new();
    for part in PARTS {
        for point in options.points(part.points, part.quick) {
            eprintln!("        {}: {}", part.name, (part.x.show)(point as f64));
            // A directory of a million is its own warm-up, and large enough to be a mean by itself.
            let large = part.name == "directory" && point >= LARGE;
            let figures = match large {
                true => {
                    client.bench(part.name, Some(point)).map(|samples| bench::merge(&[samples]))
                }
                false => bench::run(client, part.name, Some(point), rounds),
            };
            for figure in figures.expect("the guest measures") {
                all.entry((part.name, figure.name))
                    .or_default()
                    .push((point as f64, figure.per_op));
            }
        }
    }
    all
}

fn on_a_machine(options: &Options, counted: bool) -> Measured {
    // The RAM has slots for a million shadows.
    let machine = Machine::nvdimm(if options.quick { "256M" } else { "2G" }).memory("192M");
    let vm = machine.in_memory().prepare();
    let arguments: &[&str] = match counted {
        true => &["--prealloc", "--accel", "tcg", "--icount"],
        false => &["--prealloc", "--accel", "tcg"],
    };
    vm.up_with(arguments);
    let mut client = vm.client();
    client.set_timeout(Some(PATIENCE)).expect("a timeout");
    // Counts hardly differ from round to round.
    let measured = run(&mut client, options, if counted { 1 } else { options.rounds });
    drop(client);
    vm.assert_clean();
    measured
}

/// Measures all parts, twice.
pub fn measure(options: &Options) -> Vec<Curve> {
    eprintln!("      in instructions:");
    let mut counts = on_a_machine(options, true);
    eprintln!("      in time:");
    let mut times = on_a_machine(options, false);
    let curve = |part: &Part| {
        let take = |from: &mut Measured, operation: &str| {
            from.remove(&(part.name, operation.to_string())).expect("the guest measured it")
        };
        let mut series = Vec::new();
        for (at, &(operation, called)) in part.operations.iter().enumerate() {
            let counted = Series::drawn(called, count, take(&mut counts, operation));
            series.push(if at < part.flat { counted.aim(Aim::Flat(10.0)) } else { counted });
        }
        for &(operation, called) in part.operations {
            series.push(Series::listed(
                format!("{called}, time"),
                time,
                take(&mut times, operation),
            ));
        }
        let y = Axis { label: "instructions of one operation", show: count };
        Curve { name: part.name, title: part.title, x: part.x, y, scale: part.scale, series }
    };
    PARTS.iter().map(curve).collect()
}
