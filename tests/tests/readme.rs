//! The README's tour works line by line.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, str};
use umbra_tests::programs;
use umbra_tests::qemus::Qemu;

umbra_tests::under_each_qemu!(every_line_of_the_tour_works);

const ALIAS: &str = "alias umbra='cargo run --quiet --release --package umbra --'";
const STATE: &str = "/tmp/umbra-tour";

/// The first block of shell commands below a heading.
fn commands<'a>(text: &'a str, heading: &str) -> &'a str {
    let section =
        text.split_once(&format!("\n## {heading}\n")).expect("the README has this heading").1;
    let block = section.split_once("\n```sh\n").expect("commands are below it").1;
    block.split_once("\n```").expect("the block ends").0
}

fn every_line_of_the_tour_works(qemu: &Qemu) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(repository.join("README.md")).unwrap();
    let tour = commands(&readme, "A tour of five minutes");
    // The program that the tests have built, and a folder that is this test's alone.
    assert!(tour.contains(ALIAS) && tour.contains(STATE), "the tour begins otherwise:\n{tour}");
    let folder = tempfile::Builder::new().prefix("umbra-readme-").tempdir().unwrap();
    let state = folder.path().join("state");
    let tour = tour
        .replace(ALIAS, r#"umbra() { "$UMBRA_BIN" "$@"; }"#)
        .replace(STATE, state.to_str().unwrap());
    symlink(repository.join("docs").canonicalize().unwrap(), folder.path().join("docs")).unwrap();

    // Whatever fails, the machine that it may have started goes.
    let script =
        format!("set -euo pipefail\ntrap 'umbra down 2>/dev/null || true' EXIT\nset -v\n{tour}\n");
    let images = programs::images(&[]);
    let output = Command::new("bash")
        .args(["-c", "exec 2>&1; source /dev/stdin"])
        .current_dir(folder.path())
        .env("UMBRA_BIN", programs::umbra())
        .env("UMBRA_LOADER", &images.loader)
        .env("UMBRA_KERNEL", &images.kernel)
        .env("UMBRA_QEMU", qemu.system())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut bash| {
            bash.stdin.take().unwrap().write_all(script.as_bytes())?;
            bash.wait_with_output()
        })
        .unwrap();
    let said = str::from_utf8(&output.stdout).unwrap();
    assert!(output.status.success(), "the tour ended early, {}:\n{said}", output.status);
    for expected in ["\nhello from a", "golden.img", "a.img", "b.img"] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
    assert!(
        !state.exists() && !folder.path().join("disk.img").exists(),
        "the tour leaves something behind:\n{said}"
    );
}
