//! What `umbra status` says of the guest's memory.

use serde_json::{Map, Value};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use umbra::client::{Client, rpc};
use umbra::state::StateDir;

/// How long the server may take to answer: a status is shown without it, too.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the server counts, as reports name it and as people read it. `None`: it is an older one.
pub struct Media(Vec<(&'static str, &'static str, Option<u64>)>);

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
        Media(vec![
            ("memory_errors", "memory errors that lost data", status.memory_errors),
            ("corrected_errors", "memory errors corrected", status.corrected_errors),
            ("unrecorded_errors", "memory errors not recorded", status.unrecorded_errors),
            ("bad_blocks", "on the list of bad blocks (umbra poison list)", status.bad_blocks),
            ("mended_copies", "copies of metadata mended", status.mended_copies),
        ])
    }

    /// For a report.
    pub fn fields(&self) -> Value {
        let field = |&(name, _, count): &(&str, &str, Option<u64>)| (name.into(), count.into());
        Value::Object(self.0.iter().map(field).collect::<Map<String, Value>>())
    }

    /// For people: nothing where nothing happened.
    pub fn text(&self) -> String {
        let happened = self.0.iter().filter_map(|&(_, what, count)| {
            let count = count.filter(|&count| count > 0)?;
            Some(format!("{count} {what}"))
        });
        let said: Vec<String> = happened.collect();
        if said.is_empty() { String::new() } else { format!("media:   {}\n", said.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_said() {
        let counts = |errors, mended| Media(vec![("a", "errors", errors), ("b", "mended", mended)]);
        assert_eq!(counts(Some(0), None).text(), "");
        assert_eq!(counts(Some(2), Some(1)).text(), "media:   2 errors, 1 mended\n");
        let fields = counts(Some(2), None).fields();
        assert_eq!((&fields["a"], &fields["b"]), (&2.into(), &Value::Null));
    }
}
