//! GDT, TSS and IDT.
//!
//! Double faults, non-maskable interrupts and machine checks have stacks of their own.
//! Everything else, page faults above all, runs on the stack it interrupts: a page fault
//! inside the handling of another must not overwrite the first one's frame.

use super::stubs;
use crate::mm::stack::Stack;
use spin::{Mutex, Once};
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;

/// Index of a stack in the TSS.
const STACK_OF_DOUBLE_FAULT: u16 = 0;
const STACK_OF_NMI: u16 = 1;
const STACK_OF_MACHINE_CHECK: u16 = 2;

static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<(GlobalDescriptorTable, SegmentSelector, SegmentSelector, SegmentSelector)> =
    Once::new();
static IDT: Mutex<InterruptDescriptorTable> = Mutex::new(InterruptDescriptorTable::new());

/// Loads an IDT that reports exceptions on whatever stack they happen: for start-up, until
/// there are stacks of our own.
pub(crate) fn load_early_idt() {
    fill_idt(false);
}

/// Loads the final GDT, TSS and IDT. The stacks are mapped.
pub(crate) fn load() {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        for (index, stack) in [
            (STACK_OF_DOUBLE_FAULT, Stack::DoubleFault),
            (STACK_OF_NMI, Stack::Nmi),
            (STACK_OF_MACHINE_CHECK, Stack::MachineCheck),
        ] {
            tss.interrupt_stack_table[usize::from(index)] = stack.top();
        }
        tss
    });
    let (gdt, code, data, task) = GDT.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(tss));
        (gdt, code, data, task)
    });
    gdt.load();
    // SAFETY: the selectors are those of the table that was just loaded: a code segment of
    // ring 0, a data segment, and an available TSS.
    unsafe {
        CS::set_reg(*code);
        SS::set_reg(*data);
        DS::set_reg(*data);
        ES::set_reg(*data);
        load_tss(*task);
    }
    fill_idt(true);
}

/// Gives page faults another entry for the time that `f` runs: for measuring.
///
/// # Safety
///
/// `entry` is the entry of a handler that resolves every page fault that `f` causes.
pub(crate) unsafe fn with_page_fault_entry<R>(entry: VirtAddr, f: impl FnOnce() -> R) -> R {
    // SAFETY: the processor reads the entry only when a page fault happens, and none does here.
    unsafe { IDT.lock().page_fault.set_handler_addr(entry) };
    let result = f();
    // SAFETY: as above; this is the entry that is there usually.
    unsafe { IDT.lock().page_fault.set_handler_addr(stubs::page_fault()) };
    result
}

fn fill_idt(own_stacks: bool) {
    let mut idt = IDT.lock();
    let stub = stubs::address;
    // SAFETY: each stub is the entry of exactly this vector, with or without error code; the
    // stack indices are those that `load` put into the TSS.
    unsafe {
        idt.divide_error.set_handler_addr(stub(0));
        idt.debug.set_handler_addr(stub(1));
        let nmi = idt.non_maskable_interrupt.set_handler_addr(stub(2));
        if own_stacks {
            nmi.set_stack_index(STACK_OF_NMI);
        }
        idt.breakpoint.set_handler_addr(stub(3));
        idt.overflow.set_handler_addr(stub(4));
        idt.bound_range_exceeded.set_handler_addr(stub(5));
        idt.invalid_opcode.set_handler_addr(stub(6));
        idt.device_not_available.set_handler_addr(stub(7));
        let double_fault = idt.double_fault.set_handler_addr(stub(8));
        if own_stacks {
            double_fault.set_stack_index(STACK_OF_DOUBLE_FAULT);
        }
        idt.invalid_tss.set_handler_addr(stub(10));
        idt.segment_not_present.set_handler_addr(stub(11));
        idt.stack_segment_fault.set_handler_addr(stub(12));
        idt.general_protection_fault.set_handler_addr(stub(13));
        idt.page_fault.set_handler_addr(stubs::page_fault());
        idt.x87_floating_point.set_handler_addr(stub(16));
        idt.alignment_check.set_handler_addr(stub(17));
        let machine_check = idt.machine_check.set_handler_addr(stub(18));
        if own_stacks {
            machine_check.set_stack_index(STACK_OF_MACHINE_CHECK);
        }
        idt.simd_floating_point.set_handler_addr(stub(19));
        idt.virtualization.set_handler_addr(stub(20));
        idt.cp_protection_exception.set_handler_addr(stub(21));
        for vector in 32..=255u8 {
            idt[vector].set_handler_addr(stub(vector));
        }
        // The table is a static that nothing but this function changes.
        idt.load_unsafe();
    }
}
