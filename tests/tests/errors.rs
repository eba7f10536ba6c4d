//! What goes wrong is said: exit status 1, one line, what and why. And nothing is overwritten.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use umbra_tests::{Machine, Vm};

/// Bytes of one of the two superblocks.
const SUPERBLOCK: usize = 4096;
/// Where they are in the region: in block 0 and in block 2047.
const SUPERBLOCKS: [u64; 2] = [0, 2047 * SUPERBLOCK as u64];

/// A machine that does not start: what its NVDIMM is, and what is said.
struct Unusable {
    what: &'static str,
    size: &'static str,
    spoil: fn(&Vm),
    says: &'static str,
}

const UNUSABLE: &[Unusable] = &[
    Unusable { what: "no NVDIMM", size: "0", spoil: |_| {}, says: "no NVDIMM" },
    Unusable { what: "one too small", size: "64K", spoil: |_| {}, says: "too small" },
    Unusable {
        what: "one that holds something else",
        size: "16M",
        spoil: |vm| fs::write(vm.state().nvdimm(), foreign()).unwrap(),
        says: "no Umbra volume",
    },
    Unusable {
        what: "both superblocks damaged",
        size: "16M",
        spoil: |vm| {
            vm.up();
            vm.down();
            overwrite(vm, &[0xff; SUPERBLOCK]);
        },
        says: "superblocks",
    },
    Unusable {
        what: "both superblocks zeroed",
        size: "16M",
        spoil: |vm| {
            vm.up();
            vm.down();
            overwrite(vm, &[0; SUPERBLOCK]);
        },
        says: "superblocks",
    },
];

fn foreign() -> Vec<u8> {
    b"somebody's only copy ".iter().copied().cycle().take(16 << 20).collect()
}

/// Overwrites both superblocks.
fn overwrite(vm: &Vm, bytes: &[u8; SUPERBLOCK]) {
    let image = OpenOptions::new().write(true).open(vm.state().nvdimm()).unwrap();
    SUPERBLOCKS.iter().for_each(|&at| image.write_all_at(bytes, at).unwrap());
}

#[test]
fn a_blank_nvdimm_is_formatted_and_that_is_said() {
    let vm = Machine::nvdimm("16M").prepare();
    let up = || String::from_utf8(vm.ok(&["up", "--detach", "--nvdimm-size", "16M"])).unwrap();
    let text = up();
    assert!(text.contains("formatted: the NVDIMM is blank"), "{text}");
    assert_eq!(vm.json(&["status"])["formatted"], "the NVDIMM is blank");
    vm.down();
    let text = up();
    assert!(!text.contains("formatted"), "{text}");
    assert!(vm.json(&["status"])["formatted"].is_null());
    vm.down();
}

#[test]
fn an_nvdimm_that_cannot_be_served_is_left_alone() {
    for row in UNUSABLE {
        let vm = Machine::nvdimm(row.size).prepare();
        fs::create_dir_all(vm.state().path()).unwrap();
        (row.spoil)(&vm);
        let before = fs::read(vm.state().nvdimm()).ok();
        let mut up = vec!["up", "--detach"];
        if before.is_none() {
            up.extend(["--nvdimm-size", row.size]);
        }
        let text = vm.fails(&up);
        assert!(text.contains(row.says), "{}: {text}", row.what);
        assert!(!vm.state().is_locked());
        if let Some(before) = before {
            assert!(
                fs::read(vm.state().nvdimm()).unwrap() == before,
                "{}: it was overwritten",
                row.what
            );
            // Only when told so.
            vm.up_with(&["--format"]);
            vm.assert_clean();
        }
    }
}

#[test]
fn commands_without_a_server_say_so() {
    let vm = Machine::default().prepare();
    for command in [
        &["ls"][..],
        &["df"],
        &["check"],
        &["pages"],
        &["stat", "/f"],
        &["peek", "/f", "0", "1"],
        &["relay", "1", "/nonexistent/socket"],
        &["down"],
        &["console", "help"],
    ] {
        let text = vm.fails(command);
        assert!(text.contains("no server is running for state"), "{command:?}: {text}");
    }
    assert_eq!(vm.json(&["status"])["running"], false);
}

/// A command that fails, and what is said.
struct Row {
    command: &'static [&'static str],
    says: &'static str,
}

const fn row(command: &'static [&'static str], says: &'static str) -> Row {
    Row { command, says }
}

const LONG_NAME: &str = const {
    // 256 bytes: one more than a name may have.
    match std::str::from_utf8(&[b'n'; 256]) {
        Ok(name) => name,
        Err(_) => unreachable!(),
    }
};

