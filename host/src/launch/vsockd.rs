//! How the host reaches the guest's vsock.
//!
//! Where `/dev/vhost-vsock` opens, the host kernel does it and the guest has a context id
//! (CID) on the machine. Elsewhere `vhost-device-vsock` does it over vhost-user, and each
//! connection starts at its UNIX socket with `CONNECT port\n`.
//!
//! QEMU tells the daemon about the device's rings without waiting for it. A connection that
//! comes while the daemon knows of memory but not of all rings ends the thread that moves all data
//! (0.3.0; it goes on listening and serves nobody). So clients learn of the socket only when
//! [`Transport::settle`] has seen that the rings are known and that a connection comes through.

use super::{LaunchError, find_program, leash};
use crate::client::{handshake, rpc};
use crate::state::StateDir;
use std::collections::hash_map::DefaultHasher;
use std::fs::{File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

const DAEMON: &str = "vhost-device-vsock";
/// The guest's CID behind the daemon, which serves this one guest.
const DAEMON_GUEST_CID: u32 = 3;
/// How many bytes the guest may send ahead of a client. What the guest sends is four times as fast
/// as with the daemon's default, 64 KiB (docs/protocols.md, "Transport").
const AHEAD: u32 = 1 << 20;
/// How long the daemon may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take from the guest's `ready` until a connection comes through.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt may take. The next one also wakes a daemon that has missed something.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// The way that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// The host kernel, with the guest at this CID.
    Kernel {
        /// The guest's context id.
        cid: u32,
    },
    /// The daemon, at this path.
    Daemon {
        /// The program.
        program: PathBuf,
    },
}

impl Transport {
    /// Looks at what the host has.
    pub(super) fn choose(state: &StateDir) -> Result<Transport, LaunchError> {
        if OpenOptions::new().read(true).write(true).open("/dev/vhost-vsock").is_ok() {
            return Ok(Transport::Kernel { cid: cid_for(state.path()) });
        }
        match find_program(DAEMON, &install_folders()) {
            Some(program) => Ok(Transport::Daemon { program }),
            None => Err(LaunchError::Unusable(format!(
                "/dev/vhost-vsock does not open, and {DAEMON} was not found: \
                 run ./run-qemu.sh once, or `cargo install {DAEMON}`"
            ))),
        }
    }

    /// What clients read in the file `endpoint`.
    pub(super) fn endpoint(&self) -> String {
        match self {
            Transport::Kernel { cid } => format!("vsock:{cid}"),
            Transport::Daemon { .. } => "vsock.sock".into(),
        }
    }

    /// QEMU's arguments for the device.
    pub(super) fn qemu_arguments(&self) -> Vec<String> {
        match self {
            Transport::Kernel { cid } => {
                vec!["-device".into(), format!("vhost-vsock-pci,guest-cid={cid}")]
            }
            Transport::Daemon { .. } => vec![
                "-chardev".into(),
                "socket,id=vsock,path=vhost.sock".into(),
                "-device".into(),
                "vhost-user-vsock-pci,chardev=vsock".into(),
            ],
        }
    }

    /// Waits until clients can connect to a guest that has said that it is ready.
    pub(super) fn settle(&self, state: &StateDir, daemon: Option<u32>) -> Result<(), LaunchError> {
        let Transport::Daemon { .. } = self else { return Ok(()) };
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        while daemon.and_then(knows_rings) == Some(false) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        // From the registration to the ring being in use it is a few instructions, and a few
        // messages more until all is told.
        thread::sleep(Duration::from_millis(10));
        let mut last = None;
        while Instant::now() < deadline {
            match state.connect("vsock.sock").and_then(probe) {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
            thread::sleep(Duration::from_millis(5));
        }
        let why = last.map_or_else(|| "the daemon never learnt of the device".into(), |e| e.to_string());
        Err(LaunchError::Stopped(format!(
            "the guest is ready, but no connection gets through {DAEMON}: {why} (log: {})",
            state.file("vsock.log").display()
        )))
    }

    /// Starts the daemon, if that is the way, and waits until QEMU can connect to it.
    pub(super) fn start(&self, state: &StateDir, log: File) -> Result<Option<Child>, LaunchError> {
        let Transport::Daemon { program } = self else { return Ok(None) };
        let failed = |error| LaunchError::Io(format!("start {}", program.display()), error);
        let errors = log.try_clone().map_err(failed)?;
        let mut child = leash::command(program.as_os_str())
            .arg("--vm")
            .arg(format!(
                "guest-cid={DAEMON_GUEST_CID},socket=vhost.sock,uds-path=vsock.sock,tx-buffer-size={AHEAD}"
            ))
            .current_dir(state.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        let listening = wait_for_socket(&state.file("vhost.sock"), || {
            child.try_wait().map(|ended| ended.is_none()).unwrap_or(false)
        });
        if listening {
            return Ok(Some(child));
        }
        // It is our child and of no use: what fails here, fails because it is gone already.
        let _ = child.kill();
        let _ = child.wait();
        Err(LaunchError::Stopped(format!(
            "{DAEMON} did not start to listen; it says in {}: {}",
            state.file("vsock.log").display(),
            last_line(&state.file("vsock.log"))
        )))
    }
}

/// Whether the daemon polls the ring that it is told of last: `None` where that cannot be seen.
///
/// It has registered each ring's notifications with an epoll instance under the ring's number,
/// and `/proc/PID/fdinfo` shows the numbers (in hexadecimal, behind `data:`).
fn knows_rings(pid: u32) -> Option<bool> {
    const LAST_RING: &str = "1";
    let mut polls = false;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.flatten() {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines().filter(|line| line.starts_with("tfd:")) {
            polls = true;
            let mut words = line.split_whitespace().skip_while(|&word| word != "data:");
            if words.nth(1) == Some(LAST_RING) {
                return Some(true);
            }
        }
    }
    polls.then_some(false)
}

/// Folders that installers use and that are often not in `PATH`.
fn install_folders() -> Vec<PathBuf> {
    let mut folders = vec![crate::build::tools()];
    if let Some(home) = env::var_os("CARGO_HOME") {
        folders.push(PathBuf::from(home).join("bin"));
    }
    if let Some(home) = env::var_os("HOME") {
        folders.push(PathBuf::from(&home).join(".cargo/bin"));
        folders.push(PathBuf::from(&home).join(".local/bin"));
    }
    folders.push("/usr/libexec".into());
    folders
}

/// CIDs are machine-wide. One that follows from the path keeps two instances apart (but for
/// one chance in a billion, and then QEMU says that the CID is taken) and stays from run to run.
fn cid_for(path: &Path) -> u32 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    // 0 to 2 have meanings of their own; small numbers are what people type.
    1000 + (hasher.finish() % (1 << 30)) as u32
}

/// Connects to the server's port, and hangs up.
fn probe(mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    handshake(&mut stream, rpc::PORT)
}

fn wait_for_socket(path: &Path, mut alive: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline && alive() {
        if fs::metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            // The name appears with `bind`; `listen` follows at once, but follows.
            thread::sleep(Duration::from_millis(5));
            return true;
        }
        thread::sleep(Duration::from_millis(2));
    }
    false
}

/// The last line of a log, for an error message.
pub(super) fn last_line(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| "nothing".into(), |line| line.trim().to_string())
}
