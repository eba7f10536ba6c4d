//! Content of files: read, truncate, extents.
//!
//! Beyond the end of a file nothing is defined, neither the rest of its last block nor
//! entries behind it. Whoever raises the size cleans up first; what is known to be clean
//! is remembered.

use super::Volume;
use super::budget::NODE_BLOCKS;
use super::settle::Settle;
use super::source::Source;
use super::work::{Begun, Held, Outcome, Syncing, Truncation, Work};
use crate::blocks::{Content, Purpose};
use crate::error::{Error, Result};
use crate::format::inode::{self, slot_of, word_index};
use crate::format::word::{NOTHING, Pointer, Root};
use crate::memory::push_within;
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::shape::{height_for, index_at, word_at};
use crate::tree::stage::{Stage, Written};
use crate::types::*;
use crate::windows::mmu::Mmu;
use crate::windows::passes::Revoke;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Size of a file, or of a symbolic link, whose target can be read as content.
    fn readable_size(&self, ino: Ino) -> Result<u64> {
        let block = self.tree.inode_block(ino)?;
        match self.kind_in(block, ino)?.0 {
            Kind::Directory => Err(Error::IsDirectory),
            Kind::File | Kind::Symlink => self.size_in(block, ino),
        }
    }

    /// Size of a file that is to be changed.
    pub(super) fn file_size(&self, ino: Ino) -> Result<u64> {
        self.file_size_in(self.tree.inode_block(ino)?, ino)
    }

    /// Size of a file that is to be changed, whose inode's block is known.
    pub(super) fn file_size_in(&self, block: Block, ino: Ino) -> Result<u64> {
        match self.kind_in(block, ino)?.0 {
            Kind::Directory => Err(Error::IsDirectory),
            Kind::Symlink => Err(Error::Invalid("is a symbolic link")),
            Kind::File => self.size_in(block, ino),
        }
    }

    /// Reads from media, not through a window. Returns fewer bytes only at end of file.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::IsDirectory`], or a [media error](Error#media-errors); `into`
    /// is undefined then.
    pub fn read(&self, ino: Ino, offset: u64, into: &mut [u8]) -> Result<usize> {
        let size = self.readable_size(ino)?;
        let (_, root) = self.tree.inode_path(ino)?;
        let len = (into.len() as u64).min(size.saturating_sub(offset));
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let (block, within) = (FileBlock(at / BLOCK_SIZE), at % BLOCK_SIZE);
            let piece = (BLOCK_SIZE - within).min(len - done);
            let target = &mut into[done as usize..(done + piece) as usize];
            match self.tree.entry(root, block)? {
                Some(pointer) if !pointer.unwritten => {
                    self.tree.blocks.verify_readable(pointer.block, 1)?;
                    self.tree.blocks.pmem.read(word_at(pointer.block, 0) + within, target)?;
                }
                _ => target.fill(0),
            }
            done += piece;
        }
        Ok(len as usize)
    }

    /// Begins to set the size of a file, in bytes; durable at the end. A pinned file is not made
    /// shorter: see [`Volume::pin`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::TooLarge`], [`Error::InUse`] if a
    /// pinned file would get shorter, [`Error::NoSpace`], or a [media error](Error#media-errors).
    pub fn begin_truncate(&mut self, ino: Ino, size: u64, now: Time) -> Result<Begun> {
        let file = Held::new(ino);
        // Only what is cut off is to be hidden.
        let settle = Settle::only_hides(ino, size.div_ceil(BLOCK_SIZE)..u64::MAX);
        self.begin(Work::Truncate(Truncation { file, size, now, settle }))
    }

    /// Sets the size of a file; durable at return.
    ///
    /// # Errors
    ///
    /// As [`Volume::begin_truncate`].
    pub fn truncate(&mut self, ino: Ino, size: u64, now: Time) -> Result<()> {
        let begun = self.begin_truncate(ino, size, now)?;
        self.finish(begun).map(drop)
    }

    pub(super) fn truncate_step(&mut self, work: &mut Truncation) -> Result<Option<Outcome>> {
        self.verify(work.file)?;
        let Truncation { file: Held { ino, .. }, size, now, .. } = *work;
        let old = self.file_size(ino)?;
        if size > MAX_FILE_SIZE {
            return Err(Error::TooLarge);
        }
        if size > old {
            self.prepare_extension(ino, old, size)?;
            // The zeros behind the old end are durable before the size is.
            self.tree.fence_overwrites();
            let stage = self.tree.stage();
            self.set_size(stage, ino, size, Purpose::Grow)?;
        } else if size < old {
            self.may_shorten(ino)?;
            if !self.settle(&mut work.settle)? {
                return Ok(None);
            }
            let stage = self.tree.stage();
            self.set_size(stage, ino, size, Purpose::Release)?;
            self.tree.files.forget_clean_tail(FileKey(ino));
            let first = size.div_ceil(BLOCK_SIZE);
            self.dax.unmap(&mut self.tree.blocks, FileKey(ino), first, u64::MAX)?;
            self.trim(ino, size)?;
        }
        self.touch(ino, [inode::MTIME, inode::CTIME], now)?;
        Ok(Some(Outcome::Done))
    }

    /// Replaces the whole content of a file, by at most 2 MiB, at once: after a crash the file has
    /// the old content or the new. Less content than before may take blocks of the reserve, so that
    /// a full volume is no obstacle.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for more than 2 MiB, [`Error::NoSpace`], [`Error::InUse`] if a pinned
    /// file would get shorter, [`Error::NotFound`], [`Error::IsDirectory`], or a [media
    /// error](Error#media-errors). The old content is there then.
    pub fn replace_content(&mut self, ino: Ino, bytes: &[u8], now: Time) -> Result<()> {
        let blocks = bytes.len().div_ceil(BLOCK_SIZE as usize) as u64;
        if blocks > 512 {
            return Err(Error::Invalid("content of more than 2 MiB is not replaced at once"));
        }
        let less = (bytes.len() as u64) < self.file_size(ino)?;
        if less {
            self.may_shorten(ino)?;
        }
        let purpose = if less { Purpose::Release } else { Purpose::Grow };
        self.tree.blocks.ensure(blocks, NODE_BLOCKS, purpose)?;
        let (path, _) = self.tree.inode_path(ino)?;
        let mut stage = self.tree.stage();
        let staged =
            self.fill_stage(&mut stage, |volume, stage| volume.stage_tree(stage, bytes, purpose))?;
        let slot = slot_of(ino);
        let size = (word_index(slot, inode::SIZE), bytes.len() as u64);
        let words = [Self::root_word(ino, staged), size];
        let done = self.tree.commit(stage, &[Edit::words(&path, &words)], purpose)?;
        self.tree.files.forget_clean_tail(FileKey(ino));
        let unmapped = self.dax.unmap(&mut self.tree.blocks, FileKey(ino), 0, u64::MAX);
        self.tree.release_shown(done, unmapped)?;
        self.touch(ino, [inode::MTIME, inode::CTIME], now)
    }

    /// Stages a tree of at most one leaf with these bytes.
    fn stage_tree(
        &mut self,
        stage: &mut Stage<Written>,
        bytes: &[u8],
        purpose: Purpose,
    ) -> Result<Root> {
        let mut pieces = bytes.chunks(BLOCK_SIZE as usize);
        if bytes.len() as u64 <= BLOCK_SIZE {
            let top =
                pieces.next().map(|piece| self.stage_data(stage, piece, purpose)).transpose()?;
            return Ok(Root::of_file(0, top.map(Pointer::to)));
        }
        let leaf = stage.allocate_pair(&mut self.tree.blocks, purpose)?;
        let content = Content::Node(1);
        stage.write_empty(&mut self.tree.blocks.pmem, &leaf, content);
        for (piece, index) in pieces.zip(0..) {
            let pointer = Pointer::to(self.stage_data(stage, piece, purpose)?);
            let pmem = &mut self.tree.blocks.pmem;
            stage.store_entry(pmem, &leaf, content, index, pointer.value());
        }
        Ok(Root::of_file(1, Some(Pointer::to(leaf.block()))))
    }

    /// Stages a block of a file with these bytes, which are at most a block.
    fn stage_data(
        &mut self,
        stage: &mut Stage<Written>,
        bytes: &[u8],
        purpose: Purpose,
    ) -> Result<Block> {
        let fresh = stage.allocate(&mut self.tree.blocks, purpose)?;
        stage.write_padded(&mut self.tree.blocks.pmem, &fresh, bytes);
        Ok(fresh.block())
    }

    /// Before the size is raised from `size`: nothing stale may appear below the new end,
    /// which is at `begin` or behind it. Bytes from `begin` on will be written by the caller.
    pub(super) fn prepare_extension(&mut self, ino: Ino, size: u64, begin: u64) -> Result<()> {
        if !self.tree.files.has_clean_tail(FileKey(ino)) {
            self.trim(ino, size)?;
        }
        let end = begin.min(size.next_multiple_of(BLOCK_SIZE));
        if end > size {
            self.write_piece(ino, size, Source::Zeros(end - size), None)?;
        }
        Ok(())
    }

    /// Drops all entries beyond a size. One commit for each level of the tree at most.
    fn trim(&mut self, ino: Ino, size: u64) -> Result<()> {
        let keep = size.div_ceil(BLOCK_SIZE);
        let (path, root) = self.tree.inode_path(ino)?;
        if keep == 0 && root.top.is_some() {
            self.tree.blocks.ensure(0, NODE_BLOCKS, Purpose::Release)?;
            let stage = self.tree.stage();
            let word = [Self::root_word(ino, Root::EMPTY)];
            self.tree.commit_and_release(stage, &[Edit::words(&path, &word)], Purpose::Release)?;
        }
        if keep > 0 && keep - 1 < root.capacity() && root.top.is_some() {
            for level in (1..=root.height).rev() {
                self.trim_node(ino, FileBlock(keep - 1), level)?;
            }
        }
        self.tree.files.set_clean_tail(FileKey(ino));
        Ok(())
    }

    /// Clears the entries behind the one that leads to `last`, in the node of `level` above it.
    fn trim_node(&mut self, ino: Ino, last: FileBlock, level: u8) -> Result<()> {
        let path = self.tree.node_path(ino, last, level)?;
        let Some(node) = path.last().and_then(|step| step.block()) else { return Ok(()) };
        let mut words = core::mem::take(&mut self.tree.words);
        words.clear();
        let mut result = Ok(());
        for index in index_at(last, level) + 1..512 {
            match self.tree.follow(node, Content::Node(level), index) {
                Ok(None) => {}
                Ok(Some(_)) => push_within(&mut words, (index, NOTHING)),
                Err(error) => result = Err(error),
            }
        }
        if result.is_ok() && !words.is_empty() {
            result = self.tree.blocks.ensure(0, NODE_BLOCKS, Purpose::Release).and_then(|()| {
                let stage = self.tree.stage();
                self.tree.commit_and_release(
                    stage,
                    &[Edit::independent(&path, &words)],
                    Purpose::Release,
                )
            });
        }
        self.tree.words = words;
        result
    }

    /// Begins to make all stores to a file durable, those through windows included.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], or a [media error](Error#media-errors).
    pub fn begin_sync(&mut self, ino: Ino) -> Result<Begun> {
        self.tree.leaf_above(ino, FileBlock(0))?;
        self.begin(Work::Sync(Syncing { ino, at: None }))
    }

    /// Makes all stores to a file durable, those through windows included.
    ///
    /// # Errors
    ///
    /// As [`Volume::begin_sync`].
    pub fn sync(&mut self, ino: Ino) -> Result<()> {
        let begun = self.begin_sync(ino)?;
        self.finish(begun).map(drop)
    }

    /// Few pages are made durable at once. Else one pass over the slots meets all that were stored
    /// to when it began.
    pub(super) fn sync_step(&mut self, work: &mut Syncing) -> Result<Option<Outcome>> {
        let mut allowance = self.work_a_step;
        let (file, blocks) = (FileKey(work.ino), &mut self.tree.blocks);
        let synced = match &mut work.at {
            None => self.dax.sync_some(blocks, file, &mut allowance)?,
            Some(at) => self.dax.pass(blocks, file, &Revoke::WRITING, at, &mut allowance)?,
        };
        if !synced.all {
            work.at.get_or_insert(0);
            self.tree.unfenced = true;
            return Ok(None);
        }
        self.tree.blocks.pmem.fence();
        self.tree.unfenced = false;
        Ok(Some(Outcome::Done))
    }

    /// The first run at or behind a file block: data, hole or unwritten. `None` beyond the end of
    /// the file. A run may be cut short: data ends at latest with its leaf, a hole with the node
    /// that would lead to what is missing. So a file is looked through in as many calls as it has
    /// nodes, twice at most.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::IsDirectory`], or a [media error](Error#media-errors).
    pub fn extent(&self, ino: Ino, from: FileBlock) -> Result<Option<Extent>> {
        let end = self.readable_size(ino)?.div_ceil(BLOCK_SIZE);
        if from.0 >= end {
            return Ok(None);
        }
        let (path, root) = self.tree.leaf_path(ino, from)?;
        let hole = |blocks: u64| {
            let blocks = blocks.min(end - from.0);
            let (shared, unwritten, bad) = (false, false, false);
            Ok(Some(Extent { start: from, blocks, at: None, shared, unwritten, bad }))
        };
        if height_for(from) > root.height {
            return hole(end);
        }
        if let Some(missing) = path.iter().position(|step| step.block().is_none()) {
            let level = path.len() - missing;
            let span = 512u64.pow(level as u32);
            let mut blocks = span - from.0 % span;
            // What the node above has no entries for either.
            if let Some(above) = path[..missing].last()
                && let (Content::Node(_), Some(node)) = (above.content, above.block())
            {
                let mut index = above.index + 1;
                // What cannot be read is for the call that begins there.
                while index < 512 && self.tree.follow(node, above.content, index) == Ok(None) {
                    blocks += span;
                    index += 1;
                }
            }
            return hole(blocks);
        }
        let exclusive = self.tree.exclusive_steps(&path)? == path.len();
        // Nothing is missing: without a leaf the inode refers to the only block.
        let leaf = path.last().filter(|_| root.height > 0).and_then(|step| step.block());
        let look = |block: u64| -> Result<(Option<Pointer>, bool, bool)> {
            let pointer = match leaf {
                Some(leaf) => self.tree.entry_in(leaf, FileBlock(block))?,
                None => root.top.filter(|_| block == 0),
            };
            let shared = match pointer {
                Some(p) => !exclusive || self.tree.blocks.count(p.block)? != 1,
                None => false,
            };
            let content = pointer.filter(|p| !p.unwritten);
            Ok((pointer, shared, content.is_some_and(|p| self.tree.blocks.is_bad(p.block))))
        };
        let (first, shared, bad) = look(from.0)?;
        let most = (512 - from.0 % 512).min(end - from.0);
        let mut blocks = 1;
        while blocks < most
            && look(from.0 + blocks)? == (first.map(|p| p.behind(blocks)), shared, bad)
        {
            blocks += 1;
        }
        let (at, unwritten) = (first.map(|p| p.block), first.is_some_and(|p| p.unwritten));
        Ok(Some(Extent { start: from, blocks, at, shared, unwritten, bad }))
    }
}
