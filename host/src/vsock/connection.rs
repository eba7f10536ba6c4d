//! One connection: the client's socket, and the guest's credit.

use super::events::{Token, rewatch};
use super::ring::{Broken, Chain, io_error};
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use umbra_proto::vsock::packet::{SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use umbra_proto::vsock::window::{ReceiveWindow, SendWindow};
use umbra_proto::vsock::{HEADER_LEN, Port};
use vm_memory::{ReadVolatile, WriteVolatile};

/// How far the guest may be ahead of a client.
pub(super) const WINDOW: u32 = 1 << 20;
/// A page of the guest, of which 2^32 is a multiple.
const PAGE: usize = 4096;
/// What a client is told for whom there is no room; the number of clients follows.
pub(crate) const FULL: &str = "FULL";
/// `CONNECT 4294967295\n` and room.
const GREETING_MAX: usize = 32;

/// Which port of the guest a client is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// This one.
    Port(u32),
    /// The port that the client names: it sends `CONNECT port\n`, and gets `OK number\n` once
    /// it is connected.
    Asked,
}

/// How far a connection has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client has not yet said where it wants to go; so much of it has come.
    Greeting(Vec<u8>),
    /// The guest was asked, or will be.
    Requested {
        /// The client wants to hear of it.
        answer: bool,
    },
    /// Bytes may go both ways.
    Open,
    /// The guest knows of it no more. It goes when the client has what is kept for it.
    Over,
}

/// Packets without payload that are to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    pub(super) request: bool,
    pub(super) credit_update: bool,
    pub(super) shutdown: bool,
}

/// What a read of the client gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// There will be no more.
    End,
}

/// A connection between a client and a port of the guest.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    /// Its number here, by which the guest knows it.
    pub(super) number: u32,
    /// The port of the guest.
    pub(super) port: Port,
    pub(super) phase: Phase,
    /// What may be sent to the guest.
    pub(super) send: SendWindow,
    /// What the guest may send.
    pub(super) receive: ReceiveWindow,
    /// What the guest sent and the client's socket had no room for, from `backlog_at` on.
    backlog: Vec<u8>,
    backlog_at: usize,
    /// The guest waits to hear that all is forwarded.
    pub(super) asked: bool,
    pub(super) pending: Pending,
    /// The client's socket may have something to read.
    pub(super) readable: bool,
    /// The end of what the client sends is in sight.
    pub(super) ending: bool,
    /// The client sends no more, and all of it is read.
    pub(super) client_done: bool,
    /// The client is gone: nobody reads what the guest sends.
    pub(super) client_gone: bool,
    /// The guest sends no more.
    pub(super) guest_done: bool,
    /// The guest takes no more.
    pub(super) guest_deaf: bool,
    /// The guest was told that the client is gone.
    pub(super) farewell: bool,
    /// It is in the list of those with something to read.
    pub(super) is_ready: bool,
    /// It is in the list of those with pending packets.
    pub(super) is_pending: bool,
}

impl Connection {
    /// A connection of a client that was just accepted; its socket does not block.
    pub(super) fn new(stream: UnixStream, number: u32, port: PortChoice) -> Connection {
        let (phase, port) = match port {
            PortChoice::Port(port) => (Phase::Requested { answer: false }, port),
            PortChoice::Asked => (Phase::Greeting(Vec::new()), 0),
        };
        let request = phase == Phase::Requested { answer: false };
        Connection {
            stream,
            number,
            port: Port(port),
            phase,
            send: SendWindow::default(),
            receive: ReceiveWindow::new(WINDOW),
            backlog: Vec::new(),
            backlog_at: 0,
            asked: false,
            pending: Pending { request, ..Pending::default() },
            readable: false,
            ending: false,
            client_done: false,
            client_gone: false,
            guest_done: false,
            guest_deaf: false,
            farewell: false,
            is_ready: false,
            is_pending: false,
        }
    }

