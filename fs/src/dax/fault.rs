//! The page-fault handler.
//!
//! ```text
//! store to page 3 of a window            (its leaf node is exclusive already)
//!   -> what does the leaf say?           block 812, two references: shared
//!   -> allocate 990, copy 812 to it      flush, FENCE
//!   -> leaf[3] = 990                     flush, FENCE
//!   -> other windows of this position    show 990, read-only
//!   -> this page shows 990, writable     and is on the dirty list
//!   -> block 812 loses a reference
//! ```
//!
//! If a step fails, nothing has changed: the old translation stays, and the access fails.

use crate::blocks::{Content, Purpose, Retire};
use crate::error::{Error, Result};
use crate::format::word::Pointer;
use crate::memory::push_within;
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::leaf_cache::Leaf;
use crate::tree::path::Path;
use crate::tree::shape::index_at;
use crate::tree::stage::{Durable, Place, Published, Stage, Written};
use crate::types::{BLOCK_SIZE, Block, FileBlock, FileKey, Ino};
use crate::volume::Volume;
use crate::windows::Window;
use crate::windows::mmu::{Access, Frame, Mmu, PAGES_PER_SLOT, Page, Rights, Slot};

/// Blocks of metadata that one fault may need, beside the page: copies of all nodes above it.
const FAULT_BLOCKS: u64 = 9;
/// Pages that the first read fault in a slot fills, and those that follow it.
const FIRST_AROUND: u32 = 16;
const NEXT_AROUND: u32 = 512;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Gives the window a slot for the 2 MiB leaf `leaf` of its file (it may have one
    /// already), taking one from another window if none is free. The slot stays attached
    /// at least until the next call of `attach` or `close_window`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such window, [`Error::NoMemory`] if there are no slots, or
    /// a [media error](Error#media-errors) while a slot is taken away.
    pub fn attach(&mut self, window: Window, leaf: u32) -> Result<Slot> {
        self.dax.attach(&mut self.tree.blocks, window, leaf)
    }

    /// Resolves a page fault: after `Ok` the access can be tried again.
    ///
    /// # Errors
    ///
    /// [`Error::Parked`] if an operation on the file has to end before, which is no failure;
    /// [`Error::Invalid`] where no window shows anything; [`Error::NoSpace`], [`Error::Poisoned`]
    /// or [`Error::Damaged`] if a block cannot be had, copied or found.
    pub fn fault(&mut self, page: Page, access: Access) -> Result<()> {
        let result = self.handle_fault(page, access);
        if result.is_err_and(|error| error != Error::Parked) {
            self.faults.failed += 1;
        }
        result
    }

    fn handle_fault(&mut self, page: Page, access: Access) -> Result<()> {
        let slot = page.slot();
        let state = self
            .dax
            .slots
            .get(slot.0 as usize)
            .ok_or(Error::Invalid("no window is at this address"))?;
        if state.window == u32::MAX {
            return Err(Error::Invalid("no window is at this address"));
        }
        let (file, leaf) = (state.file, state.leaf);
        let FileKey(ino) = file;
        if self.dax.files.is_parked(file) {
            return Err(Error::Parked);
        }
        let block = FileBlock(leaf as u64 * PAGES_PER_SLOT as u64 + page.index() as u64);
        let leaf = self.tree.leaf_above(ino, block)?;
        let end = self.size_in(leaf.inodes, ino)?.div_ceil(BLOCK_SIZE);
        if block.0 >= end {
            return Err(Error::Invalid("beyond the end of the file"));
        }
        match access {
            Access::Load => {
                self.faults.read += 1;
                self.show_around(slot, page.index(), leaf, ino, end)
            }
            Access::Store => {
                self.dax.storing = Some(file);
                let result = self.store_fault(page, block, leaf, ino);
                self.dax.storing = None;
                result
            }
        }
    }

    /// Shows the page, and neighbours of it that are not shown yet, read-only.
    fn show_around(
        &mut self,
        slot: Slot,
        index: u32,
        leaf: Leaf,
        ino: Ino,
        end: u64,
    ) -> Result<()> {
        let state = &self.dax.slots[slot.0 as usize];
        let first = state.leaf as u64 * PAGES_PER_SLOT as u64;
        let around = if state.present == 0 { FIRST_AROUND } else { NEXT_AROUND };
        let low = index / around * around;
        let high = (low + around).min((end - first).min(PAGES_PER_SLOT as u64) as u32);
        for at in low..high {
            let page = slot.page(at);
            // A translation that is there already was there before the fault: the
            // processor had not seen it, and needs it no more than once.
            if self.dax.mmu.get(page).is_some() {
                continue;
            }
            let frame = match self.tree.entry_below(leaf, ino, FileBlock(first + at as u64)) {
                Ok(Some(pointer)) if !pointer.unwritten => {
                    match self.tree.blocks.verify_readable(pointer.block, 1) {
                        Ok(()) => Frame::Block(pointer.block),
                        Err(poisoned) if at == index => return Err(poisoned.into()),
                        Err(_) => continue,
                    }
                }
                Ok(_) => Frame::Zero,
                Err(error) if at == index => return Err(error),
                Err(_) => continue,
            };
            self.dax.show(&mut self.tree.blocks, page, frame)?;
        }
        Ok(())
    }

    /// Makes a page writable, by a grant if the block is this position's own (filled with zeros
    /// first, if it is unwritten), else by a copy.
    fn store_fault(&mut self, page: Page, block: FileBlock, leaf: Leaf, ino: Ino) -> Result<()> {
        let entry = self.tree.entry_below(leaf, ino, block)?;
        let mut to_fill = None;
        if let Some(Pointer { block: own, unwritten }) = entry
            && leaf.exclusive
            && self.tree.blocks.count(own)? == 1
            && !self.tree.blocks.is_bad(own)
        {
            if !unwritten {
                self.faults.write += 1;
                self.tree.changes += 1;
                return self.grant(page, own);
            }
            to_fill = Some(own);
        } else {
            self.tree.blocks.ensure(1, FAULT_BLOCKS, Purpose::Grow)?;
            if !self.tree.is_valid(&leaf) {
                // What was reclaimed may have made the position this file's own.
                let leaf = self.tree.leaf_above(ino, block)?;
                return self.store_fault(page, block, leaf, ino);
            }
        }
        let (new, done) = match (to_fill, leaf.own()) {
            (Some(own), _) => (own, self.fill_unwritten(block, leaf, ino, own)?),
            (None, Some(node)) => self.copy_in_place(&leaf, node, block, entry)?,
            (None, None) => self.copy_with_path(ino, block, entry)?,
        };
        self.faults.cow += 1;
        let shown = self.retarget_others(page, ino, new).and_then(|()| self.grant(page, new));
        self.tree.release_shown(done, shown)
    }

    /// Fills a block with zeros that is the position's own and unwritten, and takes its mark away.
    /// That needs no free block.
    #[cold]
    #[inline(never)]
    fn fill_unwritten(
        &mut self,
        block: FileBlock,
        leaf: Leaf,
        ino: Ino,
        own: Block,
    ) -> Result<Published<Durable>> {
        // Found before anything is staged, because looking for it can fail.
        let path = match leaf.own() {
            Some(_) => Path::new(),
            None => self.tree.leaf_path(ino, block)?.0,
        };
        let mut stage = self.tree.stage();
        let written = self.fill_stage(&mut stage, |volume, stage| {
            match volume.tree.place_below(&leaf, own)? {
                Place::Exclusive(place) => {
                    Ok(place.into_unwritten().fill(stage, core::iter::empty()))
                }
                Place::Shared(_) => {
                    let what = "a reference count changed under a fault";
                    Err(Error::Damaged { block: own, what })
                }
            }
        })?;
        match leaf.own() {
            Some(node) => {
                let index = index_at(block, 1);
                let word = [(index, written.value())];
                let retired = core::mem::take(&mut self.tree.retired);
                let node = (node, Content::Node(1));
                self.tree.publish_in_place(stage, &leaf, node, &word, retired)
            }
            None => {
                let word = self.tree.data_word(&path, ino, block, Some(written));
                self.tree.commit(stage, &[Edit::independent(&path, &[word])], Purpose::Grow)
            }
        }
    }

    /// Lets the page show a block of its own; a shadow that was there is tossed.
    fn grant(&mut self, page: Page, own: Block) -> Result<()> {
        let tossed =
            self.dax.translate(&mut self.tree.blocks, page, Frame::Block(own), Rights::Write)?;
        self.faults.tossed += tossed as u64;
        Ok(())
    }

    /// Stages a new block that has what the position shows.
    #[inline(always)]
    fn stage_copy(&mut self, stage: &mut Stage<Written>, entry: Option<Pointer>) -> Result<Block> {
        self.fill_stage(stage, |volume, stage| {
            let blocks = &mut volume.tree.blocks;
            let new = stage.allocate(blocks, Purpose::Grow)?;
            match entry {
                Some(old) if !old.unwritten => {
                    blocks.verify_readable(old.block, 1)?;
                    stage.copy_block(&mut blocks.pmem, old.block, &new)?
                }
                _ => stage.zero(&mut blocks.pmem, &new, 0, BLOCK_SIZE),
            }
            Ok(new.block())
        })
    }

    /// Copy on write below a leaf that is exclusive already: the fast path.
    #[inline(always)]
    fn copy_in_place(
        &mut self,
        known: &Leaf,
        node: Block,
        block: FileBlock,
        entry: Option<Pointer>,
    ) -> Result<(Block, Published<Durable>)> {
        let mut stage = self.tree.stage();
        let new = self.stage_copy(&mut stage, entry)?;
        let mut retired = core::mem::take(&mut self.tree.retired);
        if let Some(old) = entry {
            push_within(&mut retired, Retire::Drop(old.block, Content::Data));
        }
        let index = index_at(block, 1);
        let word = [(index, Pointer::to(new).value())];
        let node = (node, Content::Node(1));
        Ok((new, self.tree.publish_in_place(stage, known, node, &word, retired)?))
    }

    /// Copy on write where nodes above have to be copied, or made, first.
    fn copy_with_path(
        &mut self,
        ino: Ino,
        block: FileBlock,
        entry: Option<Pointer>,
    ) -> Result<(Block, Published<Durable>)> {
        let (path, _) = self.tree.leaf_path(ino, block)?;
        let mut stage = self.tree.stage();
        let new = self.stage_copy(&mut stage, entry)?;
        let word = self.tree.data_word(&path, ino, block, Some(Pointer::to(new)));
        let done = self.tree.commit(stage, &[Edit::independent(&path, &[word])], Purpose::Grow)?;
        Ok((new, done))
    }

    /// All other windows of this position show the new block too; windows of other files
    /// that share the old one are not touched.
    fn retarget_others(&mut self, page: Page, ino: Ino, new: Block) -> Result<()> {
        let leaf = self.dax.slots[page.slot().0 as usize].leaf;
        let mut at = None;
        while let Some(slot) = self.dax.next_slot_of_leaf(FileKey(ino), leaf, at) {
            at = Some(slot);
            let other = slot.page(page.index());
            if slot != page.slot() && self.dax.mmu.get(other).is_some() {
                self.dax.translate(
                    &mut self.tree.blocks,
                    other,
                    Frame::Block(new),
                    Rights::Read,
                )?;
                self.dax.mmu.invalidate(other);
            }
        }
        Ok(())
    }
}
