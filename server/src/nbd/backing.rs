//! What is served: a file through its window, or a region of an NVDIMM that holds no volume.
//!
//! The two have nothing in common but this interface: a file's blocks move, are shared and
//! copied, and are reached through page tables; a region is plain memory.

use super::contexts::Context;
use super::failure::Failure;
use crate::platform::Platform;
use umbra_fs::dax::{self, PAGES_PER_SLOT};
use umbra_fs::{BLOCK_SIZE, Begun, Error, FileBlock, Ino, Operation, Pmem, Window};
use umbra_proto::nbd::{Status, allocation};

/// Most bytes of a region that one step fills with zeros.
const ZERO_STEP: u64 = 128 << 10;
/// Most bytes that a cache request maps: more would only take the place of each other.
pub const MOST_CACHED: u64 = 64 << 20;
/// Bytes that one slot of a window shows.
const SLOT: u64 = BLOCK_SIZE * PAGES_PER_SLOT as u64;

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A file.
    File {
        /// Its inode. It lives as long as the window.
        ino: Ino,
        /// The window that shows it.
        window: Window,
    },
    /// An NVDIMM region, by its number.
    Region(usize),
}

/// What is done to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeOp {
    /// Forget whole blocks of it.
    Trim,
    /// Make it zeros.
    Zero,
    /// Make it zeros that take space, so that what is written there later needs none.
    AllocateZeros,
    /// Map it.
    Cache,
}

/// The region of a backing. It was there when the client connected, and regions do not go.
fn region<M: Platform>(machine: &mut M, index: usize) -> Result<&mut M::Device, Failure> {
    machine.device(index).ok_or(Failure::Fs(Error::NotFound))
}

impl Backing {
    /// Loads bytes; on failure tells how many were loaded before.
    pub fn load<M: Platform>(
        self,
        machine: &mut M,
        at: u64,
        into: &mut [u8],
    ) -> Result<(), (usize, Failure)> {
        match self {
            Backing::File { window, .. } => dax::load(machine, window, at, into)
                .map_err(|e| (e.done.min(into.len()), e.error.into())),
            Backing::Region(index) => {
                let device = region(machine, index).map_err(|e| (0, e))?;
                device.read(at, into).map_err(|e| (0, Failure::Fs(e.into())))
            }
        }
    }

    /// Writes whole blocks, or up to the end of the export; on failure tells how many bytes were
    /// written before.
    pub fn write<M: Platform>(
        self,
        machine: &mut M,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), (usize, Failure)> {
        match self {
            Backing::File { ino, .. } => {
                let now = machine.now();
                match machine.volume(|v| v.write(ino, at, bytes, now)) {
                    Ok(n) if n == bytes.len() => Ok(()),
                    Ok(n) => Err((n, Failure::Fs(Error::NoSpace))),
                    Err(e) => Err((0, e.into())),
                }
            }
            Backing::Region(index) => region(machine, index).map_err(|e| (0, e)).map(|device| {
                device.write(at, bytes);
                device.flush(at, bytes.len() as u64);
            }),
        }
    }

    /// Stores a part of a block; on failure tells how many bytes were stored before.
    pub fn store<M: Platform>(
        self,
        machine: &mut M,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), (usize, Failure)> {
        match self {
            Backing::File { window, .. } => dax::store(machine, window, at, bytes)
                .map_err(|e| (e.done.min(bytes.len()), e.error.into())),
            Backing::Region(_) => self.write(machine, at, bytes),
        }
    }

    /// Takes a step of making everything durable that anybody wrote; true if it was the last one.
    /// `syncing` is what was begun by the first step.
    pub fn sync_step<M: Platform>(
        self,
        machine: &mut M,
        syncing: &mut Option<Operation>,
    ) -> Result<bool, Failure> {
        let ino = match self {
            Backing::File { ino, .. } => ino,
            Backing::Region(index) => {
                return region(machine, index).map(Pmem::fence).map(|()| true);
            }
        };
        if let Some(operation) = syncing {
            let result = machine.volume(|v| v.step(operation));
            if !matches!(result, Ok(None)) {
                *syncing = None;
            }
            return Ok(result?.is_some());
        }
        match machine.volume(|v| v.begin_sync(ino))? {
            Begun::Over(_) => Ok(true),
            Begun::GoesOn(operation) => {
                *syncing = Some(operation);
                Ok(false)
            }
        }
    }

