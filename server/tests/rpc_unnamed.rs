//! Files that are opened without a name, and named when they are complete.

mod common;

use common::files::{Full, content, opened, put, read, start, stat, write};
use common::{Connection, parse, request};
use umbra_proto::rpc::{self, ErrorCode, Link};
use umbra_server::{Progress, background};

const IN_ROOT: rpc::OpenUnnamed<'_> = rpc::OpenUnnamed { path: b"/", mode: None, uid: 0, gid: 0 };

fn unnamed(c: &mut Connection, m: &mut Full, bytes: &[u8]) -> u32 {
    let handle = c.ok(m, &IN_ROOT).handle;
    assert_eq!(write(c, m, handle, 0, bytes).body::<rpc::Written>().done, bytes.len() as u64);
    handle
}

fn name(handle: u32, to: &[u8]) -> Link<'_> {
    Link { path: None, to, handle: Some(handle), replace: false, check: false }
}

fn over(handle: u32, to: &[u8]) -> Link<'_> {
    Link { replace: true, ..name(handle, to) }
}

fn names(c: &mut Connection, m: &mut Full) -> Vec<Vec<u8>> {
    let list = rpc::List { path: b"/", cookie: 0, max: None, attributes: false };
    c.call(m, &list, &[]).items::<rpc::Entry>().into_iter().map(|entry| entry.name).collect()
}

fn refused(c: &mut Connection, m: &mut Full, link: &Link<'_>) -> ErrorCode {
    // Asked before, it says the same.
    let code = c.call(m, &Link { check: true, ..*link }, &[]).error().code;
    assert_eq!(c.call(m, link, &[]).error().code, code);
    code
}

#[test]
fn what_has_no_name_goes_with_its_connection() {
    let (mut c, mut m) = start();
    put(&mut c, &mut m, b"/old", &content(50_000, 1));
    c.ok(&mut m, &rpc::Reclaim { wait: true });
    let before = m.machine.volume.space();
    // Closed, cut off between two requests, and in the middle of the payload of one.
    for end in 0..3 {
        let (mut c, handles) = (Connection::new(64 << 10, 64 << 10), m.counters.handles);
        c.greet(&mut m);
        let handle = unnamed(&mut c, &mut m, &content(700_000, 2));
        assert!(m.machine.volume.space().free < before.free - 150);
        assert_eq!(names(&mut c, &mut m), [b"old"]);
        let write =
            request(9, &rpc::Write { handle, offset: 700_000, sync: false }, &content(600_000, 3));
        match end {
            0 => drop(c.ok(&mut m, &rpc::Close { handle })),
            1 => {}
            _ => c.run(&mut m, &write[..400_000]),
        }
        m.check();
        c.vanish(&mut m);
        while background(&mut m) == Progress::Again {}
        assert_eq!((m.machine.volume.space(), m.counters.handles), (before, handles));
        m.check();
    }
}

#[test]
fn a_name_comes_when_all_is_there() {
    let (mut c, mut m) = start();
    let bytes = content(300_000, 1);
    let dir = c.ok(&mut m, &rpc::MakeDirectory { path: b"/d", mode: None, parents: false });
    let open = rpc::OpenUnnamed { path: b"/d", mode: Some(0o640), uid: 7, gid: 8 };
    let file = c.ok(&mut m, &open);
    assert!(file.handle > 0 && file.ino != dir.ino && file.size == 0);
    write(&mut c, &mut m, file.handle, 0, &bytes).body::<rpc::Written>();
    let has = c.ok(&mut m, &rpc::Stat { path: None, handle: Some(file.handle), blocks: false });
    assert_eq!((has.mode, has.uid, has.gid, has.nlink, has.size), (0o640, 7, 8, 0, 300_000));
    c.ok(&mut m, &Link { check: true, ..name(file.handle, b"/d/f") });
    assert_eq!(
        c.call(&mut m, &rpc::Stat { path: Some(b"/d/f"), handle: None, blocks: false }, &[])
            .error()
            .code,
        ErrorCode::NOT_FOUND,
        "asking changes nothing"
    );
    assert_eq!(c.ok(&mut m, &name(file.handle, b"/d/f")).ino, file.ino);
    assert_eq!(stat(&mut c, &mut m, b"/d/f").nlink, 1);
    // A further name, by the handle, as for any file; and the handle goes on.
    c.ok(&mut m, &name(file.handle, b"/e"));
    write(&mut c, &mut m, file.handle, 300_000, b"more").body::<rpc::Written>();
    c.ok(&mut m, &rpc::Close { handle: file.handle });
    let handle = opened(&mut c, &mut m, b"/e", 0);
    assert!(read(&mut c, &mut m, handle, 0, 1 << 20) == [&bytes[..], b"more"].concat());
    assert_eq!(stat(&mut c, &mut m, b"/d/f").nlink, 2);
    m.check();
}

