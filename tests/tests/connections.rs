//! Slow, silent, vanished and hostile clients hurt only themselves.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};
use umbra::client::{Client, Msync, connect, rpc};
use umbra_tests::Vm;
use umbra_tests::random::Random;

fn prepared() -> Vm {
    let vm = Vm::launch("64M");
    let mut client = vm.client();
    let file = client.open_or_create(b"/f").unwrap();
    client.write(&file, 0, &Random::new(1).bytes(4 << 20)).unwrap();
    vm
}

/// Asserts that another client is served as ever.
#[track_caller]
fn assert_served(vm: &Vm) {
    let mut client = vm.client();
    client.ping().unwrap();
    let file = client.open(b"/f", 0).unwrap();
    assert!(client.read(&file, 0, 4 << 20).unwrap() == Random::new(1).bytes(4 << 20));
}

#[test]
fn a_hundred_connections_that_send_nothing() {
    let vm = prepared();
    let silent: Vec<_> = (0..100).map(|_| connect(vm.state(), rpc::PORT).unwrap()).collect();
    assert_served(&vm);
    let mut client = vm.client();
    assert!(client.status().unwrap().connections >= 100);
    let file = client.open(b"/f", 0).unwrap();
    client.store(&file, 0, &[0], Msync::Now).unwrap();
    drop(silent);
    // They are noticed to be gone.
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.status().unwrap().connections > 10 {
        assert!(Instant::now() < deadline, "connections that have ended are still counted");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn garbage_ends_its_connection_only() {
    let vm = prepared();
    let mut random = Random::new(2);
    for round in 0..20 {
        let mut stream = connect(vm.state(), rpc::PORT).unwrap();
        stream.set_timeout(Some(Duration::from_secs(20))).unwrap();
        // Random bytes, text, and a header that promises 4 GiB.
        let garbage = match round % 3 {
            0 => random.bytes(5000),
            1 => b"GET / HTTP/1.1\r\nHost: umbra\r\n\r\n".repeat(10),
            _ => vec![0xff; 64],
        };
        // The server may have hung up before it is all written.
        let _ = stream.write_all(&garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 4096, "garbage was answered with {} bytes", answer.len());
    }
    // A good start does not excuse what follows.
    for _ in 0..10 {
        let mut client = vm.client();
        client.ping().unwrap();
        drop(client);
    }
    assert_served(&vm);
    vm.assert_clean();
}

#[test]
fn a_client_that_never_reads_its_answers_keeps_nobody_waiting() {
    let vm = prepared();
    let mut greedy: Vec<Client> = (0..4).map(|_| vm.client()).collect();
    for client in &mut greedy {
        let file = client.open(b"/f", 0).unwrap();
        for _ in 0..8 {
            client.send(&rpc::Read { handle: file.handle, offset: 0, len: 4 << 20 }, &[]).unwrap();
        }
    }
    for _ in 0..5 {
        assert_served(&vm);
    }
    // They can still change their minds.
    let expected = Random::new(1).bytes(4 << 20);
    let client = &mut greedy[0];
    let mut got = Vec::new();
    loop {
        let response = client.receive().unwrap();
        got.extend_from_slice(response.payload);
        if !response.more {
            break;
        }
    }
    assert!(got == expected);
    drop(greedy);
    assert_served(&vm);
}

#[test]
fn a_client_that_vanishes_midway_leaves_nothing_open() {
    let vm = prepared();
    for _ in 0..10 {
        let mut client = vm.client();
        let file = client.open(b"/f", 0).unwrap();
        client.load(&file, 0, 100_000).unwrap();
        // Half a write: the header promises more than comes.
        let header = rpc::Header::request(77, rpc::Method::WRITE.0, 6, 1 << 20).encode();
        let mut stream = connect(vm.state(), rpc::PORT).unwrap();
        stream.write_all(&header).unwrap();
    }
    let mut client = vm.client();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let status = client.status().unwrap();
        if status.handles == 0 && status.connections == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        thread::sleep(Duration::from_millis(20));
    }
    let pages = client.pages(None).unwrap();
    assert_eq!((pages.windows, pages.shadows, pages.writable), (0, 0, 0), "{pages:?}");
    assert_served(&vm);
}

#[test]
fn many_clients_at_once_see_what_each_other_wrote() {
    let vm = prepared();
    thread::scope(|scope| {
        for number in 0..8u8 {
            let mut client = vm.client();
            scope.spawn(move || {
                let path = format!("/own{number}");
                let file = client.open_or_create(path.as_bytes()).unwrap();
                for round in 0..20u64 {
                    client.write(&file, round * 10_000, &[number; 10_000]).unwrap();
                    assert_eq!(client.load(&file, round * 10_000, 5).unwrap(), [number; 5]);
                }
            });
        }
    });
    let mut client = vm.client();
    for number in 0..8u8 {
        let file = client.open(format!("/own{number}").as_bytes(), 0).unwrap();
        assert_eq!(client.read(&file, 0, u64::MAX).unwrap(), vec![number; 200_000]);
    }
    vm.assert_clean();
}

#[test]
fn a_relay_is_a_plain_socket_before_a_port() {
    let vm = prepared();
    let socket = vm.file("relay.sock");
    let mut relay = vm
        .command(&["relay", "7", socket.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut plain = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    // Bytes are sent at once: the relay keeps them until the guest has accepted.
    let sent = Random::new(5).bytes(300_000);
    let mut writer = plain.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut echoed = vec![0; sent.len()];
    plain.read_exact(&mut echoed).unwrap();
    assert!(echoed == sent);
    writing.join().unwrap();
    assert_eq!(plain.read(&mut [0]).unwrap(), 0, "the end of the stream is passed on, too");
    // The socket goes with the command, however that ends, and with the server.
    relay.kill().unwrap();
    relay.wait().unwrap();
    wait_until_gone(&socket);
    let mut relay = vm
        .command(&["relay", "7", socket.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !socket.exists() {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(vm.fails(&["relay", "7", socket.to_str().unwrap()]).contains("in use"));
    assert!(vm.fails(&["relay", "6", "unused.sock"]).contains("does not listen"));
    vm.down();
    assert_eq!(relay.wait().unwrap().code(), Some(7));
    wait_until_gone(&socket);
}

#[track_caller]
fn wait_until_gone(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while path.exists() {
        assert!(Instant::now() < deadline, "{} is still there", path.display());
        thread::sleep(Duration::from_millis(10));
    }
}
