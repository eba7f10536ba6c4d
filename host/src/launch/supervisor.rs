//! Start, wait, shut down: the life of one instance.
//!
//! Everything that happens arrives as an [`Event`] at one loop on the calling thread, which is
//! also the thread that starts QEMU (see [`leash`](super::leash)).
//!
//! ```text
//!   booting ──ready──▶ running ──signal, `down`──▶ stopping ──QEMU ends──▶ over
//!      │                  └───── QEMU or the vsock device ends ──────────────▶│
//!      └── the guest says why it cannot, or says nothing for too long ────────▶│
//! ```
//!
//! Where KVM was chosen by itself, and the guest does not get ready, a second QEMU starts under
//! emulation once the first one has ended. Nothing is lost by that: no client was served yet,
//! and the volume is whole whenever a guest is killed, also while it is being formatted.
//!
//! Stopping asks the guest over RPC, then over its console, and kills QEMU only when neither
//! helped in time. A second signal kills at once, but only if it comes [`INSISTENCE`] after the
//! first: `timeout` and a terminal that closes send two signals in a row, and mean one.

use super::accel::{self, Choice, Chosen};
use super::console::Console;
use super::control::{self, Stopped};
use super::ending::{self, Ending, Useless};
use super::event::{Asked, Event, Runs, Waiting, read_console};
use super::instance::SharedState;
use super::process::Process;
use super::qemu::{self, Machine};
use super::signals::{self, INSISTENCE, Insistence};
use super::transport::{Offer, Transport};
use super::{Accel, LaunchError, Options, Status, nvdimm};
use crate::client::Client;
use crate::guest_events::Keeper;
use crate::record::{self, Cause, End};
use crate::state::{Lock, StateDir};
use serde_json::json;
use std::io::{self, Write};
use std::process::{self, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};
use umbra_proto::nbd;

/// Bytes of the console's log before it begins anew.
const CONSOLE_LOG_LIMIT: u64 = 8 << 20;
/// How long a guest may take to say `ready`. Rebuilding a large volume under emulation is slow.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a guest under KVM may be silent while it boots: it hangs, as real kernels do where
/// `/dev/kvm` opens and does not work. Once it mounts its volume, [`BOOT_TIMEOUT`] counts.
const KVM_SILENCE: Duration = Duration::from_secs(5);
/// How long a QEMU that was killed may take to end.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// How long a guest that was asked over RPC may take to power off.
const RPC_GRACE: Duration = Duration::from_secs(30);
/// The same, asked over its console.
const CONSOLE_GRACE: Duration = Duration::from_secs(15);
/// How long a guest that cannot serve may take to stop.
const USELESS_GRACE: Duration = Duration::from_secs(2);
/// How long the rest of the console, or of an answer, is waited for at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Hears what happens, for whoever started the instance.
pub trait Reporter {
    /// The serial line is there; the guest is about to start.
    fn console(&mut self, console: &Console);
    /// The guest serves. An error means that nobody wants to know: the instance ends.
    fn ready(&mut self, status: &Status) -> io::Result<()>;
    /// A line for people.
    fn note(&mut self, text: &str);
}

/// Runs an instance until it ends. `Ok` is a clean end: somebody asked for it, or the guest powered
/// off by itself; then others may start. After an error they may once this process has ended. Call
/// it on the main thread.
pub fn supervise(options: &Options, reporter: &mut dyn Reporter) -> Result<(), LaunchError> {
    options.check()?;
    let mut state = options.state_dir();
    state.create()?;
    let lock = state.lock()?;
    state.clear(&lock)?;
    state.open_to(options.access)?;
    if state.is_writable_by_others() {
        reporter.note(&format!(
            "others may write in {}: they can put files of theirs in the place of the server's",
            state.path().display()
        ));
    }
    let result = supervise_in(&state, &lock, options, reporter);
    // Removes what would point at processes that are gone. What cannot be removed now, the next
    // start removes, or says why not.
    let _ = state.clear(&lock);
    if result.is_err() {
        // Why it failed is still to be written, maybe to the log of this state: it stays locked
        // until this process ends.
        std::mem::forget(lock);
    }
    result
}

