//! One frame on its way out, of fixed size.
//!
//! Every response but large content goes through here: its body is encoded in place, and
//! then it is sent as room comes free. While a frame is here nothing else is done for the
//! connection, so a client that does not read stalls itself and nobody else.

use crate::stream::{Stream, send};
use alloc::boxed::Box;
use umbra_proto::rpc::{HEADER_LEN, Header};

/// Largest body and payload together that go through here.
pub const ROOM: usize = 4096 + 64;
/// The same, where an item of a list needs more.
const LARGE_ROOM: usize = umbra_proto::rpc::MAX_BODY as usize;

/// The frame; empty most of the time.
#[derive(Default)]
pub struct Output {
    /// Allocated by the first use, which is when the connection begins.
    bytes: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Output {
    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where to put body and payload of the next frame. Must be empty.
    pub fn room(&mut self) -> &mut [u8] {
        debug_assert!(self.is_empty());
        &mut self.bytes.get_or_insert_with(|| alloc::vec![0; HEADER_LEN + ROOM].into())
            [HEADER_LEN..]
    }

    /// Makes the room as large as a body can be, for good; false if it is so already. Must be
    /// empty.
    pub fn enlarge(&mut self) -> bool {
        debug_assert!(self.is_empty());
        let large = HEADER_LEN + LARGE_ROOM;
        if self.bytes.as_ref().is_some_and(|bytes| bytes.len() == large) {
            return false;
        }
        self.bytes = Some(alloc::vec![0; large].into());
        true
    }

    /// Starts to send a frame whose body and payload are in [`room`](Self::room).
    pub fn start(&mut self, header: Header) {
        debug_assert!(self.is_empty() && header.length as usize <= LARGE_ROOM);
        if let Some(bytes) = &mut self.bytes {
            bytes[..HEADER_LEN].copy_from_slice(&header.encode());
            (self.start, self.end) = (0, HEADER_LEN + header.length as usize);
        }
    }

    /// Sends what the stream takes; true if nothing is left.
    pub fn flush(&mut self, stream: &mut dyn Stream) -> bool {
        if let Some(bytes) = &self.bytes
            && self.start < self.end
        {
            self.start += send(stream, &bytes[self.start..self.end]);
        }
        self.is_empty()
    }
}
