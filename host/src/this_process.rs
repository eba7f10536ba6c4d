//! What this process is and does of itself: its umask, and what it does before a signal ends it.

use rustix::fs::Mode;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;
use std::thread::{self, JoinHandle};
use std::{fs, io};

/// The permissions that new files do not get.
pub(crate) fn umask() -> io::Result<Mode> {
    let bits = field_of_status("Umask:")?.and_then(|bits| u32::from_str_radix(&bits, 8).ok());
    Ok(Mode::from_raw_mode(bits.unwrap_or(0o022)))
}

/// A line of `/proc/self/status`, which also has the umask: to ask for that in another way would
/// change it.
fn field_of_status(field: &str) -> io::Result<Option<String>> {
    let status = match fs::read_to_string("/proc/self/status") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        status => status?,
    };
    Ok(status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .map(|value| value.trim().to_string()))
}

/// Cleans up before SIGHUP, SIGINT or SIGTERM ends this process, for as long as this lives.
///
/// Dropping it while a signal is being handled waits: the process ends by that signal, and not by
/// whatever the caller would do next.
pub struct CleanUp {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl CleanUp {
    /// Calls `clean_up`, on a thread of its own, at the first signal. The process ends then,
    /// whatever became of that.
    ///
    /// # Errors
    ///
    /// The system's, if it refuses the thread or the handlers.
    pub fn on_signals(clean_up: impl FnOnce() + Send + 'static) -> io::Result<CleanUp> {
        // A signal that is ignored does not end this process.
        let ignored =
            field_of_status("SigIgn:")?.and_then(|mask| u64::from_str_radix(&mask, 16).ok());
        let ignored = |signal: &i32| ignored.unwrap_or(0) >> (signal - 1) & 1 != 0;
        let ends: Vec<i32> =
            [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !ignored(signal)).collect();
        let mut signals = Signals::new(ends)?;
        let handle = signals.handle();
        let thread = thread::Builder::new().name("signals".into()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                clean_up();
                // It fails only for signals that have no default, and these have one.
                let _ = emulate_default_handler(signal);
            }
        })?;
        Ok(CleanUp { handle, thread: Some(thread) })
    }
}

impl Drop for CleanUp {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed already.
            let _ = thread.join();
        }
    }
}
