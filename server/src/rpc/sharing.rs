//! Dedupe, a few blocks at a time.

use super::failure::{During, Failure};
use super::session::{Session, Step};
use super::subject::checked_path;
use crate::platform::Platform;
use crate::text::Shown;
use alloc::vec::Vec;
use umbra_fs::memory::copy;
use umbra_fs::{Dedupe, Error};
use umbra_proto::rpc;

/// What a step costs: about that of moving this many bytes.
const STEP_COST: usize = 64 << 10;

/// A dedupe under way.
pub struct Sharing {
    work: Dedupe,
    start_ns: u64,
    /// For messages.
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Sharing {
    /// Starts.
    pub fn new<M: Platform>(machine: &mut M, r: rpc::Dedupe) -> Result<Self, Failure> {
        checked_path(r.from)?;
        checked_path(r.to)?;
        let what = format_args!("dedupe {} and {}", Shown(r.from), Shown(r.to));
        let (source, destination) = (copy(r.from).during(what)?, copy(r.to).during(what)?);
        let start_ns = machine.uptime_ns();
        let work = machine
            .volume(|v| {
                let (from, to) = (v.resolve(r.from)?, v.resolve(r.to)?);
                let len = match r.len {
                    Some(len) => len,
                    None => (v.attributes(from)?.size)
                        .checked_sub(r.from_offset)
                        .ok_or(Error::Invalid("the range starts beyond the end of the source"))?,
                };
                v.dedupe(from, r.from_offset, to, r.to_offset, len)
            })
            .during(what)?;
        Ok(Sharing { work, start_ns, from: source, to: destination })
    }

    /// Gives it up: the client is gone.
    pub fn abandon<M: Platform>(mut self, machine: &mut M) {
        machine.volume(|v| v.abandon_dedupe(&mut self.work));
    }

    /// Takes the next step.
    pub fn step<M: Platform>(&mut self, s: &mut Session, machine: &mut M) -> Result<Step, Failure> {
        let done = machine.volume(|v| v.dedupe_step(&mut self.work)).during(format_args!(
            "dedupe {} and {}",
            Shown(&self.from),
            Shown(&self.to)
        ))?;
        let Some(done) = done else { return Ok(Step::Went(STEP_COST)) };
        let elapsed_ns = machine.uptime_ns().saturating_sub(self.start_ns);
        s.reply(0, &rpc::Deduped { shared: done.shared, differs_at: done.differs_at, elapsed_ns });
        Ok(Step::Done)
    }
}
