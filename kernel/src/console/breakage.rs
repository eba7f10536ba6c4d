//! Commands of test builds. All but three do something that must be caught and reported as what it
//! is, and that ends QEMU with its failure status; `test-copies` and `test-words` try what the host
//! cannot run: the assembly behind `memcpy`, `memmove` and `memset`, and behind stores to
//! persistent memory. `test-lost` is in `lost.rs`.

use super::args::Args;
use super::command::{Command, Done, Failure, Session};
use crate::arch::serial::println;
use crate::arch::{copy, stepping};
use crate::mm::image::{self, Rights};
use crate::mm::{DIRECT, direct, space};
use crate::nvdimm;
use alloc::vec;
use alloc::vec::Vec;
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
    Command {
        name: "test-copies",
        help: "       all ways of copying, against a loop",
        run: copies,
    },
    Command {
        name: "test-words",
        help: "        stores tear no word, after any instruction",
        run: words,
    },
    Command {
        name: "test-lost",
        help: "WINDOW   loads of memory that is lost end with a failure",
        run: super::lost::lost,
    },
];

/// Copies of all lengths around the seams of the assembly, at all alignments, apart and
/// overlapping, and at places whose page numbers agree in their low bits.
fn copies(_: &mut Session, _: Args<'_>) -> Done {
    const ROOM: usize = 64 * 4096;
    const LENGTHS: [usize; 20] = [
        0, 1, 7, 8, 9, 63, 64, 65, 127, 129, 511, 512, 1023, 1024, 1025, 1600, 4095, 4096, 5000,
        8191,
    ];
    let source: Vec<u8> = (0..ROOM + 16384).map(|i| (i * 7 + i / 256) as u8).collect();
    let mut target = vec![0xee_u8; ROOM + 16384];
    let fail =
        |what: &str, len: usize| Err(Failure::Other(alloc::format!("{what} of {len} bytes")));
    for method in &copy::METHODS {
        for len in LENGTHS {
            for (to, from) in [(0, 0), (1, 0), (0, 3), (5, 6), (ROOM, 2), (ROOM + 9, 9)] {
                // SAFETY: both ranges are inside their vectors.
                unsafe { method.copy(target[to + 1..].as_mut_ptr(), source[from..].as_ptr(), len) };
                let same = target[to + 1..][..len].iter().eq(source[from..][..len].iter());
                if !same || target[to] != 0xee || target[to + 1 + len] != 0xee {
                    return fail(method.name, len);
                }
                target[to..to + len + 2].iter_mut().for_each(|byte| *byte = 0xee);
            }
        }
    }
    // The compiler's own calls: `memmove` both ways, and `memset`.
    for len in LENGTHS {
        for (to, from) in [(3, 0), (0, 3), (64, 0), (0, 64), (1000, 0), (0, 1000)] {
            let mut moved: Vec<u8> = source[..10_000].to_vec();
            moved.copy_within(from..from + len, to);
            let expected = |i: usize| {
                if (to..to + len).contains(&i) { source[i - to + from] } else { source[i] }
            };
            if moved.iter().enumerate().any(|(i, byte)| *byte != expected(i)) {
                return fail("memmove", len);
            }
        }
        let mut filled = vec![1_u8; 10_000];
        filled[5..5 + len].fill(core::hint::black_box(0xa5));
        let expected = |i: usize| if (5..5 + len).contains(&i) { 0xa5 } else { 1 };
        if filled.iter().enumerate().any(|(i, byte)| *byte != expected(i)) {
            return fail("memset", len);
        }
    }
    Ok(())
}

/// Stores of all lengths around the seams, at all alignments, each by all ways: after no
/// instruction is a word neither old nor new. (A copy byte by byte is seen to tear, so this would
/// see one.)
fn words(_: &mut Session, _: Args<'_>) -> Done {
    const WORDS: usize = 24;
    const LENGTHS: [usize; 12] = [0, 1, 3, 7, 8, 9, 15, 16, 63, 64, 77, 150];
    let source: [u8; WORDS * 8] = core::array::from_fn(|i| i as u8 | 0x80);
    let old: [u64; WORDS] = core::array::from_fn(|i| i as u64 * 0x0101_0101_0101_0101);
    let mut steps = 0;
    type Way<'a> = (&'a str, &'a dyn Fn(*mut u8, *const u8, usize));
    // SAFETY: the ranges are inside their arrays, here and below.
    let zero = |to, _: *const u8, len| unsafe { copy::zero(to, len) };
    // SAFETY: as above; nothing faults, so nothing fails.
    let try_moves = |to, from, len| _ = unsafe { copy::METHODS[0].store(to, from, len) };
    // SAFETY: as above.
    let try_movsq = |to, from, len| _ = unsafe { copy::METHODS[1].store(to, from, len) };
    // SAFETY: as above.
    let moves = |to, from, len| unsafe { copy::METHODS[0].write(to, from, len) };
    // SAFETY: as above.
    let movsq = |to, from, len| unsafe { copy::METHODS[2].write(to, from, len) };
    // SAFETY: as above.
    let bytes = |to, from, len| unsafe { copy::METHODS[2].copy(to, from, len) };
    let ways: [Way<'_>; 6] = [
        ("zeros", &zero),
        ("stores by moves", &try_moves),
        ("stores by movsq", &try_movsq),
        ("writes by moves", &moves),
        ("writes by movsq", &movsq),
        ("a copy by bytes", &bytes),
    ];
    for (name, way) in ways {
        let mut torn = 0;
        for len in LENGTHS {
            for (to, from) in (0..9).flat_map(|to| [(to, to), (to, 3)]) {
                let mut now = old;
                let mut new = old;
                let (start, end) = (now.as_mut_ptr().cast::<u8>(), new.as_mut_ptr().cast::<u8>());
                for at in 0..len {
                    let byte = if name == "zeros" { 0 } else { source[from + at] };
                    // SAFETY: inside the array.
                    unsafe { end.add(to + at).write(byte) };
                }
                let store = || way(start.wrapping_add(to), source[from..].as_ptr(), len);
                // SAFETY: the array lives as long, and nothing else stores to it.
                let seen = unsafe { stepping::watch(now.as_ptr(), &old, &new, store) };
                steps += seen.steps;
                torn += usize::from(seen.torn);
                if core::hint::black_box(&now) != &new {
                    return Err(Failure::Other(alloc::format!(
                        "{name}: {len} bytes at {to} are wrong"
                    )));
                }
            }
        }
        if (torn > 0) != (name == "a copy by bytes") {
            return Err(Failure::Other(alloc::format!("{name}: {torn} were seen to tear words")));
        }
    }
    println!("no word was torn in {steps} steps");
    Ok(())
}

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
    let served =
        nvdimm::table().as_ref().ok().and_then(|t| t.persistent().find(|r| nvdimm::is_served(r)));
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
