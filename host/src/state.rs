//! The state directory: everything that one Umbra instance keeps on the host.
//!
//! | name             | what                                                          |
//! |------------------|---------------------------------------------------------------|
//! | `nvdimm.img`     | the NVDIMM: a sparse file that QEMU maps shared               |
//! | `lock`           | locked (`flock`) as long as a supervisor lives                |
//! | `control.sock`   | the supervisor: status, shutdown, console                     |
//! | `vsock.sock`     | the guest's vsock ports, where no `/dev/vhost-vsock` exists   |
//! | `endpoint`       | how to reach the guest; there once it can be reached          |
//! | `nbd.sock`       | the guest's NBD server, for any client of NBD                 |
//! | `vhost.sock`     | between QEMU and the vsock device                             |
//! | `qmp.sock`       | QEMU's machine protocol, for whoever wants it                 |
//! | `monitor.sock`   | the same, for the supervisor                                  |
//! | `*.pid`          | supervisor, QEMU                                              |
//! | `console.log`    | what the guest's serial line said since the last start; at    |
//! |                  | 8 MiB it begins anew, and what was before is `console.log.1`  |
//! | `events.jsonl`   | starts and ends of all runs: see [`crate::record`]            |
//! | `guest-events.jsonl` | what happened to the guest's memory, over all runs: see   |
//! |                  | [`crate::guest_events`]                                       |
//! | `qemu.log`, `vsock.log`, `supervisor.log` | what they said                       |
//! | `guest.conf`, `guest.seed` | what the guest reads: options, and randomness       |
//!
//! All but the image and the two files of events belong to one run: the next one removes and
//! rewrites them.
//!
//! All of them are for the owner alone, whatever the umask and the mode of the directory: whoever
//! reaches the sockets owns the data. Only those that clients need can be opened to others (see
//! [`Access`]): `vsock.sock`, `nbd.sock`, and `endpoint`, which names the first.

use crate::access::{self, Access};
use crate::log::Log;
use rustix::fd::AsRawFd;
use rustix::fs::statvfs;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fmt, fs, io, thread};

/// A filesystem with less room is full.
const ROOM_LEAST: u64 = 1 << 20;
/// The longest path that fits in `sockaddr_un` with its closing NUL.
const SOCKET_PATH_MAX: usize = 107;

/// The state directory of one instance. Holding one says nothing about its existence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

/// The right to run the instance of a state directory; ends when dropped, and with the process.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the state directory cannot be used.
#[derive(Debug)]
pub enum StateError {
    /// Neither an explicit directory nor `HOME` is there.
    NoHome,
    /// Another supervisor holds the lock.
    Locked(PathBuf),
    /// The system refused an operation on a file.
    Io(String, io::Error),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::NoHome => {
                f.write_str("no state directory: HOME is not set; name one with --state DIR")
            }
            StateError::Locked(path) => write!(
                f,
                "an instance is already running for state {}; stop it with `umbra down`, \
                 or choose another --state",
                path.display()
            ),
            StateError::Io(doing, error) => write!(f, "cannot {doing}: {error}"),
        }
    }
}

impl std::error::Error for StateError {}

impl StateDir {
    /// The name of the socket before the guest's NBD server.
    pub const NBD_SOCKET: &str = "nbd.sock";

