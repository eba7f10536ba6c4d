//! Assembly entries of exceptions and interrupts.
//!
//! Three shapes. Exceptions save every register, since a report shows them. Interrupts and
//! page faults save what Rust may change, nothing more: both are on hot paths. Page faults
//! that the fast handler does not resolve go on as exceptions, as if nothing had happened.
//!
//! The processor aligns the stack to 16 before it pushes a frame; the numbers of pushes
//! below keep it so at each call, as the ABI wants.

use core::arch::global_asm;
use x86_64::VirtAddr;

/// Bytes from one stub to the next.
const STUB: u64 = 16;

/// Saves the registers that a function of the C ABI may change: 72 bytes on the stack.
macro_rules! save_scratch {
    () => {
        "pushq %rax; pushq %rcx; pushq %rdx; pushq %rsi; pushq %rdi
         pushq %r8; pushq %r9; pushq %r10; pushq %r11"
    };
}
pub(crate) use save_scratch;

/// Restores what `save_scratch` saved.
macro_rules! restore_scratch {
    () => {
        "popq %r11; popq %r10; popq %r9; popq %r8
         popq %rdi; popq %rsi; popq %rdx; popq %rcx; popq %rax"
    };
}
pub(crate) use restore_scratch;

global_asm!(
    r#"
    .text
    .balign 16
umbra_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector < 32
        # Vectors 8, 10 to 14, 17, 21, 29 and 30 come with an error code.
        .if ((0x60227d00 >> vector) & 1) == 0
            pushq $0
        .endif
        pushq $vector
        jmp umbra_exception
    .else
        pushq $0
        pushq $vector
        jmp umbra_interrupt
    .endif
    .set vector, vector + 1
    .endr

umbra_exception:
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rbp
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    call {exception}
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rbp
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp
    iretq

umbra_interrupt:
"#,
    save_scratch!(),
    r#"
    cld
    movl 72(%rsp), %edi
    call {interrupt}
"#,
    restore_scratch!(),
    r#"
    addq $16, %rsp
    iretq

    .balign 16
umbra_page_fault:
"#,
    save_scratch!(),
    r#"
    subq $8, %rsp
    cld
    leaq 80(%rsp), %rdi
    movq %cr2, %rsi
    call {page_fault}
    addq $8, %rsp
    testb %al, %al
    jz 1f
"#,
    restore_scratch!(),
    r#"
    addq $8, %rsp
    iretq
1:
"#,
    restore_scratch!(),
    r#"
    pushq $14
    jmp umbra_exception
"#,
    exception = sym super::exceptions::exception,
    interrupt = sym crate::arch::interrupts::interrupt,
    page_fault = sym super::exceptions::page_fault,
    options(att_syntax)
);

unsafe extern "C" {
    static umbra_stubs: u8;
    static umbra_page_fault: u8;
}

/// The entry of a vector.
pub(crate) fn address(vector: u8) -> VirtAddr {
    VirtAddr::from_ptr(&raw const umbra_stubs) + u64::from(vector) * STUB
}

/// The entry of page faults.
pub(crate) fn page_fault() -> VirtAddr {
    VirtAddr::from_ptr(&raw const umbra_page_fault)
}
