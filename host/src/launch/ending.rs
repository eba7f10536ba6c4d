//! What the end of an instance means: its cause, for the record, and whether it is an error.

use super::LaunchError;
use crate::record::Cause;
use crate::state::StateDir;
use signal_hook::consts::{SIGBUS, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;
use std::{fs, io};

/// What the guest says when it powers off.
const GOODBYE: &str = "powering off";
/// What it says before, if it could not unmount.
const UNCLEAN: &str = "the volume was not unmounted cleanly";
/// Lines of the console in which these are looked for.
const LAST_LINES: usize = 10;

/// Why it ended, and the result for whoever started it.
pub(super) type Ending = (Cause, Result<(), LaunchError>);

/// Why a guest will not serve.
pub(super) struct Useless {
    pub(super) cause: Cause,
    pub(super) why: String,
}

/// QEMU has ended. `ready`: the guest has served. `asked_by`: who asked it to end.
pub(super) fn of_qemu(
    state: &StateDir,
    status: &io::Result<ExitStatus>,
    useless: Option<Useless>,
    ready: bool,
    asked_by: Option<Cause>,
) -> Ending {
    let log = state.console_log();
    if let Some(Useless { cause, why }) = useless {
        return (cause, stopped(format!("{why} (console: {})", log.display())));
    }
    let success = status.as_ref().is_ok_and(ExitStatus::success);
    if success && ready {
        let last_words = last_lines(&log);
        let cause = asked_by.unwrap_or(Cause::Poweroff);
        if let Some(why) = last_words.iter().find(|line| line.contains(UNCLEAN)) {
            return (cause, stopped(why.clone()));
        }
        // The guest powers off when it is asked; else it says that it does.
        if asked_by.is_some() || last_words.iter().any(|line| line.ends_with(GOODBYE)) {
            return (cause, Ok(()));
        }
    }
    let (ended, last) = (describe(status), last_line(&log));
    let cause = match (success, ready) {
        (true, true) => Cause::QemuEnded,
        (true, false) => Cause::GuestFailed,
        (false, _) => cause_of_death(state, status),
    };
    let what = match cause {
        // It never got as far as the guest.
        Cause::GuestFailed | Cause::QemuFailed if last == "nothing" => {
            let said = last_line(&state.file("qemu.log"));
            return (cause, stopped(format!("QEMU {ended}; it says: {said}")));
        }
        Cause::GuestFailed => "the guest powered off before it was ready".into(),
        Cause::HostFull => {
            format!("the host has no room left for {}: QEMU {ended}", state.nvdimm().display())
        }
        Cause::QemuEnded => format!(
            "QEMU {ended}, and the guest had not powered off: its monitor was told to quit, or the \
             guest reset"
        ),
        Cause::QemuKilled => {
            format!("QEMU {ended}: somebody killed it, or the host's kernel did for want of memory")
        }
        _ => format!("QEMU {ended}"),
    };
    (cause, stopped(format!("{what}; the guest's console ({}) ends: {last}", log.display())))
}

/// Nothing happened in time; `waited` so long since the start.
pub(super) fn overdue(
    state: &StateDir,
    useless: Option<Useless>,
    waited: Duration,
    asked_by: Option<Cause>,
) -> Ending {
    let log = state.console_log();
    match useless {
        Some(Useless { cause, why }) => {
            (cause, stopped(format!("{why} (console: {})", log.display())))
        }
        None if asked_by.is_some() => {
            (Cause::Overdue, stopped("the guest did not power off in time and was killed".into()))
        }
        None => {
            let (seconds, last) = (waited.as_secs(), last_line(&log));
            let text = format!(
                "the guest was not ready after {seconds} s; its console ({}) ends: {last}",
                log.display()
            );
            (Cause::NotReady, stopped(text))
        }
    }
}

/// An end that is an error: why.
pub(super) fn stopped(why: String) -> Result<(), LaunchError> {
    Err(LaunchError::Stopped(why))
}

/// Why QEMU ended as it did.
fn cause_of_death(state: &StateDir, status: &io::Result<ExitStatus>) -> Cause {
    match status.as_ref().ok().and_then(ExitStatus::signal) {
        // A load or a store where the host has no page to give.
        Some(SIGBUS) if state.is_full() => Cause::HostFull,
        Some(SIGBUS) => Cause::HostMemory,
        Some(SIGKILL | SIGTERM | SIGINT | SIGHUP | SIGQUIT) => Cause::QemuKilled,
        _ => Cause::QemuFailed,
    }
}

fn describe(status: &io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended with {status}"),
        Err(error) => format!("ended ({error})"),
    }
}

/// The last line of a log, for an error message.
fn last_line(path: &Path) -> String {
    last_lines(path).into_iter().next().unwrap_or_else(|| "nothing".into())
}

/// The last lines of a log that say something, the last one first.
fn last_lines(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines.take(LAST_LINES).map(str::to_string).collect()
}
