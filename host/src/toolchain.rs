//! The toolchain that builds for `x86_64-unknown-none`.
//!
//! A plain stable toolchain builds everything that runs on the host, but not the loader and the
//! kernel. Which one builds those, `run-qemu.sh toolchain` says: the script chooses, since it has
//! to where there is no cargo yet, and nothing else does. Its choice and its reasons stand there.
//!
//! With the component `rust-src`, `core` and `alloc` are built too (`-Zbuild-std`). In every case
//! `RUSTC_BOOTSTRAP=1` lets stable compilers build crates that use unstable features. Nothing of
//! the machine is changed: no override, no default, no component.
//!
//! The cargo that is started here must not be confused by an outer one (`cargo run`, `cargo
//! clippy`): of its environment only what says where crates come from is passed on.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target of the loader and the kernel.
pub const TARGET: &str = "x86_64-unknown-none";

/// The script that chooses, in the folder of the workspace.
const SCRIPT: &str = "run-qemu.sh";

/// A toolchain that can build for [`TARGET`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    cargo: PathBuf,
    /// Given when it is not the one that cargo finds itself.
    rustc: Option<PathBuf>,
    /// Of the compiler: 1.x.
    version: (u32, u32),
    /// Given when the toolchain brings no linker of its own.
    linker: Option<PathBuf>,
    build_std: bool,
}

/// No toolchain can build for [`TARGET`]: why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoToolchain(String);

impl fmt::Display for NoToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoToolchain {}

