//! The guest flushes and fences as often as the same operations do on the host, where every
//! flush and fence is tested to be needed: nothing is lost or doubled on the way to hardware.

use umbra::client::rpc::PORT;
use umbra::client::{Client, Msync, Parents, Stream};
use umbra_tests::Vm;
use umbra_tests::random::Random;
use umbra_tests::soft::SoftServer;

/// The same volume on both sides.
const MIB: u64 = 64;
const PAGE: u64 = 4096;
/// An operation, by name.
type Step = (&'static str, fn(&mut Client));

/// Each is done by both, in this order.
const STEPS: &[Step] = &[
    ("create", |c| {
        c.open_or_create(b"/f").unwrap();
    }),
    ("write a block", |c| write(c, 0, PAGE)),
    ("overwrite it in place", |c| write(c, 0, PAGE)),
    ("append 3 MiB", |c| write(c, PAGE, 3 << 20)),
    ("write into a hole", |c| write(c, 100 << 20, 10_000)),
    ("clone", |c| {
        c.clone_file(b"/f", b"/g").unwrap();
    }),
    ("write over shared blocks", |c| write(c, 2 * PAGE, 5 * PAGE)),
    ("store over a shared block", |c| store(c, 20 * PAGE + 7, 100)),
    ("store again", |c| store(c, 20 * PAGE + 300, 100)),
    ("store across two leaves", |c| store(c, (2 << 20) - 50, 100)),
    ("store into a hole", |c| store(c, 50 << 20, 1)),
    ("clone a range", |c| {
        c.clone_range((b"/f", 0), (b"/g", 8 * PAGE), Some(16 * PAGE)).unwrap();
    }),
    ("truncate", |c| c.truncate(b"/f", 1_000_001).unwrap()),
    ("extend", |c| c.truncate(b"/f", 4 << 20).unwrap()),
    ("mkdir", |c| c.mkdir(b"/d", Parents::Need).unwrap()),
    ("rename", |c| c.rename(b"/g", b"/d/h").unwrap()),
    ("replace by rename", |c| c.rename(b"/f", b"/d/h").unwrap()),
    ("unlink", |c| c.unlink(b"/d/h").unwrap()),
    ("reclaim", |c| {
        c.reclaim().unwrap();
    }),
    ("rmdir", |c| c.rmdir(b"/d").unwrap()),
    ("create many", |c| {
        for number in 0..200 {
            c.open_or_create(format!("/many{number}").as_bytes())
                .map(|file| c.close(file))
                .unwrap()
                .unwrap();
        }
    }),
];

/// Writes block by block: of a longer write the server does what has arrived, and how much that
/// is differs from run to run.
fn write(client: &mut Client, offset: u64, len: u64) {
    let file = client.open(b"/f", 0).unwrap();
    let bytes = Random::new(offset).bytes(len as usize);
    for (number, block) in bytes.chunks(PAGE as usize).enumerate() {
        client.write(&file, offset + number as u64 * PAGE, block).unwrap();
    }
    client.sync(&file).unwrap();
    client.close(file).unwrap();
}

fn store(client: &mut Client, offset: u64, len: u64) {
    let file = client.open(b"/f", 0).unwrap();
    client.load(&file, offset, len).unwrap();
    client.store(&file, offset, &Random::new(offset).bytes(len as usize), Msync::Now).unwrap();
    client.close(file).unwrap();
}

/// Flushes and fences of each step. Reclaiming in the background is over before the next.
fn counts(client: &mut Client) -> Vec<(&'static str, u64, u64)> {
    let mut all = Vec::new();
    for (name, step) in STEPS {
        client.reclaim().unwrap();
        let before = client.status().unwrap();
        step(client);
        client.reclaim().unwrap();
        let after = client.status().unwrap();
        all.push((*name, after.flushes - before.flushes, after.fences - before.fences));
    }
    all
}

#[test]
fn flushes_and_fences_are_those_of_the_host() {
    let vm = Vm::launch(&format!("{MIB}M"));
    let guest = counts(&mut vm.client());
    let soft = SoftServer::start(MIB, 64);
    let mut client = Client::over(Stream::Unix(soft.connect(PORT))).unwrap();
    let host = counts(&mut client);
    drop(client);
    soft.stop().check();
    for (guest, host) in guest.iter().zip(&host) {
        assert_eq!(guest, host, "(operation, lines flushed, fences) in the guest and on the host");
    }
    assert!(guest.iter().any(|&(name, _, fences)| name == "clone" && fences == 2), "{guest:?}");
    vm.assert_clean();
}
