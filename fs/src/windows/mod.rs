//! Windows, the slots that they have attached, and what is translated in them.
//!
//! | file | what |
//! |---|---|
//! | `mmu.rs` | the seam to page tables: slots, pages, translations |
//! | `files.rs` | windows that are open, and the files that they show |
//! | `mod.rs` | slots and what is translated in them, the dirty list |
//! | `passes.rs` | sync, and other work on many pages |
//! | `shadows.rs` | the lists from a master to its shadows |
//!
//! Slots are a cache: any slot may be taken away from its window between two accesses.
//! Their memory is taken when the volume is mounted; only the list of what is open grows.

pub(crate) mod files;
pub mod mmu;
pub(crate) mod passes;
mod shadows;

pub use self::files::Window;
use self::files::{NONE, OpenFiles};
use self::mmu::{Frame, Mmu, PAGES_PER_SLOT, Page, Rights, Slot};
use self::shadows::Shadows;
use crate::blocks::Blocks;
use crate::error::{Error, Result};
use crate::pmem::{Pmem, Poisoned};
use crate::types::{BLOCK_SIZE, FileKey, Ino};
use alloc::vec;
use alloc::vec::Vec;

#[derive(Clone, Debug)]
pub(crate) struct SlotState {
    pub window: u32,
    pub file: FileKey,
    pub leaf: u32,
    next_in_file: u32,
    prev_in_file: u32,
    next_in_bucket: u32,
    /// It was used since the hand of the clock passed.
    used: bool,
    /// Translations that are present.
    pub present: u32,
    /// Pages that are writable.
    dirty: [u64; 8],
}

impl SlotState {
    const UNUSED: SlotState = SlotState {
        window: NONE,
        file: FileKey(Ino(0)),
        leaf: 0,
        next_in_file: NONE,
        prev_in_file: NONE,
        next_in_bucket: NONE,
        used: false,
        present: 0,
        dirty: [0; 8],
    };

    fn set_dirty(&mut self, index: u32, dirty: bool) {
        let (word, bit) = ((index / 64) as usize, index % 64);
        self.dirty[word] = self.dirty[word] & !(1 << bit) | (dirty as u64) << bit;
    }

    /// Whether the page is on the list of dirty pages.
    pub fn is_dirty(&self, index: u32) -> bool {
        self.dirty[(index / 64) as usize] >> (index % 64) & 1 != 0
    }
}

/// All windows of a volume.
pub(crate) struct Windows<M> {
    pub mmu: M,
    pub slots: Vec<SlotState>,
    pub shadows: Shadows,
    pub files: OpenFiles,
    /// First slot of each bucket of the hash of (file, leaf): all slots of a position are in one.
    buckets: Vec<u32>,
    hand: u32,
    /// Present translations: of the zero page, and writable ones.
    pub zero: u64,
    pub writable: u64,
    /// The file whose store fault is being handled.
    pub storing: Option<FileKey>,
    /// Shadows that went during a store fault of another file.
    pub foreign_unmapped: u64,
}

impl<M: Mmu> Windows<M> {
    /// No windows, over these page tables.
    #[allow(clippy::disallowed_macros, reason = "a mount takes what it needs for good")]
    pub fn new(mmu: M) -> Self {
        let slots = mmu.slots();
        Windows {
            slots: vec![SlotState::UNUSED; slots as usize],
            shadows: Shadows::new(slots),
            files: OpenFiles::new(),
            buckets: vec![NONE; slots.next_power_of_two() as usize],
            hand: 0,
            zero: 0,
            writable: 0,
            storing: None,
            foreign_unmapped: 0,
            mmu,
        }
    }

    /// All slots, attached or not.
    pub fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// A slot, if it is attached.
    pub fn attached_slot(&self, slot: Slot) -> Option<&SlotState> {
        self.slots.get(slot.0 as usize).filter(|state| state.window != NONE)
    }

