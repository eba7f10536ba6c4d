//! Commands on files that take more than one turn of the poll loop: operations of the filesystem
//! that may be large, and what prints more than a serial line takes in a moment.

use super::command::{Bytes, Done, Failure, Session, Step, Task, volume};
use crate::arch::serial::println;
use crate::arch::{clock, serial};
use crate::mm::heap;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use umbra_fs::{
    Begun, Check, CheckReport, Climb, Error, FileBlock, Ino, Kind, Operation, Outcome, Window,
};

/// Most runs of a file that are shown.
pub(super) const MAX_RUNS: usize = 1000;
/// Entries of a directory, or runs of a file, that are shown in one turn.
const LINES: usize = 8;
/// Bytes of a file that are shown in one turn.
const BYTES: u64 = 512;

/// What is said when an operation is over.
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// The attributes of a file, of which the blocks were counted.
    Attributes(Ino),
    /// What it took since then.
    Elapsed(clock::Instant),
    /// The console has this window no more.
    Forget(Window),
}

/// Says what an operation has come to, or has it go on.
pub(super) fn operate(session: &mut Session, begun: Begun, then: Then) -> Done {
    match begun {
        Begun::Over(outcome) => then.say(session, outcome),
        Begun::GoesOn(operation) => session.go_on(Operating(operation, then)),
    }
}

/// An operation, and what is said when it is over.
struct Operating(Operation, Then);

impl Task for Operating {
    fn step(&mut self, session: &mut Session) -> Result<Step, Failure> {
        let Operating(operation, then) = self;
        let Some(outcome) = volume(|v| v.step(operation))? else { return Ok(Step::GoesOn) };
        then.say(session, outcome)?;
        Ok(Step::Over)
    }
}

impl Then {
    fn say(&self, session: &mut Session, outcome: Outcome) -> Done {
        match (self, outcome) {
            (Then::Attributes(ino), Outcome::Blocks(blocks)) => {
                let a = volume(|v| v.attributes(*ino))?;
                println!("ino {} kind {} size {} blocks {blocks}", a.ino.0, kind(a.kind), a.size);
                println!(
                    "mode {:o} nlink {} uid {} gid {} mtime {}",
                    a.mode, a.nlink, a.uid, a.gid, a.mtime.0
                );
            }
            (Then::Elapsed(start), _) => println!("{} us", clock::now().since(*start) / 1000),
            (Then::Forget(window), _) => session.windows.retain(|(open, _)| open != window),
            (Then::Nothing | Then::Attributes(_), _) => {}
        }
        Ok(())
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "dir",
        Kind::Symlink => "symlink",
    }
}

/// Where the blocks of a file are, from a block on; how many runs more are shown.
pub(super) struct Extents {
    pub(super) ino: Ino,
    pub(super) from: FileBlock,
    pub(super) left: usize,
}

impl Task for Extents {
    fn step(&mut self, _: &mut Session) -> Result<Step, Failure> {
        if self.left == 0 {
            println!("... only the first {MAX_RUNS} runs are shown");
            return Ok(Step::Over);
        }
        for _ in 0..LINES.min(self.left) {
            let Some(run) = volume(|v| v.extent(self.ino, self.from))? else {
                return Ok(Step::Over);
            };
            let how = match (run.unwritten, run.shared) {
                (true, _) => " unwritten",
                (false, true) => " shared",
                _ => "",
            };
            match run.at {
                Some(block) => {
                    println!("{:>10} +{:<8} at {}{how}", run.start.0, run.blocks, block.0)
                }
                None => println!("{:>10} +{:<8} hole", run.start.0, run.blocks),
            }
            self.from = FileBlock(run.start.0 + run.blocks.max(1));
            self.left -= 1;
        }
        Ok(Step::GoesOn)
    }
}

/// Content of a file, from an offset on; how many bytes more are shown.
pub(super) struct Showing {
    pub(super) ino: Ino,
    pub(super) at: u64,
    pub(super) left: u64,
}

impl Task for Showing {
    fn step(&mut self, _: &mut Session) -> Result<Step, Failure> {
        let mut buffer = vec![0; BYTES.min(self.left) as usize];
        let read = volume(|v| v.read(self.ino, self.at, &mut buffer))?;
        serial::write(&buffer[..read]);
        self.at += read as u64;
        self.left -= read as u64;
        if read > 0 && self.left > 0 {
            return Ok(Step::GoesOn);
        }
        println!();
        Ok(Step::Over)
    }
}

