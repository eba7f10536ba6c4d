//! Kills at random moments, under load.

use super::Options;
use super::report::{Aim, Report};
use std::time::{SystemTime, UNIX_EPOCH};
use umbra_tests::torture;

/// Kills QEMU once a round; ends with a panic where a promise was not kept.
pub fn measure(options: &Options, report: &mut Report) {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    eprintln!("seed {seed}");
    let done = torture::run(options.rounds as u64, seed, |so_far| {
        if so_far.rounds % 10 == 0 {
            eprintln!("{so_far:?}");
        }
    });
    report.add(
        "torture: kills of QEMU",
        done.rounds as f64,
        "",
        Aim::AtLeast(options.rounds as f64),
    );
    report.add(
        "torture: operations acknowledged, none lost",
        done.acknowledged as f64,
        "",
        Aim::None,
    );
    report.add("torture: not acknowledged, and there", done.happened as f64, "", Aim::None);
    report.add(
        "torture: not acknowledged, and not there, or in part",
        done.open as f64,
        "",
        Aim::None,
    );
}
