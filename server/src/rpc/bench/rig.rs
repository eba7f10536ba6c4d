//! What all parts of the benchmarks have in common: files that are made and removed, samples that
//! are taken.

use crate::platform::{Persisted, Platform, reclaim_step};
use crate::rpc::failure::{During, Failure};
use crate::rpc::names;
use crate::text::{Shown, write_text};
use alloc::vec::Vec;
use core::fmt;
use core::ops::{ControlFlow, Range};
use umbra_fs::dax::{self, Mmu, PAGES_PER_SLOT};
use umbra_fs::memory::{copy, copy_text, push};
use umbra_fs::{BLOCK_SIZE, Error, Ino, Kind, Pmem, Result as FsResult, Time, Volume, Window};
use umbra_proto::rpc::{self, ErrorCode};

/// Names of files that benchmarks make start with this; what has such a name is removed.
pub(crate) const PREFIX: &str = ".umbra-bench-";
/// What a write or read is cut into, as transfers are.
pub(super) const PIECE: usize = 64 << 10;

/// A benchmark under way.
pub(super) struct Bench<'m, M> {
    pub machine: &'m mut M,
    pub samples: Vec<rpc::Sample>,
    /// Windows that are open.
    windows: Vec<Window>,
}

/// The path of a file that a benchmark makes. A name has at most 40 bytes.
pub(super) fn path(name: impl fmt::Display) -> Result<Vec<u8>, Failure> {
    let mut path = [0; 64];
    copy(write_text(&mut path, format_args!("/{PREFIX}{name}")).as_bytes()).map_err(no_memory)
}

/// Paths with numbers: made before anything is timed.
pub(super) fn paths(name: &str, numbers: Range<u64>) -> Result<Vec<Vec<u8>>, Failure> {
    let mut paths = Vec::new();
    for number in numbers {
        push(&mut paths, path(format_args!("{name}{number}"))?).map_err(no_memory)?;
    }
    Ok(paths)
}

/// Too little memory for a benchmark.
pub(super) fn no_memory(error: Error) -> Failure {
    Failure::during(error, format_args!("run a benchmark"))
}

impl<'m, M: Platform> Bench<'m, M> {
    /// A benchmark that has measured nothing yet.
    pub fn new(machine: &'m mut M) -> Self {
        Bench { machine, samples: Vec::new(), windows: Vec::new() }
    }

    /// Measures what `f` does `ops` times.
    pub fn time<R>(
        &mut self,
        name: &str,
        ops: u64,
        f: impl FnOnce(&mut Self) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let (before, allocations) = (self.machine.persisted(), self.machine.allocations());
        let start = self.machine.uptime_ns();
        let result = f(self)?;
        let ns = self.machine.uptime_ns() - start;
        let Persisted { flushes, fences } = self.machine.persisted();
        let allocations = self.machine.allocations() - allocations;
        let sample = rpc::Sample {
            name: copy_text(name).map_err(no_memory)?,
            ops,
            ns,
            flushes: flushes - before.flushes,
            fences: fences - before.fences,
            allocations,
        };
        push(&mut self.samples, sample).map_err(no_memory)?;
        Ok(result)
    }

