//! The QEMUs that tests run under: the one that is installed, and another version beside it.
//!
//! `./run-qemu.sh setup` puts the other one into `target/other-qemu` (see `.ci/qemu.sh`). Where it
//! cannot be had, a run of all tests says so at its end. A test asks for both:
//!
//! ```ignore
//! umbra_tests::under_each_qemu!(it_boots);
//!
//! fn it_boots(qemu: &Qemu) { ... }
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use umbra::launch::DEFAULT_QEMU;

/// A version of QEMU and its tools.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// Where its programs are; those that are installed are found in `PATH`.
    folder: Option<PathBuf>,
}

impl Qemu {
    /// The one that is installed.
    pub fn installed() -> Qemu {
        Qemu { folder: None }
    }

    /// Another version, if it is here.
    pub fn other() -> Option<Qemu> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/other-qemu/bin");
        folder.canonicalize().ok().map(|folder| Qemu { folder: Some(folder) })
    }

    /// One of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.join(name),
            None => name.into(),
        }
    }

    /// The program that emulates a machine.
    pub fn system(&self) -> PathBuf {
        self.program(DEFAULT_QEMU)
    }

    /// The version of one of its programs, such as 7.2.22; `None` if it does not run.
    pub fn version(&self, name: &str) -> Option<String> {
        version(&self.program(name))
    }
}

/// The version of a program: the second word that it answers `--version` with.
pub fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let numbers = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    text.split_whitespace().skip(1).find(numbers).map(str::to_string)
}

/// Makes two tests of each function that takes a [`Qemu`]: `installed::NAME`, and `other::NAME`,
/// which does nothing where there is no other QEMU.
#[macro_export]
macro_rules! under_each_qemu {
    ($($name:ident),* $(,)?) => {
        mod installed {
            $(#[test] fn $name() { super::$name(&$crate::qemus::Qemu::installed()) })*
        }
        mod other {
            $(#[test] fn $name() {
                match $crate::qemus::Qemu::other() {
                    Some(qemu) => super::$name(&qemu),
                    None => eprintln!("there is no other QEMU: ./run-qemu.sh setup says why"),
                }
            })*
        }
    };
}
