//! Every command of the command line with `--json`: what it says when it works and when it fails.
//!
//! The list of commands comes from the man pages, which are made from the definition of the
//! command line: a command without a row fails the test.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};
use umbra_proto::nbd::Style;
use umbra_tests::Vm;
use umbra_tests::nbd::Disk;

/// A command: how it works, with a field of its report, and how it fails.
struct Row {
    command: &'static str,
    works: &'static [&'static str],
    field: &'static str,
    fails: &'static [&'static str],
    code: &'static str,
    status: i32,
}

const fn row(
    works: &'static [&'static str],
    field: &'static str,
    fails: &'static [&'static str],
    code: &'static str,
    status: i32,
) -> Row {
    Row { command: works[0], works, field, fails, code, status }
}

/// A command that has only a second word of its own.
const fn sub(command: &'static str, row: Row) -> Row {
    Row { command, ..row }
}

/// In this order, on one machine. `LOCAL` is a folder with the file `f`, which has a few bytes;
/// `ELSEWHERE` is a state directory without a server.
const ROWS: &[Row] = &[
    row(&["up", "--detach"], "qemu_pid", &["up", "--detach"], "already-running", 6),
    row(&["status"], "running", &["status", "--state", "LOCAL/f"], "io", 1),
    row(&["put", "LOCAL/f", "/f"], "data", &["put", "LOCAL/none", "/f"], "not-found", 3),
    row(&["get", "/f", "LOCAL/g"], "data", &["get", "/none", "LOCAL/g"], "not-found", 3),
    row(&["mkdir", "/d", "/e"], "made", &["mkdir", "/d"], "exists", 4),
    row(&["truncate", "/d/t", "1M"], "size", &["truncate", "/none/t", "1M"], "not-found", 3),
    row(&["mv", "/d/t", "/d/u"], "to", &["mv", "/none", "/x"], "not-found", 3),
    row(&["ln", "-s", "u", "/d/l"], "target", &["ln", "/f", "/d/l"], "exists", 4),
    row(&["readlink", "/d/l"], "target", &["readlink", "/f"], "invalid", 1),
    row(&["ls", "/d"], "entries", &["ls", "/none"], "not-found", 3),
    row(&["stat", "/d/l"], "target", &["stat", "/none"], "not-found", 3),
    row(&["clone", "/f", "/c"], "elapsed_us", &["clone", "/f", "/c"], "exists", 4),
    row(&["dedupe", "/f", "/c"], "equal", &["dedupe", "/f", "/none"], "not-found", 3),
    row(
        &["poke", "/c", "0", "--text", "x"],
        "stored",
        &["poke", "/none", "0", "--text", "x"],
        "not-found",
        3,
    ),
    row(&["peek", "/c", "0", "1"], "hex", &["peek", "/c", "1G", "1"], "out-of-range", 1),
    row(&["pages", "/c"], "masters", &["pages", "/none"], "not-found", 3),
    row(&["df"], "blocks_free", &["df", "--state", "ELSEWHERE"], "not-running", 7),
    row(&["check"], "clean", &["check", "--state", "ELSEWHERE"], "not-running", 7),
    sub(
        "poison inject",
        row(
            &["poison", "inject", "/f", "0", "--yes"],
            "block",
            &["poison", "inject", "/none", "0", "--yes"],
            "not-found",
            3,
        ),
    ),
    sub(
        "poison list",
        row(
            &["poison", "list"],
            "blocks",
            &["poison", "list", "--state", "ELSEWHERE"],
            "not-running",
            7,
        ),
    ),
    sub(
        "poison clear",
        row(&["poison", "clear", "--yes"], "cleared", &["poison", "clear"], "usage", 2),
    ),
    row(&["scrub"], "loaded", &["scrub", "--state", "ELSEWHERE"], "not-running", 7),
    row(&["events"], "events", &["events", "--since", "yesterday"], "usage", 2),
    row(&["console", "df"], "output", &["console", "rm", "/none"], "command-failed", 1),
    sub(
        "export add",
        row(&["export", "add", "/c", "n"], "uri", &["export", "add", "/c", "n"], "exists", 4),
    ),
    sub(
        "export list",
        row(
            &["export", "list"],
            "exports",
            &["export", "list", "--state", "ELSEWHERE"],
            "not-running",
            7,
        ),
    ),
    sub(
        "export remove",
        row(&["export", "remove", "n"], "name", &["export", "remove", "n"], "not-found", 3),
    ),
    row(&["relay", "10809", "LOCAL/s"], "socket", &["relay", "10809", "LOCAL/none/s"], "failed", 1),
    row(&["rm", "-r", "/d", "/e"], "removed", &["rm", "/d"], "not-found", 3),
    row(
        &["bench", "--part", "clone-size", "--parameter", "1M", "--rounds", "1"],
        "results",
        &["bench", "--part", "none"],
        "unsupported",
        1,
    ),
    row(&["completions", "bash"], "script", &["completions", "none"], "usage", 2),
    row(&["man", "LOCAL/man"], "folder", &["man", "LOCAL/f/man"], "io", 1),
    row(&["down"], "stopped", &["down"], "not-running", 7),
];

