//! Every command does what it says, and reports what it promises.

use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use umbra_tests::Vm;
use umbra_tests::random::Random;

#[track_caller]
fn assert_fields(report: &Value, names: &[&str]) {
    for name in names {
        let found = name.split('.').try_fold(report, |value, part| value.get(part));
        assert!(found.is_some_and(|value| !value.is_null()), "no {name} in {report}");
    }
}

#[test]
fn reports_have_their_fields() {
    let vm = Vm::launch("64M");
    fs::write(vm.file("f"), "hello").unwrap();
    vm.ok(&["put", vm.file("f").to_str().unwrap(), "/f"]);
    assert_fields(&vm.json(&["status"]), &["running", "boot_ms", "qemu_pid", "accel"]);
    assert_fields(
        &vm.json(&["df"]),
        &["block_size", "blocks_total", "blocks_free", "blocks_shared"],
    );
    assert_fields(&vm.json(&["stat", "/f"]), &["ino", "kind", "size", "blocks", "mode", "mtime"]);
    assert_fields(&vm.json(&["ls"]), &["entries"]);
    assert_fields(&vm.json(&["clone", "/f", "/g"]), &["elapsed_us"]);
    let faults = ["faults.read", "faults.write", "faults.cow", "faults.failed"];
    assert_fields(&vm.json(&["pages"]), &["masters", "shadows", "windows", "flushes", "fences"]);
    assert_fields(&vm.json(&["pages", "/f"]), &faults);
    assert_fields(&vm.json(&["check"]), &["clean", "issues"]);
    assert_eq!(vm.json(&["peek", "/f", "1", "3"])["hex"], "656c6c");
}

