//! A mounted volume.
//!
//! The interface that servers and consoles use. Names are byte strings; paths are
//! resolved by the caller with [`Volume::resolve`].

use crate::dax::Mmu;
use crate::error::Result;
use crate::pmem::Pmem;
use crate::types::*;
use core::ops::ControlFlow;

/// A mounted volume over persistent memory `P`, shown through the page tables `M`.
pub struct Volume<P, M> {
    _pmem: P,
    _mmu: M,
}

/// What `format` needs to know.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// Identifies the volume; any 16 bytes that no other volume has.
    pub uuid: [u8; 16],
    /// Seed of the hash of directory names (random).
    pub seed: u64,
    /// Creation time of the root directory.
    pub now: Time,
}

/// Why a region cannot be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountError {
    /// All zeros: it was never formatted.
    Blank,
    /// It holds something, but no Umbra volume.
    Foreign,
    /// An Umbra volume of a format version that this program does not know.
    Version(u32),
    /// Smaller than the smallest volume, or than the volume says it is.
    TooSmall,
    /// Both superblocks are damaged.
    Superblocks,
    /// The volume is damaged beyond them.
    Fs(crate::Error),
}

/// What `check` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// One line per finding (at most 100 are kept).
    pub issues: alloc::vec::Vec<alloc::string::String>,
    /// All findings, those beyond the first 100 included.
    pub issues_total: u64,
    /// Blocks that were looked at.
    pub blocks: u64,
    /// Inodes that were looked at.
    pub inodes: u64,
}

/// Counts of what the fault handler did since mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Faults by loads.
    pub read: u64,
    /// Faults by stores that only had to grant writing.
    pub write: u64,
    /// Faults by stores that copied (or allocated) a block.
    pub cow: u64,
    /// Faults that could not be resolved.
    pub failed: u64,
    /// Shadows of *other* files unmapped by copies on write: always 0.
    pub foreign_unmapped: u64,
    /// Shadows tossed by copies on write and grants.
    pub tossed: u64,
}

/// The state of windows, masters and shadows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagesReport {
    /// Open windows.
    pub windows: u64,
    /// Slots attached to windows now.
    pub slots: u64,
    /// Blocks that are mapped read-only at least once.
    pub masters: u64,
    /// Read-only translations of blocks.
    pub shadows: u64,
    /// Translations of the zero page.
    pub zero: u64,
    /// Writable translations (dirty pages).
    pub writable: u64,
    /// What the fault handler did (not filtered by file).
    pub faults: FaultCounts,
}

