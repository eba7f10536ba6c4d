//! A client of NBD without a network: what it sends as bytes, and a strict reading of what it
//! receives.
//!
//! It knows all of the protocol that the server knows, extended headers too, and panics at whatever
//! a client may not be sent.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use umbra_proto::nbd::{
    CHUNK_DONE, CHUNK_LEN, Chunk, ChunkType, Command, ContextRequest, EXTENDED_CHUNK_LEN, Errno,
    ErrorChunk, GREETING_LEN, Greeting, InfoRequest, InfoType, OPTION_REPLY_LEN, OptionCode,
    OptionHeader, OptionReply, ReplyCode, Request, SIMPLE_REPLY_LEN, SimpleReply, Status, Style,
    client_flags,
};

/// The bytes of an option.
pub fn option(option: OptionCode, data: &[u8]) -> Vec<u8> {
    let header = OptionHeader { option, len: data.len() as u32 };
    [&header.encode(), data].concat()
}

/// The flags that a client answers the greeting with.
pub fn hello() -> Vec<u8> {
    client_flags::ALL.to_be_bytes().to_vec()
}

/// The options by which a client chooses an export, with their data: requests and replies in this
/// style, all metadata contexts where the style has them, and these of the infos.
pub fn choice(name: &[u8], style: Style, infos: &[InfoType]) -> Vec<(OptionCode, Vec<u8>)> {
    let mut options = Vec::new();
    match style {
        Style::Simple => {}
        Style::Structured => options.push((OptionCode::STRUCTURED_REPLY, Vec::new())),
        Style::Extended => options.push((OptionCode::EXTENDED_HEADERS, Vec::new())),
    }
    if style != Style::Simple {
        let mut data = Vec::new();
        ContextRequest::encode(name, &[b"base:allocation", b"x-umbra:sharing"], &mut data);
        options.push((OptionCode::SET_META_CONTEXT, data));
    }
    let mut data = Vec::new();
    InfoRequest::encode(name, infos, &mut data);
    options.push((OptionCode::GO, data));
    options
}

/// Takes the greeting off the front of what was received.
pub fn take_greeting(received: &mut Vec<u8>) -> Greeting {
    let greeting = Greeting::decode(received.first_chunk::<GREETING_LEN>().expect("a greeting"))
        .expect("of NBD");
    received.drain(..GREETING_LEN);
    greeting
}

/// Takes the replies to one option off the front, up to the last one; `None` if that is not there
/// yet.
pub fn take_replies(
    received: &mut Vec<u8>,
    option: OptionCode,
) -> Option<Vec<(ReplyCode, Vec<u8>)>> {
    let mut replies = Vec::new();
    let mut at = 0;
    loop {
        let head = received.get(at..)?.first_chunk::<OPTION_REPLY_LEN>()?;
        let reply = OptionReply::decode(head).expect("a reply to an option");
        assert_eq!(reply.option, option);
        let data =
            received.get(at + OPTION_REPLY_LEN..at + OPTION_REPLY_LEN + reply.len as usize)?;
        replies.push((reply.code, data.to_vec()));
        at += OPTION_REPLY_LEN + data.len();
        if reply.code == ReplyCode::ACK || reply.code.is_error() {
            received.drain(..at);
            return Some(replies);
        }
    }
}

/// Size and flags of the export, from the replies to INFO or GO.
pub fn export_info(replies: &[(ReplyCode, Vec<u8>)]) -> (u64, u16) {
    let kind = InfoType::EXPORT.0.to_be_bytes();
    let info =
        replies.iter().find(|(code, data)| *code == ReplyCode::INFO && data.starts_with(&kind));
    let (_, data) = info.expect("information about the export");
    assert_eq!(data.len(), 12);
    let size = u64::from_be_bytes(*data[2..].first_chunk().expect("8 bytes"));
    (size, u16::from_be_bytes([data[10], data[11]]))
}

/// An answer that is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// That of the request.
    pub cookie: u64,
    /// Why it failed, the text, and where.
    pub error: Option<(Errno, String, Option<u64>)>,
    /// The bytes of a read; what was not sent is 0xee.
    pub data: Vec<u8>,
    /// Bytes of the read that were sent.
    pub got: u64,
    /// Content chunks.
    pub chunks: usize,
    /// The runs of each context.
    pub status: BTreeMap<u32, Vec<Status>>,
}

impl Reply {
    /// The number of the error; 0 if there is none.
    pub fn errno(&self) -> u32 {
        self.error.as_ref().map_or(0, |(errno, ..)| errno.0)
    }
}

/// The requests that are open, and what came for them.
#[derive(Default)]
pub struct Client {
    style: Style,
    received: Vec<u8>,
    open: BTreeMap<u64, (Request, Reply)>,
    done: VecDeque<Reply>,
    next: u64,
}

impl Client {
    /// A client that has negotiated this style.
    pub fn new(style: Style) -> Self {
        Client { style, next: 0x1000, ..Client::default() }
    }

