//! Signals end the machine so that the next mount has nothing to count anew.

use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use umbra::launch::control;
use umbra_tests::Vm;

const SIGNALS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

fn send(signal: Signal, pid: u32) {
    // It may have ended by the first signal.
    let _ = kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal);
}

/// Starts the machine in the foreground, and waits until it serves.
fn foreground(vm: &Vm) -> Child {
    let mut command = vm.command(&["up"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !control::status(vm.state()).unwrap().is_some_and(|status| status.ready) {
        assert!(Instant::now() < deadline, "it is not ready");
        thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Asserts that the last stop was clean, and leaves the machine running.
#[track_caller]
fn assert_was_clean(vm: &Vm, how: &str) {
    vm.up();
    assert_eq!(vm.client().status().unwrap().rebuilt, Some(false), "{how}");
    vm.assert_clean();
}

#[test]
fn two_signals_ten_milliseconds_apart_unmount_cleanly() {
    let vm = Vm::launch("64M");
    for signal in SIGNALS {
        vm.ok(&["truncate", "/f", "1M"]);
        vm.ok(&["poke", "/f", "4096", "--text", "dirty", "--no-sync"]);
        // In the background.
        let pid = control::status(vm.state()).unwrap().unwrap().supervisor_pid;
        send(signal, pid);
        thread::sleep(Duration::from_millis(10));
        send(Signal::TERM, pid);
        vm.wait_until_over();
        assert_was_clean(&vm, &format!("{signal:?} in the background"));
        vm.down();
        // And in the foreground.
        let child = foreground(&vm);
        vm.ok(&["poke", "/f", "8192", "--text", "dirty", "--no-sync"]);
        send(signal, child.id());
        thread::sleep(Duration::from_millis(10));
        send(Signal::TERM, child.id());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{signal:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_was_clean(&vm, &format!("{signal:?} in the foreground"));
    }
}

#[test]
fn a_terminal_that_is_closed_unmounts_cleanly() {
    let vm = Vm::launch("64M");
    vm.down();
    let mut child = foreground(&vm);
    vm.ok(&["truncate", "/f", "1M"]);
    drop((child.stdin.take(), child.stdout.take(), child.stderr.take()));
    for signal in [Signal::PIPE, Signal::HUP, Signal::CONT, Signal::TERM] {
        send(signal, child.id());
    }
    assert!(child.wait().unwrap().success());
    assert_was_clean(&vm, "a closed terminal");
}

/// A service manager sends its signal to every process of a service.
#[test]
fn a_signal_to_qemu_too_unmounts_cleanly() {
    let vm = Vm::launch("64M");
    for signal in SIGNALS {
        let status = control::status(vm.state()).unwrap().unwrap();
        vm.ok(&["truncate", "/f", "1M"]);
        send(signal, status.qemu_pid);
        thread::sleep(Duration::from_millis(200));
        vm.ok(&["truncate", "/f", "2M"]);
        send(signal, status.supervisor_pid);
        send(signal, status.qemu_pid);
        vm.wait_until_over();
        assert_was_clean(&vm, &format!("{signal:?} to both"));
    }
}