/// Signatures that servers build against.
impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Writes an empty volume over the whole region. Whatever was there is gone.
    pub fn format(pmem: &mut P, options: FormatOptions) -> Result<(), MountError> {
        todo!("{options:?} {}", pmem.len())
    }
    /// Mounts the volume of a region; rebuilds the derived state where needed.
    /// On failure the parts are handed back.
    pub fn mount(pmem: P, mmu: M, now: Time) -> Result<Self, (MountError, P, M)> {
        let _ = (pmem, mmu, now);
        todo!()
    }
    /// Makes everything durable and marks the volume clean.
    pub fn unmount(self) -> Result<(P, M), crate::Error> {
        todo!()
    }
    /// The persistent memory (for its counters).
    pub fn pmem(&self) -> &P {
        &self._pmem
    }
    /// The root directory.
    pub fn root(&self) -> Ino {
        todo!()
    }
    /// Space of the volume.
    pub fn space(&self) -> Space {
        todo!()
    }
    /// Finds a name in a directory (`.` and `..` are not names here).
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Ino> {
        todo!("{dir:?} {name:?}")
    }
    /// Finds the inode of a path from the root. Empty components and `.` are skipped,
    /// `..` goes up; symbolic links are not followed.
    pub fn resolve(&self, path: &[u8]) -> Result<Ino> {
        todo!("{path:?}")
    }
    /// Splits a path into the directory that holds its last component, and that
    /// component. `/` alone is `Error::InvalidName`.
    pub fn resolve_parent<'p>(&self, path: &'p [u8]) -> Result<(Ino, &'p [u8])> {
        todo!("{path:?}")
    }
    /// The attributes of an inode.
    pub fn attributes(&self, ino: Ino) -> Result<Attributes> {
        todo!("{ino:?}")
    }
    /// Blocks that the content of a file refers to (shared ones counted in full).
    pub fn blocks(&self, ino: Ino) -> Result<u64> {
        todo!("{ino:?}")
    }
    /// Sets attributes; durable at return.
    pub fn set_attributes(&mut self, ino: Ino, set: SetAttributes, now: Time) -> Result<()> {
        todo!("{ino:?} {set:?} {now:?}")
    }
    /// Creates an empty file.
    pub fn create(&mut self, dir: Ino, name: &[u8], mode: u16, now: Time) -> Result<Ino> {
        todo!("{dir:?} {name:?} {mode} {now:?}")
    }
    /// Creates an empty directory.
    pub fn mkdir(&mut self, dir: Ino, name: &[u8], mode: u16, now: Time) -> Result<Ino> {
        todo!("{dir:?} {name:?} {mode} {now:?}")
    }
    /// Removes the name of a file; its blocks are reclaimed in the background once no
    /// window shows it.
    pub fn unlink(&mut self, dir: Ino, name: &[u8], now: Time) -> Result<()> {
        todo!("{dir:?} {name:?} {now:?}")
    }
    /// Removes an empty directory.
    pub fn rmdir(&mut self, dir: Ino, name: &[u8], now: Time) -> Result<()> {
        todo!("{dir:?} {name:?} {now:?}")
    }
    /// Renames atomically; replaces a file by a file, an empty directory by a directory.
    pub fn rename(&mut self, dir: Ino, name: &[u8], to_dir: Ino, to_name: &[u8], now: Time) -> Result<()> {
        todo!("{dir:?} {name:?} {to_dir:?} {to_name:?} {now:?}")
    }
    /// Creates `name` as a clone of a file: constant time, atomic, durable at return.
    pub fn clone_file(&mut self, src: Ino, dir: Ino, name: &[u8], now: Time) -> Result<Ino> {
        todo!("{src:?} {dir:?} {name:?} {now:?}")
    }
    /// Shares a range of blocks of `src` into `dst`. Offsets are multiples of 4096;
    /// so is `len`, unless the range ends at the end of `src` and at or beyond that of
    /// `dst`. Atomic and durable at return.
    pub fn clone_range(
        &mut self,
        src: Ino,
        src_offset: u64,
        dst: Ino,
        dst_offset: u64,
        len: u64,
        now: Time,
    ) -> Result<()> {
        todo!("{src:?} {src_offset} {dst:?} {dst_offset} {len} {now:?}")
    }
    /// Sets the size of a file; durable at return.
    pub fn truncate(&mut self, ino: Ino, size: u64, now: Time) -> Result<()> {
        todo!("{ino:?} {size} {now:?}")
    }
    /// Reads from media, not through a window. Returns fewer bytes only at end of file.
    pub fn read(&self, ino: Ino, offset: u64, into: &mut [u8]) -> Result<usize> {
        todo!("{ino:?} {offset} {}", into.len())
    }
    /// Writes; extends the file where needed. What had to be allocated or copied is
    /// durable at return, overwrites in place after [`Volume::sync`]. Returns fewer bytes
    /// than given only if space ran out midway.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8], now: Time) -> Result<usize> {
        todo!("{ino:?} {offset} {} {now:?}", bytes.len())
    }
    /// Makes all stores to a file durable, those through windows included.
    pub fn sync(&mut self, ino: Ino) -> Result<()> {
        todo!("{ino:?}")
    }
    /// Lists a directory behind `cookie` (0: from the start) until `each` breaks.
    pub fn read_dir(
        &self,
        dir: Ino,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let _ = each;
        todo!("{dir:?} {cookie}")
    }
    /// The first run at or behind a file block: data, hole or unwritten. `None` beyond
    /// the end of the file. A run may be cut short (at most 512 blocks of data are looked at).
    pub fn extent(&self, ino: Ino, from: FileBlock) -> Result<Option<Extent>> {
        todo!("{ino:?} {from:?}")
    }
    /// Verifies the volume and the invariants of windows, without changing anything.
    pub fn check(&mut self) -> Result<CheckReport> {
        todo!()
    }
    /// Does one bounded step of background reclaiming; false if there is nothing to do.
    pub fn reclaim_step(&mut self) -> Result<bool> {
        todo!()
    }
}

/// An open window: a view of one file that plain loads and stores go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window(pub u32);

/// Windows.
impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Opens a shared window on a file. The file's content lives until it is closed,
    /// even if the last name goes.
    pub fn open_window(&mut self, ino: Ino) -> Result<Window> {
        todo!("{ino:?}")
    }
    /// Closes a window; what was stored through it is durable at return.
    pub fn close_window(&mut self, window: Window) -> Result<()> {
        todo!("{window:?}")
    }
    /// Gives the window a slot for the 2 MiB leaf `leaf` of its file (it may have one
    /// already), taking one from another window if none is free. The slot stays attached
    /// at least until the next call of `attach` or `close_window`.
    pub fn attach(&mut self, window: Window, leaf: u32) -> Result<crate::dax::Slot> {
        todo!("{window:?} {leaf}")
    }
    /// Resolves a page fault: after `Ok` the access can be tried again.
    pub fn fault(&mut self, page: crate::dax::Page, access: crate::dax::Access) -> Result<()> {
        todo!("{page:?} {access:?}")
    }
    /// The state of windows, of one file or of all.
    pub fn pages(&self, ino: Option<Ino>) -> PagesReport {
        todo!("{ino:?}")
    }
}
