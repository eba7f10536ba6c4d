//! A client for whom there is no room: its first request is answered with why, then the connection
//! ends.
//!
//! So it costs a few hundred bytes, and all clients learn of it, however they reach the server.

use super::failure::Failure;
use crate::platform::Platform;
use crate::service::{Room, Service, Shared};
use crate::stream::{Progress, Stream, send, take};
use umbra_proto::rpc::{self, ERROR, ErrorCode, HEADER_LEN, Header};

/// Room for the answer.
const MOST: usize = 256;

/// The service of such a connection.
pub struct TurnedAway {
    room: Room,
    /// The header that is being received; then the answer.
    bytes: [u8; MOST],
    have: usize,
    /// What is to be sent of the answer.
    start: usize,
    end: usize,
}

impl TurnedAway {
    /// Nothing was received yet.
    pub fn new(room: Room) -> Self {
        TurnedAway { room, bytes: [0; MOST], have: 0, start: 0, end: 0 }
    }

    fn why(&self) -> Failure {
        match self.room {
            Room::Full(connections) => Failure::new(
                ErrorCode::TOO_MANY_CONNECTIONS,
                format_args!(
                    "the server has all its {connections} connections in use; one has to end first"
                ),
            ),
            _ => Failure::new(
                ErrorCode::NO_MEMORY,
                format_args!(
                    "the server has no memory left for another connection; one has to end first"
                ),
            ),
        }
    }
}

impl<M: Platform> Service<M> for TurnedAway {
    fn poll(&mut self, stream: &mut dyn Stream, machine: &mut M, _: &mut Shared) -> Progress {
        if stream.is_closed() {
            return Progress::Wait;
        }
        if self.end == 0 {
            self.have += take(stream, &mut self.bytes[self.have..HEADER_LEN]);
            let Some(header) = self.bytes.first_chunk().filter(|_| self.have == HEADER_LEN) else {
                if stream.finished() {
                    stream.close();
                }
                return Progress::Wait;
            };
            let header = Header::decode(header);
            machine.counters().errors += 1;
            let len =
                rpc::encode_into(&self.why().body(), &mut self.bytes[HEADER_LEN..]).unwrap_or(0);
            self.bytes[..HEADER_LEN]
                .copy_from_slice(&header.response(ERROR, len as u32, 0).encode());
            self.end = HEADER_LEN + len;
        }
        self.start += send(stream, &self.bytes[self.start..self.end]);
        if self.start == self.end {
            stream.close();
        }
        Progress::Wait
    }
}
