//! A client of NBD that speaks all of it, extended headers too, over a connection to the guest.
//!
//! Clients that others wrote are tested as well; those of today's distributions do not speak
//! extended headers, and none sends what is wrong.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;
use umbra::client::{Stream, connect};
use umbra::state::StateDir;
use umbra_proto::nbd::{
    Command, InfoRequest, InfoType, OptionCode, PORT, ReplyCode, Style, command_flags,
};
use umbra_server::testing::nbd::{
    Client, Reply, choice, export_info, hello, option, take_greeting, take_replies,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to an export.
pub struct Disk {
    stream: Stream,
    style: Style,
    client: Client,
    /// Bytes of the export.
    pub size: u64,
    /// Its transmission flags.
    pub flags: u16,
}

impl Disk {
    /// Connects and chooses an export; selects all contexts where the style has them.
    pub fn open(state: &StateDir, name: &str, style: Style) -> Disk {
        let mut talk = Handshake::start(state);
        let mut replies = Vec::new();
        for (code, data) in choice(name.as_bytes(), style, &[InfoType::BLOCK_SIZE]) {
            replies = talk.ask(code, &data);
            assert_eq!(replies.last().map(|r| r.0), Some(ReplyCode::ACK), "{code}: {replies:?}");
        }
        let (size, flags) = export_info(&replies);
        let stream = talk.stream;
        Disk { stream, style, client: Client::new(style), size, flags }
    }

    /// Asks for an export that is refused; returns how, and what is said.
    pub fn refused(state: &StateDir, name: &str) -> (ReplyCode, String) {
        let (code, said) =
            Handshake::start(state).ask(OptionCode::GO, &go(name)).pop().expect("a reply");
        assert!(code.is_error(), "{name}: {code}");
        (code, String::from_utf8(said).expect("text"))
    }

    /// Sends a request; returns its cookie. Fails when the connection is gone.
    pub fn send(
        &mut self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u64,
        payload: &[u8],
    ) -> std::io::Result<u64> {
        let carries = self.style == Style::Extended && !payload.is_empty();
        let flags = if carries { flags | command_flags::PAYLOAD_LEN } else { flags };
        let (cookie, bytes) = self.client.request(command, flags, offset, length, payload);
        self.stream.write_all(&bytes)?;
        Ok(cookie)
    }

    /// Waits for the next answer. Fails when the connection is gone.
    pub fn receive(&mut self) -> std::io::Result<Reply> {
        let mut piece = vec![0; 256 << 10];
        loop {
            if let Some(reply) = self.client.take() {
                return Ok(reply);
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.client.feed(&piece[..n]),
            }
        }
    }

    /// A request with its answer.
    #[track_caller]
    pub fn call(
        &mut self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u64,
        payload: &[u8],
    ) -> Reply {
        let cookie = self.send(command, flags, offset, length, payload).expect("sent");
        let reply = self.receive().expect("an answer");
        assert_eq!(reply.cookie, cookie);
        reply
    }

    /// Reads.
    #[track_caller]
    pub fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let reply = self.call(Command::READ, 0, offset, len as u64, &[]);
        assert_eq!(reply.error, None);
        reply.data
    }

    /// Writes.
    #[track_caller]
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let reply = self.call(Command::WRITE, 0, offset, bytes.len() as u64, bytes);
        assert_eq!(reply.error, None);
    }

    /// Makes durable.
    #[track_caller]
    pub fn flush(&mut self) {
        assert_eq!(self.call(Command::FLUSH, 0, 0, 0, &[]).error, None);
    }

    /// Sends any bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        // The server may have ended the connection by now.
        let _ = self.stream.write_all(bytes);
    }

    /// Whether the server has ended the connection.
    pub fn is_over(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.stream.read(&mut byte), Ok(0))
            || self.stream.write_all(&[0]).is_err_and(|e| e.kind() == ErrorKind::BrokenPipe)
    }
}

/// The data of a GO.
fn go(name: &str) -> Vec<u8> {
    let mut data = Vec::new();
    InfoRequest::encode(name.as_bytes(), &[InfoType::BLOCK_SIZE], &mut data);
    data
}

/// A connection that has not chosen an export.
struct Handshake {
    stream: Stream,
    received: Vec<u8>,
}

impl Handshake {
    fn start(state: &StateDir) -> Handshake {
        let mut stream = connect(state, PORT).expect("a connection to NBD");
        stream.set_timeout(Some(PATIENCE)).expect("a timeout");
        let mut received = Vec::new();
        while received.len() < 18 {
            more(&mut stream, &mut received);
        }
        take_greeting(&mut received);
        stream.write_all(&hello()).expect("sent");
        Handshake { stream, received }
    }

    /// All replies to an option.
    fn ask(&mut self, code: OptionCode, data: &[u8]) -> Vec<(ReplyCode, Vec<u8>)> {
        self.stream.write_all(&option(code, data)).expect("sent");
        loop {
            if let Some(replies) = take_replies(&mut self.received, code) {
                return replies;
            }
            more(&mut self.stream, &mut self.received);
        }
    }
}

fn more(stream: &mut Stream, received: &mut Vec<u8>) {
    let mut piece = [0; 4096];
    let n = stream.read(&mut piece).expect("bytes");
    assert!(n > 0, "the server ended the connection");
    received.extend_from_slice(&piece[..n]);
}
