//! Operations of the filesystem that may take several steps, and their answers.
//!
//! Most are small: they are over with their first step, and answered at once. Of the others each
//! step is a turn of the connection, so that other connections have theirs between two of them.

use super::attributes::attributes;
use super::failure::{During, Failure};
use super::handles::{Access, OpenFile};
use super::session::{Session, Step};
use crate::platform::{Persisted, Platform};
use crate::text::Message;
use core::fmt;
use umbra_fs::{Begun, Error, Ino, Operation, Outcome};
use umbra_proto::rpc;

/// What a step costs: about that of moving this many bytes.
pub const STEP_COST: usize = 64 << 10;

/// An operation that goes on.
pub struct Operating {
    operation: Operation,
    reply: Reply,
    /// Completes "cannot ...".
    what: Message,
}

/// How an operation is answered.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// With nothing.
    Done,
    /// The attributes of this file, with its blocks.
    Attributes(Ino),
    /// A clone: into this file, unless it makes one; what had been written back before, and when it
    /// began.
    Cloned { into: Option<Ino>, before: Persisted, start_ns: u64 },
    /// A handle for a file that was frozen.
    Frozen(u32),
    /// A handle for a file that was cut.
    Opened(u32),
    /// The handle is gone, whatever comes.
    Closed(u32),
}

impl Session {
    /// Answers an operation that has begun, or has it go on.
    pub(super) fn operate<M: Platform>(
        &mut self,
        machine: &mut M,
        begun: umbra_fs::Result<Begun>,
        reply: Reply,
        what: fmt::Arguments<'_>,
    ) -> Result<Option<Operating>, Failure> {
        match begun.inspect_err(|_| reply.fail(self, machine)).during(what)? {
            Begun::Over(outcome) => {
                reply.answer(self, machine, outcome, what)?;
                Ok(None)
            }
            Begun::GoesOn(operation) => {
                Ok(Some(Operating { operation, reply, what: Message::new(what) }))
            }
        }
    }
}

impl Operating {
    /// Takes the next step.
    pub fn step<M: Platform>(&mut self, s: &mut Session, machine: &mut M) -> Result<Step, Failure> {
        let Operating { operation, reply, what } = self;
        let outcome = machine
            .volume(|v| v.step(operation))
            .inspect_err(|_| reply.fail(s, machine))
            .during(format_args!("{what}"))?;
        let Some(outcome) = outcome else { return Ok(Step::Went(STEP_COST)) };
        reply.answer(s, machine, outcome, format_args!("{what}"))?;
        Ok(Step::Done)
    }

    /// Gives it up: the client is gone. Handles that it is about are closed with all others.
    pub fn abandon<M: Platform>(self, machine: &mut M) {
        machine.volume(|v| v.abandon(self.operation));
    }
}

impl Reply {
    /// What has to be undone, or done, when the operation has failed.
    fn fail<M: Platform>(self, s: &mut Session, machine: &mut M) {
        let (Reply::Opened(handle) | Reply::Closed(handle)) = self else { return };
        let Ok(file) = s.handles.remove(handle) else { return };
        let counters = machine.counters();
        counters.handles = counters.handles.saturating_sub(1);
        if let Reply::Opened(_) = self {
            // Nothing was done through it.
            let _ = machine.volume(|v| v.close_window(file.window));
        }
    }

    fn answer<M: Platform>(
        self,
        s: &mut Session,
        machine: &mut M,
        outcome: Outcome,
        what: fmt::Arguments<'_>,
    ) -> Result<(), Failure> {
        match (self, outcome) {
            (Reply::Attributes(ino), Outcome::Blocks(blocks)) => {
                let found = machine.volume(|v| v.attributes(ino)).during(what)?;
                s.reply(0, &attributes(found, Some(blocks)));
            }
            (Reply::Cloned { into: None, before, start_ns }, Outcome::Made(ino))
            | (Reply::Cloned { into: Some(ino), before, start_ns }, Outcome::Done) => {
                let elapsed_ns = machine.uptime_ns().saturating_sub(start_ns);
                let Persisted { flushes, fences } = machine.persisted();
                s.reply(
                    0,
                    &rpc::Cloned {
                        ino: ino.0,
                        elapsed_ns,
                        fences: fences.saturating_sub(before.fences),
                        flushes: flushes.saturating_sub(before.flushes),
                    },
                );
            }
            (Reply::Frozen(handle), Outcome::Frozen(ino, window)) => {
                let found = machine.volume(|v| Ok((v.attributes(ino)?.size, v.identity()?)));
                let (size, identity) = match found {
                    Ok(found) => found,
                    Err(error) => {
                        let _ = machine.volume(|v| v.close_window(window));
                        return Err(Failure::during(error, what));
                    }
                };
                s.handles.set(handle, OpenFile { ino, window, access: Access::Frozen });
                machine.counters().handles += 1;
                s.reply(
                    0,
                    &rpc::Opened { handle, ino: ino.0, size, identity: Some(identity.into()) },
                );
            }
            (Reply::Opened(handle), Outcome::Done) => {
                let ino = s.file(handle)?.ino;
                s.reply(0, &rpc::Opened { handle, ino: ino.0, size: 0, identity: None });
            }
            (Reply::Closed(handle), Outcome::Done) => {
                s.handles.remove(handle)?;
                let counters = machine.counters();
                counters.handles = counters.handles.saturating_sub(1);
                s.reply(0, &rpc::Done {});
            }
            (Reply::Done, Outcome::Done) => s.reply(0, &rpc::Done {}),
            _ => {
                return Err(Failure::during(
                    Error::Invalid("the operation came to something else"),
                    what,
                ));
            }
        }
        Ok(())
    }
}
