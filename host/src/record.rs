//! The record of a state directory: what happened to its instances, over all runs.
//!
//! `events.jsonl` has one JSON object a line, the oldest first. Each has
//!
//! - `time`: when, as `2026-11-27T20:15:42.123Z` (RFC 3339, UTC),
//! - `kind`: what happened, a name of small letters and dashes,
//! - and the fields of its kind.
//!
//! | kind    | when                        | fields                                                  |
//! |---------|-----------------------------|---------------------------------------------------------|
//! | `start` | QEMU is about to be started | `supervisor_pid`, `boot_id` (of the host)               |
//! | `ready` | the guest serves            | `boot_ms`, `formatted`                                  |
//! | `end`   | the instance is over        | `cause` (see [`Cause`]), `clean`, `message`, `uptime_s` |
//!
//! Readers skip kinds and fields that they do not know, and lines that they cannot read (a host
//! that lost power may leave half of one). A file of 256 KiB is put aside as `events.jsonl.1`.
//!
//! An instance whose supervisor was killed writes no `end`. The next start does it then, with
//! `inferred` set and the time at which it noticed; before that, [`last_end`] says the same.

use crate::log::Log;
use crate::state::StateDir;
use crate::units::show_time;
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// The file's name in the state directory.
pub const NAME: &str = "events.jsonl";
/// A file of so many bytes is put aside.
const LIMIT: u64 = 256 << 10;
/// The longest message.
const MESSAGE_MAX: usize = 1000;
/// Room for the end of an instance, which may come because the host has none left.
const RESERVE: u64 = 8 << 10;

/// Why an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// `umbra down` asked for it.
    Down,
    /// A signal asked for it.
    Signal,
    /// The guest powered off by itself: a command on its console.
    Poweroff,
    /// Nobody was there any more to hear that it is ready.
    Abandoned,
    /// A second signal killed the guest before it had unmounted.
    Killed,
    /// The guest did not power off in time, and was killed.
    Overdue,
    /// The guest was not ready in time.
    NotReady,
    /// There is nothing to serve: no NVDIMM, or one that holds no volume.
    NoVolume,
    /// The guest panicked.
    GuestPanic,
    /// The guest gave up.
    GuestFailed,
    /// The host had no room for the image of the NVDIMM.
    HostFull,
    /// The host could not deliver memory, or a block of the image.
    HostMemory,
    /// Somebody killed QEMU, or the host's kernel did, for want of memory.
    QemuKilled,
    /// QEMU ended without an error, but the guest had not powered off: somebody told its monitor to
    /// quit, or the guest reset.
    QemuEnded,
    /// QEMU ended by itself: it crashed, or refused its arguments.
    QemuFailed,
    /// The vsock device could not go on.
    VsockDevice,
    /// The supervisor was killed, and QEMU with it.
    SupervisorKilled,
    /// The host was restarted, or lost power.
    HostRestarted,
    /// Something else, which the message says.
    Failed,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When; or when it was noticed, if it is inferred. `None`: it was noticed only now.
    pub time: Option<String>,
    /// Why.
    pub cause: Cause,
    /// Whether the volume was unmounted.
    pub clean: bool,
    /// One line that says more.
    pub message: Option<String>,
    /// Seconds since the start of QEMU.
    #[serde(default)]
    pub uptime_s: Option<f64>,
    /// Nobody saw it: it follows from what is missing in the record.
    #[serde(default)]
    pub inferred: bool,
}

/// Adds an event. Only the holder of the state's lock may.
pub fn append(state: &StateDir, kind: &str, fields: Value) -> io::Result<()> {
    let mut event = Map::new();
    event.insert("time".into(), now().into());
    event.insert("kind".into(), kind.into());
    if let Value::Object(fields) = fields {
        event.extend(fields);
    }
    let mut log = Log::continued(&state.file(NAME), LIMIT)?;
    log.write(format!("{}\n", Value::Object(event)).as_bytes())?;
    let end = log.file().metadata()?.len();
    // Not every filesystem can; without it the last words may find no room.
    let _ = fallocate(log.file(), FallocateFlags::KEEP_SIZE, end, RESERVE);
    Ok(())
}

/// Adds the start of an instance, and the end of the one before if that could not do so itself.
pub fn start(state: &StateDir) -> io::Result<()> {
    if let Some(end) = missing_end(state) {
        append_end(state, &end)?;
    }
    append(state, "start", json!({ "supervisor_pid": std::process::id(), "boot_id": boot_id() }))
}

/// Adds the end of an instance.
pub fn append_end(state: &StateDir, end: &End) -> io::Result<()> {
    let mut end = end.clone();
    if let Some(message) = &mut end.message {
        let cut = message.char_indices().map(|(at, _)| at).find(|&at| at > MESSAGE_MAX);
        message.truncate(cut.unwrap_or(message.len()));
    }
    let mut fields = serde_json::to_value(&end)?;
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("time");
    }
    append(state, "end", fields)
}

