//! Inodes: attributes, and who gets which number.

use super::Volume;
use crate::blocks::{Content, Purpose};
use crate::error::{Error, Result};
use crate::format::inode::{
    self, Generation, INODES_PER_BLOCK, MAX_INO, NUMBER, NewInode, ROOT_INO, from_mode_bits,
    mode_bits, slot_of, time_from, time_values, word_index,
};
use crate::format::word::{NOTHING, Root, Salt, seal};
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::leaf_cache::Leaf;
use crate::tree::path::Path;
use crate::tree::stage::{Place, Stage, Written};
use crate::types::*;
use crate::windows::mmu::Mmu;
use arrayvec::ArrayVec;

/// Inodes that are looked at for a free one before room is made for more.
const MOST_TRIES: u64 = 1024;

fn damaged(block: Block, what: &'static str) -> Error {
    Error::Damaged { block, what }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// The value of a word of an inode, whose block is known.
    #[inline]
    pub(super) fn number(
        &self,
        block: Block,
        ino: Ino,
        word: u16,
        what: &'static str,
    ) -> Result<u64> {
        self.tree.blocks.value(block, Content::Inodes, word_index(slot_of(ino), word), what)
    }

    /// A time of an inode, which has two words.
    fn time_in(&self, block: Block, ino: Ino, word: u16) -> Result<Time> {
        let what = "a time fails its check";
        let values =
            [self.number(block, ino, word, what)?, self.number(block, ino, word + 1, what)?];
        time_from(values).map_err(|_| damaged(block, what))
    }

    /// Owner and group of an inode.
    #[inline]
    pub(super) fn owner_in(&self, block: Block, ino: Ino) -> Result<(u32, u32)> {
        let number = |word| {
            let value = self.number(block, ino, word, "an owner fails its check")?;
            u32::try_from(value).map_err(|_| damaged(block, "an owner is beyond the limit"))
        };
        Ok((number(inode::UID)?, number(inode::GID)?))
    }

    /// The value that counts the next change of an inode.
    #[inline(always)]
    fn next_change(&self, block: Block, ino: Ino) -> Result<u64> {
        let changes =
            self.number(block, ino, inode::CHANGES, "a count of changes fails its check")?;
        Ok((changes + 1) & NUMBER)
    }

    /// Size of the inode, whose block is known.
    #[inline(always)]
    pub(crate) fn size_in(&self, block: Block, ino: Ino) -> Result<u64> {
        let size = self.number(block, ino, inode::SIZE, "a size fails its check")?;
        if size > MAX_FILE_SIZE {
            Err(damaged(block, "a size is beyond the limit"))
        } else {
            Ok(size)
        }
    }

    #[inline(always)]
    pub(super) fn kind_in(&self, block: Block, ino: Ino) -> Result<(Kind, u16)> {
        let value = self.number(block, ino, inode::MODE, "a mode fails its check")?;
        from_mode_bits(value).map_err(|_| damaged(block, "an inode of no known kind"))
    }

    pub(super) fn nlink_in(&self, block: Block, ino: Ino) -> Result<u32> {
        let names = self.number(block, ino, inode::NLINK, "a link count fails its check")?;
        u32::try_from(names).map_err(|_| damaged(block, "a link count is beyond the limit"))
    }

    /// The seed of a directory's name hash.
    pub(super) fn seed_of(&self, block: Block, ino: Ino) -> Result<u64> {
        self.number(block, ino, inode::SEED, "a seed fails its check")
    }

    /// The directory that holds a directory.
    pub(super) fn parent_of(&self, ino: Ino) -> Result<Ino> {
        let block = self.tree.inode_block(ino)?;
        Ok(Ino(self.number(block, ino, inode::PARENT, "a parent fails its check")?))
    }

    /// Number of the inode that founded the family of clones.
    pub(super) fn family_of(&self, block: Block, ino: Ino) -> Result<Ino> {
        Ok(Ino(self.number(block, ino, inode::FAMILY, "a family fails its check")?))
    }

    /// The attributes of an inode.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or a [media error](Error#media-errors).
    pub fn attributes(&self, ino: Ino) -> Result<Attributes> {
        let block = self.tree.inode_block(ino)?;
        let (kind, mode) = self.kind_in(block, ino)?;
        let (uid, gid) = self.owner_in(block, ino)?;
        let time = |word| self.time_in(block, ino, word);
        Ok(Attributes {
            ino,
            kind,
            mode,
            nlink: self.nlink_in(block, ino)?,
            uid,
            gid,
            size: self.size_in(block, ino)?,
            mtime: time(inode::MTIME)?,
            ctime: time(inode::CTIME)?,
            atime: time(inode::ATIME)?,
            btime: time(inode::BTIME)?,
        })
    }

    /// Sets attributes; durable at return.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NoSpace`] if the inode has to be copied, or a [media
    /// error](Error#media-errors). Nothing has changed then.
    pub fn set_attributes(&mut self, ino: Ino, set: SetAttributes, now: Time) -> Result<()> {
        let (path, _) = self.tree.inode_path(ino)?;
        let old = self.attributes(ino)?;
        let slot = slot_of(ino);
        let changes = self.next_change(self.tree.inode_block(ino)?, ino)?;
        let mut words = ArrayVec::<_, 10>::new();
        words.push((inode::MODE, mode_bits(old.kind, set.mode.unwrap_or(old.mode))));
        words.push((inode::UID, set.uid.unwrap_or(old.uid).into()));
        words.push((inode::GID, set.gid.unwrap_or(old.gid).into()));
        for (word, time) in [
            (inode::ATIME, set.atime.unwrap_or(old.atime)),
            (inode::MTIME, set.mtime.unwrap_or(old.mtime)),
            (inode::CTIME, now),
        ] {
            let [seconds, nanoseconds] = time_values(time);
            words.push((word, seconds));
            words.push((word + 1, nanoseconds));
        }
        words.push((inode::CHANGES, changes));
        words.iter_mut().for_each(|(word, _)| *word = word_index(slot, *word));
        let stage = self.tree.stage();
        self.tree.commit_and_release(stage, &[Edit::independent(&path, &words)], Purpose::Release)
    }

    /// Sets times of an inode after a change: durable with the next fence.
    pub(super) fn touch<const N: usize>(
        &mut self,
        ino: Ino,
        words: [u16; N],
        now: Time,
    ) -> Result<()> {
        let (path, _) = self.tree.inode_path(ino)?;
        let Some(block) = path.last().and_then(|step| step.block()) else { return Ok(()) };
        if self.tree.exclusive_steps(&path)? < path.len() {
            let values = self.touched(block, ino, &words, now)?;
            let stage = self.tree.stage();
            return self.tree.commit_and_release(
                stage,
                &[Edit::independent(&path, &values)],
                Purpose::Release,
            );
        }
        self.store_touched(block, ino, words, now)
    }

    /// As [`Volume::touch`], where the way to the inode may be known.
    #[inline(always)]
    pub(super) fn touch_in<const N: usize>(
        &mut self,
        known: Leaf,
        ino: Ino,
        words: [u16; N],
        now: Time,
    ) -> Result<()> {
        if !known.inodes_exclusive {
            return self.touch(ino, words, now);
        }
        self.store_touched(known.inodes, ino, words, now)
    }

    /// The words that tell of a change, by their index in the block: times, and the count of
    /// changes.
    fn touched(
        &self,
        block: Block,
        ino: Ino,
        words: &[u16],
        now: Time,
    ) -> Result<ArrayVec<(u16, u64), 5>> {
        let slot = slot_of(ino);
        let [seconds, nanoseconds] = time_values(now);
        let mut values = ArrayVec::new();
        for &word in words {
            values.push((word_index(slot, word), seconds));
            values.push((word_index(slot, word + 1), nanoseconds));
        }
        values.push((word_index(slot, inode::CHANGES), self.next_change(block, ino)?));
        Ok(values)
    }

    /// Stores what tells of a change in a block of inodes that is exclusive.
    #[inline(always)]
    fn store_touched<const N: usize>(
        &mut self,
        block: Block,
        ino: Ino,
        words: [u16; N],
        now: Time,
    ) -> Result<()> {
        const { assert!(N <= 2) };
        let [seconds, nanoseconds] = time_values(now);
        // All of them are in one line. Where there is one time, the count is stored again.
        let line = inode::MTIME;
        let mut values = [(inode::CHANGES - line, self.next_change(block, ino)?); 5];
        for (at, word) in words.into_iter().enumerate() {
            values[2 * at] = (word - line, seconds);
            values[2 * at + 1] = (word + 1 - line, nanoseconds);
        }
        let first = word_index(slot_of(ino), line);
        self.tree.blocks.store_in_line(block, Content::Inodes, first, values);
        Ok(())
    }

    /// Commits a new size.
    pub(super) fn set_size(
        &mut self,
        stage: Stage<Written>,
        ino: Ino,
        size: u64,
        purpose: Purpose,
    ) -> Result<()> {
        let slot = slot_of(ino);
        let word = [(word_index(slot, inode::SIZE), size)];
        let found = self.tree.leaf_above(ino, FileBlock(0)).and_then(|known| {
            match known.inodes_exclusive {
                true => Ok((known, None)),
                false => Ok((known, Some(self.tree.inode_path(ino)?.0))),
            }
        });
        match found {
            Ok((_, Some(path))) => {
                self.tree.commit_and_release(stage, &[Edit::words(&path, &word)], purpose)
            }
            Ok((known, None)) => {
                let retired = core::mem::take(&mut self.tree.retired);
                let inodes = (known.inodes, Content::Inodes);
                let done = self.tree.publish_in_place(stage, &known, inodes, &word, retired)?;
                self.tree.release(done)
            }
            Err(error) => {
                self.tree.abandon_stage(stage);
                Err(error)
            }
        }
    }

    /// Finds an inode number that is free, and the path to its block, which may have to be made.
    fn free_ino(&mut self) -> Result<(Ino, Path)> {
        // While few are free, looking for one costs more than making room for more.
        let room = self.inodes.room;
        let mut behind = room;
        if room - self.inodes.used.min(room) > room / 8 {
            // The search goes on where it ends, with the next inode that is made.
            for _ in 0..room.min(MOST_TRIES) {
                let next = self.inodes.cursor + 1;
                self.inodes.cursor = if next < room { next } else { ROOT_INO.0 };
                let ino = Ino(self.inodes.cursor);
                let path = self.tree.inode_block_path(ino)?;
                let Some(block) = path.last().and_then(|step| step.block()) else {
                    behind = ino.0 / INODES_PER_BLOCK as u64 * INODES_PER_BLOCK as u64 + 1;
                    break;
                };
                // One that cannot be read is not taken, and not cleared either.
                let root = self.number(block, ino, inode::ROOT, "a root fails its check");
                if root == Ok(NOTHING) {
                    return Ok((ino, path));
                }
            }
        }
        if behind >= MAX_INO {
            return Err(Error::NoSpace);
        }
        Ok((Ino(behind), self.tree.inode_block_path(Ino(behind))?))
    }

    /// Writes a new inode, live but without a name, into the stage. Where its block has to
    /// be made or copied for that, it is committed by itself.
    pub(super) fn new_inode(
        &mut self,
        stage: &mut Stage<Written>,
        make: impl FnOnce(Ino) -> NewInode,
    ) -> Result<Ino> {
        let (ino, path) = self.free_ino()?;
        let new = make(ino);
        self.inodes.made += 1;
        let generation = Generation { mount: self.superblock.mounts, number: self.inodes.made };
        let exists = path.last().is_some_and(|step| step.block().is_some());
        match self.tree.place(&path)? {
            Place::Exclusive(mut place) if exists => {
                let (first, values) = (word_index(slot_of(ino), 0), new.values(generation));
                place.prepare_run(stage, Content::Inodes, first, &values)
            }
            // It has to be copied; or made, and all other inodes of its block are free.
            _ => {
                let words = new.words(slot_of(ino), generation);
                self.tree.commit_beside(stage, &[Edit::words(&path, &words)], Purpose::Grow)?
            }
        }
        // A rebuild counts no room behind the last live inode, even if a block is there.
        let room = (ino.0 / INODES_PER_BLOCK as u64 + 1) * INODES_PER_BLOCK as u64;
        self.inodes.room = self.inodes.room.max(room);
        self.inodes.used += 1;
        self.inode_counted(ino, true);
        self.inodes.cursor = ino.0;
        Ok(ino)
    }

    /// Undoes [`Volume::new_inode`], whose stage was given up.
    pub(super) fn forget_inode(&mut self, ino: Ino) {
        let Ok(path) = self.tree.inode_block_path(ino) else { return };
        let Some(block) = path.last().and_then(|step| step.block()) else { return };
        // Recovery would drop it too: it has no name.
        let index = word_index(slot_of(ino), inode::ROOT);
        let free = seal(NOTHING, Salt::inodes(block), index);
        self.tree.blocks.store_word(block, index, free);
        self.tree.blocks.flush_words(block, index, 1);
        self.tree.blocks.pmem.fence();
        self.inodes.used -= 1;
        self.inode_counted(ino, false);
    }

    /// Frees an inode that has no name and no window: its blocks go with the durable
    /// clearing of its root.
    pub(crate) fn drop_inode(&mut self, ino: Ino) -> Result<()> {
        let (path, _) = self.tree.inode_path(ino)?;
        let word = [(word_index(slot_of(ino), inode::ROOT), NOTHING)];
        let stage = self.tree.stage();
        let done = self.tree.commit(stage, &[Edit::words(&path, &word)], Purpose::Release)?;
        self.inode_dropped(ino);
        self.tree.release(done)
    }

    /// Notes that an inode is free again.
    pub(super) fn inode_dropped(&mut self, ino: Ino) {
        self.inodes.used -= 1;
        self.inode_counted(ino, false);
        self.tree.files.forget_clean_tail(FileKey(ino));
        self.forget_emptied(ino);
        self.tree.files.changed(FileKey(ino));
    }

    /// Tells a check that is under way.
    fn inode_counted(&mut self, ino: Ino, made: bool) {
        if let Some(naming) = &mut self.naming {
            naming.count_inode(ino, made);
        }
    }

    /// The new root of an inode as an edit of its own.
    pub(super) fn root_word(ino: Ino, root: Root) -> (u16, u64) {
        (word_index(slot_of(ino), inode::ROOT), root.value())
    }

    /// Calls `each` for every live inode: its number, its block and its root.
    pub(super) fn each_inode(
        &mut self,
        each: &mut dyn FnMut(&mut Self, Ino, Block, Root) -> Result<()>,
    ) -> Result<()> {
        let mut at = 0;
        while let Some((found, block)) = self.inode_block_behind(at)? {
            at = found;
            let ino = Ino(at * INODES_PER_BLOCK as u64);
            for slot in 0..INODES_PER_BLOCK {
                if let Some(root) = self.tree.root_in(block, slot)? {
                    each(self, Ino(ino.0 + slot as u64), block, root)?;
                }
            }
            at += 1;
        }
        Ok(())
    }

    /// The first block of inodes from a place in the inode file on: its place, and the block.
    pub(super) fn inode_block_behind(&self, mut at: u64) -> Result<Option<(u64, Block)>> {
        let live = self.tree.live_root()?;
        let end = if live.top.is_none() { 0 } else { live.capacity() };
        while at < end {
            let path: Path = self.tree.inode_block_path(Ino(at * INODES_PER_BLOCK as u64))?;
            if let Some(block) = path.last().and_then(|step| step.block()) {
                return Ok(Some((at, block)));
            }
            // Skip what the missing node would have mapped.
            let missing = path.iter().position(|step| step.block().is_none()).unwrap_or(0);
            let level = path.len() - 1 - missing;
            at = (at / 512u64.pow(level as u32) + 1) * 512u64.pow(level as u32);
        }
        Ok(None)
    }
}
