//! The life of an instance, with a stand-in for QEMU: what is started ends,
//! whoever is killed; what is said is one line; a second instance stays out.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const UMBRA: &str = env!("CARGO_BIN_EXE_umbra");
/// A guest that boots, serves, and powers off when its console says so.
const GOOD_GUEST: &str = "echo booting; echo ready\nwhile read line; do\n\
    if [ \"$line\" = poweroff ]; then echo bye; exit 0; fi\necho \"you said $line\"; echo ok\ndone\nsleep 100";
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
        let mut command = Command::new(UMBRA);
        command
            .args(arguments)
            .env("PATH", format!("{}:/usr/bin:/bin", self.folder.path().display()))
            .env("UMBRA_STATE", self.path("state"))
            .env("UMBRA_LOADER", self.path("elf"))
            .env("UMBRA_KERNEL", self.path("elf"));
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

    /// Runs a command that fails with status 1 and one line, and returns that.
    fn failure(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    /// Process ids of supervisor and QEMU.
    fn start(&self) -> [u64; 2] {
        let status = self.json(&["up", "--detach", "--nvdimm-size", "1M"]);
        ["supervisor_pid", "qemu_pid"].map(|name| status[name].as_u64().unwrap())
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
    let deadline = Instant::now() + Duration::from_secs(10);
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
fn a_guest_that_says_why_is_quoted() {
    let no_volume = format!("echo '[0.1] error: no volume: no NVDIMM'; {GOOD_GUEST}");
    for (script, reason) in
        [(no_volume.as_str(), "no NVDIMM"), ("echo 'fatal: x.rs:7: broken'; exit 3", "x.rs:7: broken")]
    {
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

#[test]
fn too_little_memory_is_said_before_anything_starts() {
    let host = Host::with_guest(GOOD_GUEST);
    for memory in ["4M", "64000000"] {
        assert!(host.failure(&["up", "--detach", "--memory", memory]).contains("not possible"));
    }
    assert!(!host.path("state/nvdimm.img").exists());
}

#[test]
fn missing_programs_are_named() {
    let host = Host::with_guest(GOOD_GUEST);
    fs::remove_file(host.path("qemu-system-x86_64")).unwrap();
    if !Path::new("/usr/bin/qemu-system-x86_64").exists() {
        assert!(host.failure(&["up"]).contains("qemu-system-x86_64 was not found"));
    }
}

#[test]
fn wrong_usage_has_its_own_status() {
    let host = Host::with_guest(GOOD_GUEST);
    for arguments in [&["nonsense"][..], &["poke", "/f", "0"], &["up", "--memory", "much"]] {
        assert_eq!(host.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(host.run(&["--help"]).status.code(), Some(0));
}

#[test]
fn completions_and_man_pages_are_made() {
    let host = Host::with_guest(GOOD_GUEST);
    for shell in ["bash", "zsh", "fish"] {
        let output = host.run(&["completions", shell]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("umbra"), "{shell}");
    }
    let folder = host.path("man");
    assert!(host.run(&["man", folder.to_str().unwrap()]).status.success());
    assert!(fs::read_to_string(folder.join("umbra-clone.1")).unwrap().contains("constant time"));
    assert!(!folder.join("umbra-__leash.1").exists());
}
