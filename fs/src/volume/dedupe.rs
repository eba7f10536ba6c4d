//! Dedupe: a range of one file shares the blocks of another, if both contain the same.
//!
//! ```text
//!  first pass    sync both, in steps; compare, step by step     a difference: nothing has changed
//!  second pass   2 MiB at a time, without yielding:
//!                sync both; compare, if anything was changed since; share
//! ```
//!
//! What files contain is compared, not how: holes and unwritten blocks are zeros. Blocks that
//! are shared already are not read. Between the steps anything may happen to the files; what is
//! found in the second pass to differ by then stays as it is, and what was shared before it
//! was equal when it was.

use super::Volume;
use crate::blocks::Purpose;
use crate::error::{Error, Result};
use crate::format::inode::Generation;
use crate::format::word::{Pointer, Root};
use crate::pmem::Pmem;
use crate::tree::shape::word_at;
use crate::types::*;
use crate::volume::settle::Settle;
use crate::volume::splice::Splice;
use crate::windows::mmu::{Mmu, PAGES_PER_SLOT};

/// Blocks below one leaf: what is shared at once.
const LEAF: u64 = PAGES_PER_SLOT as u64;
/// Blocks that are read in one step of the first pass.
const BLOCKS_A_STEP: u64 = 64;
/// Leaves that are looked at in one step, shared or not.
const LEAVES_A_STEP: u64 = 16;
/// Blocks that sharing a piece may need: nodes on the way to its first and its last block.
const NODE_BLOCKS: u64 = 12;

/// One of the two files, as it was at the start.
#[derive(Clone, Copy, Debug)]
struct Side {
    ino: Ino,
    /// Tells whether the number was given to another file since.
    generation: Generation,
    offset: u64,
}

/// What has to be shared, and how far it is.
#[derive(Debug)]
pub struct Dedupe {
    source: Side,
    target: Side,
    len: u64,
    /// Blocks of the range that the pass is through with.
    done: u64,
    sharing: bool,
    /// Before the first pass, and before each piece of the second one.
    settle: [Settle; 2],
    /// Both were settled for the first pass.
    begun: bool,
    /// Nothing has changed what was compared while [`Tree::changes`](crate::tree::Tree::changes) is
    /// this.
    unchanged: Option<u64>,
    shared: u64,
}

/// How a dedupe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deduped {
    /// Bytes that are shared now and were not before.
    pub shared: u64,
    /// Where in the range the first difference is, if there is any: a byte, counted from the
    /// start of the range. The files' content is not changed in any case.
    pub differs_at: Option<u64>,
}

