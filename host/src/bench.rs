//! Benchmarks: rounds in the server, medians here.

use crate::client::rpc::Sample;
use crate::client::{Client, Result};
use serde_json::{Value, json};

/// What a time is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// Instructions of the guest.
    Instructions,
}

/// One operation, over all rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// How often it was done in a round.
    pub ops: u64,
    /// What one took: the median of all rounds, the least and the most.
    pub per_op: f64,
    /// The least of all rounds.
    pub least: f64,
    /// The most of all rounds.
    pub most: f64,
    /// Lines that were flushed, for one; in the last round.
    pub flushes: f64,
    /// Fences.
    pub fences: f64,
    /// Allocations from the heap.
    pub allocations: f64,
}

/// Runs a part of the benchmarks as often as `rounds` says, after one round that warms up.
pub fn run(
    client: &mut Client,
    part: &str,
    parameter: Option<u64>,
    rounds: usize,
) -> Result<Vec<Figure>> {
    client.bench(part, parameter)?;
    let rounds =
        (0..rounds.max(1)).map(|_| client.bench(part, parameter)).collect::<Result<Vec<_>>>()?;
    Ok(merge(&rounds))
}

/// The medians of rounds, which have the same operations in the same order.
pub fn merge(rounds: &[Vec<Sample>]) -> Vec<Figure> {
    let Some(last) = rounds.last() else { return Vec::new() };
    let figure = |(at, sample): (usize, &Sample)| {
        let ops = sample.ops.max(1) as f64;
        let mut all: Vec<f64> =
            rounds.iter().filter_map(|r| r.get(at)).map(|s| s.ns as f64 / ops).collect();
        all.sort_by(f64::total_cmp);
        Figure {
            name: sample.name.clone(),
            ops: sample.ops,
            per_op: all[all.len() / 2],
            least: all[0],
            most: all[all.len() - 1],
            flushes: sample.flushes as f64 / ops,
            fences: sample.fences as f64 / ops,
            allocations: sample.allocations as f64 / ops,
        }
    };
    last.iter().enumerate().map(figure).collect()
}

impl Unit {
    fn key(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns_per_op",
            Unit::Instructions => "instructions_per_op",
        }
    }

    /// A figure for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Instructions if value < 1e5 => format!("{value:.0}"),
            Unit::Instructions => format!("{:.0} k", value / 1e3),
            Unit::Nanoseconds if value < 1e3 => format!("{value:.1} ns"),
            Unit::Nanoseconds if value < 1e6 => format!("{:.2} us", value / 1e3),
            Unit::Nanoseconds => format!("{:.2} ms", value / 1e6),
        }
    }
}

/// A report for programs: `results` and `floor`.
pub fn to_json(unit: Unit, floor: &[Figure], results: &[Figure]) -> Value {
    let result = |f: &Figure| {
        json!({
            "name": f.name, "ops": f.ops, unit.key(): f.per_op, "least": f.least, "most": f.most,
            "flushes": f.flushes, "fences": f.fences, "allocations": f.allocations,
        })
    };
    let floor: serde_json::Map<String, Value> =
        floor.iter().map(|f| (f.name.clone(), f.per_op.into())).collect();
    let results: Vec<Value> = results.iter().map(result).collect();
    json!({ "unit": unit.key(), "results": results, "floor": floor })
}

/// A report for people.
pub fn to_text(unit: Unit, floor: &[Figure], results: &[Figure]) -> String {
    let mut text = String::new();
    let mut row = |cells: [&str; 7]| {
        let [name, per_op, least, most, flushes, fences, allocations] = cells;
        text += &format!(
            "{name:<28} {per_op:>12} {least:>12} {most:>12} {flushes:>9} {fences:>7} \
             {allocations:>7}\n"
        );
    };
    row(["", "per operation", "least", "most", "lines", "fences", "allocs"]);
    for f in floor.iter().chain(results) {
        let cells = [f.per_op, f.least, f.most].map(|value| unit.show(value));
        let counts = [f.flushes, f.fences, f.allocations].map(|count| format!("{count:.1}"));
        row([&f.name, &cells[0], &cells[1], &cells[2], &counts[0], &counts[1], &counts[2]]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_one_operation_over_all_rounds() {
        let sample = |name: &str, ns| Sample {
            name: name.into(),
            ops: 10,
            ns,
            flushes: 20,
            fences: 5,
            allocations: 0,
        };
        let rounds: Vec<_> =
            [50, 10, 20].iter().map(|&ns| vec![sample("a", ns), sample("b", 1000 + ns)]).collect();
        let merged = merge(&rounds);
        assert_eq!((merged[0].per_op, merged[0].least, merged[0].most), (2.0, 1.0, 5.0));
        assert_eq!(
            (merged[1].name.as_str(), merged[1].per_op, merged[1].flushes),
            ("b", 102.0, 2.0)
        );
        assert_eq!(to_json(Unit::Nanoseconds, &merged[..1], &merged)["floor"]["a"], 2.0);
        assert_eq!(
            to_json(Unit::Instructions, &[], &merged)["results"][1]["instructions_per_op"],
            102.0
        );
        assert!(to_text(Unit::Nanoseconds, &[], &merged).contains("102.0 ns"));
        assert_eq!(merge(&[]), []);
    }
}
