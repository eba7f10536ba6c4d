//! A disk image in and out, beside a raw sink and a raw source in the same guest and round.

use super::Options;
use super::report::{Aim, Report, median};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Instant;
use umbra::client::{Client, connect, get, put, rpc};
use umbra_tests::image::{assert_ext4_clean, hash_file, make_ext4};
use umbra_tests::{Machine, Vm};

/// Ports of the guest that only move bytes.
const SINK: u32 = 9;
const SOURCE: u32 = 19;
const PIECE: usize = 256 << 10;

/// Bytes in millions a second.
fn rate(bytes: u64, start: Instant) -> f64 {
    bytes as f64 / 1e6 / start.elapsed().as_secs_f64()
}

fn sink(vm: &Vm, bytes: u64) -> f64 {
    let mut stream = connect(vm.state(), SINK).expect("the sink listens");
    let piece = vec![0x5a; PIECE];
    let start = Instant::now();
    let mut left = bytes;
    while left > 0 {
        let count = left.min(PIECE as u64);
        stream.write_all(&piece[..count as usize]).expect("the sink takes all");
        left -= count;
    }
    stream.shutdown(Shutdown::Write).expect("the connection can be half closed");
    let mut total = [0; 8];
    stream.read_exact(&mut total).expect("the sink says how much it was");
    assert_eq!(u64::from_le_bytes(total), bytes);
    rate(bytes, start)
}

fn source(vm: &Vm, bytes: u64) -> f64 {
    let mut stream = connect(vm.state(), SOURCE).expect("the source listens");
    let start = Instant::now();
    stream.write_all(&bytes.to_le_bytes()).expect("the source takes a number");
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).expect("the source sends") {
            0 => break,
            count => total += count as u64,
        }
    }
    assert_eq!(total, bytes);
    rate(bytes, start)
}

/// Moves the image and as many raw bytes, in turn.
pub fn measure(options: &Options, report: &mut Report) {
    // All memory given before: a first touch costs many times what a store does, and is the host's
    // doing.
    let vm = Machine::nvdimm(&format!("{}M", (options.image_size >> 20) * 3 + 64)).prepare();
    vm.up_with(&["--prealloc"]);
    let (image, back) = (vm.file("image"), vm.file("back"));
    make_ext4(&image, options.image_size, &options.from);
    let hash = hash_file(&image);
    let mut client = vm.client();
    // One that cannot see the image of the NVDIMM, as on another machine.
    let stream = connect(vm.state(), rpc::PORT).expect("the server listens");
    let mut far = Client::over(stream).expect("a connection");
    let mut figures: [Vec<f64>; 6] = Default::default();
    for _ in 0..options.rounds {
        let start = Instant::now();
        let mut file = File::open(&image).expect("the image is there");
        let put = put(&mut client, &mut file, b"/image", &mut |_, _| {}).expect("it goes in");
        let put_rate = rate(put.data, start);
        let sink_rate = sink(&vm, put.data);
        let start = Instant::now();
        let got = get(&mut client, b"/image", Some(&back), &mut io::sink(), &mut |_, _| {});
        let got = got.expect("it comes out");
        let get_rate = rate(got.data, start);
        let start = Instant::now();
        let dropped = get(&mut client, b"/image", None, &mut io::sink(), &mut |_, _| {});
        let drop_rate = rate(dropped.expect("it comes out").data, start);
        let start = Instant::now();
        let far_got = get(&mut far, b"/image", None, &mut io::sink(), &mut |_, _| {});
        let far_rate = rate(far_got.expect("it comes out").data, start);
        let source_rate = source(&vm, got.data);
        assert!(hash_file(&back) == hash, "the image came back changed");
        assert_ext4_clean(&back);
        // Or the next round would have to free its pages first.
        fs::remove_file(&back).expect("it can be removed");
        client.unlink(b"/image").expect("it can be removed");
        client.reclaim().expect("its blocks are freed");
        let rates = [put_rate, sink_rate, get_rate, drop_rate, far_rate, source_rate];
        for (all, value) in figures.iter_mut().zip(rates) {
            all.push(value);
        }
    }
    let [put, sink, get, dropped, far, source] = figures.map(|all| median(&all));
    report.add("put: data bytes of an ext4 image", put, "MB/s", Aim::AtLeast(80.0));
    report.add("put: beside a raw sink", put / sink, "", Aim::AtLeast(0.6));
    report.add("raw sink", sink, "MB/s", Aim::None);
    report.add("get: data bytes of an ext4 image", get, "MB/s", Aim::AtLeast(120.0));
    report.add("get: beside a raw source", get / source, "", Aim::AtLeast(0.6));
    // As the raw source's bytes are.
    report.add("get, bytes dropped", dropped, "MB/s", Aim::None);
    report.add("get over the connection, bytes dropped", far, "MB/s", Aim::AtLeast(120.0));
    report.add("the same beside a raw source", far / source, "", Aim::None);
    report.add("raw source", source, "MB/s", Aim::None);
}
