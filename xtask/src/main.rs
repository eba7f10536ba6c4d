//! The verbs of this repository, each one command: `cargo xtask --help` lists them.
//!
//! A verb starts other programs and fails with the first of them that fails. Which toolchain builds
//! for the host is decided before: by whoever starts this with a cargo (`run-qemu.sh` chooses one).
//! Which one builds for the bare machine, `umbra::toolchain` asks `run-qemu.sh`.
//!
//! | file | what |
//! |---|---|
//! | `main.rs` | the verbs |
//! | `check.rs` | lints |
//! | `run.rs` | other programs |

mod check;
mod run;

use clap::{Args, Parser, Subcommand};
use run::{Failed, cargo, cargo_run, command, run};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// What can be done with this repository, each by one command. Times are those of two cores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lints: long lines, layers, rustfmt, clippy and rustdoc, for the host and the bare machine
    /// (6 minutes at first, then seconds)
    Check,
    /// All tests, with a short fuzz of each target (15 minutes)
    Test(Passed),
    /// The tests of the booted machine only (10 minutes)
    VmTest(Passed),
    /// Counts instructions, flushed lines, fences and allocations of operations, the same on every
    /// machine: `umbra bench --icount` (3 minutes)
    Bench(Passed),
    /// Fuzz of each target: what is kept in fuzz/corpus, and fixed seeds (a minute). It is part of
    /// `test`
    Fuzz(Fuzz),
    /// Explores crashes in another slice of the sequences of two operations than `test` does: that
    /// of this day (a minute)
    Explore(Explore),
    /// Documentation of all crates, to target/doc (a minute)
    Doc {
        /// Opens it in a browser
        #[arg(long)]
        open: bool,
    },
    /// Licences, sources, versions and advisories of dependencies, with cargo-deny where that is
    /// installed (a minute)
    Deny,
    /// Measures the absolute figures that Umbra aims at, on an idle machine (20 minutes); by name:
    /// `ping` at full sizes, `nbd-kills`, `torture`
    Acceptance(Passed),
    /// Measures beside XFS or nbdkit in a Linux guest, on an idle machine: `xfs` (3 minutes), `nbd`
    /// (10 minutes)
    Peers(Passed),
    /// Measures how costs grow, on an idle machine, and draws the curves of docs/performance.md (6
    /// minutes)
    Growth(Passed),
    /// Tries the README's two commands in a fresh Debian, as root (30 minutes, 6 GB)
    FreshDebian(Passed),
}

/// What is passed on.
#[derive(Debug, Args)]
struct Passed {
    /// Arguments for what is started
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[derive(Debug, Args)]
struct Fuzz {
    /// Seeds for each target of the filesystem, instead of 1,500
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// Let libFuzzer look for inputs, so many minutes for each target: takes cargo-fuzz and a
    /// nightly toolchain
    #[arg(long, value_name = "MINUTES", conflicts_with = "seeds")]
    long: Option<u64>,
}

#[derive(Debug, Args)]
struct Explore {
    /// This slice of 160
    #[arg(long, value_name = "N")]
    slice: Option<u64>,
    /// All sequences of two, and a sample of three (hours)
    #[arg(long, conflicts_with = "slice")]
    all: bool,
}

fn main() -> ExitCode {
    match act(Options::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("xtask: {failed}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> Result<(), Failed> {
    match verb {
        Verb::Check => check::all(),
        Verb::Test(passed) => test(&passed.arguments),
        Verb::VmTest(passed) => {
            run(cargo().args(["test", "--package", "umbra-tests"]).args(passed.arguments))
        }
        Verb::Bench(passed) => {
            run(cargo_run("umbra", "umbra").args(["bench", "--icount"]).args(passed.arguments))
        }
        Verb::Fuzz(options) => fuzz(&options),
        Verb::Explore(options) => explore(&options),
        Verb::Doc { open } => {
            let open = open.then_some("--open");
            run(cargo().args(["doc", "--no-deps", "--document-private-items"]).args(open))
        }
        Verb::Deny => {
            let check = ["deny", "--workspace", "check"];
            run(cargo().args(check).args(["licenses", "bans", "sources"]))?;
            // Only this one takes a network.
            run(cargo().args(check).arg("advisories"))
        }
        Verb::Acceptance(passed) => measure("acceptance", &passed),
        Verb::Peers(passed) => measure("peers", &passed),
        Verb::Growth(passed) => measure("growth", &passed),
        Verb::FreshDebian(passed) => run(command("tests/fresh-debian.sh").args(passed.arguments)),
    }
}

fn measure(program: &str, passed: &Passed) -> Result<(), Failed> {
    run(cargo_run("umbra-tests", program).args(&passed.arguments))
}

fn test(arguments: &[String]) -> Result<(), Failed> {
    // Of these, the tests that need no bare machine; `boot` is no default member.
    run(cargo().args(["test", "--package", "umbra-boot", "--package", "umbra-kernel", "--lib"]))?;
    run(cargo().arg("test").args(arguments))
}

fn fuzz(options: &Fuzz) -> Result<(), Failed> {
    if let Some(minutes) = options.long {
        for target in ["mount", "operate", "nbd"] {
            let time = format!("-max_total_time={}", minutes.saturating_mul(60));
            run(command("cargo").args(["+nightly", "fuzz", "run", target, "--", &time]))?;
        }
        return Ok(());
    }
    let mut of_fs = cargo();
    of_fs.args(["test", "--package", "umbra-fs", "--test", "corpus"]);
    if let Some(seeds) = options.seeds {
        of_fs.arg("--release").env("UMBRA_FUZZ_SEEDS", seeds.to_string());
    }
    run(&mut of_fs)?;
    let of_server = ["--package", "umbra-server", "--test", "nbd_fuzz", "--test", "rpc_fuzz"];
    run(cargo().arg("test").args(of_server))
}

fn explore(options: &Explore) -> Result<(), Failed> {
    let mut crash = cargo();
    crash.args(["test", "--release", "--package", "umbra-fs", "--test", "crash"]);
    if options.all {
        crash.env("UMBRA_EXPLORE", "all");
    } else {
        let today = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.as_secs() / 86_400
        };
        let slice = options.slice.unwrap_or_else(today);
        crash.env("UMBRA_EXPLORE_SLICE", slice.to_string());
    }
    run(crash.args(["--", "--nocapture"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn what_a_verb_passes_on_may_be_options() {
        let parsed = |arguments: &[&str]| {
            Options::try_parse_from([&["cargo xtask"], arguments].concat()).unwrap().verb
        };
        let Verb::Test(passed) = parsed(&["test", "-p", "umbra-fs", "--", "--nocapture"]) else {
            panic!("it is no test")
        };
        assert_eq!(passed.arguments, ["-p", "umbra-fs", "--", "--nocapture"]);
        let Verb::Acceptance(passed) = parsed(&["acceptance", "ping"]) else {
            panic!("it is no measurement")
        };
        assert_eq!(passed.arguments, ["ping"]);
    }
}
