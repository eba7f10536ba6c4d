//! Measures Umbra beside its peers, in one go: `cargo peers xfs`, `cargo peers nbd`. See
//! `tests/peers/README.md`.

mod client;
mod drive;
mod nbd;
mod table;
mod umbra_side;
mod xfs;

use clap::{Parser, ValueEnum};
use std::process::ExitCode;

/// Measures Umbra beside its peers, in one go, on this machine.
#[derive(Debug, Parser)]
#[command(name = "peers")]
struct Options {
    /// Which peer
    #[arg(value_enum)]
    peer: Peer,
    /// Rounds: of Umbra's side (xfs), or of both (nbd)
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Peer {
    /// XFS with reflink on fsdax, in a Linux guest
    Xfs,
    /// nbdkit with its file plugin on XFS fsdax, in a Linux guest
    Nbd,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let table = match options.peer {
        Peer::Xfs => xfs(&options),
        Peer::Nbd => nbd::measure(options.rounds)
            .map(|measured| if options.json { measured.json() } else { measured.text() }),
    };
    match table {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("peers: {why}");
            ExitCode::FAILURE
        }
    }
}

fn xfs(options: &Options) -> Result<String, String> {
    let (peer, ours) = (xfs::measure()?, umbra_side::measure(options.rounds)?);
    let rows = table::rows(&peer, &ours);
    Ok(if options.json { table::json(&rows, &ours) } else { table::text(&rows, &ours) })
}