#[test]
fn a_name_is_taken_from_another_file_at_once() {
    let (mut c, mut m) = start();
    let old = put(&mut c, &mut m, b"/f", b"old");
    c.ok(&mut m, &Link { path: Some(b"/f"), to: b"/second", ..Link::default() });
    c.ok(&mut m, &rpc::Symlink { path: b"/l", target: b"f" });
    let handle = unnamed(&mut c, &mut m, b"new");
    assert_eq!(refused(&mut c, &mut m, &name(handle, b"/f")), ErrorCode::EXISTS);
    c.ok(&mut m, &over(handle, b"/f"));
    // What had the name has others, and is open.
    assert_eq!(stat(&mut c, &mut m, b"/second").nlink, 1);
    assert_eq!(read(&mut c, &mut m, old, 0, 9), b"old");
    c.ok(&mut m, &over(handle, b"/second"));
    assert_eq!(read(&mut c, &mut m, old, 0, 9), b"old");
    c.ok(&mut m, &over(handle, b"/l"));
    // A name that it has already.
    c.ok(&mut m, &over(handle, b"/l"));
    assert_eq!(stat(&mut c, &mut m, b"/l").nlink, 3);
    // By path it is the same: a name of a file that is there.
    put(&mut c, &mut m, b"/other", b"x");
    c.ok(&mut m, &Link { path: Some(b"/f"), to: b"/other", replace: true, ..Link::default() });
    assert_eq!(stat(&mut c, &mut m, b"/f").nlink, 4);
    let inodes = m.machine.volume.space().inodes;
    c.ok(&mut m, &rpc::Close { handle: old });
    assert_eq!(m.machine.volume.space().inodes, inodes - 1);
    m.check();
}

