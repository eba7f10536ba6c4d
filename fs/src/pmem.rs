//! The seam to persistent memory.
//!
//! Every store, flush and fence of the filesystem goes through [`Pmem`], so that a
//! backend can log, count or fail each of them. It hands out no `&mut [u8]`.
//!
//! Persistence model (x86): a store is durable once its 64-byte line was flushed
//! *and* a fence followed the flush. Aligned 8-byte stores never tear.

/// Bytes in a cache line, the unit of flushing.
pub const LINE: u64 = 64;

/// Bytes that are compared at a time, by a backend that knows no better.
const PIECE: usize = 512;

/// A load hit a line that the memory cannot deliver (uncorrectable error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poisoned {
    /// Byte offset in the region of the first line that could not be read.
    pub at: u64,
}

/// A region of byte-addressable persistent memory.
///
/// Offsets and lengths are in bytes from the start of the region. An access outside
/// `0..len()` is a bug of the caller and may panic; the filesystem checks every block
/// number that it reads from media before it is used here.
pub trait Pmem {
    /// Size of the region in bytes; a multiple of 4096.
    fn len(&self) -> u64;

    /// Whether the region has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loads the little-endian word at `at` (8-byte aligned) in one access.
    ///
    /// # Errors
    ///
    /// [`Poisoned`] if the line of the word cannot be delivered.
    fn load(&self, at: u64) -> Result<u64, Poisoned>;

    /// Copies bytes out of the region.
    ///
    /// # Errors
    ///
    /// [`Poisoned`], with the first line that cannot be delivered; `into` is undefined then.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Poisoned>;

    /// Stores a word at `at` (8-byte aligned) in one access that never tears.
    fn store(&mut self, at: u64, value: u64);

    /// Stores words of the line that starts at `line`, by their index in it (0 to 7), each in one
    /// access that never tears.
    #[inline(always)]
    #[track_caller]
    fn store_in_line<const N: usize>(&mut self, line: u64, words: &[(u16, u64); N]) {
        for &(index, word) in words {
            self.store(line + u64::from(index) * 8, word);
        }
    }

    /// Copies bytes into the region; may tear at any 8-byte boundary.
    fn write(&mut self, at: u64, bytes: &[u8]);

    /// Fills a range with zero bytes.
    fn zero(&mut self, at: u64, len: u64);

    /// Where two ranges of `len` bytes first differ, counted from their starts.
    ///
    /// # Errors
    ///
    /// [`Poisoned`] if a line before the first difference cannot be delivered.
    fn first_difference(&self, a: u64, b: u64, len: u64) -> Result<Option<u64>, Poisoned> {
        let (mut left, mut right) = ([0; PIECE], [0; PIECE]);
        for at in (0..len).step_by(PIECE) {
            let piece = (len - at).min(PIECE as u64) as usize;
            self.read(a + at, &mut left[..piece])?;
            self.read(b + at, &mut right[..piece])?;
            if let Some(byte) = (0..piece).find(|&i| left[i] != right[i]) {
                return Ok(Some(at + byte as u64));
            }
        }
        Ok(None)
    }

    /// Where a range has its first byte that is not zero, counted from its start.
    ///
    /// # Errors
    ///
    /// [`Poisoned`] if a line before the first such byte cannot be delivered.
    fn first_nonzero(&self, at: u64, len: u64) -> Result<Option<u64>, Poisoned> {
        let mut bytes = [0; PIECE];
        for begin in (0..len).step_by(PIECE) {
            let piece = (len - begin).min(PIECE as u64) as usize;
            self.read(at + begin, &mut bytes[..piece])?;
            if let Some(byte) = bytes[..piece].iter().position(|&b| b != 0) {
                return Ok(Some(begin + byte as u64));
            }
        }
        Ok(None)
    }

    /// Copies `len` bytes inside the region; the ranges do not overlap.
    ///
    /// # Errors
    ///
    /// [`Poisoned`] if the source cannot be delivered; the destination is undefined then.
    fn copy(&mut self, from: u64, to: u64, len: u64) -> Result<(), Poisoned>;

    /// Starts writing back every line that overlaps the range (clwb or its like).
    fn flush(&mut self, at: u64, len: u64);

    /// Starts writing back the line that `at` is in.
    #[inline(always)]
    #[track_caller]
    fn flush_line(&mut self, at: u64) {
        self.flush(at, 1);
    }

    /// Orders: lines flushed before are durable before any later store is (sfence).
    fn fence(&mut self);
}
