//! Memory errors: each is counted and logged, whatever else the machine does, and a load of memory
//! that is lost ends with an error.
//!
//! QEMU's monitor reports errors of any address (`mce`). Its emulated processor takes them at once,
//! and not when it loads what is lost; so loads of lost memory are shown by a command of test
//! builds that ends them as the machine check would.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use umbra::client::rpc::ErrorCode;
use umbra_proto::nbd::{Command, Errno, Style};
use umbra_tests::nbd::Disk;
use umbra_tests::{Machine, Vm};

/// MCi_STATUS of memory that is lost, as KVM reports it to a guest (SRAR), with address and MISC.
const LOST: &str = "0xbd80000000000134";
/// MCi_STATUS of an error that the hardware corrected, with address and MISC.
const CORRECTED: &str = "0x9c00000000000134";
/// How long the guest may take to say what it was told.
const PATIENCE: Duration = Duration::from_secs(60);

/// QEMU's monitor.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn new(vm: &Vm) -> Self {
        let mut monitor = Monitor(BufReader::new(vm.state().connect("qmp.sock").unwrap()));
        let mut greeting = String::new();
        monitor.0.read_line(&mut greeting).unwrap();
        monitor.ask(json!({ "execute": "qmp_capabilities" }));
        monitor
    }

    fn ask(&mut self, request: Value) -> Value {
        self.0.get_mut().write_all(format!("{request}\n").as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "QEMU is gone");
            let mut answer: Value = serde_json::from_str(&line).unwrap();
            assert!(answer.get("error").is_none(), "{request}: {answer}");
            if let Some(value) = answer.get_mut("return") {
                return value.take();
            }
        }
    }

    /// Has the processor take an error at a physical address, from bank 9.
    fn report(&mut self, status: &str, address: u64) {
        let command = format!("mce 0 9 {status} 0x7 {address:#x} 0x8c");
        let arguments = json!({ "command-line": command });
        let said = self.ask(json!({ "execute": "human-monitor-command", "arguments": arguments }));
        assert_eq!(said, "", "{command}");
    }
}

/// Waits until the console's `errors` says this.
fn wait_for(vm: &Vm, expected: &str) {
    let start = Instant::now();
    loop {
        let said = vm.console("errors");
        if said.contains(expected) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{said:?} never says {expected:?}");
        sleep(Duration::from_millis(100));
    }
}

/// Where the served NVDIMM starts in physical memory.
fn start_of_nvdimm(vm: &Vm) -> u64 {
    let log = vm.console_log();
    let (_, rest) = log.split_once("NVDIMM at 0x").expect("the kernel logs where the NVDIMM is");
    u64::from_str_radix(rest.split_once(',').unwrap().0, 16).unwrap()
}

/// Waits until the log has so many lines with this.
fn wait_for_lines(vm: &Vm, text: &str, lines: usize) {
    let start = Instant::now();
    while vm.console_log().matches(text).count() < lines {
        assert!(start.elapsed() < PATIENCE, "no {lines} of {text:?} in {}", vm.console_log());
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_error_is_counted_and_logged_and_nothing_else_happens() {
    let vm = Vm::launch("16M");
    let base = start_of_nvdimm(&vm);
    vm.console("write /f 0 fill:0x41:64K");
    let mut monitor = Monitor::new(&vm);
    let lost = format!("uncorrected memory error at {:#x} (bank 9)", base + 0x5123);

    // Of the same address again and again, on an idle machine: the loop takes each.
    for n in 1..=20 {
        monitor.report(LOST, base + 0x5123);
        wait_for_lines(&vm, &lost, n);
    }
    // The hardware tells nobody of what it corrected: the kernel asks.
    monitor.report(CORRECTED, base + 0x6000);
    wait_for(&vm, "20 uncorrected, 1 corrected, 0 not recorded");
    let line = format!(" corrected memory error at {:#x} (bank 9)", base + 0x6000);
    assert!(vm.console_log().contains(&line), "{}", vm.console_log());

    // Under load, at whatever instruction.
    let file = vm.file("content");
    std::fs::write(&file, vec![0x42; 1 << 20]).unwrap();
    let path = file.to_str().unwrap();
    let at_work = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Bounded, so that a failure of the other thread is seen.
            for _ in (0..200).take_while(|_| at_work.load(Ordering::Relaxed)) {
                vm.ok(&["put", path, "/content"]);
                vm.ok(&["clone", "/content", "/clone"]);
                vm.ok(&["poke", "/clone", "0", "--text", "x"]);
                vm.ok(&["rm", "/content", "/clone"]);
            }
        });
        for n in 21..=60 {
            monitor.report(LOST, base + 0x5123);
            wait_for_lines(&vm, &lost, n);
        }
        at_work.store(false, Ordering::Relaxed);
    });
    wait_for(&vm, "60 uncorrected, 1 corrected, 0 not recorded");
    assert!(vm.console("cat /f 0 4").contains("AAAA"));
    vm.assert_clean();
    vm.down();
}

