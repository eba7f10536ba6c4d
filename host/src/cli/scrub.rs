//! Scrubs.

use clap::Args;
use umbra::units::parse_bytes;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra scrub                            as fast as it goes, while others are served
  umbra scrub --rate 20M                 at most 20 MiB in a second

It loads all that is in use, so that the memory reports what it cannot deliver, and compares both
copies of metadata. What is bad in one copy is written anew from the other. Blocks of content that
cannot be read go on the list of bad blocks (umbra poison list); then it fails. umbra status shows
the last scrub since the start. If it is interrupted, what it mended stays.")]
pub struct Scrub {
    /// Bytes that are loaded in a second, at most
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub rate: Option<u64>,
}
