//! NBD by the clients that Debian has, over the plain socket of `umbra up`: nbdinfo, nbdcopy, fio,
//! and Python's libnbd for flags and errors. QEMU's tools are in `nbd_qemu.rs`.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use umbra_tests::Vm;
use umbra_tests::random::Random;

const MIB: u64 = 1 << 20;

/// The URI of an export of a file, which is added.
#[track_caller]
fn export(vm: &Vm, arguments: &[&str]) -> String {
    let report = vm.json(&[&["export", "add"], arguments].concat());
    report["uri"].as_str().expect("a URI").to_string()
}

fn client(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Runs a client that succeeds, and returns what it printed.
#[track_caller]
fn ok(program: &str, arguments: &[&str]) -> String {
    let output = client(program, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A local file with holes: 4 MiB of data, 4 of hole, and so on; its last piece is no whole block.
fn image(vm: &Vm, size: u64) -> (String, Vec<u8>) {
    let path = vm.file("image.raw");
    let mut bytes = vec![0; size as usize];
    let mut random = Random::new(11);
    for (i, piece) in bytes.chunks_mut(4 << 20).enumerate() {
        if i % 2 == 0 {
            let fresh = random.bytes(piece.len());
            piece.copy_from_slice(&fresh);
        }
    }
    fs::write(&path, &bytes).unwrap();
    ok("fallocate", &["--dig-holes", path.to_str().unwrap()]);
    (path.to_str().unwrap().to_string(), bytes)
}

#[track_caller]
fn assert_same(path: &Path, bytes: &[u8]) {
    assert!(fs::read(path).unwrap() == bytes, "{} is not the same", path.display());
}

#[test]
fn exports_are_added_listed_used_and_removed() {
    let vm = Vm::launch("64M");
    let (path, bytes) = image(&vm, 8 * MIB);
    vm.ok(&["put", &path, "/golden.img"]);
    vm.ok(&["clone", "/golden.img", "/a b.img"]);
    let golden = export(&vm, &["/golden.img", "--read-only"]);
    assert!(golden.starts_with("nbd+unix:///golden.img?socket=/"), "{golden}");
    let named = export(&vm, &["/a b.img", "my disk", "--size", "16M"]);

    let info = json(&ok("nbdinfo", &["--json", &golden]));
    let first = &info["exports"][0];
    assert_eq!(
        (first["export-name"].as_str(), first["export-size"].as_u64()),
        (Some("golden.img"), Some(8 * MIB))
    );
    for (flag, expected) in [
        ("is_read_only", true),
        ("can_flush", true),
        ("can_multi_conn", true),
        ("can_df", true),
        ("can_cache", true),
    ] {
        assert_eq!(first[flag], expected, "{flag} of {info}");
    }
    let info = json(&ok("nbdinfo", &["--json", &named]));
    let first = &info["exports"][0];
    assert_eq!(first["export-size"], 16 * MIB);
    for flag in ["can_trim", "can_zero", "can_fua", "can_fast_zero", "can_flush", "can_multi_conn"]
    {
        assert_eq!(first[flag], true, "{flag} of {info}");
    }
    assert_eq!(first["block_size_preferred"], 4096);

    // The server lists what was added; so does the command, and prints URIs that work.
    let listed = json(&ok("nbdinfo", &["--list", "--json", &golden]));
    let names: Vec<_> =
        listed["exports"].as_array().unwrap().iter().map(|it| &it["export-name"]).collect();
    assert!(
        names.contains(&&"golden.img".into()) && names.contains(&&"my disk".into()),
        "{listed}"
    );
    let report = vm.json(&["export", "list"]);
    let exports = report["exports"].as_array().unwrap();
    assert_eq!(exports.len(), 2);
    for it in exports {
        let golden_one = it["name"] == "golden.img";
        assert_eq!(it["read_only"], golden_one);
        assert_eq!(it["size"], if golden_one { 8 * MIB } else { 16 * MIB });
        assert_eq!(it["clients"], 0);
        let size = ok("nbdinfo", &["--size", it["uri"].as_str().unwrap()]);
        assert_eq!(size.trim().parse::<u64>().unwrap(), it["size"].as_u64().unwrap());
    }
    let text = String::from_utf8(vm.ok(&["export", "list"])).unwrap();
    assert!(text.contains("golden.img  8 MiB  read-only") && text.contains(&named), "{text}");

    // A path needs no export; a name that is neither is refused.
    let by_path = golden.replace("golden.img?", "a%20b.img?");
    assert_eq!(ok("nbdinfo", &["--size", &by_path]).trim(), (16 * MIB).to_string());
    let output = client("nbdinfo", &[&golden.replace("golden.img?", "nothing?")]);
    assert!(!output.status.success());

    // What they hold is what was put in, and nobody writes to what is read-only.
    let copy = vm.file("copy");
    ok("nbdcopy", &[&golden, copy.to_str().unwrap()]);
    assert_same(&copy, &bytes);
    assert!(!client("nbdcopy", &[&path, &golden]).status.success());

    let said = vm.fails(&["export", "add", "/golden.img"]);
    assert!(said.contains("golden.img"), "{said}");
    assert!(vm.fails(&["export", "add", "/nothing"]).contains("no such file"));
    vm.ok(&["export", "remove", "golden.img"]);
    assert!(vm.fails(&["export", "remove", "golden.img"]).contains("golden.img"));
    // The others are there after a restart.
    vm.down();
    vm.up();
    assert_eq!(vm.json(&["export", "list"])["exports"].as_array().unwrap().len(), 1);
    assert_eq!(ok("nbdinfo", &["--size", &named]).trim(), (16 * MIB).to_string());
    vm.assert_clean();
}

#[test]
fn nbdcopy_goes_both_ways_on_four_connections() {
    let vm = Vm::launch("128M");
    let (path, bytes) = image(&vm, 40 * MIB);
    vm.ok(&["truncate", "/disk", "40M"]);
    let uri = export(&vm, &["/disk"]);
    ok("nbdcopy", &["--connections=4", "--flush", &path, &uri]);
    let back = vm.file("back");
    ok("nbdcopy", &["--connections=4", &uri, back.to_str().unwrap()]);
    assert_same(&back, &bytes);
    vm.ok(&["get", "/disk", back.to_str().unwrap()]);
    assert_same(&back, &bytes);
    // Holes stay holes, and the server says which.
    let map = json(&ok("nbdinfo", &["--map", "--json", &uri]));
    let holes: Vec<(u64, u64)> = map
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["type"] == 3)
        .map(|it| (it["offset"].as_u64().unwrap(), it["length"].as_u64().unwrap()))
        .collect();
    assert_eq!(holes, (0..5).map(|i| ((8 * i + 4) * MIB, 4 * MIB)).collect::<Vec<_>>());
    // What a clone shares, it says too.
    let private = ok("nbdinfo", &["--map=x-umbra:sharing", &uri]);
    assert_eq!(private.lines().count(), 1, "{private}");
    vm.ok(&["clone", "/disk", "/clone"]);
    let shared = ok("nbdinfo", &["--map=x-umbra:sharing", &uri]);
    assert!(shared.lines().any(|line| line.split_whitespace().nth(2) == Some("1")), "{shared}");
    vm.assert_clean();
}

#[test]
fn fio_verifies_random_writes() {
    let vm = Vm::launch("128M");
    vm.ok(&["truncate", "/golden", "32M"]);
    vm.ok(&["clone", "/golden", "/disk"]);
    let uri = export(&vm, &["/disk"]);
    let text = ok(
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &format!("--uri={uri}"),
            "--rw=randwrite",
            "--bsrange=512-64k",
            "--bs_unaligned",
            "--size=32M",
            "--iodepth=16",
            "--verify=crc32c",
            "--verify_fatal=1",
            // It would leave a file in the checkout.
            "--verify_state_save=0",
            "--fsync=64",
            "--output-format=json",
        ],
    );
    // It may say something before.
    let report = json(&text[text.find('{').unwrap()..]);
    let job = &report["jobs"][0];
    assert_eq!(job["error"], 0, "{report}");
    assert!(job["read"]["io_bytes"].as_u64().unwrap() > 16 * MIB, "{report}");
    vm.assert_clean();
}

#[test]
fn libnbd_sees_every_flag_and_error() {
    let vm = Vm::launch("64M");
    vm.ok(&["truncate", "/disk", "1M"]);
    vm.ok(&["mkdir", "/folder"]);
    export(&vm, &["/disk"]);
    export(&vm, &["/disk", "fixed", "--read-only"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libnbd.py");
    let socket = vm.state().file("nbd.sock");
    // Debian's Python, whatever else is installed: libnbd is a package of it.
    let text = ok("/usr/bin/python3", &[script.to_str().unwrap(), socket.to_str().unwrap()]);
    assert_eq!(text, "all seen\n");
    vm.assert_clean();
}
