//! A supervisor in the background: this program again, in a session of its own.
//!
//! The starter hands over the options as an argument and reads one line of JSON from the
//! supervisor's stdout: the status once the guest is ready, or why it is not going to be. If
//! the starter goes away before, that line cannot be written, and the supervisor ends.

use super::console::Console;
use super::supervisor::{Reporter, supervise};
use super::{LaunchError, Options, Status};
use rustix::process::setsid;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// The hidden subcommand that [`run`] serves.
pub const SUBCOMMAND: &str = "__supervise";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Report {
    Ready(Status),
    Failed(String),
}

/// Starts an instance in the background and waits until its guest is ready.
pub fn start(options: &Options) -> Result<Status, LaunchError> {
    options.check()?;
    let mut state = options.state_dir();
    state.create()?;
    // The background process takes the lock itself. It is looked at here too, so that a
    // second start does not truncate the log of the first.
    drop(state.lock()?);
    let failed = |error| LaunchError::Io("start the supervisor".into(), error);
    let arguments = serde_json::to_string(options).map_err(|error| failed(error.into()))?;
    let mut child = Command::new("/proc/self/exe")
        .arg(SUBCOMMAND)
        .arg(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(state.log("supervisor.log")?)
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).map_err(failed)?;
    }
    match serde_json::from_str(&line) {
        Ok(Report::Ready(status)) => Ok(status),
        Ok(Report::Failed(why)) => {
            // It has nothing left to do but to end; wait, so that the lock is free at return.
            let _ = child.wait();
            Err(LaunchError::Stopped(why))
        }
        Err(_) => {
            let status = child.wait().map_err(failed)?;
            Err(LaunchError::Stopped(format!(
                "the supervisor ended with {status}; its log is {}",
                state.file("supervisor.log").display()
            )))
        }
    }
}

/// Is the background process. The error was reported if there was somebody to hear it.
pub fn run(options: &str) -> Result<(), LaunchError> {
    // It fails only for the leader of a process group, which a child just started is not; and
    // then no more is lost than that the terminal's hang-up shuts the guest down.
    let _ = setsid();
    let mut pipe = Pipe { reported: false };
    let options: Options = serde_json::from_str(options)
        .map_err(|error| LaunchError::Unusable(format!("the options are not readable: {error}")))?;
    let result = supervise(&options, &mut pipe);
    if let Err(error) = &result
        && !pipe.reported
    {
        // Nobody may be there to read it.
        let _ = pipe.report(&Report::Failed(error.to_string()));
    }
    result
}

struct Pipe {
    reported: bool,
}

impl Pipe {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        self.reported = true;
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        let mut output = io::stdout().lock();
        output.write_all(&line)?;
        output.flush()
    }
}

impl Reporter for Pipe {
    fn console(&mut self, _console: &Console) {}

    fn ready(&mut self, status: &Status) -> io::Result<()> {
        self.report(&Report::Ready(status.clone()))
    }

    fn note(&mut self, text: &str) {
        // A full disk must not stop the guest.
        let _ = writeln!(io::stderr(), "umbra: {text}");
    }
}
