//! No request holds up the others: one client pings while another does every operation there is.

use umbra_tests::ping::{Sizes, run};

#[test]
fn no_operation_holds_up_a_client_that_pings() {
    let outcome = run(Sizes::SMALL);
    outcome.print();
    let problems = outcome.problems();
    assert!(problems.is_empty(), "{problems:#?}");
}
