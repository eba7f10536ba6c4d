//! The life of an instance, with a stand-in for QEMU: what is started ends, whoever is killed; what
//! is said is one line; a second instance stays out.
//!
//! | file | what |
//! |---|---|
//! | `main.rs` | a host whose QEMU is a script |
//! | `life.rs` | start, status, console, stop; the image and the logs |
//! | `signals.rs` | what signals do to an instance, and to `bench` |
//! | `ends.rs` | why an instance ended: what is said, and what is recorded |
//! | `kvm.rs` | KVM, and emulation in its place |
//! | `usage.rs` | wrong usage, failures as JSON, help |

mod ends;
mod kvm;
mod life;
mod signals;
mod usage;

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The program; `$UMBRA_BIN` where that is set.
fn umbra() -> OsString {
    std::env::var_os("UMBRA_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_umbra").into())
}

/// A guest that boots, serves, and powers off when its console says so.
const GOOD_GUEST: &str = "echo booting; echo ready\nwhile read line; do\n\
    if [ \"$line\" = poweroff ]; then echo bye; exit 0; fi\n\
    echo \"you said $line\"; echo ok\ndone\nsleep 100";

/// Makes this test program stand in for a QEMU that says this to the vsock device.
const SAYS: &str = "UMBRA_TEST_SAYS";

/// Stands in for QEMU when a script runs this program as one; else it is no test.
#[test]
fn stand_in_for_qemu() {
    if let Ok(words) = std::env::var(SAYS) {
        let mut device = UnixStream::connect("vhost.sock").unwrap();
        device.write_all(words.as_bytes()).unwrap();
        thread::sleep(Duration::from_secs(100));
    }
}

struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    /// A host whose QEMU is this shell script.
    fn with_guest(script: &str) -> Host {
        let host = Host { folder: tempfile::tempdir().unwrap() };
        host.program("qemu-system-x86_64", script);
        fs::write(host.path("elf"), "").unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn umbra(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(umbra());
        command
            .args(arguments)
            .env("PATH", format!("{}:/usr/bin:/bin", self.folder.path().display()))
            .env("UMBRA_STATE", self.path("state"))
            .env("UMBRA_LOADER", self.path("elf"))
            .env("UMBRA_KERNEL", self.path("elf"))
            .env_remove("UMBRA_QEMU");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.umbra(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that succeeds, and returns its report.
    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a command that fails, though it is used correctly, with one line, and returns that.
    fn failure(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(matches!(output.status.code(), Some(1 | 3..=7)), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    /// Process ids of supervisor and QEMU.
    fn start(&self) -> [u64; 2] {
        let status = self.json(&["up", "--detach", "--nvdimm-size", "1M"]);
        ["supervisor_pid", "qemu_pid"].map(|name| status[name].as_u64().unwrap())
    }

    /// Ends the guest by its console, which is quicker than asking a server that it does not have.
    fn power_off(&self) {
        self.run(&["console", "poweroff"]);
        while self.json(&["status"])["running"] != false {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Not there, or only there to be reaped by whoever adopted it.
fn has_ended(pid: u64) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

fn assert_all_end(pids: &[u64]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !pids.iter().all(|&pid| has_ended(pid)) {
        assert!(Instant::now() < deadline, "still there, of {pids:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn kill(signal: Signal, pid: u64) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

fn pid(child: &Child) -> u64 {
    u64::from(child.id())
}

/// Starts it in the foreground, and waits until it serves.
fn foreground(host: &Host) -> Child {
    let mut command = host.umbra(&["up"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.spawn().unwrap();
    while host.json(&["status"])["ready"] != true {
        thread::sleep(Duration::from_millis(5));
    }
    child
}

/// How the last run ended: cause, whether cleanly, and the message.
#[track_caller]
fn last_end(host: &Host) -> (String, bool, String) {
    let status = host.json(&["status"]);
    let end = &status["last_end"];
    let text = |name: &str| end[name].as_str().unwrap_or_default().to_string();
    (text("cause"), end["clean"].as_bool().unwrap_or_else(|| panic!("{status}")), text("message"))
}
