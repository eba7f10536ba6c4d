//! The `umbra` program: parses the command line, does what it says, reports.
//!
//! | file            | what                                             |
//! |-----------------|--------------------------------------------------|
//! | `cli/`          | the command line                                 |
//! | `commands/`     | one function for each command                    |
//! | `names.rs`      | names of files, as people and programs read them |
//! | `output.rs`     | reports for people and for programs, failures    |
//! | `terminal.rs`   | the terminal as the guest's console              |
//!
//! The exit status is that of the failure's [`output::Class`], 0 without one.

mod cli;
mod commands;
mod names;
mod output;
mod terminal;

use clap::Parser;
use output::{Failure, Format};
use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let (format, outcome) = match cli::Cli::try_parse_from(&arguments) {
        Ok(cli) => {
            let format = if cli.json { Format::Json } else { Format::Text };
            (format, commands::run(cli))
        }
        Err(error) => match format_of(&arguments) {
            Format::Json if error.use_stderr() => (Format::Json, Err(usage(&error))),
            // Several lines for people, on the stream that fits: help is no failure.
            _ => error.exit(),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            format.fail(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

/// The format that arguments ask for which cannot be parsed.
fn format_of(arguments: &[OsString]) -> Format {
    let options = arguments.iter().take_while(|it| *it != "--");
    if options.into_iter().any(|it| it == "--json") { Format::Json } else { Format::Text }
}

/// What is wrong with the usage, without the help that follows it.
fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    Failure::usage(what.strip_prefix("error: ").unwrap_or(what))
}
