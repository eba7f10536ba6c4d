//! KVM, and emulation in its place.

use super::{GOOD_GUEST, Host, kill, pid};
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// A QEMU that does this under KVM, and runs a good guest under emulation. It notes its starts.
fn only_emulates(under_kvm: &str) -> String {
    format!(
        "case \"$*\" in\n*'-accel kvm'*) echo kvm >>\"$0.starts\"; {under_kvm};;\n\
         *) echo tcg >>\"$0.starts\";;\nesac\n{GOOD_GUEST}"
    )
}

const SILENT: &str = "exec sleep 100";

impl Host {
    /// How QEMU was started so far.
    fn starts(&self) -> String {
        fs::read_to_string(self.path("qemu-system-x86_64.starts")).unwrap_or_default()
    }

    /// `umbra` where the host is taken to allow KVM.
    fn umbra_with_kvm(&self, arguments: &[&str]) -> Command {
        let mut command = self.umbra(arguments);
        command.env("UMBRA_ASSUME_KVM", "1").stdin(Stdio::null());
        command
    }
}

#[test]
fn a_guest_that_does_not_get_ready_under_kvm_starts_again_under_emulation() {
    let ways = [
        (SILENT, "was not ready after 5 s"),
        ("echo booting; exec sleep 100", "ends: booting"),
        ("echo 'qemu: error: failed to set MSR 0x10a' >&2; kill -ABRT $$", "MSR 0x10a"),
        ("echo 'qemu: Could not access KVM kernel module' >&2; exit 1", "Could not access KVM"),
        ("echo 'fatal: page fault'; exit 5", "page fault"),
        // The console stays open for longer than QEMU lives.
        ("sleep 100 & echo 'fatal: page fault'; exit 5", "page fault"),
    ];
    thread::scope(|scope| {
        for (way, reason) in ways {
            scope.spawn(move || {
                let host = Host::with_guest(&only_emulates(way));
                let up = host.umbra_with_kvm(&["up", "--detach", "--json"]).output().unwrap();
                assert!(up.status.success(), "{way}: {up:?}");
                let status: serde_json::Value = serde_json::from_slice(&up.stdout).unwrap();
                let why = status["accel_reason"].as_str().unwrap();
                assert_eq!(status["accel"], "tcg", "{way}");
                assert!(why.contains("ready under KVM") && why.contains(reason), "{way}: {why}");
                assert_eq!(host.starts(), "kvm\ntcg\n", "{way}");
                // All of it is the second one's.
                assert_eq!(host.json(&["status"])["qemu_pid"], status["qemu_pid"]);
                let output = host.run(&["console", "hello"]);
                assert_eq!(String::from_utf8_lossy(&output.stdout), "you said hello\n", "{way}");
                let log = fs::read_to_string(host.path("state/supervisor.log")).unwrap();
                assert!(
                    log.contains(reason) && log.contains("again under emulation"),
                    "{way}: {log}"
                );
                host.power_off();
            });
        }
    });
}

#[test]
fn a_terminal_types_into_the_guest_that_was_started_last() {
    let script = only_emulates("echo 'fatal: page fault'; exit 5");
    let host = Host::with_guest(&script.replace("echo bye", "echo powering off"));
    let mut child = host
        .umbra_with_kvm(&["up"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while host.json(&["status"])["ready"] != true {
        thread::sleep(Duration::from_millis(5));
    }
    child.stdin.as_mut().unwrap().write_all(b"hi\npoweroff\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let [said, notes] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(said.ends_with("you said hi\nok\npowering off\n"), "{said}");
    assert!(
        notes.contains("page fault") && notes.contains("starting it again under emulation"),
        "{notes}"
    );
}

#[test]
fn whoever_asks_for_kvm_gets_it_or_an_error() {
    let slow = "echo '[    0.1] NVDIMM at 0x100000000, 1 MiB'; sleep 7";
    thread::scope(|scope| {
        scope.spawn(|| {
            let host = Host::with_guest(&only_emulates(SILENT));
            let up = host.umbra_with_kvm(&["up", "--detach", "--accel", "kvm"]).output().unwrap();
            let said = String::from_utf8(up.stderr).unwrap();
            assert_eq!(up.status.code(), Some(1), "{said}");
            assert!(
                said.contains("was not ready after 5 s") && said.contains("up --accel tcg"),
                "{said}"
            );
            assert_eq!(host.starts(), "kvm\n");
            assert_eq!(host.json(&["status"])["running"], false);
        });
        // A guest that mounts its volume may take longer.
        for choice in ["kvm", "auto"] {
            scope.spawn(move || {
                let host = Host::with_guest(&only_emulates(slow));
                let up = host
                    .umbra_with_kvm(&["up", "--detach", "--json", "--accel", choice])
                    .output()
                    .unwrap();
                let status: serde_json::Value = serde_json::from_slice(&up.stdout).unwrap();
                assert_eq!(status["accel"], "kvm", "{status}");
                assert_eq!(host.starts(), "kvm\n");
                host.power_off();
            });
        }
    });
}

#[test]
fn a_guest_that_runs_under_kvm_and_cannot_serve_is_not_started_again() {
    let nothing = format!("echo '[0.1] error: no volume: no NVDIMM'; {GOOD_GUEST}");
    let host = Host::with_guest(&only_emulates(&nothing));
    let up = host.umbra_with_kvm(&["up", "--detach"]).output().unwrap();
    let said = String::from_utf8(up.stderr).unwrap();
    assert_eq!(up.status.code(), Some(1), "{said}");
    assert!(said.contains("no NVDIMM") && !said.contains("KVM"), "{said}");
    assert_eq!(host.starts(), "kvm\n");
}

#[test]
fn who_is_told_to_stop_before_the_guest_is_ready_under_kvm_starts_no_other() {
    let host = Host::with_guest(&only_emulates("read line; exit 0"));
    let mut child = host.umbra_with_kvm(&["up"]).stdin(Stdio::piped()).spawn().unwrap();
    while host.starts().is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    kill(Signal::TERM, pid(&child));
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(host.starts(), "kvm\n");
}
