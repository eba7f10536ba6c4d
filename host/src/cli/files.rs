//! Files and names.

use clap::{Args, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;
use umbra::units::parse_bytes;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra put disk.img /images/disk.img
  umbra put disk.img /images/            keeps the name
  tar c . | umbra put - /backup.tar")]
pub struct Put {
    /// File to read; '-' is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub local: PathBuf,
    /// File to write; one that exists, also a symbolic link, is replaced once all is there, and not
    /// at all if the transfer is interrupted. With a '/' at its end: the directory to write into
    pub path: OsString,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra get /images/disk.img disk.img
  umbra get /backup.tar - | tar t")]
pub struct Get {
    /// File to read; a symbolic link is not followed
    pub path: OsString,
    /// File to write; '-' is standard output. A regular file is replaced once all is there, with
    /// its permissions; until then it stays as it is, and the disk has to have room for both
    #[arg(value_hint = ValueHint::FilePath)]
    pub local: PathBuf,
}

#[derive(Debug, Args)]
pub struct Ls {
    /// Show mode, names, size and time too, and where links lead
    #[arg(short)]
    pub long: bool,
    /// Directory, or file
    #[arg(default_value = "/")]
    pub path: OsString,
}

#[derive(Debug, Args)]
pub struct OnePath {
    /// File, directory or symbolic link (which is not followed)
    pub path: OsString,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Each argument is tried. If any could not be removed, the last line and the exit status say so.")]
pub struct Rm {
    /// Say nothing of what does not exist
    #[arg(short, long)]
    pub force: bool,
    /// Remove directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// What to remove
    #[arg(required_unless_present = "force")]
    pub paths: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Mv {
    /// Present path
    pub from: OsString,
    /// New path; with a '/' at its end: the directory to move into
    pub to: OsString,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra ln /images/a.img /images/b.img   two names of one file
  umbra ln -s a.img /images/current      a link that says 'a.img'

The server follows no symbolic link: what a link says is for those who mount the volume. Where
they would follow it, its target is relative to the directory that holds the link.")]
pub struct Ln {
    /// Make a symbolic link
    #[arg(short, long)]
    pub symbolic: bool,
    /// The file; with -s what the link says, which is not looked at
    pub target: OsString,
    /// The new name, which must not exist; with a '/' at its end: the directory to put it into
    pub path: OsString,
}

#[derive(Debug, Args)]
pub struct OneLink {
    /// Symbolic link
    pub path: OsString,
}

#[derive(Debug, Args)]
pub struct Mkdir {
    /// Make missing parents too, and accept what exists
    #[arg(short, long)]
    pub parents: bool,
    /// Directories to make
    #[arg(required = true)]
    pub paths: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Truncate {
    /// File; created where missing
    pub path: OsString,
    /// New size; what is beyond the old one reads as zeros
    #[arg(value_parser = parse_bytes)]
    pub size: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra clone /golden.img /vm1.img
  umbra clone /a /b --src-offset 1M --dst-offset 0 --length 64K

A whole clone creates DST. A range is shared into DST, which is created where missing; offsets
are multiples of 4096, and so is the length unless the range ends with both files.")]
pub struct Clone {
    /// File to clone
    pub from: OsString,
    /// The clone; with a '/' at its end: the directory to put it into
    pub to: OsString,
    /// Where the range starts in the source
    #[arg(long, value_name = "N", value_parser = parse_bytes, requires = "length")]
    pub src_offset: Option<u64>,
    /// Where the range starts in the destination
    #[arg(long, value_name = "N", value_parser = parse_bytes, requires = "length")]
    pub dst_offset: Option<u64>,
    /// Share this many bytes instead of the whole file
    #[arg(long, value_name = "N", value_parser = parse_bytes)]
    pub length: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra dedupe /golden.img /copy.img
  umbra dedupe /a /b --src-offset 1M --dst-offset 0 --length 64K

Compares what the files contain; holes are zeros. If anything differs nothing is shared, and the
exit status is 1. Offsets are multiples of 4096, and so is the length unless the range ends with
both files. Without --length the range goes to the end of SRC.")]
pub struct Dedupe {
    /// File whose blocks are kept
    #[arg(value_name = "SRC")]
    pub from: OsString,
    /// File that shares them instead of its own
    #[arg(value_name = "DST")]
    pub to: OsString,
    /// Where the range starts in SRC
    #[arg(long, value_name = "N", value_parser = parse_bytes, default_value = "0",
        hide_default_value = true)]
    pub src_offset: u64,
    /// Where the range starts in DST
    #[arg(long, value_name = "N", value_parser = parse_bytes, default_value = "0",
        hide_default_value = true)]
    pub dst_offset: u64,
    /// How many bytes
    #[arg(long, value_name = "N", value_parser = parse_bytes)]
    pub length: Option<u64>,
}
