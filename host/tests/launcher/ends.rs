//! Why an instance ended: what is said, and what is recorded.

use super::{GOOD_GUEST, Host, SAYS, assert_all_end, kill, last_end};
use rustix::process::Signal;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn the_end_of_a_run_is_on_record_until_the_next_end() {
    let host = Host::with_guest(&GOOD_GUEST.replace("bye", "powering off"));
    assert!(host.json(&["status"])["last_end"].is_null());
    host.start();
    host.json(&["down"]);
    assert_eq!(last_end(&host), ("down".into(), true, String::new()));
    let pids = host.start();
    assert_eq!(last_end(&host).0, "down", "the next start keeps it");
    kill(Signal::KILL, pids[1]);
    assert_all_end(&pids);
    let (cause, clean, message) = last_end(&host);
    assert_eq!((cause.as_str(), clean), ("qemu-killed", false));
    assert!(message.contains("signal: 9") && message.contains("want of memory"), "{message}");
    let text = String::from_utf8(host.run(&["status"]).stdout).unwrap();
    assert!(text.contains("ended:   not cleanly, qemu-killed, at 2"), "{text}");
    // Its supervisor cannot write any more.
    let pids = host.start();
    kill(Signal::KILL, pids[0]);
    assert_all_end(&pids);
    assert_eq!((last_end(&host).0.as_str(), last_end(&host).1), ("supervisor-killed", false));
    host.start();
    assert_eq!(last_end(&host).0, "supervisor-killed", "the next start has written it");
    // The end has to come before anybody asks for one.
    host.power_off();
    assert_eq!(last_end(&host).0, "poweroff");
    let record = fs::read_to_string(host.path("state/events.jsonl")).unwrap();
    let kinds: Vec<String> = record
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].to_string())
        .collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "\"start\"").count(), 4, "{record}");
    assert_eq!(kinds.iter().filter(|kind| *kind == "\"end\"").count(), 4, "{record}");
}

/// What the guest says if it cannot unmount.
const UNCLEAN: &str = "echo 'error: the volume was not unmounted cleanly: no; it will be rebuilt'";

#[test]
fn each_way_to_end_has_its_cause() {
    let ready = "echo ready; while read line; do";
    let on_command = |what: &str| format!("{ready} {what}; done");
    for (script, cause) in [
        ("echo 'panicked at x.rs:1: oh'; exit 3".to_string(), "guest-panic"),
        (on_command("echo 'panicked at x.rs:1: oh'; exit 3"), "guest-panic"),
        (on_command("echo 'fatal: no'; exit 3"), "guest-failed"),
        (on_command("exit 3"), "qemu-failed"),
        (on_command("exit 0"), "qemu-ended"),
        (on_command(&format!("{UNCLEAN}; echo powering off; exit 0")), "poweroff"),
        (on_command("kill -SEGV $$"), "qemu-failed"),
        (on_command("kill -BUS $$"), "host-memory"),
        ("echo '[0.1] no volume: none'; sleep 100".to_string(), "no-volume"),
        ("echo 'qemu: bad' >&2; exit 1".to_string(), "qemu-failed"),
    ] {
        let host = Host::with_guest(&script);
        host.run(&["up", "--detach"]);
        host.run(&["console", "die"]);
        let deadline = Instant::now() + Duration::from_secs(20);
        while host.json(&["status"])["running"] == true {
            assert!(Instant::now() < deadline, "{script}");
            thread::sleep(Duration::from_millis(10));
        }
        let (found, clean, message) = last_end(&host);
        assert_eq!((found.as_str(), clean), (cause, false), "{script}: {message}");
        assert!(!message.is_empty(), "{script}");
    }
}

#[test]
fn a_guest_that_says_why_is_quoted() {
    let no_volume = format!("echo '[0.1] error: no volume: no NVDIMM'; {GOOD_GUEST}");
    for (script, reason) in [
        (no_volume.as_str(), "no NVDIMM"),
        ("echo 'fatal: x.rs:7: broken'; exit 3", "x.rs:7: broken"),
    ] {
        let host = Host::with_guest(script);
        for up in [&["up", "--detach"][..], &["up"]] {
            let text = host.failure(up);
            assert!(text.contains(reason), "{text}");
        }
        assert_eq!(host.json(&["status"])["running"], false);
    }
    let host = Host::with_guest(&no_volume);
    host.json(&["up", "--detach", "--guest-config", "volume=no"]);
    host.json(&["down"]);
}

#[test]
fn a_qemu_that_does_not_start_is_quoted() {
    let host = Host::with_guest("echo 'qemu: invalid something' >&2; exit 1");
    let text = host.failure(&["up", "--detach"]);
    assert!(text.contains("qemu: invalid something") && text.contains("exit status: 1"), "{text}");
}

#[test]
fn a_machine_whose_vsock_device_cannot_go_on_ends_and_says_so() {
    if fs::OpenOptions::new().read(true).write(true).open("/dev/vhost-vsock").is_ok() {
        // Then the host kernel is the device.
        return;
    }
    let host = Host::with_guest("");
    let test = std::env::current_exe().unwrap();
    let script = format!(
        "echo $$ >{}; {SAYS}=nonsense-nonsense exec {} --exact stand_in_for_qemu --nocapture",
        host.path("pid").display(),
        test.display()
    );
    host.program("qemu-system-x86_64", &script);
    let text = host.failure(&["up", "--detach"]);
    assert!(text.contains("the vsock device has ended: it does not understand QEMU"), "{text}");
    assert_all_end(&[fs::read_to_string(host.path("pid")).unwrap().trim().parse().unwrap()]);
}

#[test]
fn a_guest_that_powers_off_before_it_serves_is_a_failure() {
    let host = Host::with_guest("echo 'this machine is not for me'");
    let text = host.failure(&["up", "--detach"]);
    assert!(text.contains("before it was ready") && text.contains("not for me"), "{text}");
}
