//! One function for each command.
//!
//! | file            | commands                                                |
//! |-----------------|---------------------------------------------------------|
//! | `vm.rs`         | up, down, status, console                               |
//! | `media.rs`      | what `status` says of the guest's memory                |
//! | `files.rs`      | ls, stat, rm, mv, mkdir, truncate, df, clone, dedupe    |
//! | `links.rs`      | ln, readlink                                            |
//! | `transfer.rs`   | put, get                                                |
//! | `mapping.rs`    | poke, peek, pages, check                                |
//! | `bench.rs`      | bench                                                   |
//! | `export.rs`     | export                                                  |
//! | `poison.rs`     | poison, events                                          |
//! | `scrub.rs`      | scrub                                                   |
//! | `relay.rs`      | relay                                                   |
//! | `generate.rs`   | completions, man                                        |

mod bench;
mod export;
mod files;
mod generate;
mod links;
mod mapping;
mod media;
mod poison;
mod relay;
mod scrub;
mod transfer;
mod vm;

use crate::cli::{Cli, Command};
use crate::names::{self, escaped};
use crate::output::{Class, Failure, Format, Outcome};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use umbra::client::Client;
use umbra::launch::{detach, leash};
use umbra::state::StateDir;

/// What every command needs.
struct Context {
    state: StateDir,
    format: Format,
}

impl Context {
    fn connect(&self) -> Outcome<Client> {
        Ok(Client::connect(&self.state)?)
    }

