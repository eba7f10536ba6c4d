//! How many instructions this machine does in 10 ms: what the longest turn is compared with.

use super::Options;
use super::report::{Aim, Report};
use serde_json::Value;
use std::collections::HashMap;
use umbra_tests::ping::LIMIT;
use umbra_tests::{Machine, Vm};

/// 10 ms, in nanoseconds.
const TURN_NS: f64 = 1e7;

/// Divides the instructions of each operation by its time, and reports the slowest and the fastest.
pub fn measure(options: &Options, report: &mut Report) {
    let vm = Machine::nvdimm("512M").in_memory().prepare();
    vm.up_with(&["--accel", "tcg", "--prealloc"]);
    let times = per_operation(&vm, &["--rounds", &options.rounds.to_string()], "ns_per_op");
    vm.down();
    // Of a machine of its own, whose clock counts instructions.
    let counts = per_operation(&vm, &["--icount", "--rounds", "1"], "instructions_per_op");
    let mut rates: Vec<(f64, &String)> = counts
        .iter()
        .filter_map(|(name, count)| Some((count / times.get(name)? * TURN_NS, name)))
        .collect();
    rates.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    if let (Some((least, slowest)), Some((most, fastest))) = (rates.first(), rates.last()) {
        let aim = Aim::AtLeast(LIMIT as f64 / 1e6);
        report.add(format!("instructions in 10 ms: {slowest}, the slowest"), least / 1e6, "M", aim);
        report.add(
            format!("instructions in 10 ms: {fastest}, the fastest"),
            most / 1e6,
            "M",
            Aim::None,
        );
    }
}

/// What `umbra bench` says of each operation, by name.
fn per_operation(vm: &Vm, options: &[&str], field: &str) -> HashMap<String, f64> {
    let said = vm.json(&[&["bench"], options].concat());
    let results = said["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |it: &Value| Some((it["name"].as_str()?.to_string(), it[field].as_f64()?));
    results.iter().filter_map(one).collect()
}
