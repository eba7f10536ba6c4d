//! Each aligned 8 bytes of a file are old or new at any moment, however a request's bytes arrive:
//! through the native protocol and NBD, over a volume in memory.

mod common;

use common::files::{Full, content, opened, put, read};
use common::nbd::{Connection as Nbd, machine_with, pattern};
use common::{Connection, Random, parse, request};
use umbra_proto::nbd::{Command, Style};
use umbra_proto::rpc;
use umbra_server::Progress;

/// Panics where an aligned word of `now` is neither that of `old` nor that of `new`.
fn assert_whole(now: &[u8], old: &[u8], new: &[u8], when: &str) {
    assert_eq!((now.len(), new.len()), (old.len(), old.len()));
    for (at, word) in now.chunks(8).enumerate() {
        let range = at * 8..at * 8 + word.len();
        let (old, new) = (&old[range.clone()], &new[range.clone()]);
        assert!(
            word == old || word == new,
            "{when}: bytes {range:?} are {word:x?}, of {old:x?} and {new:x?}"
        );
    }
}

/// What `old` becomes by `bytes` at `at`.
fn changed(old: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    new[at..at + bytes.len()].copy_from_slice(bytes);
    new
}

/// A number from 1 up to one of these.
fn some(random: &mut Random, most: [usize; 3]) -> usize {
    let most = most[random.below(3)];
    1 + random.below(most)
}

#[test]
fn a_clone_shows_no_part_of_a_word_that_is_still_to_come() {
    let (old, bytes) = (content(10_000, 1), content(64, 2));
    let (mut a, mut b, mut m) = (
        Connection::new(64 << 10, 64 << 10),
        Connection::new(64 << 10, 64 << 10),
        Full::new(32, 8),
    );
    a.greet(&mut m);
    b.greet(&mut m);
    let handle = put(&mut a, &mut m, b"/a", &old);
    let whole = request(9, &rpc::Store { handle, offset: 0, sync: false }, &bytes);
    a.run(&mut m, &whole[..whole.len() - 64 + 11]);
    b.ok(&mut m, &rpc::CloneFile { from: b"/a", to: b"/b" });
    let clone = opened(&mut b, &mut m, b"/b", 0);
    let shown = read(&mut b, &mut m, clone, 0, 10_000);
    assert_whole(&shown, &old, &changed(&old, 0, &bytes), "after 11 of 64 bytes");
    assert_eq!(shown[..8], bytes[..8], "a word that is whole does not wait");
    a.run(&mut m, &whole[whole.len() - 64 + 11..]);
    assert_eq!(parse(&mut a.received)[0].body::<rpc::Written>().done, 64);
    assert!(read(&mut a, &mut m, handle, 0, 10_000) == changed(&old, 0, &bytes));
    m.check();
}

/// Stores and writes whose bytes come in pieces of all sizes, over windows that wrap anywhere; some
/// of their clients end or vanish midway.
#[test]
fn words_are_whole_however_stores_and_writes_arrive() {
    let mut random = Random(7);
    for round in 0..60 {
        let window = 4096 + random.below(9_000);
        let (mut c, mut m) = (Connection::new(window, 8192), Full::new(16, 4));
        c.greet(&mut m);
        let mut old = content(30_000 + random.below(10), random.next());
        let handle = put(&mut c, &mut m, b"/a", &old);
        let ino = m.machine.volume.resolve(b"/a").unwrap();
        for _ in 0..4 {
            let at = random.below(20_000);
            let bytes = content(1 + random.below([9, 100, 9_000][round % 3]), random.next());
            let new = changed(&old, at, &bytes);
            let offset = at as u64;
            let whole = match random.below(2) {
                0 => request(9, &rpc::Store { handle, offset, sync: false }, &bytes),
                _ => request(9, &rpc::Write { handle, offset, sync: false }, &bytes),
            };
            let stop = if random.below(5) == 0 { random.below(whole.len()) } else { whole.len() };
            let mut sent = 0;
            while sent < stop {
                let n = some(&mut random, [2, 30, 5_000]).min(stop - sent);
                c.run(&mut m, &whole[sent..sent + n]);
                sent += n;
                let mut now = vec![0; old.len()];
                assert_eq!(m.machine.volume.read(ino, 0, &mut now), Ok(old.len()));
                assert_whole(
                    &now,
                    &old,
                    &new,
                    &format!("{} bytes at {at}, {sent} sent", bytes.len()),
                );
            }
            if stop == whole.len() {
                assert!(!parse(&mut c.received)[0].failed);
                old = new;
                continue;
            }
            // What a client leaves unfinished ends with it.
            if random.below(2) == 0 {
                c.wire.finished = true;
                while c.poll(&mut m) == Progress::Again {}
            } else {
                c.vanish(&mut m);
            }
            let mut now = vec![0; old.len()];
            assert_eq!(m.machine.volume.read(ino, 0, &mut now), Ok(old.len()));
            assert_whole(&now, &old, &new, "after its client has gone");
            break;
        }
        m.check();
    }
}

