//! NBD on the booted machine, by a client of our own: extended headers, requests that overlap,
//! errors, connections that break off.

use std::time::{Duration, Instant};
use umbra_proto::nbd::{
    Command, Status, Style, allocation, command_flags as flag, transmission_flags,
};
use umbra_tests::nbd::Disk;
use umbra_tests::random::Random;
use umbra_tests::{Vm, kills};

const STYLES: [Style; 3] = [Style::Simple, Style::Structured, Style::Extended];

fn with_disk(size: usize) -> (Vm, Vec<u8>) {
    let vm = Vm::launch("256M");
    let bytes = Random::new(1).bytes(size);
    let mut client = vm.client();
    let file = client.open_or_create(b"/golden").unwrap();
    client.write(&file, 0, &bytes).unwrap();
    client.clone_file(b"/golden", b"/disk").unwrap();
    (vm, bytes)
}

#[test]
fn a_clone_is_written_in_all_styles_and_its_original_stays() {
    let (vm, golden) = with_disk(8 << 20);
    let mut expected = golden.clone();
    let mut random = Random::new(2);
    for style in STYLES {
        let mut disk = Disk::open(vm.state(), "disk", style);
        assert_eq!(disk.size, 8 << 20);
        for i in 0..60 {
            let len = 1 + random.below([600, 5000, 300_000][i % 3]) as usize;
            let at = random.below((expected.len() - len) as u64) as usize;
            let bytes = random.bytes(len);
            disk.write(at as u64, &bytes);
            expected[at..at + len].copy_from_slice(&bytes);
        }
        disk.flush();
        for (at, len) in [(4096, 1 << 20), (5_000_001, 333_333)] {
            let reply = disk.call(Command::WRITE_ZEROES, flag::FUA, at, len, &[]);
            assert_eq!(reply.error, None);
            expected[at as usize..(at + len) as usize].fill(0);
        }
        assert!(disk.read(0, expected.len()) == expected, "{style:?}");
        drop(disk);
        let mut original = Disk::open(vm.state(), "/golden", style);
        assert!(original.read(0, golden.len()) == golden, "{style:?}: the original has changed");
    }
    vm.assert_clean();
    // What was flushed is there without a clean end.
    vm.kill_qemu();
    vm.up();
    let mut disk = Disk::open(vm.state(), "disk", Style::Extended);
    assert!(disk.read(0, expected.len()) == expected);
    vm.assert_clean();
}

#[test]
fn a_small_read_behind_a_large_one_answers_first() {
    let (vm, golden) = with_disk(40 << 20);
    for style in [Style::Structured, Style::Extended] {
        let mut disk = Disk::open(vm.state(), "/disk", style);
        for pause in [Duration::ZERO, Duration::from_millis(5)] {
            let large = disk.send(Command::READ, 0, 0, 32 << 20, &[]).unwrap();
            std::thread::sleep(pause);
            let small = disk.send(Command::READ, 0, 36 << 20, 4096, &[]).unwrap();
            let first = disk.receive().unwrap();
            assert_eq!(first.cookie, small, "{style:?}");
            assert!(first.data == golden[36 << 20..(36 << 20) + 4096]);
            let second = disk.receive().unwrap();
            assert_eq!((second.cookie, second.error.as_ref()), (large, None));
            assert!(second.data == golden[..32 << 20]);
        }
    }
}

#[test]
fn extended_headers_carry_lengths_beyond_32_bits() {
    let vm = Vm::launch("64M");
    let mut client = vm.client();
    let file = client.open_or_create(b"/big").unwrap();
    client.write(&file, 5 << 30, b"far out").unwrap();
    let size = (5 << 30) + 7;
    drop(client);
    let mut disk = Disk::open(vm.state(), "big", Style::Extended);
    assert_eq!(disk.size, size);
    assert_ne!(disk.flags & transmission_flags::BLOCK_STATUS_PAYLOAD, 0);
    let (hole, data) = (allocation::HOLE | allocation::ZERO, 0);
    let reply = disk.call(Command::BLOCK_STATUS, 0, 0, size, &[]);
    assert_eq!(
        reply.status[&1],
        [Status { length: 5 << 30, flags: hole }, Status { length: 7, flags: data }]
    );
    let payload: Vec<u8> = [&size.to_be_bytes()[..], &2u32.to_be_bytes()].concat();
    let reply = disk.call(Command::BLOCK_STATUS, 0, 0, payload.len() as u64, &payload);
    assert_eq!(reply.status.keys().collect::<Vec<_>>(), [&2]);
    assert_eq!(disk.call(Command::CACHE, 0, 0, size, &[]).error, None);
    assert_eq!(disk.call(Command::TRIM, 0, 0, size, &[]).error, None);
    assert_eq!(disk.read(5 << 30, 7), [0; 7]);
    let reply = disk.call(Command::BLOCK_STATUS, 0, 0, size, &[]);
    assert_eq!(reply.status[&1], [Status { length: size, flags: hole }]);
    vm.assert_clean();
}

