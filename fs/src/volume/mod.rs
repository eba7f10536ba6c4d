//! A mounted volume: the interface that servers and consoles use.
//!
//! The life of an inode. A crash at any point leaves it with a name or frees it:
//!
//! ```text
//!   free --- new_inode ---> without a name --- insert_entry ---> named --- link, unlink ---.
//!    ^                            |                                ^  '---- names > 0 <----'
//!    |                            '--- link (an open, unnamed file)'            | names = 0
//!    |                                                                          v
//!    '--- drop_inode <--- last window closed, unmount, recovery <--- open without a name
//!    '--- drop_inode <------------------------------------------------- not open
//! ```
//!
//! The life of a block. Its count of references is in the scratch area, and is made anew by
//! recovery:
//!
//! ```text
//!   free (0) --- allocate ---> fresh (1) --- publish, fence ---> exclusive (1) -- clone --.
//!     ^                          |                                 ^                      v
//!     |<---- stage given up -----'                                 '-- others drop -- shared (2+)
//!     |<---- the last reference goes: data at once
//!     '----- reclaim_step <--- waits (0): a node, whose references have to go before it
//! ```
//!
//! Only an exclusive block below exclusive nodes is changed in place. A shared one is copied to a
//! fresh block, and the original loses one reference when the change is durable.
//!
//! | file | what |
//! |---|---|
//! | `mount.rs` | format, mount, unmount |
//! | `rebuild.rs` | counting references and free blocks anew after a stop that was not clean |
//! | `inodes.rs` | attributes, allocation of inodes |
//! | `inode_table.rs` | which inode numbers are taken |
//! | `census.rs` | how often inodes are named |
//! | `file.rs` | read, truncate, extents |
//! | `write.rs`, `source.rs` | write; what is written |
//! | `bad_blocks.rs`, `bad_list.rs` | memory errors: the list of bad blocks |
//! | `owners/` | which files have bad blocks |
//! | `punch.rs` | holes and zeros in the middle of a file |
//! | `dir.rs` | directories: lookup, insertion, listing |
//! | `paths.rs` | paths |
//! | `pins.rs` | files that are in use (counted in `windows/`), and what is refused for them |
//! | `window.rs` | windows on files: opened, and closed in steps |
//! | `names.rs` | create, remove, rename |
//! | `climb.rs` | what has to be known before a directory is moved |
//! | `links.rs` | hard links and symbolic links |
//! | `operation.rs`, `work.rs` | operations that take steps; what they hold between two |
//! | `budget.rs` | blocks that a change may need, and work that a step may do |
//! | `settle.rs` | what they need of windows |
//! | `count.rs` | counting the blocks of a file |
//! | `clone.rs` | clones of files |
//! | `splice.rs` | a tree of which a range is another's |
//! | `range.rs` | clones of ranges |
//! | `dedupe.rs` | sharing what is equal |
//! | `check/` | verification of everything |
//! | `scrub.rs` | loading all that is in use, and comparing the copies of metadata |
//!
//! Names are byte strings; paths are resolved by the caller, with [`Volume::resolve`] and its kin.
//! Operations are atomic and durable at return unless they say otherwise. Those whose work grows
//! with a size can be taken step by step, as an [`Operation`](work::Operation).

mod bad_blocks;
mod bad_list;
mod budget;
mod census;
pub(crate) mod check;
pub(crate) mod climb;
mod clone;
mod count;
pub(crate) mod dedupe;
mod dir;
mod file;
mod inode_table;
mod inodes;
pub(crate) mod links;
pub(crate) mod mount;
mod names;
mod operation;
pub(crate) mod owners;
pub(crate) mod paths;
mod pins;
mod punch;
mod range;
mod rebuild;
mod scrub;
mod settle;
mod source;
mod splice;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod window;
pub(crate) mod work;
mod write;

use self::bad_list::BadList;
pub use self::bad_list::{BadBlockCounts, Struck};
use self::check::naming::Naming;
use self::inode_table::InodeTable;
pub use self::scrub::Scrub;
use crate::blocks::Purpose;
use crate::error::Result;
use crate::format::superblock::Superblock;
use crate::pmem::Pmem;
use crate::tree::Tree;
use crate::tree::stage::{Lists, Stage, Written};
use crate::types::*;
use crate::windows::Windows;
use crate::windows::mmu::Mmu;
use arrayvec::ArrayVec;
use core::ops::Range;

/// A mounted volume over persistent memory `P`, shown through the page tables `M`.
pub struct Volume<P, M> {
    pub(crate) tree: Tree<P>,
    pub(crate) dax: Windows<M>,
    pub(crate) faults: FaultCounts,
    superblock: Superblock,
    /// The derived state was counted anew by this mount.
    rebuilt: bool,
    inodes: InodeTable,
    /// Work that a step of an operation does.
    pub(crate) work_a_step: u64,
    /// Directories that have no name in front of a position, as a cookie.
    emptied: ArrayVec<(Ino, u64), 8>,
    /// Grows when a directory gets another parent.
    moves: u64,
    /// A check is under way.
    checking: bool,
    /// It is at names.
    naming: Option<Naming>,
    /// Work that a step of a check does, where that is not as usual.
    check_work_a_step: Option<u64>,
    bad_list: BadList,
    /// The last scrub.
    scrub: Option<Scrub>,
}

/// Bytes of [`Volume::identity`].
pub const IDENTITY_LEN: usize = 128;

