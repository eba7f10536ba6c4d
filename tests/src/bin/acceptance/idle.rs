//! What an idle guest costs the host, and how fast it answers after a silence.

use super::Options;
use super::report::{Aim, Report, median};
use rustix::param::clock_ticks_per_second;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use umbra_tests::Machine;

const IDLE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(5);
/// What start-up left to do is done by then.
const SETTLE: Duration = Duration::from_secs(2);

/// Processor time that a process has used, in seconds: fields 14 and 15 of `/proc/PID/stat`.
fn processor_seconds(pid: u64) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("QEMU runs");
    // The second field, the name, may hold anything; the rest follows its last parenthesis.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks as f64 / clock_ticks_per_second() as f64
}

/// Watches QEMU, then breaks silences.
pub fn measure(options: &Options, report: &mut Report) {
    let vm = Machine::nvdimm("256M").launch();
    let pid = vm.json(&["status"])["qemu_pid"].as_u64().expect("it runs");
    let mut client = vm.client();
    client.ping().expect("it answers");
    thread::sleep(SETTLE);
    let mut shares = Vec::new();
    for _ in 0..options.rounds.min(3) {
        let (before, start) = (processor_seconds(pid), Instant::now());
        thread::sleep(IDLE);
        shares.push((processor_seconds(pid) - before) / start.elapsed().as_secs_f64() * 100.0);
    }
    report.add("idle: share of a core that QEMU uses", median(&shares), "%", Aim::AtMost(3.0));

    let mut all = Vec::new();
    for _ in 0..options.rounds {
        thread::sleep(SILENCE);
        let start = Instant::now();
        client.ping().expect("it answers");
        all.push(start.elapsed().as_secs_f64() * 1e3);
    }
    report.add("no-op RPC after 5 s of silence", median(&all), "ms", Aim::AtMost(1.0));
    let all: Vec<f64> = (0..2000)
        .map(|_| {
            let start = Instant::now();
            client.ping().expect("it answers");
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    report.add("no-op RPC, one after the other", median(&all), "us", Aim::None);
}
