//! A local file that takes its place when it is whole.
//!
//! Until then it has no name (`O_TMPFILE`): whatever ends this program, it leaves nothing, and a
//! file that is to be replaced stays as it was. On a filesystem that has no files without a name,
//! it has one of its own in the same directory, which goes when the transfer fails, and when a
//! signal ends this program.
//!
//! To replace a file it gets a name beside it, `.umbra-get-PROCESS-NUMBER`, which is renamed at
//! once: only `SIGKILL` between these two calls leaves that name.
//!
//! What is no regular file is written to directly: a pipe, a device, and what `/dev/stdout` leads
//! to.

use super::{Error, Result};
use crate::this_process::{CleanUp, umask};
use rustix::fs::{
    Access, AtFlags, CWD, Gid, Mode, OFlags, Uid, access, fchmod, fchown, linkat, open, statfs,
};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Symbolic links that are followed, one after the other.
const MOST_LINKS: u32 = 40;
/// The type of `/proc`, whose links lead to what is open, and not to a name.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const READ_WRITE_ALL: Mode = Mode::from_raw_mode(0o666);

/// A file that is being written.
pub(super) struct Replacement {
    way: Way,
    /// Where it will be: no symbolic link.
    at: PathBuf,
    /// What is there now.
    old: Option<fs::Metadata>,
}

enum Way {
    /// It is there already.
    Direct(File),
    Nameless(File),
    Named {
        file: NamedTempFile,
        _removed_by_signals: CleanUp,
    },
}

impl Replacement {
    /// Opens what is to be written to, so that it will be at `path`.
    pub fn open(path: &Path) -> Result<Replacement> {
        Replacement::begin(path, has_nameless_files).map_err(|error| failed(path, error))
    }

    fn begin(
        path: &Path,
        nameless: fn(&Path) -> io::Result<Option<File>>,
    ) -> io::Result<Replacement> {
        let Some(at) = followed(path)? else {
            return Ok(Replacement {
                way: Way::Direct(File::create(path)?),
                at: path.into(),
                old: None,
            });
        };
        let old = match fs::metadata(&at) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            return Ok(Replacement { way: Way::Direct(File::create(&at)?), at, old: None });
        }
        if old.is_some() {
            // A file that nobody may write to is not replaced behind its back.
            access(&at, Access::WRITE_OK)?;
        }
        let directory = directory_of(&at);
        let way = match nameless(directory)? {
            Some(file) => Way::Nameless(file),
            None => {
                let file = tempfile::Builder::new().prefix(".umbra-get-").tempfile_in(directory)?;
                let mode = READ_WRITE_ALL.difference(umask()?);
                fchmod(file.as_file(), mode)?;
                let path = file.path().to_path_buf();
                let _removed_by_signals = CleanUp::on_signals(move || drop(fs::remove_file(path)))?;
                Way::Named { file, _removed_by_signals }
            }
        };
        Ok(Replacement { way, at, old })
    }

    /// The file, to be written to.
    pub fn file(&self) -> &File {
        match &self.way {
            Way::Direct(file) | Way::Nameless(file) => file,
            Way::Named { file, .. } => file.as_file(),
        }
    }

    /// Puts it in its place: whoever opens the path finds the old file or the new one, whole.
    pub fn finish(self) -> Result<()> {
        let at = self.at.clone();
        self.put_in_place().map_err(|error| failed(&at, error))
    }

    fn put_in_place(self) -> io::Result<()> {
        if let Some(old) = &self.old {
            // What is replaced keeps its owner, where this user may give files away, and its
            // permissions.
            let (uid, gid) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
            let given = fchown(self.file(), Some(uid), Some(gid));
            let special = if given.is_ok() { 0o7777 } else { 0o777 };
            fchmod(self.file(), Mode::from_raw_mode(old.mode() & special))?;
            // The name may be on the disk before the bytes are: a crash of the host in between
            // would leave neither the old content nor the new.
            self.file().sync_data()?;
        }
        match self.way {
            Way::Direct(_) => Ok(()),
            Way::Nameless(file) => {
                if self.old.is_none() {
                    match name(&file, &self.at) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        done => return done,
                    }
                }
                // A name cannot be linked over another: it gets one beside it for a moment.
                let beside = name_beside(&file, directory_of(&self.at))?;
                fs::rename(&beside, &self.at).inspect_err(|_| {
                    // The rename's error is what counts.
                    let _ = fs::remove_file(&beside);
                })
            }
            Way::Named { file, .. } => {
                file.persist(&self.at).map(drop).map_err(|failed| failed.error)
            }
        }
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::Local(format!("create {}", path.display()), error)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Where a path leads, which need not exist, or `None` where that has no name: behind a link of
/// `/proc`.
fn followed(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut at = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        let target = match fs::read_link(&at) {
            Ok(target) => target,
            // It is no link, or not there.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) =>
            {
                return Ok(Some(at));
            }
            Err(error) => return Err(error),
        };
        let directory = directory_of(&at);
        if statfs(directory)?.f_type as u64 == PROC_SUPER_MAGIC {
            return Ok(None);
        }
        at = directory.join(target);
    }
    Err(Errno::LOOP.into())
}

