//! Runs the virtual machine: from two ELF files to a guest that serves.
//!
//! ```text
//!  umbra up ──────────────── supervisor (this program: in the foreground, or detached)
//!                              │  holds `lock`, listens on control.sock, writes the logs;
//!                              │  is the vsock device where /dev/vhost-vsock does not open
//!                              └── qemu-system-x86_64
//!  umbra down|status|console ─control.sock─▶ supervisor ──stdin/stdout──▶ the guest's serial line
//! ```
//!
//! One supervisor owns one state directory. Neither process outlives the other, whichever is killed
//! and however:
//!
//! - The supervisor waits for QEMU, and ends when it does; it ends both when its vsock device
//!   cannot go on.
//! - The kernel kills QEMU when the supervisor dies: it is started through [`leash`], which asks
//!   for that signal (`PR_SET_PDEATHSIG`) before it executes it.
//!
//! What is left after that, sockets and pid files, is removed by the next start, which knows
//! from the lock that nobody uses them.
//!
//! | file | what |
//! |---|---|
//! | `accel` | KVM or emulation |
//! | `console` | the serial line, shared by log, terminal and clients |
//! | `control` | requests to the supervisor, and the client side of them |
//! | `detach` | a supervisor in the background |
//! | `ending` | what the end of an instance means |
//! | `event` | what happens to an instance |
//! | `instance` | an instance as its control socket knows it |
//! | `leash` | children that die with their parent |
//! | `monitor` | whether QEMU lets the guest run |
//! | `nvdimm` | the image files |
//! | `process` | a child process that is watched |
//! | `qemu` | QEMU's command line |
//! | `relay` | plain sockets before ports, where the host kernel does vsock |
//! | `signals` | signals that ask for the end |
//! | `supervisor` | start, wait, shut down |
//! | `transport` | how the host reaches the guest's vsock |
//!
//! Left out: more than one NVDIMM, hot plug, and resizing an image.

pub mod accel;
pub mod console;
pub mod control;
pub mod detach;
mod ending;
mod event;
mod instance;
pub mod leash;
mod monitor;
mod nvdimm;
mod process;
mod qemu;
mod relay;
mod signals;
mod supervisor;
mod transport;

pub use accel::Accel;
pub use supervisor::{Reporter, supervise};

use crate::access::Access;
use crate::state::{StateDir, StateError};
use crate::units;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::{env, fmt, io};

pub use nvdimm::ExtraNvdimm;

/// Size of a new NVDIMM where none is asked for.
pub const DEFAULT_NVDIMM_SIZE: u64 = 1 << 30;
/// Memory of the guest where none is asked for.
pub const DEFAULT_MEMORY: u64 = 64 << 20;

/// The QEMU that runs where none is named: the one in `PATH`.
pub const DEFAULT_QEMU: &str = "qemu-system-x86_64";

/// The least memory of a server that has some left for its clients, whatever the size of its NVDIMM
/// (which takes 0.5 MiB of it where it has 500 GiB).
pub const LEAST_MEMORY: u64 = 12 << 20;

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// The state directory.
    pub state: PathBuf,
    /// Size of the NVDIMM in bytes: what a new image gets, and what an existing one must
    /// have. `None` takes an existing one as it is. `Some(0)` runs without an NVDIMM.
    pub nvdimm_size: Option<u64>,
    /// NVDIMMs beside the volume's.
    #[serde(default)]
    pub extra_nvdimms: Vec<ExtraNvdimm>,
    /// Memory of the guest in bytes.
    pub memory: u64,
    /// Which accelerator.
    pub accel: accel::Choice,
    /// The QEMU to run, as a path or as a name in `PATH`.
    #[serde(default = "default_qemu")]
    pub qemu: PathBuf,
    /// Whether the guest formats the NVDIMM, whatever it holds.
    pub format: bool,
    /// Whether the guest's clock counts its instructions, a nanosecond each.
    pub icount: bool,
    /// Whether the host gives all memory of the NVDIMM at the start.
    pub prealloc: bool,
    /// To whom the sockets for clients are open.
    #[serde(default)]
    pub access: Access,
    /// Further lines of the guest's configuration, `key=value` each.
    pub guest_config: Vec<String>,
    /// The loader, an ELF file with a PVH entry.
    pub loader: PathBuf,
    /// The kernel that the loader loads.
    pub kernel: PathBuf,
}

