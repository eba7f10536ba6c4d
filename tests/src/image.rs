//! Disk images with a real filesystem full of real files, and hashes.

use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use umbra::client::{Client, get};

/// A SHA-256.
pub type Hash = [u8; 32];

/// The hash of a local file.
pub fn hash_file(path: &Path) -> Hash {
    let mut file = File::open(path).expect("the file is there");
    let mut hasher = Hasher::default();
    io::copy(&mut file, &mut hasher).expect("it is readable");
    hasher.finish()
}

/// The hash of a file on the server.
pub fn hash_remote(client: &mut Client, path: &str) -> Hash {
    let mut hasher = Hasher::default();
    get(client, path.as_bytes(), None, &mut hasher, &mut |_, _| {}).expect("it is readable");
    hasher.finish()
}

/// Hashes what is written to it.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// The hash of what was written.
    pub fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Folders that every Linux system has full of files.
pub const REAL_FOLDERS: [&str; 2] = ["/usr/share", "/usr/lib"];

/// Makes an ext4 image of `size` bytes at `path`, three quarters full of copies of real files.
pub fn make_ext4(path: &Path, size: u64, folders: &[PathBuf]) {
    let staging = tempfile::tempdir().expect("a folder for the files");
    let copied = stage(folders, staging.path(), size / 4 * 3);
    assert!(copied > size / 4, "too few files in {folders:?} to fill an image");
    File::create(path).and_then(|file| file.set_len(size)).expect("room for the image");
    let output = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d"])
        .arg(staging.path())
        .arg(path)
        // Debian has it where only root's PATH looks.
        .env("PATH", path_with_sbin())
        .output()
        .expect("mke2fs is installed");
    assert!(output.status.success(), "mke2fs: {}", String::from_utf8_lossy(&output.stderr));
}

/// Asserts that a filesystem checker that nobody here wrote finds nothing wrong in an image.
pub fn assert_ext4_clean(path: &Path) {
    let output = Command::new("e2fsck")
        .args(["-f", "-n"])
        .arg(path)
        .env("PATH", path_with_sbin())
        .stdin(Stdio::null())
        .output()
        .expect("e2fsck is installed");
    assert!(output.status.success(), "e2fsck: {}", String::from_utf8_lossy(&output.stdout));
}

fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Copies regular files, breadth first, until `budget` bytes are reached; returns how many.
fn stage(folders: &[PathBuf], to: &Path, budget: u64) -> u64 {
    // Each file costs an inode and a part of a block, too.
    const OVERHEAD: u64 = 4096;
    let mut copied = 0;
    let mut pending: VecDeque<(PathBuf, PathBuf)> = folders
        .iter()
        .map(|folder| (folder.clone(), to.join(folder.strip_prefix("/").unwrap_or(folder))))
        .collect();
    while let Some((from, to)) = pending.pop_front() {
        let Ok(entries) = fs::read_dir(&from) else { continue };
        fs::create_dir_all(&to).expect("room for the files");
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            let target = to.join(entry.file_name());
            if metadata.is_dir() {
                pending.push_back((entry.path(), target));
            } else if metadata.is_file() && metadata.len() + OVERHEAD <= budget - copied {
                // What cannot be read is not needed.
                if fs::copy(entry.path(), &target).is_ok() {
                    copied += metadata.len() + OVERHEAD;
                }
            }
            if copied + OVERHEAD >= budget {
                return copied;
            }
        }
    }
    copied
}

/// Reads a whole local file.
pub fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .expect("the file is readable");
    bytes
}
