//! How long a mount takes after a kill, and after a clean stop: against what is written, and
//! against how often it was cloned. By the guest's clock.

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

/// Mounts while something grows: `grow` brings it from one of the points to the next one.
fn against(
    vm: &Vm,
    options: &Options,
    points: Vec<u64>,
    x: Axis<'static>,
    (name, title): (&'static str, &'static str),
    mut grow: impl FnMut(&mut Client, u64, u64),
) -> Curve {
    let (mut before, mut killed, mut clean) = (0, Points::new(), Points::new());
    for point in points {
        eprintln!("        {} {}", x.label, (x.show)(point as f64));
        grow(&mut vm.client(), before, point);
        before = point;
        let took = mounts(vm, options.rounds);
        killed.push((point as f64, took.0));
        clean.push((point as f64, took.1));
    }
    vm.assert_clean();
    let y = Axis { label: "time of a mount", show: time };
    let series = vec![
        Series::drawn("after a kill", time, killed),
        Series::drawn("after a clean stop", time, clean),
    ];
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
    let points = options.points(CONTENT, [16 * MIB, 64 * MIB]);
    let x = Axis { label: "content", show: size };
    let names = ("mount-content", "Mount, against what is written");
    against(&vm, options, points, x, names, |client, from, to| {
        let file = client.open_or_create(b"/data").expect("it can be created");
        append(client, &file, from, to);
        client.close(file).expect("it is open");
    })
}

fn against_clones(options: &Options) -> Curve {
    let vm = Machine::nvdimm("256M").in_memory().prepare();
    up(&vm);
    let mut client = vm.client();
    let file = client.open_or_create(b"/data").expect("it can be created");
    append(&mut client, &file, 0, 64 * MIB);
    drop(client);
    let points = options.points(CLONES, [1, 10]);
    let x = Axis { label: "clones of a file of 64 MiB", show: count };
    let names = ("mount-clones", "Mount, against clones");
    against(&vm, options, points, x, names, |client, from, to| {
        for clone in from..to {
            client
                .clone_file(b"/data", format!("/clone{clone}").as_bytes())
                .expect("there is room");
        }
    })
}

/// Measures both.
pub fn measure(options: &Options) -> Vec<Curve> {
    vec![against_content(options), against_clones(options)]
}
