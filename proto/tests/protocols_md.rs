//! Compares `docs/protocols.md` with the code: its examples in hex, and its tables of
//! methods, errors and limits.

use std::collections::BTreeMap;
use umbra_proto::rpc::*;

const PAGE: &str = include_str!("../../docs/protocols.md");

/// The examples of the page by name: blocks that start with "```hex NAME". What follows a `;` on a
/// line explains it.
fn examples_of_the_page() -> BTreeMap<&'static str, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let mut bytes = Vec::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            let code = line.split(';').next().unwrap_or("");
            for byte in code.split_whitespace() {
                bytes.push(
                    u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{name}: {byte:?}")),
                );
            }
        }
        assert!(all.insert(name, bytes).is_none(), "two examples are named {name}");
    }
    all
}

fn frame<T: minicbor::Encode<()>>(header: Header, body: &T, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_append(body, &mut bytes);
    let (body_len, payload_len) = (bytes.len() as u32, payload.len() as u32);
    let header = Header { length: body_len + payload_len, payload: payload_len, ..header };
    [&header.encode(), &bytes[..], payload].concat()
}

fn request<R: Request>(id: u32, body: R, payload: &[u8]) -> Vec<u8> {
    frame(Header::request(id, R::METHOD.0, 0, 0), &body, payload)
}

fn response<T: minicbor::Encode<()>>(
    id: u32,
    method: Method,
    flags: u16,
    body: T,
    payload: &[u8],
) -> Vec<u8> {
    frame(Header::request(id, method.0, 0, 0).response(flags, 0, 0), &body, payload)
}

fn items<T: minicbor::Encode<()>>(id: u32, method: Method, flags: u16, items: &[T]) -> Vec<u8> {
    let mut body = [0; 1024];
    let mut writer = ItemsWriter::new(&mut body).unwrap();
    for item in items {
        assert!(writer.push(item));
    }
    let len = writer.finish();
    let header = Header::request(id, method.0, 0, 0).response(flags, len as u32, 0);
    [&header.encode(), &body[..len]].concat()
}

fn examples_of_the_code() -> BTreeMap<&'static str, Vec<u8>> {
    let attributes = Attributes {
        ino: 7,
        kind: kind::FILE,
        mode: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 5,
        mtime: 1_700_000_000_000_000_000,
        ctime: 1_700_000_000_000_000_000,
        atime: 1_700_000_000_000_000_000,
        btime: 1_700_000_000_000_000_000,
        blocks: Some(1),
    };
    let entry = |name, ino, kind, cookie| EntryRef { name, ino, kind, cookie, attributes: None };
    BTreeMap::from([
        ("hello", request(1, Hello { magic: MAGIC, version: 1, features: 0, client: None }, &[])),
        (
            "hello-response",
            response(
                1,
                Method::HELLO,
                0,
                HelloResponse {
                    version: 1,
                    features: 0,
                    server: Text::from("umbra 0.1.0"),
                    max_body: MAX_BODY,
                    max_payload: MAX_PAYLOAD,
                    max_path: 4096,
                    max_name: 255,
                    max_handles: 64,
                    block_size: 4096,
                    max_file_size: 512 << 30,
                },
                &[],
            ),
        ),
        ("ping", request(2, Ping {}, &[])),
        ("ping-response", response(2, Method::PING, 0, Done {}, &[])),
        ("stat", request(3, Stat { path: Some(b"/a"), handle: None, blocks: true }, &[])),
        ("stat-response", response(3, Method::STAT, 0, attributes, &[])),
        ("list", request(4, List { path: b"/", cookie: 0, max: None, attributes: false }, &[])),
        (
            "list-response",
            [
                items(4, Method::LIST, MORE, &[entry(b"a", 7, kind::FILE, 0x1201)]),
                items(4, Method::LIST, 0, &[entry(b"dir", 8, kind::DIRECTORY, 0xfe01)]),
            ]
            .concat(),
        ),
        (
            "open",
            request(5, Open { path: b"/a", flags: open::CREATE | open::TRUNCATE, mode: None }, &[]),
        ),
        (
            "open-response",
            response(
                5,
                Method::OPEN,
                0,
                Opened { handle: 1, ino: 7, size: 0, identity: None },
                &[],
            ),
        ),
        ("write", request(6, Write { handle: 1, offset: 0, sync: true }, b"umbra")),
        ("write-response", response(6, Method::WRITE, 0, Written { done: 5 }, &[])),
        ("read", request(7, Read { handle: 1, offset: 1, len: 100 }, &[])),
        (
            "read-response",
            [
                response(7, Method::READ, MORE, Done {}, b"mb"),
                response(7, Method::READ, 0, Done {}, b"ra"),
            ]
            .concat(),
        ),
        ("clone", request(8, CloneFile { from: b"/a", to: b"/b" }, &[])),
        (
            "clone-response",
            response(
                8,
                Method::CLONE,
                0,
                Cloned { ino: 9, elapsed_ns: 21_000, fences: 4, flushes: 6 },
                &[],
            ),
        ),
        (
            "error",
            response(
                9,
                Method::CLONE,
                ERROR,
                ErrorRef {
                    code: ErrorCode::NOT_FOUND,
                    message: "cannot clone '/x': no such file or directory",
                    done: None,
                },
                &[],
            ),
        ),
    ])
}