const FAILING: &[Row] = &[
    row(&["up", "--detach"], "already running"),
    row(&["up"], "already running"),
    row(&["stat", "/missing"], "no such file"),
    row(&["ls", "/missing"], "no such file"),
    row(&["get", "/missing", "/dev/null"], "no such file"),
    row(&["rm", "/missing"], "no such file"),
    row(&["mv", "/missing", "/x"], "no such file"),
    row(&["clone", "/missing", "/x"], "no such file"),
    row(&["clone", "/f", "/f"], "exists"),
    row(&["clone", "/f", "/no/x"], "no such file"),
    row(&["clone", "/d", "/x"], "directory"),
    row(&["clone", "/f", "/g", "--src-offset", "1", "--length", "4096"], "4096"),
    row(&["peek", "/missing", "0", "1"], "no such file"),
    row(&["peek", "/f", "100", "1"], "the file has 10 bytes"),
    row(&["poke", "/f", "4", "--text", "12345678901234567890"], "the file has 10 bytes"),
    row(&["poke", "/d", "0", "--text", "x"], "directory"),
    row(&["mkdir", "/d"], "exists"),
    row(&["mkdir", "/no/where"], "no such file"),
    row(&["rm", "/d"], "-r removes directories"),
    row(&["put", "/dev/null", "/d"], "directory"),
    row(&["put", "/nonexistent", "/x"], "No such file"),
    row(&["put", "/etc", "/x"], "is a directory"),
    row(&["put", "/dev/null", "/no/where"], "no such file"),
    row(&["put", "/dev/null", LONG_NAME], "255 bytes"),
    row(&["mkdir", LONG_NAME], "255 bytes"),
    row(&["mv", "/f", LONG_NAME], "255 bytes"),
    row(&["clone", "/f", LONG_NAME], "255 bytes"),
    row(&["stat", "/f/below"], "not a directory"),
    row(&["truncate", "/f", "513G"], "512 GiB"),
    row(&["get", "/f", "/nonexistent/folder/f"], "No such file"),
    row(&["relay", "4711", "/tmp/never-made.sock"], "does not listen on port 4711"),
    row(&["console", "frobnicate"], "unknown command"),
];

#[test]
fn every_failure_has_status_one_and_a_line_that_says_why() {
    let vm = Vm::launch("16M");
    let local = vm.file("local");
    fs::write(&local, "0123456789").unwrap();
    vm.ok(&["put", local.to_str().unwrap(), "/f"]);
    vm.ok(&["put", local.to_str().unwrap(), "/g"]);
    vm.ok(&["mkdir", "/d"]);
    let before = listing(&vm);
    for row in FAILING {
        let text = vm.fails(row.command);
        assert!(
            text.starts_with("umbra: ") && text.contains(row.says),
            "{:?}: {text}",
            row.command
        );
    }
    assert_eq!(listing(&vm), before, "a failed command has changed something");
    assert_eq!(vm.ok(&["get", "/f", "-"]), b"0123456789");
    vm.assert_clean();
}

fn listing(vm: &Vm) -> Vec<String> {
    let report = vm.json(&["ls"]);
    let entries = report["entries"].as_array().unwrap();
    entries.iter().map(|entry| format!("{} {}", entry["name"], entry["size"])).collect()
}

#[test]
fn a_file_grown_past_the_limit_is_refused_and_stays() {
    let vm = Vm::launch("16M");
    vm.ok(&["truncate", "/f", "512G"]);
    assert_eq!(vm.json(&["stat", "/f"])["size"], 512u64 << 30);
    let mut client = vm.client();
    let file = client.open(b"/f", 0).unwrap();
    client.write(&file, (512 << 30) - 1, b"x").unwrap();
    let error = client.write(&file, 512 << 30, b"x").unwrap_err();
    assert!(error.to_string().contains("512 GiB"), "{error}");
    assert_eq!(client.load(&file, (512 << 30) - 2, 2).unwrap(), b"\0x");
    drop(client);
    assert!(vm.fails(&["truncate", "/f", "0x8000000001"]).contains("512 GiB"));
    assert_eq!(vm.json(&["stat", "/f"])["size"], 512u64 << 30);
    vm.assert_clean();
}

#[test]
fn the_lock_is_the_kernels_and_a_stale_pid_file_is_not_believed() {
    let vm = Machine::default().prepare();
    fs::create_dir_all(vm.state().path()).unwrap();
    for name in ["lock", "supervisor.pid", "qemu.pid", "control.sock", "vsock.sock", "endpoint"] {
        File::create(vm.state().file(name)).unwrap();
    }
    fs::write(vm.state().file("supervisor.pid"), "1\n").unwrap();
    vm.up();
    vm.down();
}
