//! The support table of `docs/protocols.md`: what Umbra, nbdkit and qemu-nbd answer when asked, by
//! `nbd_probe.py`.
//!
//! Umbra's column must be what is said there; so must a column of the others for each version that
//! is named there and is here, whichever version is the one that is installed. `UMBRA_BLESS=1`
//! writes the table anew, with the versions that are here.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use umbra_tests::Vm;
use umbra_tests::qemus::{Qemu, version};
use umbra_tests::random::Random;

const BEGIN: &str = "<!-- answers -->\n";
const END: &str = "<!-- end of answers -->\n";
const MIB: u64 = 1 << 20;
/// What is asked about, by the first word of a question, and how a table of it is headed.
const GROUPS: &[(&str, &str)] = &[
    ("option", "option"),
    ("information", "information"),
    ("flag", "transmission flag"),
    ("command", "command"),
    ("flags", "command flag"),
    ("chunk", "chunks of the answer to"),
    ("error", "mistake"),
];

/// What the others answer as the filesystem below their image has it: how zeros and holes that were
/// written before read there.
const OF_FILESYSTEM: &[&str] = &["READ of data and a hole", "READ of 1 MiB of data: pieces"];

/// Questions and answers, in the order of the questions.
type Answers = Vec<(String, String)>;

/// Asks a server: its socket and an export, and those of a read-only one.
fn probe(writable: (&Path, &str), kept: (&Path, &str)) -> Answers {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nbd_probe.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(writable.0).arg(writable.1).arg(kept.0).arg(kept.1);
    let output = command.output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let order = String::from_utf8(output.stdout).unwrap();
    let facts: BTreeMap<String, String> =
        serde_json::from_str(&order).expect("an object of strings");
    let mut all: Answers = facts.into_iter().collect();
    // An object has no order, its text has.
    all.sort_by_key(|(name, _)| order.find(&format!("{}:", Value::from(name.as_str()))));
    all
}

/// The image that `nbd_probe.py` wants.
fn image(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let mut file = File::create(&path).unwrap();
    file.set_len(64 * MIB).unwrap();
    for at in [0, 32 * MIB] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&Random::new(at).bytes(MIB as usize)).unwrap();
    }
    path
}

/// A server on this machine, ended with this.
struct Server(Child);

