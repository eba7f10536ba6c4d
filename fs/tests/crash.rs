//! The crash explorer on sequences of one and of two operations.

mod explorer;

use explorer::{Coverage, Explorer, setups};
use std::rc::Rc;

#[test]
fn one_operation() {
    let mut total = Coverage::default();
    let mut bad = Vec::new();
    for setup in [setups::files(), setups::tall(), setups::full()] {
        let setup = Rc::new(setup);
        let mut explorer = Explorer::new(setup.clone());
        for op in &setup.ops {
            let before = explorer.coverage;
            let t = std::time::Instant::now();
            match explorer.explore(&[*op], None) {
                Ok(Some(fences)) => println!(
                    "{}: {fences} fences, {} states {:?}",
                    short(op),
                    explorer.coverage.states - before.states,
                    t.elapsed()
                ),
                Ok(None) => panic!("{op:?} makes no sense in {}", setup.name),
                Err(violation) => {
                    println!("VIOLATION {op:?}: {violation:?}");
                    bad.push((*op, violation));
                }
            }
        }
        total.add(&explorer.coverage);
    }
    println!("{total:?}");
    assert!(bad.is_empty(), "{bad:#?}");
}

/// The operation, with long names cut.
fn short(op: &explorer::ops::Op) -> String {
    let text = format!("{op:?}");
    text.replace(&"0".repeat(200), "..")
}
