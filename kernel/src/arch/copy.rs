//! The one copy that everything uses.
//!
//! Which way of copying is fastest differs by orders of magnitude: under emulation a loop of
//! 8-byte moves beats `rep movsb` fifty-fold, on hardware it is the other way round. So
//! [`choose`] measures them at start, and `memcpy`, `memmove` and `memset` (which the compiler
//! calls by name) jump through what was chosen. Until then it is the loop. All of it is
//! assembly, so that no compiler turns the inside of `memcpy` into a call of `memcpy`.
//!
//! [`load`] and [`store`] are the same through windows: their page faults are resolved, and if one
//! cannot be, the copy ends early instead of the kernel.
//!
//! What is stored to persistent memory is stored in aligned words of 8 bytes, each by one
//! instruction: after a crash each is old or new ([`store`], [`write()`], [`zero`]). So `rep movsb`
//! is never used for that, and of a word that is stored in part, the rest is loaded first.

use super::{clock, cpu};
use core::arch::global_asm;
use core::sync::atomic::{AtomicUsize, Ordering};

global_asm!(
    r#"
    .text

    # Ways to copy rdx bytes from rsi to rdi, upwards. They change rax, rcx, rdx, rsi, rdi and r8
    # to r11; the moves also rbx and r12, which are saved around them.

    # Loads 64 bytes, then stores them. An emulator's TLB is direct-mapped: where source and
    # target share an entry, each change between them is a miss.
    .macro copy_by_moves
    sub rdx, 64
    jb 32f
    .balign 16
31:
    mov rax, [rsi]
    mov rcx, [rsi + 8]
    mov r8, [rsi + 16]
    mov r9, [rsi + 24]
    mov r10, [rsi + 32]
    mov r11, [rsi + 40]
    mov rbx, [rsi + 48]
    mov r12, [rsi + 56]
    mov [rdi], rax
    mov [rdi + 8], rcx
    mov [rdi + 16], r8
    mov [rdi + 24], r9
    mov [rdi + 32], r10
    mov [rdi + 40], r11
    mov [rdi + 48], rbx
    mov [rdi + 56], r12
    add rsi, 64
    add rdi, 64
    sub rdx, 64
    jae 31b
32:
    add edx, 64
    copy_tail
    .endm

    # Copies the last edx bytes, fewer than 64.
    .macro copy_tail
    mov ecx, edx
    shr ecx, 3
    jz 34f
33:
    mov r8, [rsi]
    mov [rdi], r8
    add rsi, 8
    add rdi, 8
    dec ecx
    jnz 33b
34:
    and edx, 7
    jz 36f
35:
    mov r8b, [rsi]
    mov [rdi], r8b
    inc rsi
    inc rdi
    dec edx
    jnz 35b
36:
    .endm

    .macro copy_by_movsq
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
    rep movsb
    .endm

    .macro copy_by_movsb
    mov rcx, rdx
    rep movsb
    .endm

    # Copies bytes until rsi, the place that may fault, is a multiple of 64: no access behind
    # that, and no 64 bytes, cross a page, so each is done whole or not at all.
    .macro align_source
    mov rcx, rsi
    neg rcx
    and rcx, 63
    cmp rcx, rdx
    cmova rcx, rdx
    sub rdx, rcx
    rep movsb
    .endm

    .balign 16
umbra_copy_moves:
    push rbx
    push r12
    mov eax, edi
    xor eax, esi
    test eax, 0x3f000
    jz 22f
21:
    copy_by_moves
    pop r12
    pop rbx
    ret
22:
    # The page numbers agree in their low six bits: source and target share an entry of a
    # small direct-mapped TLB. Long copies go through the stack, 512 bytes at a time, which is
    # less than the misses.
    cmp rdx, 1024
    jb 21b
    push r13
    push r14
    push r15
    mov r15, rdx
    sub rsp, 512
23:
    mov r13, rdi
    mov rdi, rsp
    mov edx, 512
    call umbra_moves
    mov r14, rsi
    mov rsi, rsp
    mov rdi, r13
    mov edx, 512
    call umbra_moves
    mov rsi, r14
    sub r15, 512
    cmp r15, 512
    jae 23b
    mov rdx, r15
    add rsp, 512
    pop r15
    pop r14
    pop r13
    jmp 21b
umbra_moves:
    copy_by_moves
    ret
    .balign 16
umbra_copy_movsq:
    copy_by_movsq
    ret
    .balign 16
umbra_copy_movsb:
    copy_by_movsb
    ret

    # The same, for loads that may fail: rax is 0, or 1 if a fault was not resolved.
    .balign 16
umbra_load_moves:
    push rbx
    push r12
umbra_try_start:
    align_source
    copy_by_moves
    jmp umbra_try_done
    .balign 16
umbra_load_movsq_body:
    align_source
    copy_by_movsq
    jmp umbra_try_done
    .balign 16
umbra_load_movsb_body:
    copy_by_movsb
    jmp umbra_try_done

    # For stores that may fail, of whole aligned words: they are done upwards, so that all below
    # the faulting address are done.
    .balign 16
umbra_store_moves_body:
    copy_by_moves
    jmp umbra_try_done
    .balign 16
umbra_store_movsq_body:
    shr rdx, 3
    mov rcx, rdx
    rep movsq
    jmp umbra_try_done

    # Stores the bits rsi of those that rdx has in the word at rdi, which is aligned; the others
    # stay. A fault of the load is resolved as one of the store, or there would be two.
    .balign 16
umbra_merge_load:
    mov rax, [rdi]
    not rdx
    and rax, rdx
    or rax, rsi
    mov [rdi], rax
umbra_try_end:
umbra_try_done:
    xor eax, eax
    pop r12
    pop rbx
    ret
umbra_try_fixup:
    mov eax, 1
    pop r12
    pop rbx
    ret
umbra_load_movsq:
    push rbx
    push r12
    jmp umbra_load_movsq_body
umbra_load_movsb:
    push rbx
    push r12
    jmp umbra_load_movsb_body
umbra_store_moves:
    push rbx
    push r12
    jmp umbra_store_moves_body
umbra_store_movsq:
    push rbx
    push r12
    jmp umbra_store_movsq_body
umbra_merge:
    push rbx
    push r12
    jmp umbra_merge_load

    # Ways to fill rdx bytes at rdi with the byte in every byte of rax.
    .balign 16
umbra_fill_moves:
    mov rcx, rdx
    shr rcx, 6
    jz 22f
    .balign 16
21:
    .irp at, 0, 8, 16, 24, 32, 40, 48, 56
    mov [rdi + \at], rax
    .endr
    add rdi, 64
    dec rcx
    jnz 21b
22:
    mov ecx, edx
    and ecx, 63
    shr ecx, 3
    jz 24f
23:
    mov [rdi], rax
    add rdi, 8
    dec ecx
    jnz 23b
24:
    and edx, 7
    jz 26f
25:
    mov [rdi], al
    inc rdi
    dec edx
    jnz 25b
26:
    ret
    .balign 16
umbra_fill_stosq:
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
    rep stosb
    ret

    # void *memcpy(void *to, const void *from, size_t len)
    .globl memcpy
    .balign 16
memcpy:
    push rdi
    call [rip + umbra_copy]
    pop rax
    ret

    # void *memmove(void *to, const void *from, size_t len): downwards where `to` lies within
    # the source.
    .globl memmove
    .balign 16
memmove:
    mov rax, rdi
    sub rax, rsi
    cmp rax, rdx
    jae memcpy
    mov rax, rdi
    mov rcx, rdx
    shr rcx, 3
    jz 22f
21:
    mov r8, [rsi + rdx - 8]
    mov [rdi + rdx - 8], r8
    sub rdx, 8
    dec rcx
    jnz 21b
22:
    test rdx, rdx
    jz 24f
23:
    mov r8b, [rsi + rdx - 1]
    mov [rdi + rdx - 1], r8b
    dec rdx
    jnz 23b
24:
    ret

    # void *memset(void *to, int byte, size_t len)
    .globl memset
    .balign 16
memset:
    push rdi
    movzx eax, sil
    mov rcx, 0x0101010101010101
    imul rax, rcx
    call [rip + umbra_fill]
    pop rax
    ret

    .data
    .balign 8
umbra_copy: .quad umbra_copy_moves
umbra_fill: .quad umbra_fill_moves
    .text
"#
);

