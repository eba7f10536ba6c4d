//! Bytes between a file and the stream, in pieces.
//!
//! Reading loads from the window of the file straight into the buffer of the stream, and each piece
//! is a frame: so a read of any length needs no more room than there happens to be, and if it fails
//! midway what came before is whole. Writing hands the received bytes to the volume where they lie;
//! if that is in blocks of the volume, it may take these. The one exception both ways is a place
//! where the ring of the stream wraps: at most a block goes through the connection's own frame
//! there.
//!
//! A piece that is written ends where a block of the file does, and a piece that is stored where an
//! aligned word does (or where the request ends). So each aligned word of the file is old or new
//! for everybody, however the bytes arrive; those of a word whose rest never comes are dropped.

use super::failure::{During, Failure};
use super::handles::OpenFile;
use super::operating::STEP_COST;
use super::session::{Session, Step};
use crate::platform::Platform;
use crate::stream::{Stream, WORD, take};
use umbra_fs::{BLOCK_SIZE, Begun, Block, Error, MAX_FILE_SIZE, Operation, dax};
use umbra_proto::rpc::{self, ErrorCode, HEADER_LEN, MAX_PAYLOAD, MORE};

/// Most bytes of one step.
const PIECE: usize = 64 << 10;
/// Least bytes that are worth a frame of their own in place.
const LEAST: usize = BLOCK_SIZE as usize;
/// The body of a response that carries content: an empty map.
const EMPTY_BODY: [u8; 1] = [0xa0];
/// Bytes before the content in such a response.
const FRONT: usize = HEADER_LEN + EMPTY_BODY.len();

/// Which way, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the client, as far as the file goes.
    Read,
    /// To the client; beyond the end of the file is an error.
    Load,
    /// From the client, through the write path; extends the file.
    Write,
    /// From the client, through the window; beyond the end of the file is an error.
    Store,
}

/// What is done when all bytes are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The request is answered.
    Answer,
    /// The file is made durable, then the request is answered.
    Sync,
}

impl Then {
    /// What the field `sync` of a request asks for.
    pub fn of(sync: bool) -> Self {
        if sync { Then::Sync } else { Then::Answer }
    }
}

/// A transfer under way.
#[derive(Debug)]
pub struct Transfer {
    direction: Direction,
    file: OpenFile,
    /// Where it started in the file.
    offset: u64,
    /// Bytes in all.
    len: u64,
    /// Bytes done.
    done: u64,
    then: Then,
    /// That sync.
    syncing: Option<Operation>,
}

impl Transfer {
    /// A transfer of `len` bytes at `offset`.
    pub fn new(direction: Direction, file: OpenFile, offset: u64, len: u64, then: Then) -> Self {
        Transfer { direction, file, offset, len, done: 0, then, syncing: None }
    }

    /// Does the next piece. An operation that has parked the page faults of the file comes first.
    pub fn step<M: Platform>(
        &mut self,
        s: &mut Session,
        stream: &mut dyn Stream,
        machine: &mut M,
    ) -> Result<Step, Failure> {
        let ino = self.file.ino;
        if self.direction != Direction::Write && machine.volume(|v| v.is_parked(ino)) {
            return Ok(Step::Park);
        }
        let step = match self.direction {
            Direction::Read | Direction::Load => self.send(s, stream, machine),
            Direction::Write | Direction::Store => self.receive(s, stream, machine),
        };
        step.map_err(|failure| failure.after(self.done))
    }

    /// Where the next byte is in the file.
    fn at(&self) -> Result<u64, Failure> {
        let at = self.offset.checked_add(self.done);
        at.ok_or_else(|| self.failed(Error::TooLarge))
    }

    fn left(&self) -> u64 {
        self.len - self.done
    }

    fn failed(&self, error: Error) -> Failure {
        let verb = match self.direction {
            Direction::Read => "read",
            Direction::Load => "load",
            Direction::Write => "write",
            Direction::Store => "store",
        };
        let (len, offset, ino) = (self.len, self.offset, self.file.ino.0);
        Failure::during(error, format_args!("{verb} {len} bytes at {offset} of inode {ino}"))
    }

    /// How many of the bytes that are left the file has; mappings must have them all.
    fn within<M: Platform>(&self, machine: &mut M) -> Result<u64, Failure> {
        let ino = self.file.ino;
        let size = machine.volume(|v| v.attributes(ino)).map_err(|e| self.failed(e))?.size;
        let at = self.offset.saturating_add(self.done);
        let within = size.saturating_sub(at).min(self.left());
        if within < self.left() && self.direction != Direction::Read {
            let verb = if self.direction == Direction::Load { "load" } else { "store" };
            return Err(Failure::new(
                ErrorCode::OUT_OF_RANGE,
                format_args!(
                    "cannot {verb} {} bytes at {} of inode {}: the file has {size} bytes",
                    self.len, self.offset, ino.0
                ),
            ));
        }
        Ok(within)
    }

