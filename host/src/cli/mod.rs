//! The command line: what `umbra --help` says. No behaviour.
//!
//! | file | commands of |
//! |---|---|
//! | `vm.rs` | the machine |
//! | `files.rs` | files and names |
//! | `mapping.rs` | mappings |
//! | `export.rs` | exports of NBD |
//! | `poison.rs` | memory errors and events |
//! | `scrub.rs` | scrubs |
//! | `generate.rs` | completions and man pages |

mod export;
mod files;
mod generate;
mod mapping;
mod poison;
mod scrub;
mod vm;

use clap::{Parser, Subcommand, ValueHint};
use std::path::PathBuf;

pub use export::{Export, ExportAdd};
pub use files::{Clone, Dedupe, Get, Ln, Ls, Mkdir, Mv, OneLink, OnePath, Put, Rm, Truncate};
pub use generate::{Completions, Man};
pub use mapping::{Pages, Peek, Poke};
pub use poison::{Events, Inject as PoisonInject, Poison};
pub use scrub::Scrub;
pub use vm::{Bench, Console, Leash, Relay, Up};

/// A block and file server on an emulated NVDIMM: clones of any size in constant time.
///
/// Without a command: `umbra up`, in the foreground, with the guest's console.
#[derive(Debug, Parser)]
#[command(
    name = "umbra",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  umbra up --detach                      start a server with a new 1 GiB NVDIMM
  umbra put disk.img /golden.img         copy a disk image in
  umbra clone /golden.img /a.img         a writable copy, in constant time
  umbra poke /a.img 4096 --text hello    store into it through a mapping
  umbra get /a.img a.img                 copy it out
  umbra down                             shut down cleanly

Exit status: 0 done; 1 failed; 2 wrong usage; 3 not found; 4 exists already; 5 no space left;
6 busy; 7 no server is running, or it is not ready. One line on stderr says why; with --json it
is a JSON object with the error's code (see docs/command-line.md).
Sizes and offsets: bytes, 0x hexadecimal, or K, M, G, T (powers of 1024)."
)]
pub struct Cli {
    /// State directory [default: $XDG_STATE_HOME/umbra, else ~/.local/state/umbra]
    #[arg(long, global = true, env = "UMBRA_STATE", value_name = "DIR",
        value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,

    /// Report as one JSON object, with the number of its format in `version`; failures too, on
    /// stderr
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do; `up` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server
    Up(Up),
    /// Shut the server down cleanly
    Down,
    /// Say whether a server runs, and how it was started
    Status,
    /// Attach to the guest's console, or run one command on it
    Console(Console),
    /// Copy a local file in; holes stay holes, and zeros of a pipe become some
    Put(Put),
    /// Copy a file out, as it is at this moment; holes stay holes
    Get(Get),
    /// List a directory
    Ls(Ls),
    /// Show the attributes of a file or directory
    Stat(OnePath),
    /// Remove files, and with -r directories
    Rm(Rm),
    /// Rename; an existing file at the destination is replaced atomically
    Mv(Mv),
    /// Give a file a further name, or with -s make a symbolic link
    Ln(Ln),
    /// Print the target of a symbolic link
    Readlink(OneLink),
    /// Make a directory
    Mkdir(Mkdir),
    /// Set the size of a file
    Truncate(Truncate),
    /// Show the space of the volume
    Df,
    /// Clone a file in constant time, or share a range of it
    Clone(Clone),
    /// Share what is equal in two files, if all of it is
    Dedupe(Dedupe),
    /// Measure operations in the guest
    Bench(Bench),
    /// Store into a file through a mapping
    Poke(Poke),
    /// Load from a file through a mapping
    Peek(Peek),
    /// Show masters, shadows and fault counts, of the volume or of one file
    Pages(Pages),
    /// Verify the volume and the invariants of its mappings
    Check,
    /// Show blocks whose memory has lost data, and whose they are
    #[command(subcommand)]
    Poison(Poison),
    /// Load all that is in use, and mend copies of metadata that are bad
    Scrub(Scrub),
    /// Show what happened to this server, over all runs
    Events(Events),
    /// Serve files as disks, over NBD
    #[command(subcommand)]
    Export(Export),
    /// Offer a port of the guest as a plain UNIX socket
    Relay(Relay),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write man pages into a folder
    Man(Man),
    /// Executes a program that dies with this process's parent.
    #[command(name = "__leash", hide = true, disable_help_flag = true)]
    Leash(Leash),
    /// Runs a detached supervisor.
    #[command(name = "__supervise", hide = true)]
    Supervise {
        /// The options, as JSON.
        options: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn poke_takes_exactly_one_source_of_bytes() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("umbra poke /f 0 --hex 00").is_ok());
        assert!(parse("umbra poke /f 0 --fill 0x7f --length 2M").is_ok());
        assert!(parse("umbra poke /f 0").is_err());
        assert!(parse("umbra poke /f 0 --fill 1").is_err());
        assert!(parse("umbra poke /f 0 --text a --hex 00").is_err());
        assert!(parse("umbra poke /f 0 --text a --length 4").is_err());
    }

    #[test]
    fn a_leash_passes_every_argument_on() {
        let line = ["umbra", "__leash", "12", "prog", "-display", "none", "--json", "-h"];
        let cli = Cli::try_parse_from(line).unwrap();
        let Some(Command::Leash(leash)) = cli.command else { panic!("{cli:?}") };
        assert_eq!(leash.parent, 12);
        assert_eq!(leash.arguments, ["-display", "none", "--json", "-h"]);
        assert!(!cli.json);
    }
}
