//! How the host reaches the guest's vsock.
//!
//! Where `/dev/vhost-vsock` opens, the host kernel does it and the guest has a context id
//! (CID) on the machine. Elsewhere `vhost-device-vsock` does it over vhost-user, and each
//! connection starts at its UNIX socket with `CONNECT port\n`.

use super::{LaunchError, find_program, leash};
use crate::state::StateDir;
use std::collections::hash_map::DefaultHasher;
use std::fs::{File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

const DAEMON: &str = "vhost-device-vsock";
/// The guest's CID behind the daemon, which serves this one guest.
const DAEMON_GUEST_CID: u32 = 3;
/// How many bytes the guest may send ahead of a client. What the guest sends is four times as fast
/// as with the daemon's default, 64 KiB (docs/protocols.md, "Transport").
const AHEAD: u32 = 1 << 20;
/// How long the daemon may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

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
