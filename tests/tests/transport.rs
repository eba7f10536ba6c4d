//! Streams between host and guest carry any number of bytes in both directions, and end as they
//! should.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};
use umbra::client::{Stream, connect};
use umbra_server::raw::{DISCARD_PORT, ECHO_PORT, SOURCE_PORT};
use umbra_tests::Vm;
use umbra_tests::random::Random;

const MIB: u64 = 1 << 20;

fn open(vm: &Vm, port: u32) -> Stream {
    let stream = connect(vm.state(), port).unwrap();
    stream.set_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends `total` bytes to the guest, which counts them.
fn sink(vm: &Vm, total: u64) {
    let mut stream = open(vm, DISCARD_PORT);
    let piece = vec![0xA5; MIB as usize];
    let mut left = total;
    while left > 0 {
        let n = left.min(MIB);
        stream.write_all(&piece[..n as usize]).unwrap();
        left -= n;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut count = [0; 8];
    stream.read_exact(&mut count).unwrap();
    assert_eq!(u64::from_le_bytes(count), total);
}

/// Has the guest send `total` bytes, a multiple of 1 MiB, and looks at each.
fn source(vm: &Vm, total: u64) {
    let mut stream = open(vm, SOURCE_PORT);
    stream.write_all(&total.to_le_bytes()).unwrap();
    let mut piece = vec![0; MIB as usize];
    let mut number = 0;
    for _ in 0..total / MIB {
        stream.read_exact(&mut piece).unwrap();
        for word in piece.as_chunks::<8>().0 {
            assert_eq!(u64::from_le_bytes(*word), number);
            number += 1;
        }
    }
    assert_eq!(stream.read(&mut piece).unwrap(), 0, "more than was asked for");
}

/// Sends bytes to the echo server and expects them back, on one connection.
fn echo(vm: &Vm, stream: &mut Stream, len: usize, seed: u64) {
    let bytes = Random::new(seed).bytes(len);
    let mut back = vec![0; len];
    stream.write_all(&bytes).unwrap();
    stream.read_exact(&mut back).unwrap();
    assert!(bytes == back, "echoed differently; {}", vm.console("net"));
}

/// How many connections the guest has.
fn connections(vm: &Vm) -> u64 {
    let text = vm.console("net");
    let number = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no number of connections in {text:?}"))
}

#[track_caller]
fn wait_for_connections(vm: &Vm, expected: u64, patience: Duration) {
    let deadline = Instant::now() + patience;
    while connections(vm) != expected {
        assert!(
            Instant::now() < deadline,
            "still not {expected} connections: {}",
            vm.console("net")
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn bytes_go_both_ways_and_half_closed_streams_are_answered() {
    let vm = Vm::launch("64M");
    sink(&vm, 64 * MIB + 1);
    source(&vm, 64 * MIB);
    let mut stream = open(&vm, ECHO_PORT);
    for (seed, len) in [1, 2, 4095, 4096, 65_535, 65_536, 65_537, 100_000].into_iter().enumerate() {
        echo(&vm, &mut stream, len, seed as u64);
    }
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last words");
    wait_for_connections(&vm, 0, Duration::from_secs(5));
}

#[test]
fn silent_connections_cost_nothing_and_the_last_ones_are_refused() {
    let vm = Vm::launch("64M");
    // All that there are but those that are kept for the native protocol.
    let mut silent: Vec<Stream> = (0..1024 - 32).map(|_| open(&vm, ECHO_PORT)).collect();
    assert_eq!(connections(&vm), 1024 - 32);
    let refused = connect(vm.state(), ECHO_PORT).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("does not listen"), "{refused}");
    for (i, stream) in silent.iter_mut().enumerate().step_by(199) {
        echo(&vm, stream, 10_000, i as u64);
    }
    silent.truncate(100);
    wait_for_connections(&vm, 100, Duration::from_secs(5));
    source(&vm, 16 * MIB);
    sink(&vm, 16 * MIB);
}

#[test]
fn clients_that_stop_reading_or_vanish_hurt_only_themselves() {
    let vm = Vm::launch("64M");
    // Ten that never read what they asked for, ten that send until they are stopped and never read.
    let mut lazy = Vec::new();
    for _ in 0..10 {
        let mut source = open(&vm, SOURCE_PORT);
        source.write_all(&0u64.to_le_bytes()).unwrap();
        let mut stuck = open(&vm, ECHO_PORT);
        stuck.set_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut echoed = 0;
        while let Ok(count) = stuck.write(&[7; 65_536]) {
            echoed += count;
        }
        assert!(echoed > 1 << 20, "stopped after {echoed} bytes");
        lazy.extend([source, stuck]);
    }
    let mut stream = open(&vm, ECHO_PORT);
    for seed in 0..20 {
        echo(&vm, &mut stream, 50_000, seed);
    }
    sink(&vm, 16 * MIB);
    source(&vm, 16 * MIB);
    // All of them go without a word, others do so in the middle of a stream that flows.
    drop(lazy);
    let mut random = Random::new(3);
    for round in 0..30 {
        let port = [SOURCE_PORT, DISCARD_PORT, ECHO_PORT][round % 3];
        let mut stream = open(&vm, port);
        stream.write_all(&0u64.to_le_bytes()).unwrap();
        let until = Instant::now() + Duration::from_millis(random.below(20));
        let mut piece = vec![0; 65_536];
        while Instant::now() < until {
            let done = if port == DISCARD_PORT {
                stream.write(&piece)
            } else {
                stream.read(&mut piece[..4])
            };
            match done {
                Ok(_) if port == ECHO_PORT => stream.write_all(&piece[..4]).unwrap(),
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }
    echo(&vm, &mut stream, 50_000, 99);
    drop(stream);
    wait_for_connections(&vm, 0, Duration::from_secs(15));
    source(&vm, 16 * MIB);
    sink(&vm, 16 * MIB);
}

/// Counters of bytes are modulo 2^32.
#[test]
fn more_than_four_gibibytes_on_one_connection() {
    let vm = Vm::launch("64M");
    sink(&vm, 4097 * MIB + 7);
    source(&vm, 4097 * MIB);
    vm.assert_clean();
}
