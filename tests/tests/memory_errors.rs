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
