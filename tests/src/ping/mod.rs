//! One client pings while another does every operation there is: how long does anybody wait?
//!
//! The guest keeps the longest turn that anybody took (`status`, keys 16 and 17). Under `-icount
//! shift=0` its clock goes on by a nanosecond with each instruction, so the longest turn is a
//! number of instructions: the same on every machine, whatever else runs there.
//!
//! Operations come from the tables of methods, of NBD's commands, and of the console's commands,
//! which it lists itself: one that has no row here is missing, and the test says so. Benchmarks are
//! exempt.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the machine, the files, the client that pings, the table |
//! | `methods.rs` | the native protocol, method by method |
//! | `nbd.rs` | NBD, command by command |
//! | `console.rs` | the console, command by command |

mod console;
mod methods;
mod nbd;

use crate::Machine;
use crate::random::Random;
use crate::vm::Vm;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use umbra::client::rpc::{self, open};
use umbra::client::{Client, File, Msync, Result};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a turn may take, in instructions: what an idle machine does in 10 ms.
///
/// Of the operations in docs/performance.md, whose instructions and times are both known, the
/// copy-on-write fault goes slowest: 1,936 instructions in 2.62 us.
pub const LIMIT: u64 = 7_400_000;

/// How large things are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the NVDIMM.
    pub nvdimm: u64,
    /// Bytes of a file without holes.
    pub dense: u64,
    /// Pages of it that are dirty when it is made durable or shared.
    pub dirty: u64,
    /// Names in a directory.
    pub names: u32,
}

impl Sizes {
    /// What every change is tested with.
    pub const SMALL: Sizes =
        Sizes { nvdimm: 2 * GIB, dense: 512 * MIB, dirty: 64 * MIB, names: 4_000 };
    /// What is promised.
    pub const FULL: Sizes =
        Sizes { nvdimm: 8 * GIB, dense: 4 * GIB, dirty: 256 * MIB, names: 50_000 };
}

/// A file that operations are done to: to clones of it, where they change it.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its path.
    pub path: &'static str,
    /// Its size in bytes.
    pub size: u64,
    /// It has no holes.
    pub dense: bool,
}

/// What a row has measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// The operation.
    pub operation: String,
    /// The file.
    pub subject: String,
    /// Instructions of the longest turn.
    pub longest: u64,
    /// What that turn was for.
    pub what: String,
    /// Why the operation failed, if it did.
    pub failed: Option<String>,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Outcome {
    /// In the order of the tables.
    pub rows: Vec<Row>,
    /// Operations that exist and have no row.
    pub missing: Vec<String>,
    /// How long pings took by the host's clock while all that was done, the shortest first.
    pub pings: Vec<Duration>,
    /// The same with nothing else going on.
    pub idle: Vec<Duration>,
}

impl Outcome {
    /// The table.
    pub fn print(&self) {
        println!("{:<44} {:>9} {:>14}  longest turn was for", "operation", "file", "instructions");
        for row in &self.rows {
            let long = if row.longest > LIMIT { "  TOO LONG" } else { "" };
            let failed =
                row.failed.as_deref().map(|why| format!("  FAILED: {why}")).unwrap_or_default();
            println!(
                "{:<44} {:>9} {:>14}  {}{long}{failed}",
                row.operation, row.subject, row.longest, row.what
            );
        }
        for (name, times) in [("idle", &self.idle), ("meanwhile", &self.pings)] {
            let at =
                |part: usize| times.get(times.len() * part / 1000).copied().unwrap_or_default();
            println!(
                "pings, {name}: {} of them, median {:?}, 99 % {:?}, 99.9 % {:?}, longest {:?}",
                times.len(),
                at(500),
                at(990),
                at(999),
                times.last().copied().unwrap_or_default()
            );
        }
    }

    /// Everything that is not as it should be.
    pub fn problems(&self) -> Vec<String> {
        let missing = self.missing.iter().map(|name| format!("{name} has no row"));
        let failed = self.rows.iter().filter_map(|row| {
            row.failed
                .as_ref()
                .map(|why| format!("{} of {} failed: {why}", row.operation, row.subject))
        });
        let long = self.rows.iter().filter_map(|row| {
            let Row { operation, subject, longest, what, .. } = row;
            (*longest > LIMIT).then(|| {
                format!(
                    "{operation} of {subject}: a turn of {longest} instructions, for {what}; at \
                     most {LIMIT}"
                )
            })
        });
        let none =
            (self.pings.is_empty() || self.idle.is_empty()).then(|| "nobody pinged".to_string());
        missing.chain(failed).chain(long).chain(none).collect()
    }
}

/// The machine, and the client that does operations.
pub struct Bench {
    vm: Vm,
    client: Client,
    sizes: Sizes,
    subjects: Vec<Subject>,
    rows: Vec<Row>,
    missing: Vec<String>,
}

/// Does everything, and measures it.
pub fn run(sizes: Sizes) -> Outcome {
    let vm = Machine::nvdimm(&sizes.nvdimm.to_string()).in_memory().prepare();
    vm.up_with(&["--accel", "tcg", "--icount"]);
    let mut client = vm.client();
    // Some turns are long today; whether they are too long is measured by the guest.
    client.set_timeout(None).expect("it can wait for ever");
    let mut bench =
        Bench { vm, client, sizes, subjects: Vec::new(), rows: Vec::new(), missing: Vec::new() };
    bench.make_subjects();
    let idle = Pinger::start(&bench.vm);
    thread::sleep(Duration::from_secs(2));
    let idle = idle.stop();
    let pinger = Pinger::start(&bench.vm);
    methods::all(&mut bench);
    nbd::all(&mut bench);
    console::all(&mut bench);
    methods::last(&mut bench);
    let pings = pinger.stop();
    methods::power_off(&mut bench);
    Outcome { rows: bench.rows, missing: bench.missing, pings, idle }
}

