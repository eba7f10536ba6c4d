//! The loader: `qemu -kernel umbra-boot -initrd KERNEL.ELF` enters here, and the kernel at its
//! `_start`.
//!
//! ```text
//! entry.s      PVH entry, 32-bit, no paging -> page tables for 4 GiB, long mode, a stack
//! traps        from here on an exception is reported, not a silent reset
//! (library)    start info, memory map and the kernel's file are checked
//! paging       the loader's own pages: text executable, data not, no page below the stack
//! handover     bootloader-x86_64-common maps the kernel, writes BootInfo, jumps
//! ```
//!
//! What it leaves out: everything a kernel can do itself. It looks for no device, reads no ACPI
//! table and prints nothing unless it fails. Then it says why on the first serial port and leaves
//! QEMU through `isa-debug-exit` with [`console::FAILURE`], or halts where there is none.
//!
//! Specifications: Xen's "x86/HVM direct boot ABI" for what comes in, the crate `bootloader_api`
//! 0.11 for what goes out.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod handover;
#[cfg(target_os = "none")]
mod paging;
#[cfg(target_os = "none")]
mod physical;
#[cfg(target_os = "none")]
mod traps;

#[cfg(target_os = "none")]
core::arch::global_asm!(
    include_str!("entry.s"),
    exit_code = const console::FAILURE,
    exit_port = const console::EXIT_PORT,
);

/// Where `entry.s` arrives in long mode, once, with the address of PVH's start info.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn boot_main(start_info: u64) -> ! {
    traps::init();
    paging::restrict();
    match handover::run(start_info) {
        Err(error) => console::fail(format_args!("{error}")),
    }
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    console::fail(format_args!("{info}"))
}

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "umbra-boot is a boot loader: \
         build it for x86_64-unknown-none and give it to QEMU as -kernel"
    );
    std::process::ExitCode::from(2)
}
