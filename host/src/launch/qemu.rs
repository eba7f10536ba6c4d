//! QEMU's command line.
//!
//! QEMU runs inside the state directory, so that the names of its files there need no
//! escaping and sockets have short paths. `qboot` is the firmware: it enters the loader in
//! 0.04 s under emulation, where SeaBIOS takes 0.1 s and OVMF 3 s.

use super::nvdimm::{Extra, Own};
use super::transport::Transport;
use super::{Accel, LaunchError, Options, find_program, leash, monitor};
use crate::state::StateDir;
use std::ffi::OsString;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Child, Stdio};

/// Room for memory devices: beyond the NVDIMM itself, QEMU aligns each to a GiB.
const MEMORY_SLACK: u64 = 1 << 30;

/// Starts QEMU with its serial line on stdin and stdout, as pipes.
pub(super) fn start(
    state: &StateDir,
    options: &Options,
    machine: &Machine,
    log: File,
) -> Result<Child, LaunchError> {
    let program = find_program(&options.qemu).ok_or_else(|| {
        LaunchError::Unusable(format!(
            "{} was not found: install it (Debian: package qemu-system-x86), or run ./run-qemu.sh",
            options.qemu.display()
        ))
    })?;
    leash::command(program.as_os_str())
        .args(arguments(options, machine))
        .current_dir(state.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| LaunchError::Io(format!("start {}", program.display()), error))
}

/// What was found out about the host and the image.
pub(super) struct Machine {
    /// The accelerator.
    pub(super) accel: Accel,
    /// The way to the guest's vsock.
    pub(super) transport: Transport,
    /// The volume's NVDIMM.
    pub(super) nvdimm: Own,
    /// Those behind it.
    pub(super) extra: Vec<Extra>,
}

