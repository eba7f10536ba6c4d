//! How long a mount takes by the guest's clock: after a clean stop, whatever the volume holds; and
//! after a kill, by what is mapped and by how often it was cloned.

use super::Options;
use super::report::{Aim, Report, median};
use umbra::client::Client;
use umbra::client::rpc::ErrorCode;
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

const MIB: u64 = 1 << 20;
const CLONES: u64 = 10_000;

/// Writes bytes that are not zeros; returns how many, if the volume is full before.
fn fill(client: &mut Client, path: &str, size: u64) -> u64 {
    let piece = Random::new(3).bytes(MIB as usize);
    let file = client.open_or_create(path.as_bytes()).expect("it can be created");
    let mut at = 0;
    while at < size {
        match client.write(&file, at, &piece) {
            Ok(()) => at += MIB,
            Err(error) if error.is(ErrorCode::NO_SPACE) => break,
            Err(error) => panic!("{error}"),
        }
    }
    client.close(file).expect("it is open");
    at
}

/// How a stop ended before a mount is measured.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Clean,
    Killed,
}

/// Milliseconds that mounts take after such a stop.
fn mounts(vm: &Vm, stop: Stop, options: &Options) -> f64 {
    let mut all = Vec::new();
    for _ in 0..options.rounds {
        match stop {
            Stop::Clean => vm.down(),
            Stop::Killed => vm.kill_qemu(),
        }
        vm.up();
        let status = vm.client().status().expect("it answers");
        assert_eq!(status.rebuilt, Some(stop == Stop::Killed));
        all.push(status.mount_ns.expect("it was mounted") as f64 / 1e6);
    }
    median(&all)
}

/// Mounts volumes of two sizes, empty and full; then kills.
pub fn measure(options: &Options, report: &mut Report) {
    let mut clean = Vec::new();
    for (size, data) in [("1G", u64::MAX), ("64G", 1024 * MIB)] {
        let vm = Machine::nvdimm(size).launch();
        let empty = mounts(&vm, Stop::Clean, options);
        report.add(format!("clean mount: {size}, empty"), empty, "ms", Aim::None);
        let written = fill(&mut vm.client(), "/data", data) / MIB;
        let full = mounts(&vm, Stop::Clean, options);
        report.add(format!("clean mount: {size}, with {written} MiB"), full, "ms", Aim::None);
        clean.extend([empty, full]);
        if size == "64G" {
            let killed = mounts(&vm, Stop::Killed, options);
            report.add(
                "mount after a kill: 1 GiB mapped, beyond a clean one",
                killed - full,
                "ms",
                Aim::AtMost(300.0),
            );
            let mut client = vm.client();
            for number in 0..CLONES {
                client
                    .clone_file(b"/data", format!("/clone{number}").as_bytes())
                    .expect("there is room");
            }
            drop(client);
            let cloned = mounts(&vm, Stop::Killed, options);
            let name = "mount after a kill: 10,000 clones of it more";
            report.add(name, cloned - killed, "ms", Aim::AtMost(30.0));
            vm.assert_clean();
        }
    }
    let least = clean.iter().copied().fold(f64::MAX, f64::min);
    let most = clean.iter().copied().fold(0.0, f64::max);
    report.add("clean mount: slowest", most, "ms", Aim::AtMost(1.5 * least + 5.0));
}
