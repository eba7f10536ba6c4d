//! Who may use the sockets and files that a server makes.
//!
//! Whoever connects to a socket of the server can read, change and end everything. So neither the
//! umask nor the mode of a directory that exists decides, but an [`Access`]: the owner alone,
//! unless somebody says otherwise.
//!
//! Linux lets only those connect who may write to the socket (unix(7)), and nobody before the
//! socket listens. Its mode is set between the two, so nobody slips in.

use nix::unistd::Group;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Clients that may wait to be accepted. The system has a limit of its own, which is lower.
const BACKLOG: i32 = i32::MAX;

/// Who may connect, beside the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The group of the socket: its number. `None`: that of the process.
    pub group: Option<u32>,
    /// The mode of the socket. `None`: 0660 if there is a group, else 0600.
    pub mode: Option<u32>,
}

impl Access {
    /// The owner alone.
    pub const OWNER: Access = Access { group: None, mode: None };

    /// The mode of a socket. The owner is never locked out.
    pub fn socket_mode(&self) -> u32 {
        0o600 | self.mode.unwrap_or(if self.group.is_some() { 0o660 } else { 0o600 })
    }

    /// The mode of a file that clients read to find the socket: those who may connect may read.
    fn file_mode(&self) -> u32 {
        0o600 | (self.socket_mode() & 0o222) << 1
    }

    /// Gives the file at a path, which is no symbolic link, a mode and the group.
    fn grant(&self, path: &Path, mode: u32) -> io::Result<()> {
        // The file itself: in a directory that others can change, the name may lead elsewhere soon.
        let file =
            openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        if self.group.is_some() {
            chown(&path, None, self.group)?;
        }
        fs::set_permissions(&path, Permissions::from_mode(mode))
    }

    /// Listens on a new socket at a path, for those who have access.
    pub fn listen(&self, path: &Path) -> io::Result<UnixListener> {
        let socket = self.bind(path)?;
        match listen(&socket, BACKLOG) {
            Ok(()) => Ok(socket.into()),
            Err(error) => {
                // It was made here, and nobody listens on it.
                let _ = fs::remove_file(path);
                Err(error.into())
            }
        }
    }

    /// Makes the socket with its mode. Nobody can connect yet: it does not listen.
    fn bind(&self, path: &Path) -> io::Result<OwnedFd> {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        if let Err(error) = self.grant(path, self.socket_mode()) {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(socket)
    }

    /// Puts a small file in the place of whatever has its name, as a whole: nobody reads half of
    /// it.
    pub fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let new = path.with_added_extension("new");
        let mut file = create(&new)?;
        file.write_all(content)?;
        if self.file_mode() != 0o600 {
            self.grant(&new, self.file_mode())?;
        }
        fs::rename(new, path)
    }

    /// Lets those who have access reach what is in a directory, which stays as closed as it is for
    /// all else: they may search it, not list it.
    pub fn open_directory(&self, path: &Path) -> io::Result<()> {
        let found = fs::metadata(path)?;
        let (before, mode) = (found.mode() & 0o7777, self.socket_mode());
        let mut wanted = before;
        if mode & 0o070 != 0 {
            if let Some(group) = self.group.filter(|&group| group != found.gid()) {
                if before & 0o070 != 0 {
                    return Err(io::Error::other("it is open to another group"));
                }
                chown(path, None, Some(group))?;
            }
            wanted |= 0o010;
        }
        if mode & 0o007 != 0 {
            wanted |= 0o001;
        }
        if wanted == before {
            Ok(())
        } else {
            fs::set_permissions(path, Permissions::from_mode(wanted))
        }
    }
}

/// Makes an empty file for its owner alone, in the place of one that may be there.
pub fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// Reads a group: its name, or its number.
pub fn parse_group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("there is no group '{text}'")),
        Err(error) => Err(format!("cannot look up the group '{text}': {error}")),
    }
}

/// Reads the mode of a socket: three octal digits, as for chmod.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("'{text}' is no mode: write three octal digits, such as 660")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn nobody_can_connect_before_the_mode_is_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = Access::OWNER.bind(&path).unwrap();
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(mode(&path), 0o600);
        listen(&socket, BACKLOG).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn sockets_are_as_open_as_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::metadata(folder.path()).unwrap().gid();
        for (group, asked, expected) in [
            (None, None, 0o600),
            (Some(own), None, 0o660),
            (None, Some(0o666), 0o666),
            (Some(own), Some(0o060), 0o660),
        ] {
            let path = folder.path().join("s");
            let _listener = Access { group, mode: asked }.listen(&path).unwrap();
            assert_eq!(mode(&path), expected);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_file_takes_the_place_of_one_that_others_could_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let reader = File::open(&path).unwrap();
        Access::OWNER.write(&path, b"new").unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"new".to_vec()));
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
        Access { group: None, mode: Some(0o660) }.write(&path, b"new").unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn a_directory_is_opened_no_further_than_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let open = |mode| Access { group: None, mode: Some(mode) }.open_directory(folder.path());
        for (socket, directory) in [(0o600, 0o700), (0o660, 0o710), (0o666, 0o711)] {
            open(socket).unwrap();
            assert_eq!(mode(folder.path()), directory);
        }
    }

    #[test]
    fn modes_and_groups_are_read() {
        assert_eq!(parse_mode("660"), Ok(0o660));
        assert_eq!(parse_mode("0600"), Ok(0o600));
        for bad in ["", "rw", "888", "1777"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_group("12"), Ok(12));
        assert_eq!(parse_group("root"), Ok(0));
        assert!(parse_group("no such group").is_err());
    }
}
