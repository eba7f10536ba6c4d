//! What `umbra status` says of the guest's memory.

use super::scrub;
use serde_json::{Map, Value};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use umbra::client::{Client, rpc};
use umbra::record;
use umbra::state::StateDir;

/// How long the server may take to answer: a status is shown without it, too.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the server counts, as reports name it and as people read it. `None`: it is an older one.
pub struct Media {
    counts: Vec<(&'static str, &'static str, Option<u64>)>,
    /// The last scrub.
    scrub: Option<rpc::ScrubState>,
}

/// Asks the server; `None`: it does not answer in time.
pub fn ask(state: &StateDir) -> Option<Media> {
    let (sender, answer) = channel();
    let state = state.clone();
    // It may wait for longer. Then it ends with this process.
    thread::spawn(move || {
        let status = Client::connect(&state).and_then(|mut client| client.status());
        let _ = sender.send(status.ok().as_ref().map(Media::of));
    });
    answer.recv_timeout(PATIENCE).ok().flatten()
}

impl Media {
    fn of(status: &rpc::StatusResponse) -> Media {
        let counts = vec![
            ("memory_errors", "memory errors that lost data", status.memory_errors),
            ("corrected_errors", "memory errors corrected", status.corrected_errors),
            ("unrecorded_errors", "memory errors not recorded", status.unrecorded_errors),
            ("bad_blocks", "on the list of bad blocks (umbra poison list)", status.bad_blocks),
            ("mended_copies", "copies of metadata mended", status.mended_copies),
        ];
        Media { counts, scrub: status.scrub }
    }

    /// For a report.
    pub fn fields(&self) -> Value {
        let field = |&(name, _, count): &(&str, &str, Option<u64>)| (name.into(), count.into());
        let mut fields: Map<String, Value> = self.counts.iter().map(field).collect();
        fields.insert("scrub".into(), self.scrub.as_ref().map_or(Value::Null, scrub::fields));
        Value::Object(fields)
    }

    /// For people: nothing where nothing happened.
    pub fn text(&self) -> String {
        let happened = self.counts.iter().filter_map(|&(_, what, count)| {
            let count = count.filter(|&count| count > 0)?;
            Some(format!("{count} {what}"))
        });
        let said: Vec<String> = happened.collect();
        let mut text = match said.is_empty() {
            true => String::new(),
            false => format!("media:   {}\n", said.join(", ")),
        };
        if let Some(last) = &self.scrub {
            let how_far = match last.ended {
                Some(ended) => format!("ended at {}", record::time(ended)),
                None => format!("at block {} of {}", last.next, last.total),
            };
            text.push_str(&format!("scrub:   {how_far}; {}\n", scrub::findings(last)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_said() {
        let counts = |errors, mended| Media {
            counts: vec![("a", "errors", errors), ("b", "mended", mended)],
            scrub: None,
        };
        assert_eq!(counts(Some(0), None).text(), "");
        assert_eq!(counts(Some(2), Some(1)).text(), "media:   2 errors, 1 mended\n");
        let fields = counts(Some(2), None).fields();
        assert_eq!((&fields["a"], &fields["b"]), (&2.into(), &Value::Null));
        let (next, total, lost) = (5, 10, 1);
        let scrub = rpc::ScrubState { next, total, lost, ..Default::default() };
        let media = Media { scrub: Some(scrub), ..counts(None, None) };
        assert_eq!(media.text(), "scrub:   at block 5 of 10; 1 blocks cannot be read\n");
        assert_eq!(media.fields()["scrub"]["lost"], 1);
    }
}