#[test]
fn loads_of_lost_memory_end() {
    let vm = Machine::nvdimm("16M").feature("test-commands").prepare();
    vm.up();
    vm.console("write /f 0 fill:0x41:8K");
    let window = vm.console("map /f");
    let number = window.lines().find_map(|line| line.trim().strip_prefix("window ")).unwrap();
    let said = vm.console(&format!("test-lost {}", number.trim()));
    assert!(said.contains("loads of lost memory end"), "{said}");
    vm.assert_clean();
    vm.down();
}

/// Bytes of a block.
const BLOCK: u64 = 4096;

/// Where the block is that has this byte of a file.
fn block_of(vm: &Vm, path: &str, offset: u64) -> u64 {
    let mut client = vm.client();
    let file = client.open(path.as_bytes(), 0).unwrap();
    let runs = client.extents(&file, offset, Some(1)).unwrap();
    let run = runs.first().expect("a run");
    run.block.expect("a block") + (offset - run.offset) / BLOCK
}

/// Which blocks of a file can be read, through a mapping and over NBD, and what fails otherwise.
fn readable(vm: &Vm, path: &str, blocks: u64) -> Vec<bool> {
    let mut client = vm.client();
    let file = client.open(path.as_bytes(), 0).unwrap();
    let mut disk = Disk::open(vm.state(), path.trim_start_matches('/'), Style::Structured);
    let can = |block| {
        let over_rpc = client.read(&file, block * BLOCK, BLOCK);
        if let Err(error) = &over_rpc {
            assert!(error.is(ErrorCode::POISONED), "{path} at block {block}: {error}");
        }
        let over_nbd = disk.call(Command::READ, 0, block * BLOCK, BLOCK, &[]).error;
        let errno = over_rpc.is_err().then_some(Errno::EIO);
        assert_eq!(over_nbd.map(|(errno, ..)| errno), errno, "{path} at block {block}");
        over_rpc.is_ok()
    };
    (0..blocks).map(can).collect()
}

/// The owners of each bad block, as paths with offsets.
fn owners(vm: &Vm) -> Vec<(u64, Vec<String>)> {
    let report = vm.json(&["poison", "list"]);
    let blocks = report["blocks"].as_array().unwrap();
    let owners = |block: &Value| {
        let owners = block["owners"].as_array().unwrap().iter();
        let path = |owner: &Value| owner["path"].as_str().unwrap().to_string();
        owners.map(|owner| format!("{}+{}", path(owner), owner["offset"])).collect()
    };
    let mut all: Vec<(u64, Vec<String>)> =
        blocks.iter().map(|block| (block["block"].as_u64().unwrap(), owners(block))).collect();
    all.iter_mut().for_each(|(_, owners)| owners.sort());
    all
}