    /// Slots that are attached.
    pub fn attached(&self) -> impl Iterator<Item = (Slot, &SlotState)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, s)| s.window != NONE)
            .map(|(i, s)| (Slot(i as u32), s))
    }

    /// Closes a window: what was stored through it is durable. Tells whether that was
    /// the last window of a file without a name.
    pub fn close<P: Pmem>(&mut self, blocks: &mut Blocks<P>, window: Window) -> Result<bool> {
        let file = self.files.file_of(window)?;
        let mut at = self.next_slot(file, None);
        while let Some(slot) = at {
            at = self.next_slot(file, Some(slot));
            if self.slots[slot as usize].window == window.0 {
                self.detach(blocks, Slot(slot))?;
            }
        }
        self.files.close(window)
    }

    #[inline]
    fn bucket(&self, FileKey(Ino(ino)): FileKey, leaf: u32) -> usize {
        let key = ino << 32 ^ leaf as u64;
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (self.buckets.len() - 1)
    }

    /// Gives a window a slot for one of its leaves, if need be by taking it from another.
    pub fn attach<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        window: Window,
        leaf: u32,
    ) -> Result<Slot> {
        let file = self.files.file_of(window)?;
        let bucket = self.bucket(file, leaf);
        let mut at = self.buckets[bucket];
        while at != NONE {
            let slot = &mut self.slots[at as usize];
            if slot.window == window.0 && slot.leaf == leaf {
                slot.used = true;
                return Ok(Slot(at));
            }
            at = slot.next_in_bucket;
        }
        let slot = self.take_slot(blocks)?;
        let next_in_file = self.files.replace_first_slot(file, slot.0);
        if next_in_file != NONE {
            self.slots[next_in_file as usize].prev_in_file = slot.0;
        }
        self.slots[slot.0 as usize] = SlotState {
            window: window.0,
            file,
            leaf,
            next_in_file,
            next_in_bucket: self.buckets[bucket],
            used: true,
            ..SlotState::UNUSED
        };
        self.buckets[bucket] = slot.0;
        Ok(slot)
    }

    /// A slot that is attached to nothing; the least recently used one, roughly.
    fn take_slot<P: Pmem>(&mut self, blocks: &mut Blocks<P>) -> Result<Slot> {
        let count = self.slots.len() as u32;
        for _ in 0..2 * count {
            let at = self.hand;
            self.hand = (self.hand + 1) % count;
            let slot = &mut self.slots[at as usize];
            if slot.window == NONE {
                return Ok(Slot(at));
            }
            if !core::mem::take(&mut slot.used) {
                self.detach(blocks, Slot(at))?;
                return Ok(Slot(at));
            }
        }
        Err(Error::NoMemory)
    }

    /// Takes a slot away from its window. What was stored through it is durable.
    fn detach<P: Pmem>(&mut self, blocks: &mut Blocks<P>, slot: Slot) -> Result<()> {
        let state = self.slots[slot.0 as usize].clone();
        let mut dirty = false;
        for index in 0..PAGES_PER_SLOT {
            if self.slots[slot.0 as usize].present == 0 {
                break;
            }
            let page = slot.page(index);
            if let Some((frame, rights)) = self.mmu.get(page) {
                self.forget(blocks, page, frame, rights)?;
                self.mmu.clear(page);
                if let (Frame::Block(block), Rights::Write) = (frame, rights) {
                    // The page is invalidated first, so that nothing is stored behind the flush.
                    self.mmu.invalidate(page);
                    blocks.pmem.flush(block.0 * BLOCK_SIZE, BLOCK_SIZE);
                    dirty = true;
                }
            }
        }
        self.mmu.invalidate_slot(slot);
        if dirty {
            blocks.pmem.fence();
        }
        let bucket = self.bucket(state.file, state.leaf);
        if self.buckets[bucket] == slot.0 {
            self.buckets[bucket] = state.next_in_bucket;
        } else {
            let mut at = self.buckets[bucket];
            while at != NONE {
                let next = self.slots[at as usize].next_in_bucket;
                if next == slot.0 {
                    self.slots[at as usize].next_in_bucket = state.next_in_bucket;
                }
                at = next;
            }
        }
        match state.prev_in_file {
            NONE => {
                self.files.replace_first_slot(state.file, state.next_in_file);
            }
            prev => self.slots[prev as usize].next_in_file = state.next_in_file,
        }
        if state.next_in_file != NONE {
            self.slots[state.next_in_file as usize].prev_in_file = state.prev_in_file;
        }
        self.slots[slot.0 as usize] = SlotState::UNUSED;
        Ok(())
    }

    /// Slots of a file, one after another: pass `None` first.
    #[inline]
    fn next_slot(&self, file: FileKey, after: Option<u32>) -> Option<u32> {
        let next = match after {
            None => self.files.first_slot(file),
            Some(slot) => self.slots[slot as usize].next_in_file,
        };
        (next != NONE).then_some(next)
    }

    /// Slots that show a leaf of a file, one after another: pass `None` first.
    #[inline]
    pub fn next_slot_of_leaf(&self, file: FileKey, leaf: u32, after: Option<Slot>) -> Option<Slot> {
        let mut at = match after {
            None => self.buckets[self.bucket(file, leaf)],
            Some(slot) => self.slots[slot.0 as usize].next_in_bucket,
        };
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.leaf == leaf && slot.file == file {
                return Some(Slot(at));
            }
            at = slot.next_in_bucket;
        }
        None
    }

    /// Undoes the accounts of a translation that is about to go.
    #[inline(always)]
    fn forget<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        page: Page,
        frame: Frame,
        rights: Rights,
    ) -> Result<(), Poisoned> {
        let slot = &mut self.slots[page.slot().0 as usize];
        match (frame, rights) {
            (Frame::Zero, _) => self.zero -= 1,
            (Frame::Block(block), Rights::Read) => {
                self.shadows.remove(blocks, page, block)?;
                self.foreign_unmapped += self.storing.is_some_and(|file| file != slot.file) as u64;
            }
            (Frame::Block(_), Rights::Write) => {
                slot.set_dirty(page.index(), false);
                self.writable -= 1;
            }
        }
        slot.present -= 1;
        Ok(())
    }

    /// Makes the accounts of a translation, and the translation.
    #[inline(always)]
    fn set<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        page: Page,
        frame: Frame,
        rights: Rights,
    ) -> Result<(), Poisoned> {
        let slot = &mut self.slots[page.slot().0 as usize];
        match (frame, rights) {
            (Frame::Zero, _) => self.zero += 1,
            (Frame::Block(block), Rights::Read) => self.shadows.add(blocks, page, block)?,
            (Frame::Block(_), Rights::Write) => {
                slot.set_dirty(page.index(), true);
                self.writable += 1;
            }
        }
        slot.present += 1;
        self.mmu.set(page, frame, rights);
        Ok(())
    }

    /// Makes a page that shows nothing show a frame, read-only.
    pub fn show<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        page: Page,
        frame: Frame,
    ) -> Result<(), Poisoned> {
        self.set(blocks, page, frame, Rights::Read)
    }

    /// Makes a page show a frame: as a shadow, or as a dirty page. What was translated
    /// before is not invalidated. Tells whether that was a shadow.
    pub fn translate<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        page: Page,
        frame: Frame,
        rights: Rights,
    ) -> Result<bool, Poisoned> {
        let old = self.mmu.get(page);
        if let Some((old, old_rights)) = old {
            self.forget(blocks, page, old, old_rights)?;
        }
        self.set(blocks, page, frame, rights)?;
        Ok(matches!(old, Some((Frame::Block(_), Rights::Read))))
    }

    /// Removes the translations of a range of file blocks in all windows of a file.
    pub fn unmap<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        file: FileKey,
        from: u64,
        end: u64,
    ) -> Result<(), Poisoned> {
        let leaves = from / PAGES_PER_SLOT as u64..end.div_ceil(PAGES_PER_SLOT as u64);
        if leaves.end.saturating_sub(leaves.start) == 1 {
            let leaf = leaves.start as u32;
            let mut at = None;
            while let Some(slot) = self.next_slot_of_leaf(file, leaf, at) {
                at = Some(slot);
                self.unmap_in(blocks, slot, from, end)?;
            }
            return Ok(());
        }
        let mut at = None;
        while let Some(slot) = self.next_slot(file, at) {
            at = Some(slot);
            self.unmap_in(blocks, Slot(slot), from, end)?;
        }
        Ok(())
    }

    /// Removes the translations of a range of file blocks in one slot.
    fn unmap_in<P: Pmem>(
        &mut self,
        blocks: &mut Blocks<P>,
        slot: Slot,
        from: u64,
        end: u64,
    ) -> Result<(), Poisoned> {
        let first = self.slots[slot.0 as usize].leaf as u64 * PAGES_PER_SLOT as u64;
        let low = from.max(first);
        let high = end.min(first + PAGES_PER_SLOT as u64);
        for block in low..high {
            if self.slots[slot.0 as usize].present == 0 {
                break;
            }
            let page = slot.page((block - first) as u32);
            if let Some((frame, rights)) = self.mmu.get(page) {
                self.take_away(blocks, page, frame, rights)?;
            }
        }
        Ok(())
    }

    /// Takes all slots away from their windows: all stores through them are durable.
    pub fn detach_all<P: Pmem>(&mut self, blocks: &mut Blocks<P>) -> Result<()> {
        for slot in 0..self.slots.len() as u32 {
            if self.slots[slot as usize].window != NONE {
                self.detach(blocks, Slot(slot))?;
            }
        }
        Ok(())
    }
}
