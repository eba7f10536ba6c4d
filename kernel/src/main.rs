//! The kernel: for now, proof that it was started.

#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg(target_os = "none")]

use bootloader_api::config::Mapping;
use bootloader_api::{BootInfo, BootloaderConfig};
use core::fmt::Write;

static CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::FixedAddress(0xffff_8000_0000_0000));
    config.kernel_stack_size = 64 * 1024;
    config
};
bootloader_api::entry_point!(main, config = &CONFIG);

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        for byte in s.bytes() {
            out8(0x3f8, byte);
        }
        Ok(())
    }
}

fn out8(port: u16, value: u8) {
    // SAFETY: the port is that of the first UART's data register.
    unsafe { core::arch::asm!("out dx, al", in("dx") port, in("al") value) };
}

fn main(info: &'static mut BootInfo) -> ! {
    let _ = writeln!(Serial, "umbra-kernel: hello\r\n{info:#x?}\r");
    // SAFETY: ends QEMU.
    unsafe { core::arch::asm!("out dx, eax", in("dx") 0xf4u16, in("eax") 1) };
    loop {}
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "{info}");
    loop {}
}
