//! Writing to files.
//!
//! A write goes leaf by leaf. Below a leaf, blocks that are the file's own are overwritten in
//! place; all others are given new blocks, in runs that are filled at once, and one publication
//! makes all their entries refer to them:
//!
//! ```text
//!   leaf          [ own | shared | shared | hole ]
//!   write            |      \________|______/
//!                in place          new blocks, flush, FENCE, three words, flush, FENCE
//! ```
//!
//! A block of the file's own that is unwritten is filled where it is, as a new one would be, and
//! its word is published with those of the new blocks: it loses its mark. So what was provided once
//! can be written when the volume is full.

use super::Volume;
use super::budget::NODE_BLOCKS;
use super::source::{Piece, Source};
use crate::blocks::{Content, Fresh, Lending, Purpose, Retire};
use crate::error::{Error, Result};
use crate::format::inode;
use crate::format::word::{NOTHING, Pointer, Root};
use crate::memory::{push_within, put_back};
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::leaf_cache::Leaf;
use crate::tree::path::Path;
use crate::tree::shape::index_at;
use crate::tree::stage::{Exclusive, Place, Stage, Written};
use crate::types::*;
use crate::windows::mmu::{Mmu, PAGES_PER_SLOT};
use alloc::vec::Vec;
use core::ops::Range;

/// Bytes that one leaf node maps.
const LEAF_SIZE: u64 = BLOCK_SIZE * PAGES_PER_SLOT as u64;

/// In the place of an entry whose block is still to be allocated: a write makes no holes.
const TO_COME: u64 = NOTHING;

/// Where the entries of a piece are.
enum LeafAccess<'a> {
    /// In a leaf node that is the file's own: words are stored in place.
    Own(Block),
    /// Below nodes that are shared or missing, or in the inode: words are committed. `exclusive`:
    /// what there is of the path is.
    Path { path: &'a Path, root: Root, exclusive: bool },
}

impl LeafAccess<'_> {
    /// Whether blocks below may be the file's own.
    #[inline(always)]
    fn is_exclusive(&self) -> bool {
        match *self {
            LeafAccess::Own(_) => true,
            LeafAccess::Path { exclusive, .. } => exclusive,
        }
    }
}

/// A piece on its way: it lies below one leaf.
struct Writing<'a> {
    ino: Ino,
    offset: u64,
    source: Source<'a>,
    /// What is known of the leaf, while it holds.
    known: &'a Leaf,
    access: LeafAccess<'a>,
}

