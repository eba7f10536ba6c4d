//! The thread: one epoll loop over all that can happen.

use super::commands::Command;
use super::connection::{PortChoice, turn_away};
use super::events::{Token, watch};
use super::ring::{Broken, GuestMemory, Ring};
use super::session::{RECEIVE, Session, TRANSMIT};
use super::switch::{Left, Switch};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use vhost::vhost_user::{self, BackendReqHandler};

/// Of these, the last so many are kept for clients that name a port: to others nothing can be said.
const KEPT: usize = 64;
/// How long no client is accepted after the system had nothing left for one.
const BREATHER: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Events that are fetched at once.
const EVENTS: usize = 64;

struct Listener {
    socket: UnixListener,
    port: PortChoice,
}

/// The thread's own.
struct Worker {
    epoll: Arc<OwnedFd>,
    switch: Switch,
    session: Arc<Mutex<Session>>,
    /// Where QEMU connects; it does so once.
    qemu: Option<UnixListener>,
    messages: Option<BackendReqHandler<Mutex<Session>>>,
    wake: OwnedFd,
    commands: Receiver<Command>,
    listeners: HashMap<u32, Listener>,
    /// Clients that there can be.
    room: usize,
    /// The system had nothing left for a client.
    starved: bool,
    log: File,
    noted: u64,
}

/// Starts the thread, which has at most `room` clients. `on_end` is called on it when it cannot go
/// on: with why.
pub(super) fn start(
    epoll: Arc<OwnedFd>,
    qemu: UnixListener,
    wake: OwnedFd,
    commands: Receiver<Command>,
    room: usize,
    log: File,
    on_end: impl FnOnce(String) + Send + 'static,
) -> io::Result<()> {
    let mut worker = Worker {
        switch: Switch::new(epoll.clone()),
        session: Arc::new(Mutex::new(Session::new(epoll.clone()))),
        epoll,
        qemu: Some(qemu),
        messages: None,
        wake,
        commands,
        listeners: HashMap::new(),
        room,
        starved: false,
        log,
        noted: 0,
    };
    thread::Builder::new().name("vsock".into()).spawn(move || {
        let why = match catch_unwind(AssertUnwindSafe(|| worker.run())) {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => "it panicked; where is on standard error".into(),
        };
        on_end(why);
    })?;
    Ok(())
}

