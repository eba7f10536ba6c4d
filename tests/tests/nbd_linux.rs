//! Linux guests on exports: Debian's kernel with its root disk on a clone, and the kernel's own
//! driver of NBD.
//!
//! Needs the Debian packages `linux-image-amd64 busybox-static cpio kmod e2fsprogs nbd-client`
//! beside QEMU's.

use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use umbra::client::{Stream, connect};
use umbra::state::StateDir;
use umbra_proto::nbd::PORT;
use umbra_tests::linux::{Guest, Image, find, run};
use umbra_tests::qemus::Qemu;
use umbra_tests::{Machine, Vm};

umbra_tests::under_each_qemu!(two_guests_boot_from_two_clones_at_once_and_golden_stays);

/// How long a guest may take, under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A guest that is ended if the test is.
struct Linux {
    qemu: Child,
    console: PathBuf,
}

impl Linux {
    fn start(qemu: &Qemu, image: &Image, console: &Path, arguments: &[&str]) -> Linux {
        let log = fs::File::create(console).unwrap();
        let qemu = Command::new(qemu.system())
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256M"])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initrd)
            .args(["-append", "console=ttyS0 quiet panic=-1"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("qemu-system-x86_64 runs");
        Linux { qemu, console: console.into() }
    }

    /// Waits until it has powered off; returns its console.
    fn wait(mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = String::from_utf8_lossy(&fs::read(&self.console).unwrap()).into_owned();
            match self.qemu.try_wait().unwrap() {
                Some(status) => {
                    assert!(status.success(), "QEMU ended with {status}: {said}");
                    return said;
                }
                None => assert!(Instant::now() < deadline, "the guest does not power off: {said}"),
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// `umbra relay`, ended with the test.
struct Relay {
    process: Child,
    socket: PathBuf,
}

impl Relay {
    fn start(vm: &Vm) -> Relay {
        let socket = vm.file("nbd.sock");
        let process =
            vm.command(&["relay", &PORT.to_string(), socket.to_str().unwrap()]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the relay does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        Relay { process, socket }
    }

    /// A drive of QEMU on an export.
    fn drive(&self, export: &str) -> String {
        let socket = self.socket.display();
        format!("file=nbd+unix:///{export}?socket={socket},format=raw,if=virtio,discard=unmap")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the root disk does when it is booted from.
const ROOT_INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc; /bin/busybox mount -t devtmpfs dev /dev
/bin/busybox echo from-inside > /written
/bin/busybox dd if=/dev/urandom of=/data bs=64k count=64 2>/dev/null
/bin/busybox md5sum /data > /data.md5
/bin/busybox sync
/bin/busybox md5sum -c /data.md5 && /bin/busybox echo ROOT-DONE
/bin/busybox mount -o remount,ro /
/bin/busybox poweroff -f
";

/// What comes before: modules, and the root disk.
const INITRD_INIT: &str = "#!/bin/sh
export PATH=/bin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in crc32c_generic virtio_pci virtio_blk ext4; do modprobe $m; done
mount -t ext4 /dev/vda /mnt || { echo NO-ROOT; poweroff -f; }
exec busybox switch_root /mnt /sbin/init
";

/// A disk image with a root filesystem.
fn root_disk(folder: &Path) -> PathBuf {
    let root = folder.join("disk-root");
    for name in ["bin", "sbin", "proc", "dev", "etc"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(find("busybox", "busybox-static").unwrap(), root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    let init = root.join("sbin/init");
    fs::write(&init, ROOT_INIT).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let disk = folder.join("root.img");
    fs::File::create(&disk).unwrap().set_len(48 << 20).unwrap();
    let mke2fs = find("mke2fs", "e2fsprogs").unwrap();
    run(Command::new(mke2fs).args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&disk)).unwrap();
    disk
}

fn get(vm: &Vm, path: &str) -> PathBuf {
    let to = vm.file(&path.replace('/', "_"));
    vm.ok(&["get", path, to.to_str().unwrap()]);
    to
}

fn two_guests_boot_from_two_clones_at_once_and_golden_stays(qemu: &Qemu) {
    let folder = TempDir::new().unwrap();
    let disk = root_disk(folder.path());
    let guest = Guest::new(folder.path()).unwrap();
    guest.modules(&["crc32c_generic", "virtio_pci", "virtio_blk", "ext4"]).unwrap();
    let image = guest.pack(INITRD_INIT).unwrap();

    let vm = Machine::nvdimm("256M").under(qemu).launch();
    vm.ok(&["put", disk.to_str().unwrap(), "/golden.img"]);
    vm.ok(&["clone", "/golden.img", "/a.img"]);
    vm.ok(&["clone", "/golden.img", "/b.img"]);
    let relay = Relay::start(&vm);
    let guests = ["a.img", "b.img"].map(|export| {
        Linux::start(qemu, &image, &folder.path().join(export), &["-drive", &relay.drive(export)])
    });
    for guest in guests {
        let said = guest.wait();
        assert!(said.contains("ROOT-DONE"), "{said}");
    }
    assert!(
        fs::read(get(&vm, "/golden.img")).unwrap() == fs::read(&disk).unwrap(),
        "golden has changed"
    );
    let mut written = Vec::new();
    for path in ["/a.img", "/b.img"] {
        let image = get(&vm, path);
        run(Command::new(find("e2fsck", "e2fsprogs").unwrap()).arg("-fn").arg(&image)).unwrap();
        let mut debugfs = Command::new(find("debugfs", "e2fsprogs").unwrap());
        assert_eq!(run(debugfs.args(["-R", "cat /written"]).arg(&image)).unwrap(), "from-inside\n");
        let mut debugfs = Command::new(find("debugfs", "e2fsprogs").unwrap());
        written.push(run(debugfs.args(["-R", "cat /data.md5"]).arg(&image)).unwrap());
    }
    assert_ne!(written[0], written[1], "each has data of its own");
    vm.assert_clean();
}

/// What the guest does with the kernel's driver: raw bytes, a filesystem, and its trims.
const DRIVER_INIT: &str = "#!/bin/sh
export PATH=/bin:/usr/bin
die() { echo FAILED: $1; poweroff -f; }
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in crc32c_generic virtio_pci virtio_net nbd ext4; do modprobe $m; done
ifconfig lo 127.0.0.1; ifconfig eth0 10.0.2.15 netmask 255.255.255.0
nbd-client 10.0.2.2 @PORT@ /dev/nbd0 -N disk -C 2 || die connect
cat /sys/block/nbd0/size
dd if=/dev/nbd0 of=/tmp/before bs=1M 2>/dev/null || die read
cmp /tmp/before /golden || die 'golden differs'
dd if=/dev/urandom of=/tmp/random bs=64k count=32 2>/dev/null
dd if=/tmp/random of=/dev/nbd0 bs=64k seek=16 conv=fsync 2>/dev/null || die write
echo 3 > /proc/sys/vm/drop_caches
dd if=/dev/nbd0 of=/tmp/back bs=64k skip=16 count=32 2>/dev/null || die 'read back'
cmp /tmp/random /tmp/back || die 'what was written differs'
/usr/bin/mke2fs -q -t ext4 /dev/nbd0 || die mke2fs
mount -t ext4 -o discard /dev/nbd0 /mnt || die mount
cp /tmp/random /mnt/file; cp /tmp/random /mnt/gone; sync
rm /mnt/gone; sync
umount /mnt || die umount
sync
nbd-client -d /dev/nbd0 || die disconnect
echo DRIVER-DONE
poweroff -f
";

#[test]
fn the_driver_of_the_linux_kernel_works_through_a_relay() {
    let folder = TempDir::new().unwrap();
    let golden = folder.path().join("golden");
    fs::write(&golden, umbra_tests::random::Random::new(5).bytes(16 << 20)).unwrap();
    let vm = Vm::launch("128M");
    vm.ok(&["put", golden.to_str().unwrap(), "/golden"]);
    vm.ok(&["clone", "/golden", "/disk"]);
    // It takes sockets of TCP only: one on this machine leads to the server.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = vm.state().clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let state = state.clone();
            thread::spawn(move || pass(client, &state));
        }
    });

    let guest = Guest::new(folder.path()).unwrap();
    guest.modules(&["crc32c_generic", "virtio_pci", "virtio_net", "nbd", "ext4"]).unwrap();
    guest.program("nbd-client", "nbd-client").unwrap();
    guest.program("mke2fs", "e2fsprogs").unwrap();
    guest.file(&golden, "golden").unwrap();
    let image = guest.pack(&DRIVER_INIT.replace("@PORT@", &port.to_string())).unwrap();
    let network = ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="];
    let console = folder.path().join("console");
    let said = Linux::start(&Qemu::installed(), &image, &console, &network).wait();
    assert!(said.contains("DRIVER-DONE"), "{said}");
    assert!(said.lines().any(|line| line.trim() == "32768"), "the size in sectors: {said}");

    let disk = get(&vm, "/disk");
    run(Command::new(find("e2fsck", "e2fsprogs").unwrap()).arg("-fn").arg(&disk)).unwrap();
    assert!(
        fs::read(get(&vm, "/golden")).unwrap() == fs::read(&golden).unwrap(),
        "golden has changed"
    );
    vm.assert_clean();
}

/// Passes bytes on both ways until both are at their end.
fn pass(client: std::net::TcpStream, state: &StateDir) {
    client.set_nodelay(true).unwrap();
    let Ok(server) = connect(state, PORT) else { return };
    let (Ok(mut from_server), Ok(mut to_client)) = (server.try_clone(), client.try_clone()) else {
        return;
    };
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Write);
    });
    let (mut client, mut server): (_, Stream) = (client, server);
    let _ = io::copy(&mut client, &mut server);
    let _ = server.flush();
    let _ = server.shutdown(Shutdown::Write);
    let _ = back.join();
}