#[test]
fn what_cannot_be_named_is_refused_and_stays_as_it_is() {
    let (mut c, mut m) = start();
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/d", mode: None, parents: false });
    let old = put(&mut c, &mut m, b"/f", b"old");
    let handle = unnamed(&mut c, &mut m, b"new");
    let link = |path, handle| Link { path, to: b"/n", handle, replace: true, check: false };
    let cases: [(Link<'_>, ErrorCode); 10] = [
        (over(handle, b"/d"), ErrorCode::IS_DIRECTORY),
        (over(handle, b"/f/x"), ErrorCode::NOT_DIRECTORY),
        (over(handle, b"/none/x"), ErrorCode::NOT_FOUND),
        (over(handle, b"/"), ErrorCode::INVALID_NAME),
        (over(handle, b""), ErrorCode::INVALID_NAME),
        (over(77, b"/n"), ErrorCode::BAD_HANDLE),
        (link(None, None), ErrorCode::INVALID),
        (link(Some(b"/f"), Some(handle)), ErrorCode::INVALID),
        (link(Some(b"/d"), None), ErrorCode::IS_DIRECTORY),
        (link(Some(b"/none"), None), ErrorCode::NOT_FOUND),
    ];
    for (link, code) in cases {
        assert_eq!(refused(&mut c, &mut m, &link), code, "{link:?}");
    }
    // A file whose last name is gone gets none; what is frozen is not changed.
    c.ok(&mut m, &rpc::Unlink { path: b"/f" });
    assert_eq!(refused(&mut c, &mut m, &over(old, b"/n")), ErrorCode::NOT_FOUND);
    c.ok(&mut m, &over(handle, b"/f"));
    let frozen = opened(&mut c, &mut m, b"/f", rpc::open::FROZEN);
    assert_eq!(refused(&mut c, &mut m, &over(frozen, b"/n")), ErrorCode::READ_ONLY);
    // Nor is a file made without a name where none can be.
    let open = |path, mode| rpc::OpenUnnamed { path, mode, uid: 0, gid: 0 };
    for (open, code) in [
        (open(b"/f", None), ErrorCode::NOT_DIRECTORY),
        (open(b"/none", None), ErrorCode::NOT_FOUND),
        (open(b"", None), ErrorCode::INVALID_NAME),
        (open(b"/", Some(0o10000)), ErrorCode::INVALID),
    ] {
        assert_eq!(c.call(&mut m, &open, &[]).error().code, code);
    }
    assert_eq!(m.counters.handles, 3);
    for _ in 3..64 {
        c.ok(&mut m, &IN_ROOT);
    }
    assert_eq!(c.call(&mut m, &IN_ROOT, &[]).error().code, ErrorCode::TOO_MANY_HANDLES);
    m.check();
}

/// What was stored through its window is durable before a file has its name; that takes steps.
#[test]
fn a_file_with_many_dirty_pages_is_named_in_steps() {
    let (mut c, mut m) = start();
    m.machine.volume.set_work_a_step(64);
    let handle = c.ok(&mut m, &IN_ROOT).handle;
    let bytes = content(12 << 20, 4);
    c.ok(&mut m, &rpc::Truncate { path: None, handle: Some(handle), size: bytes.len() as u64 });
    for (number, piece) in bytes.chunks(1 << 20).enumerate() {
        let store = rpc::Store { handle, offset: (number as u64) << 20, sync: false };
        c.call(&mut m, &store, piece).body::<rpc::Written>();
    }
    assert_eq!(c.ok(&mut m, &rpc::Pages::default()).writable, bytes.len() as u64 / 4096);
    c.wire.to_server.push(&request(9, &name(handle, b"/f"), &[]));
    let mut polls = 0;
    while c.poll(&mut m) == Progress::Again {
        assert!(polls > 0 || m.machine.volume.resolve(b"/f").is_err(), "it was named in one step");
        polls += 1;
    }
    assert!(polls > 1, "{polls} polls");
    c.wire.to_client.pull(usize::MAX, &mut c.received);
    assert!(!parse(&mut c.received).remove(0).failed);
    assert_eq!(c.ok(&mut m, &rpc::Pages::default()).writable, 0);
    assert!(read(&mut c, &mut m, handle, 0, 1 << 30) == bytes);
    // A client that vanishes in the middle leaves nothing.
    let inodes = m.machine.volume.space().inodes;
    let handle = c.ok(&mut m, &IN_ROOT).handle;
    c.ok(&mut m, &rpc::Truncate { path: None, handle: Some(handle), size: 12 << 20 });
    for number in 0..12 {
        let store = rpc::Store { handle, offset: number << 20, sync: false };
        let stored = c.call(&mut m, &store, &bytes[..1 << 20]);
        assert!(!stored.failed, "{:?}", stored.error());
    }
    c.wire.to_server.push(&request(9, &over(handle, b"/f"), &[]));
    assert_eq!(c.poll(&mut m), Progress::Again);
    c.vanish(&mut m);
    assert_eq!(m.machine.volume.space().inodes, inodes);
    m.check();
}
