//! The terminal as the guest's console.
//!
//! The guest neither echoes nor edits what it reads: the terminal does, and hands over whole
//! lines. So its keys keep their meanings: Ctrl-D (end of input) and Ctrl-C detach.

use crate::output::{Failure, Outcome, print, say};
use std::io::{self, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// After the end of a piped input: the guest still has so long to answer.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// Connects stdin and stdout with a console until the guest ends or stdin does.
pub fn attach(mut stream: UnixStream) -> Outcome {
    let failed = || Failure::while_doing("attach to the console");
    let terminal = io::stdin().is_terminal();
    if terminal {
        say("attached to the guest's console; Ctrl-D detaches");
    }
    let input = stream.try_clone().map_err(failed())?;
    thread::spawn(move || forward(io::stdin().lock(), input, terminal));
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => print(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed()(error)),
        }
    }
}

/// Hands over what is typed; its end ends the attachment.
fn forward(mut input: impl Read, mut stream: UnixStream, terminal: bool) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = input.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    if !terminal {
        thread::sleep(LAST_ANSWER);
    }
    // It fails only if the console has ended already.
    let _ = stream.shutdown(Shutdown::Both);
}
