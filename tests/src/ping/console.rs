//! The console, command by command. It is another client: what it does holds up the others too.

use super::{Bench, MIB, Subject};

/// Measures every command that the console lists.
pub(super) fn all(bench: &mut Bench) {
    let list = bench.vm.console("help");
    let names: Vec<&str> = list
        .lines()
        .take_while(|line| !line.starts_with("numbers:"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.contains(&"help") && names.contains(&"check"), "{list}");
    for name in names {
        if !one(bench, name) {
            bench.missing.push(format!("console {name}"));
        }
    }
}

/// Measures a command with each of these lines of arguments.
fn run(b: &mut Bench, name: &str, how: &str, subject: &str, arguments: &str) {
    let line = format!("{name} {arguments}");
    let title = format!("console {name}{how}");
    b.measure(title, subject, |b| {
        let words: Vec<&str> = ["console"].into_iter().chain(line.split_whitespace()).collect();
        let output = b.vm.run(&words);
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default(),
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    });
}

/// Measures a command on each of the files, or a clone of it.
fn each(b: &mut Bench, name: &str, how: &str, arguments: impl Fn(&str, Subject) -> String) {
    for subject in b.subjects.clone() {
        let path = b.copy(subject);
        run(b, name, how, subject.path, &arguments(path, subject));
    }
}

/// Measures a command; false if there is no row for it.
fn one(b: &mut Bench, name: &str) -> bool {
    match name {
        "help" | "df" | "errors" | "faults" | "nvdimm" | "mem" | "net" | "uptime" | "version" => {
            run(b, name, "", "", "")
        }
        "check" => run(b, name, "", "", ""),
        "ls" => run(b, name, "", "/names", "/names"),
        "stat" | "map-of" => each(b, name, "", |path, _| path.into()),
        "mkdir" => run(b, name, "", "", "/by-console"),
        "write" => each(b, name, "", |path, s| format!("{path} {} fill:7:1M", s.size / 2 + 1000)),
        "truncate" => {
            each(b, name, ", to nothing", |path, _| format!("{path} 0"));
            each(b, name, ", to a half", |path, s| format!("{path} {}", s.size / 2 + 1));
        }
        "cat" => each(b, name, "", |path, s| format!("{path} {} 64K", s.size / 2)),
        "clone" => clone(b, name),
        "rm" => each(b, name, "", |path, _| path.into()),
        "mv" => each(b, name, "", |path, _| format!("{path} /by-console/moved")),
        "sync" => sync(b, name),
        // While a volume is served there is none to format; without one there are no clients.
        "format" => refused(b, name, "yes"),
        "map" => {
            b.copy(b.subjects[3]);
            run(b, name, "", "/dense", "/copy");
        }
        // Its number is the first one of the console's.
        "load" => windowed(b, name, &["0 1M", "1000 1M"]),
        "store" => windowed(b, name, &["0 fill:5:1M", "1000 fill:5:1M"]),
        "unmap" => windowed(b, name, &[""]),
        "pages" => {
            run(b, name, ", of all", "", "");
            run(b, name, "", "/dense", "/dense");
        }
        // Without a volume that is unmounted there are no clients either: see the method.
        "poweroff" => {}
        _ => return false,
    }
    true
}

fn clone(b: &mut Bench, name: &str) {
    each(b, name, "", |path, s| {
        format!("{path} /by-console/clone-of-{}", s.path.trim_start_matches('/'))
    });
    let range = |how: &str, b: &mut Bench, from: u64, to: u64| {
        for subject in b.subjects.clone() {
            let path = b.copy(subject);
            b.remove("/into");
            let made = b.client.open_or_create(b"/into").expect("it can be created");
            b.client.close(made).expect("it closes");
            let length = subject.size - from.max(to);
            run(b, name, how, subject.path, &format!("{path} /into {from} {to} {length}"));
        }
    };
    range(", all", b, 0, 0);
    range(", 1 MiB further", b, 0, MIB);
    b.remove("/into");
}

fn sync(b: &mut Bench, name: &str) {
    for subject in b.subjects.clone() {
        let path = b.copy(subject);
        let file = b.open(path, 0);
        b.dirty(&file, subject.size);
        run(b, name, ", dirty", subject.path, path);
        b.client.close(file).expect("it closes");
    }
}

/// Measures a command on a window that the console has open.
fn windowed(b: &mut Bench, name: &str, arguments: &[&str]) {
    let path = b.copy(b.subjects[3]);
    let said = b.vm.console(&format!("map {path}"));
    let window =
        said.split_whitespace().find_map(|word| word.parse::<u64>().ok()).expect("a window");
    if name == "unmap" {
        b.vm.console(&format!("store {window} 0 fill:5:1M"));
    }
    for arguments in arguments {
        run(b, name, "", "/dense", &format!("{window} {arguments}"));
    }
    if name != "unmap" {
        b.vm.console(&format!("unmap {window}"));
    }
}

fn refused(b: &mut Bench, name: &str, arguments: &str) {
    b.measure(format!("console {name}, refused"), "", |b| {
        match b.vm.run(&["console", name, arguments]).status.success() {
            true => Err("it was not refused"),
            false => Ok(()),
        }
    });
}
