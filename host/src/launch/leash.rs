//! Children that die with their parent.
//!
//! `PR_SET_PDEATHSIG` must be set in the child between `fork` and `exec`, and the standard
//! library runs code there only through an unsafe call. So the child is this program itself:
//! it sets the signal, looks whether the parent is still there, and executes the real program
//! in its place, with the same process id.
//!
//! The signal comes when the *thread* ends that started the child: call [`command`]'s
//! `spawn` on a thread that lives as long as the supervisor.

use nix::sys::signal::SigSet;
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use rustix::fs::Mode;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, umask};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

/// The hidden subcommand that [`run`] serves.
pub const SUBCOMMAND: &str = "__leash";

/// A command that runs `program` so that it is killed when the calling thread ends. It has
/// a process group of its own: a terminal's Ctrl-C reaches the supervisor alone.
///
/// The calling program must be `umbra`, or hand [`SUBCOMMAND`] to [`run`] like it.
pub fn command(program: &OsStr) -> Command {
    // Not `current_exe`: that file may have been replaced or removed meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg(SUBCOMMAND).arg(process::id().to_string()).arg(program).process_group(0);
    command
}

/// Becomes `program` on the leash of the process `parent`. Returns only why it could not.
///
/// Signals that ask for an end are blocked, and stay so in the program: whoever sends one to all
/// processes (a service manager, a shutdown of the host) asks the supervisor to unmount. QEMU
/// would end before the guest had.
pub fn run(parent: u32, program: &OsStr, arguments: &[OsString]) -> String {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("cannot ask for a signal at the parent's end: {error}");
    }
    // The parent may have died before the request: then nobody would send the signal.
    if getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get() as u32) != Some(parent) {
        return "the supervisor is gone".into();
    }
    // What QEMU makes, its monitor's socket for one, is for the owner alone.
    umask(Mode::from_raw_mode(0o077));
    let blocked: SigSet = [SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter().collect();
    if let Err(error) = blocked.thread_block() {
        return format!("cannot block signals: {error}");
    }
    let error = Command::new(program).args(arguments).exec();
    format!("cannot run {}: {error}", program.display())
}
