//! Commands that take more than one turn of the poll loop: operations of the filesystem that may be
//! large, and what prints more than a serial line takes in a moment. Connections have their turns
//! between two steps; the console reads its next line when a command is over.

use super::files::{kind, volume};
use super::shell::{Bytes, Done, Failure, Session};
use super::windows::{Load, Store};
use crate::arch::{clock, serial};
use crate::mm::heap;
use crate::println;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use umbra_fs::{
    Begun, Check, CheckReport, Climb, Error, FileBlock, Ino, Kind, Operation, Outcome, PageCount,
    Window,
};

/// Most runs of a file that are shown.
pub(super) const MAX_RUNS: usize = 1000;
/// Entries of a directory, or runs of a file, that are shown in one turn.
const LINES: usize = 8;
/// Bytes of a file that are shown in one turn.
const BYTES: u64 = 512;

/// A command under way.
pub(super) enum Running {
    /// An operation, and what is said when it is over.
    Operation(Operation, Then),
    /// A listing of a directory, and where it goes on.
    List { dir: Ino, cookie: u64 },
    /// Where the blocks of a file are, from a block on; how many runs more are shown.
    Extents { ino: Ino, from: FileBlock, left: usize },
    /// What a path leads to goes.
    Remove { path: Vec<u8> },
    /// What is at a path gets another one, and replaces what has that.
    Rename { from: Vec<u8>, to: Vec<u8>, climb: Climb },
    /// The pages of windows of a file.
    Pages(PageCount),
    /// A check; `None`: it has not begun, since another is under way.
    Check(Option<Box<Check>>),
    /// Content of a file.
    Show { ino: Ino, at: u64, left: u64 },
    /// Bytes that are loaded through a window.
    Load(Load),
    /// Bytes that are stored through a window.
    Store(Store),
}

/// What is said when an operation is over.
pub(super) enum Then {
    Nothing,
    /// The attributes of a file, of which the blocks were counted.
    Attributes(Ino),
    /// What it took since then.
    Elapsed(clock::Instant),
    /// The console has this window no more.
    Forget(Window),
}

impl Session {
    /// Has the command go on with this.
    pub(crate) fn go_on(&mut self, running: Running) -> Done {
        self.running = Some(running);
        Ok(())
    }

    /// Says what an operation has come to, or has it go on.
    pub(crate) fn operate(&mut self, begun: Begun, then: Then) -> Done {
        match begun {
            Begun::Over(outcome) => then.say(self, outcome),
            Begun::GoesOn(operation) => self.go_on(Running::Operation(operation, then)),
        }
    }
}

impl Running {
    /// Takes a step: `None` if there is more to do.
    pub(crate) fn step(&mut self, session: &mut Session) -> Option<Done> {
        match self.go_on(session) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(why) => Some(Err(why)),
        }
    }

    /// True: it is over.
    fn go_on(&mut self, session: &mut Session) -> Result<bool, Failure> {
        match self {
            Running::Operation(operation, then) => {
                let Some(outcome) = volume(|v| v.step(operation))? else { return Ok(false) };
                then.say(session, outcome)?;
                Ok(true)
            }
            Running::Check(check) => check_on(check),
            Running::Load(load) => load.go_on(),
            Running::Store(store) => store.go_on(),
            Running::List { dir, cookie } => list(*dir, cookie),
            Running::Rename { from, to, climb } => {
                let renamed = volume(|v| {
                    let [from, to] = v.resolve_rename(from, to)?;
                    // Whatever is wrong: the rename says so.
                    if let Ok(false) = v.examine_rename(from, to, climb) {
                        return Ok(false);
                    }
                    v.rename_examined(from, to, clock::wall(), climb).map(|()| true)
                })?;
                Ok(renamed)
            }
            Running::Remove { path } => {
                let examined = volume(|v| {
                    let ino = v.resolve(path)?;
                    if v.attributes(ino)?.kind == Kind::Directory {
                        v.examine(ino)
                    } else {
                        Ok(true)
                    }
                });
                // Whatever is wrong: who acts says so.
                if let Ok(false) = examined {
                    return Ok(false);
                }
                remove(path)?;
                Ok(true)
            }
            Running::Pages(counting) => {
                let Some(report) = volume(|v| v.count_pages_step(counting))? else {
                    return Ok(false);
                };
                super::windows::show_pages(&report);
                Ok(true)
            }
            Running::Extents { left: 0, .. } => {
                println!("... only the first {MAX_RUNS} runs are shown");
                Ok(true)
            }
            Running::Extents { ino, from, left } => {
                for _ in 0..LINES.min(*left) {
                    let Some(run) = volume(|v| v.extent(*ino, *from))? else { return Ok(true) };
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
                    *from = FileBlock(run.start.0 + run.blocks.max(1));
                    *left -= 1;
                }
                Ok(false)
            }
            Running::Show { ino, at, left } => {
                let mut buffer = vec![0; BYTES.min(*left) as usize];
                let read = volume(|v| v.read(*ino, *at, &mut buffer))?;
                serial::write(&buffer[..read]);
                *at += read as u64;
                *left -= read as u64;
                if read == 0 || *left == 0 {
                    println!();
                    return Ok(true);
                }
                Ok(false)
            }
        }
    }
}

/// Removes what a path leads to.
fn remove(path: &[u8]) -> Done {
    volume(|v| {
        // Before a slash there has to be a directory.
        let ino = v.resolve(path)?;
        let (dir, name) = v.resolve_parent_of_directory(path)?;
        match v.attributes(ino)?.kind {
            Kind::Directory => v.rmdir(dir, name, clock::wall()),
            _ => v.unlink(dir, name, clock::wall()),
        }
    })
}

/// Takes a step of a check, or begins one; true if it is over.
fn check_on(check: &mut Option<Box<Check>>) -> Result<bool, Failure> {
    let Some(under_way) = check else {
        let bytes = volume(|v| Ok(v.check_memory()))?;
        if !heap::admits(bytes) {
            return Err(Failure::Fs(Error::NoMemory));
        }
        match volume(|v| v.begin_check()) {
            Ok(begun) => *check = Some(Box::new(begun)),
            // Another one is under way, and comes first.
            Err(Failure::Fs(Error::Busy)) => {}
            Err(why) => return Err(why),
        }
        return Ok(false);
    };
    match volume(|v| v.check_step(under_way))? {
        Some(report) => say_report(&report).map(|()| true),
        None => Ok(false),
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

/// Lists entries of a directory; true if they are the last.
fn list(dir: Ino, cookie: &mut u64) -> Result<bool, Failure> {
    // Entries are copied in batches, so that the volume is not held while they are shown.
    let mut batch: Vec<(Vec<u8>, Ino, Kind, u64)> = Vec::new();
    let next = volume(|v| {
        v.read_dir_some(dir, *cookie, &mut |entry| {
            batch.push((entry.name.to_vec(), entry.ino, entry.kind, entry.cookie));
            if batch.len() == LINES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    })?;
    for (name, ino, entry_kind, next) in &batch {
        *cookie = *next;
        // It may be gone since.
        let size = match volume(|v| v.attributes(*ino)) {
            Err(Failure::Fs(Error::NotFound)) => continue,
            found => found?.size,
        };
        println!("{:<7} {:>14} {}", kind(*entry_kind), size, Bytes(name));
    }
    *cookie = next.unwrap_or(*cookie);
    Ok(next.is_none() && batch.len() < LINES)
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
