//! A client of the native protocol, blocking, over a connection to the guest.
//!
//! ```no_run
//! use umbra::{client::{Client, Msync}, state::StateDir};
//!
//! let state = StateDir::locate(None)?;
//! let mut client = Client::connect(&state)?;
//! client.clone_file(b"/golden.img", b"/vm1.img")?;
//! let file = client.open(b"/vm1.img", 0)?;
//! client.store(&file, 4096, b"hello", Msync::Now)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Responses come in the order of the requests, so several requests may be on their way:
//! [`Client::send`] queues one, and [`Client::receive`] takes the next answer. A client that
//! keeps sending without receiving must bound what it has in flight: the guest stops reading
//! when its answers are not taken. [`put()`] and [`get()`] do that for whole files.
//!
//! | file          | what                                            |
//! |---------------|-------------------------------------------------|
//! | `connect.rs`  | connections to ports of the guest               |
//! | `error.rs`    | what can go wrong                               |
//! | `files.rs`    | a method for each request                       |
//! | `exports.rs`  | the same for exports, and their URIs            |
//! | `poison.rs`   | the same for memory errors, and events          |
//! | `put.rs`      | whole files into the server, with their holes   |
//! | `get.rs`      | whole files out of it                           |
//! | `image.rs`    | blocks read in the image of the NVDIMM          |
//! | `sink.rs`     | the file or stream that they go to              |
//! | `replace.rs`  | a local file that takes its place when it is whole |
//!
//! The format is `docs/protocols.md`; the code of it is the crate `umbra-proto`.
//! Left out: NBD and 9P, for which every system has clients.

#![warn(clippy::missing_errors_doc)]

mod connect;
mod error;
mod exports;
mod files;
mod get;
mod image;
mod poison;
mod put;
mod replace;
mod sink;

pub use connect::{Stream, connect};
pub use error::{Error, Result};
pub use exports::NbdServer;
pub use files::{Blocks, File, Fill, Msync, Parents, Poked};
pub use get::get;
pub use put::put;
pub use umbra_proto::rpc;

use crate::state::StateDir;
use rpc::{ErrorBody, HEADER_LEN, Header, Hello, HelloResponse, Method, Request};
use std::collections::VecDeque;
use std::io::{self, BufReader, IoSlice, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// How long the server may say nothing, in an answer or in taking a request.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// Read ahead of what is asked for: a frame's header with what is small behind it. Payloads go
/// straight to where they are wanted.
const READ_BUFFER: usize = 256;
const CLIENT_NAME: &str = concat!("umbra ", env!("CARGO_PKG_VERSION"));

/// What is written begins at a multiple of [`PAGE`] in the stream if it has so many bytes: the
/// server need not copy whole blocks of content that it receives as pages.
const LARGE: usize = 64 << 10;
const PAGE: u64 = 4096;

/// What was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// Size of the file.
    pub size: u64,
    /// Bytes that travelled: the size without the holes.
    pub data: u64,
    /// Of when the content is.
    pub moment: Moment,
}

/// Of when the content of a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Of one moment.
    One,
    /// What others wrote meanwhile may be in it in part.
    Several,
}

/// Hears how far a transfer is: the position in the file, and its size where it is known.
pub type Progress<'p> = &'p mut dyn FnMut(u64, Option<u64>);

/// A connection to the server. After an error that is not [`Error::Server`] it is of no
/// further use.
pub struct Client {
    stream: BufReader<Stream>,
    next_id: u32,
    /// Bytes that were sent.
    sent: u64,
    /// Requests that are not answered yet: id and method.
    in_flight: VecDeque<(u32, u16)>,
    limits: HelloResponse,
    /// The image of the server's NVDIMM, if it is on this machine.
    image: Option<PathBuf>,
    /// Of frames, so that they are not allocated each time.
    body: Vec<u8>,
    payload: Vec<u8>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("limits", &self.limits)
            .field("in_flight", &self.in_flight)
            .finish()
    }
}

/// One frame of an answer.
pub struct Response<'c> {
    /// The method of the request.
    pub method: u16,
    /// Whether more frames answer the same request.
    pub more: bool,
    body: &'c [u8],
    /// The bytes that the frame carries, if it carries some.
    pub payload: &'c [u8],
}

impl Response<'_> {
    /// Its body, as what a request of type `R` is answered with.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if the frame answers another method, or its body is none of this one.
    pub fn decode<R: Request>(&self) -> Result<R::Response> {
        if self.method != R::METHOD.0 {
            return Err(Error::Protocol(format!("an answer to method {:#x}", self.method)));
        }
        rpc::decode(self.body).map_err(|error| Error::Protocol(error.to_string()))
    }
}