#[test]
fn errors_are_those_of_the_specification() {
    let (vm, golden) = with_disk(1 << 20);
    for style in STYLES {
        let mut disk = Disk::open(vm.state(), "disk", style);
        let size = disk.size;
        for (command, flags, offset, length, errno) in [
            (Command::READ, 0, size, 1, 22),
            (Command::TRIM, 0, size - 1, 2, 22),
            (Command::WRITE_ZEROES, 0, size - 1, 2, 28),
            (Command(99), 0, 0, 0, 22),
            (Command::READ, flag::NO_HOLE, 0, 1, 22),
            (Command::FLUSH, 0, 0, 1, 22),
        ] {
            assert_eq!(
                disk.call(command, flags, offset, length, &[]).errno(),
                errno,
                "{style:?} {command}"
            );
        }
        assert_eq!(disk.call(Command::WRITE, 0, size - 1, 2, &[1, 2]).errno(), 28);
        assert!(disk.read(0, golden.len()) == golden);
    }
    let mut disk = Disk::open(vm.state(), "disk", Style::Structured);
    assert_eq!(
        disk.call(
            Command::READ,
            flag::DF,
            0,
            (umbra_proto::nbd::DEFAULT_MAX_PAYLOAD + 1).into(),
            &[]
        )
        .errno(),
        22,
        "beyond the end"
    );
}

#[test]
fn a_file_in_use_stays_and_is_free_once_its_clients_are_gone() {
    let (vm, golden) = with_disk(1 << 20);
    let mut disk = Disk::open(vm.state(), "disk", Style::Structured);
    let why = vm.fails(&["rm", "/disk"]);
    let words = "in use by 1 NBD client of the export 'disk'";
    assert!(why.contains(words), "{why}");
    // The console is refused the same, in the same words.
    for line in ["rm /disk", "truncate /disk 512K", "mv /golden /./disk"] {
        let words_of_line = ["console"].into_iter().chain(line.split(' '));
        let why = vm.fails(&words_of_line.collect::<Vec<_>>());
        assert!(why.contains(words), "{line}: {why}");
    }
    assert!(disk.read(0, golden.len()) == golden);
    // It vanishes without a word.
    drop(disk);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !vm.run(&["rm", "/disk"]).status.success() {
        assert!(Instant::now() < deadline, "a client that is gone still counts");
        std::thread::sleep(Duration::from_millis(20));
    }
    vm.assert_clean();
}

#[test]
fn clients_are_listed_with_their_process_and_evicted_even_if_they_hang() {
    let (vm, golden) = with_disk(1 << 20);
    let exports = || {
        let listed: serde_json::Value =
            serde_json::from_slice(&vm.ok(&["export", "list", "--json"])).unwrap();
        listed["exports"].as_array().unwrap().clone()
    };
    vm.ok(&["export", "add", "/disk", "shared"]);
    // It asks for much, and reads nothing of it.
    let mut hangs = Disk::open(vm.state(), "shared", Style::Structured);
    for _ in 0..64 {
        hangs.send(Command::READ, 0, 0, golden.len() as u64, &[]).unwrap();
    }
    let listed = exports().iter().find(|export| export["name"] == "shared").unwrap().clone();
    assert_eq!(listed["clients"], 1);
    let connection = &listed["connections"][0];
    assert_eq!(connection["size"], golden.len());
    assert!(connection["since"].as_i64().unwrap() > 0 && connection["port"].as_u64().unwrap() > 0);
    // The host's kernel, where it is the device, tells nothing of processes.
    if !std::fs::read_to_string(vm.state().file("endpoint")).unwrap().starts_with("vsock:") {
        assert_eq!(connection["pid"], std::process::id());
        assert!(connection["command"].is_string());
        let text = String::from_utf8(vm.ok(&["export", "list"])).unwrap();
        assert!(text.contains(&format!("process {} (", std::process::id())), "{text}");
    }
    let why = vm.fails(&["export", "remove", "shared"]);
    assert!(why.contains("clients use it: 1"), "{why}");
    vm.ok(&["export", "remove", "shared", "--force"]);
    assert!(exports().iter().all(|export| export["name"] != "shared"));
    vm.ok(&["rm", "/disk"]);
    // The connection ends, though nobody sends anything on it.
    while hangs.receive().is_ok() {}
    vm.assert_clean();
}

#[test]
fn nonsense_ends_its_own_connection_only() {
    let (vm, golden) = with_disk(1 << 20);
    let mut good = Disk::open(vm.state(), "disk", Style::Structured);
    for style in STYLES {
        let mut bad = Disk::open(vm.state(), "disk", style);
        // With extended headers a compact request, otherwise one with a wrong magic number.
        let command = Command(0);
        let _ = bad.send(command, 0, 0, 512, &[]);
        bad.receive().unwrap();
        bad.send_raw(&[0x5a; 64]);
        assert!(bad.is_over(), "{style:?}");
        assert!(good.read(0, golden.len()) == golden);
    }
    vm.assert_clean();
}

#[test]
fn what_a_flush_covered_survives_kills() {
    let outcome = kills::run(3, 7, &mut |_| ());
    assert!(outcome.kills == 3 && outcome.flushes > 10, "{outcome:?}");
}
