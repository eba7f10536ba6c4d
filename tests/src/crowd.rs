//! Many clients at once, all of them idle.

use crate::Vm;
use crate::nbd::Disk;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::{Duration, Instant};
use umbra::client::{Blocks, Client};
use umbra_proto::nbd::Style;

/// Files that clients of NBD use: each has one block of data, and 2 MiB in all.
const FILE_SIZE: u64 = 2 << 20;

/// Clients that were served once and then do nothing.
pub struct Crowd {
    /// They are past GO, and a page of their file is mapped, each of a file of its own.
    pub disks: Vec<Disk>,
    /// They speak the native protocol.
    pub clients: Vec<Client>,
}

/// Has this process open as many files as it may: a client is one.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, opening fails later, and says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

impl Crowd {
    /// So many clients, half of them of NBD.
    pub fn new(vm: &Vm, count: usize) -> Crowd {
        raise_descriptor_limit();
        let mut client = vm.client();
        let first = client.open_or_create(b"/crowd0").expect("it can be opened");
        client.truncate(b"/crowd0", FILE_SIZE).expect("it can be made longer");
        client.write(&first, 4096, &[1; 4096]).expect("there is room");
        let name = |number: usize| format!("/crowd{number}");
        let disk = |number: usize| {
            if client.stat(name(number).as_bytes(), Blocks::Skip).is_err() {
                client.clone_file(b"/crowd0", name(number).as_bytes()).expect("it can be cloned");
            }
            let mut disk = Disk::open(vm.state(), &name(number), Style::Structured);
            assert!(disk.read(4096, 4096) == [1; 4096]);
            disk
        };
        let disks = (0..count / 2).map(disk).collect();
        let native = |_| {
            let mut client = vm.client();
            client.ping().expect("it answers");
            client
        };
        Crowd { disks, clients: (count / 2..count).map(native).collect() }
    }
}

/// The median of what so many pings take, one after the other.
pub fn median_ping(client: &mut Client, pings: usize) -> Duration {
    let mut all: Vec<Duration> = (0..pings)
        .map(|_| {
            let start = Instant::now();
            client.ping().expect("it answers");
            start.elapsed()
        })
        .collect();
    all.sort();
    all[all.len() / 2]
}
