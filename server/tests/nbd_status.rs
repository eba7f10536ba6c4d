//! Block status, in all styles that have it.

mod common;

use common::nbd::{Connection, NOW, ino, machine_with, pattern};
use umbra_proto::nbd::{Command, Status, Style, allocation, command_flags as flag};
use umbra_server::Progress;
use umbra_server::testing::SoftPlatform;

const BLOCK: usize = 4096;
const GIB: u64 = 1 << 30;

fn clone(m: &mut SoftPlatform, from: &[u8], to: &[u8]) {
    let from = ino(m, from);
    let root = m.machine.volume.root();
    m.machine.volume.clone_file(from, root, to, NOW).unwrap();
}

#[test]
fn block_status_tells_holes_zeros_and_sharing() {
    for style in [Style::Structured, Style::Extended] {
        // Data, a hole, data that a clone shares but for one block.
        let mut m = machine_with(b"disk", &pattern(1, 8 * BLOCK));
        let file = ino(&mut m, b"disk");
        m.machine.volume.write(file, 600 * BLOCK as u64, &pattern(2, 10_000), NOW).unwrap();
        clone(&mut m, b"disk", b"b");
        m.machine.volume.write(file, BLOCK as u64, &[0; BLOCK], NOW).unwrap();
        let mut c = Connection::open(&mut m, b"disk", style);
        let size = c.size;
        assert_eq!(size, 600 * 4096 + 10_000);
        let run = |length: u64, flags| Status { length, flags };
        let hole = allocation::HOLE | allocation::ZERO;
        let reply = c.call(&mut m, Command::BLOCK_STATUS, 0, 0, size, &[]);
        assert_eq!(reply.status[&1], [run(8 * 4096, 0), run(592 * 4096, hole), run(10_000, 0)]);
        assert_eq!(
            reply.status[&2],
            [run(4096, 1), run(4096, 0), run(6 * 4096, 1), run(592 * 4096, 0), run(10_000, 1)]
        );
        let reply = c.call(&mut m, Command::BLOCK_STATUS, flag::REQ_ONE, 5000, 100_000, &[]);
        assert_eq!(reply.status[&1], [run(8 * 4096 - 5000, 0)]);
        assert_eq!(reply.status[&2], [run(8192 - 5000, 0)]);
        let reply = c.call(&mut m, Command::BLOCK_STATUS, 0, size - 1, 1, &[]);
        assert_eq!(reply.status[&1], [run(1, 0)]);
        for (at, len) in [(size, 1), (0, size + 1), (0, 0)] {
            assert_eq!(c.call(&mut m, Command::BLOCK_STATUS, 0, at, len, &[]).errno(), 22);
        }
        if style == Style::Extended {
            let filter = |len: u64, ids: &[u32]| {
                let ids = ids.iter().flat_map(|id| id.to_be_bytes());
                len.to_be_bytes().into_iter().chain(ids).collect::<Vec<u8>>()
            };
            let mut ask = |payload: Vec<u8>| {
                c.call(
                    &mut m,
                    Command::BLOCK_STATUS,
                    flag::PAYLOAD_LEN,
                    0,
                    payload.len() as u64,
                    &payload,
                )
            };
            let reply = ask(filter(4096, &[2]));
            assert_eq!(reply.status.into_iter().collect::<Vec<_>>(), [(2, vec![run(4096, 1)])]);
            assert_eq!(ask(filter(4096, &[2, 1])).status.len(), 2);
            for bad in [
                filter(4096, &[2, 2]),
                filter(4096, &[7]),
                filter(4096, &[]),
                filter(size + 1, &[1]),
                filter(0, &[1]),
                filter(1, &[1, 2, 3, 4, 5]),
                filter(1, &[1])[..11].to_vec(),
                vec![0; 3],
            ] {
                assert_eq!(ask(bad.clone()).errno(), 22, "{bad:?}");
            }
        }
        c.vanish(&mut m);
    }
}

