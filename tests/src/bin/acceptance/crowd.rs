//! What a thousand idle clients cost another one.

use super::Options;
use super::report::{Aim, Report, median};
use umbra_tests::Machine;
use umbra_tests::crowd::{Crowd, median_ping};

/// Clients that do nothing, half of them of NBD.
const CLIENTS: usize = 1000;
const PINGS: usize = 2000;

/// Compares a client alone with one among many, by turns.
pub fn measure(options: &Options, report: &mut Report) {
    let vm = Machine::nvdimm("256M").launch();
    let mut client = vm.client();
    median_ping(&mut client, PINGS);
    let (mut alone, mut among, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let without = median_ping(&mut client, PINGS).as_secs_f64() * 1e6;
        let crowd = Crowd::new(&vm, CLIENTS);
        let with = median_ping(&mut client, PINGS).as_secs_f64() * 1e6;
        drop(crowd);
        // Until the last of them is gone.
        while client.status().expect("it answers").connections > 1 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        alone.push(without);
        among.push(with);
        ratios.push(with / without);
    }
    report.add("no-op RPC of the only client", median(&alone), "us", Aim::None);
    report.add("no-op RPC among 1,000 idle clients", median(&among), "us", Aim::None);
    report.add("the same, as a multiple", median(&ratios), "x", Aim::AtMost(1.3));
}
