//! Exports of NBD.

use clap::{Args, Subcommand};
use std::ffi::OsString;
use umbra::units::parse_bytes;

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  umbra export add /golden.img --read-only        prints the URI
  umbra export add /a.img disk --size 10G         as `disk`, with 10 GiB whatever the file has
  nbdinfo \"$(umbra export add /a.img a)\"
  umbra export list --json
  umbra export remove disk
  umbra export remove disk --force                also where clients use it, or hang

Clients can name any file by its path, without an export: nbd+unix:///a.img?socket=STATE/nbd.sock")]
pub enum Export {
    /// Give a file a name for NBD, and print the URI; it stays over restarts
    Add(ExportAdd),
    /// Remove an export; the file stays
    Remove {
        /// Name of the export, or with --force the path of a file that clients use by its path
        name: String,
        /// End the connections of all clients that came by this name, also of those that hang
        #[arg(long)]
        force: bool,
    },
    /// List exports, and who uses them: since when, by which vsock address and, where the vsock
    /// device is Umbra's own, from which process
    List,
}

#[derive(Debug, Args)]
pub struct ExportAdd {
    /// File on the server
    pub path: OsString,
    /// Name for clients [default: the path, without the first `/`]
    pub name: Option<String>,
    /// Let nobody write
    #[arg(long)]
    pub read_only: bool,
    /// Size that clients see; a shorter file is made longer
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub size: Option<u64>,
    /// Replace an export of this name
    #[arg(long)]
    pub replace: bool,
}