/// A listing of a directory, and where it goes on.
pub(super) struct Listing {
    pub(super) dir: Ino,
    pub(super) cookie: u64,
}

impl Task for Listing {
    fn step(&mut self, _: &mut Session) -> Result<Step, Failure> {
        // Entries are copied in batches, so that the volume is not held while they are shown.
        let mut batch: Vec<(Vec<u8>, Ino, Kind, u64)> = Vec::new();
        let next = volume(|v| {
            v.read_dir_some(self.dir, self.cookie, &mut |entry| {
                batch.push((entry.name.to_vec(), entry.ino, entry.kind, entry.cookie));
                match batch.len() {
                    LINES => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })
        })?;
        for (name, ino, entry_kind, next) in &batch {
            self.cookie = *next;
            // It may be gone since.
            let size = match volume(|v| v.attributes(*ino)) {
                Err(Failure::Fs(Error::NotFound)) => continue,
                found => found?.size,
            };
            println!("{:<7} {:>14} {}", kind(*entry_kind), size, Bytes(name));
        }
        self.cookie = next.unwrap_or(self.cookie);
        let last = next.is_none() && batch.len() < LINES;
        Ok(if last { Step::Over } else { Step::GoesOn })
    }
}

/// What a path leads to goes; of a directory that was large it has to be found out whether it is
/// empty.
pub(super) struct Removing {
    pub(super) path: Vec<u8>,
}

impl Task for Removing {
    fn step(&mut self, _: &mut Session) -> Result<Step, Failure> {
        let examined = volume(|v| {
            let ino = v.resolve(&self.path)?;
            if v.attributes(ino)?.kind == Kind::Directory { v.examine(ino) } else { Ok(true) }
        });
        // If something is wrong, the removal fails and says why.
        if let Ok(false) = examined {
            return Ok(Step::GoesOn);
        }
        volume(|v| {
            // Before a slash there has to be a directory.
            let ino = v.resolve(&self.path)?;
            let (dir, name) = v.resolve_parent_of_directory(&self.path)?;
            match v.attributes(ino)?.kind {
                Kind::Directory => v.rmdir(dir, name, clock::wall()),
                _ => v.unlink(dir, name, clock::wall()),
            }
        })?;
        Ok(Step::Over)
    }
}

/// What is at a path gets another one, and replaces what has that.
pub(super) struct Renaming {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
    pub(super) climb: Climb,
}

impl Task for Renaming {
    fn step(&mut self, _: &mut Session) -> Result<Step, Failure> {
        let Renaming { from, to, climb } = self;
        volume(|v| {
            let [from, to] = v.resolve_rename(from, to)?;
            // If something is wrong, the rename fails and says why.
            if let Ok(false) = v.examine_rename(from, to, climb) {
                return Ok(Step::GoesOn);
            }
            v.rename_examined(from, to, clock::wall(), climb).map(|()| Step::Over)
        })
    }
}

/// A check; `None`: it has not begun, since another is under way.
pub(super) struct Checking(pub(super) Option<Box<Check>>);

impl Task for Checking {
    fn step(&mut self, _: &mut Session) -> Result<Step, Failure> {
        let Some(under_way) = &mut self.0 else {
            let bytes = volume(|v| Ok(v.check_memory()))?;
            if !heap::admits(bytes) {
                return Err(Failure::Fs(Error::NoMemory));
            }
            match volume(|v| v.begin_check()) {
                Ok(begun) => self.0 = Some(Box::new(begun)),
                // Another one is under way, and comes first.
                Err(Failure::Fs(Error::Busy(_))) => {}
                Err(why) => return Err(why),
            }
            return Ok(Step::GoesOn);
        };
        match volume(|v| v.check_step(under_way))? {
            Some(report) => say_report(&report).map(|()| Step::Over),
            None => Ok(Step::GoesOn),
        }
    }
}

fn say_report(report: &CheckReport) -> Done {
    for issue in &report.issues {
        println!("{issue}");
    }
    let shown = report.issues.len() as u64;
    if report.issues_total > shown {
        println!("... and {} more", report.issues_total - shown);
    }
    println!("{} blocks, {} inodes, {} issues", report.blocks, report.inodes, report.issues_total);
    if report.changed > 0 {
        println!("{} of them changed meanwhile, and were not judged", report.changed);
    }
    match report.issues_total {
        0 => Ok(()),
        _ => Err(Failure::Other("the volume is not clean".into())),
    }
}
