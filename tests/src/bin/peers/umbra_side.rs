//! Umbra's side.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use umbra::bench::{self, Figure};
use umbra::client::{self, Client};
use umbra::state::StateDir;
use umbra_tests::linux::run;
use umbra_tests::programs;

/// What was measured.
pub struct Ours {
    pub floor: Vec<Figure>,
    pub results: Vec<Figure>,
}

/// A folder in memory, where that is possible.
pub fn folder() -> Result<TempDir, String> {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .prefix("umbra-peers-")
        .tempdir_in(&base)
        .map_err(|e| format!("cannot make a folder in {}: {e}", base.display()))
}

/// Boots Umbra and measures it.
pub fn measure(rounds: usize) -> Result<Ours, String> {
    eprintln!("building Umbra ...");
    let images = programs::images(&[]);
    let folder = folder()?;
    let command = |arguments: &[&str]| {
        let mut command = Command::new(programs::umbra());
        command.arg("--state").arg(folder.path()).args(arguments);
        command.env("UMBRA_LOADER", &images.loader).env("UMBRA_KERNEL", &images.kernel);
        run(&mut command)
    };
    command(&["up", "--detach", "--prealloc", "--accel", "tcg", "--nvdimm-size", "1G"])?;
    eprintln!("measuring Umbra ...");
    let result = on_server(&StateDir::new(folder.path()), rounds).map_err(|e| e.to_string());
    command(&["down"])?;
    result
}

fn on_server(state: &StateDir, rounds: usize) -> client::Result<Ours> {
    let mut client = Client::connect(state)?;
    client.set_timeout(Some(Duration::from_secs(300)))?;
    Ok(Ours {
        floor: bench::run(&mut client, "floor", None, rounds)?,
        results: bench::run(&mut client, "operations", None, rounds)?,
    })
}