    fn send<M: Platform>(
        &mut self,
        s: &mut Session,
        stream: &mut dyn Stream,
        machine: &mut M,
    ) -> Result<Step, Failure> {
        let within = self.within(machine)?;
        if within == 0 {
            s.reply(0, &rpc::Done {});
            return Ok(Step::Done);
        }
        let at = self.at()?;
        let room = stream.buffer();
        if room.is_empty() {
            return Ok(Step::Wait);
        }
        let least = within.min(LEAST as u64) as usize;
        let in_place = room.len() >= FRONT + least;
        let into = if in_place {
            // All the room there is, wherever in a block that ends: one frame for each packet.
            let most = (room.len() - FRONT).min(PIECE).min(MAX_PAYLOAD as usize);
            &mut room[FRONT..FRONT + within.min(most as u64) as usize]
        } else {
            &mut s.out.room()[EMPTY_BODY.len()..][..least]
        };
        let mut loaded = into.len();
        if let Err(e) = dax::load(machine, self.file.window, at, into) {
            if e.done == 0 {
                return Err(self.failed(e.error));
            }
            // What came before it goes out; the next step meets the error at its start.
            loaded = e.done.min(loaded);
        }
        self.done += loaded as u64;
        let last = loaded as u64 == within;
        let flags = if last { 0 } else { MORE };
        let header = s.request.header.response(flags, EMPTY_BODY.len() as u32, loaded as u32);
        if in_place {
            let room = stream.buffer();
            room[..HEADER_LEN].copy_from_slice(&header.encode());
            room[HEADER_LEN..FRONT].copy_from_slice(&EMPTY_BODY);
            stream.commit(FRONT + loaded);
        } else {
            s.out.room()[..EMPTY_BODY.len()].copy_from_slice(&EMPTY_BODY);
            s.out.start(header);
        }
        Ok(if last { Step::Done } else { Step::Went(loaded) })
    }

    fn receive<M: Platform>(
        &mut self,
        s: &mut Session,
        stream: &mut dyn Stream,
        machine: &mut M,
    ) -> Result<Step, Failure> {
        match self.direction {
            Direction::Store => {
                self.within(machine)?;
            }
            // Before anything is written, not when the limit is met.
            _ if self.offset.saturating_add(self.len) > MAX_FILE_SIZE => {
                return Err(self.failed(Error::TooLarge));
            }
            _ => {}
        }
        if self.left() == 0 {
            if self.then == Then::Sync && !self.synced(machine)? {
                return Ok(Step::Went(STEP_COST));
            }
            s.reply(0, &rpc::Written { done: self.done });
            return Ok(Step::Done);
        }
        let at = self.at()?;
        let in_blocks = at.is_multiple_of(BLOCK_SIZE) && self.left() >= BLOCK_SIZE;
        let blocks = if in_blocks && self.direction == Direction::Write {
            stream.received_in()
        } else {
            None
        };
        let received = stream.received();
        let most = received.len().min(PIECE);
        let unit = if self.direction == Direction::Store { WORD } else { BLOCK_SIZE };
        let n = piece(at, self.left(), most, unit);
        if n > 0 {
            let (stored, failure) = match blocks {
                Some(blocks) => self.take_over(machine, at, &received[..n], blocks),
                None => self.put(machine, at, [&received[..n], &[]]),
            };
            stream.consume(stored);
            return self.account(s, stored, failure);
        }
        // A block, or a word, is cut by the end of the contiguous part: put it together, so that
        // it is written once. It is never more than the smallest receive window.
        let cut = (unit - at % unit).min(self.left()) as usize;
        if stream.available() < cut {
            return Ok(Step::Wait);
        }
        let joined = &mut s.out.room()[..cut];
        take(stream, joined);
        // With it goes what lies behind it, so that one change holds both.
        let behind = stream.received();
        let n =
            piece(at + cut as u64, self.left() - cut as u64, behind.len().min(PIECE - cut), unit);
        let (stored, failure) = self.put(machine, at, [joined, &behind[..n]]);
        // All that was put together was consumed, whatever was stored of it.
        stream.consume(stored.saturating_sub(cut));
        s.request.payload_left -= cut.saturating_sub(stored) as u32;
        self.account(s, stored, failure)
    }