/// Why the machine does not run.
#[derive(Debug)]
pub enum LaunchError {
    /// The state directory.
    State(StateError),
    /// A condition that the user can change; the text says which and how.
    Unusable(String),
    /// The system refused something.
    Io(String, io::Error),
    /// QEMU or the vsock device ended, or the guest stopped, when it should not have.
    Stopped(String),
    /// The guest did not get ready under KVM.
    NotUnderKvm(String),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::State(error) => error.fmt(f),
            LaunchError::Unusable(why) | LaunchError::Stopped(why) => f.write_str(why),
            LaunchError::Io(doing, error) => write!(f, "cannot {doing}: {error}"),
            LaunchError::NotUnderKvm(why) => write!(
                f,
                "the guest did not get ready under KVM: {why}; \
                 without KVM it is emulated: umbra up --accel tcg"
            ),
        }
    }
}

impl std::error::Error for LaunchError {}

impl From<StateError> for LaunchError {
    fn from(error: StateError) -> Self {
        LaunchError::State(error)
    }
}

/// What a running instance says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the guest has said that it serves.
    pub ready: bool,
    /// From the start of QEMU to `ready`, in milliseconds.
    pub boot_ms: Option<f64>,
    /// Why the guest made an empty volume when it started, if it did.
    #[serde(default)]
    pub formatted: Option<String>,
    /// Process id of QEMU.
    pub qemu_pid: u32,
    /// Process id of the supervisor.
    pub supervisor_pid: u32,
    /// The accelerator that was chosen.
    pub accel: Accel,
    /// Why it was chosen.
    pub accel_reason: String,
    /// Memory of the guest in bytes.
    pub memory: u64,
    /// Size of the NVDIMM in bytes.
    pub nvdimm_size: u64,
    /// How the host reaches the guest: `vsock.sock`, or `vsock:CID`.
    pub endpoint: String,
    /// Seconds since the start of QEMU.
    pub uptime_s: f64,
    /// Why the guest does not run: `stopped-by-signal`, or the state that QEMU's machine protocol
    /// tells (`paused`, ...). `None`: it runs.
    #[serde(default)]
    pub paused: Option<String>,
}

impl Status {
    /// A line for people.
    pub fn summary(&self) -> String {
        let boot = match self.boot_ms {
            Some(ms) => format!("ready in {:.2} s", ms / 1000.0),
            None => "not ready yet".into(),
        };
        let accel = match self.accel {
            Accel::Kvm => "KVM".to_string(),
            Accel::Tcg => format!("emulation ({})", self.accel_reason),
        };
        match &self.formatted {
            Some(why) => format!("{boot}, {accel}; formatted: {why}"),
            None => format!("{boot}, {accel}"),
        }
    }
}

fn default_qemu() -> PathBuf {
    DEFAULT_QEMU.into()
}

/// Finds a program: by its path if it has a slash in it, else in `PATH`. The result is absolute.
fn find_program(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 || name.is_absolute() {
        return std::path::absolute(name).ok().filter(|found| is_executable(found));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

impl Options {
    /// Whether such a machine can be.
    fn check(&self) -> Result<(), LaunchError> {
        if self.memory < LEAST_MEMORY || !self.memory.is_multiple_of(1 << 20) {
            return Err(LaunchError::Unusable(format!(
                "--memory {} is not possible: whole MiB, and {} or more",
                units::show_bytes(self.memory),
                units::show_bytes(LEAST_MEMORY)
            )));
        }
        Ok(())
    }

    fn state_dir(&self) -> StateDir {
        StateDir::new(&self.state)
    }
}
