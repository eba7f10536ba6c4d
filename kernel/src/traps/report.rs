//! What is printed about an exception or a panic, before QEMU ends with status 33.

use super::frame::TrapFrame;
use crate::arch::serial::println;
use crate::arch::{exit, serial};
use crate::dax::fault;
use crate::memory_errors::RING;
use crate::mm::image::{self, Rights};
use crate::mm::stack::Stack;
use crate::mm::{AREA, DEVICES, DIRECT, HEAP, PAGE, STACKS, WINDOWS, WRITE_ALIAS, space};
use crate::nvdimm;
use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::VirtAddr;
use x86_64::structures::idt::{ExceptionVector, PageFaultErrorCode};
use x86_64::structures::paging::PageTableFlags;

/// Most frames of a backtrace.
const MAX_FRAMES: usize = 32;

/// Starts a last report; a failure inside one ends at once.
fn begin() {
    static REPORTING: AtomicBool = AtomicBool::new(false);
    x86_64::instructions::interrupts::disable();
    if REPORTING.swap(true, Ordering::Relaxed) {
        exit::failure();
    }
    // SAFETY: a report ends the machine.
    unsafe { serial::seize() };
}

/// Reports an exception that is a bug, and ends.
pub(crate) fn exception(frame: &TrapFrame, address: u64) -> ! {
    begin();
    match ExceptionVector::try_from(frame.vector as u8) {
        Ok(ExceptionVector::Page) => {
            let error = PageFaultErrorCode::from_bits_retain(frame.error);
            println!("\nfatal: {}", PageFault { error, address })
        }
        // An overflowing stack has no room for the page fault's frame.
        Ok(ExceptionVector::Double) => {
            match Stack::of_guard(address).or_else(|| Stack::of_guard(frame.rsp - 1)) {
                Some(stack) => {
                    println!(
                        "\nfatal: stack overflow into the guard page of {} (double fault)",
                        stack.name()
                    )
                }
                None => println!("\nfatal: double fault"),
            }
        }
        Ok(vector) => println!(
            "\nfatal: exception {vector:?} (vector {}, error code {:#x})",
            frame.vector, frame.error
        ),
        Err(_) => println!("\nfatal: exception with the reserved vector {}", frame.vector),
    }
    registers(frame, address);
    backtrace(Some(frame.rip), frame.rbp);
    exit::failure()
}

/// Reports a machine check that cannot be survived, and ends.
pub(crate) fn machine_check(frame: &TrapFrame, status: u64) -> ! {
    begin();
    println!("\nfatal: machine check that cannot be resumed from (MCG_STATUS {status:#x})");
    while let Some(record) = RING.take() {
        println!(
            "  bank {} status {:#018x} address {:#x}",
            record.bank, record.status, record.address
        );
    }
    registers(frame, 0);
    backtrace(Some(frame.rip), frame.rbp);
    exit::failure()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    println!("\n{info}");
    let frame: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack)) };
    backtrace(None, frame);
    exit::failure()
}

/// Says what a page fault was.
struct PageFault {
    error: PageFaultErrorCode,
    address: u64,
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PageFault { error, address } = *self;
        let mapped = error.contains(PageFaultErrorCode::PROTECTION_VIOLATION);
        let fetches = error.contains(PageFaultErrorCode::INSTRUCTION_FETCH);
        let stores = error.contains(PageFaultErrorCode::CAUSED_BY_WRITE);
        let doing = match (fetches, stores) {
            (true, _) => "execution of",
            (false, true) => "store to",
            (false, false) => "load from",
        };
        let within = |start: u64, len: u64| (start..start + len).contains(&address);
        let place = Described(address);
        if let Some(stack) = Stack::of_guard(address) {
            write!(f, "stack overflow into the guard page of {}", stack.name())?;
        } else if error.contains(PageFaultErrorCode::MALFORMED_TABLE) {
            write!(f, "page table with reserved bits for {place}")?;
        } else if fetches && mapped {
            write!(f, "execution of data: {place}")?;
        } else if within(WINDOWS, AREA) && fault::in_windows(address) {
            write!(f, "{doing} a window that could not be resolved: {}", fault::why_unresolved())?;
        } else if mapped && stores && nvdimm::contains_view(address) {
            write!(f, "store to the NVDIMM outside the write path")?;
        } else if address < PAGE {
            write!(f, "{doing} a null pointer")?;
        } else {
            write!(f, "{doing} {place}")?;
        }
        let how = if mapped { "not allowed" } else { "not mapped" };
        let bits = error.bits();
        write!(f, " (page fault at {address:#x}, {how}, error code {bits:#x})")
    }
}

