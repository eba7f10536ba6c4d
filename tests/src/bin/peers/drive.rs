//! The clients that are driven against both sides: one of our own that bounds nothing, qemu-img and
//! nbdcopy; and for what the transport can do, the same loop as our own's over the raw services.

use crate::client::{self, Echo, Order, Requests, Talk, connect, drive, drive_pairs};
use crate::nbd::{SIZE, Side};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use umbra_proto::nbd;
use umbra_tests::linux::{find, run};

/// Requests of each figure, and how many are under way where it is more than one.
const SINGLE: usize = 4000;
const PAIRS: usize = 2000;
const MANY: usize = 24_000;
const DEPTH: usize = 16;
/// Large requests: bytes of each, and how many are under way.
const LARGE: usize = 256 << 10;
const LARGE_DEPTH: usize = 8;

/// A bench of qemu-img: name, requests, depth, more arguments.
const BENCHES: &[(&str, u32, u32, &[&str])] = &[
    ("qemu-img read_4k_qd1", 3000, 1, &[]),
    ("qemu-img read_4k_qd16", 16_000, 16, &[]),
    ("qemu-img write_4k_qd1", 3000, 1, &["-w"]),
    ("qemu-img write_4k_qd16", 16_000, 16, &["-w"]),
    ("qemu-img write_4k_flush", 1500, 1, &["-w", "--flush-interval=1"]),
];

type Figures = BTreeMap<&'static str, f64>;

/// What is the ceiling of a figure.
pub fn ceiling(name: &str) -> &'static str {
    match name.split(' ').next_back().unwrap_or(name) {
        "read_4k_qd1" | "write_4k_qd1" => "raw_echo_4k_qd1",
        "read_4k_qd16" | "write_4k_qd16" => "raw_echo_4k_qd16",
        "write_4k_flush" => "raw_echo_4k_then_28",
        "seq_read" => "raw_source",
        _ => "raw_sink",
    }
}

/// Drives both sides in turn; medians of the rounds.
pub fn both(
    peer: &Side,
    ours: &Side,
    disk: &Path,
    rounds: usize,
) -> Result<(Figures, Figures), String> {
    let mut all = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        eprint!("\rround {} of {rounds} ", round + 1);
        for (side, figures) in [peer, ours].into_iter().zip(&mut all) {
            figures.push(one(side, disk)?);
        }
    }
    eprintln!();
    let [peer, ours] = all.map(|rounds| medians(&rounds));
    Ok((peer, ours))
}

/// A client that is ended after a while: one that stalls is an error, not a wait.
fn patiently(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg("20").arg(program);
    command
}

