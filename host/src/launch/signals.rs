//! Signals that ask for the end of an instance.

use super::LaunchError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::thread;
use std::time::{Duration, Instant};

/// A signal that comes so long after the first one kills the guest.
pub(super) const INSISTENCE: Duration = Duration::from_secs(5);

/// What a signal means.
pub(super) enum Insistence {
    /// Shut down.
    First,
    /// No more than the first one; so long is left until another one would kill.
    Waits(Duration),
    /// Do not wait for the guest.
    Kills,
}

/// What a signal means that comes now.
pub(super) fn insistence(first: &mut Option<Instant>, now: Instant) -> Insistence {
    match first {
        None => {
            *first = Some(now);
            Insistence::First
        }
        Some(first) => match INSISTENCE.checked_sub(now.saturating_duration_since(*first)) {
            Some(left) if !left.is_zero() => Insistence::Waits(left),
            _ => Insistence::Kills,
        },
    }
}

/// Calls `on_signal` at each, on a thread, as long as it returns true.
pub(super) fn watch(on_signal: impl Fn() -> bool + Send + 'static) -> Result<(), LaunchError> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])
        .map_err(|error| LaunchError::Io("handle signals".into(), error))?;
    thread::spawn(move || signals.forever().take_while(|_| on_signal()).for_each(drop));
    Ok(())
}
