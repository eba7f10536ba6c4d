//! Requests to the supervisor: a line of JSON each way over `control.sock`.
//!
//! `{"request":"status"}`, `{"request":"down"}`, `{"request":"console"}`,
//! `{"request":"relay","port":1,"socket":"/path"}`, `{"request":"clients","port":10809}`; the
//! answer is `{"clients":[..]}` (those of a port of the guest), `{"status":{..}}`,
//! `{"stopped":{"clean":bool,"message":".."}}`, `"attached"` (after which the connection is the
//! serial line, both ways), `"relayed"` (the socket is there as long as the connection), or
//! `{"failed":".."}`.

use super::Status;
use super::console::Console;
use super::monitor;
use crate::access::Access;
use crate::state::StateDir;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

/// The socket's name in the state directory.
pub const SOCKET: &str = "control.sock";
/// A request fits in this many bytes; so does an answer, with as many clients as there can be.
const LINE_MAX: usize = 256 << 10;
/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the terminal of a console client may take to accept output.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command may be silent.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
enum Request {
    Status,
    Down,
    Console,
    Relay {
        port: u32,
        socket: PathBuf,
        #[serde(default)]
        access: Option<Access>,
    },
    Clients {
        port: u32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Status(Status),
    Stopped(Stopped),
    Attached,
    Relayed,
    Clients(Vec<ClientProcess>),
    Failed(String),
}

/// The process at the other end of a connection to the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientProcess {
    /// The port of this machine by which the guest knows the connection.
    pub port: u32,
    /// The process that connected. It may have ended since, or given its end to another one.
    pub pid: i32,
    /// The name of its program, while it runs.
    pub command: Option<String>,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The guest unmounted and powered off by itself.
    pub clean: bool,
    /// What happened instead.
    pub message: Option<String>,
}

/// What the control socket needs from the supervisor.
pub(super) trait Instance: Send + Sync + 'static {
    /// The present status.
    fn status(&self) -> Status;
    /// Asks for the end; returns once it has come. The process waits (for a moment) with its
    /// own end until the guard is dropped: the answer must be on its way by then.
    fn stop(&self) -> (Stopped, EndGuard);
    /// The serial line.
    fn console(&self) -> Console;
    /// Makes a plain socket before a port of the guest, for as long as the result is held.
    /// Without `access` it is as open as the other sockets for clients.
    fn relay(&self, port: u32, socket: &Path, access: Option<Access>) -> io::Result<Box<dyn Held>>;
    /// The processes that are connected to a port of the guest, as far as they are known.
    fn clients(&self, port: u32) -> io::Result<Vec<ClientProcess>>;
}

/// Something that ends when it is dropped.
pub(super) trait Held {}

/// Holds up the end of the process.
pub(super) type EndGuard = Sender<()>;

/// Serves requests while it lives.
pub(super) struct Server {
    listener: UnixListener,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The thread wakes up; it finds that the instance is gone.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// Serves requests, a thread each, while the instance and the result live.
pub(super) fn serve(listener: UnixListener, instance: Weak<dyn Instance>) -> io::Result<Server> {
    let server = Server { listener: listener.try_clone()? };
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Some(instance) = instance.upgrade() else { break };
            let Ok(stream) = stream else {
                // Out of descriptors, most likely: wait for one to come back.
                drop(instance);
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            // The client's end is its own business.
            thread::spawn(move || drop(answer(stream, &*instance)));
        }
    });
    Ok(server)
}

fn answer(mut stream: UnixStream, instance: &dyn Instance) -> io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    stream.set_write_timeout(Some(CONSOLE_TIMEOUT))?;
    match serde_json::from_slice(&read_line(&mut stream)?) {
        Ok(Request::Status) => send(&mut stream, &Answer::Status(instance.status())),
        Ok(Request::Down) => {
            let (stopped, _guard) = instance.stop();
            send(&mut stream, &Answer::Stopped(stopped))
        }
        Ok(Request::Console) => {
            // Listen first: what the guest says after the answer must not be missed.
            let console = instance.console();
            let output = console.listen();
            send(&mut stream, &Answer::Attached)?;
            stream.set_read_timeout(None)?;
            let mut input = stream.try_clone()?;
            thread::spawn(move || {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = input.read(&mut buffer) {
                    if console.write(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
            for piece in output {
                stream.write_all(&piece)?;
            }
            // Wakes the thread above, too.
            stream.shutdown(Shutdown::Both)
        }
        Ok(Request::Relay { port, socket, access }) => {
            match instance.relay(port, &socket, access) {
                Ok(_relay) => {
                    send(&mut stream, &Answer::Relayed)?;
                    stream.set_read_timeout(None)?;
                    // It says nothing more, until it hangs up.
                    stream.read(&mut [0]).map(drop)
                }
                Err(error) => {
                    let why = format!("cannot listen on {}: {error}", socket.display());
                    send(&mut stream, &Answer::Failed(why))
                }
            }
        }
        Ok(Request::Clients { port }) => match instance.clients(port) {
            Ok(clients) => send(&mut stream, &Answer::Clients(clients)),
            Err(error) => {
                send(&mut stream, &Answer::Failed(format!("no list of clients: {error}")))
            }
        },
        Err(error) => send(&mut stream, &Answer::Failed(format!("not understood: {error}"))),
    }
}

/// Asks for the status; `None` if no instance runs.
pub fn status(state: &StateDir) -> io::Result<Option<Status>> {
    // One that is just ending accepts and hangs up: asked again, it is gone.
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        match ask(state, &Request::Status, Some(REQUEST_TIMEOUT)) {
            Ok(Some((_, Answer::Status(status)))) => return Ok(Some(status)),
            Ok(Some(_)) => return Err(unexpected()),
            Ok(None) => return Ok(None),
            Err(error) if hung_up(&error) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(stopped_supervisor(state).unwrap_or(error)),
        }
    }
}

/// Why a supervisor does not answer, if that is because it is stopped.
fn stopped_supervisor(state: &StateDir) -> Option<io::Error> {
    let pid = fs::read_to_string(state.file("supervisor.pid")).ok()?.trim().parse().ok()?;
    monitor::is_stopped(pid).then(|| {
        io::Error::other(format!("it is stopped by a signal; `kill -CONT {pid}` lets it go on"))
    })
}

fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    )
}

