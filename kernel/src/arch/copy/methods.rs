//! The ways to copy, which of them is used, and what they are used for.

use super::fallible::{
    Failed, TryCopy, resolved, umbra_load_moves, umbra_load_movsb, umbra_load_movsq,
    umbra_read_moves, umbra_read_movsb, umbra_read_movsq, umbra_store_moves, umbra_store_movsq,
};
use super::plain::{
    Copy, Fill, umbra_copy_moves, umbra_copy_movsb, umbra_copy_movsq, umbra_fill_moves,
    umbra_fill_stosq,
};
use super::words::{bits_of, in_words};
use core::sync::atomic::{AtomicUsize, Ordering};
#[cfg(target_os = "none")]
use {super::libc, crate::arch::clock, crate::cpu};

/// A way to copy.
pub(crate) struct Method {
    /// Its name.
    pub(crate) name: &'static str,
    copy: Copy,
    /// Copies whole words to aligned ones.
    words: Copy,
    /// Copies through a window.
    load: TryCopy,
    /// Copies memory that may be lost.
    read: TryCopy,
    /// As `words`.
    store: TryCopy,
    fill: Fill,
}

/// All ways.
pub(crate) static METHODS: [Method; 3] = [
    Method {
        name: "8-byte moves",
        copy: umbra_copy_moves,
        words: umbra_copy_moves,
        load: umbra_load_moves,
        read: umbra_read_moves,
        store: umbra_store_moves,
        fill: umbra_fill_moves,
    },
    Method {
        name: "rep movsq",
        copy: umbra_copy_movsq,
        words: umbra_copy_movsq,
        load: umbra_load_movsq,
        read: umbra_read_movsq,
        store: umbra_store_movsq,
        fill: umbra_fill_stosq,
    },
    Method {
        name: "rep movsb",
        copy: umbra_copy_movsb,
        words: umbra_copy_movsq,
        load: umbra_load_movsb,
        read: umbra_read_movsb,
        store: umbra_store_movsq,
        fill: umbra_fill_stosq,
    },
];

static CHOSEN: AtomicUsize = AtomicUsize::new(0);

/// The way that was chosen.
pub(crate) fn chosen() -> &'static Method {
    &METHODS[CHOSEN.load(Ordering::Relaxed)]
}

impl Method {
    /// Copies this way.
    ///
    /// # Safety
    ///
    /// As for `memcpy`: both ranges are valid for `len` bytes and do not overlap.
    pub(crate) unsafe fn copy(&self, to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: the caller's duty.
        unsafe { (self.copy)(to, from, len) }
    }