impl Client {
    /// Connects to the server of a state directory.
    ///
    /// # Errors
    ///
    /// Those of [`connect()`] and [`Client::over`].
    pub fn connect(state: &StateDir) -> Result<Client> {
        let client = Client::over(connect(state, rpc::PORT)?)?;
        // In a copy of the directory of a machine that runs, it is a copy, too.
        let image = state.is_locked().then(|| state.nvdimm());
        Ok(Client { image, ..client })
    }

    /// Speaks the protocol over a connection that is there.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if the peer speaks something else, or another version; else those of the
    /// connection.
    pub fn over(stream: Stream) -> Result<Client> {
        stream.set_timeout(Some(DEFAULT_TIMEOUT)).map_err(Error::Io)?;
        // What the server allows is not known before its answer: the first request is small.
        let limits = HelloResponse {
            version: rpc::VERSION,
            features: 0,
            server: rpc::Text::default(),
            max_body: rpc::MAX_BODY,
            max_payload: rpc::MAX_PAYLOAD,
            max_path: rpc::MAX_PATH as u32,
            max_name: 255,
            max_handles: 1,
            block_size: 4096,
            max_file_size: 0,
        };
        let stream = BufReader::with_capacity(READ_BUFFER, stream);
        let in_flight = VecDeque::new();
        let mut client = Client {
            stream,
            next_id: 1,
            sent: 0,
            in_flight,
            limits,
            image: None,
            body: Vec::new(),
            payload: Vec::new(),
        };
        let hello = Hello {
            magic: rpc::MAGIC,
            version: rpc::VERSION,
            features: 0,
            client: Some(CLIENT_NAME),
        };
        let limits = client.call(&hello)?;
        if limits.version != rpc::VERSION {
            return Err(Error::Protocol(format!("the server speaks version {}", limits.version)));
        }
        client.limits = limits;
        Ok(client)
    }

    /// What the server is and allows.
    pub fn server(&self) -> &HelloResponse {
        &self.limits
    }

