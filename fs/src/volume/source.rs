//! What a write writes, and the parts of it that go to blocks.

use crate::blocks::Fresh;
use crate::pmem::Pmem;
use crate::tree::stage::{Exclusive, Stage, Written};
use crate::types::{BLOCK_SIZE, Block};

/// What is written.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// Bytes in two pieces, one behind the other.
    Bytes([&'a [u8]; 2]),
    /// Whole blocks, which a device has received into blocks that are lent, from this one on: where
    /// a file needs new blocks, it takes these.
    Received(&'a [u8], Block),
    /// Zeros, where there is anything else.
    Zeros(u64),
    /// Zeros that take space: whole blocks, which are unwritten then.
    AllocatedZeros(u64),
}

impl Source<'_> {
    pub fn len(&self) -> u64 {
        match self {
            Source::Bytes([first, second]) => (first.len() + second.len()) as u64,
            Source::Received(bytes, _) => bytes.len() as u64,
            Source::Zeros(len) | Source::AllocatedZeros(len) => *len,
        }
    }

    /// What it writes, in two pieces, if that is not zeros.
    #[inline]
    pub fn bytes(&self) -> Option<[&[u8]; 2]> {
        match self {
            Source::Bytes(bytes) => Some(*bytes),
            Source::Received(bytes, _) => Some([bytes, &[]]),
            Source::Zeros(_) | Source::AllocatedZeros(_) => None,
        }
    }

    /// The bytes `from` to `end` of it: whole blocks, of what was received.
    #[inline(always)]
    pub fn cut(&self, from: u64, end: u64) -> Self {
        match *self {
            Source::Bytes(parts) => Source::Bytes(cut(parts, from as usize, end as usize)),
            Source::Received(bytes, Block(first)) => Source::Received(
                &bytes[from as usize..end as usize],
                Block(first + from / BLOCK_SIZE),
            ),
            Source::Zeros(_) => Source::Zeros(end - from),
            Source::AllocatedZeros(_) => Source::AllocatedZeros(end - from),
        }
    }

    /// Fills a part of a new block.
    pub fn fill<P: Pmem>(
        &self,
        stage: &mut Stage<Written>,
        pmem: &mut P,
        to: &Fresh,
        piece: Piece,
    ) {
        match self.bytes() {
            Some(bytes) => {
                for (within, bytes) in piece.of(bytes) {
                    stage.write(pmem, to, within, bytes);
                }
            }
            None => stage.zero(pmem, to, piece.within, piece.len),
        }
    }

    /// Overwrites a part of a block in place.
    pub fn overwrite<P: Pmem>(
        &self,
        stage: &mut Stage<Written>,
        mut own: Exclusive<'_, P>,
        piece: Piece,
    ) {
        match self.bytes() {
            Some(bytes) => {
                for (within, bytes) in piece.of(bytes) {
                    own.write(stage, within, bytes);
                }
            }
            None => own.zero(stage, piece.within, piece.len),
        }
    }
}

/// A part of a block, or of a run of blocks, that is written.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    /// Where it is in the source, and in the blocks; how many bytes.
    from: u64,
    pub within: u64,
    pub len: u64,
}

impl Piece {
    /// What a write of the bytes from `offset` to `end` of a file has in `count` blocks of it.
    #[inline]
    pub fn of_blocks(first: u64, count: u64, offset: u64, end: u64) -> Piece {
        let begin = first * BLOCK_SIZE;
        let (from, to) = (begin.max(offset), (begin + count * BLOCK_SIZE).min(end));
        Piece { from: from - offset, within: from - begin, len: to - from }
    }

    /// The bytes of this piece that each part of the source has, and where in the block they go.
    #[inline(always)]
    pub fn of(self, source: [&[u8]; 2]) -> impl Iterator<Item = (u64, &[u8])> {
        let parts = cut(source, self.from as usize, (self.from + self.len) as usize);
        let within = [self.within, self.within + parts[0].len() as u64];
        within.into_iter().zip(parts).filter(|(_, bytes)| !bytes.is_empty())
    }
}

/// Bytes `from` to `end` of two pieces that lie one behind the other.
#[inline(always)]
fn cut([first, second]: [&[u8]; 2], from: usize, end: usize) -> [&[u8]; 2] {
    let seam = first.len();
    // Nearly always there is one piece.
    if end <= seam {
        return [&first[from..end], &[]];
    }
    [
        &first[from.min(seam)..end.min(seam)],
        &second[from.saturating_sub(seam)..end.saturating_sub(seam)],
    ]
}
