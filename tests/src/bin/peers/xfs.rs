//! The peer: XFS in a Linux guest.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Command, Stdio};
use umbra_tests::linux::{Guest, find, run};

/// As the guest of Umbra has it.
const NVDIMM: &str = "1G";

/// Nanoseconds of each operation.
pub fn measure() -> Result<BTreeMap<String, f64>, String> {
    let qemu = find("qemu-system-x86_64", "qemu-system-x86")?;
    let folder = crate::umbra_side::folder()?;
    let path = folder.path();
    eprintln!("building a Linux guest ...");
    let guest = Guest::new(path)?;
    guest.program("mkfs.xfs", "xfsprogs")?;
    guest.program("ndctl", "ndctl")?;
    guest.modules(&["crc32c_generic", "libcrc32c", "xfs", "nd_pmem", "nfit", "libnvdimm"])?;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/xfs/bench.c");
    let program = path.join("bench");
    run(Command::new(find("gcc", "gcc libc6-dev")?)
        .args(["-O2", "-static", "-o"])
        .arg(&program)
        .arg(source))?;
    guest.file(&program, "usr/bin/bench")?;
    let image = guest.pack(include_str!("../../../peers/xfs/init"))?;
    let nvdimm = path.join("nvdimm.img");
    File::create(&nvdimm)
        .and_then(|file| file.set_len(1 << 30))
        .map_err(|e| format!("cannot make {}: {e}", nvdimm.display()))?;
    eprintln!("measuring XFS in it ...");
    let backend = format!(
        "memory-backend-file,id=nv,share=on,mem-path={},size={NVDIMM},prealloc=on",
        nvdimm.display()
    );
    // The same machine as Umbra's, but for its memory. Linux would copy with `rep movsb`, which
    // emulation runs byte by byte: without ERMS it is fair.
    let output = Command::new("timeout")
        .arg("900")
        .arg(qemu)
        .args(["-accel", "tcg", "-machine", "q35,nvdimm=on", "-cpu", "max,-erms,-fsrm"])
        .args([
            "-m",
            "1G,slots=2,maxmem=8G",
            "-object",
            &backend,
            "-device",
            "nvdimm,id=nv0,memdev=nv",
        ])
        .args(["-nographic", "-nic", "none", "-vga", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run QEMU: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let results: BTreeMap<String, f64> = text.lines().filter_map(parse).collect();
    if results.contains_key("unlink_clone") {
        return Ok(results);
    }
    let tail: Vec<&str> = text.lines().rev().take(12).collect();
    Err(format!(
        "the Linux guest did not finish ({}): {}{}",
        output.status,
        tail.into_iter().rev().collect::<Vec<_>>().join("; "),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// A line that `bench.c` prints: `BENCH name NS ns/op OPS ops`.
fn parse(line: &str) -> Option<(String, f64)> {
    let mut words = line.split_once("BENCH ")?.1.split_whitespace();
    Some((words.next()?.to_string(), words.next()?.parse().ok()?))
}
