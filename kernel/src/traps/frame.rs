//! What the stack holds when an exception is handled: what the processor and the stubs pushed.

use x86_64::structures::idt::PageFaultErrorCode;

/// The registers of what an exception interrupted, as the stub and the processor pushed them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the registers' names say it all")]
pub(crate) struct TrapFrame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rbp: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rbx: u64,
    pub(crate) rax: u64,
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// What a page fault pushes.
#[repr(C)]
pub(crate) struct FaultFrame {
    /// Error code.
    pub(crate) error: u64,
    /// The instruction that faulted.
    pub(crate) rip: u64,
    /// Its code segment.
    pub(crate) cs: u64,
    /// Its flags.
    pub(crate) rflags: u64,
    /// Its stack.
    pub(crate) rsp: u64,
    /// Its stack segment.
    pub(crate) ss: u64,
}

impl FaultFrame {
    /// What the access was, and why it faulted (SDM volume 3, 4.7).
    pub(crate) fn error(&self) -> PageFaultErrorCode {
        PageFaultErrorCode::from_bits_retain(self.error)
    }
}
