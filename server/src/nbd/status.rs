//! Block status: what ranges of an export are, in the view of each context ("Metadata querying").

use super::failure::Failure;
use super::target::Target;
use crate::platform::Platform;
use umbra_proto::nbd::{CHUNK_DONE, Chunk, ChunkType, Status, Style};

/// Runs in one answer. A client asks again for what comes behind them.
const MOST_RUNS: usize = 128;
/// Runs of blocks that are looked at for one answer, per context.
const MOST_LOOKS: usize = 512;

/// A metadata context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Holes and zeros.
    Allocation,
    /// What any other position shares: bit 0.
    Sharing,
}

impl Context {
    /// All of them.
    pub const ALL: [Context; 2] = [Context::Allocation, Context::Sharing];

    /// Its name.
    pub fn name(self) -> &'static [u8] {
        match self {
            Context::Allocation => b"base:allocation",
            Context::Sharing => b"x-umbra:sharing",
        }
    }

    /// Its number on the wire, never 0.
    pub fn id(self) -> u32 {
        self as u32 + 1
    }

    /// Whether a query of a list means it: all of a namespace, or its name.
    pub fn is_listed_by(self, query: &[u8]) -> bool {
        let namespace = self.name().split_inclusive(|b| *b == b':').next();
        query == self.name() || Some(query) == namespace
    }
}

/// Some contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contexts(u8);

impl Contexts {
    /// With another one.
    #[must_use]
    pub fn with(self, context: Context) -> Self {
        Contexts(self.0 | 1 << context as u8)
    }
    /// Whether it is among them.
    pub fn has(self, context: Context) -> bool {
        self.0 >> context as u8 & 1 != 0
    }
    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Those of these that the ids of a request name; each once.
    pub fn named_by(self, ids: &[u8]) -> Option<Contexts> {
        let mut named = Contexts::default();
        for id in ids.chunks_exact(4) {
            let context = Context::ALL.into_iter().find(|c| self.has(*c) && c.id().to_be_bytes() == id)?;
            if named.has(context) {
                return None;
            }
            named = named.with(context);
        }
        Some(named)
    }
}

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

/// Writes the answer into `into`, a chunk for each context; returns its length.
pub fn answer<M: Platform>(
    target: Target,
    machine: &mut M,
    question: &Question,
    style: Style,
    (cookie, offset): (u64, u64),
    into: &mut [u8],
) -> Result<usize, Failure> {
    let mut end = 0;
    let mut last = 0;
    for context in Context::ALL.into_iter().filter(|c| question.contexts.has(*c)) {
        let front = end + style.reply_len();
        let first = front + Status::front_len(style);
        let size = Status::len(style);
        let mut count = 0;
        let most = if question.one { 1 } else { MOST_RUNS };
        walk(target, machine, context, question, most, &mut |run| {
            run.write(style, &mut into[first + count * size..]);
            count += 1;
        })?;
        Status::write_front(style, context.id(), count as u32, &mut into[front..]);
        last = end;
        end = first + count * size;
        let kind =
            if style == Style::Extended { ChunkType::BLOCK_STATUS_EXT } else { ChunkType::BLOCK_STATUS };
        let length = (end - front) as u32;
        Chunk { flags: 0, kind, cookie, offset, length }.write(style, &mut into[last..]);
    }
    // Flags are behind the magic number.
    into[last + 4..last + 6].copy_from_slice(&CHUNK_DONE.to_be_bytes());
    Ok(end)
}

/// Finds runs from the start of a range on, at most so many, and at least one.
fn walk<M: Platform>(
    target: Target,
    machine: &mut M,
    context: Context,
    question: &Question,
    most: usize,
    found: &mut dyn FnMut(Status),
) -> Result<(), Failure> {
    let mut at = question.at;
    let mut open: Option<Status> = None;
    let mut count = 0;
    for _ in 0..MOST_LOOKS {
        if at >= question.end {
            break;
        }
        let next = match target.status(machine, context, at, question.end) {
            Ok(next) => next,
            // What is known is told; the client meets the error when it asks for the rest.
            Err(_) if open.is_some() => break,
            Err(why) => return Err(why),
        };
        at += next.length;
        match &mut open {
            Some(run) if run.flags == next.flags => run.length += next.length,
            Some(run) => {
                found(*run);
                count += 1;
                open = (count < most).then_some(next);
                if open.is_none() {
                    break;
                }
            }
            None => open = Some(next),
        }
    }
    if let Some(run) = open {
        found(run);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_mean_a_namespace_or_a_name() {
        assert!(
            Context::Allocation.is_listed_by(b"base:")
                && Context::Allocation.is_listed_by(b"base:allocation")
        );
        assert!(!Context::Allocation.is_listed_by(b"base") && !Context::Allocation.is_listed_by(b"base:a"));
        assert!(Context::Sharing.is_listed_by(b"x-umbra:") && !Context::Sharing.is_listed_by(b"base:"));
    }

    #[test]
    fn ids_name_each_selected_context_once() {
        let both = Contexts::default().with(Context::Allocation).with(Context::Sharing);
        let one = Contexts::default().with(Context::Sharing);
        assert_eq!(both.named_by(&[0, 0, 0, 2]), Some(one));
        assert_eq!(both.named_by(&[0, 0, 0, 2, 0, 0, 0, 1]), Some(both));
        assert_eq!(both.named_by(&[0, 0, 0, 2, 0, 0, 0, 2]), None);
        assert_eq!(both.named_by(&[0, 0, 0, 3]), None);
        assert_eq!(one.named_by(&[0, 0, 0, 1]), None);
        assert_eq!(one.named_by(&[]), Some(Contexts::default()));
    }
}
