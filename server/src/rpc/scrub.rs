//! The method of a scrub.

use super::failure::{During, Failure};
use super::session::{Session, Step};
use crate::events::{Event, EventKind};
use crate::platform::Platform;
use umbra_fs::{Block, Error, Scrub};
use umbra_proto::rpc::{self, ScrubState};

/// What a step costs: all of a turn.
const STEP_COST: usize = 128 << 10;

/// A part of a scrub under way.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    number: u64,
    /// The first block behind the part.
    end: Block,
}

/// Begins a part of a scrub: of a new one, unless the request says of which.
///
/// # Errors
///
/// `busy`: another scrub has begun since.
pub fn begin<M: Platform>(machine: &mut M, r: rpc::Scrub) -> Result<Part, Failure> {
    let now = machine.now();
    let scrub = machine.volume(|v| match r.number {
        None => Ok(v.begin_scrub(now)),
        Some(number) => v
            .last_scrub()
            .filter(|scrub| scrub.number == number)
            .ok_or(Error::Busy("another scrub has begun")),
    });
    let Scrub { number, next, .. } = scrub.during(format_args!("scrub the volume"))?;
    Ok(Part { number, end: Block(next.0.saturating_add(r.blocks)) })
}

/// Takes a step of a part, and answers when it is over.
///
/// # Errors
///
/// `busy`: another scrub has begun since.
pub fn step<M: Platform>(s: &mut Session, machine: &mut M, part: Part) -> Result<Step, Failure> {
    let now = machine.now();
    let Part { number, end } = part;
    let (went_on, scrub) = machine.volume(|v| {
        let went_on = v.last_scrub().is_some_and(|before| before.ended.is_none());
        (went_on, v.scrub_step(number, end, now))
    });
    let scrub = scrub.during(format_args!("scrub the volume"))?;
    if scrub.ended.is_some() && went_on {
        let (number, time, kind) = (0, now, EventKind::Scrubbed);
        let count = Some(scrub.findings());
        machine.add_event(Event { number, time, kind, address: None, block: None, count });
    }
    if scrub.ended.is_none() && (scrub.next < end || scrub.next.0 >= scrub.total) {
        return Ok(Step::Went(STEP_COST));
    }
    s.reply(0, &state(scrub));
    Ok(Step::Done)
}

/// A scrub, as it goes over the wire.
pub fn state(scrub: Scrub) -> ScrubState {
    ScrubState {
        number: scrub.number,
        began: scrub.began.0,
        ended: scrub.ended.map(|time| time.0),
        next: scrub.next.0,
        total: scrub.total,
        loaded: scrub.loaded,
        pairs: scrub.pairs,
        mended: scrub.mended,
        differ: scrub.differ,
        damaged: scrub.damaged,
        lost: scrub.lost,
    }
}
