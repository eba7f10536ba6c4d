//! The crash explorer: every crash in sequences of one operation, and in a slice of all
//! sequences of two.
//!
//! `UMBRA_EXPLORE=all` explores all sequences of two, and a sample of three (a long run: use
//! `--release`). `UMBRA_EXPLORE_SLICE=n` chooses another slice than the one that every change is
//! tested with; `cargo xtask explore` takes that of the day.

mod explorer;

use explorer::ops::Op;
use explorer::setups::Setup;
use explorer::{Coverage, Explorer, Violation, setups};
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Once;
use std::time::Instant;

/// Slices that the sequences of two are cut into.
const SLICES: usize = 160;
/// The slice that every change is tested with, so that a failure is the change's.
const PINNED_SLICE: usize = 0;

/// The operation, with long names cut.
fn short(op: &Op) -> String {
    format!("{op:?}").replace(&"0".repeat(200), "..")
}

fn all() -> bool {
    std::env::var("UMBRA_EXPLORE").is_ok_and(|what| what == "all")
}

/// The slice that is explored. It is printed past the capture of a test's output.
fn slice() -> usize {
    let chosen = std::env::var("UMBRA_EXPLORE_SLICE").ok().and_then(|n| n.parse().ok());
    let slice = chosen.unwrap_or(PINNED_SLICE) % SLICES;
    if !all() {
        static PRINTED: Once = Once::new();
        // Where standard error is closed, nobody wants to know.
        PRINTED.call_once(|| drop(writeln!(io::stderr(), "slice {slice} of {SLICES}")));
    }
    slice
}

fn report(name: &str, coverage: &Coverage, started: Instant) {
    let Coverage {
        runs,
        points,
        exhaustive,
        states,
        distinct,
        nested_points,
        nested_states,
        poisoned,
    } = coverage;
    println!(
        "{name}: {runs} sequences, {points} crash points ({exhaustive} exhaustive), {states} \
         states ({distinct} distinct), during recovery {nested_points} points and \
         {nested_states} states, {poisoned} mounts with an unreadable line, {:.0} s",
        started.elapsed().as_secs_f64()
    );
}

fn finish(name: &str, coverage: &Coverage, started: Instant, bad: Vec<Violation>) {
    report(name, coverage, started);
    for violation in bad.iter().take(10) {
        let at = violation.at.replace(&"0".repeat(200), "..");
        println!("VIOLATION: {}\n   in {at}", violation.what);
    }
    assert!(bad.is_empty(), "{} sequences have violations", bad.len());
}

fn one(setup: Setup) {
    let started = Instant::now();
    let name = format!("one operation on '{}'", setup.name);
    let setup = Rc::new(setup);
    let mut explorer = Explorer::new(setup.clone());
    explorer.poison_every = 16;
    let mut bad = Vec::new();
    for op in setup.ops.iter().chain(&setup.large) {
        match explorer.explore(&[*op]) {
            Ok(None) => panic!("{} makes no sense in {}", short(op), setup.name),
            Ok(Some(fences)) => {
                let most = most_fences(op, &setup).unwrap_or(u64::MAX);
                assert!(fences <= most, "{}: {fences} fences, not {most}", short(op));
            }
            Err(violation) => bad.push(violation),
        }
    }
    finish(&name, &explorer.coverage, started, bad);
}

