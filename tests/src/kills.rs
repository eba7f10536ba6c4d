//! QEMU killed under writers of NBD, which log what each acknowledged FLUSH covered.
//!
//! Every 8 bytes of the disk hold their place and a version. A writer counts versions up; the log
//! is on the host: per sector the newest version that was sent, and the newest that a FLUSH
//! covered. After a kill each 8 bytes must hold their own place, and a version that is neither
//! older than what was covered nor newer than what was sent.

use crate::nbd::Disk;
use crate::random::Random;
use crate::vm::Vm;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use umbra_proto::nbd::{Command, Style};

/// Bytes that are written as a unit; less than a block, so that parts of blocks are written too.
const SECTOR: usize = 512;
/// Sectors of the disk.
const SECTORS: usize = 8 << 20 >> 9;
/// Writers at once, each with its own part of the disk and a connection of its own.
const WRITERS: usize = 2;
/// Requests that a writer has open at once.
const DEPTH: usize = 8;

/// What is known of a sector.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The newest version that was sent.
    sent: u32,
    /// The newest version that was acknowledged.
    acknowledged: u32,
    /// The newest version that a FLUSH covered.
    covered: u32,
}

/// What came of some rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Times that QEMU was killed.
    pub kills: u32,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// FLUSHes that were acknowledged.
    pub flushes: u64,
}

fn content(sector: usize, version: u32) -> Vec<u8> {
    let word = (sector as u64) << 32 | u64::from(version);
    word.to_le_bytes().repeat(SECTOR / 8)
}

/// Kills QEMU so many times under writers on a clone; panics if anything that a FLUSH covered is
/// gone, or the original of the clone has changed.
pub fn run(kills: u32, seed: u64, progress: &mut dyn FnMut(u32)) -> Outcome {
    let vm = Vm::launch("64M");
    let mut random = Random::new(seed);
    let all: Vec<u8> = (0..SECTORS).flat_map(|sector| content(sector, 0)).collect();
    let mut client = vm.client();
    let golden = client.open_or_create(b"/golden").expect("a file");
    client.write(&golden, 0, &all).expect("written");
    client.sync(&golden).expect("synced");
    client.clone_file(b"/golden", b"/disk").expect("cloned");
    drop(client);
    let mut known = vec![Known::default(); SECTORS];
    let mut outcome = Outcome::default();
    for round in 0..kills {
        let part = SECTORS / WRITERS;
        let stop = AtomicBool::new(false);
        let counts = Mutex::new((0, 0));
        thread::scope(|scope| {
            for (writer, known) in known.chunks_mut(part).enumerate() {
                let (stop, counts) = (&stop, &counts);
                let mut disk = Disk::open(vm.state(), "/disk", Style::Structured);
                let mut random = Random::new(random.next_u64());
                scope.spawn(move || {
                    let (writes, flushes) =
                        write(&mut disk, writer * part, known, &mut random, stop);
                    let mut counts = counts.lock().expect("the counts");
                    *counts = (counts.0 + writes, counts.1 + flushes);
                });
            }
            thread::sleep(Duration::from_millis(50 + random.below(300)));
            vm.kill_qemu();
            stop.store(true, Ordering::Relaxed);
        });
        let (writes, flushes) = counts.into_inner().expect("the counts");
        outcome = Outcome {
            kills: outcome.kills + 1,
            writes: outcome.writes + writes,
            flushes: outcome.flushes + flushes,
        };
        vm.up();
        vm.assert_clean();
        let mut disk = Disk::open(vm.state(), "/disk", Style::Structured);
        verify(&disk.read(0, SECTORS * SECTOR), &mut known, round);
        drop(disk);
        let mut disk = Disk::open(vm.state(), "/golden", Style::Simple);
        assert!(disk.read(0, SECTORS * SECTOR) == all, "the original has changed in round {round}");
        progress(round + 1);
    }
    outcome
}

/// Writes until the connection ends; returns the writes and flushes that were acknowledged.
fn write(
    disk: &mut Disk,
    first: usize,
    known: &mut [Known],
    random: &mut Random,
    stop: &AtomicBool,
) -> (u64, u64) {
    let (mut writes, mut flushes) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let mut open = Vec::new();
        for _ in 0..1 + random.below(DEPTH as u64) as usize {
            let count = [1, 3, 8, 16, 61][random.below(5) as usize];
            let at = random.below((known.len() - count) as u64) as usize;
            // Writes that are open at once do not overlap: their order would not be defined.
            if open
                .iter()
                .any(|(_, other, n): &(u64, usize, usize)| at < other + n && *other < at + count)
            {
                continue;
            }
            let mut bytes = Vec::new();
            for (i, sector) in known[at..at + count].iter_mut().enumerate() {
                sector.sent += 1;
                bytes.extend(content(first + at + i, sector.sent));
            }
            let offset = ((first + at) * SECTOR) as u64;
            match disk.send(Command::WRITE, 0, offset, bytes.len() as u64, &bytes) {
                Ok(cookie) => open.push((cookie, at, count)),
                Err(_) => return (writes, flushes),
            }
        }
        for _ in 0..open.len() {
            let Ok(reply) = disk.receive() else { return (writes, flushes) };
            assert_eq!(reply.error, None);
            let (_, at, count) =
                open.iter().find(|o| o.0 == reply.cookie).expect("an open request");
            known[*at..at + count].iter_mut().for_each(|sector| sector.acknowledged = sector.sent);
            writes += 1;
        }
        if random.below(3) == 0 {
            if disk.send(Command::FLUSH, 0, 0, 0, &[]).is_err() {
                return (writes, flushes);
            }
            let Ok(reply) = disk.receive() else { return (writes, flushes) };
            assert_eq!(reply.error, None);
            known.iter_mut().for_each(|sector| sector.covered = sector.acknowledged);
            flushes += 1;
        }
    }
    (writes, flushes)
}

/// Compares what is there with what is known, and takes over what is there.
fn verify(bytes: &[u8], known: &mut [Known], round: u32) {
    for (at, (sector, known)) in bytes.chunks(SECTOR).zip(known).enumerate() {
        let mut newest = 0;
        for word in sector.as_chunks::<8>().0 {
            let word = u64::from_le_bytes(*word);
            let (place, version) = ((word >> 32) as usize, word as u32);
            assert_eq!(place, at, "round {round}: sector {at} holds bytes of sector {place}");
            assert!(
                (known.covered..=known.sent).contains(&version),
                "round {round}: sector {at} holds version {version}; {known:?}"
            );
            newest = newest.max(version);
        }
        // From now on it may hold what it holds, torn sectors any of it.
        let torn =
            sector.as_chunks::<8>().0.iter().any(|word| u64::from_le_bytes(*word) as u32 != newest);
        let covered = if torn { known.covered } else { newest };
        *known = Known { sent: known.sent, acknowledged: covered, covered };
    }
}
