//! A child process that is watched, and killed when nobody wants it any more.

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::process::{Child, ExitStatus};
use std::thread;

/// A child whose end a thread waits for. It is killed, where it still runs, when this goes.
pub(super) struct Process {
    /// Its process id.
    pub(super) pid: u32,
    handle: OwnedFd,
}

impl Process {
    /// Watches a child; `on_end` hears on a thread how it ended.
    pub(super) fn watch(
        mut child: Child,
        on_end: impl FnOnce(io::Result<ExitStatus>) + Send + 'static,
    ) -> io::Result<Process> {
        let pid = child.id();
        let raw =
            i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        // A descriptor, not the number: it never means a later process.
        let handle = pidfd_open(raw, PidfdFlags::empty())?;
        thread::spawn(move || on_end(child.wait()));
        Ok(Process { pid, handle })
    }

    /// Kills it. Its end is heard of as any other.
    pub(super) fn kill(&self) {
        // It fails only if the process has ended.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