#[test]
fn names_are_made_moved_and_removed() {
    let vm = Vm::launch("64M");
    let listing = |path: &str| -> Vec<String> {
        let report = vm.json(&["ls", path]);
        let entries = report["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["name"].as_str().unwrap().to_string()).collect()
    };
    vm.ok(&["mkdir", "-p", "/a/b/c"]);
    vm.ok(&["mkdir", "-p", "/a/b"]);
    vm.ok(&["truncate", "/a/b/c/file", "1M"]);
    let odd = "/a/wo\u{308}rter und (zeichen) '\"$";
    vm.ok(&["clone", "/a/b/c/file", odd]);
    assert_eq!(listing("/a"), ["b", "wo\u{308}rter und (zeichen) '\"$"]);
    vm.ok(&["mv", odd, "/a/b/"]);
    vm.ok(&["mv", "/a/b/c/file", "/a/file"]);
    assert_eq!(listing("/a/b/c"), Vec::<String>::new());
    // Replaces, atomically.
    vm.ok(&["truncate", "/a/other", "5"]);
    vm.ok(&["mv", "/a/other", "/a/file"]);
    assert_eq!(vm.json(&["stat", "/a/file"])["size"], 5);
    assert_eq!(vm.json(&["ls", "/a/file"])["entries"][0]["size"], 5);
    for number in 0..300 {
        vm.console(&format!("write /a/b/c/{number} 0 x"));
    }
    assert_eq!(listing("/a/b/c").len(), 300);
    vm.ok(&["rm", "-r", "/a"]);
    assert_eq!(listing("/"), Vec::<String>::new());
    vm.assert_clean();
    assert_eq!(vm.json(&["df"])["inodes"], 1, "only the root is left");
}

#[test]
fn equal_files_share_after_a_dedupe() {
    let vm = Vm::launch("64M");
    let bytes = vec![0x5a; 3_000_000];
    fs::write(vm.file("f"), &bytes).unwrap();
    let local = vm.file("f").to_str().unwrap().to_string();
    vm.ok(&["put", &local, "/a"]);
    vm.ok(&["put", &local, "/b"]);
    let used = |vm: &Vm| vm.json(&["df"])["blocks_used"].as_u64().unwrap();
    let before = used(&vm);
    let report = vm.json(&["dedupe", "/a", "/b"]);
    assert_eq!(
        (&report["equal"], &report["shared"]),
        (&Value::Bool(true), &Value::from(3_000_000))
    );
    assert!(before - used(&vm) > 720);
    vm.ok(&["poke", "/b", "2000000", "--text", "other"]);
    let message = vm.fails(&["dedupe", "/a", "/b"]);
    assert!(message.contains("differ: byte 2000000 of the one"), "{message}");
    vm.ok(&[
        "dedupe",
        "/a",
        "/b",
        "--src-offset",
        "4096",
        "--dst-offset",
        "8192",
        "--length",
        "1M",
    ]);
    vm.assert_clean();
}

#[test]
fn links_are_made_and_shown_and_followed_by_nobody() {
    let vm = Vm::launch("64M");
    fs::write(vm.file("f"), "one file").unwrap();
    let local = vm.file("f").to_str().unwrap().to_string();
    vm.ok(&["put", &local, "/f"]);
    vm.ok(&["mkdir", "/d"]);
    vm.ok(&["ln", "/f", "/d/"]);
    vm.ok(&["ln", "-s", "../f", "/d/l"]);
    assert_eq!(vm.ok(&["readlink", "/d/l"]), b"../f\n");
    assert_eq!(vm.json(&["readlink", "/d/l"])["target"], "../f");
    assert_eq!(vm.json(&["stat", "/d/f"])["nlink"], 2);
    let link = vm.json(&["stat", "/d/l"]);
    assert_eq!(
        (&link["kind"], &link["size"], &link["target"]),
        (&"symlink".into(), &4.into(), &"../f".into())
    );
    let listed = String::from_utf8(vm.ok(&["ls", "-l", "/d"])).unwrap();
    let lines: Vec<&str> = listed.lines().collect();
    assert!(
        lines[0].starts_with("-rw") && lines[0].contains("  2 ") && lines[0].ends_with(" f"),
        "{listed}"
    );
    assert!(
        lines[1].starts_with("lrwxrwxrwx   1 ") && lines[1].ends_with(" l -> ../f"),
        "{listed}"
    );
    let refused = vm.fails(&["get", "/d/l", vm.file("back").to_str().unwrap()]);
    assert!(refused.contains("is a symbolic link"), "{refused}");
    assert!(vm.fails(&["ln", "/d", "/e"]).contains("is a directory"));
    assert!(vm.fails(&["ln", "-s", "x", "/d/l"]).contains("exists"));
    // A put replaces the link, not what it says.
    vm.ok(&["put", &local, "/d/l"]);
    assert_eq!(vm.json(&["stat", "/d/l"])["kind"], "file");
    // One name goes, the other stays, also across a clean stop.
    vm.ok(&["rm", "/f"]);
    vm.ok(&["ln", "-s", "d/f", "/s"]);
    vm.down();
    vm.up();
    assert_eq!(vm.ok(&["get", "/d/f", "-"]), b"one file");
    assert_eq!(vm.json(&["stat", "/d/f"])["nlink"], 1);
    assert_eq!(vm.ok(&["readlink", "/s"]), b"d/f\n");
    vm.ok(&["rm", "-r", "/d"]);
    vm.ok(&["rm", "/s"]);
    assert_eq!(vm.json(&["df"])["inodes"], 1, "only the root is left");
    vm.assert_clean();
}

#[test]
fn holes_stay_holes_both_ways() {
    let vm = Vm::launch("64M");
    let path = vm.file("sparse");
    let mut file = File::create(&path).unwrap();
    let data = Random::new(4).bytes(300_000);
    file.write_all(&data).unwrap();
    file.seek(SeekFrom::Start(700 << 20)).unwrap();
    file.write_all(&data).unwrap();
    file.set_len((1 << 30) + 17).unwrap();
    drop(file);
    // More than the NVDIMM has, if holes were written.
    vm.ok(&["put", path.to_str().unwrap(), "/sparse"]);
    let stat = vm.json(&["stat", "/sparse"]);
    assert_eq!(stat["size"], (1u64 << 30) + 17);
    assert!(stat["blocks"].as_u64().unwrap() < 200, "{stat}");
    let copy = vm.file("copy");
    vm.ok(&["get", "/sparse", copy.to_str().unwrap()]);
    let metadata = fs::metadata(&copy).unwrap();
    assert_eq!(metadata.len(), (1 << 30) + 17);
    assert!(metadata.blocks() * 512 < 4 << 20);
    assert!(umbra_tests::image::hash_file(&path) == umbra_tests::image::hash_file(&copy));
}

#[test]
fn standard_streams_are_files_too() {
    let vm = Vm::launch("64M");
    let content = Random::new(5).bytes(3_000_001);
    let mut put = vm.command(&["put", "-", "/streamed"]).stdin(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(&content).unwrap();
    assert!(put.wait().unwrap().success());
    assert!(vm.ok(&["get", "/streamed", "-"]) == content);
    // A reader that goes away early ends the command with an error, and harms nobody.
    let mut get = vm.command(&["get", "/streamed", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 10];
    get.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!(some, content[..10]);
    assert!(!get.wait().unwrap().success());
    vm.assert_clean();
}

#[test]
fn put_replaces_a_file_in_one_step_and_keeps_it_when_it_fails() {
    let vm = Vm::launch("16M");
    fs::write(vm.file("old"), "the old content").unwrap();
    fs::write(vm.file("big"), Random::new(6).bytes(20 << 20)).unwrap();
    vm.ok(&["put", vm.file("old").to_str().unwrap(), "/f"]);
    vm.ok(&["put", vm.file("old").to_str().unwrap(), "/f"]);
    assert!(vm.fails(&["put", vm.file("big").to_str().unwrap(), "/f"]).contains("no space left"));
    assert_eq!(vm.ok(&["get", "/f", "-"]), b"the old content");
    assert_eq!(vm.json(&["ls"])["entries"].as_array().unwrap().len(), 1);
    vm.assert_clean();
}

#[test]
fn pokes_peeks_and_range_clones() {
    let vm = Vm::launch("64M");
    vm.ok(&["truncate", "/f", "4M"]);
    vm.ok(&["poke", "/f", "4090", "--text", "across a page"]);
    assert_eq!(vm.ok(&["peek", "/f", "4088", "17"]), b"\0\0across a page\0\0");
    vm.ok(&["poke", "/f", "0x1FFFFE", "--hex", "de ad be ef"]);
    let dump = String::from_utf8(vm.ok(&["peek", "/f", "0x1ffff0", "0x20", "--hex"])).unwrap();
    assert_eq!(dump.lines().count(), 2);
    assert!(dump.lines().next().unwrap().ends_with("de ad  |................|"), "{dump}");
    assert!(dump.lines().nth(1).unwrap().contains("000000200000  be ef 00"), "{dump}");
    vm.ok(&["poke", "/f", "1M", "--fill", "0x5a", "--length", "2500000"]);
    vm.ok(&["poke", "/f", "0", "--text", "later", "--no-sync"]);
    vm.ok(&["clone", "/f", "/g", "--src-offset", "1M", "--dst-offset", "64K", "--length", "8K"]);
    let stat = vm.json(&["stat", "/g"]);
    assert_eq!(
        (stat["size"].as_u64(), stat["blocks"].as_u64()),
        (Some(72 << 10), Some(2)),
        "{stat}"
    );
    let content = vm.ok(&["get", "/g", "-"]);
    assert!(content[..64 << 10].iter().all(|&byte| byte == 0));
    assert!(content[64 << 10..].iter().all(|&byte| byte == 0x5a));
    let mut expected = vec![0; 4 << 20];
    expected[..5].copy_from_slice(b"later");
    expected[4090..4103].copy_from_slice(b"across a page");
    expected[0x1ffffe..0x200002].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
    expected[1 << 20..][..2_500_000].fill(0x5a);
    assert!(vm.ok(&["get", "/f", "-"]) == expected);
    vm.assert_clean();
}
