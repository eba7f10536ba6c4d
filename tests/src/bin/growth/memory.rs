//! Memory for each shadow: what the kernel's own counters say, for a window area just as large as
//! it has to be, beyond what they say with none at all.

use crate::Options;
use crate::curve::{Aim, Curve, Series, count, size};
use umbra::client::{Client, File};
use umbra::plot::{Axis, Scale};
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

/// At least so many; whole leaves.
const SHADOWS: &[u64] = &[1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000];
/// Pages of a slot, and bytes.
const SLOT_PAGES: u64 = 512;
const SLOT: u64 = 2 << 20;
const PAGE: u64 = 4096;
/// Slots of the file, of which there are clones.
const SLOTS: u64 = 32;
/// A page table has 8 bytes for each translation, whether it is a shadow or not.
const TRANSLATION: f64 = 8.0;

/// Bytes of DRAM in use: frames, but of the heap only what it has handed out.
fn used(client: &mut Client) -> u64 {
    let memory = client.status().expect("it answers").memory;
    memory.frames_used - memory.heap_total + memory.heap_used
}

fn name(clone: u64) -> Vec<u8> {
    format!("/clone{clone}").into_bytes()
}

fn files(shadows: u64) -> u64 {
    shadows.div_ceil(SLOTS * SLOT_PAGES)
}

/// Starts the machine with so many slots, opens as many clones as there have to be, and shows so
/// many shadows in them; returns what is in use when it has started, when the files are open, and
/// at the end.
fn shown(vm: &Vm, slots: u64, shadows: u64) -> [u64; 3] {
    vm.up_with(&["--guest-config", &format!("slots={slots}")]);
    let mut client = vm.client();
    let started = used(&mut client);
    let open: Vec<File> = (0..files(shadows))
        .map(|clone| client.open(&name(clone), 0).expect("it is there"))
        .collect();
    let before = used(&mut client);
    for leaf in 0..shadows / SLOT_PAGES {
        let file = &open[(leaf / SLOTS) as usize];
        // The first load of a leaf shows a few pages, the second the others.
        for page in [0, SLOT_PAGES - 1] {
            client.load(file, leaf % SLOTS * SLOT + page * PAGE, 8).expect("it can be read");
        }
    }
    assert_eq!(client.pages(None).expect("it answers").shadows, shadows);
    let after = used(&mut client);
    drop(client);
    vm.down();
    [started, before, after]
}

/// Measures the memory of up to a million shadows.
pub fn measure(options: &Options) -> Vec<Curve> {
    let points = options.points(SHADOWS, [1000, 30_000]);
    let vm = Machine::nvdimm("256M").in_memory().launch();
    let mut client = vm.client();
    let file = client.open_or_create(&name(0)).expect("it can be created");
    client.write(&file, 0, &Random::new(1).bytes((SLOTS * SLOT) as usize)).expect("there is room");
    client.close(file).expect("it is open");
    for clone in 1..files(points[points.len() - 1]) {
        client.clone_file(&name(0), &name(clone)).expect("it can be cloned");
    }
    drop(client);
    vm.down();

    // Without windows, and with nothing open.
    let [none, ..] = shown(&vm, 0, 0);
    let [mut all, mut without, mut bytes, mut growth] = [const { Vec::new() }; 4];
    for shadows in points {
        let shadows = shadows.next_multiple_of(SLOT_PAGES);
        eprintln!("        {} shadows", count(shadows as f64));
        let [_, before, after] = shown(&vm, shadows / SLOT_PAGES, shadows);
        let taken = after.saturating_sub(none) as f64;
        let x = shadows as f64;
        all.push((x, taken / x));
        without.push((x, (taken / x - TRANSLATION).max(0.0)));
        bytes.push((x, taken));
        growth.push((x, after.saturating_sub(before) as f64));
    }
    vm.up();
    vm.assert_clean();
    let show: fn(f64) -> String = |bytes| format!("{bytes:.1} B");
    let all = Series::drawn("with its translation", show, all);
    let without = Series::drawn("without it", show, without);
    vec![Curve {
        name: "memory",
        title: "DRAM for each shadow",
        x: Axis { label: "shadows", show: count },
        y: Axis { label: "bytes of DRAM for each", show },
        scale: Scale::Linear,
        series: vec![
            all.aim(Aim::AtMost(32.0)),
            without,
            Series::listed("all of it", size, bytes),
            Series::listed("of that, taken when shown", size, growth),
        ],
    }]
}
