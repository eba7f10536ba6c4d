//! The insides of copies, as text for the assembler: rdx bytes from rsi to rdi, upwards.
//!
//! They change rax, rcx, rdx, rsi, rdi and r8 to r11; the moves also rbx and r12, which their users
//! save.

/// Loads 64 bytes, then stores them. An emulator's TLB is direct-mapped: where source and target
/// share an entry, each change between them is a miss.
macro_rules! copy_by_moves {
    () => {
        "
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
    # The last edx bytes, fewer than 64.
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
"
    };
}
pub(super) use copy_by_moves;

/// Copies whole words, then the bytes that are left.
macro_rules! copy_by_movsq {
    () => {
        "
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
    rep movsb
"
    };
}
pub(super) use copy_by_movsq;

/// Copies bytes.
macro_rules! copy_by_movsb {
    () => {
        "
    mov rcx, rdx
    rep movsb
"
    };
}
pub(super) use copy_by_movsb;
