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
    ("seq_write_2MiB", 491_340.0, 33_158.1, 96.0, 0.1),
    ("seq_read_2MiB", 370_647.0, 0.0, 0.0, 0.1),
    ("rand_read_4K", 712.0, 0.0, 0.0, 0.0),
    ("rand_write_4K_unshared", 1516.0, 66.0, 0.0, 0.0),
    ("clone_contiguous", 18_927.0, 12.5, 2.1, 0.1),
    ("mmap_read_fault_shared", 261.0, 0.0, 0.0, 0.0),
    ("mmap_cow_fault_private_leaf", 1987.0, 66.0, 2.0, 0.0),
    ("mmap_cow_fault_random", 2871.0, 68.1, 2.0, 0.0),
    ("mmap_rewrite_after_msync", 625.0, 0.0, 0.0, 0.0),
    ("msync_per_page", 349.0, 64.0, 0.1, 0.0),
    ("clone_fragmented_2048ext", 19_049.0, 12.7, 2.1, 0.2),
    ("pwrite_4K_cow", 3792.0, 70.2, 2.0, 0.0),
    ("pwrite_4K_cow_fsync", 11_942.0, 89.5, 3.0, 0.0),
    ("dedupe_compare_16MiB", 10_491_688.0, 1_056.0, 17.0, 2.0),
    ("create", 15_089.0, 12.7, 2.2, 0.1),
    ("unlink", 9825.0, 6.0, 2.0, 0.0),
    ("unlink_clone", 9457.0, 6.0, 2.0, 0.0),
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
