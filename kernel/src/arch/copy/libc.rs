//! `memcpy`, `memmove` and `memset`, which the compiler calls by name.

use super::plain::{Copy, Fill};
use core::arch::global_asm;

global_asm!(
    r#"
    .text

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

unsafe extern "C" {
    static mut umbra_copy: Copy;
    static mut umbra_fill: Fill;
}

/// Has them copy and fill this way from now on.
///
/// # Safety
///
/// `copy` and `fill` are ways of [`METHODS`](super::METHODS), and nobody else calls this.
pub(super) unsafe fn use_ways(copy: Copy, fill: Fill) {
    // SAFETY: aligned words that only this function writes; the functions have the interface that
    // `memcpy` and `memset` call them by.
    unsafe {
        (&raw mut umbra_copy).write_volatile(copy);
        (&raw mut umbra_fill).write_volatile(fill);
    }
}