impl Server {
    fn start(program: &Path, arguments: &[&str], socket: &Path) -> Server {
        let quiet = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = Server(quiet.unwrap_or_else(|error| panic!("{}: {error}", program.display())));
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < deadline, "{} does not serve", program.display());
            thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn umbra() -> Answers {
    let vm = Vm::launch("256M");
    let image = image(vm.state().path(), "image");
    vm.ok(&["put", image.to_str().unwrap(), "/disk"]);
    vm.ok(&["export", "add", "/disk", "disk"]);
    vm.ok(&["export", "add", "/disk", "kept", "--read-only"]);
    let socket = vm.state().file("nbd.sock");
    let answers = probe((&socket, "disk"), (&socket, "kept"));
    vm.assert_clean();
    answers
}

/// The other servers that are here: how their columns are headed, and their programs.
fn peers() -> Vec<(String, PathBuf)> {
    let qemus = [Some(Qemu::installed()), Qemu::other()];
    let mut all: Vec<_> = qemus.iter().flatten().map(|qemu| qemu.program("qemu-nbd")).collect();
    all.retain(|program| version(program).is_some());
    // The older one first, whichever is installed.
    all.sort_by_key(|program| {
        let numbers = version(program).unwrap_or_default();
        numbers.split('.').map(|n| n.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>()
    });
    all.insert(0, "nbdkit".into());
    let head = |program: &PathBuf| {
        Some(format!("{} {}", program.file_name()?.to_str()?, version(program)?))
    };
    all.into_iter().filter_map(|program| Some((head(&program)?, program))).collect()
}

fn peer(program: &Path) -> Answers {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (image, writable, kept) = (image(folder.path(), "image"), path("writable"), path("kept"));
    let disk = image.display();
    let start = |socket: &Path, more: &[&str]| {
        let place = socket.to_str().unwrap();
        // Both serve the one image: neither locks it.
        let options = format!("driver=raw,file.driver=file,file.locking=off,file.filename={disk}");
        let arguments = match program.file_name().and_then(|name| name.to_str()) {
            Some("nbdkit") => vec!["-f", "-U", place, "file", image.to_str().unwrap()],
            _ => vec!["-t", "-e", "8", "-k", place, "--image-opts", &options],
        };
        Server::start(program, &[more, &arguments].concat(), socket)
    };
    let _servers = (start(&writable, &[]), start(&kept, &["-r"]));
    probe((&writable, ""), (&kept, ""))
}

/// The tables: what was asked, and a column for each.
fn tables(heads: &[String], columns: &[Answers]) -> String {
    let mut text = String::new();
    for (word, title) in GROUPS {
        text += &format!(
            "\n| {title} | {} |\n|---|{}\n",
            heads.join(" | "),
            "---|".repeat(heads.len())
        );
        for (row, (question, _)) in columns[0].iter().enumerate() {
            let Some((_, rest)) = question.split_once(' ').filter(|(first, _)| first == word)
            else {
                continue;
            };
            let answers = columns.iter().map(|column| column[row].1.as_str()).collect::<Vec<_>>();
            text += &format!("| {rest} | {} |\n", answers.join(" | "));
        }
    }
    text + "\n"
}

/// One column of the tables, with what was asked, in lines.
fn column(text: &str, index: usize) -> Vec<String> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let cells = rows
        .map(|line| line.trim_matches(['|', ' ']).split(" | ").map(str::trim).collect::<Vec<_>>());
    cells.map(|cells| format!("{}: {}", cells[0], cells.get(1 + index).unwrap_or(&"?"))).collect()
}

#[test]
fn the_table_of_what_is_supported_is_what_servers_answer() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocols.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the tables");
    let (said, after) = rest.split_once(END).expect("the end of the tables");

    let bless = std::env::var_os("UMBRA_BLESS").is_some();
    // "| option | Umbra | nbdkit 1.2.3 | ... |"
    let said_heads: Vec<&str> =
        said.trim_start().lines().next().map_or(Vec::new(), |line| {
            line.trim_matches(['|', ' ']).split(" | ").skip(1).collect()
        });

    let mut heads = vec!["Umbra".to_string()];
    let mut columns = vec![umbra()];
    for (head, program) in peers() {
        if bless || said_heads.contains(&head.as_str()) {
            heads.push(head);
            columns.push(peer(&program));
        } else {
            eprintln!("{head} has no column, so it is not compared");
        }
    }
    assert!(
        columns.iter().all(|column| column.len() == columns[0].len()),
        "all are asked the same"
    );
    let found = tables(&heads, &columns);
    if bless {
        fs::write(&path, [before, BEGIN, &found, END, after].concat()).unwrap();
        return;
    }
    for (index, head) in heads.iter().enumerate() {
        let open = |line: &String| {
            index > 0 && OF_FILESYSTEM.iter().any(|question| line.starts_with(question))
        };
        let there = said_heads.iter().position(|said| said == head).expect("it has a column");
        let [found, said] = [(&*found, index), (said, there)].map(|(text, index)| {
            let mut lines = column(text, index);
            lines.retain(|line| !open(line));
            lines
        });
        let news: Vec<_> = found.iter().filter(|line| !said.contains(line)).collect();
        assert!(
            news.is_empty() && found.len() == said.len(),
            "{head} answers what docs/protocols.md does not say ({} answers, {} there): {news:#?}\n\
             UMBRA_BLESS=1 cargo test -p umbra-tests --test nbd_support writes the table anew",
            found.len(),
            said.len()
        );
    }
}
