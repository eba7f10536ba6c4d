//! NBD by QEMU's tools, of each QEMU that is here, against a machine that the same QEMU runs:
//! qemu-img, qemu-io, qemu-nbd and qemu-storage-daemon, and formats of their own in an export.

use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use umbra_tests::qemus::Qemu;
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

const MIB: u64 = 1 << 20;
/// How long a tool may take before it is taken to hang, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

umbra_tests::under_each_qemu!(
    images_are_converted_compared_mapped_and_measured,
    images_are_converted_over_garbage_and_over_zeros,
    bytes_are_written_zeroed_discarded_and_read_back,
    writes_wait_for_a_server_that_comes_back,
    an_overlay_in_an_export_is_committed_and_rebased,
    a_storage_daemon_in_front_passes_everything_on,
);

/// A machine under a QEMU, with that QEMU's tools.
struct Bench {
    vm: Vm,
    qemu: Qemu,
}

impl Bench {
    fn new(qemu: &Qemu, nvdimm_size: &str) -> Bench {
        let vm = Machine::nvdimm(nvdimm_size).under(qemu).launch();
        Bench { vm, qemu: qemu.clone() }
    }

    /// The URI of an export of a new file.
    #[track_caller]
    fn export(&self, path: &str, size: &str) -> String {
        self.vm.ok(&["truncate", path, size]);
        self.vm.json(&["export", "add", path])["uri"].as_str().expect("a URI").to_string()
    }

    /// Runs a tool, which is killed if it hangs.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut child = Command::new("timeout")
            .args(["--signal=KILL", &PATIENCE.as_secs().to_string()])
            .arg(self.qemu.program(program))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("timeout runs");
        child.stdin.take();
        child.wait_with_output().expect("it ends")
    }

    /// Runs a tool that succeeds, and returns what it printed.
    #[track_caller]
    fn ok(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        let [said, errors] =
            [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}: {said}{errors}",
            output.status
        );
        assert!(!said.contains("failed"), "{program} {arguments:?}: {said}{errors}");
        said
    }

    fn img(&self, arguments: &[&str]) -> String {
        self.ok("qemu-img", arguments)
    }

    /// Runs commands of qemu-io on a raw image, with more of its options before.
    #[track_caller]
    fn io(&self, uri: &str, commands: &[&str]) {
        let mut arguments = vec!["-f", "raw", "-t", "none"];
        commands.iter().for_each(|command| arguments.extend(["-c", command]));
        self.ok("qemu-io", &[&arguments[..], &[uri]].concat());
    }

    /// Asserts that a file on the server holds these bytes.
    #[track_caller]
    fn assert_holds(&self, path: &str, bytes: &[u8]) {
        let back = self.vm.file("back");
        self.vm.ok(&["get", path, back.to_str().unwrap()]);
        assert!(fs::read(&back).unwrap() == bytes, "{path} is not the same");
    }
}