    /// The bytes of a request; also its cookie.
    pub fn request(
        &mut self,
        command: Command,
        flags: u16,
        offset: u64,
        length: u64,
        payload: &[u8],
    ) -> (u64, Vec<u8>) {
        self.next += 1;
        let request = Request { flags, command, cookie: self.next, offset, length };
        let len = if command == Command::READ { length as usize } else { 0 };
        let reply =
            Reply { cookie: self.next, data: vec![0xee; len.min(1 << 30)], ..Reply::default() };
        if command != Command::DISC {
            self.open.insert(self.next, (request, reply));
        }
        let bytes = match self.style {
            Style::Extended => [&request.encode_extended(), payload].concat(),
            _ => [&request.encode(), payload].concat(),
        };
        (self.next, bytes)
    }

    /// Requests that are not answered.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Takes in what was received.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(n) = self.one(at) {
            at += n;
        }
        self.received.drain(..at);
    }

    /// The next answer that is complete, in the order in which they were.
    pub fn take(&mut self) -> Option<Reply> {
        self.done.pop_front()
    }

    /// Reads one message at `at`; returns its length, if it is all there.
    fn one(&mut self, at: usize) -> Option<usize> {
        if self.style == Style::Simple {
            let head = self.received[at..].first_chunk::<SIMPLE_REPLY_LEN>()?;
            let SimpleReply { error, cookie } = SimpleReply::decode(head).expect("a simple reply");
            let (request, _) = self.open.get(&cookie).expect("a reply to an open request");
            let carries = request.command == Command::READ && error.0 == 0;
            let len = if carries { request.length as usize } else { 0 };
            let start = at + SIMPLE_REPLY_LEN;
            let data = self.received.get(start..start + len)?.to_vec();
            let (_, mut reply) = self.open.remove(&cookie)?;
            reply.error = (error.0 != 0).then(|| (error, String::new(), None));
            if carries {
                (reply.got, reply.chunks) = (len as u64, 1);
                reply.data = data;
            }
            self.done.push_back(reply);
            return Some(SIMPLE_REPLY_LEN + len);
        }
        let (chunk, front) = match self.style {
            Style::Extended => {
                let head = self.received[at..].first_chunk::<EXTENDED_CHUNK_LEN>()?;
                (Chunk::decode_extended(head).expect("an extended chunk"), EXTENDED_CHUNK_LEN)
            }
            _ => {
                let head = self.received[at..].first_chunk::<CHUNK_LEN>()?;
                (Chunk::decode(head).expect("a chunk"), CHUNK_LEN)
            }
        };
        let len = chunk.length as usize;
        let payload = self.received.get(at + front..at + front + len)?;
        let (request, reply) =
            self.open.get_mut(&chunk.cookie).expect("a chunk of an open request");
        assert!(self.style != Style::Extended || chunk.offset == request.offset, "{chunk:?}");
        assert_eq!(chunk.flags & !CHUNK_DONE, 0);
        content(request, reply, &chunk, payload, self.style);
        if chunk.flags & CHUNK_DONE != 0 {
            let (request, reply) = self.open.remove(&chunk.cookie)?;
            complete(&request, &reply);
            self.done.push_back(reply);
        }
        Some(front + len)
    }
}

/// Takes in what a chunk holds.
fn content(request: &Request, reply: &mut Reply, chunk: &Chunk, payload: &[u8], style: Style) {
    match chunk.kind {
        ChunkType::NONE => {
            assert!(payload.is_empty() && chunk.flags == CHUNK_DONE);
        }
        ChunkType::OFFSET_DATA => {
            assert_eq!(request.command, Command::READ);
            let (at, data) = payload.split_first_chunk::<8>().expect("an offset");
            let at = u64::from_be_bytes(*at);
            assert!(!data.is_empty() && at >= request.offset);
            assert!(
                at + data.len() as u64 <= request.offset + request.length,
                "beyond the request"
            );
            let start = (at - request.offset) as usize;
            reply.data[start..start + data.len()].copy_from_slice(data);
            reply.got += data.len() as u64;
            reply.chunks += 1;
        }
        ChunkType::BLOCK_STATUS | ChunkType::BLOCK_STATUS_EXT => {
            assert_eq!(request.command, Command::BLOCK_STATUS);
            assert_eq!(chunk.kind == ChunkType::BLOCK_STATUS_EXT, style == Style::Extended);
            let (context, runs) = Status::decode(chunk.kind, payload).expect("a status");
            let runs: Vec<Status> = runs.collect();
            assert!(runs.iter().all(|run| run.length > 0), "an empty run");
            assert!(reply.status.insert(context, runs).is_none(), "two chunks for one context");
        }
        kind if kind.is_error() => {
            let error = ErrorChunk::decode(kind, payload).expect("an error");
            assert_ne!(error.error.0, 0);
            let text = core::str::from_utf8(error.message).expect("a text").into();
            assert!(reply.error.is_none(), "two errors");
            reply.error = Some((error.error, text, error.offset));
        }
        kind => panic!("a chunk of type {kind}"),
    }
}

/// An answer without an error says all.
fn complete(request: &Request, reply: &Reply) {
    if reply.error.is_some() {
        return;
    }
    match request.command {
        Command::READ => assert_eq!(reply.got, request.length, "bytes are missing"),
        Command::BLOCK_STATUS => assert!(!reply.status.is_empty(), "no status"),
        _ => {}
    }
}
