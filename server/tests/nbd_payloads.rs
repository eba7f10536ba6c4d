//! Which requests carry a payload, and that each payload is read to its end, whatever becomes of
//! its request.

mod common;

use common::nbd::{Connection, NOW, STYLES, content, machine_with, pattern};
use umbra_proto::nbd::{Command, Request, Style, command_flags as flag};
use umbra_server::Stream;
use umbra_server::testing::SoftPlatform;

const BLOCK: usize = 4096;

#[test]
fn payloads_of_requests_that_fail_are_consumed() {
    let mut m = machine_with(b"disk", &[0; 8192]);
    let mut c = Connection::open(&mut m, b"disk", Style::Extended);
    let junk = vec![0x25; 100_000];
    for command in
        [Command::READ, Command::TRIM, Command::FLUSH, Command(77), Command::BLOCK_STATUS]
    {
        let reply = c.call(&mut m, command, flag::PAYLOAD_LEN, 0, junk.len() as u64, &junk);
        assert_eq!(reply.errno(), 22, "{command}");
    }
    assert_eq!(c.read(&mut m, 0, 8192), [0; 8192]);
    // More than 32 MiB of payload is not waited for, unless the client disconnects.
    for (command, flags) in [
        (Command::WRITE, flag::PAYLOAD_LEN),
        (Command::WRITE, 0),
        (Command::READ, flag::PAYLOAD_LEN),
        (Command(77), flag::PAYLOAD_LEN),
    ] {
        let mut c = Connection::open(&mut m, b"disk", Style::Extended);
        let (_, bytes) = c.client.request(command, flags, 0, (32 << 20) + 1, &[]);
        c.run(&mut m, &bytes);
        assert!(c.wire.is_closed(), "{command} {flags}");
    }
    let mut c = Connection::open(&mut m, b"disk", Style::Extended);
    let (_, mut bytes) = c.client.request(Command::READ, 0, 0, 4096, &[]);
    bytes.extend(c.client.request(Command::DISC, flag::PAYLOAD_LEN, 0, u64::MAX, &[]).1);
    assert_eq!(c.send(&mut m, &bytes).len(), 1, "the read before it is answered");

    let mut m = SoftPlatform::new(64, 4);
    let root = m.machine.volume.root();
    let big = m.machine.volume.create(root, b"big", 0o644, NOW).unwrap();
    m.machine.volume.truncate(big, 1 << 30, NOW).unwrap();
    let mut c = Connection::open(&mut m, b"big", Style::Simple);
    let payload = vec![7; (32 << 20) + 1];
    assert_eq!(c.write(&mut m, 0, 0, &payload).errno(), 22);
    assert_eq!(c.call(&mut m, Command::READ, 0, 0, (32 << 20) + 1, &[]).errno(), 22);
    assert_eq!(c.read(&mut m, 0, 16), [0; 16]);
}

/// A payload that looks like requests: who takes it for any is found out by the answers.
fn misleading(style: Style) -> Vec<u8> {
    let zeroes =
        Request { flags: 0, command: Command::WRITE_ZEROES, cookie: 666, offset: 0, length: 4096 };
    let one = match style {
        Style::Extended => zeroes.encode_extended().to_vec(),
        _ => zeroes.encode().to_vec(),
    };
    one.iter().copied().cycle().take(4096).collect()
}

#[test]
fn a_write_carries_a_payload_in_every_style_whatever_its_flag_says() {
    for style in STYLES {
        for (flags, succeeds) in [(0, true), (flag::PAYLOAD_LEN, style == Style::Extended)] {
            let mut m = machine_with(b"disk", &pattern(1, 4 * BLOCK));
            m.add_export("ro", b"/disk", true, None);
            let payload = misleading(style);
            let mut write = |name: &[u8], flags: u16, at: u64, errno: u32| {
                let mut c = Connection::open(&mut m, name, style);
                // The read behind it comes in the same piece, and then each byte by itself.
                for piece in [usize::MAX, 1] {
                    let (first, mut bytes) =
                        c.client.request(Command::WRITE, flags, at, 4096, &payload);
                    let (second, read) =
                        c.client.request(Command::READ, 0, 3 * BLOCK as u64, 4096, &[]);
                    bytes.extend(read);
                    let pieces = bytes.chunks(piece.min(bytes.len()));
                    let replies =
                        pieces.flat_map(|piece| c.send(&mut m, piece)).collect::<Vec<_>>();
                    let said = replies.iter().map(|r| (r.cookie, r.errno())).collect::<Vec<_>>();
                    assert_eq!(said, [(first, errno), (second, 0)], "{style:?} {flags:#x} at {at}");
                    assert_eq!(replies[1].data, pattern(1, 4 * BLOCK)[3 * BLOCK..]);
                }
                c.vanish(&mut m);
            };
            write(b"disk", flags, 4096, if succeeds { 0 } else { 22 });
            write(b"disk", flags | flag::FUA, 4096, if succeeds { 0 } else { 22 });
            // What is refused is read all the same.
            write(b"ro", flags, 4096, if succeeds { 1 } else { 22 });
            write(b"disk", flags, 4 * BLOCK as u64 - 1, if succeeds { 28 } else { 22 });
            write(b"disk", flags | flag::DF, 0, 22);
            let mut expected = pattern(1, 4 * BLOCK);
            if succeeds {
                expected[BLOCK..2 * BLOCK].copy_from_slice(&payload);
            }
            assert!(content(&mut m, b"disk") == expected, "{style:?} {flags:#x}");
        }
    }
}

#[test]
fn what_is_no_write_carries_a_payload_only_where_its_flag_says_so() {
    for style in STYLES {
        let mut m = machine_with(b"disk", &pattern(1, 4 * BLOCK));
        let mut c = Connection::open(&mut m, b"disk", style);
        let payload = misleading(style);
        let extended = style == Style::Extended;
        for number in (0..12).chain([77, 0xffff]).map(Command) {
            if number == Command::WRITE || number == Command::DISC {
                continue;
            }
            for flags in [0, flag::PAYLOAD_LEN] {
                // Without extended headers the flag means nothing: an unknown one.
                let carries = extended && flags != 0;
                let payload = if carries { &payload[..] } else { &[] };
                let (first, mut bytes) = c.client.request(number, flags, 0, 4096, payload);
                let (second, read) = c.client.request(Command::READ, 0, 100, 10, &[]);
                bytes.extend(read);
                let replies = c.send(&mut m, &bytes);
                let said = replies.iter().map(|r| r.cookie).collect::<Vec<_>>();
                assert_eq!(said.len(), 2, "{style:?} {number} {flags:#x}: {said:?}");
                let of = |cookie| replies.iter().find(|r| r.cookie == cookie).expect("answered");
                assert_eq!(of(second).errno(), 0);
                if flags != 0 {
                    assert_eq!(of(first).errno(), 22, "{style:?} {number}");
                }
            }
        }
        c.vanish(&mut m);
        m.check();
    }
}
