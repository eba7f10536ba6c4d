//! Names, handles and limits, through the native protocol over a volume in memory.

mod common;

use common::files::{CREATE, Full, content, opened, put, read, start, stat, write};
use common::{Connection, Random, parse, request};
use umbra_proto::rpc::{self, ErrorCode, kind, open};
use umbra_server::rpc::MAX_HANDLES;

#[test]
fn names() {
    let (mut c, mut m) = start();
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/d", mode: Some(0o700), parents: false });
    c.ok(&mut m, &rpc::MakeDirectory { path: b"d//x/../y/./z", mode: None, parents: true });
    let same = c.ok(&mut m, &rpc::MakeDirectory { path: b"/d/y/z", mode: None, parents: true });
    assert_eq!(stat(&mut c, &mut m, b"/d/y/z").ino, same.ino);
    assert_eq!(
        (stat(&mut c, &mut m, b"/d").mode, stat(&mut c, &mut m, b"/d").kind),
        (0o700, kind::DIRECTORY)
    );
    let code = |c: &mut Connection, m: &mut Full, path: &[u8], parents| {
        c.call(m, &rpc::MakeDirectory { path, mode: None, parents }, &[]).error().code
    };
    assert_eq!(code(&mut c, &mut m, b"/d", false), ErrorCode::EXISTS);
    assert_eq!(code(&mut c, &mut m, b"/q/r", false), ErrorCode::NOT_FOUND);
    c.ok(&mut m, &rpc::Create { path: b"/f", mode: None });
    assert_eq!(code(&mut c, &mut m, b"/f", true), ErrorCode::NOT_DIRECTORY);
    assert_eq!(code(&mut c, &mut m, b"/f/g", true), ErrorCode::NOT_DIRECTORY);
    assert_eq!(code(&mut c, &mut m, &[b'n'; 256], true), ErrorCode::NAME_TOO_LONG);
    let twice = c.call(&mut m, &rpc::Create { path: b"/f", mode: None }, &[]);
    assert_eq!(twice.error().code, ErrorCode::EXISTS);
    c.ok(&mut m, &rpc::Rename { from: b"/f", to: b"/d/y/g" });
    let gone = c.call(&mut m, &rpc::Stat { path: Some(b"/f"), handle: None, blocks: false }, &[]);
    assert_eq!(gone.error().message, "cannot stat '/f': no such file or directory");
    assert_eq!(
        c.call(&mut m, &rpc::RemoveDirectory { path: b"/d/y" }, &[]).error().code,
        ErrorCode::NOT_EMPTY
    );
    assert_eq!(
        c.call(&mut m, &rpc::Unlink { path: b"/d/y" }, &[]).error().code,
        ErrorCode::IS_DIRECTORY
    );
    assert_eq!(
        c.call(&mut m, &rpc::RemoveDirectory { path: b"/d/y/g" }, &[]).error().code,
        ErrorCode::NOT_DIRECTORY
    );
    c.ok(&mut m, &rpc::Unlink { path: b"/d/y/g" });
    c.ok(&mut m, &rpc::RemoveDirectory { path: b"/d/y/z" });
    let set = rpc::SetAttributes {
        path: Some(b"/d"),
        mode: Some(0o1777),
        uid: Some(5),
        mtime: Some(-7),
        ..rpc::SetAttributes::default()
    };
    c.ok(&mut m, &set);
    let a = stat(&mut c, &mut m, b"/d");
    assert_eq!((a.mode, a.uid, a.gid, a.mtime), (0o1777, 5, 0, -7));
    m.check();
}

