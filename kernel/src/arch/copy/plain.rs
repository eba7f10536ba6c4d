//! Copies and fills of memory that cannot fail.

use super::ways::{copy_by_moves, copy_by_movsb, copy_by_movsq};
use core::arch::global_asm;

/// Copies `len` bytes.
pub(super) type Copy = unsafe extern "C" fn(*mut u8, *const u8, usize);
/// Fills rdx bytes at rdi with the byte in every byte of rax.
pub(super) type Fill = unsafe extern "C" fn();

global_asm!(
    r#"
    .text
    .globl umbra_copy_moves, umbra_copy_movsq, umbra_copy_movsb
    .globl umbra_fill_moves, umbra_fill_stosq
    .balign 16
umbra_copy_moves:
    push rbx
    push r12
    mov eax, edi
    xor eax, esi
    test eax, 0x3f000
    jz 22f
21:
"#,
    copy_by_moves!(),
    r#"
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
"#,
    copy_by_moves!(),
    r#"
    ret
    .balign 16
umbra_copy_movsq:
"#,
    copy_by_movsq!(),
    r#"
    ret
    .balign 16
umbra_copy_movsb:
"#,
    copy_by_movsb!(),
    r#"
    ret

    .balign 16
    # Ways to fill rdx bytes at rdi with the byte in every byte of rax.
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
"#
);

unsafe extern "C" {
    pub(super) fn umbra_copy_moves(to: *mut u8, from: *const u8, len: usize);
    pub(super) fn umbra_copy_movsq(to: *mut u8, from: *const u8, len: usize);
    pub(super) fn umbra_copy_movsb(to: *mut u8, from: *const u8, len: usize);
    pub(super) fn umbra_fill_moves();
    pub(super) fn umbra_fill_stosq();
}
