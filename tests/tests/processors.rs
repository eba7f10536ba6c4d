//! Umbra boots, answers and shuts down on the processors that QEMU emulates, from the plainest to
//! recent ones, with both of QEMU's firmwares for a PC.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use umbra_tests::qemus::Qemu;
use umbra_tests::{Machine, Vm};

const MODELS: [&str; 9] = [
    "qemu64",
    "kvm64",
    "Nehalem",
    "SandyBridge",
    "Haswell",
    "Skylake-Server",
    "Cascadelake-Server",
    "EPYC",
    "Icelake-Server",
];
/// qboot, and SeaBIOS.
const FIRMWARES: [&str; 2] = ["qboot.rom", "bios-256k.bin"];

umbra_tests::under_each_qemu!(each_processor_boots_with_each_firmware);

/// A program that runs QEMU as `umbra up` wants it, but with another processor and firmware.
fn with(qemu: &Qemu, folder: &Path, model: &str, firmware: &str) -> PathBuf {
    let path = folder.join(format!("{model}-{firmware}"));
    let script = format!(
        "#!/bin/bash\n\
         for it; do\n\
         case $before:$it in\n\
         -cpu:max) it={model};;\n\
         -bios:qboot.rom) it={firmware};;\n\
         esac\n\
         before=$it; all+=(\"$it\")\n\
         done\n\
         exec {} \"${{all[@]}}\"\n",
        qemu.system().display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The command line of the QEMU that runs.
fn running(vm: &Vm) -> String {
    let pid = vm.json(&["status"])["qemu_pid"].as_u64().unwrap();
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn each_processor_boots_with_each_firmware(qemu: &Qemu) {
    let vm = Machine::nvdimm("16M").in_memory().under(qemu).prepare();
    let folder = tempfile::tempdir().unwrap();
    let mut made = Vec::new();
    for model in MODELS {
        for firmware in FIRMWARES {
            let program = with(qemu, folder.path(), model, firmware);
            vm.up_with(&["--accel", "tcg", "--qemu", program.to_str().unwrap()]);
            let line = running(&vm);
            assert!(line.contains(&format!("-cpu {model} ")), "{line}");
            assert!(line.contains(&format!("-bios {firmware} ")), "{line}");
            // A file with a store through a mapping of a clone, which copies a page.
            let name = format!("/{model}-{firmware}");
            vm.ok(&["truncate", &name, "8192"]);
            vm.ok(&["poke", &name, "4090", "--text", "stored"]);
            assert_eq!(vm.ok(&["peek", &name, "4090", "6"]), b"stored", "{model}, {firmware}");
            vm.down();
            made.push(name);
        }
    }
    // All of them had one volume in their turn.
    vm.up();
    for name in made {
        assert_eq!(vm.ok(&["peek", &name, "4090", "6"]), b"stored", "{name}");
    }
    vm.assert_clean();
}
