//! From the start of QEMU to `ready`.

use super::Options;
use super::report::{Aim, Report, median};
use umbra_tests::Machine;

/// Boots take little; more of them make a better median.
const TIMES: usize = 3;

/// Boots a volume that is there already, again and again.
pub fn measure(options: &Options, report: &mut Report) {
    let vm = Machine::nvdimm("1G").launch();
    let mut all = Vec::new();
    for _ in 0..options.rounds * TIMES {
        vm.down();
        let status = vm.up();
        all.push(status["boot_ms"].as_f64().expect("a machine that is up has booted"));
    }
    report.add("boot: from the start of QEMU to ready", median(&all), "ms", Aim::AtMost(500.0));
}