fn medians(rounds: &[Figures]) -> Figures {
    let names = rounds.first().map(|first| first.keys().copied()).into_iter().flatten();
    let median = |name: &str| {
        let mut values: Vec<f64> =
            rounds.iter().filter_map(|round| round.get(name).copied()).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    names.map(|name| (name, median(name))).collect()
}

fn one(side: &Side, disk: &Path) -> Result<Figures, String> {
    let mut figures = Figures::new();
    own(side, &mut figures)
        .map_err(|e| format!("the client on {}: {e}", side.socket(10809).display()))?;
    let uri = format!("nbd+unix:///{}?socket={}", side.export, side.socket(10809).display());
    for (name, count, depth, more) in BENCHES {
        let mut command = patiently(&find("qemu-img", "qemu-utils")?);
        command.args(["bench", "-f", "raw", "-t", "none", "-s", "4096", "-S", "69632"]);
        command.args(["-c", &count.to_string(), "-d", &depth.to_string()]).args(*more).arg(&uri);
        let said = run(&mut command)?;
        let seconds = said
            .split("completed in ")
            .nth(1)
            .and_then(|s| s.split(' ').next()?.parse::<f64>().ok());
        let seconds = seconds.ok_or_else(|| format!("qemu-img said: {said}"))?;
        figures.insert(name, f64::from(*count) / seconds);
    }
    let nbdcopy = find("nbdcopy", "libnbd-bin")?;
    let disk = disk.to_string_lossy();
    for (name, from, to) in
        [("nbdcopy seq_read", uri.as_str(), "null:"), ("nbdcopy seq_write", &*disk, uri.as_str())]
    {
        let start = Instant::now();
        // One that stalls leaves its line out of the table, and the others in.
        match run(patiently(&nbdcopy).args(["--connections=1", "--requests=8", from, to])) {
            Ok(_) => drop(figures.insert(name, SIZE as f64 / 1e6 / start.elapsed().as_secs_f64())),
            Err(why) => eprintln!("\n{name}: {why}"),
        }
    }
    if let Err(error) = raw(side, &mut figures) {
        eprintln!("\nthe raw services of {}: {error}", side.socket(7).display());
    }
    Ok(figures)
}

/// What our own client makes of it.
fn own(side: &Side, figures: &mut Figures) -> io::Result<()> {
    let mut stream = client::open(&side.socket(10809), side.export)?;
    let make = |command, len, order| Requests::new(command, len, order, SIZE);
    let small = |command| make(command, 4096, Order::Random);
    let large = |command| make(command, LARGE, Order::InTurn);
    let (read, write) = (nbd::Command::READ, nbd::Command::WRITE);
    drive(&mut stream, &mut small(read), 200, 1)?;
    figures.insert("read_4k_qd1", drive(&mut stream, &mut small(read), SINGLE, 1)?);
    figures.insert("read_4k_qd16", drive(&mut stream, &mut small(read), MANY, DEPTH)?);
    figures.insert("write_4k_qd1", drive(&mut stream, &mut small(write), SINGLE, 1)?);
    figures.insert("write_4k_qd16", drive(&mut stream, &mut small(write), MANY, DEPTH)?);
    let mut flush = make(nbd::Command::FLUSH, 0, Order::InTurn);
    figures
        .insert("write_4k_flush", drive_pairs(&mut stream, &mut small(write), &mut flush, PAIRS)?);
    let megabytes = LARGE as f64 / 1e6;
    let count = 2 * SIZE as usize / LARGE;
    for (name, command) in [("seq_read", read), ("seq_write", write)] {
        let rate = drive(&mut stream, &mut large(command), count, LARGE_DEPTH)?;
        figures.insert(name, rate * megabytes);
    }
    Ok(())
}

/// What the transport does without NBD.
fn raw(side: &Side, figures: &mut Figures) -> io::Result<()> {
    let mut echo = connect(&side.socket(7))?;
    let talk = &mut Echo(4096) as &mut dyn Talk;
    drive(&mut echo, talk, 200, 1)?;
    figures.insert("raw_echo_4k_qd1", drive(&mut echo, talk, SINGLE, 1)?);
    figures.insert("raw_echo_4k_then_28", drive_pairs(&mut echo, talk, &mut Echo(28), PAIRS)?);
    figures.insert("raw_echo_4k_qd16", drive(&mut echo, talk, MANY, DEPTH)?);

    let mut source = connect(&side.socket(19))?;
    // So much is asked of Umbra's; Linux's sends zeros without end.
    source.write_all(&SIZE.to_le_bytes())?;
    let mut piece = vec![0; 1 << 20];
    let (start, mut left) = (Instant::now(), SIZE as usize);
    while left > 0 {
        let most = left.min(piece.len());
        match source.read(&mut piece[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => left -= n,
        }
    }
    figures.insert("raw_source", SIZE as f64 / 1e6 / start.elapsed().as_secs_f64());
    drop(source);

    let mut sink = connect(&side.socket(9))?;
    let start = Instant::now();
    for _ in 0..SIZE as usize / piece.len() {
        sink.write_all(&piece)?;
    }
    sink.shutdown(Shutdown::Write)?;
    // It closes once it has everything.
    sink.read_to_end(&mut Vec::new())?;
    figures.insert("raw_sink", SIZE as f64 / 1e6 / start.elapsed().as_secs_f64());
    Ok(())
}
