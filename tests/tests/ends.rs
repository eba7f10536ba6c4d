//! However a machine ended or stands still, `umbra status` says so, and why.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

/// A filesystem in memory, at most this large, until it goes; `None` where none can be mounted.
struct Small<'p>(&'p Path);

impl<'p> Small<'p> {
    fn mount(path: &'p Path, size: &str) -> Option<Small<'p>> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"]).arg(path);
        mount.status().is_ok_and(|status| status.success()).then_some(Small(path))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // Lazily: a machine of a failed test may have files open in it.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[track_caller]
fn last_end(vm: &Vm) -> Value {
    let status = vm.json(&["status"]);
    assert_eq!(status["running"], false, "{status}");
    status["last_end"].clone()
}

#[test]
fn a_host_without_room_is_named_as_what_ended_the_machine() {
    let vm = Machine::nvdimm("64M").prepare();
    let folder = vm.state().path().to_path_buf();
    let Some(small) = Small::mount(&folder, "16M") else {
        println!("no small filesystem can be mounted here");
        return;
    };
    vm.up();
    fs::write(vm.file("big"), Random::new(7).bytes(24 << 20)).unwrap();
    vm.fails(&["put", vm.file("big").to_str().unwrap(), "/big"]);
    vm.wait_until_over();
    let end = last_end(&vm);
    assert_eq!((&end["cause"], &end["clean"]), (&"host-full".into(), &false.into()), "{end}");
    assert!(end["message"].as_str().unwrap().contains("the host has no room left for "), "{end}");
    let text = String::from_utf8(vm.ok(&["status"])).unwrap();
    assert!(text.contains("ended:   not cleanly, host-full, at 2"), "{text}");
    drop(small);
}

#[test]
fn kills_and_clean_stops_are_told_apart() {
    let vm = Vm::launch("16M");
    vm.down();
    assert_eq!((&last_end(&vm)["cause"], &last_end(&vm)["clean"]), (&"down".into(), &true.into()));
    vm.up();
    vm.kill_qemu();
    let end = last_end(&vm);
    assert_eq!((&end["cause"], &end["clean"]), (&"qemu-killed".into(), &false.into()), "{end}");
    vm.up();
    assert_eq!(vm.json(&["status"])["last_end"]["cause"], "qemu-killed");
    vm.run(&["console", "poweroff"]);
    vm.wait_until_over();
    assert_eq!(last_end(&vm)["cause"], "poweroff");
}

#[test]
fn a_machine_that_its_monitor_pauses_is_said_to_stand_still() {
    let vm = Vm::launch("16M");
    let monitor = vm.state().connect("qmp.sock").unwrap();
    let mut lines = BufReader::new(monitor.try_clone().unwrap()).lines();
    let mut tell = |monitor: &UnixStream, command: &str| {
        (&*monitor).write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes()).unwrap();
        // The greeting or an event may precede it.
        while !lines.next().unwrap().unwrap().contains("\"return\"") {}
    };
    tell(&monitor, "qmp_capabilities");
    assert!(vm.json(&["status"])["paused"].is_null());
    tell(&monitor, "stop");
    let status = vm.json(&["status"]);
    assert_eq!(
        (&status["paused"], &status["running"]),
        (&"paused".into(), &true.into()),
        "{status}"
    );
    let text = String::from_utf8(vm.ok(&["status"])).unwrap();
    assert!(
        text.contains("stopped: the guest does not run; QEMU's monitor says: paused"),
        "{text}"
    );
    tell(&monitor, "cont");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !vm.json(&["status"])["paused"].is_null() {
        assert!(Instant::now() < deadline, "it goes on, and is said not to");
        thread::sleep(Duration::from_millis(20));
    }
    // It does not unmount.
    tell(&monitor, "quit");
    vm.wait_until_over();
    let end = last_end(&vm);
    assert_eq!((&end["cause"], &end["clean"]), (&"qemu-ended".into(), &false.into()), "{end}");
    vm.up();
    assert_eq!(vm.client().status().unwrap().rebuilt, Some(true));
}
