//! Exceptions in the loader: each is reported with its registers, a stack overflow too.
//!
//! All 32 vectors run on a stack of their own, so that a fault caused by the stack can still be
//! told. The kernel brings its own tables; between the switch to its page tables and its `lidt`
//! nothing can be caught.

use core::cell::UnsafeCell;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::control::Cr2;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

/// A static that is written once, by [`init`], before anything else can look at it.
struct Once<T>(UnsafeCell<T>);

// SAFETY: the loader runs on one CPU with interrupts off. `init` is the only writer and runs once;
// after it the CPU is the only reader.
unsafe impl<T> Sync for Once<T> {}

const STACK: usize = 16 * 1024;
static EXCEPTION_STACK: Once<[u8; STACK]> = Once(UnsafeCell::new([0; STACK]));
static TSS: Once<TaskStateSegment> = Once(UnsafeCell::new(TaskStateSegment::new()));
static GDT: Once<GlobalDescriptorTable> = Once(UnsafeCell::new(GlobalDescriptorTable::new()));
static IDT: Once<InterruptDescriptorTable> = Once(UnsafeCell::new(InterruptDescriptorTable::new()));

/// Bytes in a stub of `entry.s`.
const STUB: u64 = 16;

unsafe extern "C" {
    static exception_stubs: u8;
}

/// What the stubs and the CPU push.
#[repr(C)]
struct Frame {
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Loads a GDT with a TSS, and an IDT that covers every exception. Called once.
pub fn init() {
    // SAFETY: see `Once`: this is the one writer, and nothing has been loaded from these statics
    // yet.
    let (tss, gdt, idt) = unsafe { (&mut *TSS.0.get(), &mut *GDT.0.get(), &mut *IDT.0.get()) };

    tss.interrupt_stack_table[0] = VirtAddr::from_ptr(EXCEPTION_STACK.0.get()) + STACK as u64;
    let code = gdt.append(Descriptor::kernel_code_segment());
    let data = gdt.append(Descriptor::kernel_data_segment());
    let task = gdt.append(Descriptor::tss_segment(tss));
    gdt.load();
    // SAFETY: the selectors are those of the table that was just loaded: a 64-bit code segment, a
    // flat data segment and a valid TSS, all static.
    unsafe {
        CS::set_reg(code);
        DS::set_reg(data);
        ES::set_reg(data);
        SS::set_reg(data);
        load_tss(task);
    }

    let stubs = VirtAddr::from_ptr(&raw const exception_stubs);
    let stub = |vector: u64| stubs + vector * STUB;
    macro_rules! set {
        ($($vector:literal $entry:ident),*) => {$(
            // SAFETY: the address is that of the vector's stub, which leaves the stack as `Frame`
            // describes and never returns; stack 0 of the TSS is set above.
            unsafe { idt.$entry.set_handler_addr(stub($vector)).set_stack_index(0) };
        )*};
    }
    set!(
        0 divide_error, 1 debug, 2 non_maskable_interrupt, 3 breakpoint, 4 overflow,
        5 bound_range_exceeded, 6 invalid_opcode, 7 device_not_available, 8 double_fault,
        10 invalid_tss, 11 segment_not_present,
        12 stack_segment_fault, 13 general_protection_fault, 14 page_fault, 16 x87_floating_point,
        17 alignment_check, 18 machine_check, 19 simd_floating_point, 20 virtualization,
        21 cp_protection_exception, 28 hv_injection_exception, 29 vmm_communication_exception,
        30 security_exception
    );
    idt.load();
}

/// Where the stubs arrive.
#[unsafe(no_mangle)]
extern "C" fn boot_exception(frame: &Frame) -> ! {
    let Frame { vector, error_code, rip, cs, rflags, rsp, ss } = frame;
    let cr2 = Cr2::read_raw();
    crate::console::fail(format_args!(
        "exception {vector}, error code {error_code:#x}, at rip {cs:#x}:{rip:#x}, \
         rsp {ss:#x}:{rsp:#x}, rflags {rflags:#x}, cr2 {cr2:#x}"
    ))
}
