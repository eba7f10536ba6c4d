//! The guest's serial line, shared by its log, the terminal and any number of clients.
//!
//! QEMU has the line on its stdin and stdout. One thread reads the output, logs it, looks for
//! the lines that mean something to the supervisor, and hands it to all listeners. A listener
//! that does not keep up is dropped: the guest never waits for one.

use crate::log::Log;
use crate::record::Cause;
use std::io::{self, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Pieces of output that a listener may lag behind.
const LISTENER_DEPTH: usize = 1024;
/// Longer lines are looked at in parts.
const LINE_MAX: usize = 4096;

/// The serial line of a running guest. Clones are the same line.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

struct Shared {
    input: Mutex<ChildStdin>,
    listeners: Mutex<Listeners>,
}

#[derive(Default)]
struct Listeners {
    senders: Vec<SyncSender<Arc<[u8]>>>,
    /// The line has ended: who comes now hears nothing.
    ended: bool,
}

/// A poisoned lock only means that a thread panicked between two complete states.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Console {
    /// A line with this input. What the guest says is read from [`Console::pump`] on.
    pub(super) fn new(input: ChildStdin) -> Console {
        let listeners = Mutex::new(Listeners::default());
        Console { shared: Arc::new(Shared { input: Mutex::new(input), listeners }) }
    }

    /// Starts to read what the guest says: who listens already misses nothing. `on_line` is
    /// called with each line, without its ending, on the reading thread; `on_end` when the line
    /// is closed.
    pub(super) fn pump(
        &self,
        output: ChildStdout,
        log: Log,
        on_line: impl FnMut(&str) + Send + 'static,
        on_end: impl FnOnce() + Send + 'static,
    ) {
        let console = self.clone();
        thread::spawn(move || {
            console.read_all(output, log, on_line);
            let mut listeners = held(&console.shared.listeners);
            listeners.ended = true;
            listeners.senders.clear();
            drop(listeners);
            on_end();
        });
    }

    /// Types into the line. Waits while the guest does not read.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut input = held(&self.shared.input);
        input.write_all(bytes)?;
        input.flush()
    }

    /// What the guest says from now on; ends with the line, or if it is not read in time.
    pub fn listen(&self) -> Receiver<Arc<[u8]>> {
        let (sender, receiver) = sync_channel(LISTENER_DEPTH);
        let mut listeners = held(&self.shared.listeners);
        if !listeners.ended {
            listeners.senders.push(sender);
        }
        receiver
    }

    fn read_all(&self, mut output: impl Read, mut log: Log, mut on_line: impl FnMut(&str)) {
        let mut lines = Lines::default();
        let mut buffer = [0; 4096];
        loop {
            let bytes = match output.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => &buffer[..count],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            // A full disk must not stop the guest.
            let _ = log.write(bytes);
            let piece: Arc<[u8]> = bytes.into();
            held(&self.shared.listeners).senders.retain(|listener| {
                !matches!(
                    listener.try_send(piece.clone()),
                    Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
                )
            });
            lines.feed(bytes, &mut on_line);
        }
    }
}

/// Cuts a stream into lines.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], on_line: &mut impl FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' || self.pending.len() >= LINE_MAX {
                on_line(String::from_utf8_lossy(&self.pending).trim_end_matches('\r'));
                self.pending.clear();
            }
            if byte != b'\n' {
                self.pending.push(byte);
            }
        }
    }
}

/// What a line of the guest means to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It has found the NVDIMM, and mounts its volume.
    Mounts,
    /// It makes an empty volume: why.
    Formats(String),
    /// It serves from now on.
    Ready,
    /// It runs, but has nothing to serve: why.
    NoVolume(String),
    /// It stops: how, and why.
    Failed(Cause, String),
}

/// Reads a line of the guest. The contract with the kernel: `NVDIMM at ADDRESS` in a line of its
/// log before it mounts the volume; `formatting: WHY` in a line before it makes an empty volume;
/// `no volume: WHY` in a line if the NVDIMM cannot be served, and
/// then a line that starts with `ready`; a line that starts with `fatal: ` or `panicked at ` when
/// it gives up, or `umbra-boot: ` when the loader does.
pub(super) fn meaning(line: &str) -> Option<Meaning> {
    let line = line.trim();
    if line.strip_prefix("ready").is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')) {
        return Some(Meaning::Ready);
    }
    if let Some(why) = line.strip_prefix("fatal: ") {
        return Some(Meaning::Failed(Cause::GuestFailed, why.into()));
    }
    if line.starts_with("panicked at ") {
        return Some(Meaning::Failed(Cause::GuestPanic, line.into()));
    }
    if line.starts_with("umbra-boot: ") {
        return Some(Meaning::Failed(Cause::GuestFailed, line.into()));
    }
    if line.contains("NVDIMM at 0x") {
        return Some(Meaning::Mounts);
    }
    if let Some((_, why)) = line.split_once("formatting: ") {
        return Some(Meaning::Formats(why.into()));
    }
    line.split_once("no volume: ").map(|(_, why)| Meaning::NoVolume(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_they_end() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for part in ["rea", "dy\r\nab", "c\n\nrest"] {
            lines.feed(part.as_bytes(), &mut |line: &str| seen.push(line.to_string()));
        }
        assert_eq!(seen, ["ready", "abc", ""]);
        lines.feed(&[b'x'; LINE_MAX * 2], &mut |line: &str| assert!(line.len() <= LINE_MAX));
        assert!(lines.pending.len() <= LINE_MAX);
    }

    #[test]
    fn lines_have_meanings() {
        assert_eq!(meaning("ready"), Some(Meaning::Ready));
        assert_eq!(meaning("ready 123 ms"), Some(Meaning::Ready));
        assert_eq!(
            meaning("error: no volume: no NVDIMM"),
            Some(Meaning::NoVolume("no NVDIMM".into()))
        );
        let panic = Meaning::Failed(Cause::GuestPanic, "panicked at x.rs:1".into());
        assert_eq!(meaning("panicked at x.rs:1"), Some(panic));
        assert_eq!(meaning("fatal: x"), Some(Meaning::Failed(Cause::GuestFailed, "x".into())));
        let found = "[    0.1] NVDIMM at 0x100000000, 64 MiB, lines written back by: clwb";
        assert_eq!(meaning(found), Some(Meaning::Mounts));
        assert_eq!(
            meaning("[    0.2] formatting: the NVDIMM is blank"),
            Some(Meaning::Formats("the NVDIMM is blank".into()))
        );
        assert_eq!(meaning("already"), None);
        assert_eq!(meaning("readyish"), None);
    }
}
