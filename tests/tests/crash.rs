//! QEMU is killed in the middle of everything. What was acknowledged is there; of what was not,
//! at most one operation of each connection has happened; nothing else has.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use umbra::client::rpc::ErrorCode;
use umbra::client::{Client, Error, Msync};
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

/// Bytes of the file that is cloned: more than a leaf, not a multiple of a page.
const GOLDEN: usize = (2 << 20) + 50_000;
const CONNECTIONS: u64 = 4;
const ROUNDS: u64 = 3;

/// What one connection did, as far as it was told.
struct Log {
    connection: u64,
    /// Clones whose creation was acknowledged, with the bytes of each poke that was.
    clones: Vec<Vec<Poke>>,
    /// The operation that was not answered.
    undecided: Undecided,
}

#[derive(Clone, Debug)]
struct Poke {
    offset: u64,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Undecided {
    Clone,
    Poke(Poke),
}

fn name(round: u64, connection: u64, number: usize) -> String {
    format!("/r{round}-c{connection}-{number}")
}

/// Clones and pokes until the connection breaks. Every fourth operation is a clone.
fn work(mut client: Client, round: u64, connection: u64, acknowledged: &AtomicU64) -> Log {
    let mut random = Random::new(round * 100 + connection);
    let mut log = Log { connection, clones: Vec::new(), undecided: Undecided::Clone };
    let died = |error: Error| match error {
        Error::Disconnected | Error::Io(_) => {}
        other => panic!("connection {connection}: {other}"),
    };
    loop {
        let path = name(round, connection, log.clones.len());
        log.undecided = Undecided::Clone;
        if let Err(error) = client.clone_file(b"/golden", path.as_bytes()) {
            died(error);
            return log;
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
        log.clones.push(Vec::new());
        let file = match client.open(path.as_bytes(), 0) {
            Ok(file) => file,
            Err(error) => {
                died(error);
                // Opening changes nothing: whatever is left undecided is what comes next.
                log.undecided = Undecided::Poke(Poke { offset: 0, bytes: Vec::new() });
                return log;
            }
        };
        for _ in 0..3 {
            let len = 1 + random.below(6000);
            let offset = random.below(GOLDEN as u64 - len);
            let poke = Poke { offset, bytes: random.bytes(len as usize) };
            log.undecided = Undecided::Poke(poke.clone());
            if let Err(error) = client.store(&file, poke.offset, &poke.bytes, Msync::Now) {
                died(error);
                return log;
            }
            acknowledged.fetch_add(1, Ordering::Relaxed);
            log.clones.last_mut().expect("it was pushed").push(poke);
        }
        if let Err(error) = client.close(file) {
            died(error);
            log.undecided = Undecided::Clone;
            return log;
        }
    }
}

fn with(mut content: Vec<u8>, pokes: &[Poke]) -> Vec<u8> {
    for poke in pokes {
        content[poke.offset as usize..][..poke.bytes.len()].copy_from_slice(&poke.bytes);
    }
    content
}

/// Whether `found` is `before`, with some of the poke's pages: stores go through one page after
/// the other, and each page is old or new.
fn is_partly(found: &[u8], before: &[u8], poke: &Poke) -> bool {
    const PAGE: usize = 4096;
    let after = with(before.to_vec(), std::slice::from_ref(poke));
    found.len() == before.len()
        && found
            .chunks(PAGE)
            .zip(before.chunks(PAGE).zip(after.chunks(PAGE)))
            // Within a page, in-place bytes that were not synced may have come in any order.
            .all(|(found, (before, after))| {
                found.iter().zip(before.iter().zip(after)).all(|(f, (b, a))| f == b || f == a)
            })
}

fn verify(client: &mut Client, golden: &[u8], round: u64, log: &Log) {
    let read = |client: &mut Client, path: &str| {
        let file = client.open(path.as_bytes(), 0).unwrap_or_else(|error| panic!("{path}: {error}"));
        let bytes = client.read(&file, 0, u64::MAX).unwrap();
        client.close(file).unwrap();
        bytes
    };
    let last = log.clones.len().saturating_sub(1);
    for (number, pokes) in log.clones.iter().enumerate() {
        let path = name(round, log.connection, number);
        let found = read(client, &path);
        let expected = with(golden.to_vec(), pokes);
        let undecided = match &log.undecided {
            Undecided::Poke(poke) if number == last => is_partly(&found, &expected, poke),
            _ => false,
        };
        assert!(found == expected || undecided, "{path} is neither what was acknowledged nor one store more");
    }
    // One more clone may be there, if that is what was not answered; then it is whole.
    let next = name(round, log.connection, log.clones.len());
    match client.stat(next.as_bytes(), umbra::client::Blocks::Skip) {
        Err(error) => assert!(error.is(ErrorCode::NOT_FOUND), "{error}"),
        Ok(_) => {
            assert!(matches!(log.undecided, Undecided::Clone), "{next} was never asked for");
            assert!(read(client, &next) == golden, "{next} is not whole");
        }
    }
}

#[test]
fn every_acknowledged_operation_survives_a_killed_qemu() {
    let vm = Vm::launch("256M");
    let golden = Random::new(7).bytes(GOLDEN);
    std::fs::write(vm.file("golden"), &golden).unwrap();
    vm.ok(&["put", vm.file("golden").to_str().unwrap(), "/golden"]);
    for round in 0..ROUNDS {
        let acknowledged = AtomicU64::new(0);
        let over = AtomicBool::new(false);
        // Not the same moment each time, and not a round number of operations.
        let enough = 60 + 37 * round;
        let logs: Vec<Log> = thread::scope(|scope| {
            let workers: Vec<_> = (0..CONNECTIONS)
                .map(|connection| {
                    let client = vm.client();
                    let acknowledged = &acknowledged;
                    scope.spawn(move || work(client, round, connection, acknowledged))
                })
                .collect();
            while acknowledged.load(Ordering::Relaxed) < enough {
                assert!(!workers.iter().all(|worker| worker.is_finished()), "nobody works any more");
                thread::sleep(Duration::from_millis(1));
            }
            vm.kill_qemu();
            over.store(true, Ordering::Relaxed);
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        vm.up();
        vm.assert_clean();
        let mut client = vm.client();
        for log in &logs {
            verify(&mut client, &golden, round, log);
        }
        let file = client.open(b"/golden", 0).unwrap();
        assert!(client.read(&file, 0, u64::MAX).unwrap() == golden, "the golden file has changed");
        // What one round leaves is not the subject of the next.
        for log in &logs {
            for number in 0..=log.clones.len() {
                match client.unlink(name(round, log.connection, number).as_bytes()) {
                    Ok(()) => {}
                    Err(error) => assert!(error.is(ErrorCode::NOT_FOUND), "{error}"),
                }
            }
        }
    }
}

#[test]
fn the_last_of_a_thousand_operations_survives_the_loss_of_either_superblock() {
    const BLOCK: u64 = 4096;
    let vm = Machine::nvdimm("64M").launch();
    let mut client = vm.client();
    let file = client.open_or_create(b"/f").unwrap();
    client.write(&file, 0, &[1; 10_000]).unwrap();
    for number in 0..1000u32 {
        match number % 3 {
            0 => drop(client.clone_file(b"/f", format!("/clone{number}").as_bytes()).unwrap()),
            1 => client.mkdir(format!("/dir{number}").as_bytes(), umbra::client::Parents::Need).unwrap(),
            _ => drop(client.store(&file, 5000, &number.to_le_bytes(), Msync::Now).unwrap()),
        }
    }
    client.rename(b"/clone999", b"/the-last").unwrap();
    drop(client);
    vm.kill_qemu();
    for lost in 0..2 {
        let image = OpenOptions::new().write(true).open(vm.state().nvdimm()).unwrap();
        image.write_all_at(&[0; BLOCK as usize], lost * BLOCK).unwrap();
        drop(image);
        vm.up();
        vm.assert_clean();
        let mut client = vm.client();
        client.stat(b"/the-last", umbra::client::Blocks::Skip).unwrap();
        assert_eq!(client.list(b"/").unwrap().len(), 1 + 334 + 333);
        let file = client.open(b"/f", 0).unwrap();
        assert_eq!(client.load(&file, 5000, 4).unwrap(), 998u32.to_le_bytes());
        drop(client);
        // The first time killed again, the second time not: a mount repairs the other copy.
        if lost == 0 {
            vm.kill_qemu();
        } else {
            vm.down();
        }
    }
    vm.up();
    vm.assert_clean();
}