    /// How long the server may say nothing; `None` for ever.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system refuses, a timeout of zero for example.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.stream.get_ref().set_timeout(timeout).map_err(Error::Io)
    }

    /// Requests that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Sends a request, and does not wait for its answer.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`], and the connection goes on, if body or payload are longer than
    /// [`Client::server`] says; else those of the connection.
    pub fn send<R: Request>(&mut self, request: &R, payload: &[u8]) -> Result<()> {
        self.send_with(request, payload.len(), |stream, front| write_both(stream, front, payload))
    }

    /// Sends a request whose payload of `len` bytes `write` writes, behind the bytes that it is
    /// given.
    fn send_with<R: Request>(
        &mut self,
        request: &R,
        len: usize,
        write: impl FnOnce(&mut Stream, &[u8]) -> io::Result<()>,
    ) -> Result<()> {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let mut frame = std::mem::take(&mut self.body);
        frame.clear();
        frame.resize(HEADER_LEN, 0);
        rpc::encode_append(request, &mut frame);
        if R::METHOD == Method::WRITE && len >= LARGE {
            let behind = (self.sent + frame.len() as u64) % PAGE;
            let by = (PAGE - behind) as usize;
            rpc::pad(
                &mut frame,
                HEADER_LEN,
                if by < rpc::LEAST_PADDING { by + PAGE as usize } else { by },
            );
        }
        let body = frame.len() - HEADER_LEN;
        if body > self.limits.max_body as usize || len > self.limits.max_payload as usize {
            self.body = frame;
            return Err(Error::TooLong);
        }
        let header = Header::request(id, R::METHOD.0, body as u32, len as u32);
        frame[..HEADER_LEN].copy_from_slice(&header.encode());
        let sent = write(self.stream.get_mut(), &frame);
        self.sent += (frame.len() + len) as u64;
        self.body = frame;
        sent.map_err(|error| Error::from_io(error, "to take a request"))?;
        self.in_flight.push_back((id, R::METHOD.0));
        Ok(())
    }

    /// Takes the next frame of the answers. An error of the server is the answer to the first
    /// request in flight, and those behind it are answered too.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] is the answer to the first request in flight. [`Error::Protocol`] if no
    /// request is in flight, or another one is answered; else those of the connection.
    pub fn receive(&mut self) -> Result<Response<'_>> {
        let header = self.receive_front()?;
        read_into(&mut self.stream, &mut self.payload, header.payload).map_err(lost)?;
        self.finish_frame(header)?;
        Ok(Response {
            method: header.method,
            more: header.has_more(),
            body: &self.body,
            payload: &self.payload,
        })
    }

    /// As [`Client::receive`], with the payload in `into`, which has room for the largest there can
    /// be ([`HelloResponse::max_payload`]): its length, and whether more frames answer the same
    /// request.
    fn receive_payload(&mut self, into: &mut [u8]) -> Result<(usize, bool)> {
        let header = self.receive_front()?;
        let len = header.payload as usize;
        let into = into
            .get_mut(..len)
            .ok_or_else(|| Error::Protocol(format!("a payload of {len} bytes")))?;
        self.stream.read_exact(into).map_err(lost)?;
        self.finish_frame(header)?;
        Ok((len, header.has_more()))
    }

    /// Takes the header and the body of a frame.
    fn receive_front(&mut self) -> Result<Header> {
        let &(id, method) = self
            .in_flight
            .front()
            .ok_or_else(|| Error::Protocol("no request is waiting for an answer".into()))?;
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header).map_err(lost)?;
        let header = Header::decode(&header);
        header.check_response().map_err(|error| Error::Protocol(error.to_string()))?;
        if (header.id, header.method) != (id, method) {
            // A server that cannot read a request answers it and ends the connection; what it
            // could not read may be the id.
            if !header.is_error() {
                return Err(Error::Protocol(format!(
                    "the answer to request {} came where that to {id} was due",
                    header.id
                )));
            }
        }
        read_into(&mut self.stream, &mut self.body, header.body()).map_err(lost)?;
        Ok(header)
    }

    /// A frame is there as a whole.
    fn finish_frame(&mut self, header: Header) -> Result<()> {
        if !header.has_more() {
            self.in_flight.pop_front();
        }
        if header.is_error() {
            let error: ErrorBody =
                rpc::decode(&self.body).map_err(|error| Error::Protocol(error.to_string()))?;
            return Err(Error::Server(error));
        }
        Ok(())
    }

    /// Sends a request and waits for its answer of one frame.
    ///
    /// # Errors
    ///
    /// [`Error::Server`] if the server refuses; [`Error::Protocol`] if it answers with several
    /// frames; [`Error::TooLong`]; else those of the connection.
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Response> {
        self.call_with(request, &[])
    }

    /// As [`Client::call`], with a payload.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`].
    pub fn call_with<R: Request>(&mut self, request: &R, payload: &[u8]) -> Result<R::Response> {
        self.settle()?;
        self.send(request, payload)?;
        let response = self.receive()?;
        if response.more {
            return Err(Error::Protocol("more answers than one".into()));
        }
        response.decode::<R>()
    }

    /// Sends a request and hands each frame of its answer to `each`. If `each` fails, the
    /// rest is still taken.
    ///
    /// # Errors
    ///
    /// Those of [`Client::call`], and the first one of `each`.
    pub fn call_each<R: Request>(
        &mut self,
        request: &R,
        mut each: impl FnMut(R::Response, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.settle()?;
        self.send(request, &[])?;
        let mut outcome = Ok(());
        loop {
            let response = self.receive()?;
            let more = response.more;
            if outcome.is_ok() {
                let body = response.decode::<R>()?;
                outcome = each(body, response.payload);
            }
            if !more {
                return outcome;
            }
        }
    }

    /// Takes and drops the answers that are due from requests that were given up.
    fn settle(&mut self) -> Result<()> {
        while !self.in_flight.is_empty() {
            match self.receive() {
                Ok(_) | Err(Error::Server(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn lost(error: io::Error) -> Error {
    Error::from_io(error, "to answer")
}

/// Writes two buffers as one stream, in as few calls as it takes.
fn write_both(stream: &mut Stream, first: &[u8], second: &[u8]) -> io::Result<()> {
    let total = first.len() + second.len();
    let mut done = 0;
    while done < total {
        let head = &first[done.min(first.len())..];
        let tail = &second[done.saturating_sub(first.len())..];
        match stream.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.flush()
}

/// Reads exactly `len` bytes (which the header's check has bounded) in place of what is there.
fn read_into(stream: &mut impl Read, into: &mut Vec<u8>, len: u32) -> io::Result<()> {
    let len = len as usize;
    // Without zeroing what is there already: payloads are many and large.
    if into.len() < len {
        into.resize(len, 0);
    }
    into.truncate(len);
    stream.read_exact(into)
}

#[cfg(test)]
mod tests;
