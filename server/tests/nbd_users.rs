//! Who uses exports: counted by what they hold, listed, and evicted.

mod common;

use common::exports::{add, clients, go, list, rpc};
use common::nbd;
use common::nbd::{NOW, machine_with, pattern};
use umbra_proto::nbd::{Command, InfoRequest, OptionCode, ReplyCode, Style};
use umbra_proto::rpc::{self, ErrorCode, Export, ExportAdd, ExportRemove};
use umbra_server::nbd::Nbd;
use umbra_server::testing::SoftPlatform;
use umbra_server::{Peer, Progress, Stream};

#[test]
fn clients_are_counted_by_the_file_that_they_hold() {
    let mut m = machine_with(b"disk", &pattern(1, 10_000));
    let mut c = rpc(&mut m);
    c.ok(&mut m, &add("golden", b"/disk"));
    c.ok(&mut m, &ExportAdd { read_only: true, ..add("view", b"/disk") });
    let mut old = nbd::Connection::open(&mut m, b"golden", Style::Structured);
    let by_path = nbd::Connection::open(&mut m, b"/./disk", Style::Simple);
    let before = list(&mut c, &mut m);
    let rows = |all: &[Export]| {
        all.iter().map(|e| (e.name.clone(), e.clients, e.size, e.moved)).collect::<Vec<_>>()
    };
    let row = |name: &str, clients, size, moved| (name.to_string(), clients, Some(size), moved);
    assert_eq!(
        rows(&before),
        [
            row("golden", 1, 10_000, false),
            row("view", 0, 10_000, false),
            row("/./disk", 1, 10_000, false)
        ]
    );
    assert!(before.iter().all(|e| e.ino == before[0].ino && e.ino.is_some()));

    // The file moves, and another one comes to its place.
    c.ok(&mut m, &rpc::Rename { from: b"/disk", to: b"/moved" });
    c.ok(&mut m, &rpc::Create { path: b"/disk", mode: None });
    c.ok(&mut m, &rpc::Truncate { path: Some(b"/disk"), handle: None, size: 500 });
    let after = list(&mut c, &mut m);
    assert_eq!(
        rows(&after),
        [
            row("golden", 0, 500, false),
            row("view", 0, 500, false),
            row("golden", 1, 10_000, true),
            row("/./disk", 1, 10_000, true),
        ]
    );
    assert_eq!((after[2].ino, after[2].by_path), (before[0].ino, false));
    assert_ne!(after[0].ino, before[0].ino);
    // Nobody uses the export as it is now: it can be replaced and removed.
    c.ok(&mut m, &ExportAdd { replace: true, read_only: true, ..add("golden", b"/disk") });
    let mut new = nbd::Connection::open(&mut m, b"golden", Style::Simple);
    let remove = ExportRemove { name: "golden", force: false };
    assert_eq!(c.call(&mut m, &remove, &[]).error().code, ErrorCode::BUSY);
    assert_eq!((new.size, new.read(&mut m, 0, 500)), (500, vec![0; 500]));
    new.vanish(&mut m);
    c.ok(&mut m, &remove);
    // Who holds the old file keeps it, and it cannot be taken away.
    assert_eq!(old.read(&mut m, 0, 10_000), pattern(1, 10_000));
    assert_eq!(c.call(&mut m, &rpc::Unlink { path: b"/moved" }, &[]).error().code, ErrorCode::BUSY);
    c.ok(&mut m, &rpc::Unlink { path: b"/disk" });
    for client in [old, by_path] {
        client.vanish(&mut m);
    }
    c.ok(&mut m, &rpc::Unlink { path: b"/moved" });
    assert_eq!(m.exports_in_use(), 0);
    m.check();
}

