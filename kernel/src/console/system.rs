//! Commands on the machine.

use super::args::Args;
use super::command::{Command, Done, Failure, Session};
use crate::arch::serial::println;
use crate::arch::{clock, interrupts};
use crate::mm::{frames, heap, image};
use crate::{dax, error_log, media, nvdimm};

pub(super) const COMMANDS: &[Command] = &[
    Command { name: "nvdimm", help: "            the NVDIMMs of the machine", run: list_nvdimms },
    Command { name: "mem", help: "               memory in use", run: mem },
    Command { name: "errors", help: "            memory errors since the start", run: errors },
    Command { name: "net", help: "               connections of clients", run: net },
    Command { name: "uptime", help: "            time since start, interrupts", run: uptime },
    Command { name: "version", help: "           version of this kernel", run: version },
    Command { name: "poweroff", help: "          unmount and power off", run: poweroff },
];

fn list_nvdimms(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    let nfit = match nvdimm::table() {
        Ok(nfit) => nfit,
        Err(why) => return Err(Failure::Other(alloc::format!("{why}"))),
    };
    for range in &nfit.ranges {
        let served = if nvdimm::is_served(range) { " (served)" } else { "" };
        println!(
            "range {} at {:#x}: {} KiB of {}{served}",
            range.index,
            range.base,
            range.length >> 10,
            range.kind
        );
        if let Err(why) = nfit.usable(range) {
            println!("  not usable: {why}");
        }
        for region in nfit.behind(range) {
            println!(
                "  NVDIMM {:#x}: {} KiB from {:#x}, {} ways",
                region.handle,
                region.size >> 10,
                region.dpa,
                region.ways.max(1)
            );
            if let Some(control) = nfit.control(region) {
                println!(
                    "    vendor {:04x} device {:04x} serial {:08x}",
                    control.vendor, control.device, control.serial
                );
            }
        }
        let hints = nfit.hints(range).count();
        if hints > 0 {
            println!("  {hints} flush hints");
        }
    }
    match nfit.capabilities {
        Some(c) if c.cpu_cache => println!("power loss: CPU caches are written back"),
        Some(c) if c.memory_controller => {
            println!("power loss: memory controllers are drained; stores need flushing")
        }
        Some(_) => println!("power loss: nothing is promised beyond what was flushed"),
        None => println!("the table has no platform capabilities; stores need flushing"),
    }
    Ok(())
}

fn mem(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    let (frames, heap, writes) = (frames::counts(), heap::counts(), nvdimm::counts());
    println!(
        "frames: {} total, {} free, {} at least",
        frames.total, frames.free, frames.least_free
    );
    println!(
        "heap: {} bytes of {} in use, {} at most; {} blocks, {} ever",
        heap.used, heap.size, heap.peak, heap.live, heap.allocations
    );
    println!("windows: {} slots, {} KiB of page tables", dax::slots(), u64::from(dax::slots()) * 4);
    println!("image: {} KiB", (image::range().end - image::range().start) >> 10);
    println!("write path: {} lines flushed, {} fences", writes.flushes, writes.fences);
    Ok(())
}

fn errors(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    let e = error_log::counts();
    println!(
        "memory errors: {} uncorrected, {} corrected, {} not recorded",
        e.uncorrected, e.corrected, e.unrecorded
    );
    if let Some(bad) = dax::with_volume(|volume| volume.bad_block_counts()) {
        println!(
            "bad blocks: {} on the list, {} of them out of use, {} without room, {} unreadable{}",
            bad.listed,
            bad.out_of_use,
            bad.unlisted,
            bad.unreadable,
            if bad.unsaved { ", not written yet" } else { "" }
        );
    }
    Ok(())
}

fn net(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    let Some(n) = crate::net::statistics() else {
        return Err(Failure::Other("the machine has no vsock device that can be used".into()));
    };
    println!("connections: {} now, {} so far, {} refused", n.connections, n.accepted, n.refused);
    println!(
        "reset by this end: {}, {} of them overruns, {} timeouts",
        n.resets, n.overruns, n.timeouts
    );
    println!(
        "received: {} bytes in {} packets, {} packets ignored",
        n.bytes_in, n.packets, n.ignored
    );
    println!("receive windows: {} KiB of memory not promised", n.chunks_unreserved * 4);
    if let Some(lending) = dax::with_volume(|volume| volume.lending()) {
        println!(
            "blocks to receive into: {} lent, {} taken over by files",
            lending.lent, lending.taken_over
        );
    }
    Ok(())
}

fn uptime(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    println!(
        "{} ms, {} interrupts, counter at {} kHz",
        clock::now().0 / 1_000_000,
        interrupts::count(),
        clock::frequency() / 1000
    );
    println!("wall clock {} s since 1970", clock::wall().0 / 1_000_000_000);
    Ok(())
}

fn version(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    println!("umbra {}", env!("CARGO_PKG_VERSION"));
    Ok(())
}

fn poweroff(_: &mut Session, args: Args<'_>) -> Done {
    args.end()?;
    media::power_off()
}
