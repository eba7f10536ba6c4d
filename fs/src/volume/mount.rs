//! Format, mount, unmount.

use super::inode_table::InodeTable;
use super::{FaultCounts, Volume};
use crate::blocks::{Blocks, checkpoint};
use crate::error::Error;
use crate::format::inode::{self, Generation, ROOT_INO, slot_of, system, word_index};
use crate::format::superblock::{
    COPIES, FORMATTED, Geometry, MAGIC, MIN_BLOCKS, NoSuperblock, RECORD_SIZE, SECOND_OF_VERSION_1,
    Superblock, UNFINISHED,
};
use crate::format::word::{NOTHING, Pointer, Root, Salt, seal};
use crate::pmem::{Pmem, Poisoned};
use crate::tree::Tree;
use crate::tree::shape::word_at;
use crate::types::{BLOCK_SIZE, Block, FileKey, Kind, Time};
use crate::windows::Windows;
use crate::windows::mmu::Mmu;
use core::fmt;

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
    /// A volume was being made here, and that was interrupted: it may be done again.
    Unfinished,
    /// It holds something, but no Umbra volume.
    Foreign,
    /// An Umbra volume of a format version that this program does not know.
    Version(u32),
    /// An Umbra volume with features that this program does not know: a bit for each.
    Features(u64),
    /// Smaller than the smallest volume, or than the volume says it is.
    TooSmall,
    /// Both superblocks are damaged.
    Superblocks,
    /// The volume is damaged beyond them.
    Fs(Error),
}

impl From<Poisoned> for MountError {
    fn from(poisoned: Poisoned) -> Self {
        MountError::Fs(poisoned.into())
    }
}

impl From<Error> for MountError {
    fn from(error: Error) -> Self {
        MountError::Fs(error)
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountError::Blank => f.write_str("the NVDIMM is blank"),
            MountError::Unfinished => f.write_str("formatting the NVDIMM was interrupted"),
            MountError::Foreign => f.write_str(
                "the NVDIMM holds something that is not an Umbra volume; it is left as it is",
            ),
            MountError::Version(1) => f.write_str(
                "the volume has format version 1, which this program does not know: start it with \
                 the last commit before \"fs: format version 2\", save its files with `umbra get`, \
                 and put them into a new volume",
            ),
            MountError::Version(v) => {
                write!(f, "the volume has format version {v}, which is not known here")
            }
            MountError::Features(bits) => {
                write!(f, "the volume has features that are not known here (bits {bits:#x})")
            }
            MountError::TooSmall => {
                f.write_str("the NVDIMM is smaller than the volume (at least 8 MiB)")
            }
            MountError::Superblocks => f.write_str(
                "both superblocks of the volume are damaged; it is left as it is, so that what it \
                 holds can still be looked for",
            ),
            MountError::Fs(error) => write!(f, "the volume cannot be mounted: {error}"),
        }
    }
}

impl core::error::Error for MountError {}

/// Bytes at the start and at the end of a region in which leftovers of any format are looked for.
const PROBE: u64 = 1 << 20;

type Bytes = [u8; BLOCK_SIZE as usize];