#[test]
fn a_fragmented_file_is_told_in_several_answers() {
    let mut m = SoftPlatform::new(64, 4);
    let root = m.machine.volume.root();
    let file = m.machine.volume.create(root, b"disk", 0o644, NOW).unwrap();
    m.machine.volume.truncate(file, 1000 * BLOCK as u64, NOW).unwrap();
    for block in (0..1000).step_by(2) {
        m.machine.volume.write(file, block * BLOCK as u64, &[1; BLOCK], NOW).unwrap();
    }
    let mut c = Connection::open(&mut m, b"disk", Style::Structured);
    let (mut at, mut answers) = (0, 0);
    while at < c.size {
        let reply = c.call(&mut m, Command::BLOCK_STATUS, 0, at, c.size - at, &[]);
        for run in &reply.status[&1] {
            assert_eq!(run.flags == 0, at / 4096 % 2 == 0, "at {at}");
            assert_eq!(run.length, 4096);
            at += run.length;
        }
        answers += 1;
    }
    assert!(answers > 1 && answers < 20, "{answers}");
}

#[test]
fn lengths_beyond_32_bits_are_served_with_extended_headers() {
    let mut m = SoftPlatform::new(64, 4);
    let root = m.machine.volume.root();
    let file = m.machine.volume.create(root, b"big", 0o644, NOW).unwrap();
    m.machine.volume.truncate(file, 500 << 30, NOW).unwrap();
    m.machine.volume.write(file, 400 << 30, &[1; 10_000], NOW).unwrap();
    let mut c = Connection::open(&mut m, b"big", Style::Extended);
    assert_eq!(c.size, 500 << 30);
    let reply = c.call(&mut m, Command::BLOCK_STATUS, 0, 0, 500 << 30, &[]);
    let hole = allocation::HOLE | allocation::ZERO;
    let runs = &reply.status[&1];
    assert!(runs[0].flags == hole && runs[0].length > 1 << 32, "{runs:?}");
    for command in [Command::WRITE_ZEROES, Command::TRIM, Command::CACHE] {
        assert_eq!(
            c.call(&mut m, command, 0, 4096, (500 << 30) - 8192, &[]).error,
            None,
            "{command}"
        );
    }
    assert_eq!(c.read(&mut m, 400 << 30, 10_000), [0; 10_000]);
    c.vanish(&mut m);
    m.check();
}

#[test]
fn a_disk_of_holes_is_one_answer_and_takes_as_many_looks_as_it_has_nodes() {
    let hole = allocation::HOLE | allocation::ZERO;
    let size = 400 * GIB;
    // Where data is; the last ones leave nodes without entries behind.
    let cases: [(&[u64], bool); 5] = [
        (&[], false),
        (&[size - 4096], false),
        (&[0, size - 4096], false),
        (&[5 * GIB, 5 * GIB + (2 << 20), 77 * GIB + (1023 << 20), 300 * GIB], false),
        (&[0, 5 * GIB, 77 * GIB, size - 4096], true),
    ];
    for (data, trimmed) in cases {
        let mut m = SoftPlatform::new(64, 4);
        let root = m.machine.volume.root();
        let file = m.machine.volume.create(root, b"big", 0o644, NOW).unwrap();
        m.machine.volume.truncate(file, size, NOW).unwrap();
        for &at in data {
            m.machine.volume.write(file, at, &[1; BLOCK], NOW).unwrap();
            if trimmed {
                m.machine.volume.punch(file, at, BLOCK as u64, NOW).unwrap();
            }
        }
        let mut expected: Vec<Status> = Vec::new();
        let mut at = 0;
        for &next in data.iter().filter(|_| !trimmed).chain([&size]) {
            if next > at {
                expected.push(Status { length: next - at, flags: hole });
            }
            if next < size {
                expected.push(Status { length: BLOCK as u64, flags: 0 });
            }
            at = next + BLOCK as u64;
        }
        let mut c = Connection::open(&mut m, b"big", Style::Extended);
        let reply = c.call(&mut m, Command::BLOCK_STATUS, 0, 0, size, &[]);
        assert_eq!(reply.status[&1], expected, "{data:?}");
        assert_eq!(reply.status[&2], [Status { length: size, flags: 0 }], "{data:?}");
        c.vanish(&mut m);
        // Lengths of structured replies have 32 bits: no run is longer than what was asked for.
        let mut c = Connection::open(&mut m, b"big", Style::Structured);
        let most = u64::from(u32::MAX);
        let reply = c.call(&mut m, Command::BLOCK_STATUS, 0, 100 * GIB, most, &[]);
        assert_eq!(reply.status[&1], [Status { length: most, flags: hole }], "{data:?}");
        c.vanish(&mut m);
    }
}

