//! Commands of test builds: each does something that must be caught and reported as what it
//! is, and ends QEMU with its failure status.

use super::args::Args;
use super::shell::{Command, Done, Failure, Session};
use crate::mm::image::{self, Rights};
use crate::mm::{DIRECT, direct, space};
use crate::nvdimm;
use x86_64::{PhysAddr, VirtAddr};

pub(super) const COMMANDS: &[Command] = &[
    Command { name: "test-store-text", help: "   store to kernel text", run: store_text },
    Command {
        name: "test-store-alias",
        help: "  store to kernel text through the direct map",
        run: store_alias,
    },
    Command { name: "test-execute-data", help: " execute data", run: execute_data },
    Command { name: "test-stack-overflow", help: " overflow the main stack", run: stack_overflow },
    Command {
        name: "test-store-nvdimm",
        help: " store to the NVDIMM outside the write path",
        run: store_nvdimm,
    },
    Command { name: "test-null", help: "         load from a null pointer", run: null },
    Command { name: "test-panic", help: "        panic", run: panic },
];

fn survived(what: &str) -> Done {
    Err(Failure::Other(alloc::format!("{what} went through")))
}

fn text() -> u64 {
    image::segments().find(|s| s.rights == Rights::Execute).map_or(0, |s| s.start)
}

fn store(address: u64) {
    // SAFETY: none: this is the breakage that must be caught.
    unsafe { (address as *mut u64).write_volatile(0) };
}

fn store_text(_: &mut Session, _: Args<'_>) -> Done {
    store(text());
    survived("a store to kernel text")
}

fn store_alias(_: &mut Session, _: Args<'_>) -> Done {
    let (phys, _) =
        space::look_up(VirtAddr::new(text())).ok_or(Failure::Other("text is not mapped".into()))?;
    store(direct(phys).as_u64());
    survived("a store to kernel text through the direct map")
}

fn execute_data(_: &mut Session, _: Args<'_>) -> Done {
    static mut CODE: [u8; 16] = [0xc3; 16];
    // SAFETY: none: this is the breakage that must be caught.
    let function: extern "C" fn() = unsafe {
        (&raw mut CODE).cast::<u8>().write_volatile(0xc3);
        core::mem::transmute((&raw mut CODE).cast::<u8>())
    };
    function();
    survived("execution of data")
}

#[allow(unconditional_recursion, reason = "that is what it is for")]
fn overflow(depth: u64) -> u64 {
    let room = [depth; 64];
    overflow(core::hint::black_box(&room)[3] + 1) + room[5]
}

fn stack_overflow(_: &mut Session, _: Args<'_>) -> Done {
    core::hint::black_box(overflow(0));
    survived("a stack overflow")
}

fn store_nvdimm(_: &mut Session, _: Args<'_>) -> Done {
    let served = nvdimm::table().as_ref().ok().and_then(|t| t.persistent().find(|r| nvdimm::is_served(r)));
    let range = served.ok_or(Failure::Other("there is no NVDIMM".into()))?;
    debug_assert_eq!(direct(PhysAddr::new(range.base)).as_u64(), DIRECT + range.base);
    store(DIRECT + range.base + range.length / 2);
    survived("a stray store to the NVDIMM")
}

fn null(_: &mut Session, _: Args<'_>) -> Done {
    let address = core::hint::black_box(8u64);
    // SAFETY: none: this is the breakage that must be caught.
    core::hint::black_box(unsafe { (address as *const u64).read_volatile() });
    survived("a load from a null pointer")
}

fn panic(_: &mut Session, _: Args<'_>) -> Done {
    panic!("as told");
}