#[test]
fn a_region_is_one_however_its_number_is_written() {
    let mut m = machine_with(b"disk", b"x");
    m.add_region(1);
    let mut c = rpc(&mut m);
    let all = [&b"nvdimm:0"[..], b"nvdimm:00", b"nvdimm:+0"].map(|name| {
        let mut client = nbd::Connection::new(&mut m);
        assert_eq!(go(&mut client, &mut m, name), ReplyCode::ACK);
        client
    });
    let region = list(&mut c, &mut m).remove(0);
    assert_eq!((region.name.as_str(), region.clients, region.ino), ("nvdimm:0", 3, None));
    assert!(clients(&mut c, &mut m).iter().all(|client| client.name == "nvdimm:0"));
    assert_eq!(c.ok(&mut m, &ExportRemove { name: "nvdimm:0", force: true }).evicted, 3);
    for client in all {
        client.vanish(&mut m);
    }
    assert_eq!(m.exports_in_use(), 0);
}

#[test]
fn clients_are_listed_with_their_address_and_since_when() {
    let mut m = machine_with(b"disk", &pattern(1, 10_000));
    let mut c = rpc(&mut m);
    c.ok(&mut m, &ExportAdd { read_only: true, size: Some(4096), ..add("golden", b"/disk") });
    let start = m.machine_time();
    let open = |m: &mut SoftPlatform, name: &[u8], port| {
        let mut client = nbd::Connection::new(m);
        client.nbd = Nbd::new(Peer { cid: 2, port });
        client.received.clear();
        client.run(m, &umbra_server::testing::nbd::hello());
        client.received.clear();
        assert_eq!(go(&mut client, m, name), ReplyCode::ACK);
        client
    };
    let all =
        [open(&mut m, b"golden", 1030), open(&mut m, b"golden", 1031), open(&mut m, b"disk", 1032)];
    let found = clients(&mut c, &mut m);
    let ino = list(&mut c, &mut m)[0].ino;
    assert!(found.iter().all(|client| client.ino == ino && client.cid == Some(2)));
    assert!(found.windows(2).all(|two| start < two[0].since && two[0].since < two[1].since));
    let rows = found.iter().map(|f| (f.name.as_str(), f.port, f.by_path, f.read_only, f.size));
    assert_eq!(
        rows.collect::<Vec<_>>(),
        [
            ("golden", Some(1030), false, true, 4096),
            ("golden", Some(1031), false, true, 4096),
            ("disk", Some(1032), true, false, 10_000),
        ]
    );
    let [first, second, third] = all;
    first.vanish(&mut m);
    let left = clients(&mut c, &mut m);
    assert_eq!(left.iter().map(|f| f.port).collect::<Vec<_>>(), [Some(1031), Some(1032)]);
    second.vanish(&mut m);
    third.vanish(&mut m);
    assert_eq!(clients(&mut c, &mut m), []);
}