/// The same, in a state directory that is there and locked.
fn supervise_in(
    state: &StateDir,
    lock: &Lock,
    options: &Options,
    reporter: &mut dyn Reporter,
) -> Result<(), LaunchError> {
    let mut chosen = accel::choose(options.accel)?;
    let (sender, events) = channel();
    let to_loop = sender.clone();
    signals::watch(move || to_loop.send(Event::Signal).is_ok())?;
    loop {
        let supervisor =
            Supervisor::start(state, options, &chosen, (sender.clone(), &events), reporter)
                .inspect_err(|error| record::end_started(state, error))?;
        match supervisor.run(reporter) {
            Err(LaunchError::NotUnderKvm(why)) if options.accel == Choice::Auto => {
                reporter.note(&format!(
                    "the guest did not get ready under KVM: {why}; starting it again under \
                     emulation"
                ));
                chosen = Chosen::instead_of_kvm(&why);
                state.clear(lock)?;
            }
            result => return result,
        }
    }
}

struct Supervisor<'e> {
    state: StateDir,
    events: &'e Receiver<Event>,
    sender: Sender<Event>,
    shared: Arc<SharedState>,
    console: Console,
    transport: Transport,
    /// Killed, where it still runs, when this goes.
    qemu: Process,
    qemu_ended: bool,
    console_ended: bool,
    /// Whether QEMU first takes all memory of the NVDIMM, which takes long.
    prealloc: bool,
    /// Locked until then.
    _nvdimms: (nvdimm::Own, Vec<nvdimm::Extra>),
    started: Instant,
    /// The guest was told to mount nothing; then it is no failure that it does not.
    bare: bool,
    /// Clients of `down`.
    waiting: Vec<Waiting>,
    /// The socket before the guest's NBD server, once it is ready.
    nbd: Option<Offer>,
    /// Who asked for the end.
    asked_by: Option<Cause>,
    /// Who asked for it when QEMU was ending anyway.
    too_late: Option<Cause>,
    /// Why it ended, once it has.
    cause: Cause,
    /// Answers requests while this lives.
    _control: control::Server,
}

