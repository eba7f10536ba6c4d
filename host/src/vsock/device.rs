//! The thread: one epoll loop over all that can happen.

use super::connection::Target;
use super::ring::Ring;
use super::session::{RECEIVE, Session, TRANSMIT};
use super::switch::{Left, Switch};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use vhost::vhost_user::{self, BackendReqHandler};

/// Clients at most; more are turned away. A few more than a guest serves, which tells each of the
/// others why.
const MAX_CONNECTIONS: usize = 1024 + 128;
/// Of these, the last so many are kept for clients that name a port: to others nothing can be said.
const KEPT: usize = 64;
/// Descriptors that the rest of the process may need.
const OTHER_DESCRIPTORS: u64 = 256;
/// How long no client is accepted after the system had nothing left for one.
const BREATHER: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Events that are fetched at once.
const EVENTS: usize = 64;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// QEMU connects.
    Qemu,
    /// QEMU says something.
    Message,
    /// Somebody has a command.
    Wake,
    /// The guest kicked this ring.
    Kick(usize),
    /// A client connects here.
    Listener(u32),
    /// A client's socket.
    Client(u32),
}

impl Token {
    fn pack(self) -> u64 {
        let (sort, number) = match self {
            Token::Qemu => (0, 0),
            Token::Message => (1, 0),
            Token::Wake => (2, 0),
            Token::Kick(ring) => (3, ring as u32),
            Token::Listener(number) => (4, number),
            Token::Client(number) => (5, number),
        };
        sort << 32 | u64::from(number)
    }

    pub(super) fn unpack(data: u64) -> Token {
        let number = data as u32;
        match data >> 32 {
            0 => Token::Qemu,
            1 => Token::Message,
            2 => Token::Wake,
            3 => Token::Kick(number as usize),
            4 => Token::Listener(number),
            _ => Token::Client(number),
        }
    }
}

/// Begins to hear of events.
pub(super) fn watch(
    epoll: &OwnedFd,
    what: impl AsFd,
    token: Token,
    events: epoll::EventFlags,
) -> io::Result<()> {
    Ok(epoll::add(epoll, what, epoll::EventData::new_u64(token.pack()), events)?)
}

/// Changes which events are heard of.
pub(super) fn rewatch(
    epoll: &OwnedFd,
    what: impl AsFd,
    token: Token,
    events: epoll::EventFlags,
) -> io::Result<()> {
    Ok(epoll::modify(epoll, what, epoll::EventData::new_u64(token.pack()), events)?)
}

enum Command {
    Listen(u32, UnixListener, Target),
    Close(u32),
    Clients(u32, Sender<Vec<Client>>),
}

/// A client of the guest, as the device knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The port of this machine by which the guest knows the connection.
    pub number: u32,
    /// The process that connected, where the system tells. It may have ended since, or given its
    /// end to another.
    pub process: Option<Pid>,
}

/// What other threads say to the device's.
struct Commands {
    sender: Sender<Command>,
    wake: OwnedFd,
}

