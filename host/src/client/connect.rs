//! Connections to ports of the guest.
//!
//! The file `endpoint` of the state directory says which way: `vsock:CID` for the host kernel's
//! vsock, or the name of a UNIX socket where a connection starts with `CONNECT port\n` and the
//! answer `OK number\n`. A refused port is a bare end of file. The file is there only once
//! connections are possible.

use super::{Error, Result};
use crate::socket;
use crate::state::StateDir;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{fs, str};
use vsock::{VsockAddr, VsockStream};

/// How long the guest may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// `OK 4294967295\n` and room.
const ANSWER_MAX: usize = 32;

/// A connection to a port of the guest.
#[derive(Debug)]
pub enum Stream {
    /// Through the UNIX socket of the vsock device.
    Unix(UnixStream),
    /// Through the host kernel.
    Vsock(VsockStream),
}

/// Connects to a port of the guest of a state directory.
///
/// # Errors
///
/// [`Error::NotRunning`], [`Error::NotReady`], [`Error::Refused`], [`Error::Full`],
/// [`Error::Connect`].
pub fn connect(state: &StateDir, port: u32) -> Result<Stream> {
    let not_running = || Error::NotRunning { state: state.path().to_path_buf() };
    let endpoint = match fs::read_to_string(state.file("endpoint")) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && state.is_locked() => {
            return Err(Error::NotReady { state: state.path().to_path_buf() });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(not_running()),
        Err(error) => return Err(Error::Connect { port, error }),
    };
    let endpoint = endpoint.trim();
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused if !state.is_locked() => not_running(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            Error::Timeout { doing: "to accept a connection" }
        }
        _ => Error::Connect { port, error },
    };
    match endpoint.strip_prefix("vsock:").map(str::parse) {
        Some(Ok(cid)) => {
            let stream =
                VsockStream::connect(&VsockAddr::new(cid, port)).map_err(|error| {
                    match (error.kind(), state.is_locked()) {
                        (_, false) => not_running(),
                        (ErrorKind::ConnectionReset, true) => Error::Refused { port },
                        (_, true) => Error::Connect { port, error },
                    }
                })?;
            Ok(Stream::Vsock(stream))
        }
        Some(Err(_)) => Err(Error::Protocol(format!(
            "the endpoint '{endpoint}' of the state is not understood"
        ))),
        None => {
            let mut stream = state.connect(endpoint).map_err(failed)?;
            socket::widen(&stream);
            stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(failed)?;
            let answer = handshake(&mut stream, port).map_err(|error| match error.kind() {
                // The same end of file, whether the port or the whole guest is missing.
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    if state.is_locked() {
                        Error::Refused { port }
                    } else {
                        not_running()
                    }
                }
                _ => failed(error),
            })?;
            if let Some(connections) = answer {
                return Err(Error::Full { connections });
            }
            stream.set_read_timeout(None).map_err(failed)?;
            Ok(Stream::Unix(stream))
        }
    }
}

/// Asks for a port and waits for the answer; reads not a byte more than it. `Some`: there is no
/// room, since there are so many connections.
fn handshake(stream: &mut (impl Read + Write), port: u32) -> io::Result<Option<u32>> {
    // The device may have answered, and closed, before it was asked.
    match stream.write_all(format!("CONNECT {port}\n").as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
        _ => {}
    }
    let mut answer = Vec::new();
    let mut byte = [0];
    while answer.len() < ANSWER_MAX {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            break;
        }
        answer.push(byte[0]);
    }
    if answer.starts_with(b"OK ") {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let full = text.strip_prefix(crate::vsock::FULL).and_then(|rest| rest.trim().parse().ok());
    if full.is_some() {
        return Ok(full);
    }
    Err(io::Error::new(
        ErrorKind::InvalidData,
        format!("the vsock device answered '{text}', not OK"),
    ))
}

impl Stream {
    /// A second handle of the same connection.
    ///
    /// # Errors
    ///
    /// The system's, for want of descriptors for example.
    pub fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
            Stream::Vsock(stream) => Stream::Vsock(stream.try_clone()?),
        })
    }

    /// Ends one direction, or both.
    ///
    /// # Errors
    ///
    /// The system's, if the other end is gone already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.shutdown(how),
            Stream::Vsock(stream) => stream.shutdown(how),
        }
    }

    /// How long a read or a write may wait; `None` for ever.
    ///
    /// # Errors
    ///
    /// The system's, for a timeout of zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Stream::Vsock(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Vsock(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(into),
            Stream::Vsock(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Vsock(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.flush(),
            Stream::Vsock(stream) => stream.flush(),
        }
    }
}
