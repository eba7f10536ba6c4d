//! The loader, given what it cannot start: each time one line that says why, and a failure for
//! QEMU's caller.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use umbra::build::{Images, Request, build};
use umbra_tests::qemus::Qemu;

/// QEMU's exit status after the loader's failure: 2 * 2 + 1.
const FAILED: i32 = 5;
const FIRMWARE: [&str; 2] = ["qboot.rom", "bios-256k.bin"];
const PATIENCE: Duration = Duration::from_secs(60);

static IMAGES: LazyLock<Images> =
    LazyLock::new(|| build(&Request::default()).expect("loader and kernel"));

/// What the loader says, after the firmware's chatter, and QEMU's exit status.
fn boot(qemu: &Qemu, firmware: &str, kernel: Option<&Path>) -> (String, Option<i32>) {
    let mut qemu = Command::new(qemu.system());
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-serial",
        "stdio",
    ]);
    qemu.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "64M", "-bios", firmware]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-kernel"]).arg(&IMAGES.loader);
    if let Some(kernel) = kernel {
        qemu.arg("-initrd").arg(kernel);
    }
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("QEMU starts");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    let from = said.find("umbra-boot: ").unwrap_or(0);
    (said[from..].trim_end().to_owned(), status)
}

fn expect_failure(kernel: Option<&[u8]>, message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel");
    if let Some(bytes) = kernel {
        fs::write(&path, bytes).unwrap();
    }
    for qemu in [Some(Qemu::installed()), Qemu::other()].iter().flatten() {
        for firmware in FIRMWARE {
            let (said, status) = boot(qemu, firmware, kernel.map(|_| path.as_path()));
            assert!(
                said.starts_with("umbra-boot: ") && said.contains(message),
                "{qemu:?}, {firmware}: {said}"
            );
            assert_eq!(status, Some(FAILED), "{qemu:?}, {firmware}: {said}");
            assert_eq!(said.lines().count(), 1, "{qemu:?}, {firmware}: {said}");
        }
    }
}

/// Offset of the last writable program header.
fn data_segment(kernel: &[u8]) -> usize {
    let half = |at: usize| usize::from(u16::from_le_bytes(kernel[at..at + 2].try_into().unwrap()));
    let word = |at: usize| u32::from_le_bytes(kernel[at..at + 4].try_into().unwrap());
    let mut headers = (0..half(56)).map(|index| 64 + index * 56);
    headers.rfind(|&at| word(at) == 1 && word(at + 4) & 2 != 0).expect("a writable segment")
}

#[test]
fn no_kernel() {
    expect_failure(None, "no kernel: start QEMU with -initrd");
}

#[test]
fn not_an_elf_file() {
    expect_failure(Some(b"#!/bin/sh\necho hello\n"), "is not an ELF file");
}

#[test]
fn an_elf_file_that_is_no_kernel() {
    let loader = fs::read(&IMAGES.loader).unwrap();
    expect_failure(Some(&loader), "has no section .bootloader-config");
}

#[test]
fn half_a_kernel() {
    let kernel = fs::read(&IMAGES.kernel).unwrap();
    expect_failure(Some(&kernel[..kernel.len() / 2]), "ends before its");
}

#[test]
fn a_kernel_that_could_write_its_text() {
    let mut kernel = fs::read(&IMAGES.kernel).unwrap();
    let header = data_segment(&kernel);
    kernel[header + 4] |= 1;
    expect_failure(Some(&kernel), "writable and executable");
}

#[test]
fn a_kernel_larger_than_memory() {
    let mut kernel = fs::read(&IMAGES.kernel).unwrap();
    let header = data_segment(&kernel);
    kernel[header + 40..header + 48].copy_from_slice(&(64u64 << 20).to_le_bytes());
    expect_failure(Some(&kernel), "too little memory: the kernel needs");
}
