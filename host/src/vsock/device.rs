//! A running device, as the rest of the program knows it.

use super::commands::{Command, Commands};
use super::connection::PortChoice;
use super::events::{Token, watch};
use super::switch::Client;
use super::worker;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};

/// Clients at most; more are turned away. A few more than a guest serves, which tells each of the
/// others why.
const MAX_CONNECTIONS: usize = 1024 + 128;
/// Descriptors that the rest of the process may need.
const OTHER_DESCRIPTORS: u64 = 256;

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
        worker::start(epoll, qemu, wake.try_clone()?, commands, room, log, on_end)?;
        Ok(Device { commands: Arc::new(Commands { sender, wake }), next: Arc::default() })
    }

    /// Serves a socket.
    pub fn listen(&self, listener: UnixListener, port: PortChoice) -> io::Result<Offer> {
        listener.set_nonblocking(true)?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        *next = next.wrapping_add(1);
        self.commands.give(Command::Listen(number, listener, port))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;
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
        let offer = device.listen(listener("clients"), PortChoice::Asked).unwrap();
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
        let _asked = device.listen(listener("asked"), PortChoice::Asked).unwrap();
        let _plain = device.listen(listener("plain"), PortChoice::Port(1)).unwrap();
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
}