    /// No server runs.
    fn not_running(&self) -> Failure {
        let state = self.state.path().display();
        let text = format!("no server is running for state {state}; start one with `umbra up`");
        Failure::of(Class::NotRunning, "not-running", text)
    }
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Outcome {
    let format = if cli.json { Format::Json } else { Format::Text };
    // These two are this program in another role; they have no state of their own.
    match &cli.command {
        Some(Command::Leash(it)) => {
            return Err(Failure::new(leash::run(it.parent, &it.program, &it.arguments)));
        }
        Some(Command::Supervise { options }) => return Ok(detach::run(options)?),
        Some(Command::Completions(it)) => return generate::completions(format, it),
        Some(Command::Man(it)) => return generate::man(format, it),
        _ => {}
    }
    let context = Context { state: StateDir::locate(cli.state.as_deref())?, format };
    match cli.command {
        None => vm::up(&context, vm::default_up()),
        Some(Command::Up(it)) => vm::up(&context, it),
        Some(Command::Down) => vm::down(&context),
        Some(Command::Status) => vm::status(&context),
        Some(Command::Console(it)) => vm::console(&context, it),
        Some(Command::Put(it)) => transfer::put(&context, it),
        Some(Command::Get(it)) => transfer::get(&context, it),
        Some(Command::Ls(it)) => files::ls(&context, it),
        Some(Command::Stat(it)) => files::stat(&context, it),
        Some(Command::Rm(it)) => files::rm(&context, it),
        Some(Command::Mv(it)) => files::mv(&context, it),
        Some(Command::Ln(it)) => links::ln(&context, it),
        Some(Command::Readlink(it)) => links::readlink(&context, it),
        Some(Command::Mkdir(it)) => files::mkdir(&context, it),
        Some(Command::Truncate(it)) => files::truncate(&context, it),
        Some(Command::Df) => files::df(&context),
        Some(Command::Clone(it)) => files::clone(&context, it),
        Some(Command::Dedupe(it)) => files::dedupe(&context, it),
        Some(Command::Bench(it)) => bench::bench(&context, it),
        Some(Command::Poke(it)) => mapping::poke(&context, it),
        Some(Command::Peek(it)) => mapping::peek(&context, it),
        Some(Command::Pages(it)) => mapping::pages(&context, it),
        Some(Command::Check) => mapping::check(&context),
        Some(Command::Poison(it)) => poison::poison(&context, it),
        Some(Command::Scrub(it)) => scrub::scrub(&context, it),
        Some(Command::Events(it)) => poison::events(&context, it),
        Some(Command::Export(it)) => export::export(&context, it),
        Some(Command::Relay(it)) => relay::relay(&context, it),
        Some(
            Command::Leash(_)
            | Command::Supervise { .. }
            | Command::Completions(_)
            | Command::Man(_),
        ) => {
            unreachable!("handled above")
        }
    }
}

/// A path on the server: bytes from the root, whether it was typed with a first `/` or not. Where
/// nothing was typed (a variable that is not set) it is no path, and the server says so.
fn server_path(typed: &OsStr) -> Vec<u8> {
    let bytes = typed.as_bytes();
    if bytes.is_empty() {
        return Vec::new();
    }
    let mut path = Vec::with_capacity(bytes.len() + 1);
    if bytes.first() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(bytes);
    path
}

/// A destination: one that ends in `/`, `.` or `..` is a directory, and gets the last name of the
/// source.
fn destination(typed: &OsStr, source: &[u8]) -> Outcome<Vec<u8>> {
    let mut path = server_path(typed);
    if path.is_empty() {
        return Ok(path);
    }
    let last = path.rsplit(|&byte| byte == b'/').next();
    if last.is_none_or(|last| matches!(last, b"" | b"." | b"..")) {
        let name = source.rsplit(|&byte| byte == b'/').find(|name| !name.is_empty());
        let name = name.ok_or_else(|| {
            Failure::new(format!("{} is a directory: give the file in it a name", shown(&path)))
        })?;
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(name);
    }
    Ok(path)
}

/// A path in a message.
fn shown(path: &[u8]) -> String {
    escaped(path)
}

/// A report with paths.
fn report_of(paths: &[(&str, &[u8])], mut fields: Value) -> Value {
    for (key, path) in paths {
        names::insert(&mut fields, key, Some(path));
    }
    fields
}

/// Does something to each of several paths. A failure does not keep the others from it, unless the
/// connection broke. Each is said when it happens, and how many there were at the end.
fn for_each(
    context: &Context,
    paths: &[OsString],
    done_is: &str,
    mut act: impl FnMut(&mut Client, &[u8]) -> Outcome,
) -> Outcome {
    let mut client = context.connect()?;
    let (mut done, mut failed, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let path = server_path(path);
        let of_path = |fields| report_of(&[("path", &path)], fields);
        match act(&mut client, &path) {
            Ok(()) => done.push(of_path(json!({}))),
            Err(failure) => {
                if context.format == Format::Text && paths.len() > 1 {
                    context.format.fail(&failure);
                }
                failed.push(of_path(json!({ "error": failure.to_json() })));
                let fatal = failure.is_fatal();
                failures.push(failure);
                if fatal {
                    break;
                }
            }
        }
    }
    if context.format == Format::Json {
        context.format.report(json!({ done_is: done, "failed": failed }), String::new)?;
    }
    match failures.len() {
        0 => Ok(()),
        1 if paths.len() == 1 => Err(failures.remove(0)),
        _ => {
            let left = paths.len() - done.len();
            let text = format!("{left} of {} arguments were not {done_is}", paths.len());
            Err(Failure::several(&failures, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_take_the_name_of_the_source() {
        let at =
            |to: &str, from: &str| destination(OsStr::new(to), from.as_bytes()).map(|p| shown(&p));
        assert_eq!(at("/a", "/b/c").unwrap(), "/a");
        assert_eq!(at("a", "c").unwrap(), "/a");
        assert_eq!(at("/a/", "/b/c").unwrap(), "/a/c");
        assert_eq!(at("/", "x/").unwrap(), "/x");
        assert_eq!(at(".", "/b/c").unwrap(), "/./c");
        assert_eq!(at("/a/..", "/b/c").unwrap(), "/a/../c");
        assert_eq!(at("/a/.b", "/b/c").unwrap(), "/a/.b");
        assert!(at("/a/", "/").is_err());
        assert_eq!(at("", "/a").unwrap(), "", "an empty path is not the root");
    }
}
