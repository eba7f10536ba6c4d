//! The life of an instance, with a stand-in for QEMU: what is started ends,
//! whoever is killed; what is said is one line; a second instance stays out.

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
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

/// A guest that takes its time to unmount.
const SLOW_GUEST: &str = "echo ready\nwhile read line; do\n\
    if [ \"$line\" = poweroff ]; then sleep 1; echo bye; exit 0; fi\necho ok\ndone\nsleep 100";
/// A guest that never unmounts.
const STUBBORN_GUEST: &str = "echo ready\nwhile read line; do :; done\nsleep 100";

/// What users and their programs send.
const SIGNALS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Does this for each, all at the same time: the stand-ins take ten seconds to be asked over their
/// console, because the program waits first for an answer over vsock.
fn at_once<T: Copy + Send>(all: impl IntoIterator<Item = T>, each: impl Fn(T) + Sync) {
    let each = &each;
    thread::scope(|scope| {
        for it in all {
            scope.spawn(move || each(it));
        }
    });
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

/// `timeout` sends a signal twice, and so does whoever closes a terminal, in effect.
#[test]
fn two_signals_close_together_are_one_wish() {
    at_once(SIGNALS, |second| {
        let host = Host::with_guest(SLOW_GUEST);
        let child = foreground(&host);
        kill(Signal::TERM, pid(&child));
        thread::sleep(Duration::from_millis(10));
        kill(second, pid(&child));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{second:?}: {said}");
        assert!(output.stdout.ends_with(b"bye\n"), "{second:?}");
        assert!(said.contains("still unmounting; a second Ctrl-C after "), "{said}");
    });
}

#[test]
fn each_signal_that_a_user_sends_stops_a_detached_server_cleanly() {
    at_once(SIGNALS, |signal| {
        let host = Host::with_guest(SLOW_GUEST);
        let pids = host.start();
        kill(signal, pids[0]);
        thread::sleep(Duration::from_millis(10));
        kill(signal, pids[0]);
        assert_all_end(&pids);
        let log = fs::read_to_string(host.path("state/console.log")).unwrap();
        assert!(log.ends_with("bye\n"), "{signal:?}: {log}");
    });
}

#[test]
fn a_second_signal_some_seconds_later_kills_the_guest() {
    let host = Host::with_guest(STUBBORN_GUEST);
    let child = foreground(&host);
    kill(Signal::INT, pid(&child));
    thread::sleep(Duration::from_millis(5200));
    let asked = Instant::now();
    kill(Signal::INT, pid(&child));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert!(
        !output.status.success() && said.contains("killed before the guest had shut down"),
        "{said}"
    );
}

/// Nobody reads what the server says any more: that is no reason to end.
#[test]
fn a_terminal_that_is_gone_kills_nothing() {
    let host = Host::with_guest(SLOW_GUEST);
    let mut child = foreground(&host);
    drop((child.stdin.take(), child.stdout.take(), child.stderr.take()));
    kill(Signal::PIPE, pid(&child));
    host.run(&["console", "hello"]);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(host.json(&["status"])["ready"], true);
    for signal in [Signal::HUP, Signal::CONT, Signal::TERM] {
        kill(signal, pid(&child));
    }
    assert!(child.wait().unwrap().success());
    let log = fs::read_to_string(host.path("state/console.log")).unwrap();
    assert!(log.ends_with("bye\n"), "{log}");
}

/// How the last run ended: cause, whether cleanly, and the message.
#[track_caller]
fn last_end(host: &Host) -> (String, bool, String) {
    let status = host.json(&["status"]);
    let end = &status["last_end"];
    let text = |name: &str| end[name].as_str().unwrap_or_default().to_string();
    (text("cause"), end["clean"].as_bool().unwrap_or_else(|| panic!("{status}")), text("message"))
}

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
    host.run(&["console", "poweroff"]);
    host.run(&["down"]);
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
fn failures_are_json_where_reports_are() {
    let host = Host::with_guest(GOOD_GUEST);
    for (arguments, code, status) in [
        (&["ls"][..], "not-running", 7),
        (&["down"], "not-running", 7),
        (&["console", "help"], "not-running", 7),
        (&["nonsense"], "usage", 2),
        (&["poke", "/f", "0"], "usage", 2),
        (&["up", "--memory", "4M"], "unusable", 1),
        (&["put", "/nonexistent/file", "/f"], "not-found", 3),
    ] {
        let output = host.run(&[&["--json"], arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        let error: serde_json::Value =
            serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        assert_eq!(error["error"]["code"], code, "{said}");
        assert_eq!(error["error"]["exit_status"], status, "{said}");
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(output.stdout.is_empty());
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

    /// Ends the guest by its console, which is quicker than asking a server that it does not have.
    fn power_off(&self) {
        self.run(&["console", "poweroff"]);
        while self.json(&["status"])["running"] != false {
            thread::sleep(Duration::from_millis(5));
        }
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
    let page = fs::read_to_string(folder.join("umbra.1")).unwrap();
    assert!(page.contains("3 not found") && page.contains("7 no server is running"), "{page}");
}