/// An address, shown as what lies there.
struct Described(u64);

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = |start: u64| (start..start + AREA).contains(&self.0);
        let Ok(address) = VirtAddr::try_new(self.0) else {
            return f.write_str("a non-canonical address");
        };
        let text = match image::rights_at(address) {
            Some(Rights::Execute) => "kernel text",
            Some(Rights::Read) => "kernel constants",
            Some(Rights::Write) => "kernel data",
            None if nvdimm::contains_view(self.0) => "the NVDIMM",
            None if within(DIRECT) => match direct_image(address) {
                Some(Rights::Execute) => "kernel text, through the direct map",
                Some(_) => "kernel constants, through the direct map",
                None => "the direct map",
            },
            None if within(WRITE_ALIAS) => "the NVDIMM's write alias",
            None if within(WINDOWS) => "the window area",
            None if within(DEVICES) => "device registers",
            None if within(STACKS) => match Stack::containing(self.0) {
                Some(stack) => stack.name(),
                None => "the stack area",
            },
            None if within(HEAP) => "the heap",
            None => "memory that is nobody's",
        };
        f.write_str(text)
    }
}

/// What of the image lies in the frame that an address of the direct map shows, if that is
/// not data.
fn direct_image(address: VirtAddr) -> Option<Rights> {
    let (phys, flags) = space::look_up(address)?;
    if flags.contains(PageTableFlags::WRITABLE) {
        return None;
    }
    let frame = phys.align_down(PAGE);
    let pages = |s: image::Segment| (s.start..s.end).step_by(PAGE as usize).map(VirtAddr::new);
    let shows = |page| space::look_up(page).is_some_and(|(phys, _)| phys == frame);
    image::segments().find(|segment| pages(*segment).any(shows)).map(|segment| segment.rights)
}

fn registers(frame: &TrapFrame, cr2: u64) {
    let f = frame;
    println!(
        "  rip {:016x}  rsp {:016x}  rflags {:08x}  cs {:04x}  ss {:04x}",
        f.rip, f.rsp, f.rflags, f.cs, f.ss
    );
    println!("  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}", f.rax, f.rbx, f.rcx, f.rdx);
    println!("  rsi {:016x}  rdi {:016x}  rbp {:016x}  r8  {:016x}", f.rsi, f.rdi, f.rbp, f.r8);
    println!("  r9  {:016x}  r10 {:016x}  r11 {:016x}  r12 {:016x}", f.r9, f.r10, f.r11, f.r12);
    println!("  r13 {:016x}  r14 {:016x}  r15 {:016x}  cr2 {cr2:016x}", f.r13, f.r14, f.r15);
}

/// Follows the frame pointers. The addresses are those in the kernel's file:
/// `addr2line -e` names the lines.
fn backtrace(first: Option<u64>, mut frame: u64) {
    println!("backtrace:");
    if let Some(first) = first {
        println!("  {first:#018x}");
    }
    for _ in 0..MAX_FRAMES {
        let on_a_stack = frame.is_multiple_of(8)
            && (Stack::containing(frame).is_some_and(|s| Stack::containing(frame + 8) == Some(s)));
        if !on_a_stack {
            return;
        }
        // SAFETY: both words lie on a stack, which is mapped; whatever they hold, they are only
        // shown and checked again.
        let (next, address) =
            unsafe { ((frame as *const u64).read(), ((frame + 8) as *const u64).read()) };
        if address == 0 {
            return;
        }
        println!("  {address:#018x}");
        // Frames lie above each other; anything else is a loop or nonsense.
        if next <= frame {
            return;
        }
        frame = next;
    }
}