/// Asks for the toolchain of a workspace, whose folder decides what rustup takes as the active one.
///
/// # Errors
///
/// [`NoToolchain`] if the script finds none, cannot be run, or says what this does not understand.
pub fn find(workspace: &Path) -> Result<Toolchain, NoToolchain> {
    let mut script = clean(&workspace.join(SCRIPT));
    script.arg("toolchain").current_dir(workspace).stdin(Stdio::null());
    let output =
        script.output().map_err(|error| NoToolchain(format!("{SCRIPT} does not run: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(NoToolchain(said.trim().into()));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    parse(&said).ok_or_else(|| NoToolchain(format!("{SCRIPT} says of the toolchain: {said:?}")))
}

/// What the script says: lines of `NAME=VALUE`, where an empty value is none.
fn parse(said: &str) -> Option<Toolchain> {
    let value = |name: &str| {
        said.lines().find_map(|line| line.strip_prefix(name).and_then(|it| it.strip_prefix('=')))
    };
    let path = |name: &str| Some(value(name)?).filter(|it| !it.is_empty()).map(PathBuf::from);
    let (major, minor) = value("version")?.split_once('.')?;
    Some(Toolchain {
        cargo: path("cargo")?,
        rustc: path("rustc"),
        version: (major.parse().ok()?, minor.parse().ok()?),
        linker: path("linker"),
        build_std: value("build_std")? == "yes",
    })
}

impl Toolchain {
    /// A command that starts a subcommand of this toolchain's cargo for [`TARGET`].
    pub fn cargo(&self, subcommand: &str) -> Command {
        const BUILD_STD: [&str; 2] =
            ["-Zbuild-std=core,alloc", "-Zbuild-std-features=compiler-builtins-mem"];
        let mut command = clean_of(subcommand_of(&self.cargo, subcommand));
        command.env("RUSTC_BOOTSTRAP", "1");
        if let Some(rustc) = &self.rustc {
            // Its libraries, not those of the toolchain that an outer cargo or rustup put first.
            command
                .env("CARGO", &self.cargo)
                .env("RUSTC", rustc)
                .env("RUSTDOC", rustc.with_file_name("rustdoc"))
                .env_remove("RUSTUP_TOOLCHAIN")
                .env_remove("LD_LIBRARY_PATH");
        }
        if let Some(linker) = &self.linker {
            command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", linker);
        }
        command.args(["--target", TARGET]);
        if self.build_std {
            command.args(BUILD_STD);
        }
        command
    }

    /// The compiler's version, as major and minor number.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }
}

/// A command that starts a subcommand of a cargo. One that is a program beside it (`cargo-clippy`)
/// is started itself, because cargo would take the first one in `$PATH`, which may belong to
/// another toolchain.
pub fn subcommand_of(cargo: &Path, subcommand: &str) -> Command {
    let beside = cargo.with_file_name(format!("cargo-{subcommand}"));
    let mut command = if cargo.is_absolute() && beside.is_file() {
        let mut command = Command::new(beside);
        // What it starts in turn.
        command.env("CARGO", cargo).env("RUSTFMT", cargo.with_file_name("rustfmt"));
        command
    } else {
        Command::new(cargo)
    };
    command.arg(subcommand);
    command
}

/// A command without what an outer cargo has set for its own compiler.
fn clean(program: &Path) -> Command {
    clean_of(Command::new(program))
}

/// The same, of a command that has an environment of its own already.
fn clean_of(mut command: Command) -> Command {
    let own: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in std::env::vars_os() {
        if !is_passed_on(&name) && !own.contains(&name) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether a variable means the same to an inner cargo as to an outer one.
fn is_passed_on(name: &OsStr) -> bool {
    const REMOVED: [&str; 6] = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "MAKEFLAGS", "OUT_DIR"];
    const KEPT: [&str; 9] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_BUILD_JOBS",
        "RUSTUP_",
    ];
    let Some(name) = name.to_str() else { return true };
    KEPT.iter().any(|kept| name.starts_with(kept))
        || !REMOVED.iter().any(|removed| name.starts_with(removed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A folder with a toolchain that is made of scripts, and its `rustc` and `cargo`.
    fn toolchain(folder: &Path, name: &str, version: &str, files: &[&str]) -> [String; 2] {
        let root = folder.join(name);
        fs::create_dir_all(root.join("bin")).unwrap();
        for file in files {
            let file = root.join("lib/rustlib").join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let rustc = format!(
            "case \"$1\" in --version) echo '{version}';; --print) echo '{}';; esac",
            root.display()
        );
        [("rustc", rustc.as_str()), ("cargo", "echo cargo")].map(|(name, script)| {
            let path = root.join("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path.to_str().unwrap().to_owned()
        })
    }

    /// What the script says where the active toolchain and Debian's are these, by `rustc` and
    /// `cargo`, and the system has this linker.
    fn say(active: &[String; 2], debian: &[String; 2], linker: &str) -> Result<Toolchain, String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../run-qemu.sh");
        let asks = "source \"$1\"; system_linker() { echo $LINKER; [[ $LINKER ]]; }; \
                    say_toolchain \"${@:2}\"";
        let output = clean(Path::new("/bin/bash"))
            .args(["-c", asks, "-", script])
            .args(active)
            .args(debian)
            .env("LINKER", linker)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match output.status.success() {
            true => Ok(parse(&text(&output.stdout)).unwrap_or_else(|| panic!("{output:?}"))),
            false => Err(text(&output.stderr)),
        }
    }

    const LLD: &str = "x86_64-unknown-linux-gnu/bin/rust-lld";
    const HAS_TARGET: &str = "x86_64-unknown-none/lib/libcore.rlib";
    const HAS_SOURCE: &str = "src/rust/library/core/Cargo.toml";

    #[test]
    fn the_target_is_enough_and_source_is_second_best() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path();
        let new = "rustc 1.101.0-nightly (59807616e 2026-04-14)";
        let target = toolchain(folder, "target", new, &[HAS_TARGET, HAS_SOURCE, LLD]);
        let source = toolchain(folder, "source", "rustc 1.95.0 (x)", &[HAS_SOURCE]);
        let plain = toolchain(folder, "plain", "rustc 1.96.0 (x)", &[LLD]);
        let old = toolchain(folder, "old", "rustc 1.94.9 (x)", &[HAS_TARGET, LLD]);

        let found = say(&target, &source, "").unwrap();
        assert_eq!(found.cargo, Path::new(&target[1]));
        assert_eq!((found.version, found.build_std), ((1, 101), false));
        assert_eq!((&found.rustc, &found.linker), (&None, &None));
        let arguments: Vec<_> = found.cargo("build").get_args().map(|it| it.to_owned()).collect();
        assert_eq!(arguments, ["build", "--target", TARGET]);

        // Where the active one cannot, Debian's does; it needs a linker of the system.
        let found = say(&plain, &source, "/x/ld.lld").unwrap();
        assert_eq!((found.version, found.build_std), ((1, 95), true));
        assert_eq!(found.rustc.as_deref(), Some(Path::new(&source[0])));
        assert_eq!(found.linker, Some("/x/ld.lld".into()));
        assert_eq!(found.cargo("build").get_args().count(), 5);

        let said = say(&old, &source, "").unwrap_err();
        for part in ["rustc 1.94.9 (x) is older than 1.95", "there is no ld.lld"] {
            assert!(said.contains(part), "{said}");
        }
        let missing = ["/nonexistent/rustc".into(), "/nonexistent/cargo".into()];
        let said = say(&plain, &missing, "").unwrap_err();
        for part in ["neither the target nor rust-src", "no cargo", "rustup target add", "apt-get"]
        {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }

    #[test]
    fn what_the_script_says_is_understood_or_refused() {
        let said = "cargo=/x/cargo\nrustc=\nversion=1.96\nlinker=/x/ld.lld\nbuild_std=yes\n";
        let toolchain = parse(said).unwrap();
        assert_eq!((toolchain.version(), &toolchain.rustc), ((1, 96), &None));
        assert_eq!(toolchain.linker.as_deref(), Some(Path::new("/x/ld.lld")));
        for bad in ["", "cargo=\nversion=1.96\nbuild_std=no", "cargo=c\nversion=1\nbuild_std=no"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_outer_cargo_does_not_leak_in() {
        for name in [
            "CARGO",
            "CARGO_PKG_NAME",
            "CARGO_TARGET_DIR",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "CARGO_MAKEFLAGS",
        ] {
            assert!(!is_passed_on(OsStr::new(name)), "{name}");
        }
        for name in [
            "PATH",
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "RUSTUP_TOOLCHAIN",
            "RUST_BACKTRACE",
            "https_proxy",
        ] {
            assert!(is_passed_on(OsStr::new(name)), "{name}");
        }
    }
}
