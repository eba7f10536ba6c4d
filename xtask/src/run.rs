//! Other programs.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// A program failed, or could not be started; or there is no toolchain.
#[derive(Debug)]
pub enum Failed {
    /// It ended with another status than 0.
    Program(String, ExitStatus),
    /// It could not be started.
    Start(String, io::Error),
    /// What it takes is missing: why.
    Missing(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Program(line, status) => write!(f, "`{line}` ended with {status}"),
            Failed::Start(line, error) => write!(f, "cannot start `{line}`: {error}"),
            Failed::Missing(why) => f.write_str(why),
        }
    }
}

/// The folder of the workspace.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// A program, in the folder of the workspace; a path with a `/` is one below that.
pub fn command(program: &str) -> Command {
    let path = Path::new(program);
    let below = path.components().count() > 1 && path.is_relative();
    let mut command = if below { Command::new(root().join(path)) } else { Command::new(path) };
    command.current_dir(root());
    command
}

/// The cargo that has started this program.
pub fn cargo() -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
}

/// A program of the workspace, built for release, with the arguments that follow.
pub fn cargo_run(package: &str, program: &str) -> Command {
    let mut command = cargo();
    command.args(["run", "--release", "--package", package, "--bin", program, "--"]);
    command
}

/// Says what it starts, and runs that until it ends.
pub fn run(command: &mut Command) -> Result<(), Failed> {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    eprintln!("== {line}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failed::Program(line, status)),
        Err(error) => Err(Failed::Start(line, error)),
    }
}