    /// Takes a step of making the file durable; true with the last one.
    fn synced<M: Platform>(&mut self, machine: &mut M) -> Result<bool, Failure> {
        let ino = self.file.ino;
        machine
            .volume(|v| {
                if let Some(operation) = &mut self.syncing {
                    return Ok(v.step(operation)?.is_some());
                }
                match v.begin_sync(ino)? {
                    Begun::Over(_) => Ok(true),
                    Begun::GoesOn(operation) => {
                        self.syncing = Some(operation);
                        Ok(false)
                    }
                }
            })
            .during(format_args!("sync inode {}", ino.0))
    }

    /// Gives bytes, in two pieces, to the file; returns how many it took, and why not all.
    fn put<M: Platform>(
        &self,
        machine: &mut M,
        at: u64,
        parts: [&[u8]; 2],
    ) -> (usize, Option<Failure>) {
        let len = parts[0].len() + parts[1].len();
        if self.direction == Direction::Store {
            let (stored, error) = self.store(machine, at, parts);
            return (stored.min(len), error.map(|e| self.failed(e)));
        }
        let (ino, now) = (self.file.ino, machine.now());
        self.written(len, machine.volume(|v| v.write_parts(ino, at, parts, now)))
    }

    /// As [`Transfer::put`], of bytes that lie in blocks which the volume has lent, from the start
    /// of this one on.
    fn take_over<M: Platform>(
        &self,
        machine: &mut M,
        at: u64,
        bytes: &[u8],
        blocks: Block,
    ) -> (usize, Option<Failure>) {
        let (ino, now) = (self.file.ino, machine.now());
        self.written(bytes.len(), machine.volume(|v| v.write_received(ino, at, bytes, blocks, now)))
    }

    /// What came of a write of `len` bytes.
    fn written(&self, len: usize, result: umbra_fs::Result<usize>) -> (usize, Option<Failure>) {
        match result {
            Ok(n) if n >= len => (len, None),
            Ok(n) => (n, Some(self.failed(Error::NoSpace))),
            Err(e) => (0, Some(self.failed(e))),
        }
    }

    /// Stores through the window; returns how many bytes it stored, and why not all.
    fn store<M: Platform>(
        &self,
        machine: &mut M,
        at: u64,
        parts: [&[u8]; 2],
    ) -> (usize, Option<Error>) {
        let mut stored = 0;
        for part in parts {
            match dax::store(machine, self.file.window, at + stored as u64, part) {
                Ok(()) => stored += part.len(),
                Err(e) => return (stored + e.done, Some(e.error)),
            }
        }
        (stored, None)
    }

    fn account(
        &mut self,
        s: &mut Session,
        stored: usize,
        failure: Option<Failure>,
    ) -> Result<Step, Failure> {
        s.request.payload_left -= stored as u32;
        self.done += stored as u64;
        failure.map_or(Ok(Step::Went(stored)), Err)
    }
}

/// How many bytes the next piece has: at most `most`, and if that is not all that is left, then to
/// the end of a block where there is one in reach, else of an aligned `unit` (a block, or what
/// divides one). 0: none ends in reach.
fn piece(at: u64, left: u64, most: usize, unit: u64) -> usize {
    if left <= most as u64 {
        return left as usize;
    }
    let end = at.saturating_add(most as u64);
    let over = |unit| (end % unit) as usize;
    let over = if over(BLOCK_SIZE) < most { over(BLOCK_SIZE) } else { over(unit) };
    most.saturating_sub(over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_blocks_or_with_words() {
        assert_eq!(piece(0, 10_000, 20_000, BLOCK_SIZE), 10_000);
        assert_eq!(piece(0, 10_000, 10_000, BLOCK_SIZE), 10_000);
        assert_eq!(piece(0, 10_000, 9_999, BLOCK_SIZE), 8192);
        assert_eq!(piece(100, 10_000, 9_999, WORD), 8092);
        assert_eq!(piece(100, 10_000, 4000, WORD), 3996);
        assert_eq!(piece(100, 10_000, 3000, BLOCK_SIZE), 0);
        assert_eq!(piece(100, 3000, 3000, BLOCK_SIZE), 3000);
        assert_eq!(piece(100, 10_000, 3001, WORD), 2996);
        assert_eq!(piece(100, 10_000, 3, WORD), 0);
        assert_eq!(piece(100, 10_000, 4, WORD), 4);
        assert_eq!(piece(100, 10_000, 0, WORD), 0);
        assert_eq!(piece(u64::MAX - 5, u64::MAX, 100, WORD), 93);
    }
}
