//! Clones of ranges.
//!
//! A range of few subtrees is [spliced](super::splice) into the target at once. Where source and
//! target lie so that many would have to be shared one by one, that is prepared in steps:
//!
//! ```text
//!  freeze    the source, as it is now: a clone of it without a name
//!  prepare   another file without a name: the range, where it is to be in the target; step by
//!            step it shares what the frozen one has
//!  publish   the prepared range is spliced into the target: it lies just so, and only the nodes
//!            along its edges are new
//! ```
//!
//! What is prepared belongs to a file without a name: it is counted and checked as any other, and
//! recovery frees it.

use super::Volume;
use super::budget::NODE_BLOCKS;
use super::settle::Settle;
use super::splice::Splice;
use super::work::{Begun, Held, Nameless, Outcome, RangeClone, RangeProgress, Work};
use crate::blocks::{Content, Purpose};
use crate::error::{Error, Result};
use crate::format::inode::{self, NewInode, ROOT_INO};
use crate::format::word::{Pointer, Root};
use crate::memory::{Boxed, push_within};
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::scan::Found;
use crate::tree::shape::{height_for, index_at};
use crate::types::*;
use crate::windows::mmu::Mmu;

/// What a node of the target costs, whose 512 entries are looked at one by one, counted in entries
/// that are shared.
const NODE_COST: u64 = 32;
/// What a commit costs beside the entries that it shares, counted in entries.
const COMMIT_COST: u64 = 64;
/// Levels of nodes that a tree may have.
const MOST_LEVELS: u8 = 3;

impl RangeClone {
    fn blocks(&self) -> u64 {
        self.len.div_ceil(BLOCK_SIZE)
    }

    /// The range, from the same place of another file.
    fn splice(&self, file: Ino, source: Root, from: u64) -> Splice {
        let (from, to) = (from / BLOCK_SIZE, self.to / BLOCK_SIZE);
        Splice { file, source, from, to, blocks: self.blocks() }
    }
}

fn overlap(a: u64, b: u64, len: u64) -> bool {
    a < b + len && b < a + len
}

/// Blocks of a subtree.
fn span(level: u8) -> u64 {
    512u64.pow(u32::from(level))
}

