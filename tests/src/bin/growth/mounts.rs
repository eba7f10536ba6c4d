//! How long a mount takes after a kill, and after a clean stop: against what is written, and against
//! how often it was cloned. By the guest's clock.

use crate::Options;
use crate::curve::{Curve, Series, count, median, size, time};
use umbra::client::{Client, File};
use umbra::plot::{Axis, Scale};
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

const MIB: u64 = 1 << 20;
const CONTENT: &[u64] = &[16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB, 4096 * MIB];
const CLONES: &[u64] = &[1, 10, 100, 1000, 10_000, 100_000];

/// Two values that grow, and what mounts took there: (after a kill, after a clean stop).
type Points = Vec<(f64, f64)>;

/// Nanoseconds that a mount takes: medians after kills, and after clean stops.
fn mounts(vm: &Vm, rounds: usize) -> (f64, f64) {
    let (mut killed, mut clean) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        for (kill, all) in [(true, &mut killed), (false, &mut clean)] {
            if kill {
                vm.kill_qemu()
            } else {
                vm.down()
            }
            up(vm);
            let status = vm.client().status().expect("it answers");
            assert_eq!(status.rebuilt, Some(kill), "counted anew after a kill, and only then");
            all.push(status.mount_ns.expect("it was mounted") as f64);
        }
    }
    (median(killed), median(clean))
}

/// With all memory given before: the host's share of a first touch is not what is measured.
fn up(vm: &Vm) {
    vm.up_with(&["--prealloc"]);
}

fn curve(name: &'static str, title: &'static str, x: Axis<'static>, killed: Points, clean: Points) -> Curve {
    let y = Axis { label: "time of a mount", show: time };
    let series =
        vec![Series::drawn("after a kill", time, killed), Series::drawn("after a clean stop", time, clean)];
    Curve { name, title, x, y, scale: Scale::Logarithmic, series }
}

fn append(client: &mut Client, file: &File, from: u64, to: u64) {
    let piece = Random::new(from).bytes(MIB as usize);
    for at in (from..to).step_by(MIB as usize) {
        client.write(file, at, &piece).expect("there is room");
    }
    client.sync(file).expect("it can be synced");
}

fn against_content(options: &Options) -> Curve {
    let vm = Machine::nvdimm(if options.quick { "128M" } else { "4352M" }).in_memory().prepare();
    up(&vm);
    let (mut written, mut killed, mut clean) = (0, Vec::new(), Vec::new());
    for content in options.points(CONTENT, [16 * MIB, 64 * MIB]) {
        eprintln!("        {} of content", size(content as f64));
        let mut client = vm.client();
        let file = client.open_or_create(b"/data").expect("it can be created");
        append(&mut client, &file, written, content);
        written = content;
        client.close(file).expect("it is open");
        drop(client);
        let took = mounts(&vm, options.rounds);
        killed.push((content as f64, took.0));
        clean.push((content as f64, took.1));
    }
    vm.assert_clean();
    let x = Axis { label: "content", show: size };
    curve("mount-content", "Mount, against what is written", x, killed, clean)
}

fn against_clones(options: &Options) -> Curve {
    let vm = Machine::nvdimm("256M").in_memory().prepare();
    up(&vm);
    let mut client = vm.client();
    let file = client.open_or_create(b"/data").expect("it can be created");
    append(&mut client, &file, 0, 64 * MIB);
    drop(client);
    let (mut made, mut killed, mut clean) = (0, Vec::new(), Vec::new());
    for clones in options.points(CLONES, [1, 10]) {
        eprintln!("        {} clones", count(clones as f64));
        let mut client = vm.client();
        while made < clones {
            client.clone_file(b"/data", format!("/clone{made}").as_bytes()).expect("there is room");
            made += 1;
        }
        drop(client);
        let took = mounts(&vm, options.rounds);
        killed.push((clones as f64, took.0));
        clean.push((clones as f64, took.1));
    }
    vm.assert_clean();
    let x = Axis { label: "clones of a file of 64 MiB", show: count };
    curve("mount-clones", "Mount, against clones", x, killed, clean)
}

/// Measures both.
pub fn measure(options: &Options) -> Vec<Curve> {
    vec![against_content(options), against_clones(options)]
}