#[test]
fn directories_are_listed_over_many_frames() {
    let (mut c, mut m) = start();
    let mut names: Vec<Vec<u8>> =
        (0..700).map(|i| format!("name-{i}-{}", "x".repeat(i % 200)).into_bytes()).collect();
    for name in &names {
        c.ok(&mut m, &rpc::Create { path: name, mode: None });
    }
    names.sort();
    for attributes in [false, true] {
        let r = c.call(&mut m, &rpc::List { path: b"/", cookie: 0, max: None, attributes }, &[]);
        assert!(r.bodies.len() > 10);
        let entries: Vec<rpc::Entry> = r.items();
        let mut listed: Vec<_> = entries.iter().map(|e| e.name.clone()).collect();
        listed.sort();
        assert_eq!(listed, names);
        for e in &entries {
            assert_eq!(
                e.attributes.map(|a| (a.ino, a.kind)),
                attributes.then_some((e.ino, kind::FILE))
            );
        }
    }
    // In pages, by cookie.
    let (mut cookie, mut listed) = (0, Vec::new());
    loop {
        let list = rpc::List { path: b"/", cookie, max: Some(64), attributes: false };
        let entries: Vec<rpc::Entry> = c.call(&mut m, &list, &[]).items();
        listed.extend(entries.iter().map(|e| e.name.clone()));
        if entries.len() < 64 {
            break;
        }
        cookie = entries[63].cookie;
    }
    listed.sort();
    assert_eq!(listed, names);
    let none =
        c.call(&mut m, &rpc::List { path: b"/", cookie: 0, max: Some(0), attributes: false }, &[]);
    assert!(none.items::<rpc::Entry>().is_empty());
    let file = c.call(
        &mut m,
        &rpc::List { path: &names[0], cookie: 0, max: None, attributes: false },
        &[],
    );
    assert_eq!(file.error().code, ErrorCode::NOT_DIRECTORY);
    m.check();
}

#[test]
fn extents_cover_the_file() {
    let (mut c, mut m) = start();
    let h = opened(&mut c, &mut m, b"/a", CREATE);
    // Alternate blocks, then a large hole, then a tail.
    for i in 0..300u64 {
        write(&mut c, &mut m, h, i * 8192, &[1; 4096]);
    }
    write(&mut c, &mut m, h, 100 << 20, b"tail");
    let all: Vec<rpc::Extent> = {
        let r = c.call(&mut m, &rpc::Extents { handle: h, offset: 0, len: None, max: None }, &[]);
        assert!(r.bodies.len() > 1);
        r.items()
    };
    let mut at = 0;
    for e in &all {
        assert_eq!(e.offset, at);
        assert!(e.len > 0 && e.len % 4096 == 0);
        at += e.len;
    }
    assert_eq!(at, (100 << 20) + 4096);
    let data: u64 = all.iter().filter(|e| !e.is_zero()).map(|e| e.len).sum();
    assert_eq!(data, 301 * 4096);
    assert!(all.iter().all(|e| !e.shared));
    let some =
        rpc::Extents { handle: h, offset: 8192 * 10 + 5, len: Some(8192 * 2 - 5), max: None };
    let part: Vec<rpc::Extent> = c.call(&mut m, &some, &[]).items();
    assert_eq!(part.iter().map(|e| e.is_zero()).collect::<Vec<_>>(), [false, true, false, true]);
    assert_eq!(part[0].offset, 8192 * 10);
    for max in 0..70 {
        let some = rpc::Extents { handle: h, offset: 0, len: None, max: Some(max) };
        assert_eq!(c.call(&mut m, &some, &[]).items::<rpc::Extent>(), all[..max as usize]);
    }
    let beyond = rpc::Extents { handle: h, offset: 1 << 30, len: None, max: None };
    assert!(c.call(&mut m, &beyond, &[]).items::<rpc::Extent>().is_empty());
    c.ok(&mut m, &rpc::CloneFile { from: b"/a", to: b"/b" });
    let shared: Vec<rpc::Extent> = {
        let r = c.call(&mut m, &rpc::Extents { handle: h, offset: 0, len: None, max: None }, &[]);
        r.items()
    };
    assert!(shared.iter().all(|e| e.shared == e.block.is_some()));
    m.check();
}