/// Counts of what the fault handler did since mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Faults by loads.
    pub read: u64,
    /// Faults by stores that only had to grant writing.
    pub write: u64,
    /// Faults by stores that filled a block first: a copy, or with zeros.
    pub cow: u64,
    /// Faults that could not be resolved.
    pub failed: u64,
    /// Shadows that went during the store fault of *another* file: sharers do not disturb each
    /// other, so this stays 0.
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

/// Pages of a file that are being counted.
#[derive(Clone, Debug)]
pub struct PageCount {
    ino: Ino,
    at: u32,
    report: PagesReport,
}

impl<P: Pmem, M> Volume<P, M> {
    /// Fills an empty stage. If that fails, the stage is given up and empty again, and nothing has
    /// changed. The stage stays with the caller, because returning one copies a hundred bytes.
    #[inline(always)]
    pub(crate) fn fill_stage<T>(
        &mut self,
        stage: &mut Stage<Written>,
        fill: impl FnOnce(&mut Self, &mut Stage<Written>) -> Result<T>,
    ) -> Result<T> {
        let filled = fill(self, stage);
        if filled.is_err() {
            let given_up = core::mem::replace(stage, Stage::new(Lists::default()));
            self.tree.abandon_stage(given_up);
        }
        filled
    }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// The persistent memory (for its counters).
    pub fn pmem(&self) -> &P {
        &self.tree.blocks.pmem
    }

    /// The persistent memory, for the stores of a software processor.
    #[cfg(feature = "testing")]
    pub fn pmem_mut(&mut self) -> &mut P {
        &mut self.tree.blocks.pmem
    }

    /// The page tables.
    pub fn mmu_mut(&mut self) -> &mut M {
        &mut self.dax.mmu
    }

    /// The root directory.
    pub fn root(&self) -> Ino {
        crate::format::inode::ROOT_INO
    }

    /// Space of the volume.
    pub fn space(&self) -> Space {
        let geometry = self.tree.blocks.geometry;
        Space {
            total: geometry.handed_out(),
            free: self.tree.blocks.free_or_lent(),
            available: match self.tree.blocks.has_room(0, budget::NODE_BLOCKS, Purpose::Grow) {
                true => self.tree.blocks.available(),
                false => 0,
            },
            // The record of a block that is out of use says that it is shared.
            shared: self.tree.blocks.shared() - self.tree.blocks.out_of_use(),
            inodes: self.inodes.used,
        }
    }

    /// Where the next `blocks` blocks of content are looked for.
    pub fn next_blocks(&self, blocks: u64) -> impl Iterator<Item = Range<u64>> + use<P, M> {
        self.tree.blocks.next_blocks(blocks)
    }

    /// Blocks of metadata of which one copy was bad, and was written anew from the other, since
    /// mount.
    pub fn mended(&self) -> u64 {
        self.tree.blocks.mended()
    }

    /// Identifies the volume.
    pub fn uuid(&self) -> [u8; 16] {
        self.superblock.uuid
    }

    /// The first bytes of the region: those of no other volume, and of no other mount of this one.
    ///
    /// # Errors
    ///
    /// [`Poisoned`](crate::Error::Poisoned).
    pub fn identity(&self) -> Result<[u8; IDENTITY_LEN]> {
        let mut bytes = [0; IDENTITY_LEN];
        self.tree.blocks.pmem.read(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Does one bounded step of background reclaiming; false if there is nothing to do.
    ///
    /// # Errors
    ///
    /// A [media error](crate::Error#media-errors).
    pub fn reclaim_step(&mut self) -> Result<bool> {
        self.tree.blocks.reclaim_step()
    }

    /// Whether there is background reclaiming to do.
    pub fn has_pending_reclaim(&self) -> bool {
        self.tree.blocks.has_pending()
    }

    /// The state of windows, of one file or of all.
    ///
    /// # Errors
    ///
    /// A [media error](crate::Error#media-errors).
    pub fn pages(&self, ino: Option<Ino>) -> Result<PagesReport> {
        let faults = FaultCounts { foreign_unmapped: self.dax.foreign_unmapped, ..self.faults };
        let mut report = PagesReport { faults, ..PagesReport::default() };
        match ino {
            None => {
                report.windows = self.dax.files.windows();
                report.slots = self.dax.attached().count() as u64;
                report.masters = self.dax.shadows.masters();
                report.shadows = self.dax.shadows.count();
                report.zero = self.dax.zero;
                report.writable = self.dax.writable;
            }
            Some(ino) => {
                let mut counting = self.count_pages(ino);
                loop {
                    if let Some(report) = self.count_pages_step(&mut counting)? {
                        return Ok(report);
                    }
                }
            }
        }
        Ok(report)
    }

    /// Begins to count the pages of windows of a file.
    pub fn count_pages(&self, ino: Ino) -> PageCount {
        PageCount { ino, at: 0, report: PagesReport::default() }
    }

    /// Takes a bounded step. The counts are there with the last one; each slot is looked at when
    /// its turn comes.
    ///
    /// # Errors
    ///
    /// A [media error](crate::Error#media-errors).
    pub fn count_pages_step(&self, counting: &mut PageCount) -> Result<Option<PagesReport>> {
        let PageCount { ino, at, report } = counting;
        if !self.pages_of(*ino, at, report)? {
            return Ok(None);
        }
        report.windows = self.dax.files.windows_of(FileKey(*ino));
        report.faults = FaultCounts { foreign_unmapped: self.dax.foreign_unmapped, ..self.faults };
        Ok(Some(*report))
    }
}
