//! Large requests of one client, and what another one gets meanwhile.

mod common;

use common::files::{CREATE, Full, opened};
use common::{Connection, nbd, parse, request};
use umbra_fs::{Ino, Time, dax};
use umbra_proto::nbd::{Command, Style, command_flags};
use umbra_proto::rpc::{self, Request, open};
use umbra_server::Progress;

const NOW: Time = Time(7_000);
/// Blocks of `/big`, which all are in a window and were stored to.
const BLOCKS: u64 = 2000;

/// A machine whose steps are small, two clients, and a file with much to make durable.
fn start() -> (Full, Connection, Connection, u32) {
    let mut m = Full::new(64, 16);
    let (mut a, mut b) = (Connection::new(64 << 10, 64 << 10), Connection::new(64 << 10, 64 << 10));
    a.greet(&mut m);
    b.greet(&mut m);
    let handle = opened(&mut a, &mut m, b"/big", CREATE);
    let volume = &mut m.machine.volume;
    let ino = volume.resolve(b"/big").unwrap();
    volume.write(ino, 0, &vec![7; (BLOCKS * 4096) as usize], NOW).unwrap();
    volume.create(volume.root(), b"to", 0o644, NOW).unwrap();
    volume.set_work_a_step(16);
    dirty(&mut m, &mut a, handle);
    (m, a, b, handle)
}

/// Stores into each page of `/big`.
fn dirty(m: &mut Full, c: &mut Connection, handle: u32) {
    for offset in (0..BLOCKS * 4096).step_by(32 << 10) {
        let bytes = vec![8; (BLOCKS * 4096 - offset).min(32 << 10) as usize];
        let done: rpc::Written =
            c.call(m, &rpc::Store { handle, offset, sync: false }, &bytes).body();
        assert_eq!(done.done, bytes.len() as u64);
    }
}

/// One client makes a request; returns how often another one was answered before it was.
fn meanwhile<R: Request>(
    m: &mut Full,
    a: &mut Connection,
    b: &mut Connection,
    body: &R,
    payload: &[u8],
) -> u32
where
    R::Response: for<'b> minicbor::Decode<'b, ()>,
{
    let bytes = request(77, body, payload);
    assert_eq!(a.wire.to_server.push(&bytes), bytes.len());
    let mut pings = 0;
    loop {
        let progress = a.poll(m);
        a.wire.to_client.pull(usize::MAX, &mut a.received);
        if let Some(response) = parse(&mut a.received).pop() {
            response.body::<R::Response>();
            m.check();
            return pings;
        }
        assert_eq!(progress, Progress::Again, "it waits for something");
        b.ok(m, &rpc::Ping {});
        pings += 1;
        assert!(pings < 10_000, "it does not end");
    }
}

fn assert_meanwhile(what: &str, pings: u32) {
    assert!(pings > 10, "{what}: another client was answered {pings} times before it was done");
}

