//! Block status: what ranges of an export are, in the view of each context ("Metadata querying").

use super::backing::Backing;
use super::contexts::{Context, Contexts};
use super::failure::Failure;
use super::queue::Pending;
use crate::platform::Platform;
use umbra_proto::nbd::{CHUNK_DONE, Chunk, ChunkType, Status, Style};

/// Runs in one answer. A client asks again for what comes behind them.
const MOST_RUNS: usize = 128;
/// Runs of blocks that are looked at for one answer, per context. Of holes it takes few: see
/// [`umbra_fs::Volume::extent`].
const MOST_LOOKS: usize = 512;
/// The same, for one step.
const LOOKS_A_STEP: usize = 8;

/// A question for the status of a range.
pub struct Question {
    /// First byte.
    pub at: u64,
    /// Behind its last byte.
    pub end: u64,
    /// One run is enough.
    pub one: bool,
    /// For these contexts.
    pub contexts: Contexts,
}

/// An answer that is put together in steps, where it will be sent from: a chunk for each context.
pub struct Answer {
    /// What is answered.
    pub pending: Pending,
    question: Question,
    /// The context of the chunk, by its place among all.
    context: usize,
    /// Where the chunk begins, and where the next run goes.
    chunk: usize,
    end: usize,
    /// What is looked at next, and how often that was done for this chunk.
    at: u64,
    looks: usize,
    /// The run that is growing, and how many were written before it.
    open: Option<Status>,
    count: usize,
}

impl Answer {
    /// An answer that has nothing yet.
    pub fn new(pending: Pending, question: Question) -> Self {
        let at = question.at;
        let (context, chunk, end) = (0, 0, 0);
        Answer { pending, question, context, chunk, end, at, looks: 0, open: None, count: 0 }
    }

    /// Looks at a bounded number of runs. Returns the length of the answer when it is complete.
    pub fn step<M: Platform>(
        &mut self,
        backing: Backing,
        machine: &mut M,
        style: Style,
        into: &mut [u8],
    ) -> Result<Option<usize>, Failure> {
        let most = if self.question.one { 1 } else { MOST_RUNS };
        for _ in 0..LOOKS_A_STEP {
            let Some(&context) = Context::ALL.get(self.context) else { return Ok(Some(self.end)) };
            if !self.question.contexts.has(context) {
                self.context += 1;
                continue;
            }
            if self.end == self.chunk {
                self.end = self.chunk + style.reply_len() + Status::front_len(style);
            }
            if self.at >= self.question.end || self.count == most || self.looks == MOST_LOOKS {
                self.finish_chunk(context, style, into);
                continue;
            }
            self.looks += 1;
            match backing.status(machine, context, self.at, self.question.end) {
                Ok(next) => self.add(next, most, style, into),
                // What is known is told; the client meets the error when it asks for the rest.
                Err(_) if self.at > self.question.at => self.looks = MOST_LOOKS,
                Err(why) => return Err(why),
            }
        }
        Ok(None)
    }

    /// Takes in what was found next.
    fn add(&mut self, next: Status, most: usize, style: Style, into: &mut [u8]) {
        self.at += next.length;
        match &mut self.open {
            Some(run) if run.flags == next.flags => run.length += next.length,
            open => {
                if let Some(run) = open.replace(next) {
                    self.write(run, style, into);
                    if self.count == most {
                        self.open = None;
                    }
                }
            }
        }
    }

    fn write(&mut self, run: Status, style: Style, into: &mut [u8]) {
        run.write(style, &mut into[self.end..]);
        self.end += Status::len(style);
        self.count += 1;
    }

    /// Writes what comes before the runs, and goes on to the next context.
    fn finish_chunk(&mut self, context: Context, style: Style, into: &mut [u8]) {
        if let Some(run) = self.open.take() {
            self.write(run, style, into);
        }
        let front = self.chunk + style.reply_len();
        Status::write_front(style, context.id(), self.count as u32, &mut into[front..]);
        let kind = if style == Style::Extended {
            ChunkType::BLOCK_STATUS_EXT
        } else {
            ChunkType::BLOCK_STATUS
        };
        let more = Context::ALL[self.context + 1..].iter().any(|c| self.question.contexts.has(*c));
        let flags = if more { 0 } else { CHUNK_DONE };
        let Pending { cookie, offset, .. } = self.pending;
        let length = (self.end - front) as u32;
        Chunk { flags, kind, cookie, offset, length }.write(style, &mut into[self.chunk..]);
        self.context += 1;
        self.chunk = self.end;
        (self.at, self.looks, self.count) = (self.question.at, 0, 0);
    }
}
