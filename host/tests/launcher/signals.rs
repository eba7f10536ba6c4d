//! What signals do to an instance.

use super::{Host, assert_all_end, foreground, kill, pid};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

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

/// The machine of `bench --icount`, which is in a folder of its own, goes with it.
#[test]
fn an_interrupted_bench_leaves_no_machine_and_no_folder() {
    let host = Host::with_guest(SLOW_GUEST);
    let base = if Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { env::temp_dir() };
    let folder = |bench: &Child| {
        let prefix = format!("umbra-bench-{}-", bench.id());
        fs::read_dir(&base)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix))
    };
    let mut bench = host.umbra(&["bench", "--icount"]).stdin(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    // Once it is there, the guest is ready, and `bench` waits for an answer from it.
    while !folder(&bench).is_some_and(|folder| folder.join("endpoint").exists()) {
        assert!(Instant::now() < deadline, "no machine serves in {}", base.display());
        thread::sleep(Duration::from_millis(10));
    }
    let pids = ["qemu.pid", "supervisor.pid"].map(|name| {
        let text = fs::read_to_string(folder(&bench).unwrap().join(name)).unwrap();
        text.trim().parse().unwrap()
    });
    kill(Signal::INT, pid(&bench));
    let status = bench.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status}");
    assert_eq!(folder(&bench), None);
    assert_all_end(&pids);
}