    /// Whether loads and stores have to wait for an operation on the file.
    pub fn is_parked<M: Platform>(self, machine: &mut M) -> bool {
        match self {
            Backing::File { ino, .. } => machine.volume(|v| v.is_parked(ino)),
            Backing::Region(_) => false,
        }
    }

    /// Whether zeroing is faster than writing zeros.
    pub fn zeroes_fast(self, what: RangeOp) -> bool {
        matches!(self, Backing::File { .. })
            && matches!(what, RangeOp::Zero | RangeOp::AllocateZeros)
    }

    /// Does one step of something to a range; returns how many bytes from its front are done, at
    /// least one.
    pub fn step<M: Platform>(
        self,
        machine: &mut M,
        what: RangeOp,
        at: u64,
        left: u64,
    ) -> Result<u64, Failure> {
        match self {
            Backing::File { ino, window } => {
                let now = machine.now();
                match what {
                    RangeOp::Trim => {
                        // Parts of blocks are kept: trimming is a hint.
                        let skip = at.next_multiple_of(BLOCK_SIZE) - at;
                        let end = at + left;
                        let size = machine.volume(|v| v.attributes(ino))?.size;
                        let stop = if end >= size { end } else { end - end % BLOCK_SIZE };
                        if at + skip >= stop {
                            return Ok(left);
                        }
                        let (from, len) = (at + skip, stop - at - skip);
                        let done = machine.volume(|v| v.punch(ino, from, len, now))?;
                        Ok(if done >= len { left } else { skip + done })
                    }
                    RangeOp::Zero => Ok(machine.volume(|v| v.punch(ino, at, left, now))?.min(left)),
                    RangeOp::AllocateZeros => {
                        Ok(machine.volume(|v| v.provide_zeros(ino, at, left, now))?.min(left))
                    }
                    RangeOp::Cache => Ok(map(machine, window, at, left)),
                }
            }
            Backing::Region(index) => {
                let device = region(machine, index)?;
                match what {
                    RangeOp::Trim | RangeOp::Cache => Ok(left),
                    RangeOp::Zero | RangeOp::AllocateZeros => {
                        // No step ends within a word.
                        let n = left.min(ZERO_STEP - at % ZERO_STEP);
                        device.zero(at, n);
                        device.flush(at, n);
                        Ok(n)
                    }
                }
            }
        }
    }

    /// What the range from `at` to at most `end` begins with, in the view of a context.
    pub fn status<M: Platform>(
        self,
        machine: &mut M,
        context: Context,
        at: u64,
        end: u64,
    ) -> Result<Status, Failure> {
        let Backing::File { ino, .. } = self else {
            return Ok(Status { length: end - at, flags: 0 });
        };
        let run = machine.volume(|v| v.extent(ino, FileBlock(at / BLOCK_SIZE)))?;
        let Some(run) = run else {
            return Err(Failure::Fs(Error::Invalid("beyond the end of the file")));
        };
        let stop = (run.start.0 + run.blocks).saturating_mul(BLOCK_SIZE).min(end);
        let flags = match context {
            Context::Allocation if run.at.is_none() => allocation::HOLE | allocation::ZERO,
            Context::Allocation if run.unwritten => allocation::ZERO,
            Context::Allocation => 0,
            Context::Sharing => u64::from(run.shared),
        };
        Ok(Status { length: stop.max(at + 1) - at, flags })
    }
}

/// Maps the pages of a range, as far as its slot goes; what cannot be is left for when it is
/// needed.
fn map<M: Platform>(machine: &mut M, window: Window, at: u64, left: u64) -> u64 {
    let stop = (at / SLOT + 1) * SLOT;
    let end = (at + left).min(stop);
    let mut page = at;
    let mut byte = [0];
    while page < end {
        if dax::load(machine, window, page, &mut byte).is_err() {
            return left;
        }
        page = (page / BLOCK_SIZE + 1) * BLOCK_SIZE;
    }
    end - at
}
