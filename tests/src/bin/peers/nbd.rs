//! The peer: nbdkit with its file plugin on XFS fsdax, in a Linux guest.
//!
//! Both guests run side by side behind the same vsock device, and the same clients are driven
//! against one and then the other, round by round; the one that is not driven sleeps.

use crate::drive;
use crate::umbra_side;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use umbra::vsock::{Device, Offer, PortChoice};
use umbra_tests::linux::{Guest, find, run};
use umbra_tests::programs;

/// Ports of both guests: echo, discard, source, NBD.
pub const PORTS: [u32; 4] = [7, 9, 19, 10809];
/// Bytes of the disk.
pub const SIZE: u64 = 128 << 20;

/// How often Umbra should do what nbdkit does once. The lines of other people's clients have no
/// aim: what such a client takes for itself is the same on both sides.
const AIMS: &[(&str, Option<f64>)] = &[
    ("read_4k_qd1", Some(1.5)),
    ("read_4k_qd16", Some(3.0)),
    ("write_4k_qd1", Some(1.5)),
    ("write_4k_qd16", Some(3.0)),
    ("write_4k_flush", Some(10.0)),
    ("seq_read", Some(2.0)),
    ("seq_write", Some(2.0)),
    ("qemu-img read_4k_qd1", None),
    ("qemu-img read_4k_qd16", None),
    ("qemu-img write_4k_qd1", None),
    ("qemu-img write_4k_qd16", None),
    ("qemu-img write_4k_flush", None),
    ("nbdcopy seq_read", None),
    ("nbdcopy seq_write", None),
];
/// Or this far from what the transport can do, if that is at least what Linux makes of it.
const FROM_CEILING: f64 = 1.2;

/// Where the ports of a guest are, each a plain socket.
pub struct Side {
    folder: PathBuf,
    /// What the disk is called.
    pub export: &'static str,
}

impl Side {
    /// The socket of a port.
    pub fn socket(&self, port: u32) -> PathBuf {
        self.folder.join(format!("port-{port}.sock"))
    }
}

/// The Linux guest, ended when this goes.
struct Linux {
    qemu: Child,
    _device: Device,
    _offers: Vec<Offer>,
}

