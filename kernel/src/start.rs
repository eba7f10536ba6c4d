//! Start-up: from the loader's hands to the poll loop.

use crate::arch::apic::{self, vector};
use crate::arch::{clock, copy, mce, serial};
use crate::config::Config;
use crate::console::log_lines;
use crate::mm::boot::MemoryMap;
use crate::mm::{DIRECT, frames, image, space};
use crate::traps::tables;
use crate::{acpi, cpu, fw_cfg, media, serve};
use bootloader_api::BootInfo;
use spin::Once;

static MEMORY_MAP: Once<MemoryMap> = Once::new();

/// The kernel's start, on the loader's stack and page tables.
pub fn start(info: &'static mut BootInfo) -> ! {
    serial::init();
    tables::load_early_idt();
    cpu::protect();
    let offset = info.physical_memory_offset.into_option();
    assert_eq!(
        offset,
        Some(DIRECT),
        "the loader did not map physical memory where the kernel wants it"
    );
    let memory = MEMORY_MAP.call_once(|| MemoryMap::new(info));
    // SAFETY: the first and only time; the loader mapped RAM at `DIRECT`, and says which is free.
    unsafe { frames::init(memory) };
    // SAFETY: the pool is started; `run` needs nothing of the loader.
    unsafe { space::enter(memory, run) }
}

/// Goes on in the kernel's own address space, on the main stack.
extern "C" fn run() -> ! {
    tables::load();
    let memory = MEMORY_MAP.get().expect("set by `start`");
    // SAFETY: page tables, stack and descriptor tables are the kernel's own now; what mattered
    // of the loader's information was copied.
    unsafe { frames::reclaim_loader(memory, space::image_frames()) };
    log_lines::init();
    start_devices(memory);
    let (config, problems) = Config::parse(&fw_cfg::file(fw_cfg::CONFIG).unwrap_or_default());
    for problem in problems {
        log::warn!("option {problem}");
    }
    log::info!(
        "umbra {} on {} MiB of RAM; image {} KiB",
        env!("CARGO_PKG_VERSION"),
        memory.usable() >> 20,
        (image::range().end - image::range().start) >> 10
    );
    media::start(memory, config);
    serve::serve(config)
}

/// Interrupts, clock, machine checks, copies. Without interrupt controllers nothing would ever
/// wake the kernel, so it does not go on without them.
fn start_devices(memory: &MemoryMap) {
    let firmware = match acpi::init(memory.rsdp) {
        Ok(firmware) => firmware,
        Err(why) => panic!("{why}"),
    };
    if let Err(why) = apic::init(&firmware.interrupts) {
        panic!("local APIC: {why}");
    }
    clock::init(firmware.pm_timer);
    clock::read_wall_clock(firmware.century_register);
    mce::enable();
    if let Err(why) = apic::route_isa(&firmware.interrupts, serial::IRQ, vector::SERIAL) {
        log::error!("the console cannot be typed at: {why}");
    }
    serial::enable_input();
    x86_64::instructions::interrupts::enable();
    let mut scratch = alloc::boxed::Box::new([0; 8192]);
    copy::choose(&mut scratch);
}