/// Adds the end of an instance that failed to start, if QEMU was about to be started.
pub fn end_started(state: &StateDir, error: &dyn std::fmt::Display) {
    if missing_end(state).is_some() {
        let message = Some(error.to_string());
        let cause = Cause::Failed;
        let end = End { time: None, cause, clean: false, message, uptime_s: None, inferred: false };
        // It is said by whoever reports the error.
        let _ = append_end(state, &end);
    }
}

/// How the last instance ended that has ended; `None` if none has, as far as is known.
pub fn last_end(state: &StateDir) -> Option<End> {
    let running = state.is_locked();
    if !running && let Some(end) = missing_end(state) {
        return Some(end);
    }
    let last = events(state).into_iter().rev().find(|event| event["kind"] == "end")?;
    serde_json::from_value(last).ok()
}

/// All events, the oldest first.
pub fn events(state: &StateDir) -> Vec<Value> {
    read(state, NAME)
}

/// The objects in a file of lines that is put aside when it is full, the oldest first.
pub(crate) fn read(state: &StateDir, name: &str) -> Vec<Value> {
    let path = state.file(name);
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let text = read(Log::aside(&path)) + &read(path);
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .collect()
}

/// The end of an instance that left none.
fn missing_end(state: &StateDir) -> Option<End> {
    let events = events(state);
    let last =
        events.iter().rev().find(|event| event["kind"] == "start" || event["kind"] == "end")?;
    if last["kind"] == "end" {
        return None;
    }
    let (cause, message) = match last["boot_id"].as_str() {
        Some(id) if id != boot_id() => {
            (Cause::HostRestarted, "the host was restarted, or lost power, while the server ran")
        }
        _ => (
            Cause::SupervisorKilled,
            "the supervisor was killed, or crashed (supervisor.log would say so), and QEMU went \
             with it",
        ),
    };
    let message = Some(message.into());
    Some(End { time: None, cause, clean: false, message, uptime_s: None, inferred: true })
}

/// A number that the host's kernel draws at each boot.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    time(since.as_nanos() as i64)
}

/// A time, in nanoseconds since 1970, as events have it.
pub fn time(ns: i64) -> String {
    let second = 1_000_000_000;
    let seconds = show_time(ns.div_euclid(second) * second).replace(' ', "T");
    format!("{seconds}.{:03}Z", ns.rem_euclid(second) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        (folder, state)
    }

    fn end(cause: Cause, message: &str) -> End {
        let message = Some(message.into());
        End { time: None, cause, clean: true, message, uptime_s: Some(1.5), inferred: false }
    }

    #[test]
    fn the_last_end_is_kept_over_starts() {
        let (_folder, state) = state();
        assert_eq!(last_end(&state), None);
        start(&state).unwrap();
        append_end(&state, &end(Cause::Down, "as asked\u{1b}[31m")).unwrap();
        let found = last_end(&state).unwrap();
        assert_eq!(found.time.as_ref().unwrap().len(), "2026-11-27T20:15:42.123Z".len());
        assert_eq!(End { time: None, ..found }, end(Cause::Down, "as asked\u{1b}[31m"));
        let lock = state.lock().unwrap();
        start(&state).unwrap();
        assert_eq!(last_end(&state).unwrap().cause, Cause::Down, "the new one has not ended");
        drop(lock);
        let kinds: Vec<Value> = events(&state).iter().map(|event| event["kind"].clone()).collect();
        assert_eq!(kinds, ["start", "end", "start"]);
    }

    #[test]
    fn an_end_that_nobody_wrote_is_inferred_and_then_written() {
        let (_folder, state) = state();
        start(&state).unwrap();
        let inferred = last_end(&state).unwrap();
        assert_eq!((inferred.cause, inferred.clean), (Cause::SupervisorKilled, false));
        append(&state, "start", json!({ "boot_id": "another" })).unwrap();
        assert_eq!(last_end(&state).unwrap().cause, Cause::HostRestarted);
        start(&state).unwrap();
        let written = events(&state).into_iter().rev().nth(1).unwrap();
        assert_eq!(
            (&written["cause"], &written["inferred"]),
            (&"host-restarted".into(), &true.into())
        );
        assert!(written["time"].is_string());
    }

    #[test]
    fn lines_that_are_none_are_skipped_and_the_file_is_bounded() {
        let (_folder, state) = state();
        fs::write(state.file(NAME), "{\"half\n[1]\n\n\u{0}\u{0}\n").unwrap();
        append_end(&state, &end(Cause::GuestPanic, &"ü".repeat(5000))).unwrap();
        let found = last_end(&state).unwrap();
        assert_eq!(found.cause, Cause::GuestPanic);
        assert!(found.message.unwrap().len() <= MESSAGE_MAX + 2);
        for _ in 0..2000 {
            append_end(&state, &end(Cause::Signal, &"x".repeat(500))).unwrap();
        }
        assert!(fs::metadata(state.file(NAME)).unwrap().len() <= LIMIT);
        assert_eq!(last_end(&state).unwrap().cause, Cause::Signal);
        // Also if it has just been put aside.
        fs::remove_file(state.file(NAME)).unwrap();
        assert_eq!(last_end(&state).unwrap().cause, Cause::Signal);
    }
}
