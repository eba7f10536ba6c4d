//! The longest turn of every operation there is, at the sizes that are promised: instructions, so
//! the machine need not be idle.

use umbra_tests::ping::{Sizes, run};

/// Does everything while a client pings; prints the table. Ends with a panic where a turn is longer
/// than what is promised, or an operation fails.
pub fn measure() {
    eprintln!("every operation, on sparse files of up to 511 GiB and a dense one of 4 GiB ...");
    let outcome = run(Sizes::FULL);
    outcome.print();
    let problems = outcome.problems();
    assert!(problems.is_empty(), "{problems:#?}");
}
