//! Blocks of metadata that are in need of mending, as those note them who only read.

use super::content::Content;
use crate::types::Block;
use core::cell::Cell;

/// Words that are looked at together.
pub(crate) const WORDS: usize = 64;
/// Words of a block that are looked at together.
pub(crate) type Words = [[u8; 8]; WORDS];

/// Blocks that are noted at a time. What does not fit in is noted when it is read again.
const NOTED: usize = 8;

/// Blocks of which a copy is bad.
#[derive(Debug, Default)]
pub(super) struct Noted {
    blocks: Cell<[Option<(Block, Content)>; NOTED]>,
    any: Cell<bool>,
}

impl Noted {
    /// Whether there is one.
    #[inline(always)]
    pub fn has_some(&self) -> bool {
        self.any.get()
    }

    /// Notes a block; of those that are noted already, nothing changes.
    #[cold]
    pub fn add(&self, block: Block, content: Content) {
        let mut blocks = self.blocks.get();
        let same = |known: &Option<(Block, Content)>| known.is_none_or(|(b, _)| b == block);
        if let Some(place) = blocks.iter_mut().find(|known| same(known)) {
            *place = Some((block, content));
        }
        self.blocks.set(blocks);
        self.any.set(true);
    }

    /// All of them; none is noted any more.
    pub fn take(&self) -> [Option<(Block, Content)>; NOTED] {
        self.any.set(false);
        self.blocks.take()
    }
}