impl Drop for Linux {
    fn drop(&mut self) {
        // It does not end by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> String {
    move |error| format!("cannot {doing}: {error}")
}

fn start_linux(folder: &Path) -> Result<Linux, String> {
    let qemu = find("qemu-system-x86_64", "qemu-system-x86")?;
    eprintln!("building a Linux guest ...");
    let guest = Guest::new(folder)?;
    for (program, package) in
        [("mkfs.xfs", "xfsprogs"), ("ndctl", "ndctl"), ("nbdkit", "nbdkit"), ("socat", "socat")]
    {
        guest.program(program, package)?;
    }
    let plugin = Path::new("/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-file-plugin.so");
    guest.file(plugin, &plugin.to_string_lossy())?;
    guest.libraries(plugin)?;
    guest.modules(&[
        "crc32c_generic",
        "libcrc32c",
        "xfs",
        "nd_pmem",
        "nfit",
        "libnvdimm",
        "virtio_pci",
        "vmw_vsock_virtio_transport",
    ])?;
    let image = guest.pack(include_str!("../../../peers/nbd/init"))?;
    let nvdimm = folder.join("nvdimm.img");
    File::create(&nvdimm).and_then(|file| file.set_len(1 << 30)).map_err(io("make the NVDIMM"))?;

    let meeting = folder.join("vhost.sock");
    let log = File::create(folder.join("vsock.log")).map_err(io("make a log"))?;
    let listener = UnixListener::bind(&meeting).map_err(io("listen for QEMU"))?;
    let device = Device::start(listener, log, |_| ()).map_err(io("start the vsock device"))?;
    let mut offers = Vec::new();
    for port in PORTS {
        let listener =
            UnixListener::bind(folder.join(format!("port-{port}.sock"))).map_err(io("listen"))?;
        offers.push(device.listen(listener, PortChoice::Port(port)).map_err(io("offer a port"))?);
    }
    let console = folder.join("console.log");
    let said = File::create(&console).map_err(io("make a log"))?;
    // As Umbra's, but for its memory; Linux would copy with `rep movsb`, which emulation runs byte
    // by byte.
    let qemu = Command::new(qemu)
        .args([
            "-accel",
            "tcg",
            "-machine",
            "q35,nvdimm=on,memory-backend=ram",
            "-cpu",
            "max,-erms,-fsrm",
        ])
        .args(["-smp", "1,maxcpus=2"])
        .args([
            "-m",
            "1G,slots=2,maxmem=8G",
            "-object",
            "memory-backend-memfd,id=ram,size=1G,share=on",
        ])
        .arg("-object")
        .arg(format!(
            "memory-backend-file,id=nv,share=on,mem-path={},size=1G,prealloc=on",
            nvdimm.display()
        ))
        .args(["-device", "nvdimm,id=nv0,memdev=nv", "-chardev"])
        .arg(format!("socket,id=vs,path={}", meeting.display()))
        .args(["-device", "vhost-user-vsock-pci,chardev=vs"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel"])
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(said.try_clone().map_err(io("make a log"))?)
        .stderr(said)
        .spawn()
        .map_err(io("run QEMU"))?;
    let linux = Linux { qemu, _device: device, _offers: offers };
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let said = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        if said.contains("SERVING") {
            return Ok(linux);
        }
        if Instant::now() > deadline {
            return Err(format!("the Linux guest does not serve: {said}"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What both do in a second, by the name of what it is; and what their transports can do.
pub struct Measured {
    peer: BTreeMap<&'static str, f64>,
    ours: BTreeMap<&'static str, f64>,
}

/// Measures both.
pub fn measure(rounds: usize) -> Result<Measured, String> {
    let folder = umbra_side::folder()?;
    let (linux_folder, umbra_folder) = (folder.path().join("linux"), folder.path().join("umbra"));
    fs::create_dir(&linux_folder).map_err(io("make a folder"))?;
    let linux = start_linux(&linux_folder)?;

    eprintln!("building Umbra ...");
    let images = programs::images(&[]);
    let command = |arguments: &[&str]| {
        let mut command = Command::new(programs::umbra());
        command.arg("--state").arg(&umbra_folder).args(arguments);
        command.env("UMBRA_LOADER", &images.loader).env("UMBRA_KERNEL", &images.kernel);
        command
    };
    run(&mut command(&["up", "--detach", "--prealloc", "--accel", "tcg", "--nvdimm-size", "1G"]))?;
    let disk = folder.path().join("disk");
    fs::write(&disk, umbra_tests::random::Random::new(1).bytes(SIZE as usize))
        .map_err(io("make a disk"))?;
    run(&mut command(&["put", &disk.to_string_lossy(), "/disk"]))?;
    // Plain sockets before its ports, as those of the other side are.
    let mut relays = Vec::new();
    let ours = Side { folder: umbra_folder.clone(), export: "disk" };
    let peer = Side { folder: linux_folder, export: "" };
    for port in PORTS {
        let socket = ours.socket(port).to_string_lossy().into_owned();
        let mut relay = command(&["relay", &port.to_string(), &socket]);
        relays.push(relay.stderr(Stdio::null()).spawn().map_err(io("offer a port"))?);
    }
    let result = drive::both(&peer, &ours, &disk, rounds);
    for mut relay in relays {
        // They do not end by themselves.
        let _ = relay.kill();
        let _ = relay.wait();
    }
    run(&mut command(&["down"]))?;
    drop(linux);
    result.map(|(peer, ours)| Measured { peer, ours })
}

/// One line of the table.
struct Row {
    name: &'static str,
    peer: f64,
    ours: f64,
    aim: Option<f64>,
    /// What the transports can do.
    ceilings: Option<(f64, f64)>,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours / self.peer
    }
    /// How far it is from the ceiling, if that is as high as Linux's.
    fn below_ceiling(&self) -> Option<f64> {
        self.ceilings.filter(|(peer, ours)| ours >= peer).map(|(_, ours)| ours / self.ours)
    }
    fn is_met(&self) -> bool {
        self.aim.is_none_or(|aim| self.ratio() >= aim)
            || self.below_ceiling().is_some_and(|far| far <= FROM_CEILING)
    }
}

impl Measured {
    fn rows(&self) -> Vec<Row> {
        let row = |&(name, aim): &(&'static str, Option<f64>)| {
            let raw = drive::ceiling(name);
            let ceilings = self.peer.get(raw).copied().zip(self.ours.get(raw).copied());
            Some(Row {
                name,
                peer: *self.peer.get(name)?,
                ours: *self.ours.get(name)?,
                aim,
                ceilings,
            })
        };
        AIMS.iter().filter_map(row).collect()
    }

    /// The table.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:<23} {:>10} {:>10} {:>7} {:>6} {:>12} {:>12} {:>10}\n",
            "per second",
            "nbdkit",
            "Umbra",
            "ratio",
            "aim",
            "raw, Linux",
            "raw, Umbra",
            "raw/Umbra"
        );
        for row in self.rows() {
            let (raw_peer, raw_ours) = row.ceilings.unwrap_or_default();
            let far = row.below_ceiling().map_or("-".into(), |far| format!("{far:.2}"));
            let mark = if row.is_met() { "" } else { "  MISSED" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:<23} {:>10.0} {:>10.0} {:>7.2} {:>6} {raw_peer:>12.0} {raw_ours:>12.0} \
                 {far:>10}{mark}",
                row.name,
                row.peer,
                row.ours,
                row.ratio(),
                row.aim.map_or("-".into(), |aim| format!("{aim:.1}")),
            );
        }
        text.push_str(
            "seq: MB a second; the others: requests a second (write_4k_flush: pairs of requests)\n",
        );
        text
    }

    /// The same as JSON.
    pub fn json(&self) -> String {
        let row = |row: &Row| -> Value {
            json!({
                "name": row.name, "peer": row.peer, "ours": row.ours, "ratio": row.ratio(),
                "aim": row.aim, "met": row.is_met(),
                "raw_peer": row.ceilings.map(|c| c.0), "raw_ours": row.ceilings.map(|c| c.1),
            })
        };
        let rows: Vec<Value> = self.rows().iter().map(row).collect();
        format!("{}\n", json!({ "version": 1, "peer": "nbdkit", "results": rows }))
    }
}
