//! Clients that use the host's sockets as they like: early, late, half, or not at all. Others are
//! served.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use umbra::client::connect;
use umbra::launch::control;
use umbra_server::raw::{ECHO_PORT, SOURCE_PORT};
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

/// Where clients of the device ask for a port. The host kernel's vsock has no such socket.
const SOCKET: &str = "vsock.sock";

fn has_socket(vm: &Vm) -> bool {
    vm.state().file(SOCKET).exists()
}

fn open(vm: &Vm) -> UnixStream {
    let stream = vm.state().connect(SOCKET).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Asserts that somebody else is served.
#[track_caller]
fn assert_served(vm: &Vm) {
    let mut stream = connect(vm.state(), ECHO_PORT).unwrap();
    stream.set_timeout(Some(Duration::from_secs(30))).unwrap();
    let bytes = Random::new(1).bytes(100_000);
    let mut back = vec![0; bytes.len()];
    stream.write_all(&bytes).unwrap();
    stream.read_exact(&mut back).unwrap();
    assert!(bytes == back);
}

/// Processor time that the supervisor has used. Clock ticks are 10 ms.
fn used(vm: &Vm) -> Duration {
    let pid = control::status(vm.state()).unwrap().unwrap().supervisor_pid;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn clients_that_leave_before_they_are_connected_cost_nothing() {
    let vm = Vm::launch("16M");
    if !has_socket(&vm) {
        return;
    }
    for greeting in ["", "CONN", "CONNECT 7", "CONNECT 7\n", "nonsense\n", "CONNECT 7\nand more"] {
        for _ in 0..50 {
            let mut stream = open(&vm);
            // It may have been hung up on.
            let _ = stream.write_all(greeting.as_bytes());
        }
        assert_served(&vm);
    }
    let before = used(&vm);
    thread::sleep(Duration::from_secs(1));
    let spent = used(&vm) - before;
    assert!(spent < Duration::from_millis(200), "{spent:?} in a second without clients");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !vm.console("net").starts_with("connections: 0 ") {
        assert!(Instant::now() < deadline, "{}", vm.console("net"));
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_sent_before_the_answer_is_not_lost() {
    let vm = Vm::launch("16M");
    if !has_socket(&vm) {
        return;
    }
    let bytes = Random::new(7).bytes(50_000);
    let mut stream = open(&vm);
    stream.write_all(&[b"CONNECT 7\n", &bytes[..]].concat()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.iter().position(|&byte| byte == b'\n').unwrap();
    assert!(answer.starts_with(b"OK ") && answer[end + 1..] == bytes);
}

#[test]
fn who_half_closes_still_gets_all_however_slowly_it_reads() {
    const LEN: u64 = 8 << 20;
    let vm = Vm::launch("16M");
    let mut stream = connect(vm.state(), SOURCE_PORT).unwrap();
    stream.set_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&LEN.to_le_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (mut piece, mut total) = (vec![0; 256 << 10], 0);
    loop {
        // Slower than the guest sends, so that something is always held back.
        thread::sleep(Duration::from_millis(20));
        match stream.read(&mut piece).unwrap() {
            0 => break,
            count => total += count as u64,
        }
    }
    assert_eq!(total, LEN);
}

#[test]
fn a_client_that_sends_on_while_its_answers_wait_is_not_stuck() {
    const LEN: usize = 16 << 20;
    let vm = Vm::launch("16M");
    let mut stream = connect(vm.state(), ECHO_PORT).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let bytes = Random::new(3).bytes(LEN);
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for piece in bytes.chunks(64 << 10) {
                writer.write_all(piece).unwrap();
                sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        // Until all that can hold something is full, both ways.
        let mut before = u64::MAX;
        while before != sent.load(Ordering::Relaxed) {
            before = sent.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(300));
        }
        assert!(before > 0 && before < LEN as u64, "stopped after {before} bytes");
        assert_served(&vm);
        stream.set_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == bytes, "{} bytes came back", back.len());
    });
}

#[test]
fn clients_that_come_while_the_guest_starts_do_no_harm() {
    let vm = Machine::nvdimm("16M").prepare();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // From before there is a socket until well after the guest is ready.
            while !over.load(Ordering::Relaxed) {
                if let Ok(mut stream) = vm.state().connect(SOCKET) {
                    let _ = stream.write_all(b"CONNECT 7\n");
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        vm.up();
        thread::sleep(Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
    });
    assert_served(&vm);
}

#[test]
fn a_relay_passes_on_the_end_of_each_direction() {
    const LEN: u64 = 4 << 20;
    let vm = Vm::launch("16M");
    let socket = vm.file("source.sock");
    let port = SOURCE_PORT.to_string();
    let mut relay = vm
        .command(&["relay", &port, socket.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() < deadline => {
                assert!(
                    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused),
                    "{error}"
                );
            }
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    // The end comes at once behind the request, long before the answer is taken.
    stream.write_all(&LEN.to_le_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(500));
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len() as u64, LEN);
    relay.kill().unwrap();
    relay.wait().unwrap();
}
