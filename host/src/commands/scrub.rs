//! Loading all that is in use, so that the memory reports what it cannot deliver.

use super::Context;
use super::transfer::Meter;
use crate::cli::Scrub;
use crate::output::{Class, Failure, Outcome};
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::{Duration, Instant};
use umbra::client::rpc::ScrubState;
use umbra::record;
use umbra::units::show_bytes;

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Blocks that are asked for at a time, at most: so often it is seen how far it is.
const MOST_BLOCKS: u64 = 4096;
/// So many times in a second, at least, it is seen whether it goes too fast.
const PARTS_A_SECOND: u64 = 10;

/// `umbra scrub`
pub fn scrub(context: &Context, options: Scrub) -> Outcome {
    let blocks = match options.rate {
        None => MOST_BLOCKS,
        Some(rate) => (rate / PARTS_A_SECOND / BLOCK).clamp(1, MOST_BLOCKS),
    };
    let mut client = context.connect()?;
    let meter = Meter::start("scrub");
    let start = Instant::now();
    let mut done = client.scrub(None, blocks)?;
    while done.ended.is_none() {
        meter.set(done.next * BLOCK, Some(done.total * BLOCK));
        if let Some(rate) = options.rate {
            let due = Duration::from_secs_f64((done.loaded * BLOCK) as f64 / rate.max(1) as f64);
            sleep(due.saturating_sub(start.elapsed()));
        }
        done = client.scrub(Some(done.number), blocks)?;
    }
    let took = meter.finish();
    let mut fields = fields(&done);
    fields["seconds"] = took.as_secs_f64().into();
    context.format.report(fields, || {
        let loaded = show_bytes(done.loaded * BLOCK);
        format!("{loaded} loaded in {:.2} s; {}\n", took.as_secs_f64(), findings(&done))
    })?;
    match done.lost + done.differ + done.damaged {
        0 => Ok(()),
        blocks => {
            let text = format!("{blocks} blocks are lost, differ from their copy, or are damaged");
            Err(Failure::of(Class::Other, "damaged", text))
        }
    }
}

/// A scrub, for a report.
pub fn fields(scrub: &ScrubState) -> Value {
    json!({
        "began": record::time(scrub.began),
        "ended": scrub.ended.map(record::time),
        "next": scrub.next,
        "total": scrub.total,
        "loaded": scrub.loaded,
        "pairs": scrub.pairs,
        "mended": scrub.mended,
        "differ": scrub.differ,
        "damaged": scrub.damaged,
        "lost": scrub.lost,
    })
}

/// What a scrub found, for people.
pub fn findings(scrub: &ScrubState) -> String {
    let found = [
        (scrub.lost, "blocks cannot be read"),
        (scrub.mended, "copies of metadata mended"),
        (scrub.differ, "copies of metadata differ"),
        (scrub.damaged, "blocks of metadata damaged in both copies"),
    ];
    let said: Vec<String> = found
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if said.is_empty() { "nothing found".into() } else { said.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_said_where_there_are_some() {
        let none = ScrubState::default();
        assert_eq!(findings(&none), "nothing found");
        let some = ScrubState { lost: 1, mended: 2, ..none };
        assert_eq!(findings(&some), "1 blocks cannot be read, 2 copies of metadata mended");
        assert_eq!((&fields(&some)["mended"], &fields(&some)["ended"]), (&2.into(), &Value::Null));
    }
}
