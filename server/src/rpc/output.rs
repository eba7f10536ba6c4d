//! One frame on its way out, of fixed size.
//!
//! Every response but large content goes through here: its body is encoded in place, and
//! then it is sent as room comes free. While a frame is here nothing else is done for the
//! connection, so a client that does not read stalls itself and nobody else.

use crate::stream::{Stream, send};
use alloc::vec::Vec;
use umbra_fs::memory::filled;
use umbra_proto::rpc::{HEADER_LEN, Header};

/// Largest body and payload together that go through here.
pub const ROOM: usize = 4096 + 64;
/// The same, where an item of a list needs more.
const LARGE_ROOM: usize = umbra_proto::rpc::MAX_BODY as usize;

/// The frame; empty most of the time.
#[derive(Default)]
pub struct Output {
    /// Empty until [`prepare`](Self::prepare), which is when the connection begins.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Output {
    /// Takes the memory.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`](umbra_fs::Error::NoMemory).
    pub fn prepare(&mut self) -> umbra_fs::Result<()> {
        self.bytes = filled(HEADER_LEN + ROOM, 0)?;
        Ok(())
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where to put body and payload of the next frame. Must be empty, and prepared.
    pub fn room(&mut self) -> &mut [u8] {
        debug_assert!(self.is_empty());
        self.bytes.get_mut(HEADER_LEN..).unwrap_or_default()
    }

    /// Makes the room as large as a body can be, for good; false if it is so already. Must be
    /// empty.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`](umbra_fs::Error::NoMemory); then the room is as before.
    pub fn enlarge(&mut self) -> umbra_fs::Result<bool> {
        debug_assert!(self.is_empty());
        let large = HEADER_LEN + LARGE_ROOM;
        if self.bytes.len() == large {
            return Ok(false);
        }
        self.bytes = filled(large, 0)?;
        Ok(true)
    }

    /// Starts to send a frame whose body and payload are in [`room`](Self::room).
    pub fn start(&mut self, header: Header) {
        debug_assert!(self.is_empty() && header.length as usize <= LARGE_ROOM);
        if let Some(front) = self.bytes.get_mut(..HEADER_LEN) {
            front.copy_from_slice(&header.encode());
            (self.start, self.end) = (0, HEADER_LEN + header.length as usize);
        }
    }

    /// Sends what the stream takes; true if nothing is left.
    pub fn flush(&mut self, stream: &mut dyn Stream) -> bool {
        if self.start < self.end {
            self.start += send(stream, &self.bytes[self.start..self.end]);
        }
        self.is_empty()
    }
}