/// A local file with holes: 4 MiB of data, 4 of hole, and so on.
fn image(vm: &Vm, size: u64) -> (String, Vec<u8>) {
    let path = vm.file("image.raw");
    let mut bytes = vec![0; size as usize];
    let mut random = Random::new(11);
    for piece in bytes.chunks_mut(4 << 20).step_by(2) {
        let fresh = random.bytes(piece.len());
        piece.copy_from_slice(&fresh);
    }
    fs::write(&path, &bytes).unwrap();
    let dug = Command::new("fallocate").arg("--dig-holes").arg(&path).status().unwrap();
    assert!(dug.success());
    (path.to_str().unwrap().to_string(), bytes)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Bytes of an image that are data, as `qemu-img map` says.
fn mapped(bench: &Bench, uri: &str) -> u64 {
    let map = json(&bench.img(&["map", "--output=json", "-f", "raw", uri]));
    let data = map.as_array().unwrap().iter().filter(|it| it["data"] == true);
    data.map(|it| it["length"].as_u64().unwrap()).sum()
}

fn images_are_converted_compared_mapped_and_measured(qemu: &Qemu) {
    let bench = Bench::new(qemu, "128M");
    let (path, bytes) = image(&bench.vm, 24 * MIB);
    let uri = bench.export("/disk", "24M");
    bench.img(&["convert", "-n", "-f", "raw", "-O", "raw", &path, &uri]);
    bench.img(&["compare", "-f", "raw", "-F", "raw", &path, &uri]);
    assert_eq!(mapped(&bench, &uri), 12 * MIB);
    let qcow = bench.vm.file("image.qcow2");
    let qcow = qcow.to_str().unwrap();
    bench.img(&["convert", "-f", "raw", "-O", "qcow2", &uri, qcow]);
    bench.img(&["compare", "-f", "qcow2", "-F", "raw", qcow, &path]);
    // A format of its own in the export.
    let qcow_uri = bench.export("/qcow", "32M");
    bench.img(&["create", "-q", "-f", "qcow2", &qcow_uri, "64M"]);
    bench.img(&["convert", "-n", "-f", "raw", "-O", "qcow2", &path, &qcow_uri]);
    bench.img(&["check", "-q", "-f", "qcow2", &qcow_uri]);
    // dd from a place on, and up to one. (Versions differ in what both together mean.)
    let piece = bench.vm.file("piece");
    let (from, to) = (format!("if={uri}"), format!("of={}", piece.display()));
    for (limit, expected) in [("skip=16", &bytes[16 << 20..]), ("count=3", &bytes[..3 << 20])] {
        bench.img(&["dd", "-f", "raw", "-O", "raw", "bs=1M", limit, &from, &to]);
        assert!(fs::read(&piece).unwrap() == expected, "{limit}");
    }
    for arguments in [&["-w", "--flush-interval=16"][..], &[]] {
        let common = ["bench", "-f", "raw", "-t", "none", "-c", "1000", "-d", "16", "-s", "4096"];
        bench.img(&[&common, arguments, &[&uri[..]]].concat());
    }
    // The writes of the measurement were zeros, to the front.
    let mut expected = bytes;
    expected[..1000 * 4096].fill(0);
    bench.assert_holds("/disk", &expected);
    bench.vm.assert_clean();
}

fn images_are_converted_over_garbage_and_over_zeros(qemu: &Qemu) {
    let bench = Bench::new(qemu, "128M");
    let (path, bytes) = image(&bench.vm, 16 * MIB);
    let garbage = bench.vm.file("garbage");
    fs::write(&garbage, Random::new(5).bytes(16 << 20)).unwrap();
    bench.vm.ok(&["put", garbage.to_str().unwrap(), "/garbage"]);
    // Over what is shared, too: it is not changed by that.
    bench.vm.ok(&["clone", "/garbage", "/disk"]);
    let uri = bench.vm.json(&["export", "add", "/disk"])["uri"].as_str().unwrap().to_string();
    bench.img(&["convert", "-n", "-f", "raw", "-O", "raw", &path, &uri]);
    bench.assert_holds("/disk", &bytes);
    bench.assert_holds("/garbage", &fs::read(&garbage).unwrap());
    // Onto what is known to read as zeros.
    let uri = bench.export("/fresh", "16M");
    bench.img(&[
        "convert",
        "-n",
        "--target-is-zero",
        "-f",
        "raw",
        "-O",
        "raw",
        "-W",
        "-m",
        "8",
        &path,
        &uri,
    ]);
    bench.img(&["compare", "-f", "raw", "-F", "raw", &path, &uri]);
    bench.assert_holds("/fresh", &bytes);
    assert_eq!(mapped(&bench, &uri), 8 * MIB);
    bench.vm.assert_clean();
}

fn bytes_are_written_zeroed_discarded_and_read_back(qemu: &Qemu) {
    let bench = Bench::new(qemu, "64M");
    let (path, bytes) = image(&bench.vm, 8 * MIB);
    bench.vm.ok(&["put", &path, "/golden"]);
    bench.vm.ok(&["clone", "/golden", "/disk"]);
    let uri = bench.vm.json(&["export", "add", "/disk"])["uri"].as_str().unwrap().to_string();
    // Whole blocks, parts of blocks, and across them; FUA; zeroes with and without holes.
    bench.io(&uri, &["write -P 0xa1 0 1M", "read -P 0xa1 0 1M"]);
    let parts = ["write -P 0xb2 123 70001", "read -P 0xb2 123 70001", "read -P 0xa1 0 123"];
    bench.io(&uri, &[&parts[..], &["read -P 0xa1 70124 4096"]].concat());
    bench.io(&uri, &["write -f -P 0xc3 4095 2", "read -P 0xc3 4095 2", "flush"]);
    let zeroes = ["write -z 8192 65536", "read -P 0 8192 65536", "write -z -u 131072 131072"];
    bench.io(&uri, &[&zeroes[..], &["read -P 0 131072 131072"]].concat());
    bench.io(&uri, &["write -z 262145 1000", "read -P 0 262145 1000", "read -P 0xa1 263145 1000"]);
    bench.io(
        &uri,
        &["discard 524288 262144", "read -P 0 524288 262144", "read -P 0xa1 786432 262144"],
    );
    bench.io(
        &uri,
        &["write -P 0xd4 524288 4096", "read -P 0xd4 524288 4096", "read -P 0 528384 4096"],
    );
    // More than one payload at a time.
    bench.io(
        &uri,
        &["aio_write -P 0xe5 4M 1M", "aio_write -P 0xe6 5M 1M", "aio_flush", "read -P 0xe6 5M 1M"],
    );
    // They last, and the golden image has none of it.
    bench.vm.kill_qemu();
    bench.vm.up();
    bench.io(&uri, &["read -P 0xd4 524288 4096", "read -P 0xc3 4095 2", "read -P 0xe5 4M 1M"]);
    bench.assert_holds("/golden", &bytes);
    bench.vm.assert_clean();
}

/// A tool that is told to reconnect sends again what was not answered: it must not be refused then.
fn writes_wait_for_a_server_that_comes_back(qemu: &Qemu) {
    let bench = Bench::new(qemu, "64M");
    bench.export("/disk", "8M");
    let socket = bench.vm.state().file("nbd.sock");
    let image = format!(
        "driver=nbd,server.type=unix,server.path={},export=disk,reconnect-delay=60",
        socket.display()
    );
    bench.ok(
        "qemu-io",
        &["--image-opts", &image, "-c", "write -P 1 0 4096", "-c", "read -P 1 0 4096"],
    );
    // The server goes away while the tool sleeps, and is back when it writes.
    let mut sleeping = Command::new(qemu.program("qemu-io"))
        .args([
            "--image-opts",
            &image,
            "-c",
            "write -P 2 0 1M",
            "-c",
            "sleep 1500",
            "-c",
            "write -P 3 1M 1M",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the first write is there", || {
        bench.vm.ok(&["peek", "/disk", "1048575", "1"]) == [2]
    });
    bench.vm.kill_qemu();
    bench.vm.up();
    wait_until("the tool ends", || sleeping.try_wait().unwrap().is_some());
    let said = String::from_utf8(sleeping.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(said.matches("wrote 1048576/1048576").count(), 2, "{said}");
    let mut expected = vec![2; 1 << 20];
    expected.resize(2 << 20, 3);
    expected.resize(8 << 20, 0);
    bench.assert_holds("/disk", &expected);
    bench.vm.assert_clean();
}

fn an_overlay_in_an_export_is_committed_and_rebased(qemu: &Qemu) {
    let bench = Bench::new(qemu, "128M");
    let (path, bytes) = image(&bench.vm, 16 * MIB);
    bench.vm.ok(&["put", &path, "/base"]);
    bench.vm.ok(&["clone", "/base", "/other-base"]);
    let base = bench.vm.json(&["export", "add", "/base"])["uri"].as_str().unwrap().to_string();
    let other =
        bench.vm.json(&["export", "add", "/other-base"])["uri"].as_str().unwrap().to_string();
    let overlay = bench.export("/overlay", "32M");
    bench.img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, &overlay]);
    let io = |commands: &[&str]| {
        let mut arguments = vec!["-f", "qcow2"];
        commands.iter().for_each(|command| arguments.extend(["-c", command]));
        bench.ok("qemu-io", &[&arguments[..], &[&overlay]].concat());
    };
    io(&["write -P 0xa7 1M 2M", "write -z 8M 1M", "write -P 0xb8 5M 70000", "read -P 0xa7 1M 2M"]);
    let mut expected = bytes.clone();
    expected[1 << 20..3 << 20].fill(0xa7);
    expected[8 << 20..9 << 20].fill(0);
    expected[5 << 20..(5 << 20) + 70000].fill(0xb8);
    bench.assert_holds("/base", &bytes);
    // Onto a base with the same content, and one without any: what that lacks is copied.
    bench.img(&["rebase", "-f", "qcow2", "-F", "raw", "-b", &other, &overlay]);
    io(&["read -P 0xa7 1M 2M", "read -P 0 8M 1M"]);
    bench.img(&["check", "-q", "-f", "qcow2", &overlay]);
    bench.img(&["commit", "-q", "-f", "qcow2", &overlay]);
    bench.assert_holds("/other-base", &expected);
    bench.assert_holds("/base", &bytes);
    bench.img(&["rebase", "-f", "qcow2", "-b", "", &overlay]);
    bench.img(&["compare", "-f", "qcow2", "-F", "raw", &overlay, &other]);
    bench.img(&["check", "-q", "-f", "qcow2", &overlay]);
    bench.vm.assert_clean();
}

