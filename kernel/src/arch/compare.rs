//! Comparing memory, 64 bytes at a time: all of one side is loaded before the other.
//!
//! An emulator's TLB is direct-mapped: where both sides share an entry, each change between
//! them is a miss, so there are few of them (see `copy.rs`).

use core::arch::asm;

/// Bytes that are compared at once.
const CHUNK: usize = 64;

/// Where two ranges of `len` bytes first differ, counted from their starts.
///
/// # Safety
///
/// Both ranges are valid for reads, and nobody stores to them meanwhile.
pub unsafe fn first_difference(a: *const u8, b: *const u8, len: usize) -> Option<usize> {
    // SAFETY: as the caller promises.
    let equal = len / CHUNK * CHUNK - unsafe { chunks(a, b, len / CHUNK) } * CHUNK;
    // SAFETY: within the ranges.
    (equal..len).find(|&at| unsafe { a.add(at).read_volatile() != b.add(at).read_volatile() })
}

/// Where a range of `len` bytes has its first byte that is not zero.
///
/// # Safety
///
/// The range is valid for reads, and nobody stores to it meanwhile.
pub unsafe fn first_nonzero(a: *const u8, len: usize) -> Option<usize> {
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    let mut at = 0;
    // SAFETY: within the range.
    while at + CHUNK <= len && unsafe { chunks(a.add(at), ZEROS.as_ptr(), 1) } == 0 {
        at += CHUNK;
    }
    // SAFETY: within the range.
    (at..len).find(|&at| unsafe { a.add(at).read_volatile() } != 0)
}

/// Compares up to `count` chunks, until one differs; returns how many are left with that one.
///
/// # Safety
///
/// As for [`first_difference`].
unsafe fn chunks(a: *const u8, b: *const u8, count: usize) -> usize {
    if count == 0 {
        return 0;
    }
    let left;
    // SAFETY: loads from the ranges only, which the caller vouches for. rbx, which the compiler
    // keeps for itself, is put back.
    unsafe {
        asm!(
            "push rbx",
            "2:",
            "mov rax, [rsi]",
            "mov rbx, [rsi + 8]",
            "mov rdx, [rsi + 16]",
            "mov r8, [rsi + 24]",
            "mov r9, [rsi + 32]",
            "mov r10, [rsi + 40]",
            "mov r11, [rsi + 48]",
            "mov r12, [rsi + 56]",
            "xor rax, [rdi]",
            "xor rbx, [rdi + 8]",
            "xor rdx, [rdi + 16]",
            "xor r8, [rdi + 24]",
            "xor r9, [rdi + 32]",
            "xor r10, [rdi + 40]",
            "xor r11, [rdi + 48]",
            "xor r12, [rdi + 56]",
            "or rax, rbx",
            "or rdx, r8",
            "or r9, r10",
            "or r11, r12",
            "or rax, rdx",
            "or r9, r11",
            "or rax, r9",
            "jnz 3f",
            "add rsi, 64",
            "add rdi, 64",
            "dec rcx",
            "jnz 2b",
            "3:",
            "pop rbx",
            inout("rsi") a => _,
            inout("rdi") b => _,
            inout("rcx") count => left,
            out("rax") _,
            out("rdx") _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            out("r12") _,
            options(readonly),
        );
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_wherever_they_are() {
        let a: [u8; 300] = core::array::from_fn(|i| i as u8);
        for len in [0, 1, 63, 64, 65, 128, 299, 300] {
            // SAFETY: both have 300 bytes.
            let first = |b: &[u8; 300]| unsafe { first_difference(a.as_ptr(), b.as_ptr(), len) };
            assert_eq!(first(&a), None);
            for at in 0..300 {
                let mut b = a;
                b[at] ^= 0x80;
                let found = (at < len).then_some(at);
                assert_eq!(first(&b), found);
                b = [0; 300];
                b[at] = 1;
                // SAFETY: it has 300 bytes.
                assert_eq!(unsafe { first_nonzero(b.as_ptr(), len) }, found);
            }
        }
    }
}