/// All commands that the command line has, as `export add`.
fn all_commands(vm: &Vm) -> BTreeSet<String> {
    let folder = vm.file("pages");
    vm.ok(&["man", folder.to_str().unwrap()]);
    let pages: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|page| {
            page.unwrap().file_name().into_string().unwrap().strip_suffix(".1").map(str::to_string)
        })
        .filter_map(|page| page.strip_prefix("umbra-").map(str::to_string))
        .collect();
    // One that only has others below it is none.
    let has_below =
        |page: &&String| pages.iter().any(|other| other.starts_with(&format!("{page}-")));
    pages.iter().filter(|page| !has_below(page)).map(|page| page.replace('-', " ")).collect()
}

fn parse(text: &[u8], what: &str) -> Value {
    let text = String::from_utf8_lossy(text);
    let value: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"));
    assert_eq!(value["version"], 1, "{what}: {text}");
    value
}

/// Runs a relay until it has reported, and ends it.
fn relay(vm: &Vm, arguments: &[&str]) -> Output {
    let mut child =
        vm.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let kind = if line.is_empty() { "failed" } else { "works" };
    if kind == "works" {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap(),
            rustix::process::Signal::TERM,
        )
        .unwrap();
    }
    let output = child.wait_with_output().unwrap();
    Output { stdout: line.into_bytes(), ..output }
}

#[test]
fn every_command_reports_and_fails_in_json() {
    let vm = Vm::launch("512M");
    vm.down();
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.command.to_string()).collect();
    assert_eq!(rows, all_commands(&vm), "a row for each command, and no other");
    let local = vm.file("local");
    fs::create_dir(&local).unwrap();
    fs::write(local.join("f"), "a few bytes").unwrap();
    let elsewhere = vm.file("elsewhere");
    let run = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|it| it.replace("LOCAL", local.to_str().unwrap()))
            .map(|it| it.replace("ELSEWHERE", elsewhere.to_str().unwrap()))
            .chain(["--json".to_string()])
            .collect();
        // The command for the guest takes what follows it.
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.rotate_right(1);
        if arguments[1] == "relay" { relay(&vm, &arguments) } else { vm.run(&arguments) }
    };
    for row in ROWS {
        let what = row.works.join(" ");
        let output = run(row.works);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{what}");
        let report = parse(&output.stdout, &what);
        assert!(!report[row.field].is_null(), "{what}: no {} in {report}", row.field);

        let what = row.fails.join(" ");
        let output = run(row.fails);
        let failure = parse(&output.stderr, &what);
        let error = &failure["error"];
        assert_eq!(
            (&error["code"], &error["exit_status"]),
            (&row.code.into(), &row.status.into()),
            "{what}: {error}"
        );
        assert_eq!(output.status.code(), Some(row.status), "{what}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {error}");
        assert!(error["class"].is_string(), "{what}: {error}");
        if !output.stdout.is_empty() {
            parse(&output.stdout, &what);
        }
    }
}

#[test]
fn a_full_volume_and_a_file_in_use_have_their_classes() {
    let vm = Vm::launch("16M");
    let class = |arguments: &[&str]| {
        let output = vm.run(&[arguments, &["--json"]].concat());
        let error = parse(&output.stderr, &arguments.join(" "))["error"].clone();
        (error["code"].as_str().unwrap().to_string(), output.status.code().unwrap())
    };
    fs::write(vm.file("big"), vec![0x5a; 20 << 20]).unwrap();
    assert_eq!(class(&["put", vm.file("big").to_str().unwrap(), "/f"]), ("no-space".into(), 5));
    vm.ok(&["truncate", "/f", "4K"]);
    let disk = Disk::open(vm.state(), "f", Style::Structured);
    assert_eq!(class(&["rm", "/f"]), ("busy".into(), 6));
    // Several arguments, and several reasons.
    vm.ok(&["mkdir", "/d"]);
    assert_eq!(class(&["rm", "/none", "/d", "/f"]), ("several".into(), 1));
    drop(disk);
}

