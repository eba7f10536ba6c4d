//! Work and answers: one chunk, or one step of a long request, at a time.
//!
//! A read is answered in pieces that fit into what the stream has room for, so its bytes are loaded
//! where they are sent from, and before their header is written: an error becomes an error chunk.
//! Where a reply must be one piece (simple replies, reads that are not to be fragmented) or the
//! room is too small, the header goes first and the data follows as room comes free. An error in it
//! is told by a chunk behind it, or, as simple replies have none, by the end of the connection.

use super::backing::RangeOp;
use super::failure::Failure;
use super::queue::{Pending, QUANTUM, Work};
use super::status::{Answer, Question};
use super::transmission::{PARKED, Step, Streaming, Transmission};
use crate::platform::Platform;
use crate::stream::Stream;
use umbra_fs::BLOCK_SIZE;
use umbra_proto::nbd::{CHUNK_DONE, Chunk, ChunkType, Errno, SimpleReply, Style};

/// Most bytes of one step.
const PIECE: u64 = 64 << 10;
/// What a small answer costs, in bytes.
const SMALL: usize = 1 << 10;
/// What a step of a long request costs, in bytes.
const STEP_COST: usize = 32 << 10;
/// What a step of a block status costs: it may look at the entries of some leaves.
const STATUS_COST: usize = 64 << 10;
/// How often a read that cannot give way later does so before it begins.
const MOST_WAITS: u8 = 32;
/// Bytes of the offset before the data in a chunk.
const OFFSET_LEN: usize = 8;

impl Transmission {
    /// Sends what can be sent; works on what is to be answered.
    pub(super) fn answer<M: Platform>(&mut self, stream: &mut dyn Stream, machine: &mut M) -> Step {
        if !self.out.flush(stream) {
            return Step::Wait;
        }
        if self.streaming.is_some() {
            return self.stream_on(stream, machine);
        }
        if self.asked.is_some() {
            return self.status_on(stream, machine);
        }
        let Some(pending) = self.queue.pop() else { return Step::Wait };
        match pending.work {
            Work::Done => self.succeed(&pending, stream),
            Work::Failed(why, at) => self.fail(&pending, why, at, stream),
            Work::Read { left: 0, .. } => self.succeed(&pending, stream),
            Work::Read { at, left, whole } => {
                self.read_on(pending, (at, left, whole), stream, machine)
            }
            Work::Range { what, at, left, fua } => {
                self.range_on(pending, (what, at, left, fua), stream, machine)
            }
            Work::Sync => self.sync_on(pending, stream, machine),
            Work::Status { at, len, one, contexts } => {
                self.asked =
                    Some(Answer::new(pending, Question { at, end: at + len, one, contexts }));
                Step::Went(SMALL)
            }
        }
    }

    /// One step of an answer to a block status.
    fn status_on<M: Platform>(&mut self, stream: &mut dyn Stream, machine: &mut M) -> Step {
        let Some(answer) = &mut self.asked else { return Step::Wait };
        match answer.step(self.backing, machine, self.style, self.out.room()) {
            Ok(None) => return Step::Went(STATUS_COST),
            Ok(Some(len)) => {
                self.asked = None;
                self.out.start(len);
                self.out.flush(stream);
            }
            Err(why) => {
                let pending = answer.pending;
                self.asked = None;
                return self.fail(&pending, why, Some(pending.offset), stream);
            }
        }
        Step::Went(STATUS_COST)
    }

    fn succeed(&mut self, pending: &Pending, stream: &mut dyn Stream) -> Step {
        self.out.succeed(self.style, pending.cookie, pending.offset);
        self.out.flush(stream);
        Step::Went(SMALL)
    }

    fn fail(
        &mut self,
        pending: &Pending,
        why: Failure,
        at: Option<u64>,
        stream: &mut dyn Stream,
    ) -> Step {
        self.out.fail(self.style, pending.cookie, pending.offset, why, at);
        self.out.flush(stream);
        Step::Went(SMALL)
    }

    /// One step of something that is done to a range.
    fn range_on<M: Platform>(
        &mut self,
        mut pending: Pending,
        (what, at, left, fua): (RangeOp, u64, u64, bool),
        stream: &mut dyn Stream,
        machine: &mut M,
    ) -> Step {
        if what == RangeOp::Cache && self.backing.is_parked(machine) {
            self.queue.put_last(pending);
            return Step::Went(PARKED);
        }
        let done = if left == 0 { Ok(0) } else { self.backing.step(machine, what, at, left) };
        match done {
            Err(why) => return self.fail(&pending, why, Some(at), stream),
            Ok(done) if done < left => {
                pending.work = Work::Range { what, at: at + done, left: left - done, fua };
                pending.moved += STEP_COST as u64;
                self.queue.give_back(pending);
                return Step::Went(STEP_COST);
            }
            Ok(_) if fua => {
                self.queue.put_first(Pending { work: Work::Sync, ..pending });
                return Step::Went(STEP_COST);
            }
            Ok(_) => {}
        }
        self.succeed(&pending, stream);
        Step::Went(STEP_COST)
    }

    /// A step of making everything durable. The requests behind this one wait until it is done.
    fn sync_on<M: Platform>(
        &mut self,
        pending: Pending,
        stream: &mut dyn Stream,
        machine: &mut M,
    ) -> Step {
        match self.backing.sync_step(machine, &mut self.syncing) {
            Ok(true) => self.succeed(&pending, stream),
            Ok(false) => {
                self.queue.put_first(pending);
                Step::Went(STEP_COST)
            }
            Err(why) => self.fail(&pending, why, None, stream),
        }
    }