/// Blocks that lie below one leaf in both files.
struct Run {
    /// First block in source and target, and how many.
    from: u64,
    to: u64,
    blocks: u64,
    /// The leaf nodes above them, if there are any.
    leaves: [Option<Block>; 2],
    roots: [Root; 2],
}

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Starts a dedupe of `len` bytes. Offsets are multiples of 4096; so is `len`, unless the
    /// range ends at the end of both files. Nothing has changed until the steps are taken.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the range does not fit the files or overlaps itself,
    /// [`Error::TooLarge`], [`Error::NotFound`], [`Error::IsDirectory`], or a [media
    /// error](Error#media-errors).
    pub fn dedupe(
        &mut self,
        src: Ino,
        src_offset: u64,
        dst: Ino,
        dst_offset: u64,
        len: u64,
    ) -> Result<Dedupe> {
        let source = Side { ino: src, generation: self.generation(src)?, offset: src_offset };
        let target = Side { ino: dst, generation: self.generation(dst)?, offset: dst_offset };
        let settle = [src, dst].map(Settle::stores);
        let (done, shared) = (0, 0);
        let work = Dedupe {
            source,
            target,
            len,
            done,
            sharing: false,
            settle,
            begun: false,
            unchanged: None,
            shared,
        };
        self.verify_range(&work)?;
        Ok(work)
    }

    /// Takes one bounded step. The result is there with the last one.
    ///
    /// # Errors
    ///
    /// As [`Volume::dedupe`], because files may have changed, and [`Error::NoSpace`]. The dedupe is
    /// over then; what was shared before stays shared.
    pub fn dedupe_step(&mut self, work: &mut Dedupe) -> Result<Option<Deduped>> {
        let result = self.dedupe_on(work);
        if !matches!(result, Ok(None)) {
            self.abandon_dedupe(work);
        }
        result
    }

    /// Gives up a dedupe that is not finished. What was shared so far stays so.
    pub fn abandon_dedupe(&mut self, work: &mut Dedupe) {
        for settle in &mut work.settle {
            self.unpark(settle);
        }
    }

    fn dedupe_on(&mut self, work: &mut Dedupe) -> Result<Option<Deduped>> {
        self.verify_range(work)?;
        if !work.begun {
            if !self.settle_both(work)? {
                return Ok(None);
            }
            work.begun = true;
            work.unchanged = Some(self.tree.changes);
        }
        if work.sharing { self.share_piece(work) } else { self.compare_some(work) }
    }

    /// Verifies the range: files may have changed since the last step.
    fn verify_range(&self, work: &Dedupe) -> Result<()> {
        let mut sizes = [0; 2];
        for (size, side) in sizes.iter_mut().zip([work.source, work.target]) {
            let attributes = self.attributes(side.ino)?;
            if self.generation(side.ino)? != side.generation {
                return Err(Error::NotFound);
            }
            match attributes.kind {
                Kind::File => *size = attributes.size,
                Kind::Directory => return Err(Error::IsDirectory),
                Kind::Symlink => return Err(Error::Invalid("is a symbolic link")),
            }
        }
        let (from, to, len) = (work.source.offset, work.target.offset, work.len);
        let ends = [from, to].map(|at| at.checked_add(len));
        let [Some(src_end), Some(dst_end)] = ends else { return Err(Error::TooLarge) };
        if !from.is_multiple_of(BLOCK_SIZE) || !to.is_multiple_of(BLOCK_SIZE) {
            return Err(Error::Invalid("offsets of a dedupe must be multiples of 4096"));
        }
        if src_end > sizes[0] {
            return Err(Error::Invalid("the range ends beyond the end of the source"));
        }
        if dst_end > sizes[1] {
            return Err(Error::Invalid("the range ends beyond the end of the target"));
        }
        if !len.is_multiple_of(BLOCK_SIZE) && [src_end, dst_end] != sizes {
            return Err(Error::Invalid("a length that is no multiple of 4096 must end both files"));
        }
        let round = len.next_multiple_of(BLOCK_SIZE);
        if work.source.ino == work.target.ino && from < to + round && to < from + round {
            return Err(Error::Invalid("source and target ranges overlap"));
        }
        Ok(())
    }

    /// No translation of the two files is writable, and what they contain is durable: also where
    /// nothing is shared in the end. False: that takes more steps.
    fn settle_both(&mut self, work: &mut Dedupe) -> Result<bool> {
        let [source, target] = &mut work.settle;
        if !self.settle(source)? || !self.settle(target)? {
            return Ok(false);
        }
        self.abandon_dedupe(work);
        work.settle = [work.source.ino, work.target.ino].map(Settle::stores);
        self.tree.fence_overwrites();
        Ok(true)
    }

    /// The next run behind what is done; it ends with a leaf of either file.
    fn run(&self, work: &Dedupe, done: u64, most: u64) -> Result<Run> {
        let from = work.source.offset / BLOCK_SIZE + done;
        let to = work.target.offset / BLOCK_SIZE + done;
        let blocks = most.min(LEAF - from % LEAF).min(LEAF - to % LEAF);
        let roots =
            [self.tree.inode_path(work.source.ino)?.1, self.tree.inode_path(work.target.ino)?.1];
        let leaves =
            [self.tree.leaf(roots[0], FileBlock(from))?, self.tree.leaf(roots[1], FileBlock(to))?];
        Ok(Run { from, to, blocks, leaves, roots })
    }

    /// What is at a block of the run, in source and target.
    fn pair(&self, run: &Run, at: u64) -> Result<[Option<Pointer>; 2]> {
        let mut pair = [None; 2];
        for (side, block) in [run.from + at, run.to + at].map(FileBlock).into_iter().enumerate() {
            pair[side] = match run.leaves[side] {
                Some(leaf) => self.tree.entry_in(leaf, block)?,
                None => run.roots[side].top.filter(|_| run.roots[side].height == 0 && block.0 == 0),
            };
        }
        Ok(pair)
    }

    /// Whether source and target refer to different things at a block of the run, whose words are
    /// known to be whole.
    fn differs(&self, run: &Run, at: u64) -> Result<bool> {
        if let [Some(a), Some(b)] = run.leaves {
            return Ok(self.tree.entry_in(a, FileBlock(run.from + at))?
                != self.tree.entry_in(b, FileBlock(run.to + at))?);
        }
        let [a, b] = self.pair(run, at)?;
        Ok(a != b)
    }

    /// Whether all of a run is shared, or missing in both, as its nodes tell.
    fn alike(run: &Run) -> bool {
        let same_place = run.from % LEAF == run.to % LEAF;
        match run.leaves {
            [Some(a), Some(b)] => a == b && same_place,
            [None, None] => [0, 1].iter().all(|&side| {
                let Root { height, top, .. } = run.roots[side];
                let first = [run.from, run.to][side];
                top.is_none() || height > 0 || first > 0
            }),
            _ => false,
        }
    }

    /// Compares blocks of a run, `len` bytes: `Ok(None)` if they are equal, else where the first
    /// difference is. What lies side by side in both files is compared at once.
    fn difference(&self, run: &Run, len: u64) -> Result<Option<u64>> {
        let mut at = 0;
        let mut next = self.pair(run, 0)?;
        while at < run.blocks {
            let (begin, pair) = (at, next);
            loop {
                at += 1;
                if at == run.blocks {
                    break;
                }
                next = self.pair(run, at)?;
                if next != pair.map(|p| p.map(|p| p.behind(at - begin))) {
                    break;
                }
            }
            let place =
                |p: Option<Pointer>| p.filter(|p| !p.unwritten).map(|p| word_at(p.block, 0));
            let piece = (at * BLOCK_SIZE).min(len) - begin * BLOCK_SIZE;
            let places = pair.map(place);
            if places[0] == places[1] {
                continue;
            }
            for read in pair.into_iter().flatten().filter(|p| !p.unwritten) {
                self.tree.blocks.verify_readable(read.block, at - begin)?;
            }
            let pmem = &self.tree.blocks.pmem;
            let found = match places {
                [Some(a), Some(b)] => pmem.first_difference(a, b, piece)?,
                [Some(a), None] | [None, Some(a)] => pmem.first_nonzero(a, piece)?,
                [None, None] => None,
            };
            if let Some(byte) = found {
                return Ok(Some(begin * BLOCK_SIZE + byte));
            }
        }
        Ok(None)
    }

    /// Bytes of `blocks` blocks of the range from block `first` on: fewer than whole blocks only at
    /// the end of both files.
    fn length_of(work: &Dedupe, first: u64, blocks: u64) -> u64 {
        (work.len - first * BLOCK_SIZE).min(blocks * BLOCK_SIZE)
    }

    /// A step of the first pass.
    fn compare_some(&mut self, work: &mut Dedupe) -> Result<Option<Deduped>> {
        let blocks = work.len.div_ceil(BLOCK_SIZE);
        let (mut read, mut leaves) = (0, 0);
        while work.done < blocks && read < BLOCKS_A_STEP && leaves < LEAVES_A_STEP {
            leaves += 1;
            let run = self.run(work, work.done, (blocks - work.done).min(BLOCKS_A_STEP - read))?;
            if Self::alike(&run) {
                // The rest of the leaf is alike too.
                work.done += self.run(work, work.done, blocks - work.done)?.blocks;
                continue;
            }
            if let Some(byte) =
                self.difference(&run, Self::length_of(work, work.done, run.blocks))?
            {
                return Ok(Some(Deduped {
                    shared: 0,
                    differs_at: Some(work.done * BLOCK_SIZE + byte),
                }));
            }
            work.done += run.blocks;
            read += run.blocks;
        }
        if work.done == blocks {
            (work.done, work.sharing) = (0, true);
        }
        Ok(None)
    }

    /// A step of the second pass: what lies below one leaf of the target, at once.
    fn share_piece(&mut self, work: &mut Dedupe) -> Result<Option<Deduped>> {
        let blocks = work.len.div_ceil(BLOCK_SIZE);
        let to = work.target.offset / BLOCK_SIZE + work.done;
        let piece = (blocks - work.done).min(LEAF - to % LEAF);
        if !self.settle_both(work)? {
            return Ok(None);
        }
        let compare = work.unchanged != Some(self.tree.changes);
        if compare {
            work.unchanged = None;
        }
        let (mut at, mut differing) = (0, 0);
        while at < piece {
            let run = self.run(work, work.done + at, piece - at)?;
            at += run.blocks;
            if Self::alike(&run) {
                continue;
            }
            let first = work.done + at - run.blocks;
            if compare
                && let Some(byte) =
                    self.difference(&run, Self::length_of(work, first, run.blocks))?
            {
                let differs_at = Some(first * BLOCK_SIZE + byte);
                return Ok(Some(Deduped { shared: work.shared, differs_at }));
            }
            for i in 0..run.blocks {
                differing +=
                    if self.differs(&run, i)? { Self::length_of(work, first + i, 1) } else { 0 };
            }
        }
        if differing > 0 {
            self.tree.blocks.ensure(0, NODE_BLOCKS, Purpose::Grow)?;
            let (_, source) = self.tree.inode_path(work.source.ino)?;
            let from = work.source.offset / BLOCK_SIZE + work.done;
            self.publish_splice(
                work.target.ino,
                &Splice { file: work.source.ino, source, from, to, blocks: piece },
                None,
            )?;
            self.reclaim_some()?;
            work.unchanged = work.unchanged.map(|_| self.tree.changes);
            work.shared += differing;
        }
        work.done += piece;
        let ended = work.done == blocks;
        Ok(ended.then_some(Deduped { shared: work.shared, differs_at: None }))
    }
}
