//! What operations cost in instructions, flushes, fences and allocations, beside what they should.
//!
//! Counts are the same on every machine, so this can fail where times could not. Instructions
//! differ a little with the compiler: hence the tolerance. Who makes something cheaper, lowers its
//! line; `umbra bench --icount` prints the table.

use serde_json::Value;
use umbra_tests::Vm;

/// Instructions may be this much more than the table says, in percent.
const TOLERANCE: f64 = 15.0;

/// Flushes, fences and allocations are means: once in a while a block of inodes is made, or a list
/// grows.
const SLACK: f64 = 0.1;

/// Name, instructions, lines flushed, fences, allocations: for one operation, at most.
const TABLE: &[(&str, f64, f64, f64, f64)] = &[
    ("seq_write_2MiB", 453_000.0, 33_000.0, 96.0, 0.1),
    ("seq_read_2MiB", 369_000.0, 0.0, 0.0, 0.1),
    ("rand_read_4K", 742.0, 0.0, 0.0, 0.0),
    ("rand_write_4K_unshared", 1748.0, 66.0, 0.0, 0.0),
    ("clone_contiguous", 15_182.0, 8.0, 2.1, 0.1),
    ("mmap_read_fault_shared", 293.0, 0.0, 0.0, 0.0),
    ("mmap_cow_fault_private_leaf", 1936.0, 65.0, 2.0, 0.0),
    ("mmap_cow_fault_random", 2685.0, 66.1, 2.0, 0.0),
    ("mmap_rewrite_after_msync", 637.0, 0.0, 0.0, 0.0),
    ("msync_per_page", 364.0, 64.0, 0.1, 0.0),
    ("clone_fragmented_2048ext", 15_484.0, 8.0, 2.1, 0.2),
    ("pwrite_4K_cow", 3207.0, 68.2, 2.0, 0.0),
    ("pwrite_4K_cow_fsync", 10_108.0, 78.0, 3.0, 0.0),
    ("dedupe_compare_16MiB", 9_787_000.0, 528.0, 17.0, 2.0),
    ("create", 12_967.0, 8.0, 2.2, 0.1),
    ("unlink", 12_247.0, 4.0, 2.0, 0.0),
    ("unlink_clone", 11_574.0, 4.0, 2.0, 0.0),
];

#[test]
fn operations_cost_no_more_than_the_table_says() {
    // Boots a machine of its own; this one only knows where the images are.
    let vm = umbra_tests::Machine::default().prepare();
    let report = vm.json(&["bench", "--icount", "--rounds", "1"]);
    let results = report["results"].as_array().expect("results");
    let mut worse = Vec::new();
    for &(name, instructions, flushes, fences, allocations) in TABLE {
        let found =
            results.iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        let is = |field: &str| {
            found[field].as_f64().unwrap_or_else(|| panic!("no {field} of {name}: {found}"))
        };
        let mut compare = |what: &str, is: f64, most: f64| {
            if is > most + SLACK {
                worse.push(format!("{name}: {is:.1} {what}, at most {most:.1}"));
            }
        };
        compare(
            "instructions",
            is("instructions_per_op"),
            instructions * (1.0 + TOLERANCE / 100.0),
        );
        compare("lines", is("flushes"), flushes);
        compare("fences", is("fences"), fences);
        compare("allocations", is("allocations"), allocations);
    }
    assert!(worse.is_empty(), "{worse:#?}");
    assert_eq!(report["unit"], Value::from("instructions_per_op"));
    drop::<Vm>(vm);
}