/// As the page shows bytes: a header, then 16 a line.
fn shown(bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    let mut text = String::new();
    let mut rest = bytes;
    while rest.len() >= HEADER_LEN {
        let (head, tail) = rest.split_at(HEADER_LEN);
        let header = Header::decode(head.try_into().unwrap());
        let cuts = [0..4, 4..8, 8..10, 10..12, 12..16];
        text += &cuts.map(|cut| hex(&head[cut])).join("  ");
        text += "\n";
        let (inside, next) = tail.split_at(header.length as usize);
        let (body, payload) = inside.split_at(header.body() as usize);
        for line in body.chunks(16).chain(payload.chunks(16)) {
            text += &format!("{}\n", hex(line));
        }
        rest = next;
    }
    text
}

#[test]
fn the_examples_are_what_the_code_makes() {
    let (page, code) = (examples_of_the_page(), examples_of_the_code());
    let mut wrong = String::new();
    for (name, bytes) in &code {
        if page.get(name) != Some(bytes) {
            wrong += &format!("```hex {name}\n{}```\n", shown(bytes));
        }
    }
    assert!(wrong.is_empty(), "the page should have:\n{wrong}");
    assert_eq!(page.len(), code.len(), "the page has examples that the code does not know");
}

/// Rows of tables whose first cell is a number and whose second is a name.
fn rows() -> Vec<(u16, &'static str)> {
    let number = |cell: &str| match cell.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => cell.parse().ok(),
    };
    PAGE.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            Some((number(cells.next()?)?, cells.next()?))
        })
        .collect()
}

#[test]
fn the_tables_have_all_methods_and_errors() {
    for (method, name) in Method::ALL {
        assert!(rows().contains(&(method.0, name)), "no row for method {:#04x} {name}", method.0);
        assert!(PAGE.contains(&format!("### {name}\n")), "no section for method {name}");
    }
    for (code, name) in ErrorCode::ALL {
        assert!(rows().contains(&(code.0, name)), "no row for error {} {name}", code.0);
    }
}

#[test]
fn the_limits_are_right() {
    for (limit, value) in [
        ("body", MAX_BODY as usize),
        ("payload", MAX_PAYLOAD as usize),
        ("path", MAX_PATH),
        ("nesting of a body, the outer map included", MAX_DEPTH),
    ] {
        let digits: String = value
            .to_string()
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|c| str::from_utf8(c).unwrap())
            .collect::<Vec<_>>()
            .join(",");
        let found = PAGE.lines().any(|line| {
            line.strip_prefix(&format!("| {limit} | "))
                .is_some_and(|rest| rest.starts_with(&digits))
        });
        assert!(found, "no row for the limit {limit} = {digits}");
    }
}

#[test]
fn the_support_table_has_all_of_nbd() {
    use umbra_proto::nbd::{ChunkType, Command, Errno, InfoType, OptionCode, ReplyCode};
    let cells: Vec<Vec<&str>> = PAGE
        .lines()
        .filter_map(|line| Some(line.strip_prefix('|')?.split('|').map(str::trim).collect()))
        .collect();
    let numbered = |name: &str, number: u32| {
        let (both, number) = (format!("{name} ({number})"), number.to_string());
        let found = cells.iter().any(|row| row[0] == both || row[..2] == [name, number.as_str()]);
        assert!(found, "no row for {name} {number}");
    };
    OptionCode::ALL.iter().for_each(|(code, name)| numbered(name, code.0));
    Command::ALL.iter().for_each(|(command, name)| numbered(name, command.0.into()));
    Errno::ALL.iter().for_each(|(errno, name)| numbered(name, errno.0));
    // Flags stand beside the command that they are asked with, chunks and replies are answers.
    let named = |name: &str| {
        let mut words =
            cells.iter().flatten().flat_map(|cell| cell.split([' ', ',', '(', ')', '`']));
        assert!(words.any(|word| word == name), "no row for {name}");
    };
    ReplyCode::ALL.iter().for_each(|(_, name)| named(name));
    InfoType::ALL.iter().for_each(|(_, name)| named(name));
    ChunkType::ALL.iter().for_each(|(_, name)| named(name));
    for flag in
        ["READ_ONLY", "SEND_FUA", "ROTATIONAL", "SEND_DF", "CAN_MULTI_CONN", "SEND_RESIZE", "FUA"]
    {
        named(flag);
    }
    for flag in [
        "SEND_CACHE",
        "BLOCK_STATUS_PAYLOAD",
        "NO_HOLE",
        "DF",
        "REQ_ONE",
        "FAST_ZERO",
        "PAYLOAD_LEN",
    ] {
        named(flag);
    }
}
