//! Linux guests: Debian's kernel, and an initial RAM disk of busybox, some programs and modules.
//!
//! ```text
//! root/  bin/busybox, bin/sh ...   init        programs with their libraries
//!        lib/modules/VERSION/      modules, and what they depend on
//!   `--- cpio, gzip ---> initrd.gz
//! ```
//!
//! Packages (Debian): `linux-image-amd64 busybox-static cpio kmod`, and those of the programs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What busybox is called as.
const APPLETS: &[&str] = &[
    "sh", "mount", "umount", "ls", "cat", "sleep", "mkdir", "poweroff", "grep", "dmesg", "dd",
    "ifconfig", "cp", "cmp", "sync", "echo", "mknod",
];

/// A guest that is being put together.
pub struct Guest {
    root: PathBuf,
    kernel: PathBuf,
    version: String,
}

/// What QEMU needs of a guest: `-kernel` and `-initrd`.
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
}

type Result<T> = std::result::Result<T, String>;

/// Finds a program; says which package has it.
pub fn find(program: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| format!("{program} was not found: install it (Debian: package {package})"))
}

/// Runs a program and returns what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output =
        command.stdin(Stdio::null()).output().map_err(|e| format!("cannot run {shown}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(format!("{shown} ended with {}: {}", output.status, text(&output.stderr)));
    }
    Ok(text(&output.stdout))
}

fn io(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> String {
    move |error| format!("cannot {doing}: {error}")
}

impl Guest {
    /// Busybox and nothing else, put together in `folder`, which exists.
    pub fn new(folder: &Path) -> Result<Guest> {
        let entries = fs::read_dir("/boot").map_err(io("list /boot"))?;
        let mut kernels: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        kernels.retain(|path| name(path).starts_with("vmlinuz-") && name(path).ends_with("-amd64"));
        kernels.sort_by_key(|path| {
            let numbers = name(path)
                .split(|c: char| !c.is_ascii_digit())
                .map(|n| n.parse::<u64>().unwrap_or(0));
            numbers.collect::<Vec<_>>()
        });
        let kernel = kernels.pop().ok_or(
            "there is no kernel in /boot: install one (Debian: package linux-image-amd64)",
        )?;
        let version = name(&kernel).trim_start_matches("vmlinuz-").to_string();
        let guest = Guest { root: folder.join("root"), kernel, version };
        for folder in ["bin", "dev", "lib64", "mnt", "proc", "sys", "tmp", "usr/bin", "usr/sbin"] {
            guest.folder(Path::new(folder))?;
        }
        let busybox = find("busybox", "busybox-static")?;
        guest.file(&busybox, "bin/busybox")?;
        guest.libraries(&busybox)?;
        for applet in APPLETS {
            symlink("busybox", guest.root.join("bin").join(applet))
                .map_err(io(format!("link {applet}")))?;
        }
        guest.program("kmod", "kmod")?;
        symlink("/usr/bin/kmod", guest.root.join("bin/modprobe")).map_err(io("link modprobe"))?;
        Ok(guest)
    }

    fn folder(&self, path: &Path) -> Result<()> {
        let path = self.root.join(path);
        fs::create_dir_all(&path).map_err(io(format!("make {}", path.display())))
    }

    /// Puts a file of this machine into the guest.
    pub fn file(&self, from: &Path, to: &str) -> Result<()> {
        let to = Path::new(to.trim_start_matches('/'));
        self.folder(to.parent().unwrap_or(Path::new("")))?;
        fs::copy(from, self.root.join(to)).map(drop).map_err(io(format!("copy {}", from.display())))
    }

    /// Puts a program into `/usr/bin`, and the libraries that it needs to where they are here.
    pub fn program(&self, program: &str, package: &str) -> Result<()> {
        let path = find(program, package)?;
        self.file(&path, &format!("usr/bin/{program}"))?;
        self.libraries(&path)
    }

    /// Puts the libraries of a program or library into the guest.
    pub fn libraries(&self, of: &Path) -> Result<()> {
        // It fails for what is linked statically, which needs none.
        let listed = run(Command::new("ldd").arg(of)).unwrap_or_default();
        for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
            self.file(Path::new(library), library)?;
        }
        Ok(())
    }

    /// Puts modules and what they depend on into the guest; names that are built into the kernel
    /// need nothing.
    pub fn modules(&self, names: &[&str]) -> Result<()> {
        let source = PathBuf::from(format!("/lib/modules/{}", self.version));
        let modprobe = find("modprobe", "kmod")?;
        let mut files = BTreeSet::new();
        for name in names {
            let mut command = Command::new(&modprobe);
            let listed = run(command.args([
                "-S",
                &self.version,
                "--ignore-install",
                "--show-depends",
                name,
            ]))
            .unwrap_or_default();
            files.extend(
                listed
                    .lines()
                    .filter_map(|line| line.strip_prefix("insmod "))
                    .filter_map(|line| line.split_whitespace().next())
                    .map(PathBuf::from),
            );
        }
        // What the kernel asks for by itself, once a module wants a checksum.
        for folder in ["kernel/crypto", "kernel/arch/x86/crypto", "kernel/lib"] {
            let entries = fs::read_dir(source.join(folder)).into_iter().flatten().flatten();
            files.extend(entries.map(|e| e.path()).filter(|path| name(path).contains("crc32c")));
        }
        for file in &files {
            self.file(file, &file.to_string_lossy())?;
        }
        for entry in
            fs::read_dir(&source).map_err(io(format!("list {}", source.display())))?.flatten()
        {
            if name(&entry.path()).starts_with("modules.") {
                self.file(&entry.path(), &entry.path().to_string_lossy())?;
            }
        }
        run(Command::new(find("depmod", "kmod")?).arg("-b").arg(&self.root).arg(&self.version))
            .map(drop)
    }

    /// Packs all with this script as its init, into `initrd.gz` beside its root.
    pub fn pack(self, init: &str) -> Result<Image> {
        let path = self.root.join("init");
        fs::write(&path, init).map_err(io("write init"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(io("make init executable"))?;
        let initrd = self.root.with_file_name("initrd.gz");
        find("cpio", "cpio")?;
        let pack = "find . | cpio --quiet -o -H newc | gzip -1 > ../initrd.gz";
        run(Command::new("bash").args(["-o", "pipefail", "-c", pack]).current_dir(&self.root))?;
        Ok(Image { kernel: self.kernel, initrd })
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}
