//! Finding a toolchain that can build for `x86_64-unknown-none`.
//!
//! A plain stable toolchain builds everything that runs on the host, but not the loader and the
//! kernel. Those take the first of:
//!
//! 1. the active toolchain (`cargo` and `rustc` as `PATH` and rustup choose them in this
//!    workspace), if it has the target or the component `rust-src`;
//! 2. Debian's pair, `/usr/bin/cargo` and `/usr/bin/rustc`, with the package `rust-web-src`.
//!
//! With `rust-src`, `core` and `alloc` are built too (`-Zbuild-std`). In every case
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

/// The oldest compiler that builds this workspace; `rust-version` in Cargo.toml.
const OLDEST: (u32, u32) = (1, 95);

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

/// No toolchain can build for [`TARGET`]; says why for each, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoToolchain {
    reasons: Vec<(&'static str, Unfit)>,
}

impl fmt::Display for NoToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no Rust toolchain here can build for {TARGET}")?;
        for (name, why) in &self.reasons {
            write!(f, "; {name}: {why}")?;
        }
        write!(
            f,
            ". Either give the active one the target (rustup target add {TARGET}) or install \
             Debian's (apt-get install rustc-web cargo-web rust-web-src lld-19)"
        )
    }
}

impl std::error::Error for NoToolchain {}

/// Why a toolchain cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unfit {
    NoCargo,
    NoRustc,
    TooOld(String),
    NoTarget,
    NoLinker,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCargo => write!(f, "there is no cargo"),
            Self::NoRustc => write!(f, "there is no rustc that runs"),
            Self::TooOld(version) => write!(f, "{version} is older than {}.{}", OLDEST.0, OLDEST.1),
            Self::NoTarget => write!(f, "has neither the target nor rust-src"),
            Self::NoLinker => write!(f, "has no rust-lld, and there is no ld.lld"),
        }
    }
}

/// A toolchain that may be there.
struct Candidate {
    name: &'static str,
    cargo: PathBuf,
    rustc: PathBuf,
    /// Cargo would not find this `rustc` by itself.
    name_rustc: bool,
}

/// Finds the toolchain for a workspace (whose folder decides what rustup takes as active).
pub fn find(workspace: &Path) -> Result<Toolchain, NoToolchain> {
    let active = Candidate {
        name: "the active one",
        cargo: "cargo".into(),
        rustc: "rustc".into(),
        name_rustc: false,
    };
    let debian = Candidate {
        name: "Debian's",
        cargo: "/usr/bin/cargo".into(),
        rustc: "/usr/bin/rustc".into(),
        name_rustc: true,
    };
    first_fit([active, debian], |candidate| fit(candidate, workspace))
}

fn first_fit<const N: usize>(
    candidates: [Candidate; N],
    fit: impl Fn(&Candidate) -> Result<Toolchain, Unfit>,
) -> Result<Toolchain, NoToolchain> {
    let mut reasons = Vec::new();
    for candidate in candidates {
        match fit(&candidate) {
            Ok(toolchain) => return Ok(toolchain),
            Err(why) => reasons.push((candidate.name, why)),
        }
    }
    Err(NoToolchain { reasons })
}

fn fit(candidate: &Candidate, workspace: &Path) -> Result<Toolchain, Unfit> {
    let ask = |program: &Path, arguments: &[&str]| {
        let mut command = clean(program);
        command.args(arguments).current_dir(workspace).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let version = ask(&candidate.rustc, &["--version"]).ok_or(Unfit::NoRustc)?;
    let version = match parse_version(&version) {
        Some(number) if number >= OLDEST => number,
        _ => return Err(Unfit::TooOld(version)),
    };
    let sysroot = ask(&candidate.rustc, &["--print", "sysroot"]).ok_or(Unfit::NoRustc)?;
    ask(&candidate.cargo, &["--version"]).ok_or(Unfit::NoCargo)?;
    fit_sysroot(candidate, version, Path::new(&sysroot), system_linker)
}

/// What a toolchain's own folder says: target or source, and a linker.
fn fit_sysroot(
    candidate: &Candidate,
    version: (u32, u32),
    sysroot: &Path,
    system_linker: impl Fn() -> Option<PathBuf>,
) -> Result<Toolchain, Unfit> {
    let rustlib = sysroot.join("lib/rustlib");
    let has_target = rustlib.join(TARGET).join("lib").is_dir();
    let has_source = rustlib.join("src/rust/library/core").is_dir();
    if !has_target && !has_source {
        return Err(Unfit::NoTarget);
    }
    let own_linker = folders_in(&rustlib).any(|folder| folder.join("bin/rust-lld").is_file());
    let linker = if own_linker { None } else { Some(system_linker().ok_or(Unfit::NoLinker)?) };
    Ok(Toolchain {
        cargo: candidate.cargo.clone(),
        rustc: candidate.name_rustc.then(|| candidate.rustc.clone()),
        version,
        linker,
        build_std: !has_target,
    })
}

/// `ld.lld` as LLVM's packages install it: on the path, or only in a folder with its version.
fn system_linker() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("ld.lld")).collect::<Vec<_>>()
    });
    let mut versions: Vec<(u32, PathBuf)> = folders_in(Path::new("/usr/lib"))
        .filter_map(|folder| {
            let version = folder.file_name()?.to_str()?.strip_prefix("llvm-")?.parse().ok()?;
            Some((version, folder.join("bin/ld.lld")))
        })
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    on_path.chain(versions.into_iter().map(|(_, linker)| linker)).find(|linker| linker.is_file())
}