impl Writing<'_> {
    /// Number of the first file block that the leaf maps.
    fn base(&self) -> u64 {
        self.offset / LEAF_SIZE * PAGES_PER_SLOT as u64
    }

    /// The block that a file block was received into, if it was into one that is lent.
    #[inline]
    fn received_in(&self, block: u64) -> Option<Block> {
        match self.source {
            Source::Received(_, Block(first)) => {
                Some(Block(first + (block - self.offset / BLOCK_SIZE)))
            }
            _ => None,
        }
    }

    /// File blocks from the first to the last whose word changes. What lies between was written as
    /// a whole.
    fn replaced(&self, words: &[(u16, u64)]) -> Range<u64> {
        match (&self.access, words) {
            (LeafAccess::Path { path, .. }, _)
                if path.last().is_none_or(|step| step.content != Content::Node(1)) =>
            {
                0..1
            }
            (_, [first, .., last]) => {
                self.base() + u64::from(first.0)..self.base() + u64::from(last.0) + 1
            }
            (_, [one]) => self.base() + u64::from(one.0)..self.base() + u64::from(one.0) + 1,
            (_, []) => 0..0,
        }
    }
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Writes; extends the file where needed. What had to be allocated or copied is
    /// durable at return, overwrites in place after [`Volume::sync`]. Returns fewer bytes
    /// than given only if space ran out midway.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::TooLarge`], [`Error::NoSpace`] if not
    /// even the first block fits, or a [media error](Error#media-errors).
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8], now: Time) -> Result<usize> {
        self.write_source(ino, offset, Source::Bytes([bytes, &[]]), now)
    }

    /// Writes two pieces, one behind the other, as [`Volume::write`] writes one. Each piece is
    /// stored by itself, so the seam must not be within an aligned word of the file, of which
    /// nobody ever sees a half.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the seam is within a word, and as [`Volume::write`].
    pub fn write_parts(
        &mut self,
        ino: Ino,
        offset: u64,
        parts: [&[u8]; 2],
        now: Time,
    ) -> Result<usize> {
        let seam = offset.wrapping_add(parts[0].len() as u64);
        if !parts[1].is_empty() && !seam.is_multiple_of(8) {
            return Err(Error::Invalid("the seam of a write is within a word"));
        }
        self.write_source(ino, offset, Source::Bytes(parts), now)
    }

    /// As [`Volume::write`], from `offset` on, the start of a block. The bytes lie in blocks that
    /// are [lent](Volume::lend), from the start of `blocks` on: where the file needs new blocks for
    /// whole ones of them, it takes those over, and nothing is copied.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if `offset` is within a block or the blocks are not lent, and as
    /// [`Volume::write`].
    pub fn write_received(
        &mut self,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
        blocks: Block,
        now: Time,
    ) -> Result<usize> {
        if !offset.is_multiple_of(BLOCK_SIZE) {
            return Err(Error::Invalid("received blocks are for whole blocks of a file"));
        }
        let whole = bytes.len() - bytes.len() % BLOCK_SIZE as usize;
        let done =
            self.write_source(ino, offset, Source::Received(&bytes[..whole], blocks), now)?;
        if done < whole || whole == bytes.len() {
            return Ok(done);
        }
        match self.write(ino, offset + whole as u64, &bytes[whole..], now) {
            Err(_) if done > 0 => Ok(done),
            rest => rest.map(|rest| done + rest),
        }
    }

    /// Lends [`LENT_RUN`](crate::blocks::LENT_RUN) free blocks that follow each other to a device
    /// that receives into them: [`Volume::write_received`] takes them over. They count as free, but
    /// nothing else gets them until they are [taken back](Volume::take_back). `None`: receive
    /// elsewhere.
    pub fn lend(&mut self) -> Option<Block> {
        self.tree.blocks.lend()
    }

    /// What is lent, and what became of it.
    pub fn lending(&self) -> Lending {
        self.tree.blocks.lending()
    }

    /// Takes back a run that was lent, which the device has no more: what no file has taken over is
    /// free again.
    pub fn take_back(&mut self, run: Block) {
        self.tree.blocks.take_back(run);
    }

    #[inline(always)]
    fn write_source(
        &mut self,
        ino: Ino,
        offset: u64,
        source: Source<'_>,
        now: Time,
    ) -> Result<usize> {
        let len = source.len();
        let end =
            offset.checked_add(len).filter(|&end| end <= MAX_FILE_SIZE).ok_or(Error::TooLarge)?;
        let known = self.tree.leaf_above(ino, FileBlock(offset / BLOCK_SIZE))?;
        let mut size = self.file_size_in(known.inodes, ino)?;
        if len == 0 {
            return Ok(0);
        }
        if end > size {
            self.prepare_extension(ino, size, offset)?;
        }
        let mut done = 0;
        let mut most = LEAF_SIZE;
        while done < len {
            let at = offset + done;
            let piece = (LEAF_SIZE - at % LEAF_SIZE).min(most - at % BLOCK_SIZE).min(end - at);
            let raise = (at + piece > size).then_some(at + piece);
            match self.write_piece(ino, at, source.cut(done, done + piece), raise) {
                Ok(()) => {}
                // What fits still goes in, block by block.
                Err(Error::NoSpace) if most > BLOCK_SIZE => {
                    most = BLOCK_SIZE;
                    continue;
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
            size = size.max(at + piece);
            done += piece;
        }
        // A leaf that was copied moved no inode.
        let known = match self.tree.is_valid(&known) {
            true => known,
            false => self.tree.leaf_above(ino, FileBlock(offset / BLOCK_SIZE))?,
        };
        self.touch_in(known, ino, [inode::MTIME, inode::CTIME], now)?;
        Ok(done as usize)
    }

    /// Writes a piece that lies below one leaf, and raises the size.
    pub(super) fn write_piece(
        &mut self,
        ino: Ino,
        offset: u64,
        source: Source<'_>,
        raise: Option<u64>,
    ) -> Result<()> {
        let len = source.len();
        let (first, last) = (offset / BLOCK_SIZE, (offset + len - 1) / BLOCK_SIZE);
        if first == last && raise.is_none() && self.overwrite(ino, offset, &source)? {
            return Ok(());
        }
        // Without space, a block that is the file's own can still be overwritten.
        let new = if matches!(source, Source::Received(..)) { 0 } else { last - first + 1 };
        let full = match self.tree.blocks.ensure(new, NODE_BLOCKS, Purpose::Grow) {
            Err(Error::NoSpace) if first == last => true,
            result => result.map(|()| false)?,
        };
        let leaf = self.tree.leaf_above(ino, FileBlock(last))?;
        let found;
        let access = match leaf.own() {
            Some(node) => LeafAccess::Own(node),
            None => {
                found = self.tree.leaf_path(ino, FileBlock(last))?;
                let (path, root) = &found;
                let existing = path.iter().take_while(|step| step.block().is_some()).count();
                let exclusive = self.tree.exclusive_steps(path)? == existing;
                LeafAccess::Path { path, root: *root, exclusive }
            }
        };
        let mut words = core::mem::take(&mut self.tree.words);
        words.clear();
        let mut retired = core::mem::take(&mut self.tree.retired);
        let writing = Writing { ino, offset, source, known: &leaf, access };
        let mut stage = self.tree.stage();
        let staged = self.fill_stage(&mut stage, |volume, stage| {
            volume.stage_piece(&writing, stage, &mut words, &mut retired, full)
        });
        let result = match staged {
            Ok(()) => self.publish_piece(&writing, stage, &words, retired, raise),
            Err(error) => {
                retired.clear();
                self.tree.retired = retired;
                Err(error)
            }
        };
        put_back(&mut self.tree.words, words);
        if raise.is_some() && result.is_err() {
            self.tree.files.forget_clean_tail(FileKey(ino));
        }
        result
    }

    /// Overwrites a part of one block, if that is the file's own and has content: the short way for
    /// what databases and virtual machines do most. False: it has to be staged.
    #[inline(always)]
    fn overwrite(&mut self, ino: Ino, offset: u64, source: &Source<'_>) -> Result<bool> {
        let Source::Bytes([bytes, []]) = *source else { return Ok(false) };
        let file_block = FileBlock(offset / BLOCK_SIZE);
        let leaf = self.tree.leaf_above(ino, file_block)?;
        let Some(node) = leaf.own() else { return Ok(false) };
        let block = match self.tree.entry_in(node, file_block)? {
            Some(Pointer { block, unwritten: false }) if !self.tree.blocks.is_bad(block) => block,
            _ => return Ok(false),
        };
        let Place::Exclusive(own) = self.tree.place_below(&leaf, block)? else { return Ok(false) };
        own.overwrite(offset % BLOCK_SIZE, bytes);
        self.tree.changes += 1;
        self.tree.unfenced = true;
        Ok(true)
    }

    /// A block of the piece, if it is the file's own.
    #[inline(always)]
    fn own_block(
        &mut self,
        writing: &Writing<'_>,
        block: Block,
    ) -> Result<Option<Exclusive<'_, P>>> {
        if !writing.access.is_exclusive() || self.tree.blocks.is_bad(block) {
            return Ok(None);
        }
        Ok(match self.tree.place_below(writing.known, block)? {
            Place::Exclusive(own) => Some(own),
            Place::Shared(_) => None,
        })
    }

    /// The entry of a block of the piece.
    #[inline]
    fn entry_of(&self, writing: &Writing<'_>, block: FileBlock) -> Result<Option<Pointer>> {
        match &writing.access {
            LeafAccess::Own(node) => self.tree.entry_in(*node, block),
            LeafAccess::Path { path, root, .. } => self.entry_on(path, *root, block),
        }
    }

    /// Entry of a block as the path to its leaf, or to its inode, has it.
    fn entry_on(&self, path: &Path, root: Root, block: FileBlock) -> Result<Option<Pointer>> {
        let Some(last) = path.last() else { return Ok(None) };
        match (last.content, last.block()) {
            (Content::Node(_), Some(leaf)) => Ok(self
                .tree
                .follow(leaf, Content::Node(1), index_at(block, 1))?
                .map(|(pointer, _)| pointer)),
            // The tree grows: its only block so far is the first one.
            (Content::Node(_), None) => Ok(last
                .spine()
                .filter(|&(_, height)| height == 0 && block.0 == 0)
                .map(|(pointer, _)| pointer)),
            _ => Ok(root.top.filter(|_| root.height == 0 && block.0 == 0)),
        }
    }

    /// Overwrites what is the file's own, and fills what of that is unwritten; fills new blocks for
    /// all else (unless the volume is `full`). The entries that change are then in `words`, and
    /// what they replace in a leaf of the file's own in `retired`.
    fn stage_piece(
        &mut self,
        writing: &Writing<'_>,
        stage: &mut Stage<Written>,
        words: &mut Vec<(u16, u64)>,
        retired: &mut Vec<Retire>,
        full: bool,
    ) -> Result<()> {
        let end = writing.offset + writing.source.len();
        let only_zeros = matches!(writing.source, Source::Zeros(_));
        let provides = matches!(writing.source, Source::AllocatedZeros(_));
        for block in writing.offset / BLOCK_SIZE..end.div_ceil(BLOCK_SIZE) {
            let old = self.entry_of(writing, FileBlock(block))?;
            match old.filter(|pointer| !pointer.unwritten && !provides) {
                // It was taken over by an attempt that then failed for something else.
                Some(pointer) if writing.received_in(block) == Some(pointer.block) => continue,
                Some(pointer) => {
                    if let Some(own) = self.own_block(writing, pointer.block)? {
                        let piece = Piece::of_blocks(block, 1, writing.offset, end);
                        writing.source.overwrite(stage, own, piece);
                        continue;
                    }
                }
                None if only_zeros => continue,
                None => {
                    if let Some(old) = old
                        && self.convert_own(writing, stage, words, block, old)?
                    {
                        continue;
                    }
                }
            }
            push_within(words, (index_at(FileBlock(block), 1), TO_COME));
            if let (LeafAccess::Own(_), Some(old)) = (&writing.access, old) {
                push_within(retired, Retire::Drop(old.block, Content::Data));
            }
        }
        if full && words.iter().any(|&(_, word)| word == TO_COME) {
            return Err(Error::NoSpace);
        }
        let mut done = 0;
        while let Some(&(index, word)) = words.get(done) {
            if word != TO_COME {
                done += 1;
                continue;
            }
            // Entries that follow each other, for as long as free blocks do.
            let follow = words[done..]
                .iter()
                .zip(index..)
                .take_while(|&(&w, at)| w == (at, TO_COME))
                .count();
            let first = writing.base() + u64::from(index);
            let received = writing.received_in(first);
            let new = match received {
                Some(block) if self.tree.blocks.first_bad(block, follow as u64).is_none() => {
                    let run = self.tree.blocks.received(block, follow as u64)?;
                    stage.receive(&mut self.tree.blocks.pmem, &run);
                    run
                }
                _ => {
                    let run =
                        stage.allocate_run(&mut self.tree.blocks, follow as u64, Purpose::Grow)?;
                    if !provides {
                        self.fill_run(writing, stage, &run, first)?;
                    }
                    run
                }
            };
            for (at, block) in (first..).zip(new.blocks()) {
                let pointer = Pointer { block, unwritten: provides };
                words[done] = self.entry_word(writing, at, pointer);
                done += 1;
            }
        }
        Ok(())
    }

    /// Fills a block that is the file's own and unwritten, or marks one where zeros are provided;
    /// its word is then in `words`, if that changes. False: the block is not the file's own.
    #[cold]
    #[inline(never)]
    fn convert_own(
        &mut self,
        writing: &Writing<'_>,
        stage: &mut Stage<Written>,
        words: &mut Vec<(u16, u64)>,
        block: u64,
        old: Pointer,
    ) -> Result<bool> {
        let Some(own) = self.own_block(writing, old.block)? else { return Ok(false) };
        let pointer = match writing.source.bytes() {
            Some(bytes) => {
                let end = writing.offset + writing.source.len();
                let piece = Piece::of_blocks(block, 1, writing.offset, end);
                own.into_unwritten().fill(stage, piece.of(bytes))
            }
            // Its content is not looked at any more, so it need not be zeros.
            None if !old.unwritten => Pointer::unwritten(old.block),
            None => return Ok(true),
        };
        push_within(words, self.entry_word(writing, block, pointer));
        Ok(true)
    }

    /// The word that makes a file block of the piece refer to `pointer`, and its index.
    #[inline]
    fn entry_word(&self, writing: &Writing<'_>, block: u64, pointer: Pointer) -> (u16, u64) {
        match &writing.access {
            LeafAccess::Own(_) => (index_at(FileBlock(block), 1), pointer.value()),
            LeafAccess::Path { path, .. } => {
                self.tree.data_word(path, writing.ino, FileBlock(block), Some(pointer))
            }
        }
    }

    /// Fills new blocks, which become those from file block `first` on.
    fn fill_run(
        &mut self,
        writing: &Writing<'_>,
        stage: &mut Stage<Written>,
        new: &Fresh,
        first: u64,
    ) -> Result<()> {
        let end = writing.offset + writing.source.len();
        let count = new.blocks().count() as u64;
        let piece = Piece::of_blocks(first, count, writing.offset, end);
        // Whole blocks never read the old ones; what is left of a part of one does.
        let last = count - 1;
        let begins_within = piece.within > 0;
        let ends_within = piece.within + piece.len < count * BLOCK_SIZE;
        for needed in [(begins_within, 0), (ends_within && !(begins_within && last == 0), last)] {
            let (true, at) = needed else { continue };
            match self.entry_of(writing, FileBlock(first + at))?.filter(|old| !old.unwritten) {
                Some(old) => {
                    self.tree.blocks.verify_readable(old.block, 1)?;
                    stage.copy_block(&mut self.tree.blocks.pmem, old.block, &new.part(at))?
                }
                None => stage.zero(&mut self.tree.blocks.pmem, new, at * BLOCK_SIZE, BLOCK_SIZE),
            }
        }
        writing.source.fill(stage, &mut self.tree.blocks.pmem, new, piece);
        Ok(())
    }

    fn publish_piece(
        &mut self,
        writing: &Writing<'_>,
        mut stage: Stage<Written>,
        words: &[(u16, u64)],
        retired: Vec<Retire>,
        raise: Option<u64>,
    ) -> Result<()> {
        let ino = writing.ino;
        if words.is_empty() {
            self.tree.retired = retired;
        } else {
            let done = match &writing.access {
                LeafAccess::Own(node) => {
                    let leaf = (*node, Content::Node(1));
                    self.tree.publish_in_place(stage, writing.known, leaf, words, retired)?
                }
                LeafAccess::Path { path, .. } => {
                    self.tree.retired = retired;
                    self.tree.commit(stage, &[Edit::independent(path, words)], Purpose::Grow)?
                }
            };
            // Only what was replaced: pages of blocks that stay may hold stores that are not
            // flushed yet.
            let replaced = writing.replaced(words);
            let unmapped =
                self.dax.unmap(&mut self.tree.blocks, FileKey(ino), replaced.start, replaced.end);
            self.tree.release_shown(done, unmapped)?;
            stage = self.tree.stage();
        }
        match raise {
            Some(size) => self.set_size(stage, ino, size, Purpose::Grow),
            None => {
                // Overwritten in place: durable with the next fence.
                self.tree.unfenced |= stage.is_used();
                let flushed = stage.flush(&mut self.tree.blocks.pmem);
                put_back(&mut self.tree.lists, flushed.unfenced());
                Ok(())
            }
        }
    }
}
