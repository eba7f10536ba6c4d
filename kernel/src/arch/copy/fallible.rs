//! Copies that end early where memory cannot be accessed: at a page fault in the window area that
//! could not be resolved, or at memory that the hardware reports as lost.
//!
//! Each instruction that may fail has a *fixup*, an address where the copy ends with a failure. The
//! handlers of page faults ([`fixup_of`]) and of machine checks ([`loads_at`]) put that address
//! into the frame that they return to.

use super::ways::{copy_by_moves, copy_by_movsb, copy_by_movsq};
use crate::arch::loads::{LoadsAt, Sources};
use core::arch::global_asm;

/// Copies `len` bytes; 0 if all were copied.
pub(super) type TryCopy = unsafe extern "C" fn(*mut u8, *const u8, usize) -> u64;

/// A copy ended early. Where a page fault ended it, all bytes below the faulting address were
/// copied, none from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// What the assembly says of a copy that may fail.
pub(super) fn resolved(failed: u64) -> Result<(), Failed> {
    if failed == 0 { Ok(()) } else { Err(Failed) }
}

/// Copies bytes until rsi, the address that may fault, is a multiple of 64. No access behind that
/// and no 64 bytes cross a page, so each access is done whole or not at all.
macro_rules! align_source {
    () => {
        "
    mov rcx, rsi
    neg rcx
    and rcx, 63
    cmp rcx, rdx
    cmova rcx, rdx
    sub rdx, rcx
    rep movsb
"
    };
}

global_asm!(
    r#"
    .text

    .globl umbra_load_moves, umbra_load_movsq, umbra_load_movsb
    .globl umbra_read_moves, umbra_read_movsq, umbra_read_movsb
    .globl umbra_store_moves, umbra_store_movsq

    # All of these save rbx and r12 before the first instruction that may fail, so that there is one
    # way out: rax is 0, or 1 behind a fixup.
    .balign 16
umbra_load_moves:
    push rbx
    push r12
umbra_try_start:
"#,
    align_source!(),
    r#"
umbra_moves_body:
"#,
    copy_by_moves!(),
    r#"
    jmp umbra_try_done
    .balign 16
umbra_load_movsq_body:
"#,
    align_source!(),
    r#"
umbra_movsq_body:
"#,
    copy_by_movsq!(),
    r#"
    jmp umbra_try_done
    .balign 16
umbra_movsb_body:
"#,
    copy_by_movsb!(),
    r#"
    jmp umbra_try_done

    # For stores that may fail, of whole aligned words: they are done upwards, so that all below
    # the faulting address are done.
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
    .irp way, load_movsq, store_movsq
umbra_\way:
    push rbx
    push r12
    jmp umbra_\way\()_body
    .endr
umbra_load_movsb:
umbra_read_movsb:
    push rbx
    push r12
    jmp umbra_movsb_body
umbra_store_moves:
    push rbx
    push r12
    jmp umbra_moves_body
umbra_read_movsq:
    push rbx
    push r12
    jmp umbra_movsq_body
umbra_merge:
    push rbx
    push r12
    jmp umbra_merge_load

    # As umbra_copy_moves, with a fixup.
    .balign 16
umbra_read_moves:
    push rbx
    push r12
    mov eax, edi
    xor eax, esi
    test eax, 0x3f000
    jnz umbra_moves_body
    cmp rdx, 1024
    jb umbra_moves_body
    push r13
    push r14
    push r15
    mov r15, rdx
    sub rsp, 512
umbra_bounce_start:
23:
    mov r13, rdi
    mov rdi, rsp
    mov edx, 512
"#,
    copy_by_moves!(),
    r#"
    mov r14, rsi
    mov rsi, rsp
    mov rdi, r13
    mov edx, 512
"#,
    copy_by_moves!(),
    r#"
    mov rsi, r14
    sub r15, 512
    cmp r15, 512
    jae 23b
umbra_bounce_end:
    mov rdx, r15
    add rsp, 512
    pop r15
    pop r14
    pop r13
    jmp umbra_moves_body
umbra_bounce_fixup:
    add rsp, 512
    pop r15
    pop r14
    pop r13
    jmp umbra_try_fixup
"#
);

unsafe extern "C" {
    pub(super) fn umbra_load_moves(to: *mut u8, from: *const u8, len: usize) -> u64;
    pub(super) fn umbra_load_movsq(to: *mut u8, from: *const u8, len: usize) -> u64;
    pub(super) fn umbra_load_movsb(to: *mut u8, from: *const u8, len: usize) -> u64;
    pub(super) fn umbra_read_moves(to: *mut u8, from: *const u8, len: usize) -> u64;
    pub(super) fn umbra_read_movsq(to: *mut u8, from: *const u8, len: usize) -> u64;
    pub(super) fn umbra_read_movsb(to: *mut u8, from: *const u8, len: usize) -> u64;
    pub(super) fn umbra_store_moves(to: *mut u8, from: *const u8, len: usize) -> u64;
    pub(super) fn umbra_store_movsq(to: *mut u8, from: *const u8, len: usize) -> u64;
    fn umbra_merge(to: *mut u8, bits: u64, mask: u64) -> u64;
    static umbra_try_start: u8;
    static umbra_try_end: u8;
    static umbra_try_fixup: u8;
    static umbra_merge_load: u8;
    static umbra_bounce_start: u8;
    static umbra_bounce_end: u8;
    static umbra_bounce_fixup: u8;
}

/// Stores `len` bytes, fewer than 8, of one aligned word, by one store of all of it.
///
/// # Safety
///
/// The word is valid, or in the window area.
pub(super) unsafe fn merge(to: *mut u8, bits: u64, len: usize) -> Result<(), Failed> {
    let within = to.addr() % 8;
    let mask = ((1 << (8 * len)) - 1) << (8 * within);
    // SAFETY: the caller's duty; faults in the window area are handled.
    resolved(unsafe { umbra_merge(to.wrapping_sub(within), bits << (8 * within), mask) })
}

/// Where an instruction of a copy through a window goes on if its page fault cannot be resolved;
/// `None` for all other instructions.
pub(crate) fn fixup_of(rip: u64) -> Option<u64> {
    let inside =
        (&raw const umbra_try_start as u64..&raw const umbra_try_end as u64).contains(&rip);
    inside.then_some(&raw const umbra_try_fixup as u64)
}

/// What an instruction of a copy loads, and where it goes on if that is lost; `None` for all other
/// instructions.
pub(crate) fn loads_at(rip: u64) -> Option<LoadsAt> {
    let (bounce_start, bounce_end) =
        (&raw const umbra_bounce_start as u64, &raw const umbra_bounce_end as u64);
    if (bounce_start..bounce_end).contains(&rip) {
        let fixup = &raw const umbra_bounce_fixup as u64;
        return Some(LoadsAt { fixup, sources: Sources::Rsi });
    }
    let merges =
        (&raw const umbra_merge_load as u64..&raw const umbra_try_end as u64).contains(&rip);
    let sources = if merges { Sources::Rdi } else { Sources::Rsi };
    Some(LoadsAt { fixup: fixup_of(rip)?, sources })
}

/// Whether an instruction loads what it is about to store to.
pub(crate) fn is_about_to_store(rip: u64) -> bool {
    rip == &raw const umbra_merge_load as u64
}