    /// As [`read`], this way.
    ///
    /// # Safety
    ///
    /// As for [`read`].
    pub(crate) unsafe fn read(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Failed> {
        // SAFETY: the caller's duty.
        resolved(unsafe { (self.read)(to, from, len) })
    }

    /// As [`write()`], this way.
    ///
    /// # Safety
    ///
    /// As for [`write()`].
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn write(&self, to: *mut u8, from: *const u8, len: usize) {
        let words = |at, len| {
            // SAFETY: a part of the ranges that the caller vouches for.
            unsafe { (self.words)(to.wrapping_add(at), from.wrapping_add(at), len) };
            Ok(())
        };
        // SAFETY: as above.
        let part = |at, len| unsafe { bits_of(from.wrapping_add(at), len) };
        // SAFETY: the caller's duty. Nothing faults, so nothing fails.
        let _ = unsafe { in_words(to, len, part, words) };
    }

    /// As [`store`], this way.
    ///
    /// # Safety
    ///
    /// As for [`store`].
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn store(
        &self,
        to: *mut u8,
        from: *const u8,
        len: usize,
    ) -> Result<(), Failed> {
        let words = |at, len| {
            // SAFETY: a part of the ranges that the caller vouches for.
            resolved(unsafe { (self.store)(to.wrapping_add(at), from.wrapping_add(at), len) })
        };
        // SAFETY: as above.
        let part = |at, len| unsafe { bits_of(from.wrapping_add(at), len) };
        // SAFETY: the caller's duty.
        unsafe { in_words(to, len, part, words) }
    }
}

/// Copies that each way is measured by, at most, and how long that may take.
#[cfg(target_os = "none")]
const RUNS: usize = 50;
#[cfg(target_os = "none")]
const MOST_NS: u64 = 300_000;

/// Measures all ways on 4 KiB and takes the fastest. `buffer` is two pages of scratch.
#[cfg(target_os = "none")]
pub(crate) fn choose(buffer: &mut [u8; 8192]) {
    let (to, from) = buffer.split_at_mut(4096);
    // As often as it takes for an emulator to warm up, but no more than a while each.
    let time = |method: &Method| {
        let (mut best, mut total) = (u64::MAX, 0);
        for _ in 0..RUNS {
            let start = cpu::tsc();
            // SAFETY: both halves are 4096 bytes long and do not overlap.
            unsafe { method.copy(to.as_mut_ptr(), from.as_ptr(), 4096) };
            let ticks = cpu::tsc() - start;
            (best, total) = (best.min(ticks), total + ticks);
            if clock::ticks_to_ns(total) > MOST_NS {
                break;
            }
        }
        best
    };
    let times = METHODS.each_ref().map(time);
    let best = (0..METHODS.len()).min_by_key(|way| times[*way]).unwrap_or(0);
    CHOSEN.store(best, Ordering::Relaxed);
    // SAFETY: only start-up calls this.
    unsafe { libc::use_ways(METHODS[best].copy, METHODS[best].fill) };
    let ns = times.map(clock::ticks_to_ns);
    log::info!(
        "copies by {}; 4 KiB take {} ns by 8-byte moves, {} by rep movsq, {} by rep movsb",
        METHODS[best].name,
        ns[0],
        ns[1],
        ns[2]
    );
}

/// Copies like `memcpy`, upwards, from the window area; a page fault there that cannot be resolved
/// ends the copy.
///
/// # Safety
///
/// `to` is valid for `len` bytes; `from` lies in the window area. No reference into the filesystem
/// is alive: resolving a fault needs it.
pub(crate) unsafe fn load(to: *mut u8, from: *const u8, len: usize) -> Result<(), Failed> {
    // SAFETY: the caller's duty; faults in the window area are handled.
    resolved(unsafe { (chosen().load)(to, from, len) })
}

/// Copies like `memcpy`, upwards, from persistent memory; memory that is lost ends the copy.
///
/// # Safety
///
/// As for `memcpy`: both ranges are valid for `len` bytes and do not overlap.
#[inline]
pub(crate) unsafe fn read(to: *mut u8, from: *const u8, len: usize) -> Result<(), Failed> {
    // SAFETY: the caller's duty.
    unsafe { chosen().read(to, from, len) }
}

/// Copies like `memcpy`, upwards, to the window area, each aligned word there by one store; a page
/// fault there that cannot be resolved ends the copy.
///
/// # Safety
///
/// `from` is valid for `len` bytes; `to` lies in the window area. No reference into the filesystem
/// is alive: resolving a fault needs it.
pub(crate) unsafe fn store(to: *mut u8, from: *const u8, len: usize) -> Result<(), Failed> {
    if is_whole(to, len) {
        // SAFETY: the caller's duty; faults in the window area are handled.
        return resolved(unsafe { (chosen().store)(to, from, len) });
    }
    // SAFETY: as above.
    unsafe { chosen().store(to, from, len) }
}

/// Whether bytes are whole aligned words: mostly they are.
#[inline(always)]
fn is_whole(to: *mut u8, len: usize) -> bool {
    (to.addr() | len).is_multiple_of(8)
}

/// Copies like `memcpy` to persistent memory, each aligned word there by one store.
///
/// # Safety
///
/// As for `memcpy`; the words that the ends of `to` lie in are valid as a whole.
#[inline]
pub(crate) unsafe fn write(to: *mut u8, from: *const u8, len: usize) {
    if is_whole(to, len) {
        // SAFETY: the caller's duty.
        return unsafe { (chosen().words)(to, from, len) };
    }
    // SAFETY: the caller's duty.
    unsafe { chosen().write(to, from, len) }
}

/// Fills persistent memory with zeros, each aligned word by one store.
///
/// # Safety
///
/// `to` is valid for `len` bytes, and so are the words that its ends lie in.
#[inline]
pub(crate) unsafe fn zero(to: *mut u8, len: usize) {
    if is_whole(to, len) {
        // SAFETY: the caller's duty. `memset` stores whole words.
        return unsafe { to.write_bytes(0, len) };
    }
    // SAFETY: the caller's duty.
    unsafe { zero_parts(to, len) }
}

/// As [`zero`], where words at the ends are zeroed in part.
///
/// # Safety
///
/// As for [`zero`].
#[cold]
#[inline(never)]
unsafe fn zero_parts(to: *mut u8, len: usize) {
    let words = |at, len| {
        // SAFETY: a part of the range that the caller vouches for. `memset` stores whole words.
        unsafe { to.wrapping_add(at).write_bytes(0, len) };
        Ok(())
    };
    // SAFETY: the caller's duty. Nothing faults, so nothing fails.
    let _ = unsafe { in_words(to, len, |_, _| 0, words) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const LENGTHS: [usize; 18] =
        [0, 1, 7, 8, 9, 63, 64, 65, 127, 129, 511, 512, 1023, 1024, 1600, 4095, 4096, 8191];
    /// Pages after which addresses share entries of an emulator's TLB.
    const TLB: usize = 64 << 12;

    #[test]
    fn all_ways_copy_the_same() {
        let source: Vec<u8> = (0..TLB + 16384).map(|i| (i * 7 + i / 256) as u8).collect();
        let mut room = vec![0xee_u8; 2 * TLB + 16384];
        let same = source.as_ptr().addr().wrapping_sub(room.as_ptr().addr()) % TLB;
        for method in &METHODS {
            for len in LENGTHS {
                for (to, from) in [(1, 0), (1, 3), (9, 6), (same + 8, 0), (same + 17, 9)] {
                    let mut check = |copy: &dyn Fn(*mut u8, *const u8)| {
                        copy(room[to..].as_mut_ptr(), source[from..].as_ptr());
                        assert_eq!(room[to..][..len], source[from..][..len], "{}", method.name);
                        assert_eq!((room[to - 1], room[to + len]), (0xee, 0xee), "{len}");
                        room[to..][..len].fill(0xee);
                    };
                    // SAFETY: both ranges are inside their vectors, here and below.
                    check(&|to, from| unsafe { method.copy(to, from, len) });
                    // SAFETY: as above.
                    check(&|to, from| unsafe { method.write(to, from, len) });
                    // SAFETY: as above.
                    check(&|to, from| assert_eq!(unsafe { method.read(to, from, len) }, Ok(())));
                    // SAFETY: as above.
                    check(&|to, from| assert_eq!(unsafe { method.store(to, from, len) }, Ok(())));
                }
            }
        }
    }
}