/// A file without a name in a directory, if its filesystem has such files, and can name them.
fn has_nameless_files(directory: &Path) -> io::Result<Option<File>> {
    if !Path::new("/proc/self/fd").is_dir() {
        return Ok(None);
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match open(directory, flags, READ_WRITE_ALL) {
        Ok(file) => Ok(Some(File::from(file))),
        // What kernels and filesystems say that do not know it.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file without a name one that nobody has.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

fn name_beside(file: &File, directory: &Path) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let beside = directory.join(format!(".umbra-get-{}-{number}", std::process::id()));
        match name(file, &beside) {
            Ok(()) => return Ok(beside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    fn none(_: &Path) -> io::Result<Option<File>> {
        Ok(None)
    }

    type Nameless = fn(&Path) -> io::Result<Option<File>>;
    const WAYS: [Nameless; 2] = [has_nameless_files, none];

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_at_the_end_or_not_at_all() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("f");
            // A new one has the permissions that new files have.
            let new = Replacement::begin(&path, way).unwrap();
            new.file().write_all(b"one").unwrap();
            assert!(!path.exists());
            new.finish().unwrap();
            fs::write(folder.path().join("usual"), b"").unwrap();
            let usual = fs::metadata(folder.path().join("usual")).unwrap().mode();
            assert_eq!(fs::metadata(&path).unwrap().mode(), usual);
            // One that is given up leaves the old one, and nothing else.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let new = Replacement::begin(&path, way).unwrap();
            new.file().write_all(b"given up").unwrap();
            drop(new);
            assert_eq!(fs::read(&path).unwrap(), b"one");
            assert_eq!(names(folder.path()), ["f", "usual"]);
            // The permissions are those of what is replaced; links lead to what is.
            symlink("f", folder.path().join("l")).unwrap();
            symlink("l", folder.path().join("ll")).unwrap();
            let new = Replacement::begin(&folder.path().join("ll"), way).unwrap();
            new.file().write_all(b"two").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"one");
            new.finish().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"two");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
            assert!(folder.path().join("ll").is_symlink());
            // A link that leads to nothing yet.
            symlink("new", folder.path().join("dangling")).unwrap();
            Replacement::begin(&folder.path().join("dangling"), way).unwrap().finish().unwrap();
            assert_eq!(fs::read(folder.path().join("new")).unwrap(), b"");
            // What came there meanwhile is replaced, too.
            let new = Replacement::begin(&folder.path().join("late"), way).unwrap();
            fs::write(folder.path().join("late"), b"meanwhile").unwrap();
            new.finish().unwrap();
            assert_eq!(fs::read(folder.path().join("late")).unwrap(), b"");
            assert_eq!(names(folder.path()), ["dangling", "f", "l", "late", "ll", "new", "usual"]);
        }
    }

    #[test]
    fn what_is_no_regular_file_is_written_to_directly() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            for path in ["/dev/null", "/dev/stderr", "/proc/self/fd/2"] {
                let there = Replacement::begin(Path::new(path), way).unwrap();
                assert!(matches!(there.way, Way::Direct(_)), "{path}");
                there.finish().unwrap();
            }
            // A file that is open is written to where it is, though it could be replaced by its
            // name.
            let path = folder.path().join("f");
            fs::write(&path, b"old").unwrap();
            let inode = fs::metadata(&path).unwrap().ino();
            let open = File::options().append(true).open(&path).unwrap();
            let shown = format!("/proc/self/fd/{}", open.as_raw_fd());
            let there = Replacement::begin(Path::new(&shown), way).unwrap();
            there.file().write_all(b"new").unwrap();
            there.finish().unwrap();
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.ino(), fs::read(&path).unwrap()), (inode, b"new".to_vec()));
            assert!(Replacement::begin(folder.path(), way).is_err(), "a directory");
            assert!(Replacement::begin(&folder.path().join("none/f"), way).is_err());
            symlink("loop", folder.path().join("loop")).unwrap();
            assert!(Replacement::begin(&folder.path().join("loop"), way).is_err());
        }
    }

    const PLACE: &str = "UMBRA_TEST_REPLACEMENT";

    /// The test below runs this test program anew, with a path: then this is what the signal ends.
    #[test]
    fn waits_for_a_signal() {
        let Some(path) = std::env::var_os(PLACE) else { return };
        let new = Replacement::begin(Path::new(&path), none).unwrap();
        new.file().write_all(b"half").unwrap();
        thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn a_signal_leaves_nothing() {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("f"), b"old").unwrap();
            // Whoever runs this test may ignore the signals.
            let mut child = Command::new("env")
                .arg("--default-signal=INT,TERM,HUP")
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "client::replace::tests::waits_for_a_signal"])
                .env(PLACE, folder.path().join("f"))
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            let half = |name: &String| {
                name != "f"
                    && fs::metadata(folder.path().join(name)).is_ok_and(|found| found.len() == 4)
            };
            while !names(folder.path()).iter().any(half) {
                assert!(Instant::now() < deadline, "it does not begin");
                thread::sleep(Duration::from_millis(5));
            }
            kill_process(Pid::from_child(&child), signal).unwrap();
            assert!(!child.wait().unwrap().success());
            assert_eq!(names(folder.path()), ["f"], "{signal:?}");
            assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"old");
        }
    }
}