fn arguments(options: &Options, machine: &Machine) -> Vec<OsString> {
    let mut all: Vec<OsString> = Vec::new();
    let mut add = |arguments: &[&str]| all.extend(arguments.iter().map(OsString::from));

    let memory = options.memory;
    let beside = machine.extra.iter().map(|extra| extra.size.saturating_add(MEMORY_SLACK));
    let beside = beside.fold(machine.nvdimm.size.saturating_add(MEMORY_SLACK), u64::saturating_add);
    let maximum = memory.saturating_add(beside);
    let slots = 2 + machine.extra.len();
    add(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    add(&["-machine", "q35,nvdimm=on,memory-backend=ram"]);
    // QEMU emulates a machine that can never have a second processor without memory barriers. The
    // vsock device, on another thread, needs those of the guest: each looks whether the other is
    // about to sleep.
    let processors = if machine.accel == Accel::Tcg { "1,maxcpus=2" } else { "1" };
    add(&["-accel", &machine.accel.to_string(), "-cpu", "max", "-smp", processors]);
    if options.icount {
        // Then all processors, however many there can be, are one thread's, and the barriers are
        // left out again: see `Transport::qemu_arguments`.
        add(&["-icount", "shift=0"]);
    }
    // Sizes in KiB: QEMU reads a bare number as MiB.
    add(&["-m", &format!("size={}k,slots={slots},maxmem={}k", memory >> 10, maximum >> 10)]);
    // Shared, because the vsock device reads and writes the guest's queues.
    add(&["-object", &format!("memory-backend-memfd,id=ram,size={memory},share=on")]);
    let prealloc = if options.prealloc { ",prealloc=on" } else { "" };
    if machine.nvdimm.size > 0 {
        let size = machine.nvdimm.size;
        let backend = format!(
            "memory-backend-file,id=nvm,mem-path=nvdimm.img,size={size},share=on{prealloc}"
        );
        add(&["-object", &backend]);
        add(&["-device", "nvdimm,id=nvdimm0,memdev=nvm"]);
    }
    add(&["-bios", "qboot.rom"]);
    add(&["-fw_cfg", "name=opt/umbra/config,file=guest.conf"]);
    add(&["-fw_cfg", "name=opt/umbra/seed,file=guest.seed"]);
    add(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
    for monitor in ["qmp.sock", monitor::SOCKET] {
        add(&["-qmp", &format!("unix:{monitor},server=on,wait=off")]);
    }
    add(&["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    for argument in machine.transport.qemu_arguments(options.icount) {
        add(&[&argument]);
    }
    all.extend(["-kernel".into(), options.loader.clone().into()]);
    all.extend(["-initrd".into(), options.kernel.clone().into()]);
    // Behind the volume's: QEMU gives addresses in the order of devices, and the guest takes the
    // lowest for the volume.
    for (number, extra) in (1..).zip(&machine.extra) {
        let mut backend = OsString::from(format!("memory-backend-file,id=nvm{number},mem-path="));
        backend.push(escaped(&extra.path));
        backend.push(format!(",size={},share=on{prealloc}", extra.size));
        let device = format!("nvdimm,id=nvdimm{number},memdev=nvm{number}");
        all.extend(["-object".into(), backend, "-device".into(), device.into()]);
    }
    all
}

/// A path as part of an option: a comma in it is written twice.
fn escaped(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let twice =
        bytes.iter().flat_map(|&byte| std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
    OsString::from_vec(twice.collect())
}

/// The guest's configuration: what it finds as `opt/umbra/config`.
pub(super) fn guest_config(options: &Options) -> String {
    let mut text = String::new();
    if options.format {
        text.push_str("format=yes\n");
    }
    for line in &options.guest_config {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Randomness for the guest, whose processor may have none: hash maps are seeded with the
/// system's, and that is good enough for identifiers and hash seeds.
pub(super) fn guest_seed() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}{:016x}{:016x}", random(), random(), random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;
    use crate::launch::DEFAULT_QEMU;
    use crate::launch::accel::Choice;

    fn options() -> Options {
        Options {
            state: "/s".into(),
            nvdimm_size: None,
            extra_nvdimms: Vec::new(),
            memory: 64 << 20,
            accel: Choice::Auto,
            qemu: DEFAULT_QEMU.into(),
            format: true,
            icount: false,
            prealloc: false,
            access: Access::OWNER,
            guest_config: vec!["log=debug".into()],
            loader: "/a/boot.elf".into(),
            kernel: "/a/kernel.elf".into(),
        }
    }

    fn line(nvdimm_size: u64, extra: Vec<Extra>) -> String {
        line_with(&options(), Transport::Kernel { cid: 1234 }, nvdimm_size, extra)
    }

    fn line_with(options: &Options, transport: Transport, size: u64, extra: Vec<Extra>) -> String {
        let nvdimm = Own { size, _lock: None };
        let all = arguments(options, &Machine { accel: Accel::Tcg, transport, nvdimm, extra });
        all.iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_machine_has_what_was_asked_for() {
        let line = line(1 << 30, Vec::new());
        for part in [
            "-m size=65536k,slots=2,maxmem=2162688k",
            "memory-backend-memfd,id=ram,size=67108864,share=on",
            "mem-path=nvdimm.img,size=1073741824,share=on",
            "-device nvdimm,id=nvdimm0,memdev=nvm",
            "-kernel /a/boot.elf -initrd /a/kernel.elf",
            "guest-cid=1234",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn further_nvdimms_come_behind_the_first() {
        let extra =
            Extra { path: "/a,b".into(), size: 2 << 30, _lock: tempfile::tempfile().unwrap() };
        let line = line(1 << 30, vec![extra]);
        for part in [
            "-m size=65536k,slots=3,maxmem=5308416k",
            "-object memory-backend-file,id=nvm1,mem-path=/a,,b,size=2147483648,share=on",
            "-device nvdimm,id=nvdimm1,memdev=nvm1",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn no_nvdimm_means_no_device() {
        assert!(!line(0, Vec::new()).contains("nvdimm0"));
    }

    #[test]
    fn without_barriers_nobody_says_when_to_be_told() {
        for transport in [Transport::Device, Transport::Kernel { cid: 1234 }] {
            for icount in [false, true] {
                let line = line_with(&Options { icount, ..options() }, transport, 0, Vec::new());
                assert_eq!(line.contains("-icount shift=0"), icount);
                assert_eq!(line.contains("event_idx=off"), icount, "{line}");
            }
        }
    }

    #[test]
    fn the_guest_is_told() {
        assert_eq!(guest_config(&options()), "format=yes\nlog=debug\n");
    }
}