impl<'e> Supervisor<'e> {
    fn start(
        state: &StateDir,
        options: &Options,
        chosen: &Chosen,
        (sender, events): (Sender<Event>, &'e Receiver<Event>),
        reporter: &mut dyn Reporter,
    ) -> Result<Supervisor<'e>, LaunchError> {
        let accel = chosen.accel;
        let nvdimm = nvdimm::prepare(state, options.nvdimm_size)?;
        let nvdimm_size = nvdimm.size;
        let extra = nvdimm::prepare_extra(state, nvdimm_size, &options.extra_nvdimms)?;
        let transport = Transport::choose(state);
        state.write("guest.conf", &qemu::guest_config(options))?;
        state.write("guest.seed", &qemu::guest_seed())?;
        state.write("supervisor.pid", &format!("{}\n", process::id()))?;

        let ended = sender.clone();
        let ports =
            transport.start(state, options.access, state.log("vsock.log")?, move |why| {
                drop(ended.send(Event::DeviceEnded(why)));
            })?;

        let machine = Machine { accel, transport, nvdimm, extra };
        let console_log = state.bounded_log("console.log", CONSOLE_LOG_LIMIT)?;
        // A full disk must not stop a server that was stopped by one.
        let _ = record::start(state);
        let started = Instant::now();
        let mut child = qemu::start(state, options, &machine, state.log("qemu.log")?)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let ended = sender.clone();
        // The receiver is gone only when the supervisor is.
        let qemu = Process::watch(child, move |status| drop(ended.send(Event::QemuEnded(status))))
            .map_err(|error| LaunchError::Io("watch QEMU".into(), error))?;
        state.write("qemu.pid", &format!("{}\n", qemu.pid))?;
        let Some((input, output)) = pipes else {
            return Err(LaunchError::Stopped("QEMU has no pipes".into()));
        };
        let console = Console::new(input);
        reporter.console(&console);
        let keeper = Keeper::new(state);
        read_console(&console, output, console_log, accel, keeper, &sender);

        let status = Status {
            ready: false,
            boot_ms: None,
            formatted: None,
            qemu_pid: qemu.pid,
            supervisor_pid: process::id(),
            accel,
            accel_reason: chosen.reason.clone(),
            memory: options.memory,
            nvdimm_size,
            endpoint: machine.transport.endpoint(),
            uptime_s: 0.0,
            paused: None,
        };
        let shared = Arc::new(SharedState {
            state: state.clone(),
            status: Mutex::new(status),
            started,
            console: console.clone(),
            ports: Arc::new(ports),
            access: options.access,
            sender: Mutex::new(sender.clone()),
        });
        let listener = state
            .listen(control::SOCKET)
            .map_err(|error| LaunchError::Io("listen on the control socket".into(), error))?;
        let instance: Weak<SharedState> = Arc::downgrade(&shared);
        let control = control::serve(listener, instance)
            .map_err(|error| LaunchError::Io("serve the control socket".into(), error))?;
        let state = state.clone();
        Ok(Supervisor {
            state,
            events,
            sender,
            shared,
            console,
            transport: machine.transport,
            _nvdimms: (machine.nvdimm, machine.extra),
            qemu,
            qemu_ended: false,
            console_ended: false,
            prealloc: options.prealloc,
            started,
            bare: options.guest_config.iter().any(|line| line == "volume=no"),
            waiting: Vec::new(),
            nbd: None,
            asked_by: None,
            too_late: None,
            cause: Cause::Failed,
            _control: control,
        })
    }

    fn run(mut self, reporter: &mut dyn Reporter) -> Result<(), LaunchError> {
        let mut result = self.wait(reporter);
        if let Err(LaunchError::NotUnderKvm(_)) = result
            && let Err(error) = self.end_qemu()
        {
            result = Err(error);
        }
        self.record_end(&result);
        let stopped = Stopped {
            clean: result.is_ok(),
            message: result.as_ref().err().map(|e| e.to_string()),
        };
        for waiting in self.waiting.drain(..) {
            // A client that did not wait has nothing to hear; one that does not read is not
            // waited for.
            if waiting.outcome.send(stopped.clone()).is_ok() {
                let _ = waiting.passed_on.recv_timeout(LAST_WORDS);
            }
        }
        result
    }