#[test]
fn lost_data_costs_those_files_that_share_it_and_nothing_else() {
    let vm = Vm::launch("32M");
    let base = start_of_nvdimm(&vm);
    vm.console("write /f 0 fill:0x41:32K");
    for clone in ["/a", "/b"] {
        vm.ok(&["clone", "/f", clone]);
    }
    // One of the clones has a block of its own elsewhere.
    vm.ok(&["poke", "/b", "0", "--text", "b"]);
    let bad = block_of(&vm, "/f", 3 * BLOCK);
    // Somebody has it mapped.
    assert_eq!(vm.ok(&["peek", "/a", "0x3000", "1"]), b"A");
    let mut monitor = Monitor::new(&vm);
    monitor.report(LOST, base + bad * BLOCK + 0x123);
    wait_for(&vm, "bad blocks: 1 on the list, 0 of them out of use");
    let all_but_3 = [true, true, true, false, true, true, true, true];
    for path in ["/f", "/a", "/b"] {
        assert_eq!(readable(&vm, path, 8), all_but_3, "{path}");
        assert!(vm.fails(&["peek", path, "0x3fff", "1"]).contains("memory error"));
        assert!(vm.fails(&["get", path, "/dev/null"]).contains("memory error"));
    }
    let shared = |paths: &[&str]| -> Vec<String> {
        paths.iter().map(|path| format!("{path}+{}", 3 * BLOCK)).collect()
    };
    assert_eq!(owners(&vm), [(bad, shared(&["/a", "/b", "/f"]))]);
    assert_eq!(vm.client().status().unwrap().bad_blocks, Some(1));

    // A write of the whole block heals one file; the others stay as they are.
    vm.console("write /a 0x3000 fill:0x42:4K");
    assert_eq!(readable(&vm, "/a", 8), [true; 8]);
    assert_eq!(readable(&vm, "/f", 8), all_but_3);
    assert_eq!(owners(&vm), [(bad, shared(&["/b", "/f"]))]);
    vm.assert_clean();

    // A block that is free, and memory that is no NVDIMM.
    let free = (32 << 20) / BLOCK - 1;
    monitor.report(LOST, base + free * BLOCK);
    wait_for(&vm, "bad blocks: 2 on the list, 1 of them out of use");
    monitor.report(LOST, 48 << 20);
    wait_for(&vm, "3 uncorrected, 0 corrected, 0 not recorded");
    let media = &vm.json(&["status"])["media"];
    assert_eq!((&media["bad_blocks"], &media["memory_errors"]), (&json!(2), &json!(3)));
    assert_eq!(media["mended_copies"], 0);
    vm.assert_clean();

    let kinds = |vm: &Vm| -> Vec<String> {
        let report = vm.json(&["events"]);
        let events = report["events"].as_array().unwrap().iter();
        events.map(|event| event["kind"].as_str().unwrap().to_string()).collect()
    };
    let errors_said = |vm: &Vm| {
        let said = kinds(vm);
        said.into_iter().filter(|kind| kind == "memory-error").count()
    };
    assert_eq!(errors_said(&vm), 3);

    // The list survives a clean stop, and the other sort.
    let expected = [(bad, shared(&["/b", "/f"])), (free, vec![])];
    for clean in [true, false] {
        drop(std::mem::replace(&mut monitor, {
            if clean {
                vm.down()
            } else {
                vm.kill_qemu()
            }
            // Nobody answers, but what happened was kept.
            assert_eq!(errors_said(&vm), 3);
            vm.up();
            Monitor::new(&vm)
        }));
        assert_eq!(owners(&vm), expected);
        assert_eq!(readable(&vm, "/f", 8), all_but_3);
        assert_eq!(readable(&vm, "/a", 8), [true; 8]);
        vm.assert_clean();
    }

    // The last owners go, and with them the block.
    vm.ok(&["rm", "/f", "/b"]);
    wait_for(&vm, "bad blocks: 2 on the list, 2 of them out of use");
    assert_eq!(vm.json(&["poison", "clear", "--yes"])["cleared"], 2);
    assert_eq!(owners(&vm), []);
    assert!(kinds(&vm).contains(&"bad-blocks-cleared".to_string()));
    vm.assert_clean();
    vm.down();
}

