//! What happens where KVM is chosen, with this machine's `/dev/kvm` or without one: `umbra up`
//! serves, under KVM if that works and else under emulation. Whoever asks for KVM gets it, or an
//! error that says what to do.

use std::fs::OpenOptions;
use std::process::Stdio;
use umbra_tests::Machine;
use umbra_tests::qemus::Qemu;

umbra_tests::under_each_qemu!(a_guest_gets_ready_although_kvm_was_chosen);

fn a_guest_gets_ready_although_kvm_was_chosen(qemu: &Qemu) {
    let vm = Machine::nvdimm("64M").under(qemu).prepare();
    let up = |options: &[&str]| {
        let common = ["up", "--detach", "--json", "--nvdimm-size", "64M"];
        let mut command = vm.command(&[&common, options].concat());
        command.env("UMBRA_ASSUME_KVM", "yes").stdin(Stdio::null()).output().unwrap()
    };
    let opens = OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    let output = up(&[]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let works = status["accel"] == "kvm";
    let why = status["accel_reason"].as_str().unwrap();
    eprintln!("/dev/kvm opens: {opens}; the guest runs under {}: {why}", status["accel"]);
    assert!(works || why.starts_with("the guest did not get ready under KVM: "), "{why}");
    assert!(opens || !works);
    vm.ok(&["truncate", "/file", "8192"]);
    vm.ok(&["poke", "/file", "4090", "--text", "stored"]);
    vm.assert_clean();
    vm.down();

    let output = up(&["--accel", "kvm"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), works, "{errors}");
    if works {
        vm.down();
    } else {
        assert!(
            errors.contains("under KVM") && errors.contains("umbra up --accel tcg"),
            "{errors}"
        );
    }
    // Whatever KVM did to the guest, the volume is as it was.
    vm.up_with(&["--accel", "tcg"]);
    assert_eq!(vm.ok(&["peek", "/file", "4090", "6"]), b"stored");
    vm.assert_clean();
}