impl Commands {
    fn give(&self, command: Command) -> io::Result<()> {
        self.sender.send(command).map_err(|_| io::Error::other("the vsock device has ended"))?;
        rustix::io::write(&self.wake, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

/// A running device. It ends when this goes, and all offers.
#[derive(Clone)]
pub struct Device {
    commands: Arc<Commands>,
    next: Arc<Mutex<u32>>,
}

/// A socket that clients can connect to, until this goes.
pub struct Offer {
    commands: Arc<Commands>,
    number: u32,
}

impl Drop for Offer {
    fn drop(&mut self) {
        // A device that has ended has closed it.
        let _ = self.commands.give(Command::Close(self.number));
    }
}

impl Device {
    /// Starts a device that waits for QEMU at this socket. `on_end` is called, on the device's
    /// thread, when it cannot go on: with why. That QEMU hung up is no such case.
    pub fn start(
        qemu: UnixListener,
        log: File,
        on_end: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<Device> {
        Self::start_with(qemu, log, raise_descriptor_limit(), on_end)
    }

    /// As [`Device::start`], for so many clients.
    fn start_with(
        qemu: UnixListener,
        log: File,
        room: usize,
        on_end: impl FnOnce(String) + Send + 'static,
    ) -> io::Result<Device> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        qemu.set_nonblocking(true)?;
        watch(&epoll, &qemu, Token::Qemu, epoll::EventFlags::IN)?;
        watch(&epoll, &wake, Token::Wake, epoll::EventFlags::IN)?;
        let (sender, commands) = channel();
        let mut worker = Worker {
            switch: Switch::new(epoll.clone()),
            session: Arc::new(Mutex::new(Session::new(epoll.clone()))),
            epoll,
            qemu: Some(qemu),
            messages: None,
            wake: wake.try_clone()?,
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
        Ok(Device { commands: Arc::new(Commands { sender, wake }), next: Arc::default() })
    }

    /// Serves a socket.
    pub fn listen(&self, listener: UnixListener, target: Target) -> io::Result<Offer> {
        listener.set_nonblocking(true)?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        *next = next.wrapping_add(1);
        self.commands.give(Command::Listen(number, listener, target))?;
        Ok(Offer { commands: self.commands.clone(), number })
    }

    /// The clients that are connected to a port of the guest.
    pub fn clients(&self, port: u32) -> io::Result<Vec<Client>> {
        let (sender, clients) = channel();
        self.commands.give(Command::Clients(port, sender))?;
        clients.recv().map_err(|_| io::Error::other("the vsock device has ended"))
    }
}

/// Makes room for as many descriptors as the system allows; returns how many clients fit.
fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = MAX_CONNECTIONS as u64 + OTHER_DESCRIPTORS;
    let current =
        limit.maximum.unwrap_or(u64::MAX).min(wanted).max(limit.current.unwrap_or(u64::MAX));
    // It may be refused; then there is room for fewer.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(now.saturating_sub(OTHER_DESCRIPTORS))
        .unwrap_or(usize::MAX)
        .clamp(16, MAX_CONNECTIONS)
}

struct Listener {
    socket: UnixListener,
    target: Target,
}

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

/// Whether the device goes on.
#[derive(PartialEq, Eq)]
enum Goes {
    On,
    Out,
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
                if self.handle(Token::unpack(event.data.u64()), event.flags)? == Goes::Out {
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

    fn handle(&mut self, token: Token, events: epoll::EventFlags) -> Result<Goes, String> {
        match token {
            Token::Client(number) => self.switch.client(number, events),
            Token::Kick(ring) => {
                if let Some(ring) = lock(&self.session).rings.get(ring) {
                    ring.kicked();
                }
            }
            Token::Listener(number) => self.accept(number),
            Token::Wake => return Ok(self.obey()),
            Token::Qemu => self.meet_qemu()?,
            Token::Message => return self.hear_qemu(),
        }
        Ok(Goes::On)
    }

    fn meet_qemu(&mut self) -> Result<(), String> {
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

    fn hear_qemu(&mut self) -> Result<Goes, String> {
        let Some(messages) = &mut self.messages else { return Ok(Goes::On) };
        match messages.handle_request() {
            Ok(()) => Ok(Goes::On),
            Err(vhost_user::Error::Disconnected | vhost_user::Error::SocketBroken(_)) => {
                Ok(Goes::Out)
            }
            Err(error) => Err(format!("it does not understand QEMU: {error}")),
        }
    }

    fn obey(&mut self) -> Goes {
        // It is there to be emptied; that it is empty is no matter.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        loop {
            match self.commands.try_recv() {
                Ok(Command::Listen(number, socket, target)) => {
                    match watch(
                        &self.epoll,
                        &socket,
                        Token::Listener(number),
                        epoll::EventFlags::IN,
                    ) {
                        Ok(()) => drop(self.listeners.insert(number, Listener { socket, target })),
                        Err(error) => self.note(&format!("cannot listen: {error}")),
                    }
                }
                // Whoever asked may be gone.
                Ok(Command::Clients(port, to)) => drop(to.send(self.switch.clients(port))),
                Ok(Command::Close(number)) => drop(self.listeners.remove(&number)),
                Err(TryRecvError::Empty) => return Goes::On,
                Err(TryRecvError::Disconnected) => return Goes::Out,
            }
        }
    }

    fn accept(&mut self, number: u32) {
        while let Some(listener) = self.listeners.get(&number) {
            let target = listener.target;
            match listener.socket.accept() {
                Ok((stream, _)) => self.admit(stream, target),
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
    fn admit(&mut self, stream: UnixStream, target: Target) {
        let clients = self.switch.len();
        let room =
            if target == Target::Asked { self.room } else { self.room - KEPT.min(self.room / 4) };
        if clients >= room {
            if target == Target::Asked {
                super::connection::turn_away(&stream, clients);
            }
            return self.note(&format!("a client was turned away: there are {clients} already"));
        }
        crate::socket::widen(&stream);
        if let Err(error) = self.switch.accept(stream, target) {
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
    memory: &super::ring::Memory,
) -> Result<Left, super::ring::Broken> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::Duration;

    /// The guest says `ready` as soon as QEMU has written its messages, not when they have been
    /// read.
    #[test]
    fn a_client_that_comes_before_the_rings_run_is_not_turned_away() {
        let folder = std::env::temp_dir().join(format!("umbra-vsock-early-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = |name: &str| UnixListener::bind(folder.join(name)).unwrap();
        let log = File::create(folder.join("log")).unwrap();
        let device = Device::start(listener("qemu"), log, |why| panic!("{why}")).unwrap();
        let offer = device.listen(listener("clients"), Target::Asked).unwrap();
        let mut client = UnixStream::connect(folder.join("clients")).unwrap();
        client.write_all(b"CONNECT 1\n").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let error = client.read(&mut [0]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        drop(offer);
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// Clients that name a port get in when others do not, and are told when there is no room for
    /// them either.
    #[test]
    fn who_finds_no_room_is_told_so() {
        let folder = std::env::temp_dir().join(format!("umbra-vsock-full-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = |name: &str| UnixListener::bind(folder.join(name)).unwrap();
        let log = File::create(folder.join("log")).unwrap();
        let device = Device::start_with(listener("qemu"), log, 20, |why| panic!("{why}")).unwrap();
        let _asked = device.listen(listener("asked"), Target::Asked).unwrap();
        let _plain = device.listen(listener("plain"), Target::Port(1)).unwrap();
        let connect = |name: &str| {
            let client = UnixStream::connect(folder.join(name)).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            client
        };
        let said = |mut client: &UnixStream| {
            let mut text = String::new();
            match client.read_to_string(&mut text) {
                Ok(_) => Some(text),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => panic!("{error}"),
            }
        };
        let plain: Vec<_> = (0..16).map(|_| connect("plain")).collect();
        assert_eq!(said(&plain[14]), None, "the first ones stay");
        assert_eq!(said(&plain[15]), Some(String::new()), "the last ones are not for such clients");
        let asked: Vec<_> = (0..5).map(|_| connect("asked")).collect();
        assert_eq!(said(&asked[4]), None, "they are for those that name a port");
        assert_eq!(said(&connect("asked")), Some("FULL 20\n".into()));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn tokens_are_what_they_were() {
        for token in [
            Token::Qemu,
            Token::Message,
            Token::Wake,
            Token::Kick(1),
            Token::Listener(u32::MAX),
            Token::Client(u32::MAX),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
