//! Stores of whole aligned words, where source or destination begins or ends within one.

use super::fallible::{Failed, merge};

/// Stores `len` bytes so that each aligned word of the target is stored at once: of the words at
/// the ends the bits that `part` tells for these bytes, of what is between them whatever `words`
/// does. Both are told where the bytes begin, and how many they are.
///
/// # Safety
///
/// The words that `to` begins and ends in are valid, or in the window area.
#[inline(always)]
pub(super) unsafe fn in_words(
    to: *mut u8,
    len: usize,
    part: impl Fn(usize, usize) -> u64,
    words: impl FnOnce(usize, usize) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let head = (to.addr().wrapping_neg() % 8).min(len);
    let whole = (len - head) / 8 * 8;
    let tail = len - head - whole;
    if head > 0 {
        // SAFETY: these bytes end with a word, or before.
        unsafe { merge(to, part(0, head), head)? };
    }
    if whole > 0 {
        words(head, whole)?;
    }
    if tail > 0 {
        // SAFETY: these bytes begin with a word, and are fewer.
        unsafe { merge(to.wrapping_add(head + whole), part(head + whole, tail), tail)? };
    }
    Ok(())
}

/// Fewer than 8 bytes, as a part of a word.
///
/// # Safety
///
/// They can be read.
pub(super) unsafe fn bits_of(from: *const u8, len: usize) -> u64 {
    // SAFETY: the caller's duty.
    (0..len).fold(0, |bits, at| bits | u64::from(unsafe { from.add(at).read() }) << (8 * at))
}
