//! What windows cost: DRAM that is used beyond a fixed part, for what is mapped.

use super::Options;
use super::report::{Aim, Report};
use umbra::client::Client;
use umbra_tests::Machine;
use umbra_tests::random::Random;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 256 * MIB;
const CLONES: usize = 50;

fn used(client: &mut Client) -> f64 {
    let memory = client.status().expect("it answers").memory;
    (memory.heap_used + memory.frames_used) as f64
}

/// Reads 50 clones of 256 MiB through windows in 64 MiB of memory.
pub fn measure(_: &Options, report: &mut Report) {
    let vm = Machine::nvdimm("1G").memory("64M").launch();
    let mut client = vm.client();
    let base = used(&mut client);
    let piece = Random::new(1).bytes(MIB as usize);
    let file = client.open_or_create(b"/golden").expect("it can be created");
    for at in (0..SIZE).step_by(MIB as usize) {
        client.write(&file, at, &piece).expect("there is room");
    }
    let read_all = |client: &mut Client, path: &str| {
        let file = client.open(path.as_bytes(), 0).expect("it is there");
        client.load_each(&file, 0, SIZE, |_| Ok(())).expect("it can be read through a window");
        file
    };
    read_all(&mut client, "/golden");
    let first = used(&mut client);
    let mut open = Vec::new();
    for number in 0..CLONES {
        let path = format!("/clone{number}");
        client.clone_file(b"/golden", path.as_bytes()).expect("it can be cloned");
        open.push(read_all(&mut client, &path));
    }
    let grown = (used(&mut client) - first).max(0.0);
    let mapped = (CLONES as u64 * SIZE) as f64;
    report.add("memory: fixed part", base / MIB as f64, "MiB", Aim::None);
    report.add(
        "memory: more after a first window on 256 MiB",
        (first - base) / MIB as f64,
        "MiB",
        Aim::None,
    );
    report.add(
        "memory: growth by 50 windows on clones of it",
        grown / mapped * 100.0,
        "%",
        Aim::AtMost(0.1),
    );
}
