//! Memory that runs out: each allocation that the server makes for a request fails once, for every
//! method of the native protocol, and every option and command of NBD.
//!
//! The request then fails with `no-memory`, or is done without what there was no memory for (the
//! text of an error, a longer queue). The connection goes on, the same request succeeds when there
//! is memory again, and nothing is left behind. What the filesystem allocates for a request fails
//! too.

mod common;
#[path = "../../fs/tests/failing_allocator/mod.rs"]
mod failing_allocator;

use common::files::{CREATE, Full, opened};
use common::nbd::{Connection as Nbd, STYLES, pattern};
use common::{Connection, Response, hello, parse, request};
use failing_allocator::{counted, each, fail, has_failed};
use umbra_fs::{FileBlock, Time};
use umbra_proto::nbd::{
    Command, ContextRequest, InfoRequest, InfoType, OptionCode, ReplyCode, Style,
};
use umbra_proto::rpc::{self, ErrorCode, Method};
use umbra_server::{Platform, Progress, Stream};

const NOW: Time = Time(7_000);

/// A machine with some of everything, whose steps are small.
fn machine() -> Full {
    let mut m = Full::new(24, 8);
    m.add_region(1);
    let volume = &mut m.machine.volume;
    let root = volume.root();
    let file = volume.create(root, b"file", 0o644, NOW).unwrap();
    volume.write(file, 0, &pattern(1, 400_000), NOW).unwrap();
    volume.clone_file(file, root, b"clone", NOW).unwrap();
    volume.clone_file(file, root, b"disk", NOW).unwrap();
    volume.create(root, b"small", 0o644, NOW).unwrap();
    volume.symlink(root, b"link", b"target", NOW).unwrap();
    for name in [&b"dir"[..], b"other"] {
        let dir = volume.mkdir(root, name, 0o755, NOW).unwrap();
        // It was large, so to find out that it is empty takes steps.
        let names: Vec<_> = (0..600).map(|i| format!("{i:0200}").into_bytes()).collect();
        names.iter().for_each(|name| assert!(volume.create(dir, name, 0o644, NOW).is_ok()));
        names.iter().for_each(|name| volume.unlink(dir, name, NOW).unwrap());
    }
    while volume.reclaim_step().unwrap() {}
    // So that there is an owner to be found.
    let bad = m.machine.volume.extent(file, FileBlock(90)).unwrap().unwrap().at.unwrap();
    m.lose(bad);
    m.add_export("golden", b"/disk", true, Some(4096));
    m.add_export("lost", b"/nowhere", false, None);
    m.machine.volume.set_work_a_step(4);
    m
}

/// A client that has said hello, with a handle of `/file` through which all pages were stored to,
/// and one of a file without a name.
fn client(m: &mut Full) -> (Connection, u32, u32) {
    let mut c = Connection::new(64 << 10, 256 << 10);
    c.greet(m);
    let handle = opened(&mut c, m, b"/file", CREATE);
    let open = rpc::OpenUnnamed { path: b"/", mode: None, uid: 0, gid: 0 };
    let unnamed = c.ok(m, &open).handle;
    for handle in [handle, unnamed] {
        let write = rpc::Write { handle, offset: 0, sync: false };
        assert!(!c.call(m, &write, &pattern(2, 100_000)).failed);
        let store = rpc::Store { handle, offset: 0, sync: false };
        assert!(!c.call(m, &store, &pattern(3, 100_000)).failed);
    }
    (c, handle, unnamed)
}

/// Sends bytes; what the server does for them counts.
fn send(c: &mut Connection, m: &mut Full, mut bytes: &[u8]) -> Vec<Response> {
    loop {
        let n = c.wire.to_server.push(bytes);
        bytes = &bytes[n..];
        let progress = counted(|| c.poll(m));
        let before = c.received.len();
        c.wire.to_client.pull(usize::MAX, &mut c.received);
        let idle = n == 0 && progress == Progress::Wait && before == c.received.len();
        if idle || c.wire.is_closed() {
            return parse(&mut c.received);
        }
    }
}