fn folders_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// `(1, 96)` of `rustc 1.96.0 (ac68faa20 2026-05-25)`.
fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix("rustc ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl Toolchain {
    /// A command that starts this toolchain's cargo, so far without a subcommand. `arguments` of
    /// [`Self::arguments`] belong after the subcommand.
    pub fn cargo(&self) -> Command {
        let mut command = clean(&self.cargo);
        command.env("RUSTC_BOOTSTRAP", "1");
        if let Some(rustc) = &self.rustc {
            // Its libraries, not those of the toolchain that an outer cargo or rustup put first.
            command
                .env("RUSTC", rustc)
                .env_remove("RUSTUP_TOOLCHAIN")
                .env_remove("LD_LIBRARY_PATH");
        }
        if let Some(linker) = &self.linker {
            command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", linker);
        }
        command
    }

    /// The compiler's version, as major and minor number.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// What every cargo subcommand for the target needs to be told.
    pub fn arguments(&self) -> &'static [&'static str] {
        const BUILD_STD: &[&str] = &[
            "--target",
            TARGET,
            "-Zbuild-std=core,alloc",
            "-Zbuild-std-features=compiler-builtins-mem",
        ];
        if self.build_std { BUILD_STD } else { &BUILD_STD[..2] }
    }
}

/// A command without what an outer cargo has set for its own compiler.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| !is_passed_on(name)) {
        command.env_remove(name);
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

    fn candidate(name_rustc: bool) -> Candidate {
        Candidate {
            name: "a test's",
            cargo: "/x/cargo".into(),
            rustc: "/x/rustc".into(),
            name_rustc,
        }
    }

    /// A sysroot with these folders and files below `lib/rustlib`.
    fn sysroot(name: &str, folders: &[&str], files: &[&str]) -> PathBuf {
        let root =
            std::env::temp_dir().join(format!("umbra-toolchain-{}-{name}", std::process::id()));
        let rustlib = root.join("lib/rustlib");
        for folder in folders {
            std::fs::create_dir_all(rustlib.join(folder)).unwrap();
        }
        for file in files {
            let file = rustlib.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        root
    }

    #[test]
    fn the_target_is_enough_and_source_is_second_best() {
        let lld = "x86_64-unknown-linux-gnu/bin/rust-lld";
        let none = || None;

        let root = sysroot("target", &["x86_64-unknown-none/lib", "src/rust/library/core"], &[lld]);
        let toolchain = fit_sysroot(&candidate(false), OLDEST, &root, none).unwrap();
        assert_eq!(
            (toolchain.build_std, &toolchain.rustc, &toolchain.linker),
            (false, &None, &None)
        );
        assert_eq!(toolchain.arguments(), ["--target", TARGET]);
        std::fs::remove_dir_all(root).unwrap();

        let root = sysroot("source", &["src/rust/library/core"], &[]);
        assert_eq!(fit_sysroot(&candidate(true), OLDEST, &root, none), Err(Unfit::NoLinker));
        let toolchain =
            fit_sysroot(&candidate(true), OLDEST, &root, || Some("/x/ld.lld".into())).unwrap();
        assert!(toolchain.build_std && toolchain.arguments().len() == 4);
        assert_eq!(toolchain.rustc.as_deref(), Some(Path::new("/x/rustc")));
        assert_eq!(toolchain.linker.as_deref(), Some(Path::new("/x/ld.lld")));
        std::fs::remove_dir_all(root).unwrap();

        let root = sysroot("plain", &["x86_64-unknown-linux-gnu/lib"], &[lld]);
        assert_eq!(fit_sysroot(&candidate(false), OLDEST, &root, none), Err(Unfit::NoTarget));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_first_that_fits_is_taken_and_the_error_names_both_ways_out() {
        let fits = |c: &Candidate| match c.cargo.to_str() {
            Some("/x/cargo") => fit_sysroot(c, OLDEST, Path::new("/nonexistent"), || None),
            _ => Err(Unfit::NoCargo),
        };
        let other = Candidate { cargo: "/y/cargo".into(), ..candidate(true) };
        let error = first_fit([candidate(false), other], fits).unwrap_err().to_string();
        for part in
            ["neither the target nor rust-src", "no cargo", "rustup target add", "apt-get install"]
        {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains('\n'));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(
            parse_version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"),
            Some((1, 96))
        );
        assert_eq!(parse_version("rustc 1.101.0-nightly (59807616e 2026-04-14)"), Some((1, 101)));
        assert_eq!(parse_version("gcc 12"), None);
        assert!(parse_version("rustc 1.101.0").unwrap() > OLDEST);
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
