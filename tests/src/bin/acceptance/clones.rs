//! Clones of files of all shapes, as a client sees them.

use super::Options;
use super::report::{Aim, Report, median, percentile};
use std::fs::File;
use std::time::Instant;
use umbra::client::{Client, Msync, put};
use umbra_tests::Machine;
use umbra_tests::image::make_ext4;
use umbra_tests::random::Random;

const CLONES: usize = 500;
const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;
const LARGE: u64 = 512 * MIB;
const FRAGMENTED: u64 = 64 * MIB;

/// Clones a file and returns the microseconds that it took, and the fences.
fn clone(client: &mut Client, from: &str, to: &str) -> (f64, u64) {
    let start = Instant::now();
    let cloned = client.clone_file(from.as_bytes(), to.as_bytes()).expect("it can be cloned");
    (start.elapsed().as_secs_f64() * 1e6, cloned.fences)
}

fn write(client: &mut Client, path: &str, size: u64) {
    let piece = Random::new(1).bytes(MIB as usize);
    let file = client.open_or_create(path.as_bytes()).expect("it can be created");
    for at in (0..size).step_by(MIB as usize) {
        client.write(&file, at, &piece).expect("there is room");
    }
    client.close(file).expect("it is open");
}

/// A file whose blocks lie in pieces of one: every other one is stored into after a clone.
fn write_fragmented(client: &mut Client, path: &str) {
    write(client, "/whole", FRAGMENTED);
    client.clone_file(b"/whole", path.as_bytes()).expect("it can be cloned");
    let file = client.open(path.as_bytes(), 0).expect("it is there");
    for at in (0..FRAGMENTED).step_by(2 * BLOCK as usize) {
        client.store(&file, at, b"moved", Msync::Later).expect("there is room");
    }
    client.close(file).expect("it is open");
}

/// Clones an image many times, then files of three shapes in turn.
pub fn measure(options: &Options, report: &mut Report) {
    let nvdimm = (options.image_size + LARGE + 3 * FRAGMENTED) / MIB + 256;
    let vm = Machine::nvdimm(&format!("{nvdimm}M")).launch();
    let image = vm.file("image");
    make_ext4(&image, options.image_size, &options.from);
    let mut client = vm.client();
    let mut file = File::open(&image).expect("the image is there");
    put(&mut client, &mut file, b"/image", &mut |_, _| {}).expect("it goes in");
    clone(&mut client, "/image", "/warm");
    let before = client.space().expect("it has space").blocks_free;
    let all: Vec<f64> = (0..CLONES)
        .map(|number| clone(&mut client, "/image", &format!("/image{number}")).0)
        .collect();
    let used = (before - client.space().expect("it has space").blocks_free) * BLOCK;
    report.add("clone of the image: median", median(&all), "us", Aim::AtMost(1000.0));
    report.add("clone of the image: p99", percentile(&all, 0.99), "us", Aim::AtMost(2000.0));
    report.add("space for 500 clones of it", used as f64 / MIB as f64, "MiB", Aim::AtMost(1.0));

    write(&mut client, "/small", MIB);
    write(&mut client, "/large", LARGE);
    write_fragmented(&mut client, "/fragmented");
    let sources = ["/small", "/large", "/fragmented"];
    let mut times = [const { Vec::new() }; 3];
    let mut fences = [const { Vec::new() }; 3];
    for number in 0..CLONES {
        for (index, source) in sources.iter().enumerate() {
            let (us, count) = clone(&mut client, source, &format!("{source}-{number}"));
            times[index].push(us);
            fences[index].push(count as f64);
        }
    }
    let [small, large, fragmented] = times.map(|all| median(&all));
    report.add("clone of 1 MiB: median", small, "us", Aim::None);
    report.add("clone of 512 MiB, beside one of 1 MiB", large / small, "", Aim::AtMost(1.3));
    report.add(
        "clone of 4 KiB pieces, beside one of 1 MiB",
        fragmented / small,
        "",
        Aim::AtMost(1.3),
    );
    let [small, large, fragmented] = fences.map(|all| median(&all));
    report.add("fences of a clone of 1 MiB", small, "", Aim::AtMost(2.0));
    report.add("fences of a clone of 512 MiB", large, "", Aim::AtMost(small));
    report.add("fences of a clone of 4 KiB pieces", fragmented, "", Aim::AtMost(small));
}
