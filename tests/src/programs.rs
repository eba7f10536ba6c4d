//! The `umbra` program and the guest's images, each built once in a process.
//!
//! Cargo does not build a program of another package for a test, so this asks it to: where
//! nothing changed that takes a moment.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use umbra::build::{self, Images, Profile, Request};

/// The `umbra` program, of the same profile as the tests; `$UMBRA_BIN` where that is set.
pub fn umbra() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match env::var_os("UMBRA_BIN") {
        Some(path) => path.into(),
        None => build_umbra(),
    })
}

fn build_umbra() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "umbra", "--bin", "umbra"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().expect("cargo runs");
    assert!(
        output.status.success(),
        "cannot build umbra:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Cargo says where it put the program; the target directory may be anywhere.
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| {
            let ours =
                message["target"]["name"] == "umbra" && message["target"]["kind"][0] == "bin";
            message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
        })
        .expect("cargo names the program that it built")
}

/// Loader and kernel with features of the kernel; `$UMBRA_LOADER` and `$UMBRA_KERNEL`, which have
/// whatever features they have, where both are set.
pub fn images(features: &[&'static str]) -> Images {
    if let (Some(loader), Some(kernel)) = (env::var_os("UMBRA_LOADER"), env::var_os("UMBRA_KERNEL"))
    {
        return Images { loader: loader.into(), kernel: kernel.into() };
    }
    static IMAGES: Mutex<Option<HashMap<Vec<&'static str>, Images>>> = Mutex::new(None);
    // A build that failed in another test fails here again, and says why.
    let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let images = images.get_or_insert_default();
    if let Some(built) = images.get(features) {
        return built.clone();
    }
    let request = Request { profile: Profile::Release, features, show_progress: false };
    let built = build::build(&request).unwrap_or_else(|error| panic!("{error}"));
    images.insert(features.to_vec(), built.clone());
    built
}