/// The largest level whose subtrees lie alike in source and target.
fn aligned_level(splice: &Splice) -> u8 {
    let by = splice.from.abs_diff(splice.to);
    (1..=MOST_LEVELS.min(splice.source.height))
        .rev()
        .find(|&level| by.is_multiple_of(span(level)))
        .unwrap_or(0)
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Begins to share a range of blocks of `src` into `dst`. Offsets are multiples of 4096;
    /// so is `len`, unless the range ends at the end of `src` and at or beyond that of
    /// `dst`. Atomic, and durable at the end; what it shows of `src` is of one moment.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the range does not fit the files or overlaps itself,
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::NoMemory`], [`Error::NotFound`],
    /// [`Error::IsDirectory`], or a [media error](Error#media-errors). Nothing has changed then.
    pub fn begin_clone_range(
        &mut self,
        src: Ino,
        from: u64,
        dst: Ino,
        to: u64,
        len: u64,
        now: Time,
    ) -> Result<Begun> {
        let end = to.saturating_add(len).div_ceil(BLOCK_SIZE);
        let settle = [Settle::stores(src), Settle::stores(dst).hides(to / BLOCK_SIZE..end)];
        let (src, dst) = (Held::new(src), Held::new(dst));
        let mut work =
            RangeClone { src, dst, from, to, len, now, settle, way: RangeProgress::Begun };
        match self.range_step(&mut work) {
            Ok(None) => match Boxed::vacant() {
                Ok(place) => self.go_on(Work::Range(place.fill(work))),
                Err(error) => {
                    self.give_back_range(&mut work);
                    Err(error)
                }
            },
            result => {
                self.give_back_range(&mut work);
                Ok(Begun::Over(result?.unwrap_or(Outcome::Done)))
            }
        }
    }

    /// Shares a range of blocks of `src` into `dst`: see [`Volume::begin_clone_range`].
    ///
    /// # Errors
    ///
    /// As [`Volume::begin_clone_range`].
    pub fn clone_range(
        &mut self,
        src: Ino,
        src_offset: u64,
        dst: Ino,
        dst_offset: u64,
        len: u64,
        now: Time,
    ) -> Result<()> {
        let begun = self.begin_clone_range(src, src_offset, dst, dst_offset, len, now)?;
        self.finish(begun).map(drop)
    }

    pub(super) fn range_step(&mut self, work: &mut RangeClone) -> Result<Option<Outcome>> {
        let dst_size = self.verify_clone(work)?;
        if work.len == 0 {
            return Ok(Some(Outcome::Done));
        }
        match work.way {
            RangeProgress::Begun => {
                // Both in one step: none becomes writable while the other one is looked at.
                let [source, target] = &mut work.settle;
                if !self.settle(source)? || !self.settle(target)? {
                    return Ok(None);
                }
                let (_, source) = self.tree.inode_path(work.src.ino)?;
                let splice = work.splice(work.src.ino, source, work.from);
                if self.is_small(&splice)? {
                    return self.publish_range(work, work.src.ino, work.from, dst_size);
                }
                let [source, target] = &mut work.settle;
                self.unpark(source);
                self.unpark(target);
                *target = Settle::stores(work.dst.ino).hides(splice.to..splice.to + splice.blocks);
                self.begin_preparing(work)?;
                Ok(None)
            }
            RangeProgress::Preparing { frozen, prepared, mut done } => {
                let (_, source) = self.tree.inode_path(frozen.0)?;
                let all =
                    self.prepare(&work.splice(frozen.0, source, work.from), prepared.0, &mut done)?;
                work.way = if all {
                    // It is shared by what is prepared.
                    let _ = self.close_window(frozen.1);
                    RangeProgress::Prepared(prepared)
                } else {
                    RangeProgress::Preparing { frozen, prepared, done }
                };
                Ok(None)
            }
            RangeProgress::Prepared((ino, _)) => {
                if !self.settle(&mut work.settle[1])? {
                    return Ok(None);
                }
                self.publish_range(work, ino, work.to, dst_size)
            }
        }
    }

    /// Verifies the arguments, which the files of this moment have to fit; the size of the target.
    fn verify_clone(&self, work: &RangeClone) -> Result<u64> {
        // Once it is frozen, the source does not matter.
        let begun = matches!(work.way, RangeProgress::Begun);
        let mut sizes = [0; 2];
        for (size, held) in sizes.iter_mut().zip([work.src, work.dst]) {
            if !begun && held == work.src && held != work.dst {
                continue;
            }
            self.verify(held)?;
            let attributes = self.attributes(held.ino)?;
            match attributes.kind {
                Kind::File => *size = attributes.size,
                Kind::Directory => return Err(Error::IsDirectory),
                Kind::Symlink => return Err(Error::Invalid("is a symbolic link")),
            }
        }
        let [src_size, dst_size] = sizes;
        let RangeClone { from, to, len, .. } = *work;
        let src_end = from.checked_add(len).ok_or(Error::TooLarge)?;
        let dst_end =
            to.checked_add(len).filter(|&end| end <= MAX_FILE_SIZE).ok_or(Error::TooLarge)?;
        if !from.is_multiple_of(BLOCK_SIZE) || !to.is_multiple_of(BLOCK_SIZE) {
            return Err(Error::Invalid("offsets of a range clone must be multiples of 4096"));
        }
        if begun && src_end > src_size {
            return Err(Error::Invalid("the range ends beyond the end of the source"));
        }
        if !len.is_multiple_of(BLOCK_SIZE) && (begun && src_end != src_size || dst_end < dst_size) {
            return Err(Error::Invalid(
                "a length that is no multiple of 4096 must end both files (or grow the target)",
            ));
        }
        if work.src.ino == work.dst.ino && overlap(from, to, len.next_multiple_of(BLOCK_SIZE)) {
            return Err(Error::Invalid("source and target ranges overlap"));
        }
        Ok(dst_size)
    }

    /// Whether so few subtrees are to be shared that it can be done at once.
    fn is_small(&self, splice: &Splice) -> Result<bool> {
        let level = aligned_level(splice);
        let mut left = self.work_a_step;
        if splice.blocks / span(level) <= left {
            return Ok(true);
        }
        let (mut at, end) = (splice.from, splice.from + splice.blocks);
        let mut allowance = 4 * self.work_a_step;
        let mut last = u64::MAX;
        while left > 0 && at < end {
            match self.tree.seek(splice.source, at, level, &mut allowance)? {
                Found::Nothing => return Ok(true),
                Found::Later(_) => return Ok(false),
                Found::At(first, _) => {
                    let is_new = |level: &u8| first / span(*level) != last / span(*level);
                    let nodes = (level + 1..=MOST_LEVELS).filter(is_new).count() as u64;
                    left = left.saturating_sub(1 + nodes * NODE_COST);
                    (at, last) = (first + span(level), first);
                }
            }
        }
        Ok(at >= end)
    }

    /// Freezes the source, which is settled, and makes the file in which the range is prepared.
    fn begin_preparing(&mut self, work: &mut RangeClone) -> Result<()> {
        let new = self.share_content(work.src.ino, work.now)?;
        let frozen = match self.open_nameless(|_| NewInode { nlink: 0, ..new }) {
            Ok(frozen) => frozen,
            Err(error) => {
                self.unshare_content(new.root);
                return Err(error);
            }
        };
        match self.open_empty_tree(work) {
            Ok(prepared) => {
                work.way = RangeProgress::Preparing { frozen, prepared, done: 0 };
                Ok(())
            }
            Err(error) => {
                let _ = self.close_window(frozen.1);
                Err(error)
            }
        }
    }

    /// A file without a name whose tree has a top already: of the height that the range needs in
    /// the target.
    fn open_empty_tree(&mut self, work: &RangeClone) -> Result<Nameless> {
        let size = work.to + work.len;
        let height = height_for(FileBlock((size - 1) / BLOCK_SIZE));
        self.tree.blocks.ensure(0, NODE_BLOCKS, Purpose::Grow)?;
        let new = NewInode::of(Kind::File, 0, work.dst.ino, ROOT_INO, work.now);
        let (ino, window) = self.open_nameless(|_| NewInode { nlink: 0, size, ..new })?;
        // Recovery follows what an inode refers to before it finds that nobody names it: the node
        // is durable before its pointer is stored.
        match self.commit_empty_top(ino, height) {
            Ok(()) => Ok((ino, window)),
            Err(error) => {
                let _ = self.close_window(window);
                Err(error)
            }
        }
    }

    /// Gives an empty file a tree of this height.
    fn commit_empty_top(&mut self, ino: Ino, height: u8) -> Result<()> {
        let (path, _) = self.tree.inode_path(ino)?;
        let mut stage = self.tree.stage();
        let top = self.fill_stage(&mut stage, |volume, stage| {
            let top = stage.allocate_pair(&mut volume.tree.blocks, Purpose::Grow)?;
            stage.write_empty(&mut volume.tree.blocks.pmem, &top, Content::Node(height));
            Ok(top)
        })?;
        let root = Root::of_file(height, Some(Pointer::to(top.block())));
        let word = [Self::root_word(ino, root)];
        self.tree.commit_and_release(stage, &[Edit::words(&path, &word)], Purpose::Grow)
    }

    /// Prepares more of a splice in a file; true if that is all. `done` blocks from its front are
    /// done.
    fn prepare(&mut self, splice: &Splice, into: Ino, done: &mut u64) -> Result<bool> {
        let best = aligned_level(splice);
        self.tree.files.changed(FileKey(splice.file));
        let mut left = self.work_a_step;
        // Passing a hole costs less than sharing an entry, but a descent needs a few.
        let mut allowance = (4 * self.work_a_step).max(u64::from(MOST_LEVELS));
        while *done < splice.blocks && left > 0 {
            let at = splice.from + *done;
            let (next, over) = match self.tree.seek(splice.source, at, 0, &mut allowance)? {
                Found::At(next, _) => (next, false),
                Found::Later(next) => (next, true),
                Found::Nothing => (u64::MAX, false),
            };
            // A subtree that begins with a hole is shared as a whole.
            let next = (next & !(span(best) - 1)).max(at);
            *done = (next - splice.from).min(splice.blocks);
            if over {
                return Ok(false);
            }
            if *done < splice.blocks {
                let (blocks, entries) = self.prepare_node(splice, into, *done, best, left)?;
                *done += blocks;
                left = left.saturating_sub(entries + COMMIT_COST);
            }
        }
        Ok(*done == splice.blocks)
    }

    /// Shares subtrees that go below one node of the prepared file, `most` at most; how many blocks
    /// of the range that is, and how many subtrees.
    fn prepare_node(
        &mut self,
        splice: &Splice,
        into: Ino,
        done: u64,
        best: u8,
        most: u64,
    ) -> Result<(u64, u64)> {
        let (at, to, left) = (splice.from + done, splice.to + done, splice.blocks - done);
        // At the edges of the range, smaller ones.
        let fits = |level: &u8| to.is_multiple_of(span(*level)) && span(*level) <= left;
        let level = (0..=best).rev().find(fits).unwrap_or(0);
        // Where larger ones can follow, they do.
        let larger = span(level + 1).saturating_sub(to % span(level + 1)) / span(level);
        let count = larger.min(left / span(level)).min(most.max(1));
        let index = index_at(FileBlock(to), level + 1);
        let mut words = core::mem::take(&mut self.tree.words);
        words.clear();
        let mut read = Ok(());
        for i in 0..count {
            match self.tree.subtree(splice.source, FileBlock(at + i * span(level)), level) {
                Ok(Some(pointer)) => {
                    let index = index + i as u16;
                    push_within(&mut words, (index, pointer.value()));
                }
                Ok(None) => {}
                Err(error) => read = Err(error),
            }
        }
        let result = read.and_then(|()| self.graft(into, FileBlock(to), level, &words));
        self.tree.words = words;
        result.map(|()| (count * span(level), count))
    }

    /// Makes entries of the node above subtrees of `level` refer to what has other references
    /// already.
    fn graft(&mut self, into: Ino, at: FileBlock, level: u8, words: &[(u16, u64)]) -> Result<()> {
        if words.is_empty() {
            return Ok(());
        }
        self.tree.blocks.ensure(0, NODE_BLOCKS, Purpose::Grow)?;
        let path = self.tree.node_path(into, at, level + 1)?;
        let content = Content::Node(level + 1);
        let target = |&(index, value): &(u16, u64)| content.reference(index, value).ok().flatten();
        let mut counted = 0;
        let mut result = Ok(());
        for (pointer, content) in words.iter().filter_map(target) {
            match self.tree.blocks.add_reference(pointer.block, content) {
                Ok(()) => counted += 1,
                Err(poisoned) => {
                    result = Err(poisoned.into());
                    break;
                }
            }
        }
        let result = result.and_then(|()| {
            let stage = self.tree.stage();
            self.tree.commit_and_release(stage, &[Edit::independent(&path, words)], Purpose::Grow)
        });
        if result.is_err() {
            for (pointer, content) in words.iter().filter_map(target).take(counted) {
                self.tree.blocks.discard(pointer.block, content);
            }
        }
        result
    }

    /// Makes a range of the target that of another file, from this place on. Both are settled.
    fn publish_range(
        &mut self,
        work: &RangeClone,
        source: Ino,
        from: u64,
        dst_size: u64,
    ) -> Result<Option<Outcome>> {
        let (dst, end) = (work.dst.ino, work.to + work.len);
        if end > dst_size {
            self.prepare_extension(dst, dst_size, work.to)?;
        }
        let (_, root) = self.tree.inode_path(source)?;
        match self.publish_splice(
            dst,
            &work.splice(source, root, from),
            (end > dst_size).then_some(end),
        ) {
            Ok(()) => {}
            // What waits to be reclaimed may do; nothing has changed.
            Err(Error::NoSpace) if self.tree.blocks.has_pending() => {
                self.reclaim_some()?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        self.reclaim_some()?;
        self.touch(dst, [inode::MTIME, inode::CTIME], work.now)?;
        Ok(Some(Outcome::Done))
    }

    /// Gives back what a clone of a range holds.
    pub(super) fn give_back_range(&mut self, work: &mut RangeClone) {
        for settle in &mut work.settle {
            self.unpark(settle);
        }
        let files = match core::mem::replace(&mut work.way, RangeProgress::Begun) {
            RangeProgress::Begun => [None, None],
            RangeProgress::Preparing { frozen, prepared, .. } => [Some(frozen), Some(prepared)],
            RangeProgress::Prepared(prepared) => [Some(prepared), None],
        };
        for (_, window) in files.into_iter().flatten() {
            // What cannot be given back now is found by recovery.
            let _ = self.close_window(window);
        }
    }
}