    /// The loop. Its result is that of the instance.
    fn wait(&mut self, reporter: &mut dyn Reporter) -> Result<(), LaunchError> {
        let mut deadline = Some(self.started + self.patience());
        let mut useless: Option<Useless> = None;
        let mut first_signal = None;
        loop {
            let event = match deadline {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                // Commands on the console may do so later, too.
                Ok(Event::Formats(why)) if !self.is_ready() => {
                    self.status().formatted = Some(why);
                }
                Ok(Event::Formats(_)) => {}
                Ok(Event::Said | Event::Mounts | Event::Ready(_))
                    if self.asked_by.is_some() || useless.is_some() || self.is_ready() => {}
                Ok(Event::Said) => deadline = Some(Instant::now() + self.patience()),
                Ok(Event::Mounts) => deadline = Some(self.started + BOOT_TIMEOUT),
                Ok(Event::Ready(at)) => {
                    deadline = None;
                    self.offer_nbd()?;
                    let access = self.shared.access;
                    self.state.write_for(access, "endpoint", &self.transport.endpoint())?;
                    let status = self.set_ready(at);
                    let said = json!({
                        "boot_ms": status.boot_ms,
                        "formatted": status.formatted,
                    });
                    let _ = record::append(&self.state, "ready", said);
                    if reporter.ready(&status).is_err() {
                        self.ask(Cause::Abandoned);
                    }
                }
                Ok(Event::Useless(..)) if useless.is_some() => {}
                // Commands on the console may say so later, and all is well.
                Ok(Event::Useless(_, Runs::On)) if self.bare || self.is_ready() => {}
                Ok(Event::Useless(why, runs)) => {
                    useless = Some(why);
                    deadline = Some(Instant::now() + USELESS_GRACE);
                    if runs == Runs::On {
                        self.ask(Cause::NoVolume);
                    }
                }
                Ok(Event::QemuEnded(status)) => return self.end_of_qemu(&status, useless),
                Ok(Event::ConsoleEnded) => self.console_ended = true,
                Ok(Event::DeviceEnded(_)) if self.asked_by.is_some() => {}
                Ok(Event::DeviceEnded(why)) => {
                    // The device stores into the image too, and may be the first to find no room.
                    self.cause =
                        if self.state.is_full() { Cause::HostFull } else { Cause::VsockDevice };
                    return Err(LaunchError::Stopped(format!("the vsock device has ended: {why}")));
                }
                Ok(Event::Signal) => match signals::insistence(&mut first_signal, Instant::now()) {
                    Insistence::Waits(left) => reporter.note(&format!(
                        "still unmounting; a second Ctrl-C after {} s kills the guest",
                        left.as_secs_f64().ceil()
                    )),
                    Insistence::Kills => {
                        self.cause = Cause::Killed;
                        return Err(LaunchError::Stopped(
                            "killed before the guest had shut down".into(),
                        ));
                    }
                    Insistence::First => {
                        let seconds = INSISTENCE.as_secs();
                        reporter.note(&format!("shutting down (again after {seconds} s to kill)"));
                        self.ask(Cause::Signal);
                    }
                },
                Ok(Event::Stop(client)) => {
                    self.waiting.push(client);
                    self.ask(Cause::Down);
                }
                // It has its deadline already.
                Ok(Event::Asked(_)) if useless.is_some() => {}
                Ok(Event::Asked(Asked::OverRpc)) => deadline = Some(Instant::now() + RPC_GRACE),
                Ok(Event::Asked(Asked::OverConsole)) => {
                    deadline = Some(Instant::now() + CONSOLE_GRACE)
                }
                Ok(Event::Asked(Asked::Nowhere)) => deadline = Some(Instant::now()),
                Err(_) => {
                    let waited = self.started.elapsed();
                    return self.end(ending::overdue(&self.state, useless, waited, self.asked_by));
                }
            }
        }
    }

    /// What it means that QEMU has ended.
    fn end_of_qemu(
        &mut self,
        status: &io::Result<ExitStatus>,
        mut useless: Option<Useless>,
    ) -> Result<(), LaunchError> {
        self.qemu_ended = true;
        if !self.console_ended {
            self.hear_last_words(&mut useless);
        }
        let ready = self.is_ready();
        self.end(ending::of_qemu(&self.state, status, useless, ready, self.asked_by))
    }