/// Asks for a clean shutdown and waits for it; `None` if no instance runs.
pub fn stop(state: &StateDir) -> io::Result<Option<Stopped>> {
    match ask(state, &Request::Down, None)? {
        Some((_, Answer::Stopped(stopped))) => Ok(Some(stopped)),
        Some(_) => Err(unexpected()),
        None => Ok(None),
    }
}

/// Attaches to the serial line; `None` if no instance runs.
pub fn console(state: &StateDir) -> io::Result<Option<UnixStream>> {
    match ask(state, &Request::Console, Some(REQUEST_TIMEOUT))? {
        Some((stream, Answer::Attached)) => {
            stream.set_read_timeout(None)?;
            Ok(Some(stream))
        }
        Some(_) => Err(unexpected()),
        None => Ok(None),
    }
}

/// Makes a plain socket before a port of the guest, which is there as long as the connection that
/// is returned; `None` if no instance runs. Without `access` it is as open as the instance's other
/// sockets for clients.
pub fn relay(
    state: &StateDir,
    port: u32,
    socket: &Path,
    access: Option<Access>,
) -> io::Result<Option<UnixStream>> {
    let request = Request::Relay { port, socket: std::path::absolute(socket)?, access };
    match ask(state, &request, Some(REQUEST_TIMEOUT))? {
        Some((stream, Answer::Relayed)) => {
            stream.set_read_timeout(None)?;
            Ok(Some(stream))
        }
        Some(_) => Err(unexpected()),
        None => Ok(None),
    }
}

/// Asks for the processes that are connected to a port of the guest, as far as they are known;
/// `None` if no instance runs.
pub fn clients(state: &StateDir, port: u32) -> io::Result<Option<Vec<ClientProcess>>> {
    match ask(state, &Request::Clients { port }, Some(REQUEST_TIMEOUT))? {
        Some((_, Answer::Clients(clients))) => Ok(Some(clients)),
        Some(_) => Err(unexpected()),
        None => Ok(None),
    }
}

/// Runs one command on an attached console: what the guest prints, and whether it succeeded.
/// The guest ends each answer with a line `ok`, or one that starts with `error: `.
pub fn run_command(mut stream: UnixStream, command: &str) -> io::Result<(String, CommandEnd)> {
    stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut output = String::new();
    loop {
        let line = match read_line(&mut stream) {
            // A guest that powers off says no more.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Ok((output, CommandEnd::Closed));
            }
            line => line?,
        };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        if line == "ok" {
            return Ok((output, CommandEnd::Done));
        }
        if let Some(why) = line.strip_prefix("error: ") {
            return Ok((output, CommandEnd::Failed(why.into())));
        }
        output.push_str(line);
        output.push('\n');
    }
}

/// How a command on the console ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandEnd {
    /// It was done.
    Done,
    /// It failed: why.
    Failed(String),
    /// The guest ended with it.
    Closed,
}

fn ask(
    state: &StateDir,
    request: &Request,
    timeout: Option<Duration>,
) -> io::Result<Option<(UnixStream, Answer)>> {
    let mut stream = match state.connect(SOCKET) {
        Ok(stream) => stream,
        // A socket that nobody listens on is what a killed supervisor leaves.
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(timeout)?;
    send(&mut stream, request)?;
    let answer = serde_json::from_slice(&read_line(&mut stream)?)?;
    match answer {
        Answer::Failed(why) => Err(io::Error::other(why)),
        answer => Ok(Some((stream, answer))),
    }
}

fn unexpected() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the supervisor gave an answer to another request")
}

fn send(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads up to a newline and not a byte further: what follows may be the serial line.
fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_MAX {
        match stream.read(&mut byte) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte[0] == b'\n' => return Ok(line),
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::InvalidData, "a line too long"))
}