    /// Reads the client's greeting, not a byte beyond it. `false`: it is none, or there will be
    /// none.
    pub(super) fn greet(&mut self) -> bool {
        let Phase::Greeting(line) = &mut self.phase else { return true };
        let mut bytes = [0; GREETING_MAX];
        loop {
            // A look first, so that what follows the line stays where it is.
            let room = GREETING_MAX - line.len();
            let count = match rustix::net::recv(&self.stream, &mut bytes[..room], RecvFlags::PEEK) {
                Ok((_, 0)) => return false,
                Ok((_, count)) => count,
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(_) => return false,
            };
            let end = bytes[..count].iter().position(|&byte| byte == b'\n');
            let count = end.map_or(count, |at| at + 1);
            if rustix::io::read(&self.stream, &mut bytes[..count]) != Ok(count) {
                return false;
            }
            line.extend_from_slice(&bytes[..count]);
            if end.is_some() {
                let Some(port) = parse_greeting(line) else { return false };
                self.port = Port(port);
                self.phase = Phase::Requested { answer: true };
                self.pending.request = true;
                return true;
            }
            if line.len() == GREETING_MAX {
                return false;
            }
        }
    }

    /// The guest has accepted.
    pub(super) fn accepted(&mut self) {
        if self.phase == (Phase::Requested { answer: true }) {
            let answer = format!("OK {}\n", self.number);
            // Nothing was sent before it: there is room, or there is no client.
            let written = (&self.stream).write(answer.as_bytes());
            if written.ok() != Some(answer.len()) {
                self.client_gone = true;
            }
        }
        self.phase = Phase::Open;
    }

    /// Whether the client's bytes can go to the guest now.
    pub(super) fn can_read(&self) -> bool {
        self.phase == Phase::Open
            && self.readable
            && !self.client_done
            && !self.guest_deaf
            && self.send.free() > 0
    }