#[test]
fn a_bad_argument_does_not_keep_the_others_from_being_done() {
    let vm = Vm::launch("16M");
    vm.ok(&["mkdir", "/a", "/b"]);
    let output = vm.run(&["mkdir", "/a", "/c", "/b", "/none/x", "/d"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(
        lines[0].contains("'/a'") && lines[1].contains("'/b'") && lines[2].contains("'/none"),
        "{said}"
    );
    assert_eq!(lines[3], "umbra: 3 of 5 arguments were not made");
    assert_eq!(output.status.code(), Some(1));
    let names = |vm: &Vm| String::from_utf8(vm.ok(&["ls"])).unwrap();
    assert_eq!(names(&vm), "a/\nb/\nc/\nd/\n");

    let output = vm.run(&["rm", "-r", "/none", "/a", "/never", "/b", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let report = parse(&output.stdout, "rm");
    let paths = |name: &str| -> Vec<String> {
        let all = report[name].as_array().unwrap();
        all.iter().map(|it| it["path"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(
        (paths("removed"), paths("failed")),
        (vec!["/a".into(), "/b".into()], vec!["/none".into(), "/never".into()])
    );
    assert_eq!(report["failed"][0]["error"]["code"], "not-found");
    assert_eq!(names(&vm), "c/\nd/\n");

    // -f says nothing of what is not there, and of other things what it would say without.
    let output = vm.run(&["rm", "-f", "/none", "/none/below"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(vm.run(&["rm", "-f"]).status.success());
    assert!(vm.fails(&["rm", "-f", "/c"]).contains("is a directory"));
    assert_eq!(vm.run(&["rm"]).status.code(), Some(2));
}

#[test]
fn names_do_nothing_to_a_terminal() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let vm = Vm::launch("16M");
    let names: [&[u8]; 3] = [b"/a\nb", b"/\x1b]0;title\x07\x1b[31mred", b"/\xff\x9b"];
    for name in names {
        let output =
            vm.command(&["truncate"]).arg(OsStr::from_bytes(name)).arg("1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        // In a message.
        let mut target = name.to_vec();
        target.extend_from_slice(b"/below");
        let output = vm.command(&["stat"]).arg(OsStr::from_bytes(&target)).output().unwrap();
        assert!(!output.status.success());
        let said = output.stderr.strip_suffix(b"\n").unwrap();
        assert!(
            !said.iter().any(|&byte| byte < 0x20 || byte == 0x7f || byte == 0x9b),
            "{output:?}"
        );
    }
    // Elsewhere than on a terminal a listing has the names themselves.
    let mut expected: Vec<Vec<u8>> =
        names.iter().map(|name| [&name[1..], b"\n"].concat()).collect();
    expected.sort();
    assert_eq!(vm.ok(&["ls"]), expected.concat());
    // On one they are quoted. (`script` makes one.)
    let mut script = std::process::Command::new("script");
    let inner = vm.command(&[]);
    script.args(["-qec", &format!("{} ls", inner.get_program().to_str().unwrap()), "/dev/null"]);
    script
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null());
    if let Ok(output) = script.output() {
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [r"$'\x1b]0;title\x07\x1b[31mred'", r"$'\xff\x9b'", r"$'a\nb'"],
            "{text:?}"
        );
    }
    // And in JSON they are exact.
    let report = vm.json(&["ls"]);
    let entries = report["entries"].as_array().unwrap();
    let named = |name: &str| {
        entries
            .iter()
            .find(|entry| entry["name"] == name)
            .is_some_and(|it| it["name_hex"].is_null())
    };
    assert!(named("a\nb") && named("\u{1b}]0;title\u{7}\u{1b}[31mred"), "{report}");
    assert!(entries.iter().any(|entry| entry["name_hex"] == "ff9b"), "{report}");
}

/// Does something at the end of a test, however that ends.
struct AtEnd<F: Fn()>(F);

impl<F: Fn()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn an_export_that_nobody_could_find_is_not_added() {
    let vm = Vm::launch("16M");
    if fs::read_to_string(vm.state().file("endpoint")).unwrap().starts_with("vsock:") {
        // Then the host's kernel knows a way, however long the path is.
        return;
    }
    vm.ok(&["truncate", "/f", "1M"]);
    vm.down();
    let long = vm.file(&"x".repeat(120));
    fs::rename(vm.state().path(), &long).unwrap();
    let with_state = |arguments: &[&str]| {
        let mut command = vm.command(arguments);
        command.env("UMBRA_STATE", &long).output().unwrap()
    };
    let _ends = AtEnd(|| drop(with_state(&["down"])));
    assert!(with_state(&["up", "--detach"]).status.success());
    let output = with_state(&["export", "add", "/f", "n"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.contains("too long for a socket") && said.contains("umbra relay 10809"), "{said}");
    assert_eq!(with_state(&["export", "list"]).stdout, b"");
}
