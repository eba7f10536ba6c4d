//! Requests of NBD in all three styles of replies, by the sections of the specification.

mod common;

use common::nbd::{Connection, NOW, STYLES, content, ino, machine_with, pattern};
use umbra_proto::nbd::{Command, Errno, Status, Style, command_flags as flag};
use umbra_server::Stream;
use umbra_server::testing::SoftPlatform;

const BLOCK: usize = 4096;

fn clone(m: &mut SoftPlatform, from: &[u8], to: &[u8]) {
    let from = ino(m, from);
    let root = m.machine.volume.root();
    m.machine.volume.clone_file(from, root, to, NOW).unwrap();
}

#[test]
fn what_is_written_is_read_back_at_any_offset() {
    for style in STYLES {
        let mut expected = pattern(1, 300_007);
        let mut m = machine_with(b"disk", &expected);
        clone(&mut m, b"disk", b"golden");
        let golden = expected.clone();
        let mut c = Connection::open(&mut m, b"disk", style);
        assert_eq!(c.size, 300_007);
        for (i, (at, len)) in [
            (0, 1),
            (4095, 2),
            (4096, 4096),
            (8000, 9000),
            (300_000, 7),
            (65_536, 131_072),
            (100, 200_000),
            (299_008, 999),
            (12_288, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let bytes = pattern(100 + i as u64, len);
            let flags = if i % 2 == 0 { flag::FUA } else { 0 };
            assert_eq!(
                c.write(&mut m, flags, at as u64, &bytes).error,
                None,
                "{style:?} {at} {len}"
            );
            expected[at..at + len].copy_from_slice(&bytes);
            assert!(c.read(&mut m, at as u64, len) == bytes);
            assert!(c.read(&mut m, 0, expected.len()) == expected, "{style:?} after {at} {len}");
        }
        assert_eq!(c.call(&mut m, Command::FLUSH, 0, 0, 0, &[]).error, None);
        assert!(content(&mut m, b"disk") == expected);
        assert!(content(&mut m, b"golden") == golden);
        c.vanish(&mut m);
        m.check();
    }
}

#[test]
fn writes_of_whole_blocks_read_nothing_of_the_old_and_overwrite_in_place() {
    let mut m = machine_with(b"disk", &pattern(1, 64 * BLOCK));
    let mut c = Connection::open(&mut m, b"disk", Style::Structured);
    let free = m.machine.volume.space().free;
    let faults = m.machine.volume.pages(None).unwrap().faults;
    c.write(&mut m, 0, 0, &pattern(2, 16 * BLOCK));
    assert_eq!(m.machine.volume.space().free, free, "its own blocks are overwritten");
    clone(&mut m, b"disk", b"b");
    // An unreadable line in a shared block that is replaced as a whole does no harm.
    let ino = ino(&mut m, b"disk");
    let block = m.machine.volume.extent(ino, umbra_fs::FileBlock(3)).unwrap().unwrap().at.unwrap();
    m.machine.volume.pmem_mut().poisoned.push(block.0 * BLOCK as u64);
    assert_eq!(c.write(&mut m, 0, 3 * BLOCK as u64, &pattern(3, BLOCK)).error, None);
    assert_eq!(c.read(&mut m, 3 * BLOCK as u64, BLOCK), pattern(3, BLOCK));
    assert_eq!(
        m.machine.volume.pages(None).unwrap().faults.cow,
        faults.cow,
        "no fault copied anything"
    );
    // A part of one does go through the fault handler.
    assert_eq!(c.write(&mut m, 0, 5 * BLOCK as u64 + 7, &[9; 20]).error, None);
    assert_eq!(m.machine.volume.pages(None).unwrap().faults.cow, faults.cow + 1);
    assert_eq!(m.machine.volume.pages(None).unwrap().writable, 1, "the page is dirty");
    assert_eq!(c.call(&mut m, Command::FLUSH, 0, 0, 0, &[]).error, None);
    assert_eq!(m.machine.volume.pages(None).unwrap().writable, 0, "and flushed");
    m.machine.volume.pmem_mut().poisoned.clear();
    c.vanish(&mut m);
    m.check();
}

#[test]
fn errors_are_those_of_the_specification() {
    for style in STYLES {
        let mut m = machine_with(b"disk", &pattern(1, 100_000));
        let mut c = Connection::open(&mut m, b"disk", style);
        let size = c.size;
        let p = if style == Style::Extended { flag::PAYLOAD_LEN } else { 0 };
        for (command, flags, offset, length, errno) in [
            (Command::READ, 0, size, 1, 22),
            (Command::READ, 0, size - 1, 2, 22),
            (Command::READ, 0, u64::MAX, 2, 22),
            (Command::TRIM, 0, size, 1, 22),
            (Command::CACHE, 0, size - 5, 6, 22),
            (Command::WRITE_ZEROES, 0, size, 1, 28),
            (Command::READ, flag::NO_HOLE, 0, 1, 22),
            (Command::READ, 1 << 9, 0, 1, 22),
            (Command::TRIM, flag::NO_HOLE, 0, 1, 22),
            (Command::FLUSH, flag::DF, 0, 0, 22),
            (Command::FLUSH, 0, 0, 1, 22),
            (Command::FLUSH, 0, 4096, 0, 22),
            (Command::CACHE, flag::FAST_ZERO, 0, 1, 22),
            (Command::WRITE_ZEROES, flag::REQ_ONE, 0, 1, 22),
            (Command::RESIZE, 0, 0, 1, 22),
            (Command(9), 0, 0, 0, 22),
            (Command(0xffff), 0, 0, 0, 22),
            (Command::FLUSH, flag::FUA, 0, 0, 0),
            (Command::READ, flag::FUA, 0, 1, 0),
            (Command::READ, 0, 5, 0, 0),
            (Command::TRIM, 0, 5, 0, 0),
            (Command::WRITE_ZEROES, 0, size, 0, 0),
        ] {
            let reply = c.call(&mut m, command, flags, offset, length, &[]);
            assert_eq!(reply.errno(), errno, "{style:?} {command} {flags:#x} {offset} {length}");
            if style != Style::Simple
                && let Some((_, text, _)) = &reply.error
            {
                assert!(!text.is_empty(), "an error without a text");
            }
        }
        let (beyond, reply) =
            (size - 10, |c: &mut Connection, m: &mut SoftPlatform, flags, at, len: usize| {
                c.call(m, Command::WRITE, flags, at, len as u64, &vec![1; len]).errno()
            });
        assert_eq!(reply(&mut c, &mut m, p, beyond, 11), 28);
        assert_eq!(reply(&mut c, &mut m, p | flag::DF, 0, 11), 22);
        assert_eq!(reply(&mut c, &mut m, p, u64::MAX - 3, 11), 28);
        assert_eq!(c.call(&mut m, Command::WRITE, p, 0, 0, &[]).errno(), 0);
        // Nothing was changed by what failed.
        assert!(content(&mut m, b"disk") == pattern(1, 100_000));
        if style == Style::Simple {
            assert_eq!(c.call(&mut m, Command::READ, flag::DF, 0, 1, &[]).errno(), 22);
            assert_eq!(c.call(&mut m, Command::BLOCK_STATUS, 0, 0, 1, &[]).errno(), 22);
        }
        c.vanish(&mut m);
    }
}

#[test]
fn a_small_read_behind_a_large_one_answers_first() {
    for style in STYLES {
        let mut m = SoftPlatform::new(64, 32);
        let root = m.machine.volume.root();
        let big = m.machine.volume.create(root, b"big", 0o644, NOW).unwrap();
        m.machine.volume.truncate(big, 40 << 20, NOW).unwrap();
        m.machine.volume.write(big, 33 << 20, &pattern(9, 4096), NOW).unwrap();
        let mut c = Connection::open(&mut m, b"big", style);
        let (large, mut bytes) = c.client.request(Command::READ, 0, 0, 32 << 20, &[]);
        let (small, second) = c.client.request(Command::READ, 0, 33 << 20, 4096, &[]);
        bytes.extend(second);
        let replies = c.send(&mut m, &bytes);
        let order: Vec<u64> = replies.iter().map(|r| r.cookie).collect();
        assert_eq!(order, [small, large], "{style:?}");
        assert_eq!(replies[0].data, pattern(9, 4096));
        assert!(replies[1].error.is_none() && replies[1].data.iter().all(|b| *b == 0));
        if style != Style::Simple {
            // The same when the small one comes after the large one has begun.
            let (large, bytes) = c.client.request(Command::READ, 0, 0, 32 << 20, &[]);
            c.wire.to_server.push(&bytes);
            let _ = c.poll(&mut m);
            assert!(!c.wire.to_client.is_empty());
            let (small, bytes) = c.client.request(Command::READ, 0, 33 << 20, 4096, &[]);
            let order: Vec<u64> = c.send(&mut m, &bytes).iter().map(|r| r.cookie).collect();
            assert_eq!(order, [small, large], "{style:?}");
        }
    }
}

#[test]
fn many_requests_at_once_are_all_answered_through_small_rings() {
    for (window, ring) in [(4096, 512), (5000, 700), (8192, 65_536), (65_536, 100)] {
        let mut expected = pattern(4, 200_000);
        let mut m = machine_with(b"disk", &expected);
        let mut c = Connection::with_rings(&mut m, window, ring);
        c.go(&mut m, b"disk", Style::Structured);
        let mut bytes = Vec::new();
        let mut reads = std::collections::BTreeMap::new();
        for i in 0..300u64 {
            let at = (i * 7919) % 150_000;
            if i % 3 == 0 {
                let data = pattern(i, 3000);
                bytes.extend(c.client.request(Command::WRITE, 0, 150_000 + i * 100, 3000, &data).1);
                let at = 150_000 + i as usize * 100;
                expected[at..at + 3000].copy_from_slice(&data);
            } else {
                let (cookie, request) = c.client.request(Command::READ, 0, at, 1 + i * 37, &[]);
                reads.insert(cookie, (at as usize, 1 + i as usize * 37));
                bytes.extend(request);
            }
        }
        let replies = c.send(&mut m, &bytes);
        assert_eq!((replies.len(), c.client.open()), (300, 0), "window {window}, ring {ring}");
        for reply in replies {
            assert_eq!(reply.error, None);
            if let Some((at, len)) = reads.get(&reply.cookie) {
                let stable = (*len).min(150_000 - at);
                assert!(reply.data[..stable] == expected[*at..at + stable]);
            }
        }
        assert!(content(&mut m, b"disk") == expected);
        c.vanish(&mut m);
        m.check();
    }
}

#[test]
fn unfragmented_reads_come_in_one_chunk() {
    for style in [Style::Structured, Style::Extended] {
        let mut m = machine_with(b"disk", &pattern(1, 1 << 20));
        let ino = ino(&mut m, b"disk");
        m.machine.volume.truncate(ino, 40 << 20, NOW).unwrap();
        let mut c = Connection::open(&mut m, b"disk", style);
        for len in [1, 4096, 65_536, 70_001, 1 << 20, 32 << 20] {
            let reply = c.call(&mut m, Command::READ, flag::DF, 3, len, &[]);
            assert_eq!((reply.error, reply.chunks), (None, 1));
            let seen = (len as usize).min((1 << 20) - 3);
            assert!(reply.data[..seen] == pattern(1, 1 << 20)[3..3 + seen]);
        }
        assert_eq!(c.call(&mut m, Command::READ, flag::DF, 0, (32 << 20) + 1, &[]).errno(), 75);
        let reply = c.call(&mut m, Command::READ, 0, 0, (32 << 20) + 1, &[]);
        assert!(
            reply.error.is_none() && reply.chunks > 1,
            "without the flag it is cut into chunks"
        );
    }
}

#[test]
fn an_unreadable_block_fails_the_read_where_it_is() {
    for style in STYLES {
        let mut m = machine_with(b"disk", &pattern(1, 40 * BLOCK));
        let file = ino(&mut m, b"disk");
        let block =
            m.machine.volume.extent(file, umbra_fs::FileBlock(20)).unwrap().unwrap().at.unwrap();
        m.machine.volume.pmem_mut().poisoned.push(block.0 * BLOCK as u64);
        let mut c = Connection::open(&mut m, b"disk", style);
        assert_eq!(c.read(&mut m, 0, 20 * BLOCK), pattern(1, 40 * BLOCK)[..20 * BLOCK]);
        let reply = c.call(&mut m, Command::READ, 0, 18 * BLOCK as u64, 4 * BLOCK as u64, &[]);
        assert_eq!(reply.errno(), Errno::EIO.0);
        if style != Style::Simple {
            let (_, text, at) = reply.error.unwrap();
            assert_eq!(at, Some(20 * BLOCK as u64));
            assert!(text.contains("memory error"), "{text}");
            assert_eq!(reply.data[..2 * BLOCK], pattern(1, 40 * BLOCK)[18 * BLOCK..20 * BLOCK]);
            let reply =
                c.call(&mut m, Command::READ, flag::DF, 18 * BLOCK as u64, 4 * BLOCK as u64, &[]);
            assert_eq!(reply.errno(), Errno::EIO.0);
        }
        assert_eq!(
            c.read(&mut m, 21 * BLOCK as u64, BLOCK),
            pattern(1, 40 * BLOCK)[21 * BLOCK..22 * BLOCK]
        );
        // A whole block that is written anew can be read again.
        clone(&mut m, b"disk", b"b");
        assert_eq!(c.write(&mut m, 0, 20 * BLOCK as u64, &[5; BLOCK]).error, None);
        assert_eq!(c.read(&mut m, 20 * BLOCK as u64, BLOCK), [5; BLOCK]);
    }
}

#[test]
fn zeroes_and_trims_make_holes_or_provide_space() {
    for style in STYLES {
        let mut expected = pattern(1, (5 << 20) + 77);
        let mut m = machine_with(b"disk", &expected);
        clone(&mut m, b"disk", b"golden");
        let mut c = Connection::open(&mut m, b"disk", style);
        for (command, flags, at, len) in [
            (Command::WRITE_ZEROES, 0, 4096, 8192),
            (Command::WRITE_ZEROES, flag::FUA, 100, 30_000),
            (Command::WRITE_ZEROES, flag::FAST_ZERO, 1 << 20, 3 << 20),
            (Command::WRITE_ZEROES, flag::NO_HOLE, 50_001, 700_000),
            (Command::WRITE_ZEROES, flag::NO_HOLE | flag::FAST_ZERO, 60_000, 9000),
            (Command::WRITE_ZEROES, 0, (5 << 20) - 10, 87),
        ] {
            assert_eq!(
                c.call(&mut m, command, flags, at, len, &[]).error,
                None,
                "{style:?} {at} {len}"
            );
            expected[at as usize..(at + len) as usize].fill(0);
            assert!(c.read(&mut m, 0, expected.len()) == expected, "{style:?} {at} {len}");
        }
        let file = ino(&mut m, b"disk");
        let run = |m: &mut SoftPlatform, block| {
            m.machine.volume.extent(file, umbra_fs::FileBlock(block)).unwrap().unwrap()
        };
        assert!(run(&mut m, 300).at.is_none(), "a hole");
        let own = run(&mut m, 100);
        assert!(own.at.is_some() && own.unwritten && !own.shared, "space of its own");
        // A trim keeps what shares a block with other bytes.
        let before = expected.clone();
        assert_eq!(c.call(&mut m, Command::TRIM, 0, 10, 4086, &[]).error, None);
        assert!(c.read(&mut m, 0, expected.len()) == before);
        assert_eq!(c.call(&mut m, Command::TRIM, flag::FUA, 200_000, 4 << 20, &[]).error, None);
        assert_eq!(c.read(&mut m, 0, 200_000), before[..200_000]);
        assert!(run(&mut m, 60).at.is_none());
        assert!(content(&mut m, b"golden") == pattern(1, (5 << 20) + 77));
        c.vanish(&mut m);
        m.check();
    }
}

#[test]
fn a_read_only_export_changes_nothing() {
    let mut m = machine_with(b"disk", &pattern(1, 9000));
    m.add_export("ro", b"/disk", true, Some(8192));
    for style in STYLES {
        let mut c = Connection::open(&mut m, b"ro", style);
        assert_eq!(c.size, 8192);
        assert_ne!(c.flags & umbra_proto::nbd::transmission_flags::READ_ONLY, 0);
        assert_eq!(c.write(&mut m, 0, 0, &[0; 512]).errno(), 1);
        assert_eq!(c.call(&mut m, Command::WRITE_ZEROES, 0, 0, 512, &[]).errno(), 1);
        assert_eq!(c.call(&mut m, Command::TRIM, 0, 0, 4096, &[]).errno(), 1);
        assert_eq!(c.call(&mut m, Command::FLUSH, 0, 0, 0, &[]).errno(), 0);
        assert_eq!(c.read(&mut m, 0, 8192), pattern(1, 9000)[..8192]);
        assert_eq!(c.call(&mut m, Command::READ, 0, 8192, 1, &[]).errno(), 22);
        c.vanish(&mut m);
    }
}

#[test]
fn all_connections_see_one_disk_and_a_flush_covers_all() {
    let mut m = machine_with(b"disk", &pattern(1, 64 * BLOCK));
    let mut a = Connection::open(&mut m, b"disk", Style::Structured);
    let mut b = Connection::open(&mut m, b"disk", Style::Simple);
    assert_eq!(m.machine.volume.pages(None).unwrap().windows, 1, "they share a window");
    a.write(&mut m, 0, 10, b"part of a block");
    a.write(&mut m, 0, 4096, &[3; 4096]);
    assert_eq!(b.read(&mut m, 10, 15), b"part of a block");
    assert_eq!(b.call(&mut m, Command::FLUSH, 0, 0, 0, &[]).error, None);
    assert_eq!(m.machine.volume.pages(None).unwrap().writable, 0);
    a.vanish(&mut m);
    assert_eq!(b.read(&mut m, 4096, 4096), [3; 4096]);
    b.vanish(&mut m);
    assert_eq!(m.machine.volume.pages(None).unwrap().windows, 0);
}

#[test]
fn a_full_volume_fails_writes_and_keeps_the_rest() {
    for style in STYLES {
        let mut m = SoftPlatform::new(16, 4);
        let root = m.machine.volume.root();
        let file = m.machine.volume.create(root, b"disk", 0o644, NOW).unwrap();
        m.machine.volume.truncate(file, 64 << 20, NOW).unwrap();
        let mut c = Connection::open(&mut m, b"disk", style);
        let mut at = 0;
        let failed = loop {
            let reply = c.write(&mut m, 0, at, &pattern(at, 1 << 20));
            if reply.error.is_some() {
                break reply;
            }
            at += 1 << 20;
        };
        assert_eq!(failed.errno(), 28);
        assert!(at > 8 << 20);
        assert_eq!(
            c.call(&mut m, Command::WRITE_ZEROES, flag::NO_HOLE, at + (2 << 20), 1 << 20, &[])
                .errno(),
            28
        );
        assert!(c.read(&mut m, at - (1 << 20), 1 << 20) == pattern(at - (1 << 20), 1 << 20));
        assert_eq!(c.call(&mut m, Command::TRIM, 0, 0, 64 << 20, &[]).error, None);
        while umbra_server::background(&mut m) == umbra_server::Progress::Again {}
        assert_eq!(c.write(&mut m, 0, 0, &pattern(5, 1 << 20)).error, None, "there is room again");
        c.vanish(&mut m);
        m.check();
    }
}

#[test]
fn a_region_without_a_volume_is_a_disk_of_its_own() {
    for style in STYLES {
        let mut m = machine_with(b"disk", b"x");
        assert_eq!(m.add_region(2), 0);
        let mut c = Connection::open(&mut m, b"nvdimm:0", style);
        assert_eq!(c.size, 2 << 20);
        let bytes = pattern(8, 300_000);
        assert_eq!(c.write(&mut m, flag::FUA, 777, &bytes).error, None);
        assert!(c.read(&mut m, 777, 300_000) == bytes);
        assert_eq!(c.call(&mut m, Command::WRITE_ZEROES, 0, 0, 1 << 20, &[]).error, None);
        assert_eq!(c.read(&mut m, 700, 1000), [0; 1000]);
        for flags in [flag::FAST_ZERO, flag::FAST_ZERO | flag::NO_HOLE] {
            assert_eq!(c.call(&mut m, Command::WRITE_ZEROES, flags, 0, 4096, &[]).errno(), 95);
        }
        for command in [Command::TRIM, Command::CACHE] {
            assert_eq!(c.call(&mut m, command, 0, 0, 1 << 20, &[]).error, None);
        }
        assert_eq!(c.call(&mut m, Command::FLUSH, 0, 0, 0, &[]).error, None);
        if style != Style::Simple {
            let reply = c.call(&mut m, Command::BLOCK_STATUS, 0, 0, 2 << 20, &[]);
            assert_eq!(reply.status[&1], [Status { length: 2 << 20, flags: 0 }]);
        }
        m.devices[0].as_mut().unwrap().poisoned.push(64);
        assert_eq!(c.call(&mut m, Command::READ, 0, 0, 512, &[]).errno(), 5);
        c.vanish(&mut m);
        assert_eq!(m.exports_in_use(), 0);
        m.check();
    }
}

#[test]
fn disconnecting_answers_what_is_open_and_breaking_off_does_not_hang() {
    let mut m = machine_with(b"disk", &pattern(1, 2 << 20));
    let mut c = Connection::open(&mut m, b"disk", Style::Structured);
    let (_, mut bytes) = c.client.request(Command::READ, 0, 0, 1 << 20, &[]);
    bytes.extend(c.client.request(Command::WRITE_ZEROES, 0, 0, 1 << 20, &[]).1);
    bytes.extend(c.client.request(Command::DISC, 0, 0, 0, &[]).1);
    assert_eq!(c.send(&mut m, &bytes).len(), 2);
    assert!(c.wire.is_closed());
    // In the middle of a header, and of a payload.
    for cut in [10, 28, 1000] {
        let mut c = Connection::open(&mut m, b"disk", Style::Structured);
        let (_, read) = c.client.request(Command::READ, 0, 4096, 4096, &[]);
        let (_, write) = c.client.request(Command::WRITE, 0, 0, 4096, &[1; 4096]);
        c.wire.finished = false;
        c.run(&mut m, &[&read[..], &write[..cut]].concat());
        c.wire.finished = true;
        assert_eq!(c.send(&mut m, &[]).len(), 1, "the read before it is answered");
        assert!(c.wire.is_closed());
    }
    // A bad magic number.
    let mut c = Connection::open(&mut m, b"disk", Style::Simple);
    c.run(&mut m, &[0; 28]);
    assert!(c.wire.is_closed());
    assert_eq!(m.exports_in_use(), 0);
    m.check();
}