    /// Reads from the client into a chain, behind the header.
    ///
    /// A packet that does not take all there is ends at a page of the stream. So if a client's
    /// content begins there, each packet of it begins with a page of content, and the guest may
    /// have use for the page as it is.
    pub(super) fn read_into(&mut self, chain: &Chain<'_>) -> Result<Taken, Broken> {
        let mut most = chain.len().saturating_sub(HEADER_LEN).min(self.send.free());
        let beyond = self.send.sent_in_all().wrapping_add(most as u32) as usize % PAGE;
        if beyond < most {
            most -= beyond;
        }
        let mut done = 0;
        for mut part in chain.range(HEADER_LEN, most) {
            match (&self.stream).read_volatile(&mut part).map_err(io_error) {
                Ok(0) if done == 0 => {
                    self.client_done = true;
                    return Ok(Taken::End);
                }
                // The end is found again by the next read.
                Ok(0) => break,
                Ok(count) => {
                    done += count;
                    if count < part.len() {
                        // What comes from now on is news again. An end that was there before is
                        // not.
                        self.readable = self.ending;
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => break,
                // What a processor would get a SIGBUS for.
                Err(error) if error.raw_os_error() == Some(Errno::FAULT.raw_os_error()) => {
                    return Err(Broken::unbacked());
                }
                // It closed without having read all. What it had sent was read before.
                Err(_) if done == 0 => {
                    self.client_done = true;
                    self.lose_client();
                    return Ok(Taken::End);
                }
                Err(_) => break,
            }
        }
        self.send.sent(done);
        Ok(if done == 0 { Taken::Nothing } else { Taken::Bytes(done) })
    }

    /// Writes a packet's `len` bytes to the client, and keeps what it has no room for.
    pub(super) fn deliver(&mut self, chain: &Chain<'_>, len: usize) {
        let mut done = 0;
        if self.backlog.is_empty() && !self.client_gone {
            for part in chain.range(HEADER_LEN, len) {
                match (&self.stream).write_volatile(&part).map_err(io_error) {
                    Ok(count) => {
                        done += count;
                        if count < part.len() {
                            break;
                        }
                    }
                    // What is left is written when the socket says that it has room.
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::WouldBlock | ErrorKind::Interrupted
                        ) =>
                    {
                        break;
                    }
                    Err(_) => {
                        self.lose_client();
                        break;
                    }
                }
            }
        }
        if self.client_gone {
            self.receive.consume(len);
            return;
        }
        self.receive.consume(done);
        if done < len {
            let at = self.backlog.len();
            self.backlog.resize(at + (len - done), 0);
            chain.copy_out(HEADER_LEN + done, &mut self.backlog[at..]);
        }
    }

    /// Writes what was kept for the client, as far as it has room.
    pub(super) fn flush(&mut self) {
        while self.has_backlog() {
            match (&self.stream).write(&self.backlog[self.backlog_at..]) {
                Ok(count) => {
                    self.backlog_at += count;
                    self.receive.consume(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.lose_client(),
            }
        }
        if !self.has_backlog() {
            self.backlog.clear();
            self.backlog_at = 0;
        } else if self.backlog_at > self.backlog.len() / 2 {
            self.backlog.drain(..self.backlog_at);
            self.backlog_at = 0;
        }
    }

    /// Whether something is kept for the client.
    pub(super) fn has_backlog(&self) -> bool {
        self.backlog_at < self.backlog.len()
    }

    /// Hears of room in the client's socket only while something waits for it.
    pub(super) fn watch(&self, epoll: &OwnedFd) -> io::Result<()> {
        let room = if self.has_backlog() { EventFlags::OUT } else { EventFlags::empty() };
        rewatch(epoll, &self.stream, Token::Client(self.number), CLIENT_EVENTS | room)
    }

    /// Nobody reads any more what the guest sends. What the client has sent is still to be read.
    pub(super) fn lose_client(&mut self) {
        self.client_gone = true;
        (self.readable, self.ending) = (true, true);
        self.receive.consume(self.backlog.len() - self.backlog_at);
        self.backlog = Vec::new();
        self.backlog_at = 0;
    }

    /// The guest says that it sends or takes no more, or neither.
    pub(super) fn guest_shut(&mut self, flags: u32) {
        self.guest_done |= flags & SHUTDOWN_SEND != 0;
        if flags & SHUTDOWN_RECEIVE != 0 && !self.guest_deaf {
            self.guest_deaf = true;
            // It fails if the client is gone.
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        self.pass_on_end();
    }

    /// Tells the client of the end of the guest's stream, once it has all of it.
    pub(super) fn pass_on_end(&self) {
        if self.guest_done && !self.has_backlog() {
            // As above.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// The flags of a shutdown: what the client will not do any more.
    pub(super) fn shutdown_flags(&self) -> u32 {
        let deaf = if self.client_gone { SHUTDOWN_RECEIVE } else { 0 };
        SHUTDOWN_SEND | deaf
    }
}

/// What is always of interest about a client. By edges: what is left unread is remembered.
pub(super) const CLIENT_EVENTS: EventFlags =
    EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// Tells a client that has named, or will name, a port that there is no room for it.
pub(super) fn turn_away(stream: &UnixStream, clients: usize) {
    // A client that has gone needs no answer. Nothing was sent before: there is room for this.
    let _ = stream.set_nonblocking(true);
    let _ = (&*stream).write(format!("{FULL} {clients}\n").as_bytes());
}

fn parse_greeting(line: &[u8]) -> Option<u32> {
    let port = str::from_utf8(line).ok()?.strip_prefix("CONNECT ")?.strip_suffix('\n')?;
    port.trim_end_matches('\r').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_name_a_port() {
        assert_eq!(parse_greeting(b"CONNECT 4294967295\n"), Some(u32::MAX));
        assert_eq!(parse_greeting(b"CONNECT 1\r\n"), Some(1));
        for bad in [
            "CONNECT \n",
            "CONNECT 4294967296\n",
            "connect 1\n",
            "CONNECT -1\n",
            "\n",
            "CONNECT 1 \n",
        ] {
            assert_eq!(parse_greeting(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
