//! What is made from the definition itself.

use clap::{Args, ValueHint};
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  umbra completions bash > ~/.local/share/bash-completion/completions/umbra")]
pub struct Completions {
    /// Shell
    pub shell: Shell,
}

#[derive(Debug, Args)]
pub struct Man {
    /// Folder for umbra.1, umbra-up.1, ...
    #[arg(value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
}