/// The requests of a method: those that take different ways through the server. `None`: there is no
/// row for it.
fn requests(method: Method, handle: u32, unnamed: u32) -> Option<Vec<Vec<u8>>> {
    let no_handle = None;
    let (file, small) = (Some(&b"/file"[..]), Some(&b"/small"[..]));
    let long = [&b"/.".repeat(1500)[..], b"/file"].concat();
    macro_rules! all {
        ($($body:expr $(, $payload:expr)?;)*) => {
            vec![$(request(9, &$body, all!(@ $($payload)?))),*]
        };
        (@) => { &[] };
        (@ $payload:expr) => { $payload };
    }
    Some(match method {
        Method::HELLO => vec![hello()],
        Method::PING => all![rpc::Ping {};],
        Method::STATUS => all![rpc::Status { fresh: true };],
        Method::NVDIMMS => all![rpc::Nvdimms {};],
        Method::POWER_OFF => all![rpc::PowerOff {};],
        Method::CHECK => all![rpc::Check {};],
        Method::RECLAIM => all![rpc::Reclaim { wait: true };],
        Method::POISON_LIST => all![rpc::PoisonList {};],
        Method::POISON_INJECT => all![
            rpc::PoisonInject { path: file, offset: 5000, block: None };
            rpc::PoisonInject { path: None, offset: 0, block: Some(4000) };
        ],
        Method::POISON_CLEAR => all![rpc::PoisonClear {};],
        Method::EVENTS => all![rpc::Events { since: 0 };],
        Method::SCRUB => all![
            rpc::Scrub { number: None, blocks: 100 };
            rpc::Scrub { number: None, blocks: u64::MAX };
        ],
        Method::SPACE => all![rpc::Space {};],
        Method::STAT => all![
            rpc::Stat { path: file, handle: no_handle, blocks: true };
            rpc::Stat { path: None, handle: Some(handle), blocks: false };
            rpc::Stat { path: Some(&long), handle: no_handle, blocks: false };
        ],
        Method::LIST => {
            all![rpc::List { path: b"/", cookie: 0, max: None, attributes: true };]
        }
        Method::CREATE => all![rpc::Create { path: b"/new", mode: None };],
        Method::MAKE_DIRECTORY => all![
            rpc::MakeDirectory { path: b"/d", mode: None, parents: false };
            rpc::MakeDirectory { path: &b"/x".repeat(70), mode: None, parents: true };
        ],
        Method::UNLINK => all![rpc::Unlink { path: b"/small" };],
        Method::REMOVE_DIRECTORY => all![rpc::RemoveDirectory { path: b"/dir" };],
        Method::RENAME => all![
            rpc::Rename { from: b"/small", to: b"/renamed" };
            rpc::Rename { from: b"/dir", to: b"/other" };
        ],
        Method::TRUNCATE => all![
            rpc::Truncate { path: None, handle: Some(handle), size: 1 };
            rpc::Truncate { path: small, handle: no_handle, size: 1 << 30 };
        ],
        Method::SET_ATTRIBUTES => {
            all![rpc::SetAttributes { path: file, mode: Some(0o600), ..Default::default() };]
        }
        Method::LINK => all![
            rpc::Link { path: file, to: b"/second", ..Default::default() };
            rpc::Link { handle: Some(unnamed), to: b"/named", ..Default::default() };
            rpc::Link { path: small, to: b"/clone", replace: true, ..Default::default() };
        ],
        Method::SYMLINK => all![rpc::Symlink { path: b"/to", target: b"there" };],
        Method::READ_LINK => all![rpc::ReadLink { path: b"/link" };],
        Method::OPEN => all![
            rpc::Open { path: b"/small", flags: 0, mode: None };
            rpc::Open { path: b"/file", flags: rpc::open::TRUNCATE, mode: None };
            rpc::Open { path: b"/file", flags: rpc::open::FROZEN, mode: None };
        ],
        Method::OPEN_UNNAMED => {
            all![rpc::OpenUnnamed { path: b"/dir", mode: None, uid: 1, gid: 2 };]
        }
        Method::CLOSE => all![rpc::Close { handle };],
        Method::READ => all![rpc::Read { handle, offset: 5, len: 300_000 };],
        Method::WRITE => {
            all![rpc::Write { handle, offset: 5000, sync: true }, &pattern(4, 50_000);]
        }
        Method::SYNC => all![rpc::Sync { handle };],
        Method::EXTENTS => {
            all![rpc::Extents { handle, offset: 0, len: None, max: None };]
        }
        Method::CLONE => all![rpc::CloneFile { from: b"/file", to: b"/copy" };],
        Method::CLONE_RANGE => all![rpc::CloneRange {
            from: b"/file", from_offset: 0, to: b"/clone", to_offset: 4096, len: Some(40_960)
        };],
        Method::DEDUPE => all![rpc::Dedupe {
            from: b"/file", from_offset: 131_072, to: b"/clone", to_offset: 131_072,
            len: Some(131_072)
        };],
        Method::LOAD => all![rpc::Load { handle, offset: 5, len: 300_000 };],
        Method::STORE => {
            all![rpc::Store { handle, offset: 5000, sync: true }, &pattern(5, 50_000);]
        }
        Method::MSYNC => all![rpc::Msync { handle };],
        Method::PAGES => all![
            rpc::Pages { path: None, handle: Some(handle) };
            rpc::Pages::default();
        ],
        Method::EXPORT_ADD => all![rpc::ExportAdd {
            name: "third", path: b"/clone", read_only: false, size: Some(1 << 20), replace: false
        };],
        Method::EXPORT_REMOVE => all![
            rpc::ExportRemove { name: "lost", force: false };
            rpc::ExportRemove { name: "golden", force: true };
        ],
        Method::EXPORT_LIST => all![rpc::ExportList {};],
        Method::EXPORT_CLIENTS => all![rpc::ExportClients {};],
        Method::BENCH => all![
            rpc::Bench { part: "floor", parameter: None, keep: false };
            rpc::Bench { part: "clone-size", parameter: Some(4096), keep: false };
            rpc::Bench { part: "fault-clones", parameter: Some(2), keep: false };
        ],
        _ => return None,
    })
}

