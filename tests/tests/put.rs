//! Puts that end in the middle: whatever ends them, they leave nothing behind.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use umbra_proto::nbd::Style;
use umbra_tests::Vm;
use umbra_tests::nbd::Disk;
use umbra_tests::random::Random;

const MIB: usize = 1 << 20;

/// What ends a put in the middle.
#[derive(Clone, Copy, Debug)]
enum End {
    /// A signal to the client.
    Signal(Signal),
    /// `umbra down`.
    Down,
    /// A kill of QEMU: the guest crashes.
    Crash,
}

const ENDS: [End; 13] = [
    End::Signal(Signal::INT),
    End::Signal(Signal::TERM),
    End::Signal(Signal::HUP),
    End::Signal(Signal::KILL),
    End::Crash,
    End::Down,
    End::Signal(Signal::INT),
    End::Signal(Signal::TERM),
    End::Crash,
    End::Signal(Signal::HUP),
    End::Signal(Signal::KILL),
    End::Down,
    End::Crash,
];

fn free(vm: &Vm) -> u64 {
    vm.json(&["df"])["blocks_free"].as_u64().expect("a number")
}

/// Starts a put from a pipe, and waits until the server has stored some of what came through it.
fn put_midway(vm: &Vm, to: &str, content: &[u8]) -> (Child, ChildStdin) {
    let before = free(vm);
    let umbra = vm.command(&["put", "-", to]);
    // Whoever runs this test may ignore the signals, and its children with it.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM,HUP").arg(umbra.get_program()).args(umbra.get_args());
    for (key, value) in umbra.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(content).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The client may hold back at most one write.
    while before - free(vm) < ((content.len() - 2 * MIB) / 4096) as u64 {
        assert!(Instant::now() < deadline, "the put does not begin");
        thread::sleep(Duration::from_millis(20));
    }
    (child, pipe)
}

#[test]
fn a_put_that_ends_midway_leaves_nothing() {
    let vm = Vm::launch("128M");
    let content = Random::new(1).bytes(6 * MIB);
    fs::write(vm.file("in"), &content[..MIB]).unwrap();
    vm.ok(&["put", vm.file("in").to_str().unwrap(), "/f"]);
    // From now on all that a crash takes away, or a mount rebuilds, is there.
    vm.kill_qemu();
    vm.up();
    let before = free(&vm);
    for (i, end) in ENDS.into_iter().enumerate() {
        // Onto a file that is there, and under a new name.
        let to = if i % 2 == 0 { "/f" } else { "/g" };
        let (mut child, pipe) = put_midway(&vm, to, &content);
        match end {
            End::Signal(signal) => kill_process(Pid::from_child(&child), signal).unwrap(),
            End::Down => vm.down(),
            End::Crash => vm.kill_qemu(),
        }
        // The client notices the end of the server at its next write.
        drop(pipe);
        assert!(!child.wait().unwrap().success(), "{end:?}");
        if !matches!(end, End::Signal(_)) {
            vm.up();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while free(&vm) != before {
            let names = vm.json(&["ls", "/"])["entries"].clone();
            assert!(
                Instant::now() < deadline,
                "{end:?}: {} of {before} are free: {names}",
                free(&vm)
            );
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(vm.json(&["ls", "/"])["entries"].as_array().unwrap().len(), 1, "{end:?}");
    }
    vm.assert_clean();
    assert_eq!(vm.ok(&["get", "/f", "-"]), content[..MIB]);
}

/// A variable that is not set is no path.
#[test]
fn an_empty_path_is_an_error() {
    let vm = Vm::launch("16M");
    fs::write(vm.file("in"), "content").unwrap();
    let local = vm.file("in");
    let local = local.to_str().unwrap();
    vm.ok(&["put", local, "/f"]);
    let commands: [&[&str]; 17] = [
        &["put", local, ""],
        &["put", "-", ""],
        &["get", "", local],
        &["ls", ""],
        &["stat", ""],
        &["rm", ""],
        &["mv", "/f", ""],
        &["mv", "", "/g"],
        &["ln", "/f", ""],
        &["ln", "", "/g"],
        &["mkdir", ""],
        &["truncate", "", "1"],
        &["clone", "", "/g"],
        &["clone", "/f", ""],
        &["poke", "", "0", "--text", "x"],
        &["pages", ""],
        &["export", "add", "", "x"],
    ];
    for command in commands {
        let output = vm.run(command);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("path is empty"), "{command:?}: {text}");
    }
    assert_eq!(vm.json(&["ls", "/"])["entries"].as_array().unwrap().len(), 1);
    assert_eq!(fs::read(vm.file("in")).unwrap(), b"content");
    vm.assert_clean();
}

/// Over a file that is in use, and without room, a put fails before anything has travelled.
#[test]
fn a_put_that_cannot_be_fails_at_its_start() {
    let vm = Vm::launch("32M");
    fs::write(vm.file("in"), "content").unwrap();
    vm.ok(&["put", vm.file("in").to_str().unwrap(), "/f"]);
    let before = free(&vm);
    let disk = Disk::open(vm.state(), "/f", Style::Structured);
    // From a pipe that nothing comes through, and that does not end.
    let mut child = vm
        .command(&["put", "-", "/f"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = child.stdin.take().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it waits for what it could not write");
        }
        thread::sleep(Duration::from_millis(20));
    }
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("in use by 1 NBD client"), "{text}");
    drop(disk);
    // 40 MiB do not fit, 1 GiB with little in it does.
    let large = fs::File::create(vm.file("large")).unwrap();
    large.set_len(1 << 30).unwrap();
    vm.ok(&["put", vm.file("large").to_str().unwrap(), "/sparse"]);
    fs::write(vm.file("large"), Random::new(2).bytes(40 * MIB)).unwrap();
    let text = vm.fails(&["put", vm.file("large").to_str().unwrap(), "/large"]);
    assert!(text.contains("no space left") && text.contains("are needed"), "{text}");
    assert!(before - free(&vm) < 4, "something is left");
    vm.assert_clean();
}
