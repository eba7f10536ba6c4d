//! The lock file for compilers that need another release of one crate.
//!
//! `x86_64` implements `core::iter::Step`, an unstable trait that Rust 1.99 changed. Its release
//! 0.15.4 builds with what came before, 0.15.5 with what came after, and one lock file can name
//! only one of them. `Cargo.lock` names the first. For a newer compiler this makes a copy that
//! names the second, which cargo reads instead (its setting `resolver.lockfile-path`, which those
//! versions have).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The first compiler with the changed trait.
const CHANGED: (u32, u32) = (1, 99);

const OLD: Release = Release {
    version: "0.15.4",
    checksum: "f7841fa0098ceb15c567d93d3fae292c49e10a7662b4936d5f6a9728594555ba",
};
const NEW: Release = Release {
    version: "0.15.5",
    checksum: "be4ec631e1a81d50e46c35a4a00322bd076c47491b64c2fb10a7ffa89002c697",
};

/// A release of `x86_64` on the registry.
struct Release {
    version: &'static str,
    checksum: &'static str,
}

/// The lock file for a compiler, if it is not the workspace's: made or brought up to date in
/// `folder`.
pub(super) fn lock_for(
    version: (u32, u32),
    workspace: &Path,
    folder: &Path,
) -> io::Result<Option<PathBuf>> {
    let path = folder.join("Cargo.lock");
    if version < CHANGED {
        // Whoever finds it there takes it for needed.
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(None),
        };
    }
    let lock = with_new_release(&fs::read_to_string(workspace.join("Cargo.lock"))?);
    if fs::read_to_string(&path).ok().as_deref() != Some(&lock) {
        fs::write(&path, lock)?;
    }
    Ok(Some(path))
}

/// The lock file's text with the one release for the other. Cargo itself objects if what comes out
/// fits nothing.
fn with_new_release(lock: &str) -> String {
    let version =
        |release: &Release| format!("name = \"x86_64\"\nversion = \"{}\"\n", release.version);
    lock.replace(&version(&OLD), &version(&NEW)).replace(OLD.checksum, NEW.checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

    #[test]
    fn the_workspace_names_the_old_release_and_the_copy_the_new_one() {
        let lock = fs::read_to_string(Path::new(WORKSPACE).join("Cargo.lock")).unwrap();
        assert_eq!(
            (lock.matches(OLD.checksum).count(), lock.matches(NEW.checksum).count()),
            (1, 0)
        );
        let changed = with_new_release(&lock);
        assert_eq!(
            (changed.matches(OLD.checksum).count(), changed.matches(NEW.checksum).count()),
            (0, 1)
        );
        let different = lock.lines().zip(changed.lines()).filter(|(one, other)| one != other);
        assert_eq!((different.count(), lock.len()), (2, changed.len()));
    }

    #[test]
    fn older_compilers_keep_the_workspaces_lock() {
        let folder = tempfile::tempdir().unwrap();
        let lock = |version| lock_for(version, Path::new(WORKSPACE), folder.path()).unwrap();
        assert_eq!(lock((1, 98)), None);
        assert_eq!(lock((1, 99)), Some(folder.path().join("Cargo.lock")));
        assert!(lock((1, 101)).unwrap().is_file());
        assert_eq!(lock((1, 96)), None);
        assert!(!folder.path().join("Cargo.lock").exists());
    }
}
