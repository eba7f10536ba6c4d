//! Payloads of writes, as they come.

use super::failure::Failure;
use super::queue::{Pending, Work};
use super::transmission::{Input, PARKED, Payload, Step, Transmission};
use crate::platform::Platform;
use crate::stream::{Stream, WORD, take};
use umbra_fs::BLOCK_SIZE;
use umbra_proto::nbd::{Request, command_flags};

/// Most bytes of one step.
const PIECE: usize = 64 << 10;

impl Payload {
    /// A write that is allowed.
    pub fn new(request: &Request) -> Self {
        Payload {
            cookie: request.cookie,
            offset: request.offset,
            at: request.offset,
            left: request.length,
            fua: request.has(command_flags::FUA),
            failed: None,
        }
    }
}

impl Transmission {
    /// Takes in a piece of the payload of a write.
    pub(super) fn payload<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
    ) -> Step {
        let Input::Write(write) = &mut self.input else { return Step::Wait };
        if write.left == 0 {
            let work = match write.failed {
                Some((why, at)) => Work::Failed(why, Some(at)),
                None if write.fua => Work::Sync,
                None => Work::Done,
            };
            let pending = Pending::new(write.cookie, write.offset, work);
            self.push(pending);
            return Step::Went(0);
        }
        let received = stream.received();
        if received.is_empty() {
            return Step::Wait;
        }
        let most = (received.len().min(PIECE) as u64).min(write.left);
        if write.failed.is_some() {
            stream.consume(most as usize);
            write.left -= most;
            return Step::Went(most as usize);
        }
        let within = write.at % BLOCK_SIZE;
        let is_part = within != 0 || write.left < BLOCK_SIZE;
        if is_part && self.backing.is_parked(machine) {
            return Step::Went(PARKED);
        }
        let n = if is_part {
            // A part of a block: what is here of it, up to its last whole word.
            let end = write.left.min(BLOCK_SIZE - within);
            if most >= end { end } else { most.saturating_sub((within + most) % WORD) }
        } else {
            most - most % BLOCK_SIZE
        };
        if n > 0 {
            let bytes = &received[..n as usize];
            let result = match is_part {
                true => self.backing.store(machine, write.at, bytes),
                false => self.backing.write(machine, write.at, bytes),
            };
            stream.consume(n as usize);
            write.advance(n, result);
            return Step::Went(n as usize);
        }
        // A block or a word that is cut by the end of the contiguous part: put together, so that it
        // is written as a whole. It is never more than the smallest receive window.
        let unit = if is_part { WORD } else { BLOCK_SIZE };
        let n = (unit - write.at % unit).min(write.left) as usize;
        if stream.available() < n {
            return Step::Wait;
        }
        let joined = &mut self.block[..n];
        take(stream, joined);
        let result = match is_part {
            true => self.backing.store(machine, write.at, joined),
            false => self.backing.write(machine, write.at, joined),
        };
        write.advance(n as u64, result);
        Step::Went(n)
    }
}

impl Payload {
    /// So many bytes of the payload were consumed.
    fn advance(&mut self, n: u64, result: Result<(), (usize, Failure)>) {
        if let Err((done, why)) = result {
            self.failed = Some((why, self.at + done as u64));
        }
        self.at += n;
        self.left -= n;
    }
}