    /// A state directory at a path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        StateDir { path: path.into() }
    }

    /// The directory that applies: `explicit` (the option or `$UMBRA_STATE`), else
    /// `$XDG_STATE_HOME/umbra`, else `~/.local/state/umbra`.
    pub fn locate(explicit: Option<&Path>) -> Result<Self, StateError> {
        let set = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(path) = explicit {
            return Ok(StateDir::new(path));
        }
        // The XDG specification: relative paths in these variables are to be ignored.
        if let Some(base) = set("XDG_STATE_HOME").filter(|p| p.is_absolute()) {
            return Ok(StateDir::new(base.join("umbra")));
        }
        let home = set("HOME").ok_or(StateError::NoHome)?;
        Ok(StateDir::new(home.join(".local/state/umbra")))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The image of the NVDIMM.
    pub fn nvdimm(&self) -> PathBuf {
        self.file("nvdimm.img")
    }

    /// The log of the guest's console.
    pub fn console_log(&self) -> PathBuf {
        self.file("console.log")
    }

    /// Makes the directory where it is missing (for its owner only: whoever reaches the
    /// sockets owns the data), and makes the path absolute, since helpers run inside it.
    pub fn create(&mut self) -> Result<(), StateError> {
        let failed =
            |path: &Path, error| StateError::Io(format!("create {}", path.display()), error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|error| failed(&self.path, error))?;
        self.path = self.path.canonicalize().map_err(|error| failed(&self.path, error))?;
        Ok(())
    }

    /// Takes the lock, or says that somebody else has it.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let path = self.file("lock");
        let failed = |error| StateError::Io(format!("lock {}", path.display()), error);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        // One that was there may be open to others, who could lock it.
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
        // `is_locked` of another process holds it for a moment: that is no instance.
        for last in [false, false, true] {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if last => break,
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(StateError::Locked(self.path.clone()))
    }

    /// Whether a supervisor holds the lock now.
    pub fn is_locked(&self) -> bool {
        match File::open(self.file("lock")) {
            Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(_) => false,
        }
    }

    /// Removes what an earlier run left behind. Only the holder of the lock may.
    pub fn clear(&self, _lock: &Lock) -> Result<(), StateError> {
        for name in [
            "control.sock",
            "vsock.sock",
            "vhost.sock",
            StateDir::NBD_SOCKET,
            "qmp.sock",
            "monitor.sock",
            "endpoint",
            "supervisor.pid",
            "qemu.pid",
        ] {
            remove(&self.file(name))?;
        }
        Ok(())
    }

    /// Writes a small file, for the owner alone.
    pub fn write(&self, name: &str, content: &str) -> Result<(), StateError> {
        self.write_for(Access::OWNER, name, content)
    }

    /// Writes a small file that clients read.
    pub fn write_for(&self, who: Access, name: &str, content: &str) -> Result<(), StateError> {
        let path = self.file(name);
        who.write(&path, content.as_bytes())
            .map_err(|error| StateError::Io(format!("write {}", path.display()), error))
    }

    /// Opens a log afresh.
    pub fn log(&self, name: &str) -> Result<File, StateError> {
        let path = self.file(name);
        access::create(&path)
            .map_err(|error| StateError::Io(format!("create {}", path.display()), error))
    }

    /// Opens a log afresh whose size is bounded; the one of the last run is put aside.
    pub fn bounded_log(&self, name: &str, limit: u64) -> Result<Log, StateError> {
        let path = self.file(name);
        Log::fresh(&path, limit)
            .map_err(|error| StateError::Io(format!("create {}", path.display()), error))
    }

    /// Lets those who have access reach the sockets in the directory.
    pub fn open_to(&self, who: Access) -> Result<(), StateError> {
        who.open_directory(&self.path).map_err(|error| {
            StateError::Io(
                format!("let others reach the sockets in {}", self.path.display()),
                error,
            )
        })
    }

    /// Whether the filesystem of the image has no room left.
    pub fn is_full(&self) -> bool {
        statvfs(self.nvdimm()).is_ok_and(|it| it.f_bavail.saturating_mul(it.f_frsize) < ROOM_LEAST)
    }

    /// Whether others can remove the sockets and the image, and put their own in the place.
    pub fn is_writable_by_others(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.mode() & 0o022 != 0)
    }

    /// Connects to a socket in the directory, however long its path is.
    pub fn connect(&self, name: &str) -> io::Result<UnixStream> {
        self.with_socket_path(name, |path| UnixStream::connect(path))
    }

    /// Listens on a socket in the directory that is for the owner alone, however long its path is.
    pub fn listen(&self, name: &str) -> io::Result<UnixListener> {
        self.listen_for(Access::OWNER, name)
    }

    /// Listens on a socket in the directory for clients.
    pub fn listen_for(&self, who: Access, name: &str) -> io::Result<UnixListener> {
        self.with_socket_path(name, |path| who.listen(path))
    }

    /// Hands out a path that fits in a socket address: the path itself where it does,
    /// else one through an open descriptor of the directory.
    fn with_socket_path<T>(
        &self,
        name: &str,
        go: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let path = self.file(name);
        if path.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX {
            return go(&path);
        }
        let directory = File::open(&self.path)?;
        go(Path::new(&format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())))
    }
}

fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StateError::Io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_of_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::new(dir.path().join("a/b"));
        state.create().unwrap();
        assert!(!state.is_locked());
        let lock = state.lock().unwrap();
        assert!(state.is_locked());
        let second = state.lock().unwrap_err();
        assert!(second.to_string().contains("already running"), "{second}");
        drop(lock);
        assert!(!state.is_locked());
        state.lock().unwrap();
    }

    #[test]
    fn sockets_work_below_long_paths() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::new(dir.path().join("x".repeat(120)));
        state.create().unwrap();
        let listener = state.listen("control.sock").unwrap();
        state.connect("control.sock").unwrap();
        listener.accept().unwrap();
    }

    #[test]
    fn clearing_keeps_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let lock = state.lock().unwrap();
        state.write("qemu.pid", "1").unwrap();
        state.write("nvdimm.img", "data").unwrap();
        state.clear(&lock).unwrap();
        assert!(!state.file("qemu.pid").exists());
        assert!(state.nvdimm().exists());
    }
}
