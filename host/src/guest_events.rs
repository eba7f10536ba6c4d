//! What happened to the guest's memory, over all runs: the guest says it on its console, and the
//! supervisor keeps it.
//!
//! `guest-events.jsonl` has one JSON object a line, the oldest first, as the [`record`] of the
//! state directory has it. It is another file, because a memory that fails has much to say, and
//! must not push the last end of a server out of that record.
//!
//! | field     | what                                                                    |
//! |-----------|-------------------------------------------------------------------------|
//! | `time`    | when, as `2026-11-27T20:15:42.123Z`                                     |
//! | `kind`    | what: a name of small letters and dashes, which `docs/protocols.md` has |
//! | `number`  | counts the events of a run                                              |
//! | `address` | the physical address in bytes, if there is one                          |
//! | `block`   | the first block of the NVDIMM, if there is one                          |
//! | `count`   | how many, if that is said                                               |
//!
//! A file of 256 KiB is put aside as `guest-events.jsonl.1`.

use crate::log::Log;
use crate::record;
use crate::state::StateDir;
use serde_json::{Map, Value};

/// The file's name in the state directory.
pub const NAME: &str = "guest-events.jsonl";
/// A file of so many bytes is put aside.
const LIMIT: u64 = 256 << 10;
/// What the guest's line has before the event.
const MARK: &str = "] event: ";

/// Something that happened to the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestEvent {
    /// Counts the events of a run, from 1 on.
    pub number: u64,
    /// Nanoseconds since 1970-01-01 UTC.
    pub time: i64,
    /// What: a name of small letters and dashes.
    pub kind: String,
    /// A physical address, in bytes.
    pub address: Option<u64>,
    /// A block of the served NVDIMM.
    pub block: Option<u64>,
    /// How many.
    pub count: Option<u64>,
}

impl GuestEvent {
    /// Reads a line of the guest's log: `event: NUMBER TIME KIND`, and then `address=N`, `block=N`
    /// and `count=N`, in decimal digits. `None`: it says something else.
    pub fn in_line(line: &str) -> Option<GuestEvent> {
        let (_, said) = line.split_once(MARK)?;
        let mut words = said.split_ascii_whitespace();
        let (number, time, kind) = (words.next()?, words.next()?, words.next()?);
        let is_name = kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        let (number, time) = (number.parse().ok()?, time.parse().ok()?);
        let mut event = GuestEvent { number, time, ..GuestEvent::default() };
        event.kind = is_name.then(|| kind.to_string())?;
        for word in words {
            let (key, value) = word.split_once('=')?;
            let value = Some(value.parse().ok()?);
            match key {
                "address" => event.address = value,
                "block" => event.block = value,
                "count" => event.count = value,
                // One of a later version.
                _ => {}
            }
        }
        Some(event)
    }

    /// As the file and reports have it.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("time".into(), record::time(self.time).into());
        fields.insert("kind".into(), self.kind.as_str().into());
        fields.insert("number".into(), self.number.into());
        for (key, value) in
            [("address", self.address), ("block", self.block), ("count", self.count)]
        {
            if let Some(value) = value {
                fields.insert(key.into(), value.into());
            }
        }
        Value::Object(fields)
    }
}

/// Keeps events, for the holder of the state's lock.
#[derive(Debug)]
pub struct Keeper {
    state: StateDir,
    /// Open since the first event.
    log: Option<Log>,
}

impl Keeper {
    /// For the guest of this state directory.
    pub fn new(state: &StateDir) -> Keeper {
        Keeper { state: state.clone(), log: None }
    }

    /// Keeps the event of a line of the console, if it has one. Where that cannot be written, it is
    /// left out: a full disk must not stop the guest.
    pub fn hear(&mut self, line: &str) {
        let Some(event) = GuestEvent::in_line(line) else { return };
        if self.log.is_none() {
            self.log = Log::continued(&self.state.file(NAME), LIMIT).ok();
        }
        if let Some(log) = &mut self.log {
            let _ = log.write(format!("{}\n", event.to_json()).as_bytes());
        }
    }
}

/// All events that are kept, the oldest first.
pub fn kept(state: &StateDir) -> Vec<Value> {
    record::read(state, NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_of_the_guest_are_events_or_are_not() {
        let line = "[    1.000002] event: 3 1764318600123000000 memory-error address=4294967296 \
                    block=0 count=1 later=7";
        let (address, block, count) = (Some(1 << 32), Some(0), Some(1));
        let kind = "memory-error".to_string();
        let time = 1_764_318_600_123_000_000;
        let expected = GuestEvent { number: 3, time, kind, address, block, count };
        assert_eq!(GuestEvent::in_line(line), Some(expected.clone()));
        let fields = json!({
            "time": "2025-11-28T08:30:00.123Z", "kind": "memory-error", "number": 3,
            "address": 4_294_967_296u64, "block": 0, "count": 1,
        });
        assert_eq!(expected.to_json(), fields);
        let short = GuestEvent::in_line("umbra> [    1.0] event: 1 -5 x").unwrap();
        assert_eq!((short.number, short.time, short.block), (1, -5, None));
        for other in [
            "",
            "event: 1 2 kind",
            "] event: 1 2",
            "] event: -1 2 kind",
            "] event: 1 x kind",
            "] event: 1 2 \u{1b}[31m",
            "] event: 1 2 kind block",
            "] event: 1 2 kind block=-1",
            "] event: 1 2 kind block=99999999999999999999",
        ] {
            assert_eq!(GuestEvent::in_line(other), None, "{other:?}");
        }
    }

    #[test]
    fn events_are_kept_over_runs_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        assert_eq!(kept(&state), Vec::<Value>::new());
        for run in 0..2 {
            let mut keeper = Keeper::new(&state);
            keeper.hear("[    0.1] something else");
            keeper.hear(&format!("[    0.1] event: 1 {run} memory-error block=7"));
        }
        let times: Vec<Value> = kept(&state).iter().map(|event| event["time"].clone()).collect();
        assert_eq!(times.len(), 2);
        let mut keeper = Keeper::new(&state);
        for number in 1..=20_000 {
            keeper.hear(&format!("[    0.1] event: {number} {number} memory-error block=7"));
        }
        let sizes = [state.file(NAME), Log::aside(&state.file(NAME))]
            .map(|path| std::fs::metadata(path).unwrap().len());
        assert!(sizes.iter().all(|&size| size <= LIMIT), "{sizes:?}");
        assert_eq!(kept(&state).last().unwrap()["number"], 20_000);
    }
}
