//! Memory errors and events.

use clap::{Args, Subcommand, ValueHint};
use std::ffi::OsString;
use umbra::units::parse_bytes;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  umbra poison list                      blocks whose memory has lost data, and whose they are
  umbra poison inject /a.img 4096        as if the memory had lost what is there
  umbra poison clear --yes               the memory is good again

A bad block cannot be read; a write of the whole block gives a file another one.")]
pub enum Poison {
    /// List the bad blocks, with all files and ranges that have them
    List,
    /// Have the server act as if the memory had lost a block
    Inject(Inject),
    /// Empty the list of bad blocks; what they hold is read as it is
    Clear {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub struct Inject {
    /// A file on the server
    #[arg(required_unless_present = "block", requires = "offset")]
    pub path: Option<OsString>,
    /// A byte of it
    #[arg(value_parser = parse_bytes)]
    pub offset: Option<u64>,
    /// A block of the NVDIMM instead
    #[arg(long, value_name = "N", value_parser = parse_bytes, conflicts_with = "path")]
    pub block: Option<u64>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra events                           all that is known, over all runs
  umbra events --since 2026-11-28        of today (UTC)")]
pub struct Events {
    /// Only events from this time on: the start of `2026-11-28T09:30:00.000Z`, in UTC
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other)]
    pub since: Option<String>,
}