impl Worker {
    fn run(&mut self) -> Result<(), String> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut left = Left::Nothing;
        loop {
            let timeout = match left {
                Left::More => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
                _ if self.starved => Some(BREATHER),
                _ => None,
            };
            events.clear();
            match epoll::wait(
                &*self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("it cannot wait: {error}")),
            }
            for event in &events {
                if self.handle(Token::unpack(event.data.u64()), event.flags)?.is_break() {
                    return Ok(());
                }
            }
            if std::mem::take(&mut self.starved) {
                let all: Vec<u32> = self.listeners.keys().copied().collect();
                all.into_iter().for_each(|number| self.accept(number));
            }
            left = self.round()?;
        }
    }

    fn handle(
        &mut self,
        token: Token,
        events: epoll::EventFlags,
    ) -> Result<ControlFlow<()>, String> {
        match token {
            Token::Client(number) => self.switch.client(number, events),
            Token::Kick(ring) => {
                if let Some(ring) = lock(&self.session).rings.get(ring) {
                    ring.kicked();
                }
            }
            Token::Listener(number) => self.accept(number),
            Token::Wake => return Ok(self.run_commands()),
            Token::Qemu => self.accept_qemu()?,
            Token::Message => return self.handle_vhost_message(),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn accept_qemu(&mut self) -> Result<(), String> {
        let Some(listener) = &self.qemu else { return Ok(()) };
        let failed = |error: io::Error| format!("it cannot accept QEMU: {error}");
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        stream.set_nonblocking(false).map_err(failed)?;
        watch(&self.epoll, &stream, Token::Message, epoll::EventFlags::IN).map_err(failed)?;
        self.messages = Some(BackendReqHandler::from_stream(stream, self.session.clone()));
        self.qemu = None;
        Ok(())
    }

    fn handle_vhost_message(&mut self) -> Result<ControlFlow<()>, String> {
        let Some(messages) = &mut self.messages else { return Ok(ControlFlow::Continue(())) };
        match messages.handle_request() {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(vhost_user::Error::Disconnected | vhost_user::Error::SocketBroken(_)) => {
                Ok(ControlFlow::Break(()))
            }
            Err(error) => Err(format!("it does not understand QEMU: {error}")),
        }
    }

    fn run_commands(&mut self) -> ControlFlow<()> {
        // It is there to be emptied; that it is empty is no matter.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        loop {
            match self.commands.try_recv() {
                Ok(Command::Listen(number, socket, port)) => {
                    match watch(
                        &self.epoll,
                        &socket,
                        Token::Listener(number),
                        epoll::EventFlags::IN,
                    ) {
                        Ok(()) => drop(self.listeners.insert(number, Listener { socket, port })),
                        Err(error) => self.note(&format!("cannot listen: {error}")),
                    }
                }
                // Whoever asked may be gone.
                Ok(Command::Clients(port, to)) => drop(to.send(self.switch.clients(port))),
                Ok(Command::Close(number)) => drop(self.listeners.remove(&number)),
                Err(TryRecvError::Empty) => return ControlFlow::Continue(()),
                Err(TryRecvError::Disconnected) => return ControlFlow::Break(()),
            }
        }
    }

    fn accept(&mut self, number: u32) {
        while let Some(listener) = self.listeners.get(&number) {
            let port = listener.port;
            match listener.socket.accept() {
                Ok((stream, _)) => self.admit(stream, port),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client has gone already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.note(&format!("cannot accept a client: {error}"));
                    self.starved = true;
                    return;
                }
            }
        }
    }

    /// Takes on a client, or closes its connection. One that comes before the rings run waits for
    /// them: the guest may have said already that it is ready, while QEMU's messages are still
    /// unread.
    fn admit(&mut self, stream: UnixStream, port: PortChoice) {
        let clients = self.switch.len();
        let room =
            if port == PortChoice::Asked { self.room } else { self.room - KEPT.min(self.room / 4) };
        if clients >= room {
            if port == PortChoice::Asked {
                turn_away(&stream, clients);
            }
            return self.note(&format!("a client was turned away: there are {clients} already"));
        }
        crate::socket::widen(&stream);
        if let Err(error) = self.switch.accept(stream, port) {
            self.note(&format!("cannot take on a client: {error}"));
        }
    }

    /// Moves packets both ways.
    fn round(&mut self) -> Result<Left, String> {
        let dropped = self.switch.dropped;
        let left = {
            let session = &mut *lock(&self.session);
            if std::mem::take(&mut session.stopped) {
                self.switch.lose_all();
            }
            if !session.is_running() {
                return Ok(Left::Nothing);
            }
            round(&mut self.switch, &mut session.rings, &session.memory)
                .map_err(|it| it.to_string())?
        };
        if self.switch.dropped != dropped {
            self.note(&format!(
                "the guest sent {} packets that are none",
                self.switch.dropped - dropped
            ));
        }
        Ok(left)
    }

    /// Writes to the log; less and less if it is much.
    fn note(&mut self, text: &str) {
        self.noted += 1;
        if self.noted < 100 || self.noted.is_power_of_two() {
            // A full disk must not stop the guest.
            let _ = writeln!(self.log, "{text} ({})", self.noted);
        }
    }
}

/// Moves packets both ways, and tells the guest. What it returns is never [`Left::Packets`].
pub(super) fn round(
    switch: &mut Switch,
    rings: &mut [Ring; 2],
    memory: &GuestMemory,
) -> Result<Left, Broken> {
    let drained = switch.drain(&mut rings[TRANSMIT], memory)?;
    let mut more = match drained {
        Left::More => true,
        Left::Nothing => rings[TRANSMIT].arm(memory)?,
        Left::Packets => false,
    };
    rings[TRANSMIT].signal(memory)?;
    more |= match switch.fill(&mut rings[RECEIVE], memory)? {
        Left::More => true,
        Left::Nothing => false,
        Left::Packets => rings[RECEIVE].arm(memory)?,
    };
    rings[RECEIVE].signal(memory)?;
    more |= drained == Left::Packets && switch.takes_packets();
    Ok(if more { Left::More } else { Left::Nothing })
}

/// A poisoned lock only means that this thread is panicking.
fn lock(session: &Mutex<Session>) -> std::sync::MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}