/// Most fences that an operation may need: what is promised, and what growing adds.
fn most_fences(op: &Op, setup: &Setup) -> Option<u64> {
    // A split bucket and another block of inodes, at most 3 fences each.
    let growth = if setup.name == "full" { 6 } else { 0 };
    Some(match op {
        Op::Create(_) | Op::Mkdir(_) | Op::Unlink(_) | Op::Rmdir(_) | Op::Rename(..) => 2 + growth,
        Op::Clone(..) | Op::Link(..) | Op::Symlink(..) | Op::Name(_) => 2 + growth,
        // Below one leaf of the tree, to bytes that are there, and not at a border.
        Op::Write("b", ..) | Op::Write("p", ..) => 2,
        Op::Write("f", ..) => 0,
        // The rest of the last block of a file that is being made longer is zeroed first.
        Op::Append("a" | "c" | "f" | "g" | "h" | "d/y", _) => 3,
        // Files of less than one leaf.
        Op::Dedupe(..) => 2,
        Op::Store(..) if setup.name == "equal" => 2,
        // A block that is filled where it is costs what a new one does; marks need no content.
        Op::Write("u" | "w" | "x", ..) => 2,
        Op::Write("v", at, len) if at + len <= 3000 => 2,
        Op::Store("u", ..) => 4,
        Op::Store("v" | "w", ..) => 2,
        Op::Provide("u", 0, _) | Op::Provide("y", 0, _) => 1,
        // One page each, but for these, which touch two shared ones.
        Op::Store("b" | "d/c", ..) => 4,
        Op::Store("d/x" | "t" | "p", ..) => 2,
        Op::Store(..) => 0,
        _ => return None,
    })
}

/// A file that had no name has it at once, with all that it contains; and with two fences, whatever
/// had the name before.
#[test]
fn a_file_is_named_at_once() {
    let started = Instant::now();
    let mut bad = Vec::new();
    let mut coverage = Coverage::default();
    for setup in [setups::files(), setups::links(), setups::full()] {
        let setup = Rc::new(setup);
        let mut explorer = Explorer::new(setup.clone());
        let free: &'static str = format!("{:0240}", 20).leak();
        let names: Vec<&'static str> = match setup.name {
            "files" => vec!["n", "d/n", "a", "b", "c", "d/x", "f", "g", "k"],
            "links" => vec!["n", "a", "h", "d/h", "i", "s", "d/s"],
            _ => vec!["d/n", "d/c", free],
        };
        for name in names {
            let op = Op::Name(name);
            match explorer.explore(&[Op::Unnamed(5000), op]) {
                Ok(None) => panic!("{} makes no sense in {}", short(&op), setup.name),
                Ok(Some(fences)) => {
                    assert!(Some(fences) <= most_fences(&op, &setup), "{}: {fences}", short(&op))
                }
                Err(violation) => bad.push(violation),
            }
        }
        coverage.add(&explorer.coverage);
    }
    finish("naming a file", &coverage, started, bad);
}

/// Sequences of two: those that `wanted` chooses, by the sum of their numbers. So every slice has
/// all operations, if there are as many as slices, first and second.
fn two(setup: Setup, wanted: impl Fn(usize) -> bool, nested: u64) {
    let started = Instant::now();
    let name = format!("two operations on '{}'", setup.name);
    let setup = Rc::new(setup);
    let mut explorer = Explorer::new(setup.clone());
    explorer.nested = nested;
    let mut bad = Vec::new();
    for (i, first) in setup.ops.iter().enumerate() {
        for (j, second) in setup.ops.iter().enumerate() {
            if wanted(i * setup.ops.len() + j) {
                bad.extend(explorer.explore(&[*first, *second]).err());
            }
        }
        if all() {
            report(&format!("{name}, up to {}", short(first)), &explorer.coverage, started);
        }
    }
    finish(&name, &explorer.coverage, started, bad);
}

#[test]
fn one_operation_on_files() {
    one(setups::files());
}

#[test]
fn one_operation_on_tall_trees() {
    one(setups::tall());
}

#[test]
fn one_operation_on_equal_files() {
    one(setups::equal());
}

#[test]
fn one_operation_on_unwritten_blocks() {
    one(setups::unwritten());
}

#[test]
fn one_operation_on_full_buckets() {
    one(setups::full());
}

#[test]
fn one_operation_on_links() {
    one(setups::links());
}

#[test]
fn two_operations_on_files() {
    let chosen = slice();
    two(setups::files(), |n| all() || n % SLICES == chosen, if all() { 4 } else { 1 });
}

