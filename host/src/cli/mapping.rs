//! Loads and stores through mappings, and what they have made.

use clap::Args;
use std::ffi::OsString;
use umbra::units::{parse_byte, parse_bytes, parse_hex};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra poke /a.img 4096 --hex 'de ad be ef'
  umbra poke /a.img 0 --fill 0 --length 2M

At return the bytes are durable (msync), unless --no-sync. One that fails midway says how many
bytes it stored; they stay.")]
pub struct Poke {
    /// File
    pub path: OsString,
    /// Where in the file
    #[arg(value_parser = parse_bytes)]
    pub offset: u64,
    /// What to store
    #[command(flatten)]
    pub what: PokeWhat,
    /// How many bytes to fill
    #[arg(long, value_name = "N", value_parser = parse_bytes, requires = "fill",
        conflicts_with_all = ["hex", "text"])]
    pub length: Option<u64>,
    /// Return before the bytes are durable
    #[arg(long)]
    pub no_sync: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct PokeWhat {
    /// Bytes as hexadecimal digits
    #[arg(long, value_name = "H", value_parser = hex)]
    pub hex: Option<Bytes>,
    /// Bytes as text
    #[arg(long, value_name = "T")]
    pub text: Option<OsString>,
    /// One byte, --length times
    #[arg(long, value_name = "BYTE", value_parser = parse_byte, requires = "length")]
    pub fill: Option<u8>,
}

/// Bytes of one argument. (Of a plain `Vec<u8>`, clap would make a list of arguments.)
#[derive(Clone, Debug)]
pub struct Bytes(pub Vec<u8>);

fn hex(text: &str) -> Result<Bytes, String> {
    parse_hex(text).map(Bytes)
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  umbra peek /a.img 4096 5
  umbra peek /a.img 0 512 --hex")]
pub struct Peek {
    /// File
    pub path: OsString,
    /// Where in the file
    #[arg(value_parser = parse_bytes)]
    pub offset: u64,
    /// How many bytes
    #[arg(value_parser = parse_bytes)]
    pub length: u64,
    /// Show hexadecimal digits and characters instead of the bytes
    #[arg(long)]
    pub hex: bool,
}

#[derive(Debug, Args)]
pub struct Pages {
    /// One file
    pub path: Option<OsString>,
}
