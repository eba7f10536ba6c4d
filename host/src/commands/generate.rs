//! What is made from the definition of the command line.

use crate::cli::{Cli, Completions, Man};
use crate::output::{Failure, Outcome, print};
use clap::CommandFactory;
use std::fs;

/// `umbra completions`
pub fn completions(options: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "umbra", &mut script);
    print(&script)
}

/// `umbra man`
pub fn man(options: &Man) -> Outcome {
    let failed = || Failure::while_doing(format!("write man pages into {}", options.folder.display()));
    fs::create_dir_all(&options.folder).map_err(failed())?;
    clap_mangen::generate_to(Cli::command(), &options.folder).map_err(failed())
}