    /// Waits until the console is read to its end: the reason may be in there.
    fn hear_last_words(&mut self, useless: &mut Option<Useless>) {
        let deadline = Instant::now() + LAST_WORDS;
        while let Ok(event) =
            self.events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            match event {
                Event::ConsoleEnded => {
                    self.console_ended = true;
                    return;
                }
                Event::Useless(why, Runs::Out) if useless.is_none() => *useless = Some(why),
                Event::Ready(at) if !self.is_ready() => drop(self.set_ready(at)),
                event => self.note_interruption(event),
            }
        }
    }

    /// How long the guest may be silent before it mounts its volume. Under emulation it is slow,
    /// but does not hang.
    fn patience(&self) -> Duration {
        if self.status().accel == Accel::Kvm && !self.prealloc { KVM_SILENCE } else { BOOT_TIMEOUT }
    }

    /// Kills QEMU, and waits until it is gone: two must not have the image at a time. Fails, too,
    /// if somebody asks for the end of the instance meanwhile.
    fn end_qemu(&mut self) -> Result<(), LaunchError> {
        self.qemu.kill();
        let mut deadline = Instant::now() + KILL_GRACE;
        while !(self.qemu_ended && self.console_ended) {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::QemuEnded(_)) => {
                    self.qemu_ended = true;
                    deadline = Instant::now() + LAST_WORDS;
                }
                Ok(Event::ConsoleEnded) => self.console_ended = true,
                Ok(event) => self.note_interruption(event),
                // Something that QEMU left behind has the console open.
                Err(_) if self.qemu_ended => break,
                Err(_) => {
                    return ending::stopped(format!("QEMU {} cannot be killed", self.qemu.pid));
                }
            }
        }
        let Some(cause) = self.too_late else { return Ok(()) };
        self.cause = cause;
        ending::stopped("stopped before the guest was ready".into())
    }

    fn note_interruption(&mut self, event: Event) {
        if let Event::Signal = event {
            self.too_late = Some(Cause::Signal);
        } else if let Event::Stop(client) = event {
            self.waiting.push(client);
            self.too_late = Some(Cause::Down);
        }
    }

    /// Lets clients of NBD connect, which know nothing of vsock.
    fn offer_nbd(&mut self) -> Result<(), LaunchError> {
        let offer = self
            .state
            .listen_for(self.shared.access, StateDir::NBD_SOCKET)
            .and_then(|listener| self.shared.ports.offer(listener, nbd::PORT))
            .map_err(|error| LaunchError::Io("listen for clients of NBD".into(), error))?;
        self.nbd = Some(offer);
        Ok(())
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.shared.status()
    }

    fn is_ready(&self) -> bool {
        self.status().ready
    }

    fn set_ready(&self, at: Instant) -> Status {
        let mut status = self.status();
        status.ready = true;
        status.boot_ms = Some(at.duration_since(self.started).as_secs_f64() * 1000.0);
        status.clone()
    }

    /// Asks the guest to power off, unless somebody did so before; on a thread: a guest that hangs
    /// must not stop this loop.
    fn ask(&mut self, by: Cause) {
        if self.asked_by.is_some() {
            return;
        }
        self.asked_by = Some(by);
        let (ready, state) = (self.is_ready(), self.state.clone());
        let (console, sender) = (self.console.clone(), self.sender.clone());
        thread::spawn(move || {
            let over_rpc =
                || Client::connect(&state).and_then(|mut client| client.shutdown()).is_ok();
            let asked = if ready && over_rpc() {
                Asked::OverRpc
            } else if console.write(b"\npoweroff\n").is_ok() {
                Asked::OverConsole
            } else {
                Asked::Nowhere
            };
            drop(sender.send(Event::Asked(asked)));
        });
    }

    /// Notes why it ended. Before the guest was ready, that may be the fault of KVM, unless
    /// somebody asked for it.
    fn end(&mut self, (cause, result): Ending) -> Result<(), LaunchError> {
        self.cause = cause;
        let status = self.status();
        match result {
            Err(LaunchError::Stopped(why))
                if status.accel == Accel::Kvm && !status.ready && self.asked_by.is_none() =>
            {
                Err(LaunchError::NotUnderKvm(why))
            }
            result => result,
        }
    }

    /// Writes into the record how it ended.
    fn record_end(&self, result: &Result<(), LaunchError>) {
        let end = End {
            time: None,
            cause: self.cause,
            clean: result.is_ok(),
            message: result.as_ref().err().map(|error| error.to_string()),
            uptime_s: Some(self.started.elapsed().as_secs_f64()),
            inferred: false,
        };
        if let Err(error) = record::append_end(&self.state, &end) {
            // It goes to a log, or to a terminal that may be gone.
            let _ = writeln!(io::stderr(), "umbra: cannot record the end: {error}");
        }
    }
}