#[test]
fn whatever_the_size_others_are_answered_between_steps() {
    let (mut m, mut a, mut b, handle) = start();
    let (m, a, b) = (&mut m, &mut a, &mut b);
    let sync = meanwhile(m, a, b, &rpc::Msync { handle }, &[]);
    assert_meanwhile("msync", sync);
    dirty(m, a, handle);
    assert_meanwhile("sync", meanwhile(m, a, b, &rpc::Sync { handle }, &[]));
    dirty(m, a, handle);
    let store = rpc::Store { handle, offset: 0, sync: true };
    assert_meanwhile("store", meanwhile(m, a, b, &store, &[1; 8]));
    dirty(m, a, handle);
    let write = rpc::Write { handle, offset: 0, sync: true };
    assert_meanwhile("write", meanwhile(m, a, b, &write, &[1; 8]));
    dirty(m, a, handle);
    assert_meanwhile(
        "clone",
        meanwhile(m, a, b, &rpc::CloneFile { from: b"/big", to: b"/c" }, &[]),
    );
    dirty(m, a, handle);
    let frozen = rpc::Open { path: b"/big", flags: open::FROZEN, mode: None };
    assert_meanwhile("open frozen", meanwhile(m, a, b, &frozen, &[]));
    let range =
        rpc::CloneRange { from: b"/big", from_offset: 0, to: b"/to", to_offset: 4096, len: None };
    assert_meanwhile("clone-range", meanwhile(m, a, b, &range, &[]));
    assert_meanwhile("dedupe", {
        dirty(m, a, handle);
        let dedupe =
            rpc::Dedupe { from: b"/big", from_offset: 0, to: b"/c", to_offset: 0, len: None };
        meanwhile(m, a, b, &dedupe, &[])
    });
    let pages = rpc::Pages { path: Some(b"/big"), handle: None };
    assert_meanwhile("pages", meanwhile(m, a, b, &pages, &[]));
    m.machine.volume.set_work_a_step(1);
    let stat = rpc::Stat { path: Some(b"/big"), handle: None, blocks: true };
    assert!(meanwhile(m, a, b, &stat, &[]) > 0, "stat");
    m.machine.volume.set_work_a_step(16);
    let mut all = vec![0; (BLOCKS * 4096) as usize];
    let show = |m: &mut Full, all: &mut Vec<u8>| {
        let window =
            m.machine.volume.resolve(b"/big").map(|ino| m.machine.volume.open_window(ino).unwrap());
        dax::load(m, window.unwrap(), 0, all).unwrap();
        window.unwrap()
    };
    let window = show(m, &mut all);
    let cut = rpc::Truncate { path: None, handle: Some(handle), size: 4096 };
    // Each slot of the window in a step of its own.
    assert!(meanwhile(m, a, b, &cut, &[]) >= 2, "truncate");
    let cloned = m.machine.volume.resolve(b"/c").unwrap();
    let big = m.machine.volume.resolve(b"/big").unwrap();
    m.machine.volume.clone_range(cloned, 0, big, 0, BLOCKS * 4096, NOW).unwrap();
    m.machine.volume.close_window(window).unwrap();
    let window = show(m, &mut all);
    let cut = rpc::Open { path: b"/big", flags: open::TRUNCATE, mode: None };
    assert!(meanwhile(m, a, b, &cut, &[]) >= 2, "open that cuts");
    m.machine.volume.close_window(window).unwrap();
    m.machine.volume.clone_range(cloned, 0, big, 0, BLOCKS * 4096, NOW).unwrap();
    dirty(m, a, handle);
    assert!(meanwhile(m, a, b, &rpc::Close { handle }, &[]) > 0, "close");
}

#[test]
fn many_directories_are_made_in_steps() {
    let (mut m, mut a, mut b, _) = start();
    let path = b"/x".repeat(2000);
    let make = rpc::MakeDirectory { path: &path, mode: None, parents: true };
    assert_meanwhile("mkdir", meanwhile(&mut m, &mut a, &mut b, &make, &[]));
    let ino = m.machine.volume.resolve(&path).unwrap();
    let again: rpc::Created = a.call(&mut m, &make, &[]).body();
    assert_eq!(again.ino, ino.0);
    m.check();
}

