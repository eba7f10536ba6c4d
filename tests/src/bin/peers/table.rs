//! The table.

use crate::umbra_side::Ours;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use umbra::bench::{Figure, Unit};

/// Faster by what each operation should be, at least.
const AIMS: &[(&str, f64)] = &[
    ("mmap_cow_fault_private_leaf", 25.0),
    ("mmap_cow_fault_random", 35.0),
    ("mmap_read_fault_shared", 20.0),
    ("clone_contiguous", 20.0),
    ("clone_fragmented_2048ext", 5000.0),
    ("pwrite_4K_cow", 30.0),
    ("pwrite_4K_cow_fsync", 100.0),
    ("create", 6.0),
    ("unlink", 6.0),
    ("seq_read_2MiB", 1.0 / 1.2),
    ("seq_write_2MiB", 3.0),
    ("dedupe_compare_16MiB", 2.0),
];

/// One operation on both sides.
pub struct Row {
    name: String,
    peer_ns: Option<f64>,
    ours: Figure,
    aim: Option<f64>,
}

impl Row {
    /// How many times faster Umbra is.
    fn ratio(&self) -> Option<f64> {
        self.peer_ns.map(|peer| peer / self.ours.per_op)
    }
}

/// Puts both sides together. What the peer cannot tell apart is beside what comes closest: a fault
/// whose leaf is private, beside its faults on pages that are mapped read-only.
pub fn rows(peer: &BTreeMap<String, f64>, ours: &Ours) -> Vec<Row> {
    let row = |figure: &Figure| {
        let there = match figure.name.as_str() {
            "mmap_cow_fault_private_leaf" => "mmap_cow_fault_ro_mapped",
            name => name,
        };
        let aim = AIMS.iter().find(|(name, _)| *name == figure.name).map(|(_, aim)| *aim);
        Row {
            name: figure.name.clone(),
            peer_ns: peer.get(there).copied(),
            ours: figure.clone(),
            aim,
        }
    };
    ours.results.iter().map(row).collect()
}

/// A copy-on-write fault, in bare page faults with a copy.
fn faults_to_floor(ours: &Ours) -> Option<f64> {
    let find = |all: &[Figure], name| all.iter().find(|f| f.name == name).map(|f| f.per_op);
    Some(find(&ours.results, "mmap_cow_fault_private_leaf")? / find(&ours.floor, "fault_copy_4k")?)
}

pub fn text(rows: &[Row], ours: &Ours) -> String {
    let show = |value| Unit::Nanoseconds.show(value);
    let mut text =
        format!("{:<28} {:>11} {:>11} {:>10}  {}\n", "", "XFS", "Umbra", "faster by", "aim");
    for row in rows {
        let peer = row.peer_ns.map_or("-".into(), show);
        let ratio = row.ratio().map_or("-".into(), |ratio| format!("{ratio:.1}"));
        let aim = match (row.aim, row.ratio()) {
            (Some(aim), Some(ratio)) => {
                format!("{aim:.1}{}", if ratio < aim { "  MISSED" } else { "" })
            }
            _ => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<28} {peer:>11} {:>11} {ratio:>10}  {aim}",
            row.name,
            show(row.ours.per_op)
        );
    }
    for f in &ours.floor {
        let _ = writeln!(text, "{:<28} {:>11} {:>11}", f.name, "", show(f.per_op));
    }
    if let Some(ratio) = faults_to_floor(ours) {
        let mark = if ratio > 2.0 { "  MISSED" } else { "" };
        let _ = writeln!(
            text,
            "copy-on-write fault, in bare faults with a copy: {ratio:.2} (at most 2){mark}"
        );
    }
    text
}

pub fn json(rows: &[Row], ours: &Ours) -> String {
    let row = |row: &Row| {
        json!({
            "name": row.name, "peer_ns_per_op": row.peer_ns, "ns_per_op": row.ours.per_op,
            "least": row.ours.least, "most": row.ours.most, "ops": row.ours.ops,
            "ratio": row.ratio(), "aim": row.aim,
        })
    };
    let floor: serde_json::Map<String, Value> =
        ours.floor.iter().map(|f| (f.name.clone(), f.per_op.into())).collect();
    let results: Vec<Value> = rows.iter().map(row).collect();
    let all = json!({
        "version": 1, "peer": "xfs", "results": results, "floor": floor,
        "faults_to_floor": faults_to_floor(ours),
    });
    format!("{all}\n")
}