#[test]
fn others_have_their_turn_while_a_status_looks_through_many_nodes() {
    let mut m = SoftPlatform::new(64, 4);
    let root = m.machine.volume.root();
    let file = m.machine.volume.create(root, b"big", 0o644, NOW).unwrap();
    m.machine.volume.truncate(file, 2 * GIB, NOW).unwrap();
    // A leaf without an entry every 2 MiB.
    for leaf in 0..1024 {
        m.machine.volume.write(file, leaf << 21, &[1; BLOCK], NOW).unwrap();
        m.machine.volume.punch(file, leaf << 21, BLOCK as u64, NOW).unwrap();
    }
    let mut c = Connection::open(&mut m, b"big", Style::Extended);
    let (_, bytes) = c.client.request(Command::BLOCK_STATUS, 0, 0, 2 * GIB, &[]);
    c.wire.to_server.push(&bytes);
    let mut turns = 1;
    while c.poll(&mut m) == Progress::Again {
        turns += 1;
    }
    assert!(turns >= 16, "{turns}: at most 64 leaves are looked at in one");
    let reply = c.send(&mut m, &[]).remove(0);
    assert!(reply.status[&1][0].length >= GIB, "{:?}", reply.status);
    c.vanish(&mut m);
}

/// Zeros with NO_HOLE take their space at once: what is written there later, whole blocks and parts
/// of them, works on a full volume. The status says what reads as zeros, before and after.
#[test]
fn zeroes_that_take_space_can_be_written_on_a_full_volume() {
    let zero = allocation::ZERO;
    let (from, len) = (4096 + 1000, (3 << 20) + 500);
    for style in [Style::Structured, Style::Extended] {
        let mut m = SoftPlatform::new(16, 4);
        let root = m.machine.volume.root();
        let file = m.machine.volume.create(root, b"disk", 0o644, NOW).unwrap();
        m.machine.volume.write(file, 0, &[7; 2 * BLOCK], NOW).unwrap();
        m.machine.volume.truncate(file, 8 << 20, NOW).unwrap();
        let mut c = Connection::open(&mut m, b"disk", style);
        let provide = flag::NO_HOLE | flag::FAST_ZERO;
        let reply = c.call(&mut m, Command::WRITE_ZEROES, provide, from, len, &[]);
        assert_eq!(reply.error, None, "{style:?}");
        let filler = m.machine.volume.create(root, b"filler", 0o644, NOW).unwrap();
        let mut at = 0;
        while let Ok(n) = m.machine.volume.write(filler, at, &[1; BLOCK], NOW) {
            at += n as u64;
        }
        assert_eq!(c.write(&mut m, 0, 7 << 20, &[1; BLOCK]).errno(), 28, "it is full");
        // The block that the range begins within has content; the last one is provided whole.
        let end = (from + len).next_multiple_of(BLOCK as u64);
        let status = |c: &mut Connection, m: &mut SoftPlatform| {
            c.call(m, Command::BLOCK_STATUS, 0, 0, 8 << 20, &[]).status
        };
        let run = |length: u64, flags| Status { length, flags };
        let hole = run((8 << 20) - end, allocation::HOLE | zero);
        let before = status(&mut c, &mut m);
        assert_eq!(before[&1], [run(8192, 0), run(end - 8192, zero), hole], "{style:?}");
        let free = m.machine.volume.space().free;
        // A whole block, one that is not, and one across two blocks.
        let mut expected = vec![0; 8 << 20];
        expected[..from as usize].fill(7);
        for (at, len) in [(8192, 4096), (20_480 + 100, 200), (32_768 - 50, 100), (2 << 20, 65_536)]
        {
            assert_eq!(c.write(&mut m, 0, at as u64, &vec![9; len]).error, None, "{style:?} {at}");
            expected[at..at + len].fill(9);
        }
        assert_eq!(m.machine.volume.space().free, free);
        assert!(c.read(&mut m, 0, 8 << 20) == expected, "{style:?}");
        let after = status(&mut c, &mut m);
        let expected = [
            run(3 * 4096, 0),
            run(2 * 4096, zero),
            run(4096, 0),
            run(4096, zero),
            run(2 * 4096, 0),
            run((2 << 20) - 9 * 4096, zero),
            run(65_536, 0),
            run(end - (2 << 20) - 65_536, zero),
            hole,
        ];
        assert_eq!(after[&1], expected, "{style:?}");
        c.vanish(&mut m);
        m.check();
    }
}
