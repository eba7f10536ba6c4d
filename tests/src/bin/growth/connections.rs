//! Throughput against connections: requests that do little, and streams of large ones.

use crate::Options;
use crate::curve::{Curve, Series, count, median};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};
use umbra::client::{Client, File, rpc};
use umbra::plot::{Axis, Scale};
use umbra_proto::nbd::Style;
use umbra_tests::nbd::Disk;
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

const CONNECTIONS: &[u64] = &[1, 2, 4, 8, 16, 32, 64];
const QUICK: [u64; 2] = [1, 4];
/// How long each point is measured.
const SPAN: Duration = Duration::from_millis(700);
const QUICK_SPAN: Duration = Duration::from_millis(50);
const BLOCK: u64 = 4096;
/// Each connection has a file of so much, which a stream reads or writes again and again.
const SIZE: u64 = 2 << 20;

/// One request of a kind, on one connection; returns what it counts for.
type Request = Box<dyn FnMut() -> f64 + Send>;

fn name(number: u64) -> String {
    format!("stream{number}")
}

fn client(vm: &Vm, number: u64) -> (Client, File) {
    let mut client = vm.client();
    let file =
        client.open_or_create(format!("/{}", name(number)).as_bytes()).expect("it can be opened");
    (client, file)
}

fn ping(vm: &Vm, _: u64) -> Request {
    let mut client = vm.client();
    Box::new(move || {
        client.ping().expect("an answer");
        1.0
    })
}

fn read_block(vm: &Vm, number: u64) -> Request {
    let (mut client, file) = client(vm, number);
    let mut random = Random::new(number);
    Box::new(move || {
        let at = random.below(SIZE / BLOCK) * BLOCK;
        assert_eq!(client.read(&file, at, BLOCK).expect("bytes").len() as u64, BLOCK);
        1.0
    })
}

fn read_block_nbd(vm: &Vm, number: u64) -> Request {
    let mut disk = Disk::open(vm.state(), &name(number), Style::Structured);
    let mut random = Random::new(number);
    Box::new(move || {
        let at = random.below(SIZE / BLOCK) * BLOCK;
        assert_eq!(disk.read(at, BLOCK as usize).len() as u64, BLOCK);
        1.0
    })
}

fn stream_out(vm: &Vm, number: u64) -> Request {
    let (mut client, file) = client(vm, number);
    Box::new(move || {
        let (request, mut bytes) = (rpc::Read { handle: file.handle, offset: 0, len: SIZE }, 0);
        let taken = client.call_each(&request, |_, piece| {
            bytes += piece.len();
            Ok(())
        });
        taken.expect("bytes");
        assert_eq!(bytes as u64, SIZE);
        SIZE as f64 / 1e6
    })
}

fn stream_in(vm: &Vm, number: u64) -> Request {
    let (mut client, file) = client(vm, number);
    let bytes = vec![number as u8 + 1; SIZE as usize];
    Box::new(move || {
        client.write(&file, 0, &bytes).expect("there is room");
        SIZE as f64 / 1e6
    })
}

/// What so many connections do in a second, all of them together.
fn rate(vm: &Vm, connections: u64, open: fn(&Vm, u64) -> Request, span: Duration) -> f64 {
    // All are open, and have had an answer, before the first is counted.
    let barrier = Barrier::new(connections as usize);
    let worker = |number| {
        let mut request = open(vm, number);
        request();
        barrier.wait();
        let (start, mut done) = (Instant::now(), 0.0);
        while start.elapsed() < span {
            done += request();
        }
        // Each by its own clock: the last request of a slow one ends late.
        done / start.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let all: Vec<_> =
            (0..connections).map(|number| scope.spawn(move || worker(number))).collect();
        all.into_iter().map(|one| one.join().expect("a connection was served")).sum()
    })
}

/// A kind of requests: what it is called, and what a connection does for it.
type Kind = (&'static str, fn(&Vm, u64) -> Request);

const SMALL: &[Kind] =
    &[("ping", ping), ("read of 4 KiB, RPC", read_block), ("read of 4 KiB, NBD", read_block_nbd)];
const STREAMS: &[Kind] = &[("reads of 2 MiB", stream_out), ("writes of 2 MiB", stream_in)];

fn curve(
    vm: &Vm,
    options: &Options,
    kinds: &[Kind],
    (name, title, label): (&'static str, &'static str, &'static str),
) -> Curve {
    let series = kinds.iter().map(|&(kind, open)| {
        eprintln!("        {kind}");
        let span = if options.quick { QUICK_SPAN } else { SPAN };
        let at = |connections: u64| {
            let rates =
                (0..options.rounds.max(1)).map(|_| rate(vm, connections, open, span)).collect();
            (connections as f64, median(rates))
        };
        Series::drawn(kind, count, options.points(CONNECTIONS, QUICK).into_iter().map(at).collect())
    });
    let series = series.collect();
    let x = Axis { label: "connections", show: count };
    Curve { name, title, x, y: Axis { label, show: count }, scale: Scale::Linear, series }
}

/// Measures requests, and streams.
pub fn measure(options: &Options) -> Vec<Curve> {
    let vm = Machine::nvdimm("256M").in_memory().prepare();
    vm.up_with(&["--prealloc"]);
    for number in 0..*CONNECTIONS.last().expect("there are some") {
        stream_in(&vm, number)();
    }
    let requests = (
        "connections-requests",
        "Requests, against connections",
        "requests a second, all together",
    );
    let streams =
        ("connections-streams", "Streams, against connections", "MB a second, all together");
    let all = vec![curve(&vm, options, SMALL, requests), curve(&vm, options, STREAMS, streams)];
    vm.assert_clean();
    all
}
