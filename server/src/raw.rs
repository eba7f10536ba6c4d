//! Discard, source and echo: the ceiling of the transport.
//!
//! The classic small services, on their classic port numbers (RFC 862, 863, 864). They touch no
//! file, so what they move in a second is what the transport can do; every other server is compared
//! with them. They are always on: they show nothing of the volume and change nothing.

use crate::service::{Service, Shared};
use crate::stream::{Progress, Stream};
use umbra_fs::dax::Machine;

/// Port of [`Echo`].
pub const ECHO_PORT: u32 = 7;
/// Port of [`Discard`].
pub const DISCARD_PORT: u32 = 9;
/// Port of [`Source`].
pub const SOURCE_PORT: u32 = 19;

/// Answers every byte with itself; closes when the client has finished and has its answer.
#[derive(Debug, Default)]
pub struct Echo;

impl<M: Machine> Service<M> for Echo {
    fn poll(&mut self, stream: &mut dyn Stream, _: &mut M, _: &mut Shared) -> Progress {
        // Received bytes cannot be borrowed while the buffer is: they go through a copy.
        let mut copy = [0; 1024];
        loop {
            let piece = stream.received();
            let n = piece.len().min(copy.len());
            copy[..n].copy_from_slice(&piece[..n]);
            let room = stream.buffer();
            let n = n.min(room.len());
            if n == 0 {
                break;
            }
            room[..n].copy_from_slice(&copy[..n]);
            stream.commit(n);
            stream.consume(n);
        }
        if stream.finished() && stream.available() == 0 {
            stream.close();
        }
        Progress::Wait
    }
}

/// Drops everything. When the client has finished, answers how many bytes it was (8 bytes,
/// little-endian) and closes: so a client knows that all of it arrived.
#[derive(Debug, Default)]
pub struct Discard {
    total: u64,
    answered: usize,
}

impl<M: Machine> Service<M> for Discard {
    fn poll(&mut self, stream: &mut dyn Stream, _: &mut M, _: &mut Shared) -> Progress {
        let n = stream.available();
        stream.consume(n);
        self.total += n as u64;
        if stream.finished() {
            let answer = self.total.to_le_bytes();
            self.answered += crate::stream::send(stream, &answer[self.answered..]);
            if self.answered == answer.len() {
                stream.close();
            }
        }
        Progress::Wait
    }
}

/// Sends as many bytes as the client asks for (8 bytes, little-endian; 0 means without end),
/// then closes. The stream is the numbers 0, 1, 2, ... as 8 bytes each, little-endian, so that
/// a client can see whether bytes were lost, doubled or reordered.
#[derive(Debug, Default)]
pub struct Source {
    request: [u8; 8],
    have: usize,
    sent: u64,
}

/// Pieces that a source sends in one turn.
const PIECES_A_TURN: usize = 16;

impl<M: Machine> Service<M> for Source {
    fn poll(&mut self, stream: &mut dyn Stream, _: &mut M, _: &mut Shared) -> Progress {
        self.have += crate::stream::take(stream, &mut self.request[self.have..]);
        if self.have < self.request.len() {
            if stream.finished() {
                stream.close();
            }
            return Progress::Wait;
        }
        let wanted = match u64::from_le_bytes(self.request) {
            0 => u64::MAX,
            wanted => wanted,
        };
        for _ in 0..PIECES_A_TURN {
            let left = wanted - self.sent;
            if left == 0 {
                stream.close();
                return Progress::Wait;
            }
            let room = stream.buffer();
            let n = (room.len() as u64).min(left) as usize;
            if n == 0 {
                return Progress::Wait;
            }
            fill(&mut room[..n], self.sent);
            stream.commit(n);
            self.sent += n as u64;
        }
        Progress::Again
    }
}

/// Writes the bytes of the stream of numbers from byte `at` on.
fn fill(into: &mut [u8], at: u64) {
    let head = (at.next_multiple_of(8) - at).min(into.len() as u64) as usize;
    let (head, rest) = into.split_at_mut(head);
    for (byte, at) in head.iter_mut().zip(at..) {
        *byte = number_byte(at);
    }
    let at = at + head.len() as u64;
    let (words, tail) = rest.as_chunks_mut::<8>();
    for (word, number) in words.iter_mut().zip(at / 8..) {
        *word = number.to_le_bytes();
    }
    let at = at + words.len() as u64 * 8;
    for (byte, at) in tail.iter_mut().zip(at..) {
        *byte = number_byte(at);
    }
}

/// The byte of the stream of numbers at offset `at`.
fn number_byte(at: u64) -> u8 {
    (at / 8).to_le_bytes()[(at % 8) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_numbers_is_the_same_however_it_is_cut() {
        for start in 0..24u64 {
            for len in 0..40 {
                let mut piece = [0xEE; 40];
                fill(&mut piece[..len], start);
                for (i, byte) in piece.iter().enumerate() {
                    let expected = if i < len { number_byte(start + i as u64) } else { 0xEE };
                    assert_eq!(*byte, expected, "start {start}, length {len}, byte {i}");
                }
            }
        }
    }
}