#[test]
fn two_operations_on_tall_trees() {
    let chosen = slice();
    two(setups::tall(), |n| all() || n % SLICES == chosen, if all() { 4 } else { 1 });
}

#[test]
fn two_operations_on_equal_files() {
    let chosen = slice();
    two(setups::equal(), |n| all() || n % SLICES == chosen, if all() { 4 } else { 1 });
}

#[test]
fn two_operations_on_unwritten_blocks() {
    let chosen = slice();
    two(setups::unwritten(), |n| all() || n % SLICES == chosen, if all() { 4 } else { 1 });
}

#[test]
fn two_operations_on_full_buckets() {
    let chosen = slice();
    two(setups::full(), |n| all() || n % SLICES == chosen, if all() { 4 } else { 1 });
}

#[test]
fn two_operations_on_links() {
    let chosen = slice();
    two(setups::links(), |n| all() || n % SLICES == chosen, if all() { 4 } else { 1 });
}

/// What is between two steps of a clone of a range, and the rest of its steps after that.
#[test]
fn what_is_between_the_steps_of_a_range() {
    use Op::*;
    let started = Instant::now();
    let setup = Rc::new(setups::files());
    let mut explorer = Explorer::new(setup.clone());
    explorer.nested = 1;
    let mut bad = Vec::new();
    let between = [
        Store("a", 5000, 100),
        Write("a", 0, 9000),
        Truncate("a", 0),
        Unlink("a"),
        Unlink("k"),
        Rename("f", "k"),
        Write("k", 4096, 4096),
        Truncate("k", 5000),
        Truncate("k", 50_000),
        Clone("k", "n"),
        Reclaim,
        Remount,
    ];
    for range in [BeginCloneRange("a", 0, "k", 1, 3), BeginCloneRange("a", 0, "k", 1, 4)] {
        bad.extend(explorer.explore(&[range, GoOn]).err());
        for op in between {
            bad.extend(explorer.explore(&[range, op]).err());
            bad.extend(explorer.explore(&[range, op, GoOn]).err());
        }
    }
    finish("what is between the steps of a range", &explorer.coverage, started, bad);
}

/// Sequences of three over names and sharing: a sample, in the long run only.
#[test]
fn three_operations_on_files() {
    if !all() {
        return;
    }
    let started = Instant::now();
    let setup = Rc::new(setups::files());
    let mut explorer = Explorer::new(setup.clone());
    explorer.nested = 1;
    let names = |op: &&Op| {
        !matches!(
            op,
            Op::Write("f" | "a", ..)
                | Op::Sync(_)
                | Op::Reclaim
                | Op::Truncate(..)
                | Op::Append(..)
        )
    };
    let ops: Vec<Op> = setup.ops.iter().filter(names).copied().collect();
    let mut seed = slice() as u64 + 1;
    let mut pick = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ops[(seed >> 33) as usize % ops.len()]
    };
    let mut bad = Vec::new();
    for _ in 0..5000 {
        bad.extend(explorer.explore(&[pick(), pick(), pick()]).err());
    }
    finish("three operations on 'files'", &explorer.coverage, started, bad);
}

/// Prints how much is undecided at each point of four operations, and how many states
/// that makes: see docs/decisions/2026-11-23-crash-states.md.
#[test]
fn states_of_scripted_operations() {
    let mut explorer = Explorer::new(Rc::new(setups::files()));
    explorer.verbose = true;
    explorer.nested = 0;
    for op in [Op::Create("n"), Op::Write("b", 100, 200), Op::Clone("a", "n"), Op::Unlink("a")] {
        explorer.explore(&[op]).expect("no violation");
    }
    // Each word of metadata is undecided in both copies, so of a few points there are samples.
    assert!(explorer.coverage.exhaustive * 5 >= explorer.coverage.points * 4);
}