/// A process that is ended with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn wait_until(what: &str, mut it_is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !it_is() {
        assert!(Instant::now() < deadline, "waited for long: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn serves(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

fn a_storage_daemon_in_front_passes_everything_on(qemu: &Qemu) {
    let bench = Bench::new(qemu, "128M");
    let (path, bytes) = image(&bench.vm, 16 * MIB);
    bench.export("/disk", "16M");
    bench.export("/second", "16M");
    let (umbra, front) = (bench.vm.state().file("nbd.sock"), bench.vm.file("front.sock"));
    let node = |export: &str| {
        let socket = umbra.display();
        format!(
            "driver=nbd,node-name={export},discard=unmap,server.type=unix,server.path={socket},\
             export={export}"
        )
    };
    let front_end = format!("addr.type=unix,addr.path={}", front.display());
    let daemon = Command::new(qemu.program("qemu-storage-daemon"))
        .args(["--blockdev", &node("disk"), "--nbd-server", &front_end])
        .args(["--export", "type=nbd,id=e,node-name=disk,name=disk,writable=on"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let daemon = Daemon(daemon);
    wait_until("the daemon listens", || serves(&front));
    let uri = format!("nbd+unix:///disk?socket={}", front.display());
    bench.img(&["convert", "-n", "-f", "raw", "-O", "raw", &path, &uri]);
    bench.io(
        &uri,
        &[
            "write -P 0xa1 4M 1M",
            "write -P 0xb2 123 70001",
            "write -z 1M 1M",
            "discard 2M 1M",
            "flush",
        ],
    );
    let mut expected = bytes;
    expected[4 << 20..5 << 20].fill(0xa1);
    expected[123..123 + 70001].fill(0xb2);
    expected[1 << 20..3 << 20].fill(0);
    bench.assert_holds("/disk", &expected);
    drop(daemon);
    // The same by qemu-nbd, from one export to the other.
    let second = bench.vm.file("second.sock");
    let image =
        format!("driver=nbd,server.type=unix,server.path={},export=second", umbra.display());
    let _nbd = Daemon(
        Command::new(qemu.program("qemu-nbd"))
            .args(["-t", "-e", "4", "-k"])
            .arg(&second)
            .args(["--image-opts", &image])
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_until("qemu-nbd listens", || serves(&second));
    let from = format!("nbd+unix:///disk?socket={}", umbra.display());
    let to = format!("nbd+unix:///?socket={}", second.display());
    bench.img(&["convert", "-n", "-f", "raw", "-O", "raw", &from, &to]);
    bench.assert_holds("/second", &expected);
    bench.vm.assert_clean();
}
