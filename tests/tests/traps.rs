//! What must never happen in the kernel is caught, named, and ends the machine; the volume is
//! as it was.

use umbra_tests::Machine;

/// Breaks something on purpose, and how it is reported.
const BREAKAGES: &[(&str, &str)] = &[
    ("test-store-text", "fatal: store to kernel text"),
    ("test-store-alias", "fatal: store to kernel text, through the direct map"),
    ("test-execute-data", "fatal: execution of data"),
    ("test-stack-overflow", "fatal: stack overflow into the guard page"),
    ("test-store-nvdimm", "fatal: store to the NVDIMM outside the write path"),
    ("test-null", "fatal: load from a null pointer"),
    ("test-panic", "panicked at "),
];

#[test]
fn each_breakage_is_caught_and_reported_as_what_it_is() {
    let vm = Machine::nvdimm("16M").feature("test-commands").prepare();
    vm.up();
    for (command, report) in BREAKAGES {
        vm.console(&format!("write /before-{command} 0 kept"));
        // The machine ends in the middle of the command: whatever that comes to.
        vm.run(&["console", command]);
        vm.wait_until_over();
        let log = vm.console_log();
        let supervisor = vm.supervisor_log();
        assert!(supervisor.contains("the guest failed"), "{command}: {supervisor}");
        assert!(log.lines().any(|line| line.starts_with(report)), "{command}: {log}");
        assert!(
            log.contains("rip ") || command == &"test-panic",
            "{command}: no registers in {log}"
        );
        assert!(log.contains("backtrace:"), "{command}: {log}");
        assert!(!log.contains("went through"), "{command}: {log}");
        let status = vm.json(&["status"]);
        assert_eq!(status["running"], false);
        let cause = if report.starts_with("fatal") { "guest-failed" } else { "guest-panic" };
        assert_eq!(status["last_end"]["cause"], cause, "{command}: {status}");
        vm.up();
        assert!(vm.console(&format!("cat /before-{command}")).contains("kept"));
    }
    assert!(vm.console("check").lines().count() > 0);
}

#[test]
fn copies_are_right_and_no_store_to_persistent_memory_tears_a_word() {
    let vm = Machine::nvdimm("16M").feature("test-commands").prepare();
    vm.up();
    vm.console("test-copies");
    let said = vm.console("test-words");
    assert!(said.contains("no word was torn in"), "{said}");
}