impl Bench {
    /// Makes the files: sparse ones with a block in each GiB, and one without holes.
    fn make_subjects(&mut self) {
        let block = Random::new(1).bytes(4096);
        let dense = self.sizes.dense;
        let sparse = [("/1G", GIB), ("/100G", 100 * GIB), ("/511G", 511 * GIB)];
        self.subjects = sparse.map(|(path, size)| Subject { path, size, dense: false }).to_vec();
        self.subjects.push(Subject { path: "/dense", size: dense, dense: true });
        for &Subject { path, size, .. } in &self.subjects.clone() {
            let file = self.open(path, open::CREATE);
            self.client.truncate(path.as_bytes(), size).expect("it can grow");
            let ends = (0..size).step_by(GIB as usize).chain([size - 4096]);
            ends.for_each(|at| self.client.write(&file, at, &block).expect("there is room"));
            self.client.close(file).expect("it closes");
        }
        let file = self.open("/dense", 0);
        let piece = Random::new(2).bytes(MIB as usize);
        for at in (0..dense).step_by(MIB as usize) {
            self.client.write(&file, at, &piece).expect("there is room");
        }
        self.client.close(file).expect("it closes");
        self.make_names("/names", self.sizes.names);
    }

    /// Makes a directory with names.
    fn make_names(&mut self, dir: &str, count: u32) {
        self.client.mkdir(dir.as_bytes(), umbra::client::Parents::Need).expect("a directory");
        self.each_name(dir, count, |path| rpc::Create { path, mode: None });
    }

    /// Sends a request for each name of a directory, many at a time.
    fn each_name<R: rpc::Request>(
        &mut self,
        dir: &str,
        count: u32,
        request: impl Fn(&'static [u8]) -> R,
    ) {
        for number in 0..count {
            // A request borrows its path; these live as long as the test.
            let path: &'static str = Box::leak(format!("{dir}/name-{number}").into_boxed_str());
            self.client.send(&request(path.as_bytes()), &[]).expect("it can be sent");
            while self.client.in_flight() > 32 {
                self.client.receive().expect("it succeeds");
            }
        }
        while self.client.in_flight() > 0 {
            self.client.receive().expect("it succeeds");
        }
    }

    /// Opens a file.
    fn open(&mut self, path: &str, flags: u32) -> File {
        self.client.open(path.as_bytes(), flags).expect("it opens")
    }

    /// Makes a clone of a file that an operation may change, in place of the last one.
    fn copy(&mut self, subject: Subject) -> &'static str {
        self.remove("/copy");
        self.client.clone_file(subject.path.as_bytes(), b"/copy").expect("a clone");
        "/copy"
    }

    /// Removes a file if it is there.
    fn remove(&mut self, path: &str) {
        let _ = self.client.unlink(path.as_bytes());
        self.client.reclaim().expect("it reclaims");
    }

    /// Stores to pages of a file through a window, and leaves them dirty.
    fn dirty(&mut self, file: &File, size: u64) {
        let len = self.sizes.dirty.min(size);
        let poked = self.client.poke(file, 0, len, &0x5a, Msync::Later);
        assert!(poked.error.is_none(), "{poked:?}");
    }

    /// Measures an operation, and the reclaiming that follows it.
    fn measure<T, E: Display>(
        &mut self,
        operation: impl Display,
        subject: &str,
        work: impl FnOnce(&mut Bench) -> std::result::Result<T, E>,
    ) -> Option<T> {
        self.client.reclaim().expect("it reclaims");
        self.client.call(&rpc::Status { fresh: true }).expect("a status");
        let done = work(self);
        self.client.reclaim().expect("it reclaims");
        let status = self.client.status().expect("a status");
        let (done, failed) = match done {
            Ok(done) => (Some(done), None),
            Err(why) => (None, Some(why.to_string())),
        };
        let row = Row {
            operation: operation.to_string(),
            subject: subject.trim_start_matches('/').to_string(),
            longest: status.longest_turn_ns.expect("the server says so"),
            what: status.longest_turn.unwrap_or_default().0,
            failed,
        };
        eprintln!(
            "{} {} {} {} {:?}",
            row.operation, row.subject, row.longest, row.what, row.failed
        );
        self.rows.push(row);
        done
    }

    /// Measures an operation of each of the files.
    fn measure_each(
        &mut self,
        operation: &str,
        mut work: impl FnMut(&mut Bench, Subject) -> Result<()>,
    ) {
        for subject in self.subjects.clone() {
            self.measure(operation, subject.path, |bench| work(bench, subject));
        }
    }

    /// Measures an operation of a clone of each of the files.
    fn measure_copies(
        &mut self,
        operation: &str,
        mut work: impl FnMut(&mut Bench, &'static str, Subject) -> Result<()>,
    ) {
        for subject in self.subjects.clone() {
            let path = self.copy(subject);
            self.measure(operation, subject.path, |bench| work(bench, path, subject));
        }
    }
}

/// A client that does nothing but ping.
struct Pinger {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Pinger {
    fn start(vm: &Vm) -> Pinger {
        let mut client = vm.client();
        client.set_timeout(None).expect("it can wait for ever");
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let mut times = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let start = Instant::now();
                client.ping().expect("it answers");
                times.push(start.elapsed());
                thread::sleep(Duration::from_micros(500));
            }
            times.sort_unstable();
            times
        });
        Pinger { stop, thread }
    }

    fn stop(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it answers")
    }
}