type Copy = unsafe extern "C" fn(*mut u8, *const u8, usize);
type TryCopy = unsafe extern "C" fn(*mut u8, *const u8, usize) -> u64;
type Fill = unsafe extern "C" fn();

unsafe extern "C" {
    fn umbra_copy_moves(to: *mut u8, from: *const u8, len: usize);
    fn umbra_copy_movsq(to: *mut u8, from: *const u8, len: usize);
    fn umbra_copy_movsb(to: *mut u8, from: *const u8, len: usize);
    fn umbra_load_moves(to: *mut u8, from: *const u8, len: usize) -> u64;
    fn umbra_load_movsq(to: *mut u8, from: *const u8, len: usize) -> u64;
    fn umbra_load_movsb(to: *mut u8, from: *const u8, len: usize) -> u64;
    fn umbra_store_moves(to: *mut u8, from: *const u8, len: usize) -> u64;
    fn umbra_store_movsq(to: *mut u8, from: *const u8, len: usize) -> u64;
    fn umbra_merge(to: *mut u8, bits: u64, mask: u64) -> u64;
    fn umbra_fill_moves();
    fn umbra_fill_stosq();
    static umbra_try_start: u8;
    static umbra_try_end: u8;
    static umbra_try_fixup: u8;
    static umbra_merge_load: u8;
    static mut umbra_copy: Copy;
    static mut umbra_fill: Fill;
}

