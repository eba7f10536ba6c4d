//! QEMU is killed at random moments, under load from several clients. After each kill:
//!
//! - what was acknowledged to a client is there, and of what was not answered at most the one
//!   operation that each had sent, whole (a write or store: each byte old or new);
//! - `check` finds nothing;
//! - once everything is deleted, exactly as many blocks are free as at the start: none is lost.
//!
//! Every acknowledged operation is written to a log on the host, which is kept on failure.
//!
//! | file | what |
//! |---|---|
//! | `model.rs` | the operations, and what a directory may hold after them |

mod model;

use crate::random::Random;
use crate::vm::{Machine, Vm};
use model::{Model, Pending, look, path};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use umbra::client::rpc::kind;
use umbra::client::{Client, Error, Parents};

const CLIENTS: u64 = 4;
/// Bytes of the file that clones are made of: more than a leaf, not a multiple of a page.
const GOLDEN: usize = (2 << 20) + 50_000;
/// Inodes that are made first, so that no round needs another block of them.
const INODES: usize = 400;
/// Longest time from the first operation to the kill.
const LONGEST: Duration = Duration::from_millis(900);

/// What came of it. All that was promised held, or it would have panicked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Kills.
    pub rounds: u64,
    /// Operations that were acknowledged before one.
    pub acknowledged: u64,
    /// Operations that were not answered, and had happened.
    pub happened: u64,
    /// And those that had not, or in part.
    pub open: u64,
}

/// What one client did, as far as it was told.
struct Done {
    dir: String,
    model: Model,
    pending: Option<Pending>,
    acknowledged: u64,
}

/// Operates until the connection breaks, and logs what is acknowledged.
fn work(mut client: Client, dir: String, golden: Arc<Vec<u8>>, seed: u64, log: File) -> Done {
    let mut random = Random::new(seed);
    let mut log = BufWriter::new(log);
    let mut done = Done { dir, model: Model::default(), pending: None, acknowledged: 0 };
    loop {
        let op = done.model.choose(&mut random);
        let after = done.model.after(&op, &golden);
        match op.perform(&mut client, &done.dir) {
            Ok(()) => {
                done.acknowledged += 1;
                writeln!(log, "{} {}", done.dir, op.line()).expect("the log can be written");
                done.model = after;
            }
            Err(Error::Disconnected | Error::Io(_)) => {
                writeln!(log, "{} not answered: {}", done.dir, op.line())
                    .expect("the log can be written");
                let partly = done.model.partly(&op);
                done.pending = Some(Pending { before: done.model.clone(), after, partly });
                return done;
            }
            Err(other) => panic!("{}: {}: {other}", done.dir, op.line()),
        }
    }
}

/// Removes all that a client made; its directory too.
fn clean_up(client: &mut Client, dir: &str) {
    for below in ["s", ""] {
        let at = path(dir, below);
        for entry in client.list(&at).expect("it can be listed") {
            if entry.kind != kind::DIRECTORY {
                let name = [&at[..], b"/", &entry.name].concat();
                client.unlink(&name).expect("it can be removed");
            }
        }
        client.rmdir(&at).expect("it is empty");
    }
}

/// Free blocks, once nothing waits.
fn free(client: &mut Client) -> u64 {
    client.reclaim().expect("it reclaims");
    client.space().expect("it has space").blocks_free
}

fn prepare(vm: &Vm, golden: &[u8]) -> u64 {
    let mut client = vm.client();
    let file = client.open_or_create(b"/golden").expect("it can be created");
    client.write(&file, 0, golden).expect("there is room");
    client.sync(&file).expect("it is open");
    client.close(file).expect("it is open");
    client.mkdir(b"/many", Parents::Need).expect("it can be made");
    for number in 0..INODES {
        let file =
            client.open_or_create(format!("/many/{number}").as_bytes()).expect("there is room");
        client.close(file).expect("it is open");
    }
    for number in 0..INODES {
        client.unlink(format!("/many/{number}").as_bytes()).expect("it is there");
    }
    client.rmdir(b"/many").expect("it is empty");
    free(&mut client)
}

/// Kills it so many times. Panics where a promise was not kept.
pub fn run(rounds: u64, seed: u64, mut progress: impl FnMut(&Summary)) -> Summary {
    let vm = Machine::nvdimm("256M").launch();
    let golden = Arc::new(Random::new(7).bytes(GOLDEN));
    let empty = prepare(&vm, &golden);
    let mut random = Random::new(seed);
    let mut summary = Summary::default();
    for round in 0..rounds {
        let mut client = vm.client();
        let dirs: Vec<String> = (0..CLIENTS).map(|number| format!("/r{round}-{number}")).collect();
        for dir in &dirs {
            client.mkdir(format!("{dir}/s").as_bytes(), Parents::Make).expect("it can be made");
        }
        drop(client);
        let wait = LONGEST.mul_f64(random.below(1000) as f64 / 1000.0);
        let done: Vec<Done> = thread::scope(|scope| {
            let workers: Vec<_> = dirs
                .iter()
                .map(|dir| {
                    let (client, golden, seed) = (vm.client(), golden.clone(), random.next_u64());
                    let log =
                        File::create(vm.file(&format!("acknowledged{}", dir.replace('/', "-"))));
                    let log = log.expect("room for a log");
                    scope.spawn(move || work(client, dir.clone(), golden, seed, log))
                })
                .collect();
            thread::sleep(wait);
            vm.kill_qemu();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("it only ends with its connection"))
                .collect()
        });
        vm.up();
        vm.assert_clean();
        let mut client = vm.client();
        for done in &done {
            let found = look(&mut client, &done.dir).expect("all of it can be read");
            let pending = done.pending.as_ref().expect("an operation was on its way");
            let what = pending.matches(&found);
            assert!(what.is_ok(), "round {round}, {}: {what:?}", done.dir);
            let happened = pending.after.matches(&found, None).is_ok();
            *(if happened { &mut summary.happened } else { &mut summary.open }) += 1;
            summary.acknowledged += done.acknowledged;
        }
        let file = client.open(b"/golden", 0).expect("it is there");
        assert!(
            client.read(&file, 0, u64::MAX).expect("it is open") == *golden,
            "what was cloned has changed"
        );
        client.close(file).expect("it is open");
        dirs.iter().for_each(|dir| clean_up(&mut client, dir));
        assert_eq!(free(&mut client), empty, "round {round}: blocks are lost");
        for dir in &dirs {
            // Kept only where something went wrong.
            let _ =
                std::fs::remove_file(vm.file(&format!("acknowledged{}", dir.replace('/', "-"))));
        }
        summary.rounds += 1;
        progress(&summary);
    }
    let mut client = vm.client();
    assert!(
        client.list(b"/").expect("it can be listed").len() == 1,
        "only the golden file is left"
    );
    summary
}
