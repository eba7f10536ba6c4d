//! Comparing persistent memory, 64 bytes at a time: all of one side is loaded before the other.
//!
//! An emulator's TLB is direct-mapped: where both sides share an entry, each change between them is
//! a miss, so there are few of them (see `copy`).
//!
//! A comparison ends early where the hardware reports that what is being loaded is lost.

use super::copy::{self, Failed};
use super::loads::{LoadsAt, Sources};
use core::arch::global_asm;

/// Bytes that are compared at once.
const CHUNK: usize = 64;
/// What the assembly says of memory that is lost.
const LOST: usize = usize::MAX;

global_asm!(
    r#"
    .text
    # Compares up to rdx chunks, at least one, at rsi and rdi until one differs. rax is how many are
    # left with that one, or all ones behind the fixup.
    .balign 16
umbra_compare:
    push rbx
    push r12
    mov rcx, rdx
umbra_compare_start:
2:
    mov rax, [rsi]
    mov rbx, [rsi + 8]
    mov rdx, [rsi + 16]
    mov r8, [rsi + 24]
    mov r9, [rsi + 32]
    mov r10, [rsi + 40]
    mov r11, [rsi + 48]
    mov r12, [rsi + 56]
    xor rax, [rdi]
    xor rbx, [rdi + 8]
    xor rdx, [rdi + 16]
    xor r8, [rdi + 24]
    xor r9, [rdi + 32]
    xor r10, [rdi + 40]
    xor r11, [rdi + 48]
    xor r12, [rdi + 56]
    or rax, rbx
    or rdx, r8
    or r9, r10
    or r11, r12
    or rax, rdx
    or r9, r11
    or rax, r9
    jnz 3f
    add rsi, 64
    add rdi, 64
    dec rcx
    jnz 2b
umbra_compare_end:
3:
    mov rax, rcx
    pop r12
    pop rbx
    ret
umbra_compare_fixup:
    mov rax, -1
    pop r12
    pop rbx
    ret
"#
);

unsafe extern "C" {
    fn umbra_compare(b: *const u8, a: *const u8, chunks: usize) -> usize;
    static umbra_compare_start: u8;
    static umbra_compare_end: u8;
    static umbra_compare_fixup: u8;
}

/// What an instruction of a comparison loads, and where it goes on if that is lost; `None` for all
/// other instructions.
pub(crate) fn loads_at(rip: u64) -> Option<LoadsAt> {
    let inside =
        (&raw const umbra_compare_start as u64..&raw const umbra_compare_end as u64).contains(&rip);
    let fixup = &raw const umbra_compare_fixup as u64;
    inside.then_some(LoadsAt { fixup, sources: Sources::RsiAndRdi })
}

/// Where two ranges of `len` bytes first differ, counted in bytes from their starts.
///
/// # Errors
///
/// [`Failed`] if memory of either range is lost.
///
/// # Safety
///
/// Both ranges are valid for reads, and nobody stores to them meanwhile.
pub(crate) unsafe fn first_difference(
    a: *const u8,
    b: *const u8,
    len: usize,
) -> Result<Option<usize>, Failed> {
    // SAFETY: as the caller promises.
    let equal = len / CHUNK * CHUNK - unsafe { chunks(a, b, len / CHUNK)? } * CHUNK;
    let rest = CHUNK.min(len - equal);
    // SAFETY: the rest lies within the ranges.
    let found = unsafe { within_chunk(a.wrapping_add(equal), b.wrapping_add(equal), rest)? };
    Ok(found.map(|at| equal + at))
}

/// Where two ranges of `len` bytes, at most a chunk, first differ.
///
/// # Safety
///
/// As for [`first_difference`].
unsafe fn within_chunk(a: *const u8, b: *const u8, len: usize) -> Result<Option<usize>, Failed> {
    if len == 0 {
        return Ok(None);
    }
    let (mut left, mut right) = ([0; CHUNK], [0; CHUNK]);
    // SAFETY: the caller vouches for the ranges, which are no longer than the arrays.
    unsafe {
        copy::read(left.as_mut_ptr(), a, len)?;
        copy::read(right.as_mut_ptr(), b, len)?;
    }
    Ok(left[..len].iter().zip(&right).position(|(left, right)| left != right))
}

/// Where a range of `len` bytes has its first byte that is not zero, counted in bytes.
///
/// # Errors
///
/// [`Failed`] if memory of the range is lost.
///
/// # Safety
///
/// The range is valid for reads, and nobody stores to it meanwhile.
pub(crate) unsafe fn first_nonzero(a: *const u8, len: usize) -> Result<Option<usize>, Failed> {
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    let mut at = 0;
    // SAFETY: within the range.
    while at + CHUNK <= len && unsafe { chunks(a.wrapping_add(at), ZEROS.as_ptr(), 1)? } == 0 {
        at += CHUNK;
    }
    let rest = CHUNK.min(len - at);
    // SAFETY: the rest lies within the range, and is no longer than the zeros.
    let found = unsafe { within_chunk(a.wrapping_add(at), ZEROS.as_ptr(), rest)? };
    Ok(found.map(|found| at + found))
}

/// Compares up to `count` chunks, until one differs; returns how many are left with that one.
///
/// # Safety
///
/// As for [`first_difference`].
unsafe fn chunks(a: *const u8, b: *const u8, count: usize) -> Result<usize, Failed> {
    if count == 0 {
        return Ok(0);
    }
    // SAFETY: the assembly only loads from the ranges, which the caller vouches for.
    match unsafe { umbra_compare(b, a, count) } {
        LOST => Err(Failed),
        left => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_wherever_they_are() {
        let a: [u8; 300] = core::array::from_fn(|i| i as u8);
        for len in [0, 1, 63, 64, 65, 128, 299, 300] {
            // SAFETY: both have 300 bytes.
            let first =
                |b: &[u8; 300]| unsafe { first_difference(a.as_ptr(), b.as_ptr(), len) }.unwrap();
            assert_eq!(first(&a), None);
            for at in 0..300 {
                let mut b = a;
                b[at] ^= 0x80;
                let found = (at < len).then_some(at);
                assert_eq!(first(&b), found);
                b = [0; 300];
                b[at] = 1;
                // SAFETY: it has 300 bytes.
                assert_eq!(unsafe { first_nonzero(b.as_ptr(), len) }, Ok(found));
            }
        }
    }
}
