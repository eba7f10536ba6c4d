//! Small replies on their way out: headers, errors, block status.

use super::failure::Failure;
use crate::stream::{Stream, send};
use crate::text::write_text;
use alloc::vec::Vec;
use umbra_fs::memory::filled;
use umbra_proto::nbd::{CHUNK_DONE, Chunk, ChunkType, SimpleReply, Style, error_front};

/// Most bytes that are here at once: the status of as many runs as one answer has.
pub const ROOM: usize = 4096 + 256;
/// Longest text of an error.
const MAX_MESSAGE: usize = 160;

/// Bytes that are to be sent before anything else.
pub struct Out {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Out {
    /// Nothing to send; the memory is taken.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`](umbra_fs::Error::NoMemory).
    pub fn new() -> umbra_fs::Result<Self> {
        Ok(Out { bytes: filled(ROOM, 0)?, start: 0, end: 0 })
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Sends what the stream takes; true if nothing is left.
    pub fn flush(&mut self, stream: &mut dyn Stream) -> bool {
        if !self.is_empty() {
            self.start += send(stream, &self.bytes[self.start..self.end]);
        }
        self.is_empty()
    }

    /// All of the memory, to be filled from its start. Must be empty.
    pub fn room(&mut self) -> &mut [u8] {
        debug_assert!(self.is_empty());
        &mut self.bytes
    }

    /// The first `n` bytes of [`room`](Self::room) are to be sent.
    pub fn start(&mut self, n: usize) {
        (self.start, self.end) = (0, n.min(ROOM));
    }

    /// Says that a request succeeded, for replies without data.
    pub fn succeed(&mut self, style: Style, cookie: u64, offset: u64) {
        let n = match style {
            Style::Simple => self.simple(umbra_proto::nbd::Errno(0), cookie),
            _ => {
                let chunk =
                    Chunk { flags: CHUNK_DONE, kind: ChunkType::NONE, cookie, offset, length: 0 };
                chunk.write(style, self.room())
            }
        };
        self.start(n);
    }

    fn simple(&mut self, error: umbra_proto::nbd::Errno, cookie: u64) -> usize {
        let bytes = SimpleReply { error, cookie }.encode();
        self.room()[..bytes.len()].copy_from_slice(&bytes);
        bytes.len()
    }

    /// Says that a request failed, and ends its reply. `at`: where, if that is known.
    pub fn fail(
        &mut self,
        style: Style,
        cookie: u64,
        offset: u64,
        failure: Failure,
        at: Option<u64>,
    ) {
        let errno = failure.errno();
        if style == Style::Simple {
            let n = self.simple(errno, cookie);
            return self.start(n);
        }
        let front = style.reply_len();
        let into = &mut self.room()[front + 6..front + 6 + MAX_MESSAGE];
        let len = write_text(into, format_args!("{failure}")).len();
        let mut end = front + 6 + len;
        let room = self.room();
        room[front..front + 6].copy_from_slice(&error_front(errno, len));
        if let Some(at) = at {
            room[end..end + 8].copy_from_slice(&at.to_be_bytes());
            end += 8;
        }
        let kind = if at.is_some() { ChunkType::ERROR_OFFSET } else { ChunkType::ERROR };
        let chunk = Chunk { flags: CHUNK_DONE, kind, cookie, offset, length: (end - front) as u32 };
        chunk.write(style, room);
        self.start(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_proto::nbd::{Errno, ErrorChunk};

    #[test]
    fn an_error_has_number_text_and_place() {
        let mut out = Out::new().unwrap();
        out.fail(
            Style::Structured,
            7,
            0,
            Failure::Rule(Errno::EINVAL, "no such thing"),
            Some(4096),
        );
        let chunk = Chunk::decode(out.bytes[..20].try_into().unwrap()).unwrap();
        assert_eq!(
            (chunk.cookie, chunk.flags, chunk.kind),
            (7, CHUNK_DONE, ChunkType::ERROR_OFFSET)
        );
        assert_eq!(out.end, 20 + chunk.length as usize);
        let error = ErrorChunk::decode(chunk.kind, &out.bytes[20..out.end]).unwrap();
        assert_eq!(error.error, Errno::EINVAL);
        assert_eq!((error.message, error.offset), (&b"no such thing"[..], Some(4096)));
    }
}