/// Whether a region holds nothing, as far as can be told without a look at all of it: a load of a
/// hole of a sparse image may cost memory of the host.
///
/// It looks at the first and the last MiB; at one block at each power of two between them; and at
/// what a volume of the region's size has even if nothing was ever written to it. The last is
/// needed because the start of a volume can be zeros for long: scratch records of blocks that are
/// never handed out are zeros, 256 MiB of a volume of 64 GiB.
fn is_blank<P: Pmem>(pmem: &P) -> Result<bool, Poisoned> {
    let mut bytes: Bytes = [0; BLOCK_SIZE as usize];
    let len = pmem.len();
    let geometry = Geometry::new(len / BLOCK_SIZE);
    let head = (0..PROBE.min(len)).step_by(BLOCK_SIZE as usize);
    let between = core::iter::successors(Some(PROBE), |&at| at.checked_mul(2));
    let between = between.take_while(|&at| at < len);
    let tail = (len.saturating_sub(PROBE)..len).step_by(BLOCK_SIZE as usize);
    let records = geometry.scratch + geometry.first * RECORD_SIZE / BLOCK_SIZE;
    let volume = [geometry.checkpoint, records].into_iter();
    let volume = volume.chain(geometry.first..geometry.first + FORMATTED);
    let volume = volume.map(|block| block * BLOCK_SIZE);
    for at in head.chain(between).chain(tail).chain(volume) {
        pmem.read(at, &mut bytes)?;
        if bytes.iter().any(|&b| b != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads both superblocks and takes the newer of those that are whole.
/// Tells too which copy to write first: never the one that was taken.
fn read_superblock<P: Pmem>(pmem: &P) -> Result<(Superblock, usize), MountError> {
    if pmem.len() < MIN_BLOCKS * BLOCK_SIZE {
        return Err(MountError::TooSmall);
    }
    let mut best: Option<Superblock> = None;
    let mut first = 0;
    let mut why = [NoSuperblock::Damaged; 2];
    for (copy, why) in why.iter_mut().enumerate() {
        let mut bytes: Bytes = [0; BLOCK_SIZE as usize];
        if pmem.read(COPIES[copy].0 * BLOCK_SIZE, &mut bytes).is_err() {
            continue;
        }
        match Superblock::decode(&bytes) {
            Ok(found) if best.is_none_or(|b| found.mounts > b.mounts) => {
                best = Some(found);
                first = 1 - copy;
            }
            // Equal mounts: the copies differ in the clean flag at most; unclean is safe.
            Ok(found) => {
                best = best.map(|b| Superblock {
                    clean: b.clean && found.clean,
                    damaged: b.damaged || found.damaged,
                    ..b
                });
            }
            Err(no) => *why = no,
        }
    }
    if let Some(found) = best {
        let fits = found.geometry.total * BLOCK_SIZE <= pmem.len();
        return if fits { Ok((found, first)) } else { Err(MountError::TooSmall) };
    }
    for no in why {
        match no {
            NoSuperblock::Version(version) => return Err(MountError::Version(version)),
            NoSuperblock::Features(bits) => return Err(MountError::Features(bits)),
            _ => {}
        }
    }
    match why {
        // The other copy is torn at most. Whatever was here before was given up.
        [NoSuperblock::Unfinished, _] | [_, NoSuperblock::Unfinished] => {
            Err(MountError::Unfinished)
        }
        _ if is_version_1(pmem) => Err(MountError::Version(1)),
        // Asked first, because a volume can be blank wherever a blank region is looked at.
        [NoSuperblock::Magic, NoSuperblock::Magic] if looks_like_ours(pmem) => {
            Err(MountError::Superblocks)
        }
        [NoSuperblock::Magic, NoSuperblock::Magic] if is_blank(pmem)? => Err(MountError::Blank),
        [NoSuperblock::Magic, NoSuperblock::Magic] => Err(MountError::Foreign),
        _ => Err(MountError::Superblocks),
    }
}

/// Whether the second superblock of a volume of version 1 is whole.
fn is_version_1<P: Pmem>(pmem: &P) -> bool {
    let mut bytes: Bytes = [0; BLOCK_SIZE as usize];
    pmem.read(SECOND_OF_VERSION_1.0 * BLOCK_SIZE, &mut bytes).is_ok()
        && Superblock::decode(&bytes) == Err(NoSuperblock::Version(1))
}

/// Whether a region holds a volume, or what is left of one: then it is not for anything else. One
/// that cannot be read may hold one.
pub fn holds_volume<P: Pmem>(pmem: &P) -> bool {
    match read_superblock(pmem) {
        Err(MountError::Blank | MountError::Unfinished | MountError::Foreign) => false,
        // The start of one, perhaps: the rest may be there again some time.
        Err(MountError::TooSmall) => pmem.len() >= 8 && pmem.load(0) == Ok(MAGIC),
        _ => true,
    }
}

/// Whether the superblocks say that the derived state is valid.
#[cfg(feature = "testing")]
pub(crate) fn claims_clean<P: Pmem>(pmem: &P) -> bool {
    read_superblock(pmem).is_ok_and(|(found, _)| found.clean)
}

/// Whether a volume whose superblocks are gone was here: a word of it stands where the size of the
/// region puts it. Any one is enough, because the others may have gone too; and a block that cannot
/// be read is no reason to say no.
fn looks_like_ours<P: Pmem>(pmem: &P) -> bool {
    let geometry = Geometry::new(pmem.len() / BLOCK_SIZE);
    let [top, leaf, system, inodes] = core::array::from_fn(|i| Block(geometry.first + i as u64));
    let word = |Block(block), index, twins| pmem.load(word_at(Block(block + twins), index));
    let pointer = |block, level, twins| {
        let salt = Salt::node(block, level);
        matches!(word(block, 0, twins).map(|word| Pointer::decode(word, salt, 0)), Ok(Ok(Some(_))))
    };
    let root = |block, slot, twins| {
        matches!(
            word(block, word_index(slot, inode::ROOT), twins).map(|word| Root::decode(
                word,
                Salt::inodes(block),
                word_index(slot, inode::ROOT)
            )),
            Ok(Ok(Some(_)))
        )
    };
    [0, geometry.twins].into_iter().any(|twins| {
        pointer(top, 2, twins)
            || pointer(leaf, 1, twins)
            || root(system, system::LIVE, twins)
            || root(inodes, slot_of(ROOT_INO), twins)
    }) || word(Block(geometry.checkpoint), 0, 0) == Ok(checkpoint::MAGIC)
}

/// Writes both copies, `first` (0 or 1) first.
fn write_superblocks<P: Pmem>(pmem: &mut P, superblock: &Superblock, first: usize) {
    let bytes = superblock.encode();
    for copy in [first, 1 - first] {
        let at = COPIES[copy].0 * BLOCK_SIZE;
        pmem.write(at, &bytes);
        pmem.flush(at, BLOCK_SIZE);
        // One after the other: a crash leaves at least one copy whole, if the other one was.
        pmem.fence();
    }
}

/// Writes a block of words and its twin, `twins` blocks behind it: these values, and nothing else.
fn write_words<P: Pmem>(pmem: &mut P, twins: u64, block: Block, salt: Salt, values: &[(u16, u64)]) {
    for copy in [block, Block(block.0 + twins)] {
        for index in 0..512 {
            pmem.store(word_at(copy, index), seal(NOTHING, salt, index));
        }
        for &(index, value) in values {
            pmem.store(word_at(copy, index), seal(value, salt, index));
        }
        pmem.flush(word_at(copy, 0), BLOCK_SIZE);
    }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Writes an empty volume over the whole region. Whatever was there is gone.
    ///
    /// # Errors
    ///
    /// [`MountError::TooSmall`].
    pub fn format(pmem: &mut P, options: FormatOptions) -> Result<(), MountError> {
        let total = pmem.len() / BLOCK_SIZE;
        if total < MIN_BLOCKS {
            return Err(MountError::TooSmall);
        }
        let geometry = Geometry::new(total);
        let [top, leaf, system, inodes] =
            core::array::from_fn(|i| Block(geometry.first + i as u64));
        // Old superblocks go first: a crash in between must not leave them with new content. The
        // mark in their place says that what is found after such a crash may be formatted anew.
        for copy in COPIES.into_iter().chain([SECOND_OF_VERSION_1]) {
            pmem.store(copy.0 * BLOCK_SIZE, UNFINISHED);
            pmem.flush(copy.0 * BLOCK_SIZE, 8);
        }
        pmem.fence();
        pmem.zero(geometry.checkpoint * BLOCK_SIZE, BLOCK_SIZE);
        pmem.flush(geometry.checkpoint * BLOCK_SIZE, BLOCK_SIZE);
        let live = Root::of_file(0, Some(Pointer::to(inodes)));
        let bad_blocks = word_index(system::BAD_BLOCKS, inode::ROOT);
        let roots = [
            (word_index(system::LIVE, inode::ROOT), live.value()),
            (bad_blocks, Root::EMPTY.value()),
        ];
        let twins = geometry.twins;
        write_words(pmem, twins, top, Salt::node(top, 2), &[(0, Pointer::to(leaf).value())]);
        write_words(pmem, twins, leaf, Salt::node(leaf, 1), &[(0, Pointer::to(system).value())]);
        write_words(pmem, twins, system, Salt::inodes(system), &roots);
        let slot = slot_of(ROOT_INO);
        let root = inode::NewInode {
            kind: Kind::Directory,
            mode: 0o755,
            size: 0,
            nlink: 1,
            family: ROOT_INO,
            seed: options.seed,
            parent: ROOT_INO,
            uid: 0,
            gid: 0,
            sum: 0,
            now: options.now,
            root: Root::EMPTY,
        };
        let generation = Generation { mount: 0, number: 1 };
        write_words(pmem, twins, inodes, Salt::inodes(inodes), &root.words(slot, generation));
        pmem.fence();
        let superblock = Superblock {
            uuid: options.uuid,
            geometry,
            system: top,
            mounts: 0,
            clean: false,
            damaged: false,
            seed: options.seed.rotate_left(32) ^ options.now.0 as u64,
            created: options.now.0,
        };
        write_superblocks(pmem, &superblock, 0);
        Ok(())
    }

    /// Mounts the volume of a region; rebuilds the derived state unless the last unmount
    /// was clean.
    /// On failure the parts are handed back.
    ///
    /// # Errors
    ///
    /// Why the region cannot be mounted, with the memory and the page tables.
    pub fn mount(pmem: P, mmu: M, now: Time) -> Result<Self, (MountError, P, M)> {
        let (superblock, first) = match read_superblock(&pmem) {
            Ok(found) => found,
            Err(error) => return Err((error, pmem, mmu)),
        };
        let mut volume = Volume {
            tree: Tree::new(Blocks::new(pmem, superblock.geometry), superblock.system),
            dax: Windows::new(mmu),
            faults: FaultCounts::default(),
            superblock,
            rebuilt: false,
            inodes: InodeTable::default(),
            work_a_step: super::budget::WORK_A_STEP,
            emptied: Default::default(),
            moves: 0,
            checking: false,
            naming: None,
            check_work_a_step: None,
            bad_list: Default::default(),
            scrub: None,
        };
        match volume.start(first, now) {
            Ok(()) => Ok(volume),
            Err(error) => Err((error, volume.tree.blocks.pmem, volume.dax.mmu)),
        }
    }

    fn start(&mut self, first: usize, _now: Time) -> Result<(), MountError> {
        // Anything doubtful about the checkpoint, a memory error in it too, means a rebuild.
        // Counts of a volume that is damaged are not believed.
        let counts = match self.superblock.clean && !self.superblock.damaged {
            true => self.tree.blocks.read_checkpoint(self.superblock.mounts).ok().flatten(),
            false => None,
        };
        // Both copies say "not clean" before anything else is written.
        self.superblock.mounts += 1;
        self.superblock.clean = false;
        write_superblocks(&mut self.tree.blocks.pmem, &self.superblock, first);
        self.tree.blocks.keep_superblock();
        self.tree.system = self.find_system()?;
        self.read_bad_blocks();
        match counts {
            Some(counts) => {
                self.inodes.restore(counts.inodes_used, counts.inodes_room);
                self.retire_bad_blocks()?;
            }
            None => self.rebuild()?,
        }
        self.rebuilt = counts.is_none();
        Ok(())
    }

    /// The block of system inodes: first block of the system inode file.
    fn find_system(&self) -> Result<Block, Error> {
        use crate::blocks::Content;
        let top = self.superblock.system;
        let missing =
            Error::Damaged { block: top, what: "the system inode file has no first block" };
        let (leaf, _) = self.tree.follow(top, Content::InodeNode(2), 0)?.ok_or(missing)?;
        let (system, _) = self.tree.follow(leaf.block, Content::InodeNode(1), 0)?.ok_or(missing)?;
        Ok(system.block)
    }

    /// Top node of the system inode file.
    pub(crate) fn system_top(&self) -> Block {
        self.superblock.system
    }

    /// Second half of the key of the name hash.
    pub(crate) fn hash_seed(&self) -> u64 {
        self.superblock.seed
    }

    /// Whether this mount had to count everything anew.
    pub fn was_rebuilt(&self) -> bool {
        self.rebuilt
    }

    /// Ends all windows, makes everything durable and marks the volume clean. Files that
    /// are open without a name go; the parts are handed back.
    ///
    /// # Errors
    ///
    /// A [media error](Error#media-errors): the volume is not marked clean then, and is counted
    /// anew by the next mount.
    pub fn unmount(mut self) -> Result<(P, M), Error> {
        self.dax.detach_all(&mut self.tree.blocks)?;
        while let Some(FileKey(ino)) = self.dax.files.close_up_to_orphan() {
            self.drop_inode(ino)?;
        }
        // Nothing is lost if there is no room for it: the memory may report the error again.
        let _ = self.save_bad_blocks();
        while self.tree.blocks.reclaim_step()? {}
        self.tree.blocks.take_back_all();
        if self.superblock.damaged {
            // The next mount counts anew.
            self.tree.blocks.pmem.fence();
            return Ok((self.tree.blocks.pmem, self.dax.mmu));
        }
        self.tree.blocks.write_checkpoint(self.superblock.mounts, self.inodes.counts());
        self.tree.blocks.pmem.fence();
        self.superblock.clean = true;
        write_superblocks(&mut self.tree.blocks.pmem, &self.superblock, 0);
        Ok((self.tree.blocks.pmem, self.dax.mmu))
    }
}
