//! The clients that are driven against both sides: qemu-img and nbdcopy, and for what the transport can do, sockets.

use crate::nbd::{SIZE, Side};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;
use umbra_tests::linux::{find, run};

/// A bench of qemu-img: name, requests, depth, more arguments.
const BENCHES: &[(&str, u32, u32, &[&str])] = &[
    ("read_4k_qd1", 3000, 1, &[]),
    ("read_4k_qd16", 16_000, 16, &[]),
    ("write_4k_qd1", 3000, 1, &["-w"]),
    ("write_4k_qd16", 16_000, 16, &["-w"]),
    ("write_4k_flush", 1500, 1, &["-w", "--flush-interval=1"]),
];

/// How long a client may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

type Figures = BTreeMap<&'static str, f64>;

/// What is the ceiling of a figure.
pub fn ceiling(name: &str) -> &'static str {
    match name {
        "read_4k_qd1" | "write_4k_qd1" => "raw_echo_4k_qd1",
        "read_4k_qd16" | "write_4k_qd16" => "raw_echo_4k_qd16",
        "write_4k_flush" => "raw_echo_4k_then_28",
        "seq_read" => "raw_source",
        _ => "raw_sink",
    }
}

/// Drives both sides in turn; medians of the rounds.
pub fn both(peer: &Side, ours: &Side, disk: &Path, rounds: usize) -> Result<(Figures, Figures), String> {
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
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.get(name).copied()).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    names.map(|name| (name, median(name))).collect()
}

fn one(side: &Side, disk: &Path) -> Result<Figures, String> {
    let mut figures = Figures::new();
    let uri = format!("nbd+unix:///{}?socket={}", side.export, side.socket(10809).display());
    for (name, count, depth, more) in BENCHES {
        let mut command = patiently(&find("qemu-img", "qemu-utils")?);
        command.args(["bench", "-f", "raw", "-t", "none", "-s", "4096", "-S", "69632"]);
        command.args(["-c", &count.to_string(), "-d", &depth.to_string()]).args(*more).arg(&uri);
        let said = run(&mut command)?;
        let seconds =
            said.split("completed in ").nth(1).and_then(|s| s.split(' ').next()?.parse::<f64>().ok());
        let seconds = seconds.ok_or_else(|| format!("qemu-img said: {said}"))?;
        figures.insert(name, f64::from(*count) / seconds);
    }
    let nbdcopy = find("nbdcopy", "libnbd-bin")?;
    let disk = disk.to_string_lossy();
    for (name, from, to) in [("seq_read", uri.as_str(), "null:"), ("seq_write", &*disk, uri.as_str())] {
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

/// What the transport does without NBD.
fn raw(side: &Side, figures: &mut Figures) -> std::io::Result<()> {
    let connect = |port| -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(side.socket(port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let mut echo = connect(7)?;
    let mut rounds = |sizes: &[usize], count: u32| -> std::io::Result<f64> {
        let mut bytes = vec![7; 8192];
        let start = Instant::now();
        for _ in 0..count {
            for &size in sizes {
                echo.write_all(&bytes[..size])?;
                echo.read_exact(&mut bytes[..size])?;
            }
        }
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    };
    rounds(&[4096], 100)?;
    figures.insert("raw_echo_4k_qd1", rounds(&[4096], 3000)?);
    figures.insert("raw_echo_4k_then_28", rounds(&[4096, 28], 1500)?);
    figures.insert("raw_echo_4k_qd16", deep(&echo, 16_000, 16)?);

    let mut source = connect(19)?;
    // So much is asked of Umbra's; Linux's sends zeros without end.
    source.write_all(&SIZE.to_le_bytes())?;
    let mut piece = vec![0; 1 << 20];
    let (start, mut left) = (Instant::now(), SIZE as usize);
    while left > 0 {
        let most = left.min(piece.len());
        match source.read(&mut piece[..most])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => left -= n,
        }
    }
    figures.insert("raw_source", SIZE as f64 / 1e6 / start.elapsed().as_secs_f64());
    drop(source);

    let mut sink = connect(9)?;
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

/// Echoes 4 KiB with so many under way; how many a second.
fn deep(echo: &UnixStream, count: usize, depth: usize) -> std::io::Result<f64> {
    const LEN: usize = 4096;
    let (permit, permits) = std::sync::mpsc::sync_channel::<()>(depth);
    let mut sender = echo.try_clone()?;
    let mut receiver = echo.try_clone()?;
    let start = Instant::now();
    let sending = thread::spawn(move || -> std::io::Result<()> {
        let bytes = [7; LEN];
        for _ in 0..count {
            // Blocks while as many are under way; fails when the other side has given up.
            if permit.send(()).is_err() {
                break;
            }
            sender.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut bytes = vec![0; LEN * depth];
    let (mut received, mut done) = (0, 0);
    while done < count {
        match receiver.read(&mut bytes)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => received += n,
        }
        while done < received / LEN {
            done += 1;
            // The permit of what came back.
            let _ = permits.try_recv();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    drop(permits);
    sending.join().map_err(|_| std::io::Error::other("the sender has failed"))??;
    Ok(count as f64 / seconds)
}
