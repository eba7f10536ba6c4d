//! Comparing memory: 64 bytes at a time, all of one side before the other.
//!
//! An emulator's TLB is direct-mapped: where both sides share an entry, each change between
//! them is a miss, so there are few of them (see `copy.rs`).

/// Words that are compared at once.
const WORDS: usize = 8;
/// Bytes of them.
const CHUNK: usize = WORDS * 8;

/// Where two ranges of `len` bytes first differ, counted from their starts.
///
/// # Safety
///
/// Both ranges are valid for reads, aligned to 8 bytes, and nobody stores to them meanwhile.
pub unsafe fn first_difference(a: *const u8, b: *const u8, len: usize) -> Option<usize> {
    // SAFETY: as the caller promises.
    unsafe {
        first(a, len, |at| b.add(at).cast::<[u64; WORDS]>().read_volatile(), |at| b.add(at).read_volatile())
    }
}

/// Where a range of `len` bytes has its first byte that is not zero.
///
/// # Safety
///
/// The range is valid for reads, aligned to 8 bytes, and nobody stores to it meanwhile.
pub unsafe fn first_nonzero(a: *const u8, len: usize) -> Option<usize> {
    // SAFETY: as the caller promises.
    unsafe { first(a, len, |_| [0; WORDS], |_| 0) }
}

/// Where a range first differs from what `words` and `byte` give for an offset.
///
/// # Safety
///
/// As for [`first_nonzero`].
#[inline(always)]
unsafe fn first(
    a: *const u8,
    len: usize,
    words: impl Fn(usize) -> [u64; WORDS],
    byte: impl Fn(usize) -> u8,
) -> Option<usize> {
    let mut at = 0;
    while at + CHUNK <= len {
        // SAFETY: the chunk is within the range, and aligned as the range is.
        let left = unsafe { a.add(at).cast::<[u64; WORDS]>().read_volatile() };
        let right = words(at);
        let differing = left.iter().zip(&right).fold(0, |all, (l, r)| all | (l ^ r));
        if differing != 0 {
            break;
        }
        at += CHUNK;
    }
    // SAFETY: within the range.
    (at..len).find(|&at| unsafe { a.add(at).read_volatile() } != byte(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(8))]
    struct Aligned([u8; 300]);

    #[test]
    fn differences_are_found_wherever_they_are() {
        let a = Aligned(core::array::from_fn(|i| i as u8));
        let zeros = Aligned([0; 300]);
        for len in [0, 1, 63, 64, 65, 128, 299, 300] {
            let first = |b: &Aligned| {
                // SAFETY: both have 300 bytes.
                unsafe { first_difference(a.0.as_ptr(), b.0.as_ptr(), len) }
            };
            assert_eq!(first(&Aligned(a.0)), None);
            for at in 0..300 {
                let mut b = Aligned(a.0);
                b.0[at] ^= 0x80;
                let found = (at < len).then_some(at);
                assert_eq!(first(&b), found);
                b.0 = zeros.0;
                b.0[at] = 1;
                // SAFETY: it has 300 bytes.
                assert_eq!(unsafe { first_nonzero(b.0.as_ptr(), len) }, found);
            }
        }
    }
}
