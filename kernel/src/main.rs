//! The kernel's entry point; everything else is in the library.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod entry {
    use bootloader_api::config::Mapping;
    use bootloader_api::{BootInfo, BootloaderConfig, entry_point};

    static CONFIG: BootloaderConfig = {
        let mut config = BootloaderConfig::new_default();
        // The same place as in the kernel's own address space, so that pointers into it stay
        // valid when the loader's page tables are replaced.
        config.mappings.physical_memory = Some(Mapping::FixedAddress(umbra_kernel::DIRECT));
        config.kernel_stack_size = 64 << 10;
        config
    };

    entry_point!(start, config = &CONFIG);

    fn start(info: &'static mut BootInfo) -> ! {
        umbra_kernel::start(info)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "umbra-kernel runs on bare metal only; `cargo run` builds it for that and starts it in QEMU"
    );
    std::process::exit(2);
}