#[test]
fn handles_live_as_the_protocol_says() {
    let (mut c, mut m) = start();
    let exclusive = rpc::Open { path: b"/a", flags: CREATE | open::EXCLUSIVE, mode: Some(0o600) };
    let h = c.ok(&mut m, &exclusive).handle;
    assert_eq!(c.call(&mut m, &exclusive, &[]).error().code, ErrorCode::EXISTS);
    assert_eq!(stat(&mut c, &mut m, b"/a").mode, 0o600);
    write(&mut c, &mut m, h, 0, b"still here");
    // An unlinked file lives on.
    c.ok(&mut m, &rpc::Unlink { path: b"/a" });
    assert_eq!(read(&mut c, &mut m, h, 0, 100), b"still here");
    write(&mut c, &mut m, h, 6, b"written");
    assert_eq!(read(&mut c, &mut m, h, 0, 100), b"still written");
    c.ok(&mut m, &rpc::Truncate { path: None, handle: Some(h), size: 5 });
    assert_eq!(read(&mut c, &mut m, h, 0, 100), b"still");
    c.ok(&mut m, &rpc::Close { handle: h });
    assert_eq!(c.call(&mut m, &rpc::Close { handle: h }, &[]).error().code, ErrorCode::BAD_HANDLE);
    // Truncating opens, missing files, directories.
    put(&mut c, &mut m, b"/b", b"something");
    let truncated = c.ok(&mut m, &rpc::Open { path: b"/b", flags: open::TRUNCATE, mode: None });
    assert_eq!(truncated.size, 0);
    let missing = c.call(&mut m, &rpc::Open { path: b"/c", flags: 0, mode: None }, &[]);
    assert_eq!(missing.error().code, ErrorCode::NOT_FOUND);
    let directory = c.call(&mut m, &rpc::Open { path: b"/", flags: CREATE, mode: None }, &[]);
    assert_eq!(directory.error().code, ErrorCode::IS_DIRECTORY);
    // Bounded, and given back when the client vanishes.
    let mut n = m.counters.handles;
    while n < MAX_HANDLES {
        opened(&mut c, &mut m, b"/b", 0);
        n += 1;
    }
    let more = c.call(&mut m, &rpc::Open { path: b"/new", flags: CREATE, mode: None }, &[]);
    assert_eq!(more.error().code, ErrorCode::TOO_MANY_HANDLES);
    let new = c.call(&mut m, &rpc::Stat { path: Some(b"/new"), handle: None, blocks: false }, &[]);
    assert_eq!(new.error().code, ErrorCode::NOT_FOUND);
    assert_eq!(c.ok(&mut m, &rpc::Pages::default()).windows, u64::from(MAX_HANDLES));
    c.vanish(&mut m);
    assert_eq!((m.counters.handles, m.counters.connections), (0, 0));
    assert_eq!(m.machine.volume.pages(None).unwrap().windows, 0);
    m.check();
}

#[test]
fn a_full_volume_says_so_and_can_be_emptied() {
    let (mut c, mut m) = (Connection::new(64 << 10, 64 << 10), Full::new(8, 4));
    c.greet(&mut m);
    let golden = content(1 << 20, 9);
    put(&mut c, &mut m, b"/golden", &golden);
    c.ok(&mut m, &rpc::CloneFile { from: b"/golden", to: b"/clone" });
    let clone = opened(&mut c, &mut m, b"/clone", 0);
    let fill = opened(&mut c, &mut m, b"/fill", CREATE);
    let (block, mut at) = (content(1 << 20, 10), 0);
    let failure = loop {
        let r = write(&mut c, &mut m, fill, at, &block);
        if r.failed {
            break r.error();
        }
        at += 1 << 20;
        assert!(at < 16 << 20);
    };
    assert_eq!(failure.code, ErrorCode::NO_SPACE);
    at += failure.done.unwrap();
    assert_eq!(stat(&mut c, &mut m, b"/fill").size, at);
    assert!(
        read(&mut c, &mut m, fill, at - 100_000, 100_000) == {
            let end = (at % (1 << 20)) as usize;
            if end >= 100_000 {
                block[end - 100_000..end].to_vec()
            } else {
                read(&mut c, &mut m, fill, at - 100_000, 100_000)
            }
        }
    );
    // A store into the clone finds no space midway or at once; its client is told how far it came.
    let patch = vec![0x5a; 1 << 20];
    let stored = c.call(&mut m, &rpc::Store { handle: clone, offset: 0, sync: true }, &patch);
    assert_eq!(stored.error().code, ErrorCode::NO_SPACE);
    let done = stored.error().done.unwrap() as usize;
    let mut expected = golden.clone();
    expected[..done].fill(0x5a);
    assert!(read(&mut c, &mut m, clone, 0, 2 << 20) == expected);
    let g = opened(&mut c, &mut m, b"/golden", 0);
    assert!(read(&mut c, &mut m, g, 0, 2 << 20) == golden);
    // Space comes back, and the same store succeeds.
    c.ok(&mut m, &rpc::Close { handle: fill });
    c.ok(&mut m, &rpc::Unlink { path: b"/fill" });
    let left = c.ok(&mut m, &rpc::Reclaim { wait: true });
    assert!(!left.pending && left.steps > 0);
    let stored = c.call(&mut m, &rpc::Store { handle: clone, offset: 0, sync: true }, &patch);
    assert_eq!(stored.body::<rpc::Written>().done, 1 << 20);
    let space = c.ok(&mut m, &rpc::Space {});
    assert!(space.blocks_free > 512 && space.blocks_free < space.blocks_total);
    m.check();
    let report: rpc::CheckResponse = c.ok(&mut m, &rpc::Check {});
    assert_eq!((report.issues.len(), report.issues_total), (0, Some(0)));
}

