//! Building the loader and the kernel, and where the results are.
//!
//! ```text
//! target/bare-metal/           this cargo's own target directory: host builds do not evict it
//!     Cargo.lock               only for compilers that need it: see `lock`
//!     images/release/          umbra-boot, umbra-kernel
//!     images/release+FEATURES/ the same with features of the kernel, kept apart
//! ```
//!
//! Cargo decides what is out of date. It puts the results of every feature set at the same place,
//! so each set is copied to a folder of its own while a lock is held; a file is replaced as a
//! whole, never written into, so that a QEMU that has it open is not disturbed.

mod lock;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::toolchain::{self, NoToolchain, TARGET};

/// Where cargo puts what it builds for the bare machine, in the workspace.
const TARGET_DIR: &str = "target/bare-metal";

/// How to build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Optimised: what serves.
    #[default]
    Release,
    /// With debug assertions, in which the kernel checks its invariants.
    Debug,
}

/// What to build.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// How.
    pub profile: Profile,
    /// Features of the kernel, such as `test-commands`.
    pub features: &'a [&'a str],
    /// Whether cargo's progress goes to standard error. If not, it is part of the error when the
    /// build fails.
    pub show_progress: bool,
}

/// Files for QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// For `-kernel`.
    pub loader: PathBuf,
    /// For `-initrd`; also what resolves the addresses of a backtrace.
    pub kernel: PathBuf,
}

/// Why there are no images.
#[derive(Debug)]
pub enum Error {
    /// The source is not where this program was built from it.
    NoSource(PathBuf),
    /// Nothing can build for the target.
    Toolchain(NoToolchain),
    /// A file or a program failed.
    Io(&'static str, PathBuf, io::Error),
    /// Cargo failed; what it said, if that was not shown already.
    Cargo(ExitStatus, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSource(folder) => {
                write!(
                    f,
                    "cannot build the kernel: its source is not in {} any more",
                    folder.display()
                )
            }
            Self::Toolchain(error) => write!(f, "cannot build the kernel: {error}"),
            Self::Io(action, path, error) => {
                write!(f, "cannot {action} {}: {error}", path.display())
            }
            Self::Cargo(status, output) => {
                write!(f, "cannot build the kernel: cargo ended with {status}")?;
                if output.is_empty() { Ok(()) } else { write!(f, "\n{output}") }
            }
        }
    }
}

impl std::error::Error for Error {}

/// The workspace that this program was built from.
fn workspace() -> Result<&'static Path, Error> {
    let host = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = host.parent().unwrap_or(host);
    if root.join("kernel/Cargo.toml").is_file() && root.join("boot/Cargo.toml").is_file() {
        Ok(root)
    } else {
        Err(Error::NoSource(root.to_owned()))
    }
}

/// A subcommand of cargo on loader and kernel, with the toolchain that builds for their target, so
/// far without options of that subcommand.
///
/// # Errors
///
/// There is no source, no toolchain, or no place for a lock file.
pub fn cargo(subcommand: &str) -> Result<Command, Error> {
    let workspace = workspace()?;
    let toolchain = toolchain::find(workspace).map_err(Error::Toolchain)?;
    let target_dir = workspace.join(TARGET_DIR);
    let failed = |error| Error::Io("write", target_dir.join("Cargo.lock"), error);
    fs::create_dir_all(&target_dir).map_err(failed)?;
    let other_lock = lock::lock_for(toolchain.version(), workspace, &target_dir).map_err(failed)?;
    let mut cargo = toolchain.cargo(subcommand);
    cargo.current_dir(workspace).arg("--target-dir").arg(&target_dir);
    cargo.args(["--package=umbra-boot", "--package=umbra-kernel"]);
    if let Some(path) = other_lock {
        cargo.arg("--config").arg(format!("resolver.lockfile-path={path:?}"));
    }
    Ok(cargo)
}

/// Builds what is out of date and returns the files. Calls in several processes wait for each
/// other.
pub fn build(request: &Request<'_>) -> Result<Images, Error> {
    let target_dir = workspace()?.join(TARGET_DIR);
    let images = target_dir.join("images").join(folder_name(request));
    fs::create_dir_all(&images).map_err(|error| Error::Io("create", images.clone(), error))?;

    let lock_path = target_dir.join("images/.lock");
    let lock =
        File::create(&lock_path).map_err(|error| Error::Io("create", lock_path.clone(), error))?;
    lock.lock().map_err(|error| Error::Io("lock", lock_path, error))?;

    let (profile_argument, profile_folder) = match request.profile {
        Profile::Release => ("--release", "release"),
        Profile::Debug => ("--profile=dev", "debug"),
    };
    let mut cargo = cargo("build")?;
    cargo.args(["--locked", profile_argument]);
    for feature in request.features {
        cargo.arg(format!("--features=umbra-kernel/{feature}"));
    }
    // A call costs more than most of what is called on the fault path.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "fat").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    // All debug information would make the image larger than the memory that it is loaded into.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    cargo.stdin(Stdio::null()).stdout(Stdio::null());
    run(cargo, request.show_progress)?;

    let built = target_dir.join(TARGET).join(profile_folder);
    let publish = |name: &str| {
        let (from, to) = (built.join(name), images.join(name));
        publish(&from, &to).map_err(|error| Error::Io("copy", from, error))?;
        Ok(to)
    };
    Ok(Images { loader: publish("umbra-boot")?, kernel: publish("umbra-kernel")? })
}

/// `release`, `debug`, and behind a `+` the features, in one order whatever the caller's.
fn folder_name(request: &Request<'_>) -> String {
    let mut name = String::from(match request.profile {
        Profile::Release => "release",
        Profile::Debug => "debug",
    });
    let mut features = request.features.to_vec();
    features.sort_unstable();
    features.dedup();
    for feature in features {
        name.push('+');
        name.push_str(feature);
    }
    name
}

fn run(mut cargo: Command, show_progress: bool) -> Result<(), Error> {
    cargo.stderr(if show_progress { Stdio::inherit() } else { Stdio::piped() });
    let output =
        cargo.output().map_err(|error| Error::Io("run", cargo.get_program().into(), error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Cargo(output.status, String::from_utf8_lossy(&output.stderr).trim_end().to_owned()))
}

/// Makes `to` a copy of `from`, at once or not at all; leaves it alone if it is one already.
fn publish(from: &Path, to: &Path) -> io::Result<()> {
    let new = fs::read(from)?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let temporary = to.with_extension("new");
    fs::write(&temporary, new)?;
    fs::rename(temporary, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_sets_are_kept_apart_and_have_one_name() {
        let name = |profile, features: &[&str]| {
            folder_name(&Request { profile, features, show_progress: false })
        };
        assert_eq!(name(Profile::Release, &[]), "release");
        assert_eq!(name(Profile::Release, &["b", "a", "b"]), "release+a+b");
        assert_eq!(name(Profile::Debug, &["a"]), "debug+a");
    }

    #[test]
    fn publishing_replaces_files_and_leaves_equal_ones_alone() {
        let folder = std::env::temp_dir().join(format!("umbra-publish-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::write(&from, "one").unwrap();
        publish(&from, &to).unwrap();
        let kept_open = File::open(&to).unwrap();
        let written = fs::metadata(&to).unwrap().modified().unwrap();
        publish(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), written);
        fs::write(&from, "two").unwrap();
        publish(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
        assert_eq!(io::read_to_string(kept_open).unwrap(), "one");
        fs::remove_dir_all(folder).unwrap();
    }
}