/// A machine with a client of each protocol, after whose end nothing is left.
fn end(mut m: Full, rpc: Connection, nbd: Option<Nbd>) {
    let mut rpc = rpc;
    rpc.vanish(&mut m);
    nbd.into_iter().for_each(|nbd| nbd.vanish(&mut m));
    assert_eq!((m.counters.connections, m.counters.handles, m.exports_in_use()), (0, 0, 0));
    assert_eq!(m.machine.volume.pages(None).unwrap().windows, 0, "a window is left open");
    while m.machine.volume.reclaim_step().unwrap() {}
    m.check();
}

/// Fails each allocation of a request in turn. Returns how many there are.
fn fail_each(method: Method, name: &str, which: usize) -> u64 {
    each(|n| {
        let mut m = machine();
        let nbd = Nbd::open(&mut m, b"golden", Style::Structured);
        let (mut c, handle, unnamed) = client(&mut m);
        let bytes = requests(method, handle, unnamed).unwrap().swap_remove(which);
        fail(n);
        let answers = send(&mut c, &mut m, &bytes);
        let failed = has_failed();
        assert_eq!(answers.len(), 1, "{name}: allocation {n}");
        if answers[0].failed {
            let error = answers[0].error();
            assert!(failed, "{name}: {error}");
            assert_eq!(error.code, ErrorCode::NO_MEMORY, "{name}: allocation {n}: {error}");
            // The connection goes on, and nothing was done by halves.
            let again = send(&mut c, &mut m, &bytes);
            assert_eq!(again.len(), 1, "{name}: after allocation {n} failed");
            assert!(!again[0].failed, "{name}: after allocation {n} failed: {:?}", again[0]);
        }
        assert!(!send(&mut c, &mut m, &request(1, &rpc::Ping {}, &[])).is_empty());
        end(m, c, Some(nbd));
        failed
    })
}

#[test]
fn each_allocation_of_each_method_may_fail() {
    let (mut cases, mut missing) = (0, Vec::new());
    for &(method, name) in Method::ALL {
        let Some(all) = requests(method, 1, 2) else {
            missing.push(name);
            continue;
        };
        for which in 0..all.len() {
            let allocations = fail_each(method, name, which);
            println!("{name}, request {}: {allocations} allocations", which + 1);
            cases += allocations;
        }
    }
    assert!(missing.is_empty(), "there are no rows for the methods {missing:?}");
    println!("{cases} cases");
    assert!(cases > 100, "allocations are not counted");
}

