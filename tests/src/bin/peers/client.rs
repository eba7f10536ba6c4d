//! A client that does nothing but send and count: so what is measured is the server, and the way to
//! it.
//!
//! One loop drives NBD and the raw echo alike. It is one thread that sleeps only while everything
//! that may be under way is; for all answers that one read brings, the next requests go out in one
//! write.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use umbra_proto::nbd::{Command, OptionCode, Request, SIMPLE_REPLY_LEN, SimpleReply};
use umbra_server::testing::nbd::{hello, option, take_greeting};
use umbra_tests::random::Random;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connects to a plain socket before a port.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What is asked, and how its answers look.
pub trait Talk {
    /// Appends the next request.
    fn request(&mut self, out: &mut Vec<u8>);
    /// Bytes of each answer.
    fn answer_len(&self) -> usize;
    /// Whether the first bytes of an answer are those of a success.
    fn is_good(&self, answer: &[u8; SIMPLE_REPLY_LEN]) -> bool;
}

/// Makes `count` requests, at most `depth` of them under way; returns how many a second.
pub fn drive(
    stream: &mut UnixStream,
    talk: &mut dyn Talk,
    count: usize,
    depth: usize,
) -> io::Result<f64> {
    let len = talk.answer_len();
    let (mut sent, mut answered) = (0, 0);
    // Of the answer that is coming in: bytes that are there, and the first of them.
    let (mut have, mut head) = (0, [0; SIMPLE_REPLY_LEN]);
    let (mut out, mut piece) = (Vec::new(), vec![0; (len * depth).min(1 << 20)]);
    let start = Instant::now();
    while answered < count {
        out.clear();
        while sent < count && sent - answered < depth {
            talk.request(&mut out);
            sent += 1;
        }
        stream.write_all(&out)?;
        let before = answered;
        while answered == before {
            let n = stream.read(&mut piece)?;
            if n == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let mut rest = &piece[..n];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(len - have));
                if have < SIMPLE_REPLY_LEN {
                    let wanted = now.len().min(SIMPLE_REPLY_LEN - have);
                    head[have..have + wanted].copy_from_slice(&now[..wanted]);
                }
                have += now.len();
                rest = later;
                if have == len {
                    if !talk.is_good(&head) {
                        return Err(Error::other("an answer that is none, or an error"));
                    }
                    have = 0;
                    answered += 1;
                }
            }
        }
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Makes two requests in turn, each when the one before is answered; returns how many pairs a
/// second.
pub fn drive_pairs(
    stream: &mut UnixStream,
    first: &mut dyn Talk,
    second: &mut dyn Talk,
    count: usize,
) -> io::Result<f64> {
    let start = Instant::now();
    for _ in 0..count {
        drive(stream, first, 1, 1)?;
        drive(stream, second, 1, 1)?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Sends so many bytes, and expects as many.
pub struct Echo(pub usize);

impl Echo {
    const BYTE: u8 = 7;
}

impl Talk for Echo {
    fn request(&mut self, out: &mut Vec<u8>) {
        out.resize(out.len() + self.0, Echo::BYTE);
    }
    fn answer_len(&self) -> usize {
        self.0
    }
    fn is_good(&self, answer: &[u8; SIMPLE_REPLY_LEN]) -> bool {
        answer.iter().all(|&byte| byte == Echo::BYTE)
    }
}

/// Where requests go.
#[derive(Clone, Copy)]
pub enum Order {
    /// Anywhere, aligned to their length.
    Random,
    /// From the front to the back, and again.
    InTurn,
}

/// Requests of NBD, all of one command and length.
pub struct Requests {
    command: Command,
    len: usize,
    order: Order,
    size: u64,
    payload: Vec<u8>,
    random: Random,
    next: u64,
}

impl Requests {
    /// To an export of this size; a flush has no length.
    pub fn new(command: Command, len: usize, order: Order, size: u64) -> Requests {
        let mut random = Random::new(5);
        let payload = if command == Command::WRITE { random.bytes(len) } else { Vec::new() };
        Requests { command, len, order, size, payload, random, next: 0 }
    }
}

impl Talk for Requests {
    fn request(&mut self, out: &mut Vec<u8>) {
        self.next += 1;
        let places = self.size.checked_div(self.len as u64).unwrap_or(1);
        let place = match self.order {
            Order::Random => self.random.below(places),
            Order::InTurn => (self.next - 1) % places,
        };
        let (offset, length) = (place * self.len as u64, self.len as u64);
        let request =
            Request { flags: 0, command: self.command, cookie: self.next, offset, length };
        out.extend_from_slice(&request.encode());
        out.extend_from_slice(&self.payload);
    }
    fn answer_len(&self) -> usize {
        SIMPLE_REPLY_LEN + if self.command == Command::READ { self.len } else { 0 }
    }
    fn is_good(&self, answer: &[u8; SIMPLE_REPLY_LEN]) -> bool {
        SimpleReply::decode(answer).is_ok_and(|reply| reply.error.0 == 0)
    }
}

/// Connects to an export, with simple replies.
pub fn open(socket: &Path, export: &str) -> io::Result<UnixStream> {
    let mut stream = connect(socket)?;
    let mut greeting = vec![0; 18];
    stream.read_exact(&mut greeting)?;
    take_greeting(&mut greeting);
    stream.write_all(&hello())?;
    stream.write_all(&option(OptionCode::EXPORT_NAME, export.as_bytes()))?;
    // Size and flags; a server that does not know the export hangs up instead.
    stream.read_exact(&mut [0; 10])?;
    Ok(stream)
}