    /// Sends the next piece of a read.
    fn read_on<M: Platform>(
        &mut self,
        mut pending: Pending,
        (at, left, whole): (u64, u64, bool),
        stream: &mut dyn Stream,
        machine: &mut M,
    ) -> Step {
        if self.backing.is_parked(machine) {
            self.queue.put_last(pending);
            return Step::Went(PARKED);
        }
        let one_piece = whole || self.style == Style::Simple;
        // What cannot give way once it has begun lets those pass that came with it.
        let others = !self.queue.is_empty() || stream.available() >= self.style.request_len();
        if one_piece && left > QUANTUM && pending.waited < MOST_WAITS && others {
            pending.waited += 1;
            self.queue.put_last(pending);
            return Step::Went(SMALL);
        }
        let offset_len = if self.style == Style::Simple { 0 } else { OFFSET_LEN };
        let front = self.style.reply_len() + offset_len;
        let room = stream.buffer();
        if room.is_empty() {
            self.queue.give_back(Pending { moved: 0, ..pending });
            return Step::Wait;
        }
        let most = (room.len() as u64).saturating_sub(front as u64).min(PIECE);
        let n = if left <= most { left } else { piece(at, left, most) };
        if n < left && (one_piece || n == 0) {
            // The header first; the data as room comes free.
            let chunk = if one_piece { left } else { piece(at, left, PIECE) };
            self.stage_header(&pending, at, chunk);
            self.streaming = Some(Streaming { pending, at, chunk, left, failed: None });
            self.out.flush(stream);
            return Step::Went(SMALL);
        }
        let data = &mut room[front..front + n as usize];
        let n = match self.backing.load(machine, at, data) {
            Ok(()) => n,
            // What came before it goes out; the next piece meets the error at its start.
            Err((done, _)) if done > 0 && !one_piece => done as u64,
            Err((done, why)) => return self.fail(&pending, why, Some(at + done as u64), stream),
        };
        let flags = if n == left { CHUNK_DONE } else { 0 };
        write_header(self.style, &pending, flags, at, n, room);
        stream.commit(front + n as usize);
        if n < left {
            pending.work = Work::Read { at: at + n, left: left - n, whole };
            pending.moved += n;
            self.queue.give_back(pending);
        }
        Step::Went(front + n as usize)
    }

    fn stage_header(&mut self, pending: &Pending, at: u64, n: u64) {
        let len = write_header(self.style, pending, 0, at, n, self.out.room());
        self.out.start(len);
    }

    /// Sends more of a chunk whose header is out.
    fn stream_on<M: Platform>(&mut self, stream: &mut dyn Stream, machine: &mut M) -> Step {
        if self.backing.is_parked(machine) {
            return Step::Went(PARKED);
        }
        let Some(s) = &mut self.streaming else { return Step::Wait };
        let room = stream.buffer();
        let n = (room.len() as u64).min(s.chunk).min(PIECE);
        if n == 0 {
            return Step::Wait;
        }
        let data = &mut room[..n as usize];
        if s.failed.is_some() {
            data.fill(0);
        } else if let Err((done, why)) = self.backing.load(machine, s.at, data) {
            if self.style == Style::Simple {
                return Step::Broken;
            }
            data[done..].fill(0);
            s.failed = Some((why, s.at + done as u64));
        }
        stream.commit(n as usize);
        s.at += n;
        s.chunk -= n;
        s.left -= n;
        if s.chunk > 0 {
            return Step::Went(n as usize);
        }
        let Some(Streaming { mut pending, at, left, failed, .. }) = self.streaming.take() else {
            return Step::Wait;
        };
        match failed {
            Some((why, at)) => {
                self.fail(&pending, why, Some(at), stream);
            }
            None if self.style == Style::Simple => {}
            None if left == 0 => {
                self.succeed(&pending, stream);
            }
            None => {
                pending.work = Work::Read { at, left, whole: false };
                pending.moved += n;
                self.queue.give_back(pending);
            }
        }
        Step::Went(n as usize)
    }
}

/// Writes what comes before `n` bytes of data from `at` on; returns its length.
fn write_header(
    style: Style,
    pending: &Pending,
    flags: u16,
    at: u64,
    n: u64,
    into: &mut [u8],
) -> usize {
    if style == Style::Simple {
        let bytes = SimpleReply { error: Errno(0), cookie: pending.cookie }.encode();
        into[..bytes.len()].copy_from_slice(&bytes);
        return bytes.len();
    }
    let length = OFFSET_LEN as u32 + n as u32;
    let Pending { cookie, offset, .. } = *pending;
    let chunk = Chunk { flags, kind: ChunkType::OFFSET_DATA, cookie, offset, length };
    let front = chunk.write(style, into);
    into[front..front + OFFSET_LEN].copy_from_slice(&at.to_be_bytes());
    front + OFFSET_LEN
}

/// How many of `left` bytes from `at` on are a piece of at most `most`: to the end of a block; 0 if
/// that is not in reach.
fn piece(at: u64, left: u64, most: u64) -> u64 {
    if left <= most {
        return left;
    }
    let end = at + most;
    (end - end % BLOCK_SIZE).saturating_sub(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_blocks() {
        assert_eq!(piece(0, 100, 100), 100);
        assert_eq!(piece(0, 10_000, 9_999), 8192);
        assert_eq!(piece(100, 10_000, 9_999), 8092);
        assert_eq!(piece(100, 10_000, 3995), 0);
        assert_eq!(piece(100, 10_000, 3996), 3996);
        assert_eq!(piece(4096, 10_000, 4000), 0);
    }
}
