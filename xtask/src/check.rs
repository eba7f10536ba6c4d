//! Lints: what every change must pass beside the tests.

use crate::run::{Failed, cargo, command, run};
use std::path::Path;
use std::process::Command;
use umbra::build;
use umbra::toolchain::subcommand_of;

/// Every lint, the quick ones first.
pub fn all() -> Result<(), Failed> {
    run(&mut command(".ci/columns"))?;
    run(&mut command(".ci/layers"))?;
    run(host("fmt").args(["--all", "--check"]))?;
    on_the_host()?;
    on_the_bare_machine()?;
    documentation()
}

/// A subcommand of the cargo that has started this program.
fn host(subcommand: &str) -> Command {
    let cargo = cargo();
    let mut command = subcommand_of(Path::new(cargo.get_program()), subcommand);
    command.current_dir(crate::run::root());
    command
}

/// A subcommand of the cargo that builds loader and kernel, for their target.
fn bare(subcommand: &str) -> Result<Command, Failed> {
    build::cargo(subcommand).map_err(|error| Failed::Missing(error.to_string()))
}

fn on_the_host() -> Result<(), Failed> {
    run(host("clippy").args(["--all-targets", "--", "-D", "warnings"]))?;
    let of_the_bare_machine = ["--package", "umbra-boot", "--package", "umbra-kernel"];
    run(host("clippy").args(of_the_bare_machine).args(["--lib", "--tests", "--", "-D", "warnings"]))
}

fn on_the_bare_machine() -> Result<(), Failed> {
    run(bare("clippy")?.args(["--", "-D", "warnings"]))?;
    run(bare("clippy")?.args(["--all-features", "--", "-D", "warnings"]))
}

fn documentation() -> Result<(), Failed> {
    for mut doc in [host("doc"), bare("doc")?] {
        run(doc
            .args(["--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(())
}
