//! Memory errors, and what happened.

use super::{Context, server_path, shown};
use crate::cli::{Events, Poison, PoisonInject};
use crate::names;
use crate::output::{Failure, Outcome, one_line, say};
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal};
use umbra::client::rpc::{self, BadBlock, ErrorCode, loss};
use umbra::guest_events::{self, GuestEvent};
use umbra::record;
use umbra::units::show_bytes;

/// `umbra poison`
pub fn poison(context: &Context, options: Poison) -> Outcome {
    match options {
        Poison::List => list(context),
        Poison::Inject(it) => inject(context, it),
        Poison::Clear { yes } => {
            let question = "The server will read what the bad blocks hold as it is. Go on?";
            confirm(yes, question)?;
            let cleared = context.connect()?.clear_bad_blocks()?;
            context.format.report(json!({ "cleared": cleared }), || {
                format!("{cleared} blocks were on the list\n")
            })
        }
    }
}

/// Asks, where somebody is there to answer.
fn confirm(yes: bool, question: &str) -> Outcome {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is there to be asked: say --yes"));
    }
    say(&format!("{question} (yes or no)"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Failure::while_doing("read the answer"))?;
    match answer.trim() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was done")),
    }
}

fn inject(context: &Context, options: PoisonInject) -> Outcome {
    let path = options.path.as_deref().map(server_path);
    let what = match (&path, options.block) {
        (Some(path), _) => shown(path),
        (None, block) => format!("block {}", block.unwrap_or_default()),
    };
    confirm(options.yes, &format!("What the block has of {what} will be lost. Go on?"))?;
    let mut client = context.connect()?;
    let block = match (path, options.block) {
        (Some(path), _) => client.lose_block_of(&path, options.offset.unwrap_or_default())?,
        (None, block) => {
            let block = block.unwrap_or_default();
            client.lose_block(block)?;
            block
        }
    };
    context.format.report(json!({ "block": block }), || format!("block {block} is lost\n"))
}

fn list(context: &Context) -> Outcome {
    let items = context.connect()?.bad_blocks()?;
    let blocks: Vec<Listed<'_>> = items
        .iter()
        .filter(|item| item.ino.is_none())
        .map(|bad| {
            let owns = |item: &&BadBlock| item.ino.is_some() && item.block == bad.block;
            Listed { bad, owners: items.iter().filter(owns).collect() }
        })
        .collect();
    let fields = json!({ "blocks": blocks.iter().map(Listed::fields).collect::<Vec<_>>() });
    context.format.report(fields, || blocks.iter().map(Listed::text).collect::<String>())
}

/// A bad block with the ranges of files that have it.
struct Listed<'a> {
    bad: &'a BadBlock,
    owners: Vec<&'a BadBlock>,
}

impl Listed<'_> {
    fn fields(&self) -> Value {
        let owner = |owner: &&BadBlock| {
            let mut fields = json!({
                "inode": owner.ino,
                "loss": loss_name(owner.loss),
                "offset": owner.offset,
                "length": owner.len,
            });
            let path = Some(&owner.path[..]).filter(|path| !path.is_empty());
            names::insert(&mut fields, "path", path);
            fields
        };
        json!({
            "block": self.bad.block,
            "out_of_use": self.bad.out_of_use,
            "owners": self.owners.iter().map(owner).collect::<Vec<_>>(),
            "more": self.bad.more,
        })
    }

    fn text(&self) -> String {
        let BadBlock { block, out_of_use, more, .. } = self.bad;
        let what = match (out_of_use, self.owners.is_empty() && *more == 0) {
            (true, _) => "nothing has it; it is out of use",
            (false, true) => "it describes the volume",
            (false, false) => "lost by",
        };
        let mut text = format!("block {block}: {what}\n");
        for owner in &self.owners {
            let path = match owner.path.is_empty() {
                true => format!("inode {} (no name)", owner.ino.unwrap_or_default()),
                false => shown(&owner.path),
            };
            let range = match (owner.offset, owner.len) {
                (Some(offset), Some(len)) if len > 0 => {
                    format!("  {} from {offset:#x} on", show_bytes(len))
                }
                _ => String::new(),
            };
            text.push_str(&format!("  {path}{range}  ({})\n", loss_name(owner.loss)));
        }
        if *more > 0 {
            text.push_str(&format!("  and {more} more ranges\n"));
        }
        text
    }
}

/// What a file loses, in a word.
fn loss_name(what: Option<rpc::Loss>) -> &'static str {
    match what {
        Some(loss::CONTENT) => "content",
        Some(loss::NODE) => "node",
        Some(loss::INODE) => "inode",
        Some(loss::NAMES) => "names",
        _ => "unknown",
    }
}

/// `umbra events`
pub fn events(context: &Context, options: Events) -> Outcome {
    let since = options.since.unwrap_or_default();
    if !since.chars().all(|c| c.is_ascii_digit() || "-:.TZ".contains(c)) {
        let text = format!("'{since}' is no time: the start of 2026-11-28T09:30:00.000Z, in UTC");
        return Err(Failure::usage(text));
    }
    let mut all = record::events(&context.state);
    let mut of_guests = guest_events::kept(&context.state);
    // The server's last events may not have come to the file yet.
    for event in of_server(context)? {
        if !of_guests.contains(&event) {
            of_guests.push(event);
        }
    }
    all.append(&mut of_guests);
    let time = |event: &Value| event["time"].as_str().unwrap_or_default().to_string();
    all.retain(|event| time(event) >= since);
    all.sort_by_key(time);
    let text = || all.iter().map(line).collect::<String>();
    context.format.report(json!({ "events": all }), text)
}

/// What the server knows of, if one runs.
fn of_server(context: &Context) -> Outcome<Vec<Value>> {
    if !context.state.is_locked() {
        return Ok(Vec::new());
    }
    let events = match context.connect()?.events(0) {
        Err(error) if error.is(ErrorCode::UNSUPPORTED) => Vec::new(),
        events => events?,
    };
    let object = |event: rpc::Event| {
        let rpc::Event { number, time, kind, address, block, count } = event;
        GuestEvent { number, time, kind: kind.0, address, block, count }.to_json()
    };
    Ok(events.into_iter().map(object).collect())
}

/// An event as a line.
fn line(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("?").to_string();
    let mut line = format!("{}  {}", text("time"), text("kind"));
    for (key, value) in event.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("time" | "kind" | "number" | "boot_id", _) | (_, Value::Null) => {}
            ("address", Value::Number(number)) => {
                line.push_str(&format!("  address {:#x}", number.as_u64().unwrap_or_default()));
            }
            (key, Value::String(value)) => line.push_str(&format!("  {key}: {value}")),
            (key, value) => line.push_str(&format!("  {key} {value}")),
        }
    }
    format!("{}\n", one_line(&line))
}
