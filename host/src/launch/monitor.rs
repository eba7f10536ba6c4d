//! Whether QEMU lets the guest run: asked of its machine protocol (QMP), and of the system.
//!
//! The supervisor has a monitor of its own, since QEMU serves one client of a monitor at a time:
//! `qmp.sock` is for whoever wants to look at the machine or to stop it.

use crate::state::StateDir;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The socket's name in the state directory.
pub(super) const SOCKET: &str = "monitor.sock";
/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Lines of events that may precede an answer.
const MAX_EVENTS: usize = 100;

/// Why the guest does not run, if it is known not to.
pub(super) fn paused(state: &StateDir, qemu_pid: u32) -> Option<String> {
    if is_stopped(qemu_pid) {
        return Some("stopped-by-signal".into());
    }
    // One that does not answer is busy, or still starting.
    ask(state).ok().filter(|status| status != "running")
}

/// Whether a process is stopped by a signal, and waits for SIGCONT (proc(5), the state in `stat`).
pub(super) fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 't']))
}

/// QEMU's run state (`query-status`).
fn ask(state: &StateDir) -> io::Result<String> {
    let stream = state.connect(SOCKET)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream);
    // The greeting.
    read(&mut lines)?;
    answer(&mut lines, "qmp_capabilities")?;
    let status = answer(&mut lines, "query-status")?;
    status["status"].as_str().map(str::to_string).ok_or_else(|| ErrorKind::InvalidData.into())
}

fn answer(lines: &mut BufReader<UnixStream>, command: &str) -> io::Result<Value> {
    let request = format!("{}\n", json!({ "execute": command }));
    lines.get_mut().write_all(request.as_bytes())?;
    for _ in 0..MAX_EVENTS {
        let mut line = read(lines)?;
        if let Some(value) = line.get_mut("return") {
            return Ok(value.take());
        }
        if line.get("error").is_some() {
            break;
        }
    }
    Err(ErrorKind::InvalidData.into())
}

fn read(lines: &mut BufReader<UnixStream>) -> io::Result<Value> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
