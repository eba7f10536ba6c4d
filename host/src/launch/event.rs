//! What happens to an instance: it arrives at the supervisor's loop, from threads of all sorts.

use super::Accel;
use super::console::{self, Console, Meaning};
use super::control::Stopped;
use super::ending::Useless;
use crate::guest_events::Keeper;
use crate::log::Log;
use crate::record::Cause;
use std::io;
use std::process::{ChildStdout, ExitStatus};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

/// Something that happened to an instance.
pub(super) enum Event {
    /// The guest serves, since then.
    Ready(Instant),
    /// The guest has said something, under KVM.
    Said,
    /// The guest mounts its volume, and may be silent meanwhile.
    Mounts,
    /// The guest makes an empty volume: why.
    Formats(String),
    /// The guest says why it will not serve, and whether it goes on running.
    Useless(Useless, Runs),
    /// The serial line is read to its end.
    ConsoleEnded,
    /// QEMU has ended, with this status.
    QemuEnded(io::Result<ExitStatus>),
    /// The vsock device has ended: why.
    DeviceEnded(String),
    /// A signal that asks for the end.
    Signal,
    /// `down`: whoever sent it waits for the outcome.
    Stop(Waiting),
    /// The guest was asked to power off, one way or the other.
    Asked(Asked),
}

/// Somebody who waits for the end.
pub(super) struct Waiting {
    pub(super) outcome: Sender<Stopped>,
    /// Disconnected when the outcome has been passed on.
    pub(super) passed_on: Receiver<()>,
}

/// Whether a guest that does not serve goes on running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// It waits for commands.
    On,
    /// It ends.
    Out,
}

/// How the guest was asked to power off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// By a request, which it has answered.
    OverRpc,
    /// By a command on its console.
    OverConsole,
    /// Not at all: neither takes it.
    Nowhere,
}

/// Reads the console to its end, and turns what it says into events. What happened to the guest's
/// memory is kept by `keeper`.
pub(super) fn read_console(
    console: &Console,
    output: ChildStdout,
    log: Log,
    accel: Accel,
    mut keeper: Keeper,
    sender: &Sender<Event>,
) {
    let (sender, end_sender) = (sender.clone(), sender.clone());
    let on_line = move |line: &str| {
        keeper.hear(line);
        let event = match console::meaning(line) {
            Some(Meaning::Ready) => Event::Ready(Instant::now()),
            Some(Meaning::NoVolume(why)) => {
                let why = format!("the guest has nothing to serve: {why}");
                Event::Useless(Useless { cause: Cause::NoVolume, why }, Runs::On)
            }
            Some(Meaning::Failed(cause, why)) => Event::Useless(
                Useless { cause, why: format!("the guest failed: {why}") },
                Runs::Out,
            ),
            Some(Meaning::Mounts) => Event::Mounts,
            Some(Meaning::Formats(why)) => Event::Formats(why),
            None if accel == Accel::Kvm => Event::Said,
            None => return,
        };
        drop(sender.send(event));
    };
    console.pump(output, log, on_line, move || drop(end_sender.send(Event::ConsoleEnded)))
}
