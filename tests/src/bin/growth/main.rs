//! Measures how costs grow, and remakes every curve of `docs/performance.md`: `cargo growth`.
//!
//! Run it on an idle machine. It boots machines of its own, with their NVDIMMs in memory where that
//! is possible (5 GiB at most at once). What has to be exact is counted in instructions, which are
//! the same on every machine; beside that, and where only time can tell, there are medians of
//! times.
//!
//! | file | what |
//! |---|---|
//! | `curve.rs` | a curve: its points, its figure, its table, what it should show |
//! | `docs.rs` | figures and tables put into the documentation |
//! | `guest.rs` | clones, faults and directories, by the benchmarks in the guest |
//! | `memory.rs` | memory for each shadow |
//! | `mounts.rs` | mounts after a kill |
//! | `connections.rs` | throughput against connections |

mod connections;
mod curve;
mod docs;
mod guest;
mod memory;
mod mounts;

use clap::Parser;
use curve::Curve;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Measures how costs grow, and remakes every curve of docs/performance.md.
#[derive(Debug, Parser)]
#[command(name = "growth")]
struct Options {
    /// Rounds of what is timed
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Only two points of each curve, and short ones, to see that all of it works
    #[arg(long)]
    quick: bool,
    /// Folder with the documentation: figures go to `growth/` in it, tables into its
    /// `performance.md`
    #[arg(long, value_name = "DIR", default_value_os_t = docs())]
    docs: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Only these: guest, memory, mounts, connections
    only: Vec<String>,
}

impl Options {
    /// What a curve is measured at: all, or if it has to be quick, two of them.
    fn points(&self, all: &[u64], quick: [u64; 2]) -> Vec<u64> {
        if self.quick { quick.to_vec() } else { all.to_vec() }
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// A measurement, by name.
type Part = (&'static str, fn(&Options) -> Vec<Curve>);

const PARTS: &[Part] = &[
    ("guest", guest::measure),
    ("memory", memory::measure),
    ("mounts", mounts::measure),
    ("connections", connections::measure),
];

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(unknown) =
        options.only.iter().find(|only| PARTS.iter().all(|(name, _)| name != only))
    {
        eprintln!("growth: there is no part '{unknown}': guest, memory, mounts, connections");
        return ExitCode::from(2);
    }
    let start = Instant::now();
    let mut curves = Vec::new();
    for (name, measure) in PARTS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            eprintln!("{:>4} s  measuring {name} ...", start.elapsed().as_secs());
            curves.extend(measure(&options));
        }
    }
    eprintln!("{:>4} s  done", start.elapsed().as_secs());
    if options.json {
        println!("{}", curve::json(&curves));
    } else {
        curves.iter().for_each(|curve| println!("{}\n\n{}", curve.title, curve.table()));
    }
    match docs::write(&options.docs, &curves) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("growth: {why}");
            ExitCode::FAILURE
        }
    }
}