/// Of a directory that was large, the buckets are still there.
#[test]
fn empty_directories_are_listed_in_steps() {
    let (mut m, mut a, mut b, _) = start();
    let volume = &mut m.machine.volume;
    let dir = volume.mkdir(volume.root(), b"d", 0o755, NOW).unwrap();
    let name = |i: usize| format!("{i:0200}").into_bytes();
    for i in 0..2000 {
        volume.create(dir, &name(i), 0o644, NOW).unwrap();
    }
    for i in 1..2000 {
        volume.unlink(dir, &name(i), NOW).unwrap();
    }
    let list = rpc::List { path: b"/d", cookie: 0, max: None, attributes: true };
    let bytes = request(77, &list, &[]);
    assert_eq!(a.wire.to_server.push(&bytes), bytes.len());
    let (mut polls, mut answers) = (0, Vec::new());
    while answers.is_empty() {
        let _ = a.poll(&mut m);
        a.wire.to_client.pull(usize::MAX, &mut a.received);
        answers = parse(&mut a.received);
        b.ok(&mut m, &rpc::Ping {});
        polls += 1;
        assert!(polls < 10_000, "it does not end");
    }
    let entries: Vec<rpc::Entry> = answers[0].items();
    assert!(entries.len() == 1 && entries[0].name == name(0), "{entries:?}");
    assert_meanwhile("list", polls);
    m.check();
    // It is not empty, and then it is; a name that comes meanwhile is noticed.
    let remove = rpc::RemoveDirectory { path: b"/d" };
    let failed = a.call(&mut m, &remove, &[]);
    assert_eq!(failed.error().code, rpc::ErrorCode::NOT_EMPTY);
    m.machine.volume.unlink(dir, &name(0), NOW).unwrap();
    let bytes = request(77, &remove, &[]);
    for polls in [1, 5, 10] {
        assert_eq!(a.wire.to_server.push(&bytes), bytes.len());
        for _ in 0..polls {
            assert_eq!(a.poll(&mut m), Progress::Again);
        }
        m.machine.volume.create(dir, &name(polls), 0o644, NOW).unwrap();
        a.run(&mut m, &[]);
        assert_eq!(parse(&mut a.received)[0].error().code, rpc::ErrorCode::NOT_EMPTY);
        m.machine.volume.unlink(dir, &name(polls), NOW).unwrap();
    }
    m.machine.volume.mkdir(m.machine.volume.root(), b"e", 0o755, NOW).unwrap();
    let rename = rpc::Rename { from: b"/e", to: b"/d" };
    assert_meanwhile("rename", meanwhile(&mut m, &mut a, &mut b, &rename, &[]));
    let volume = &mut m.machine.volume;
    assert!(volume.resolve(b"/e").is_err());
    assert_eq!(volume.space().inodes, 4);
    let dir = volume.resolve(b"/d").unwrap();
    (0..2000).for_each(|i| assert!(volume.create(dir, &name(i), 0o644, NOW).is_ok()));
    (0..2000).for_each(|i| volume.unlink(dir, &name(i), NOW).unwrap());
    assert_meanwhile("rmdir", meanwhile(&mut m, &mut a, &mut b, &remove, &[]));
    m.check();
}

/// Stores of another client wait where they would keep a clone from its end; no byte of them is
/// lost.
#[test]
fn stores_that_keep_a_clone_from_its_end_wait() {
    let (mut m, mut a, mut b, _) = start();
    let handle = opened(&mut b, &mut m, b"/big", 0);
    let bytes = request(77, &rpc::CloneFile { from: b"/big", to: b"/c" }, &[]);
    assert_eq!(a.wire.to_server.push(&bytes), bytes.len());
    let (mut page, mut waited, mut polls) = (0, 0, 0);
    let mut stored = vec![8; (BLOCKS * 4096) as usize];
    let mut open = false;
    loop {
        let progress = a.poll(&mut m);
        a.wire.to_client.pull(usize::MAX, &mut a.received);
        if let Some(response) = parse(&mut a.received).pop() {
            response.body::<rpc::Cloned>();
            break;
        }
        assert_eq!(progress, Progress::Again);
        polls += 1;
        assert!(polls < 10_000, "it does not end");
        // As many pages as fit into a turn, again and again all over the file.
        for _ in 0..200 {
            if !open {
                let offset = page * 4096 + 5;
                let store =
                    request(5, &rpc::Store { handle, offset, sync: false }, &[9; 4091 + 20]);
                assert_eq!(b.wire.to_server.push(&store), store.len());
                stored[offset as usize..offset as usize + 4111].fill(9);
                page = (page + 2) % (BLOCKS - 2);
                open = true;
            }
            let _ = b.poll(&mut m);
            b.wire.to_client.pull(usize::MAX, &mut b.received);
            if let Some(response) = parse(&mut b.received).pop() {
                assert_eq!(response.body::<rpc::Written>().done, 4111);
                open = false;
            } else {
                waited += 1;
                break;
            }
        }
    }
    assert!(waited > 0, "nothing had to wait in {polls} polls");
    if open {
        b.run(&mut m, &[]);
        assert_eq!(parse(&mut b.received).len(), 1);
    }
    assert!(nbd::content(&mut m, b"/big") == stored);
    m.check();
}

