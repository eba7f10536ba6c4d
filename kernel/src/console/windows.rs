//! Commands on windows: loads and stores that take real page faults.

use super::args::{Args, MAX_PAYLOAD};
use super::command::{Bytes, Command, Done, Failure, Session, Step, Task, volume};
use super::tasks::{Then, operate};
use crate::arch::serial::{print, println};
use crate::dax::Processor;
use crate::media;
use alloc::vec;
use alloc::vec::Vec;
use umbra_fs::dax::AccessError;
use umbra_fs::{Error, PageCount, PagesReport, Window, dax};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "map",
        help: "PATH           open a window on a file; shows its number",
        run: map,
    },
    Command { name: "unmap", help: "WINDOW       close it", run: unmap },
    Command {
        name: "load",
        help: "WINDOW OFFSET LENGTH  load through it (shows hex and text)",
        run: load,
    },
    Command { name: "store", help: "WINDOW OFFSET BYTES  store through it", run: store },
    Command {
        name: "pages",
        help: "[PATH]       masters and shadows, of one file or all",
        run: pages,
    },
    Command { name: "faults", help: "            what the fault handler did", run: faults },
];

/// Most bytes that `load` shows; more are loaded, but only summed up.
const MAX_SHOWN: usize = 256;
/// Bytes that `load` loads, or `store` stores, in one turn.
const BYTES_A_TURN: u64 = 64 << 10;
/// What is stored in one turn ends with an aligned word, of which nobody ever sees a half.
const WORD: u64 = 8;

fn map(session: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.word("PATH")?;
    args.end()?;
    let (window, ino) = volume(|v| {
        let ino = v.resolve(path)?;
        Ok((v.open_window(ino)?, ino))
    })?;
    session.windows.push((window, ino));
    println!("window {}", window.0);
    Ok(())
}

/// Takes the number of a window that the console opened.
pub(super) fn window(session: &Session, args: &mut Args<'_>) -> Result<Window, Failure> {
    let number = args.number("WINDOW")?;
    let found = session.windows.iter().find(|(window, _)| u64::from(window.0) == number);
    found
        .map(|(window, _)| *window)
        .ok_or(Failure::Other(alloc::format!("there is no window {number}")))
}

fn processor() -> Result<Processor, Failure> {
    Processor::new().ok_or_else(|| Failure::NoVolume(media::why_none()))
}

fn unmap(session: &mut Session, mut args: Args<'_>) -> Done {
    let window = window(session, &mut args)?;
    args.end()?;
    let begun = volume(|v| v.begin_close(window))?;
    operate(session, begun, Then::Forget(window))
}

fn load(session: &mut Session, mut args: Args<'_>) -> Done {
    let window = window(session, &mut args)?;
    let (offset, length) = (args.number("OFFSET")?, args.number("LENGTH")?);
    args.end()?;
    if length > MAX_PAYLOAD {
        return Err(Failure::Other("at most 1M at a time".into()));
    }
    session.go_on(Loading { window, at: offset, left: length, loaded: 0, sum: 0 })
}

/// Bytes that are being loaded.
struct Loading {
    window: Window,
    at: u64,
    left: u64,
    loaded: u64,
    sum: u64,
}

impl Task for Loading {
    fn step(&mut self, _: &mut Session) -> Result<Step, Failure> {
        let mut bytes = vec![0; self.left.min(BYTES_A_TURN) as usize];
        let result = dax::load(&mut processor()?, self.window, self.at, &mut bytes);
        let done = result.as_ref().map_or_else(|e| e.done, |()| bytes.len());
        let shown = MAX_SHOWN.saturating_sub(self.loaded as usize).min(done);
        for line in bytes[..shown].chunks(16) {
            for byte in line {
                print!("{byte:02x} ");
            }
            println!(" {}", Bytes(line));
        }
        self.sum += bytes[..done].iter().map(|b| u64::from(*b)).sum::<u64>();
        self.loaded += done as u64;
        self.at += done as u64;
        self.left -= done as u64;
        match &result {
            Ok(()) if self.left == 0 => {}
            Ok(()) => return Ok(Step::GoesOn),
            // An operation that has parked the file comes first.
            Err(e) if e.error == Error::Parked => return Ok(Step::GoesOn),
            Err(_) => {}
        }
        println!("{} bytes, sum {}", self.loaded, self.sum);
        result?;
        Ok(Step::Over)
    }
}

fn store(session: &mut Session, mut args: Args<'_>) -> Done {
    let window = window(session, &mut args)?;
    let offset = args.number("OFFSET")?;
    let bytes = args.payload()?;
    session.go_on(Storing { window, offset, bytes, stored: 0 })
}

/// Bytes that are being stored.
struct Storing {
    window: Window,
    offset: u64,
    bytes: Vec<u8>,
    stored: usize,
}

impl Task for Storing {
    fn step(&mut self, _: &mut Session) -> Result<Step, Failure> {
        let at = self.offset.saturating_add(self.stored as u64);
        let most = (BYTES_A_TURN - at % WORD) as usize;
        let piece = &self.bytes[self.stored..];
        let piece = &piece[..piece.len().min(most)];
        match dax::store(&mut processor()?, self.window, at, piece) {
            Ok(()) => self.stored += piece.len(),
            // An operation that has parked the file comes first.
            Err(e) if e.error == Error::Parked => self.stored += e.done,
            Err(e) => return Err(AccessError { done: self.stored + e.done, ..e }.into()),
        }
        if self.stored < self.bytes.len() {
            return Ok(Step::GoesOn);
        }
        println!("{} bytes", self.bytes.len());
        Ok(Step::Over)
    }
}

fn pages(session: &mut Session, mut args: Args<'_>) -> Done {
    let path = args.optional();
    args.end()?;
    let Some(path) = path else {
        show_pages(&volume(|v| v.pages(None))?);
        return Ok(());
    };
    let counting = volume(|v| {
        let ino = v.resolve(path)?;
        Ok(v.count_pages(ino))
    })?;
    session.go_on(Counting(counting))
}

/// The pages of windows of a file are being counted.
struct Counting(PageCount);

impl Task for Counting {
    fn step(&mut self, _: &mut Session) -> Result<Step, Failure> {
        let report = volume(|v| v.count_pages_step(&mut self.0))?;
        let Some(report) = report else { return Ok(Step::GoesOn) };
        show_pages(&report);
        Ok(Step::Over)
    }
}

/// Says how windows are.
fn show_pages(r: &PagesReport) {
    println!("windows {} slots {} masters {} shadows {}", r.windows, r.slots, r.masters, r.shadows);
    println!("zero {} writable {}", r.zero, r.writable);
}

fn faults(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    let f = volume(|v| v.pages(None))?.faults;
    println!("read {} write {} cow {} failed {}", f.read, f.write, f.cow, f.failed);
    println!("tossed {} foreign-unmapped {}", f.tossed, f.foreign_unmapped);
    Ok(())
}
