//! Measures Umbra beside its peers, in one go: `cargo peers xfs`. See `tests/peers/README.md`.

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
    /// Rounds of Umbra's side
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
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Peer::Xfs = options.peer;
    let measured = xfs::measure().and_then(|peer| Ok((peer, umbra_side::measure(options.rounds)?)));
    match measured {
        Ok((peer, ours)) => {
            let rows = table::rows(&peer, &ours);
            print!("{}", if options.json { table::json(&rows, &ours) } else { table::text(&rows, &ours) });
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("peers: {why}");
            ExitCode::FAILURE
        }
    }
}