    /// Removes what is left of earlier runs, and reclaims it.
    pub fn clean(&mut self) -> Result<(), Failure> {
        let mut names = Vec::new();
        let list = |v: &umbra_fs::Volume<M::Pmem, M::Mmu>, names: &mut Vec<Vec<u8>>| {
            let mut failed = Ok(());
            v.read_dir(v.root(), 0, &mut |entry| {
                if entry.name.starts_with(PREFIX.as_bytes()) {
                    failed = copy(entry.name).and_then(|name| push(names, name));
                }
                let goes_on = failed.is_ok() && names.len() < 512;
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            failed
        };
        loop {
            names.clear();
            self.machine
                .volume(|v| list(v, &mut names))
                .during(format_args!("list the root directory"))?;
            if names.is_empty() {
                break;
            }
            for name in &names {
                let now = self.machine.now();
                self.machine
                    .volume(|v| match v.unlink(v.root(), name, now) {
                        Err(Error::IsDirectory) => remove_directory(v, name, now),
                        done => done,
                    })
                    .during(format_args!("remove {}", Shown(name)))?;
            }
        }
        while reclaim_step(self.machine).during(format_args!("reclaim what a benchmark left"))? {}
        Ok(())
    }

    /// Makes sure of so much space, and has the host give memory for what is allocated next.
    pub fn prepare(&mut self, blocks: u64) -> Result<(), Failure> {
        let free = self.machine.volume(|v| v.space().free);
        if free < blocks {
            let mib = |blocks: u64| (blocks * BLOCK_SIZE) >> 20;
            let message =
                format_args!("a benchmark needs {} MiB free, not {}", mib(blocks), mib(free));
            return Err(Failure::new(ErrorCode::NO_SPACE, message));
        }
        let runs = self.machine.volume(|v| v.next_blocks(blocks));
        runs.into_iter().for_each(|run| self.machine.fault_in(run));
        Ok(())
    }

    pub fn create(&mut self, path: &[u8]) -> Result<Ino, Failure> {
        let created = names::create(self.machine, rpc::Create { path, mode: None })?;
        Ok(Ino(created.ino))
    }

    pub fn unlink(&mut self, path: &[u8]) -> Result<(), Failure> {
        names::unlink(self.machine, rpc::Unlink { path })
    }

    pub fn clone(&mut self, from: &[u8], to: &[u8]) -> Result<Ino, Failure> {
        let now = self.machine.now();
        let src = self
            .machine
            .volume(|v| v.resolve(from))
            .during(format_args!("clone {}", Shown(from)))?;
        self.machine
            .volume(|v| {
                let (dir, name) = v.resolve_parent(to)?;
                v.clone_file(src, dir, name, now)
            })
            .during(format_args!("clone {} to {}", Shown(from), Shown(to)))
    }

    pub fn sync(&mut self, ino: Ino) -> Result<(), Failure> {
        self.machine.volume(|v| v.sync(ino)).during(format_args!("sync inode {}", ino.0))
    }

    /// Writes bytes, as a transfer does.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let mut at = offset;
        for piece in bytes.chunks(PIECE) {
            let now = self.machine.now();
            let written = self.machine.volume(|v| v.write(ino, at, piece, now));
            match written {
                Ok(n) if n == piece.len() => at += n as u64,
                Ok(_) => {
                    return Err(Failure::during(
                        Error::NoSpace,
                        format_args!("write inode {}", ino.0),
                    ));
                }
                Err(e) => return Err(Failure::during(e, format_args!("write inode {}", ino.0))),
            }
        }
        Ok(())
    }

    /// Writes `len` bytes from the start on, a piece of the buffer at a time.
    pub fn fill(&mut self, ino: Ino, len: u64, piece: &[u8]) -> Result<(), Failure> {
        (0..len).step_by(piece.len()).try_for_each(|at| self.write(ino, at, piece))
    }

    /// Reads through the window, as a transfer does.
    pub fn read(&mut self, window: Window, at: u64, into: &mut [u8]) -> Result<(), Failure> {
        dax::load(self.machine, window, at, into)
            .map_err(|e| Failure::during(e.error, format_args!("read at {at}")))
    }

    /// Opens a window, which is closed when the part is over at the latest.
    #[allow(clippy::disallowed_methods, reason = "room is reserved before the window is opened")]
    pub fn open(&mut self, ino: Ino) -> Result<Window, Failure> {
        self.windows.try_reserve(1).map_err(|_| no_memory(Error::NoMemory))?;
        let window = self
            .machine
            .volume(|v| v.open_window(ino))
            .during(format_args!("open inode {}", ino.0))?;
        self.windows.push(window);
        Ok(window)
    }

    /// Closes a window: one that was opened lately is found soon.
    pub fn close(&mut self, window: Window) -> Result<(), Failure> {
        if let Some(at) = self.windows.iter().rposition(|open| *open == window) {
            self.windows.swap_remove(at);
        }
        self.machine.volume(|v| v.close_window(window)).during(format_args!("close a window"))
    }

    /// Closes all windows that a part has left open, the last one first.
    pub fn close_all(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        while let Some(&window) = self.windows.last() {
            result = result.and(self.close(window));
        }
        result
    }

    /// Accesses the first word of each page, by the processor's own loads, or stores of `word`.
    pub fn touch(
        &mut self,
        window: Window,
        pages: impl Iterator<Item = u64>,
        word: Option<u64>,
    ) -> Result<(), Failure> {
        let mut attached = None;
        for page in pages {
            let leaf = (page / PAGES_PER_SLOT as u64) as u32;
            let slot = match attached {
                Some((at, slot)) if at == leaf => slot,
                _ => {
                    let slot = self
                        .machine
                        .volume(|v| v.attach(window, leaf))
                        .during(format_args!("attach a slot"))?;
                    attached = Some((leaf, slot));
                    slot
                }
            };
            let page = slot.page((page % PAGES_PER_SLOT as u64) as u32);
            let done = match word {
                None => self.machine.load(page, 0, &mut [0; 8]),
                Some(word) => self.machine.store(page, 0, &word.to_le_bytes()),
            };
            done.map_err(|e| Failure::during(e.error, format_args!("access page {}", page.0)))?;
        }
        Ok(())
    }
}

/// Removes a directory of files in the root directory.
fn remove_directory<P: Pmem, M: Mmu>(v: &mut Volume<P, M>, name: &[u8], now: Time) -> FsResult<()> {
    debug_assert!(name.starts_with(PREFIX.as_bytes()));
    let dir = v.lookup(v.root(), name)?;
    let mut behind = 0;
    loop {
        let (mut names, mut failed) = (Vec::new(), Ok(()));
        v.read_dir(dir, behind, &mut |entry| {
            if entry.kind == Kind::File {
                failed = copy(entry.name).and_then(|name| push(&mut names, name));
            }
            // What has the same hash is found again: removing names changes their ranks.
            behind = entry.cookie & !0xff;
            let goes_on = failed.is_ok() && names.len() < 512;
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed?;
        if names.is_empty() {
            return v.rmdir(v.root(), name, now);
        }
        for name in names {
            match v.unlink(dir, &name, now) {
                Ok(()) | Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
