//! The `umbra` program: parses the command line, does what it says, reports.
//!
//! | file            | what                                             |
//! |-----------------|--------------------------------------------------|
//! | `cli.rs`        | the command line                                 |
//! | `commands/`     | one function for each command                    |
//! | `output.rs`     | reports for people and for programs, failures    |
//! | `terminal.rs`   | the terminal as the guest's console              |
//!
//! Exit status: 0 done, 1 failed with one line on stderr, 2 wrong usage.

mod cli;
mod commands;
mod output;
mod terminal;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("umbra: {failure}");
            ExitCode::FAILURE
        }
    }
}
