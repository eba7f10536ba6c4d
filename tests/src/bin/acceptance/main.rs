//! Measures the absolute figures that Umbra aims at, and prints them as medians.
//!
//! Run it on an idle machine: `cargo acceptance`. It boots machines of its own on temporary
//! state directories. Figures of one kind are measured in turn, round by round, so that what
//! disturbs one disturbs all of them.
//!
//! | file | what |
//! |---|---|
//! | `report.rs` | figures, medians, the table |
//! | `boot.rs` | from the start of QEMU to `ready` |
//! | `transfer.rs` | a disk image in and out, beside what the transport can do |
//! | `clones.rs` | clones of files of all shapes |
//! | `crowd.rs` | what a thousand idle clients cost another one |
//! | `idle.rs` | what an idle guest costs, and how fast it wakes |
//! | `memory.rs` | what windows cost |
//! | `rate.rs` | instructions in 10 ms |
//! | `recovery.rs` | how long a mount takes, after a clean stop and after a kill |
//! | `torture.rs` | kills at random moments (only where it is named) |
//! | `kills.rs` | QEMU killed 50 times under writers of NBD (only where it is named) |
//! | `ping.rs` | the longest turn of every operation, at full sizes (only where it is named) |

mod boot;
mod clones;
mod crowd;
mod idle;
mod kills;
mod memory;
mod ping;
mod rate;
mod recovery;
mod report;
mod torture;
mod transfer;

use clap::Parser;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use umbra::units::parse_bytes;
use umbra_tests::image::REAL_FOLDERS;

/// Measures the absolute figures that Umbra aims at, and prints them as medians.
#[derive(Debug, Parser)]
#[command(name = "acceptance")]
struct Options {
    /// Folders whose files fill the disk image
    #[arg(long, value_name = "DIR", default_values = REAL_FOLDERS)]
    from: Vec<PathBuf>,
    /// Size of the disk image
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_bytes)]
    image_size: u64,
    /// Rounds of each measurement
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Only these: boot, transfer, clones, crowd, idle, memory, rate, recovery. Only where they are
    /// named: torture, which kills QEMU once a round; nbd-kills; ping, for the longest turn at full
    /// sizes, which needs no idle machine but 10 GiB of memory
    only: Vec<String>,
}

/// Tests that take long, and report no figures. They run only where they are named.
const TESTS: &[(&str, fn())] = &[("nbd-kills", kills::run), ("ping", ping::measure)];

/// A measurement, by name.
type Part = (&'static str, fn(&Options, &mut Report));

const TORTURE: &str = "torture";

const PARTS: &[Part] = &[
    ("boot", boot::measure),
    ("transfer", transfer::measure),
    ("clones", clones::measure),
    ("crowd", crowd::measure),
    ("idle", idle::measure),
    ("memory", memory::measure),
    ("rate", rate::measure),
    ("recovery", recovery::measure),
    (TORTURE, torture::measure),
];

fn main() -> ExitCode {
    let options = Options::parse();
    let named = |name: &str| options.only.iter().any(|only| only == name);
    if let Some(other) = options.only.iter().find(|only| !is_part(only)) {
        eprintln!("acceptance: there is no part {other}; see --help");
        return ExitCode::from(2);
    }
    let tests: Vec<_> = TESTS.iter().filter(|(name, _)| named(name)).collect();
    tests.iter().for_each(|(_, run)| run());
    if !tests.is_empty() && tests.len() == options.only.len() {
        return ExitCode::SUCCESS;
    }
    let mut report = Report::default();
    for (name, measure) in PARTS {
        if named(name) || options.only.is_empty() && *name != TORTURE {
            eprintln!("measuring {name} ...");
            measure(&options, &mut report);
        }
    }
    if options.json {
        println!("{}", report.json())
    } else {
        print!("{}", report.text())
    }
    ExitCode::SUCCESS
}

/// Whether this is the name of a measurement or a test.
fn is_part(name: &str) -> bool {
    let parts = PARTS.iter().map(|(part, _)| *part);
    parts.chain(TESTS.iter().map(|(test, _)| *test)).any(|it| it == name)
}