#[test]
fn what_is_injected_is_what_the_memory_would_have_reported() {
    let vm = Vm::launch("16M");
    vm.console("write /f 0 fill:0x41:16K");
    let bad = block_of(&vm, "/f", BLOCK);
    // It is asked for, since it costs data.
    let output = vm.run(&["poison", "inject", "/f", "0x1005"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(vm.json(&["poison", "inject", "/f", "0x1005", "--yes"])["block"], bad);
    assert_eq!(readable(&vm, "/f", 4), [true, false, true, true]);
    let number = (bad + 1).to_string();
    assert_eq!(vm.json(&["poison", "inject", "--block", &number, "--yes"])["block"], bad + 1);
    assert_eq!(readable(&vm, "/f", 4)[1..2], [false]);
    let text = String::from_utf8(vm.ok(&["poison", "list"])).unwrap();
    assert!(text.contains("/f"), "{text}");
    assert!(vm.fails(&["poison", "inject", "--block", "4096", "--yes"]).contains("4096 blocks"));
    assert!(vm.fails(&["poison", "inject", "/none", "0", "--yes"]).contains("no such file"));
    vm.assert_clean();
    vm.down();
}

/// Where a 16 MiB volume has two copies of metadata, as bytes in its image: blocks of the first
/// half that the second half has, too.
fn pairs(image: &[u8]) -> Vec<(usize, usize)> {
    let (half, block) = (8 << 20, BLOCK as usize);
    let at = (0..half).step_by(block);
    let is_pair = |&at: &usize| {
        let bytes = &image[at..at + block];
        bytes == &image[at + half..at + half + block] && bytes.iter().any(|&byte| byte != 0)
    };
    at.filter(is_pair).map(|at| (at, at + half)).collect()
}

#[test]
fn a_scrub_mends_what_nobody_reads() {
    let vm = Vm::launch("16M");
    vm.console("write /f 0 fill:0x41:16K");
    let report = vm.json(&["scrub"]);
    assert_eq!((&report["mended"], &report["lost"]), (&json!(0), &json!(0)));
    assert!(report["pairs"].as_u64().unwrap() > 3, "{report}");
    vm.down();
    // Of the second copies nothing is read while the first are good.
    let path = vm.state().nvdimm();
    let mut image = std::fs::read(&path).unwrap();
    let pairs = pairs(&image);
    assert!(pairs.len() > 3);
    for &(_, second) in &pairs {
        image[second + 64..second + 128].fill(0);
    }
    std::fs::write(&path, &image).unwrap();
    vm.up();
    let report = vm.json(&["scrub", "--rate", "1M"]);
    let media = &vm.json(&["status"])["media"];
    let mended = media["mended_copies"].as_u64().unwrap();
    assert!(mended >= pairs.len() as u64, "{media} {pairs:?}");
    assert!(report["mended"].as_u64().unwrap() > 0, "{report}");
    assert_eq!((&report["damaged"], &report["differ"]), (&json!(0), &json!(0)), "{report}");
    assert!(report["seconds"].as_f64().unwrap() > 0.05, "{report}");
    assert_eq!(
        (&media["scrub"]["ended"], &media["scrub"]["total"]),
        (&report["ended"], &json!(4096))
    );
    assert!(vm.console("cat /f 0 4").contains("AAAA"));
    vm.assert_clean();
    vm.down();
    let image = std::fs::read(&path).unwrap();
    for (first, second) in pairs {
        let [first, second] = [first, second].map(|at| &image[at..at + BLOCK as usize]);
        assert!(first == second);
    }
}

/// More errors than are recorded at once: all are counted, and what was not recorded is said.
#[test]
fn a_thousand_errors_are_all_counted() {
    let vm = Vm::launch("16M");
    let mut client = vm.client();
    for n in 0..1000u64 {
        client.lose_block(1000 + n).unwrap();
    }
    let said = vm.console("errors");
    assert!(said.contains("1000 uncorrected"), "{said}");
    assert!(said.contains("bad blocks: 1000 on the list"), "{said}");
    let report = vm.json(&["poison", "list"]);
    assert_eq!(report["blocks"].as_array().unwrap().len(), 1000);
    vm.assert_clean();
    drop(client);
    vm.down();
}