#[test]
fn force_removes_an_export_from_clients_that_hang() {
    let mut m = machine_with(b"file", &pattern(1, 10_000));
    let root = m.machine.volume.root();
    m.machine.volume.create(root, b"other", 0o600, NOW).unwrap();
    let mut c = rpc(&mut m);
    c.ok(&mut m, &add("disk", b"/file"));
    c.ok(&mut m, &add("second", b"/file"));
    let mut idle = nbd::Connection::open(&mut m, b"disk", Style::Extended);
    let mut stays = nbd::Connection::open(&mut m, b"second", Style::Structured);
    // One is in the midst of a payload, one takes none of what it asked for, one has not taken the
    // answer to its GO.
    let mut writing = nbd::Connection::open(&mut m, b"disk", Style::Structured);
    let (_, bytes) = writing.client.request(Command::WRITE, 0, 0, 8192, &[9; 8192]);
    writing.run(&mut m, &bytes[..5000]);
    let mut deaf = nbd::Connection::open(&mut m, b"disk", Style::Structured);
    for at in 0..100 {
        let (_, bytes) = deaf.client.request(Command::READ, 0, at, 8000, &[]);
        deaf.wire.to_server.push(&bytes);
        while deaf.poll(&mut m) == Progress::Again {}
    }
    let mut choosing = nbd::Connection::with_rings(&mut m, 4096, 40);
    let mut data = Vec::new();
    InfoRequest::encode(b"disk", &[], &mut data);
    choosing.wire.to_server.push(&umbra_server::testing::nbd::option(OptionCode::GO, &data));
    while choosing.poll(&mut m) == Progress::Again {}
    assert_eq!(list(&mut c, &mut m)[0].clients, 4);

    let remove = |force| ExportRemove { name: "disk", force };
    assert_eq!(c.call(&mut m, &remove(false), &[]).error().code, ErrorCode::BUSY);
    assert!(!m.shared.take_news());
    assert_eq!(c.ok(&mut m, &remove(true)).evicted, 4);
    assert!(m.shared.take_news(), "whoever owns the connections is told to poll them");
    assert_eq!(list(&mut c, &mut m).iter().map(|e| e.clients).collect::<Vec<_>>(), [1]);
    for client in [&mut idle, &mut writing, &mut deaf, &mut choosing] {
        while client.poll(&mut m) == Progress::Again {}
        assert!(client.wire.closing);
    }
    let before = m.machine.volume.pages(None).unwrap();
    assert_eq!(before.windows, 1, "that of the one who stays");
    for client in [&mut idle, &mut writing, &mut deaf, &mut choosing] {
        // What it still sends changes nothing.
        client.wire.to_server.push(&[0; 100]);
        assert_eq!(client.poll(&mut m), Progress::Wait);
    }
    assert_eq!(m.machine.volume.pages(None).unwrap(), before);
    // The first block of the write had come whole, and is there.
    let expected = [&[9; 4096][..], &pattern(1, 10_000)[4096..]].concat();
    assert_eq!(stays.read(&mut m, 4096, 5904), expected[4096..]);
    for client in [idle, writing, deaf, choosing] {
        client.vanish(&mut m);
    }
    // The name is gone: an evicted client does not come back by it.
    let mut back = nbd::Connection::new(&mut m);
    assert_eq!(go(&mut back, &mut m, b"disk"), ReplyCode::ERR_UNKNOWN);
    assert_eq!(c.call(&mut m, &remove(true), &[]).error().code, ErrorCode::NOT_FOUND);
    stays.vanish(&mut m);
    c.ok(&mut m, &rpc::Unlink { path: b"/file" });
    assert_eq!(m.exports_in_use(), 0);
    m.check();
}

#[test]
fn force_takes_files_from_clients_that_came_by_a_path() {
    let mut m = machine_with(b"disk", &pattern(1, 10_000));
    let mut c = rpc(&mut m);
    c.ok(&mut m, &add("golden", b"/disk"));
    let all = [&b"/disk"[..], b"disk", b"//./disk"]
        .map(|name| nbd::Connection::open(&mut m, name, Style::Simple));
    let mut stays = nbd::Connection::open(&mut m, b"golden", Style::Simple);
    assert_eq!(c.ok(&mut m, &ExportRemove { name: "disk", force: true }).evicted, 3);
    for mut client in all {
        assert_eq!(client.poll(&mut m), Progress::Wait);
        assert!(client.wire.is_closed());
    }
    assert_eq!(stays.read(&mut m, 0, 100), pattern(1, 100));
    // One whose file has another name by now is found by the name by which it came.
    let mut moved = nbd::Connection::open(&mut m, b"/disk", Style::Simple);
    c.ok(&mut m, &rpc::Rename { from: b"/disk", to: b"/new" });
    assert_eq!(c.ok(&mut m, &ExportRemove { name: "/disk", force: true }).evicted, 1);
    assert_eq!(moved.poll(&mut m), Progress::Wait);
    assert!(moved.wire.is_closed());
    stays.vanish(&mut m);
    assert_eq!(m.exports_in_use(), 0);
    m.check();
}