#[test]
fn words_are_whole_however_writes_of_nbd_arrive() {
    let mut random = Random(8);
    for round in 0..60 {
        let style = [Style::Simple, Style::Structured, Style::Extended][round % 3];
        let mut old = pattern(random.next(), 30_000);
        let mut m = machine_with(b"disk", &old);
        let region = m.add_region(1);
        let mut c = Nbd::with_rings(&mut m, 4096 + random.below(9_000), 8192);
        let is_region = random.below(3) == 0;
        let name: &[u8] = if is_region { b"nvdimm:0" } else { b"disk" };
        c.go(&mut m, name, style);
        if is_region {
            assert_eq!(c.write(&mut m, 0, 0, &old).error, None);
        }
        let ino = m.machine.volume.resolve(b"disk").unwrap();
        for _ in 0..4 {
            let at = random.below(20_000);
            let len = some(&mut random, [9, 100, 9_000]);
            let bytes = pattern(random.next(), len);
            let new = changed(&old, at, &bytes);
            let flags = c.payload_len();
            let (_, whole) =
                c.client.request(Command::WRITE, flags, at as u64, bytes.len() as u64, &bytes);
            let mut sent = 0;
            while sent < whole.len() {
                let n = some(&mut random, [2, 30, 5_000]).min(whole.len() - sent);
                c.run(&mut m, &whole[sent..sent + n]);
                sent += n;
                let mut now = vec![0; old.len()];
                match is_region {
                    true => now
                        .copy_from_slice(&m.devices[region].as_ref().unwrap().bytes()[..old.len()]),
                    false => assert_eq!(m.machine.volume.read(ino, 0, &mut now), Ok(old.len())),
                }
                assert_whole(
                    &now,
                    &old,
                    &new,
                    &format!("{} bytes at {at}, {sent} sent", bytes.len()),
                );
            }
            assert_eq!(c.send(&mut m, &[]).len(), 1);
            old = new;
        }
        c.vanish(&mut m);
        m.check();
    }
}

/// Zeroing gives way to others after each step: no step ends within a word.
#[test]
fn words_are_whole_between_the_steps_of_zeroing() {
    for name in [&b"nvdimm:0"[..], b"disk"] {
        for no_hole in [0, umbra_proto::nbd::command_flags::NO_HOLE] {
            let old = pattern(3, 8 << 20);
            let mut m = machine_with(b"disk", &old);
            let region = m.add_region(8);
            let mut c = Nbd::with_rings(&mut m, 9 << 20, 8192);
            c.go(&mut m, name, Style::Extended);
            let is_region = name != b"disk";
            if is_region {
                assert_eq!(c.write(&mut m, 0, 0, &old).error, None);
            }
            let ino = m.machine.volume.resolve(b"disk").unwrap();
            let (at, len) = (4099, 7_000_003);
            let new = changed(&old, at, &vec![0; len]);
            let (_, bytes) =
                c.client.request(Command::WRITE_ZEROES, no_hole, at as u64, len as u64, &[]);
            assert_eq!(c.wire.to_server.push(&bytes), bytes.len());
            loop {
                let progress = c.poll(&mut m);
                let mut now = vec![0; old.len()];
                match is_region {
                    true => now
                        .copy_from_slice(&m.devices[region].as_ref().unwrap().bytes()[..old.len()]),
                    false => assert_eq!(m.machine.volume.read(ino, 0, &mut now), Ok(old.len())),
                }
                assert_whole(&now, &old, &new, "between steps of zeroing");
                if progress == Progress::Wait {
                    assert!(now == new);
                    break;
                }
            }
            c.vanish(&mut m);
            m.check();
        }
    }
}
