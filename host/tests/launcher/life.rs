//! Start, status, console, stop; the image and the logs.

use super::{GOOD_GUEST, Host, assert_all_end, kill, last_end, pid};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn up_status_console_down() {
    let host = Host::with_guest(GOOD_GUEST);
    let status = host.json(&["status"]);
    assert_eq!(status["version"], 1);
    assert_eq!(status["running"], false);
    assert!(status["qemu_pid"].is_null());

    let pids = host.start();
    let status = host.json(&["status"]);
    assert_eq!(status["running"], true);
    assert_eq!(status["qemu_pid"], pids[1]);
    assert!(status["boot_ms"].as_f64().unwrap() > 0.0);
    assert!(["tcg", "kvm"].contains(&status["accel"].as_str().unwrap()));
    assert_eq!(fs::metadata(host.path("state/nvdimm.img")).unwrap().len(), 1 << 20);

    let output = host.run(&["console", "hello", "there"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "you said hello there\n");

    host.json(&["down"]);
    assert_all_end(&pids);
    assert_eq!(host.json(&["status"])["running"], false);
    assert!(host.failure(&["down"]).contains("no server is running"));
    let log = fs::read_to_string(host.path("state/console.log")).unwrap();
    assert!(log.starts_with("booting\nready\n") && log.ends_with("bye\n"), "{log}");
}

#[test]
fn a_second_up_says_no_and_changes_nothing() {
    let host = Host::with_guest(GOOD_GUEST);
    let pids = host.start();
    for detach in [&["up", "--detach"][..], &["up"]] {
        assert!(host.failure(detach).contains("already running"));
    }
    assert_eq!(host.json(&["status"])["qemu_pid"], pids[1]);
    host.json(&["down"]);
}

#[test]
fn whoever_is_killed_the_others_end_and_the_next_start_works() {
    let host = Host::with_guest(GOOD_GUEST);
    for victim in 0..2 {
        let pids = host.start();
        kill(Signal::KILL, pids[victim]);
        assert_all_end(&pids);
        assert_eq!(host.json(&["status"])["running"], false, "victim {victim}");
        assert!(host.failure(&["ls"]).contains("no server is running"));
    }
}

#[test]
fn a_signal_shuts_the_foreground_down_cleanly() {
    for signal in [Signal::INT, Signal::TERM] {
        let host = Host::with_guest(GOOD_GUEST);
        let mut child = host
            .umbra(&["up"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut console = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(console.next().unwrap().unwrap(), "booting");
        assert_eq!(console.next().unwrap().unwrap(), "ready");
        child.stdin.as_mut().unwrap().write_all(b"hi\n").unwrap();
        assert_eq!(console.next().unwrap().unwrap(), "you said hi");
        while host.json(&["status"])["ready"] != true {
            thread::sleep(Duration::from_millis(5));
        }
        kill(signal, pid(&child));
        assert!(child.wait().unwrap().success());
        assert_eq!(console.next().unwrap().unwrap(), "ok");
        assert_eq!(console.next().unwrap().unwrap(), "you said ");
        assert_eq!(console.next().unwrap().unwrap(), "ok");
        assert_eq!(console.next().unwrap().unwrap(), "bye");
    }
}

#[test]
fn a_starter_that_goes_takes_its_server_along_cleanly() {
    let host = Host::with_guest(&format!("sleep 1; {GOOD_GUEST}"));
    let mut starter = host.umbra(&["up", "--detach", "--nvdimm-size", "1M"]).spawn().unwrap();
    while host.json(&["status"])["running"] != true {
        thread::sleep(Duration::from_millis(5));
    }
    let supervisor = host.json(&["status"])["supervisor_pid"].as_u64().unwrap();
    // Not INT, which a shell without job control has its background jobs ignore.
    kill(Signal::TERM, pid(&starter));
    assert!(!starter.wait().unwrap().success());
    assert_all_end(&[supervisor]);
    assert_eq!(last_end(&host), ("abandoned".into(), true, String::new()));
}

#[test]
fn who_is_stopped_is_said_to_be() {
    let host = Host::with_guest(GOOD_GUEST);
    let pids = host.start();
    assert!(host.json(&["status"])["paused"].is_null());
    kill(Signal::STOP, pids[1]);
    // The system takes its time to stop a process.
    let deadline = Instant::now() + Duration::from_secs(10);
    while host.json(&["status"])["paused"] != "stopped-by-signal" {
        assert!(Instant::now() < deadline, "{}", host.json(&["status"]));
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(host.json(&["status"])["running"], true);
    let text = String::from_utf8(host.run(&["status"]).stdout).unwrap();
    assert!(
        text.contains(&format!("stopped: QEMU is stopped by a signal; `kill -CONT {}`", pids[1])),
        "{text}"
    );
    kill(Signal::CONT, pids[1]);
    while !host.json(&["status"])["paused"].is_null() {
        assert!(Instant::now() < deadline, "{}", host.json(&["status"]));
        thread::sleep(Duration::from_millis(10));
    }
    kill(Signal::STOP, pids[0]);
    let said = host.failure(&["status"]);
    assert!(
        said.contains(&format!("it is stopped by a signal; `kill -CONT {}`", pids[0])),
        "{said}"
    );
    kill(Signal::CONT, pids[0]);
    host.json(&["down"]);
}

#[test]
fn the_log_of_the_console_is_bounded() {
    // 40 MB.
    let host = Host::with_guest(&format!(
        "yes 'a line of forty bytes, with its newline.' | head -n 930000; {GOOD_GUEST}"
    ));
    host.json(&["up", "--detach", "--nvdimm-size", "1M"]);
    let len = |name: &str| fs::metadata(host.path(name)).unwrap().len();
    assert!(len("state/console.log") <= 8 << 20);
    assert!(len("state/console.log.1") <= 8 << 20);
    host.json(&["down"]);
    let log = fs::read_to_string(host.path("state/console.log")).unwrap();
    assert!(log.ends_with("bye\n"));
}

#[test]
fn the_qemu_that_is_named_runs() {
    let host = Host::with_guest("echo 'the wrong one' >&2; exit 1");
    host.program("other qemu", GOOD_GUEST);
    let other = host.path("other qemu");
    host.json(&["up", "--detach", "--qemu", other.to_str().unwrap()]);
    host.power_off();
    // By its name in $PATH, and by the environment.
    let up = host.umbra(&["up", "--detach"]).env("UMBRA_QEMU", "other qemu").output().unwrap();
    assert!(up.status.success(), "{up:?}");
    host.power_off();
    let said = host.failure(&["up", "--detach", "--qemu", "/nowhere/qemu"]);
    assert!(said.contains("/nowhere/qemu was not found"), "{said}");
}

#[test]
fn an_image_of_another_size_is_left_alone() {
    let host = Host::with_guest(GOOD_GUEST);
    fs::create_dir(host.path("state")).unwrap();
    fs::write(host.path("state/nvdimm.img"), vec![1; 8192]).unwrap();
    assert!(host.failure(&["up", "--nvdimm-size", "1M"]).contains("keeps its size"));
    assert_eq!(fs::read(host.path("state/nvdimm.img")).unwrap(), vec![1; 8192]);
    let pids = host.json(&["up", "--detach"]);
    assert_eq!(pids["nvdimm_size"], 8192);
    host.json(&["down"]);
}