/// A way to copy.
pub struct Method {
    /// Its name.
    pub name: &'static str,
    copy: Copy,
    /// Copies whole words to aligned ones.
    words: Copy,
    load: TryCopy,
    /// As `words`.
    store: TryCopy,
    fill: Fill,
}

/// All ways.
pub static METHODS: [Method; 3] = [
    Method {
        name: "8-byte moves",
        copy: umbra_copy_moves,
        words: umbra_copy_moves,
        load: umbra_load_moves,
        store: umbra_store_moves,
        fill: umbra_fill_moves,
    },
    Method {
        name: "rep movsq",
        copy: umbra_copy_movsq,
        words: umbra_copy_movsq,
        load: umbra_load_movsq,
        store: umbra_store_movsq,
        fill: umbra_fill_stosq,
    },
    Method {
        name: "rep movsb",
        copy: umbra_copy_movsb,
        words: umbra_copy_movsq,
        load: umbra_load_movsb,
        store: umbra_store_movsq,
        fill: umbra_fill_stosq,
    },
];

static CHOSEN: AtomicUsize = AtomicUsize::new(0);

/// The way that was chosen.
pub fn chosen() -> &'static Method {
    &METHODS[CHOSEN.load(Ordering::Relaxed)]
}

impl Method {
    /// Copies this way.
    ///
    /// # Safety
    ///
    /// As for `memcpy`: both ranges are valid for `len` bytes and do not overlap.
    pub unsafe fn copy(&self, to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: the caller's duty.
        unsafe { (self.copy)(to, from, len) }
    }

