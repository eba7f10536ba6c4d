//! Who can reach a server's sockets and files: its owner, and those to whom it was opened.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use umbra_tests::{Machine, Vm};

/// The user and the group that own nothing.
const NOBODY: &str = "65534";
/// Connects to a socket: ends with status 0 if that works, else says why not.
const CONNECT: &str = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";

/// A machine whose directory was there before, open to everybody, and with files that were too.
fn prepared() -> Vm {
    let vm = Machine::nvdimm("16M").prepare();
    let state = vm.state().path();
    fs::create_dir_all(state).unwrap();
    for (path, mode) in [(state.parent().unwrap(), 0o755), (state, 0o777)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    for name in ["guest.seed", "guest.conf", "console.log", "qemu.log", "lock"] {
        fs::write(state.join(name), "").unwrap();
        fs::set_permissions(state.join(name), Permissions::from_mode(0o666)).unwrap();
    }
    vm
}

/// `umbra` with these arguments under a umask that takes nothing away.
fn without_umask(vm: &Vm, arguments: &[&str]) -> Command {
    let inner = vm.command(arguments);
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 000; exec \"$@\"", "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    command
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null());
    command
}

fn up(vm: &Vm, options: &[&str]) {
    let all = [&["up", "--detach", "--nvdimm-size", "16M"], options].concat();
    let output = without_umask(vm, &all).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A relay, and the process that holds it.
fn relay(vm: &Vm, socket: &Path, options: &[&str]) -> Child {
    let all = [&["relay", "10809", socket.to_str().unwrap()], options].concat();
    let mut child = without_umask(vm, &all).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("port 10809"), "{line}");
    child
}

/// Whether a stranger of this group can connect; `None` where tests cannot become one.
fn stranger_connects(socket: &Path, group: &str) -> Option<bool> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", group, "--clear-groups", "python3", "-c", CONNECT]);
    // The system's, because a stranger may not enter a home.
    let output = command.arg(socket).env("PATH", "/usr/bin:/bin").output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Some(true),
        false if said.contains("PermissionError") => Some(false),
        false => {
            println!("no stranger can be had here: {said}");
            None
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

#[test]
fn nobody_but_the_owner_reaches_a_server() {
    let vm = prepared();
    up(&vm, &[]);
    let outside = vm.file("relay.sock");
    let mut holder = relay(&vm, &outside, &[]);
    let mut seen = vec![outside];
    seen.extend(fs::read_dir(vm.state().path()).unwrap().map(|entry| entry.unwrap().path()));
    assert!(seen.iter().any(|path| path.ends_with("nbd.sock")), "{seen:?}");
    for path in &seen {
        assert_eq!(mode(path) & 0o077, 0, "{} is open to others", path.display());
        if path.extension().is_some_and(|it| it == "sock") {
            assert_ne!(stranger_connects(path, NOBODY), Some(true), "{}", path.display());
        }
    }
    let said = vm.supervisor_log();
    assert!(said.contains("others may write in"), "{said}");
    // Its own files, under another umask too.
    vm.ok(&["ls"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_directory_that_is_made_is_the_owners() {
    let vm = Machine::nvdimm("16M").prepare();
    up(&vm, &[]);
    assert_eq!(mode(vm.state().path()), 0o700);
    assert_eq!(vm.supervisor_log(), "");
}

#[test]
fn a_group_gets_the_sockets_for_clients_and_no_others() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("only root can give a socket to any group");
        return;
    }
    let vm = prepared();
    fs::set_permissions(vm.state().path(), Permissions::from_mode(0o700)).unwrap();
    up(&vm, &["--socket-group", NOBODY]);
    let outside = vm.file("relay.sock");
    let mut holder = relay(&vm, &outside, &[]);
    let wide = vm.file("wide.sock");
    let mut wide_holder = relay(&vm, &wide, &["--socket-mode", "666"]);
    let state = |name: &str| vm.state().file(name);
    assert_eq!(mode(vm.state().path()), 0o710);
    for path in [state("nbd.sock"), state("vsock.sock"), outside] {
        // Where the host's kernel does vsock there is no socket for it.
        if path.exists() {
            assert_eq!(mode(&path), 0o660);
            assert_ne!(stranger_connects(&path, NOBODY), Some(false), "{}", path.display());
            assert_ne!(stranger_connects(&path, "12345"), Some(true), "{}", path.display());
        }
    }
    assert_ne!(stranger_connects(&wide, "12345"), Some(false));
    for name in ["control.sock", "qmp.sock", "guest.seed", "console.log", "nvdimm.img"] {
        assert_eq!(mode(&state(name)) & 0o077, 0, "{name}");
    }
    assert_ne!(stranger_connects(&state("control.sock"), NOBODY), Some(true));
    for holder in [&mut holder, &mut wide_holder] {
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
}

#[test]
fn a_mode_is_what_was_said() {
    let vm = prepared();
    up(&vm, &["--socket-mode", "0666"]);
    assert_eq!(mode(&vm.state().file("nbd.sock")), 0o666);
    assert_eq!(mode(&vm.state().file("endpoint")), 0o644);
    assert_eq!(mode(&vm.state().file("control.sock")), 0o600);
    for bad in [&["--socket-mode", "rw"], &["--socket-group", "no such group"]] {
        let output = vm.run(&[&["up", "--detach"], &bad[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
    }
}