/// Many clients at once, each with a file and a model of its own and one that all clone.
#[test]
fn many_connections_do_not_disturb_each_other() {
    let mut m = Full::new(64, 6);
    let mut random = Random(11);
    let mut first = Connection::new(8192, 8192);
    first.greet(&mut m);
    let golden = content(100_000, 12);
    put(&mut first, &mut m, b"/golden", &golden);

    struct Client {
        c: Connection,
        model: Vec<u8>,
        /// Bytes of requests that did not go out yet.
        to_send: Vec<u8>,
        /// What each outstanding read must give.
        expected: std::collections::VecDeque<(u32, Option<Vec<u8>>)>,
        next: u32,
        handle: u32,
    }
    let mut clients: Vec<Client> = (0..12)
        .map(|i| {
            let (window, ring) = (4096 + random.below(9000), 1 + random.below(9000));
            let mut c = Connection::new(window, ring);
            c.greet(&mut m);
            let path = format!("/clone-{i}").into_bytes();
            c.ok(&mut m, &rpc::CloneFile { from: b"/golden", to: &path });
            let handle = opened(&mut c, &mut m, &path, 0);
            Client {
                c,
                model: golden.clone(),
                to_send: vec![],
                expected: Default::default(),
                next: 100,
                handle,
            }
        })
        .collect();
    for step in 0..6000 {
        let n = random.below(clients.len());
        let client = &mut clients[n];
        match random.below(4) {
            0 if client.expected.len() < 8 && step < 5000 => {
                client.next += 1;
                let (id, handle) = (client.next, client.handle);
                let at = random.below(client.model.len());
                let len = random.below((client.model.len() - at).min(20_000)) + 1;
                let bytes = content(len, random.next());
                let offset = at as u64;
                match random.below(3) {
                    0 => {
                        client.to_send.extend(request(
                            id,
                            &rpc::Store { handle, offset, sync: false },
                            &bytes,
                        ));
                        client.model[at..at + len].copy_from_slice(&bytes);
                        client.expected.push_back((id, None));
                    }
                    1 => {
                        client.to_send.extend(request(
                            id,
                            &rpc::Write { handle, offset, sync: true },
                            &bytes,
                        ));
                        client.model[at..at + len].copy_from_slice(&bytes);
                        client.expected.push_back((id, None));
                    }
                    _ => {
                        client.to_send.extend(request(
                            id,
                            &rpc::Read { handle, offset, len: len as u64 },
                            &[],
                        ));
                        client.expected.push_back((id, Some(client.model[at..at + len].to_vec())));
                    }
                }
            }
            0 | 1 => {
                let some = random.below(client.to_send.len() + 1).min(5000);
                let n = client.c.wire.to_server.push(&client.to_send[..some]);
                client.to_send.drain(..n);
            }
            2 => drop(client.c.poll(&mut m)),
            _ => {
                client.c.wire.to_client.pull(random.below(8000), &mut client.c.received);
                for r in parse(&mut client.c.received) {
                    let (id, bytes) =
                        client.expected.pop_front().expect("a response without request");
                    assert_eq!(r.id, id);
                    assert!(!r.failed, "{:?}", r.error());
                    assert!(bytes.is_none_or(|b| b == r.payload), "step {step}, client {n}");
                }
            }
        }
        if step % 1000 == 0 {
            m.check();
        }
    }
    for client in &mut clients {
        let rest = std::mem::take(&mut client.to_send);
        client.c.run(&mut m, &rest);
        for r in parse(&mut client.c.received) {
            let (id, bytes) = client.expected.pop_front().expect("a response without request");
            assert!(r.id == id && !r.failed && bytes.is_none_or(|b| b == r.payload));
        }
        assert!(client.expected.is_empty());
        assert!(read(&mut client.c, &mut m, client.handle, 0, 1 << 20) == client.model);
        client.c.vanish(&mut m);
    }
    let h = opened(&mut first, &mut m, b"/golden", 0);
    assert!(read(&mut first, &mut m, h, 0, 1 << 20) == golden);
    assert_eq!(first.ok(&mut m, &rpc::Pages::default()).faults.foreign_unmapped, 0);
    m.check();
}