/// What a failure says of which there was no memory for a text.
#[test]
fn a_failure_keeps_its_number_without_memory_for_its_text() {
    let texts = each(|n| {
        let mut m = machine();
        let (mut c, ..) = client(&mut m);
        fail(n);
        let answers = send(&mut c, &mut m, &request(9, &rpc::Unlink { path: b"/none" }, &[]));
        let failed = has_failed();
        let error = answers[0].error();
        assert_eq!(error.code, ErrorCode::NOT_FOUND, "{error}");
        assert_eq!(error.message.contains("no memory left to say more"), failed, "{error}");
        end(m, c, None);
        failed
    });
    assert!(texts > 0, "the text takes memory");
}

/// A body that does not fit its method is refused as such, whether there is memory or not: a field
/// of another type, and one that is missing.
#[test]
fn a_body_that_does_not_fit_is_refused_without_memory() {
    for (method, body) in [(Method::STAT, &[0xa1, 0x00, 0xf5][..]), (Method::UNLINK, &[0xa0])] {
        let header = rpc::Header::request(9, method.0, body.len() as u32, 0);
        let bytes = [&header.encode(), body].concat();
        each(|n| {
            let mut m = machine();
            let (mut c, ..) = client(&mut m);
            fail(n);
            let answers = send(&mut c, &mut m, &bytes);
            let failed = has_failed();
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0].error().code, ErrorCode::MALFORMED, "{:?}", answers[0].error());
            end(m, c, None);
            failed
        });
    }
}

/// A connection that cannot even begin ends, and takes nothing along.
#[test]
fn each_allocation_of_a_new_connection_may_fail() {
    let buffers = each(|n| {
        let mut m = machine();
        let mut c = Connection::new(4096, 64 << 10);
        fail(n);
        let answers = send(&mut c, &mut m, &hello());
        let failed = has_failed();
        assert_eq!(answers.is_empty(), c.wire.closing, "allocation {n}");
        assert!(failed || answers.len() == 1);
        end(m, c, None);
        failed
    });
    println!("a connection of the native protocol: {buffers} allocations");
    for port in [1, 7, 9, 19, 10_809] {
        each(|n| {
            fail(n);
            let peer = umbra_server::Peer { cid: 2, port: 9 };
            let service =
                counted(|| umbra_server::accept::<Full>(port, peer, umbra_server::Room::Plenty));
            let failed = has_failed();
            assert_eq!(service.is_none(), failed, "port {port}, allocation {n}");
            failed
        });
    }
}

/// Sends bytes to NBD; what the server does for them counts.
fn send_nbd(c: &mut Nbd, m: &mut Full, mut bytes: &[u8]) {
    loop {
        let n = c.wire.to_server.push(bytes);
        bytes = &bytes[n..];
        let progress = counted(|| c.poll(m));
        let before = c.received.len();
        c.wire.to_client.pull(usize::MAX, &mut c.received);
        let idle = n == 0 && progress == Progress::Wait && before == c.received.len();
        if idle || c.wire.is_closed() {
            return;
        }
    }
}

