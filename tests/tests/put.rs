//! Puts that end in the middle: whatever ends them, they leave nothing behind.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use umbra_tests::Vm;
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
            assert!(Instant::now() < deadline, "{end:?}: {} of {before} are free: {names}", free(&vm));
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(vm.json(&["ls", "/"])["entries"].as_array().unwrap().len(), 1, "{end:?}");
    }
    vm.assert_clean();
    assert_eq!(vm.ok(&["get", "/f", "-"]), content[..MIB]);
}