    /// As [`write()`], this way.
    ///
    /// # Safety
    ///
    /// As for [`write()`].
    #[cold]
    #[inline(never)]
    pub unsafe fn write(&self, to: *mut u8, from: *const u8, len: usize) {
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
    pub unsafe fn store(&self, to: *mut u8, from: *const u8, len: usize) -> Result<(), Failed> {
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
const RUNS: usize = 50;
const MOST_NS: u64 = 300_000;

/// Measures all ways on 4 KiB and takes the fastest. `buffer` is two pages of scratch.
pub fn choose(buffer: &mut [u8; 8192]) {
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
    // SAFETY: aligned words that only this function writes; the functions have the interface
    // that `memcpy` and `memset` call them by.
    unsafe {
        (&raw mut umbra_copy).write_volatile(METHODS[best].copy);
        (&raw mut umbra_fill).write_volatile(METHODS[best].fill);
    }
    let ns = times.map(clock::ticks_to_ns);
    log::info!(
        "copies by {}; 4 KiB take {} ns by 8-byte moves, {} by rep movsq, {} by rep movsb",
        METHODS[best].name,
        ns[0],
        ns[1],
        ns[2]
    );
}

/// A copy ended at a fault that could not be resolved. All bytes below the faulting address
/// were copied, none from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// What the assembly says of a copy that may fail.
fn resolved(failed: u64) -> Result<(), Failed> {
    if failed == 0 { Ok(()) } else { Err(Failed) }
}

/// Copies like `memcpy`, upwards, from the window area; a page fault there that cannot be resolved
/// ends the copy.
///
/// # Safety
///
/// `to` is valid for `len` bytes; `from` lies in the window area. No reference into the filesystem
/// is alive: resolving a fault needs it.
pub unsafe fn load(to: *mut u8, from: *const u8, len: usize) -> Result<(), Failed> {
    // SAFETY: the caller's duty; faults in the window area are handled.
    resolved(unsafe { (chosen().load)(to, from, len) })
}

/// Copies like `memcpy`, upwards, to the window area, each aligned word there by one store; a page
/// fault there that cannot be resolved ends the copy.
///
/// # Safety
///
/// `from` is valid for `len` bytes; `to` lies in the window area. No reference into the filesystem
/// is alive: resolving a fault needs it.
pub unsafe fn store(to: *mut u8, from: *const u8, len: usize) -> Result<(), Failed> {
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
pub unsafe fn write(to: *mut u8, from: *const u8, len: usize) {
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
pub unsafe fn zero(to: *mut u8, len: usize) {
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

/// Stores `len` bytes so that each aligned word of the target is stored at once: of the words at
/// the ends the bits that `part` tells for these bytes, of what is between them whatever `words`
/// does. Both are told where the bytes begin, and how many they are.
///
/// # Safety
///
/// The words that `to` begins and ends in are valid, or in the window area.
#[inline(always)]
unsafe fn in_words(
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
unsafe fn bits_of(from: *const u8, len: usize) -> u64 {
    // SAFETY: the caller's duty.
    (0..len).fold(0, |bits, at| bits | u64::from(unsafe { from.add(at).read() }) << (8 * at))
}

/// Stores `len` bytes, fewer than 8, of one aligned word, by one store of all of it.
///
/// # Safety
///
/// The word is valid, or in the window area.
unsafe fn merge(to: *mut u8, bits: u64, len: usize) -> Result<(), Failed> {
    let within = to.addr() % 8;
    let mask = ((1 << (8 * len)) - 1) << (8 * within);
    // SAFETY: the caller's duty; faults in the window area are handled.
    resolved(unsafe { umbra_merge(to.wrapping_sub(within), bits << (8 * within), mask) })
}

/// Where an instruction of [`load`] or [`store`] goes on if its fault cannot be resolved; `None`
/// for all other instructions.
pub fn fixup_of(rip: u64) -> Option<u64> {
    let inside =
        (&raw const umbra_try_start as u64..&raw const umbra_try_end as u64).contains(&rip);
    inside.then_some(&raw const umbra_try_fixup as u64)
}

/// Whether an instruction loads what it is about to store to.
pub fn is_about_to_store(rip: u64) -> bool {
    rip == &raw const umbra_merge_load as u64
}