#[test]
fn each_allocation_of_each_option_may_fail() {
    let mut info = Vec::new();
    let infos = [InfoType::NAME, InfoType::DESCRIPTION, InfoType::BLOCK_SIZE];
    InfoRequest::encode(b"golden", &infos, &mut info);
    let (mut region, mut contexts) = (Vec::new(), Vec::new());
    InfoRequest::encode(b"nvdimm:0", &infos, &mut region);
    ContextRequest::encode(b"golden", &[b"base:allocation", b"x-umbra:sharing"], &mut contexts);
    let rows: [(OptionCode, &[u8]); 12] = [
        (OptionCode::EXPORT_NAME, b"golden"),
        (OptionCode::ABORT, b""),
        (OptionCode::LIST, b""),
        (OptionCode::STARTTLS, b""),
        (OptionCode::PEEK_EXPORT, b""),
        (OptionCode::INFO, &info),
        (OptionCode::GO, &info),
        (OptionCode::GO, &region),
        (OptionCode::STRUCTURED_REPLY, b""),
        (OptionCode::LIST_META_CONTEXT, &contexts),
        (OptionCode::SET_META_CONTEXT, &contexts),
        (OptionCode::EXTENDED_HEADERS, b""),
    ];
    for (option, name) in OptionCode::ALL {
        assert!(rows.iter().any(|(row, _)| row == option), "there is no row for the option {name}");
    }
    let mut cases = 0;
    for (option, data) in rows {
        let allocations = each(|n| {
            let mut m = machine();
            let mut c = Nbd::new(&mut m);
            if matches!(option, OptionCode::LIST_META_CONTEXT | OptionCode::SET_META_CONTEXT) {
                c.ack(&mut m, OptionCode::STRUCTURED_REPLY, &[]);
            }
            fail(n);
            send_nbd(&mut c, &mut m, &umbra_server::testing::nbd::option(option, data));
            let failed = has_failed();
            // The old way to choose has no way to refuse: the connection ends.
            let ends = matches!(option, OptionCode::EXPORT_NAME | OptionCode::ABORT);
            if !ends {
                let mut received = std::mem::take(&mut c.received);
                let answer = umbra_server::testing::nbd::take_replies(&mut received, option);
                let (code, text) = answer.expect("an answer").pop().unwrap();
                let text = String::from_utf8_lossy(&text).into_owned();
                let unserved = [OptionCode::STARTTLS, OptionCode::PEEK_EXPORT].contains(&option);
                assert!(failed || unserved == code.is_error(), "{option}: {text}");
                // One that chose is a client now; all others can go on.
                if option != OptionCode::GO || code != ReplyCode::ACK {
                    let next = c.answer(&mut m, OptionCode::LIST, &[]);
                    assert_eq!(next, ReplyCode::ACK, "after {option}, allocation {n}: {text}");
                }
            }
            c.vanish(&mut m);
            assert_eq!(m.exports_in_use(), 0);
            assert_eq!(m.machine.volume.pages(None).unwrap().windows, 0, "{option} left a window");
            m.check();
            failed
        });
        println!("{option}: {allocations} allocations");
        cases += allocations;
    }
    println!("{cases} cases");
    assert!(cases > 20, "allocations are not counted");
}

#[test]
fn each_allocation_of_each_command_may_fail() {
    let mut cases = 0;
    for style in STYLES {
        for &(command, name) in Command::ALL {
            let allocations = each(|n| {
                let mut m = machine();
                let mut c = Nbd::open(&mut m, b"/file", style);
                let mut bytes = Vec::new();
                // As many at once as need a longer queue.
                for i in 0..20 {
                    let (flags, length, payload) = match command {
                        Command::WRITE => (c.payload_len(), 5000, &[7; 5000][..]),
                        Command::FLUSH => (0, 0, &[][..]),
                        _ => (0, 5000, &[][..]),
                    };
                    let offset = if command == Command::FLUSH { 0 } else { i * 5000 };
                    bytes.extend(c.client.request(command, flags, offset, length, payload).1);
                }
                fail(n);
                send_nbd(&mut c, &mut m, &bytes);
                let failed = has_failed();
                if command != Command::DISC {
                    let received = std::mem::take(&mut c.received);
                    c.client.feed(&received);
                    let replies: Vec<_> = std::iter::from_fn(|| c.client.take()).collect();
                    assert_eq!(replies.len(), 20, "{style:?} {name}: allocation {n}");
                    // What is not served is refused, with memory too.
                    let refused = command == Command::RESIZE
                        || style == Style::Simple && command == Command::BLOCK_STATUS;
                    for reply in replies.iter().filter(|_| !refused) {
                        let errno = reply.error.as_ref().map(|(errno, ..)| errno.0);
                        assert!(matches!(errno, None | Some(12)), "{style:?} {name}: {reply:?}");
                        assert!(failed || errno.is_none(), "{style:?} {name}: {reply:?}");
                    }
                    assert_eq!(c.read(&mut m, 0, 10).len(), 10);
                }
                c.vanish(&mut m);
                assert_eq!(m.machine.volume.pages(None).unwrap().windows, 0);
                m.check();
                failed
            });
            println!("{style:?}, {name}: {allocations} allocations");
            cases += allocations;
        }
    }
    println!("{cases} cases");
    assert!(cases > 0, "allocations are not counted");
}