/// Whenever a client goes, what its request held is free again.
#[test]
fn a_client_that_goes_midway_leaves_nothing() {
    let (mut m, mut a, mut b, handle) = start();
    a.ok(&mut m, &rpc::Close { handle });
    while m.machine.volume.reclaim_step().unwrap() {}
    let space = m.machine.volume.space();
    let cases: [Vec<u8>; 4] = [
        request(
            7,
            &rpc::CloneRange {
                from: b"/big",
                from_offset: 0,
                to: b"/to",
                to_offset: 4096,
                len: None,
            },
            &[],
        ),
        request(7, &rpc::CloneFile { from: b"/big", to: b"/c" }, &[]),
        request(7, &rpc::Open { path: b"/big", flags: open::FROZEN, mode: None }, &[]),
        request(
            7,
            &rpc::Dedupe {
                from: b"/big",
                from_offset: 0,
                to: b"/big",
                to_offset: 4 << 20,
                len: Some(3 << 20),
            },
            &[],
        ),
    ];
    for (case, bytes) in cases.iter().enumerate() {
        for polls in [1, 5, 20, 60] {
            let mut c = Connection::new(64 << 10, 64 << 10);
            c.greet(&mut m);
            let handle = opened(&mut c, &mut m, b"/big", 0);
            if case > 0 {
                dirty(&mut m, &mut c, handle);
            }
            assert_eq!(c.wire.to_server.push(bytes), bytes.len());
            let mut over = false;
            for _ in 0..polls {
                over |= c.poll(&mut m) != Progress::Again;
            }
            assert!(!over, "request {case} is over after {polls} polls");
            c.vanish(&mut m);
            while m.machine.volume.reclaim_step().unwrap() {}
            assert_eq!(m.machine.volume.space(), space, "request {case} after {polls} polls");
            assert_eq!(m.counters.handles, 0);
            assert_eq!(m.machine.volume.pages(None).unwrap().windows, 0);
            assert!(!m.machine.volume.is_parked(Ino(2)));
            b.ok(&mut m, &rpc::Ping {});
            m.check();
        }
    }
}

/// Flushes of NBD, writes and zeroes with FUA, and the end of the last connection.
#[test]
fn nbd_clients_are_answered_between_steps() {
    let (mut m, mut a, mut b, handle) = start();
    let mut c = nbd::Connection::open(&mut m, b"/big", Style::Structured);
    let requests = [
        (Command::FLUSH, 0, 0, 0, vec![]),
        (Command::WRITE, command_flags::FUA, 100, 100, vec![1; 100]),
        (Command::WRITE_ZEROES, command_flags::FUA, 0, 8192, vec![]),
        (Command::TRIM, command_flags::FUA, 0, 8192, vec![]),
    ];
    for (command, flags, offset, length, payload) in requests {
        dirty(&mut m, &mut a, handle);
        let (_, bytes) = c.client.request(command, flags, offset, length, &payload);
        assert_eq!(c.wire.to_server.push(&bytes), bytes.len());
        let mut pings = 0;
        while c.poll(&mut m) == Progress::Again {
            b.ok(&mut m, &rpc::Ping {});
            pings += 1;
        }
        assert_meanwhile(&format!("{command}"), pings);
        assert_eq!(m.machine.volume.pages(None).unwrap().writable, 0);
        let replies = c.send(&mut m, &[]);
        assert!(replies.len() == 1 && replies[0].error.is_none(), "{replies:?}");
        m.check();
    }
    // The window of the export shows and has stored much.
    for offset in (0..BLOCKS * 4096).step_by(4096) {
        assert_eq!(c.call(&mut m, Command::WRITE, 0, offset + 8, 8, &[3; 8]).error, None);
    }
    c.wire.reset = true;
    let mut polls = 0;
    while c.poll(&mut m) == Progress::Again {
        b.ok(&mut m, &rpc::Ping {});
        polls += 1;
    }
    assert!(polls >= 2, "{polls}");
    assert_eq!(m.machine.volume.pages(None).unwrap().windows, 1);
    m.check();
}