#[test]
fn the_longest_path_is_exported_opened_and_listed() {
    let mut m = machine_with(b"disk", b"x");
    let mut c = rpc(&mut m);
    // 4,096 bytes, none of them text: in lists they take most room.
    let mut path = Vec::new();
    while path.len() + 256 <= 4096 {
        if !path.is_empty() {
            c.ok(&mut m, &rpc::MakeDirectory { path: &path, mode: None, parents: false });
        }
        path.push(b'/');
        path.extend([0xff; 255]);
    }
    assert_eq!(path.len(), 4096);
    c.ok(&mut m, &rpc::Create { path: &path, mode: None });
    c.ok(&mut m, &rpc::Truncate { path: Some(&path), handle: None, size: 10_000 });
    c.ok(&mut m, &add("long", &path));
    let long = nbd::Connection::open(&mut m, b"long", Style::Simple);
    let too_long = [&path[..], b"/"].concat();
    assert_eq!(c.call(&mut m, &add("longer", &too_long), &[]).error().code, ErrorCode::TOO_LONG);
    let mut by_path = nbd::Connection::open(&mut m, &path, Style::Extended);
    assert_eq!(by_path.read(&mut m, 0, 10_000), [0; 10_000]);
    let all = list(&mut c, &mut m);
    assert_eq!(all.len(), 2);
    assert!(
        all.iter()
            .all(|e| e.path.as_deref() == Some(&path[..]) && e.clients == 1 && e.problem.is_none())
    );
    assert_eq!(clients(&mut c, &mut m).len(), 2);
    // What NBD says of it keeps to the limit of its strings.
    let mut client = nbd::Connection::new(&mut m);
    for (_, text) in client.option(&mut m, OptionCode::LIST, &[]) {
        assert!(text.len() <= 4 + 4 + 4096, "{}", text.len());
    }
    let mut data = Vec::new();
    InfoRequest::encode(&path[1..], &[], &mut data);
    assert_eq!(
        client.answer(&mut m, OptionCode::INFO, &data),
        ReplyCode::ACK,
        "without the slash in front"
    );
    c.ok(&mut m, &rpc::Rename { from: &path[..256], to: b"/away" });
    let all = list(&mut c, &mut m);
    assert_eq!(all.len(), 3, "the export, and two clients of what it led to");
    assert!(all[0].problem.is_some() && all[1].moved && all[2].moved);
    long.vanish(&mut m);
    by_path.vanish(&mut m);
    m.check();
}

/// Takes every block that can be had.
fn fill(m: &mut SoftPlatform) {
    while umbra_server::background(m) == Progress::Again {}
    let volume = &mut m.machine.volume;
    let root = volume.root();
    let file = match volume.lookup(root, b"filler") {
        Ok(file) => file,
        Err(_) => volume.create(root, b"filler", 0o600, NOW).unwrap(),
    };
    let mut at = volume.attributes(file).unwrap().size;
    while volume.write(file, at, &[1; 4096], NOW) == Ok(4096) {
        at += 4096;
    }
    let mut number = 0;
    while volume.create(root, format!("filler-{at}-{number}").as_bytes(), 0o600, NOW).is_ok() {
        number += 1;
    }
}

#[test]
fn exports_are_removed_from_a_full_volume() {
    // The list has a part of a block, or several blocks.
    for count in [1, 2, 300] {
        let mut m = SoftPlatform::new(16, 4);
        let root = m.machine.volume.root();
        m.machine.volume.create(root, b"disk", 0o600, NOW).unwrap();
        let mut c = rpc(&mut m);
        let name = |i: usize| format!("{i:0200}");
        for i in 0..count {
            c.ok(&mut m, &add(&name(i), b"/disk"));
        }
        let client = nbd::Connection::open(&mut m, name(0).as_bytes(), Style::Simple);
        for i in (0..count).rev() {
            if i + 5 > count || i == 0 {
                fill(&mut m);
                let full =
                    c.call(&mut m, &rpc::Create { path: b"/one-more", mode: None }, &[]).error();
                assert_eq!(full.code, ErrorCode::NO_SPACE);
            }
            let removed = c.ok(&mut m, &ExportRemove { name: &name(i), force: i == 0 });
            assert_eq!(removed.evicted, u32::from(i == 0));
        }
        assert_eq!(list(&mut c, &mut m), []);
        client.vanish(&mut m);
        m.check();
    }
}
