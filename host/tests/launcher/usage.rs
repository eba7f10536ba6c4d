//! Wrong usage, failures as JSON, help.

use super::{GOOD_GUEST, Host};
use std::fs;
use std::path::Path;

#[test]
fn failures_are_json_where_reports_are() {
    let host = Host::with_guest(GOOD_GUEST);
    for (arguments, code, status) in [
        (&["ls"][..], "not-running", 7),
        (&["down"], "not-running", 7),
        (&["console", "help"], "not-running", 7),
        (&["nonsense"], "usage", 2),
        (&["poke", "/f", "0"], "usage", 2),
        (&["up", "--memory", "4M"], "unusable", 1),
        (&["put", "/nonexistent/file", "/f"], "not-found", 3),
    ] {
        let output = host.run(&[&["--json"], arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        let error: serde_json::Value =
            serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        assert_eq!(error["error"]["code"], code, "{said}");
        assert_eq!(error["error"]["exit_status"], status, "{said}");
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn too_little_memory_is_said_before_anything_starts() {
    let host = Host::with_guest(GOOD_GUEST);
    for memory in ["4M", "64000000"] {
        assert!(host.failure(&["up", "--detach", "--memory", memory]).contains("not possible"));
    }
    assert!(!host.path("state/nvdimm.img").exists());
}

#[test]
fn missing_programs_are_named() {
    let host = Host::with_guest(GOOD_GUEST);
    fs::remove_file(host.path("qemu-system-x86_64")).unwrap();
    if !Path::new("/usr/bin/qemu-system-x86_64").exists() {
        assert!(host.failure(&["up"]).contains("qemu-system-x86_64 was not found"));
    }
}

#[test]
fn wrong_usage_has_its_own_status() {
    let host = Host::with_guest(GOOD_GUEST);
    for arguments in [&["nonsense"][..], &["poke", "/f", "0"], &["up", "--memory", "much"]] {
        assert_eq!(host.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(host.run(&["--help"]).status.code(), Some(0));
}

#[test]
fn completions_and_man_pages_are_made() {
    let host = Host::with_guest(GOOD_GUEST);
    for shell in ["bash", "zsh", "fish"] {
        let output = host.run(&["completions", shell]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("umbra"), "{shell}");
    }
    let folder = host.path("man");
    assert!(host.run(&["man", folder.to_str().unwrap()]).status.success());
    assert!(fs::read_to_string(folder.join("umbra-clone.1")).unwrap().contains("constant time"));
    assert!(!folder.join("umbra-__leash.1").exists());
    let page = fs::read_to_string(folder.join("umbra.1")).unwrap();
    assert!(page.contains("3 not found") && page.contains("7 no server is running"), "{page}");
}
