//! Scripts of requests that are nearly right, over a volume in memory.
//!
//! A script is made from a seed: methods at random, on few names and few handles so that they
//! meet each other, with offsets at the edges of blocks, leaves and files. Some scripts are then
//! damaged. Whatever comes: no panic, every complete request is answered or the connection
//! ends with an error, and the volume passes its check.

mod common;

use common::{Connection, Random, Response, hello, parse, request};
use umbra_proto::rpc::{self, HEADER_LEN, MAX_BODY, MAX_PAYLOAD, Method};
use umbra_server::rpc::MAX_HANDLES;
use umbra_server::testing::SoftPlatform;
use umbra_server::{Stream, background};

/// Names that exist in most scripts, names that may, and strange ones.
const PATHS: [&[u8]; 12] = [
    b"/",
    b"/a",
    b"/b",
    b"/c",
    b"/d",
    b"/d/e",
    b"/d/e/f",
    b"/d/../a",
    b"//a/",
    b"/a/x",
    b".",
    b"/d/\xff\x01",
];

fn path(random: &mut Random) -> &'static [u8] {
    match random.below(3) {
        0 => PATHS[random.below(PATHS.len())],
        _ => PATHS[1 + random.below(3)],
    }
}

fn offset(random: &mut Random) -> u64 {
    let edges =
        [0, 1, 4095, 4096, 8192, 40_000, (2 << 20) - 1, 2 << 20, 3 << 20, 512 << 30, u64::MAX];
    let usual = if random.below(20) == 0 { edges.len() } else { 8 };
    let edge: u64 = edges[random.below(usual)];
    edge.wrapping_add(random.below(3) as u64)
}

/// Half of the time.
fn some<T>(random: &mut Random, value: T) -> Option<T> {
    (random.below(2) == 0).then_some(value)
}

fn one(random: &mut Random, id: u32) -> Vec<u8> {
    let handle = 1 + random.below(4) as u32;
    let (at, other) = (offset(random), offset(random));
    let bytes = vec![random.next() as u8; random.below(30_000)];
    let (from, to) = (path(random), path(random));
    let flag = random.below(2) == 0;
    match random.below(32) {
        0 => request(id, &rpc::Ping {}, &bytes[..bytes.len().min(10)]),
        1 => request(id, &rpc::Status::default(), &[]),
        2 => request(id, &rpc::Check {}, &[]),
        3 => request(id, &rpc::Reclaim { wait: flag }, &[]),
        4 => request(id, &rpc::Space {}, &[]),
        5 => request(
            id,
            &rpc::Stat { path: some(random, from), handle: some(random, handle), blocks: flag },
            &[],
        ),
        6 => request(
            id,
            &rpc::List { path: from, cookie: at, max: some(random, other), attributes: flag },
            &[],
        ),
        7 => request(id, &rpc::Create { path: from, mode: some(random, at as u16) }, &[]),
        8 => request(id, &rpc::MakeDirectory { path: from, mode: None, parents: flag }, &[]),
        9 => request(id, &rpc::Unlink { path: from }, &[]),
        10 => request(id, &rpc::RemoveDirectory { path: from }, &[]),
        11 => request(id, &rpc::Rename { from, to }, &[]),
        12 => request(id, &rpc::Truncate { path: None, handle: Some(handle), size: at }, &[]),
        13 => {
            let set = rpc::SetAttributes {
                path: Some(from),
                mtime: Some(at as i64),
                ..Default::default()
            };
            request(id, &set, &[])
        }
        14 | 15 => {
            request(id, &rpc::Open { path: from, flags: random.below(9) as u32, mode: None }, &[])
        }
        16 => request(id, &rpc::Close { handle }, &[]),
        17 | 18 => request(id, &rpc::Read { handle, offset: at, len: other }, &[]),
        19 | 20 => request(id, &rpc::Write { handle, offset: at, sync: flag }, &bytes),
        21 => request(
            id,
            &rpc::Extents { handle, offset: at, len: some(random, other), max: some(random, 7) },
            &[],
        ),
        22 => request(id, &rpc::CloneFile { from, to }, &[]),
        23 => {
            let (from_offset, to_offset) = (at & !4095, other & !4095);
            let blocks = random.below(600) as u64;
            let len = some(random, 4096 * blocks);
            if flag {
                return request(id, &rpc::Dedupe { from, to, from_offset, to_offset, len }, &[]);
            }
            request(id, &rpc::CloneRange { from, to, from_offset, to_offset, len }, &[])
        }
        24 => request(id, &rpc::Load { handle, offset: at, len: random.below(50_000) as u64 }, &[]),
        27 => {
            let (path, handle) = if flag { (Some(from), None) } else { (None, Some(handle)) };
            let (replace, check) = (random.below(2) == 0, random.below(4) == 0);
            request(id, &rpc::Link { path, to, handle, replace, check }, &[])
        }
        31 => request(id, &rpc::OpenUnnamed { path: from, mode: None, uid: 1, gid: 2 }, &[]),
        28 => request(id, &rpc::Symlink { path: from, target: to }, &[]),
        29 => request(id, &rpc::ReadLink { path: from }, &[]),
        25 | 26 => request(id, &rpc::Store { handle, offset: at, sync: flag }, &bytes),
        _ => request(id, &rpc::Pages { path: some(random, from), handle: None }, &[]),
    }
}

/// A script that opens some files first, so that handles mean something.
fn script(random: &mut Random, requests: u32) -> Vec<u8> {
    let mut bytes = hello();
    for (i, path) in [&b"/a"[..], b"/b", b"/a"].into_iter().enumerate() {
        bytes.extend(request(
            1 + i as u32,
            &rpc::Open { path, flags: rpc::open::CREATE, mode: None },
            &[],
        ));
    }
    for id in 0..requests {
        bytes.extend(one(random, 100 + id));
    }
    bytes
}

/// What does not depend on how the bytes were cut, nor on the clock.
fn essence(r: &Response) -> (u32, u16, Option<rpc::ErrorBody>, Vec<u8>) {
    (r.id, r.method, r.failed.then(|| r.error()), r.payload.clone())
}

#[test]
fn however_it_is_cut_the_answers_are_the_same() {
    for seed in 0..150 {
        let script = script(&mut Random(seed), 60);
        let mut all = Vec::new();
        for variant in 0..3 {
            let mut random = Random(seed * 10 + variant);
            let mut m = SoftPlatform::new(24, 4);
            let (window, ring) = match variant {
                0 => (1 << 20, 1 << 20),
                1 => (4096 + random.below(100), 1 + random.below(50)),
                _ => (4096 + random.below(50_000), 1 + random.below(50_000)),
            };
            let mut c = Connection::new(window, ring);
            let mut rest = &script[..];
            while !rest.is_empty() {
                let n = (1 + random.below(60_000)).min(rest.len());
                c.run(&mut m, &rest[..n]);
                rest = &rest[n..];
            }
            let answers = parse(&mut c.received);
            assert!(answers.len() == 64 && c.received.is_empty());
            all.push(answers.iter().map(essence).collect::<Vec<_>>());
            c.vanish(&mut m);
            assert_eq!((m.counters.handles, m.counters.connections), (0, 0));
            m.check();
        }
        for (i, first) in all[0].iter().enumerate() {
            assert!(
                all[1][i] == *first && all[2][i] == *first,
                "seed {seed}, answer {i}: {first:?}"
            );
        }
    }
}

#[test]
fn damaged_scripts_damage_nothing() {
    let mut random = Random(77);
    let mut m = SoftPlatform::new(24, 4);
    for round in 0..1000 {
        let mut bytes = script(&mut random, 12);
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => drop(bytes.drain(at..(at + 1 + random.below(40)).min(bytes.len()))),
                3 => bytes.insert(at, random.next() as u8),
                _ => {
                    let again = bytes[at..(at + 200).min(bytes.len())].to_vec();
                    let to = random.below(bytes.len());
                    bytes.splice(to..to, again);
                }
            }
        }
        let mut c = Connection::new(4096 + random.below(20_000), 1 + random.below(20_000));
        c.run(&mut m, &bytes);
        if random.below(2) == 0 {
            c.wire.finished = true;
            c.run(&mut m, &[]);
            assert!(c.wire.is_closed(), "round {round}: it still waits");
            parse(&mut c.received);
            assert!(c.received.is_empty(), "round {round}: a response was cut");
        }
        c.vanish(&mut m);
        assert_eq!((m.counters.handles, m.counters.connections), (0, 0), "round {round}");
        while background(&mut m) == umbra_server::Progress::Again {}
        if round % 40 == 0 {
            m.check();
        }
    }
    m.check();
}

/// The longest bodies and payloads, of every method: all within limits, none waits for more.
#[test]
fn the_largest_frames() {
    let mut m = SoftPlatform::new(24, 4);
    let mut c = Connection::new(4096, 4096);
    c.greet(&mut m);
    for (method, _) in Method::ALL.iter().filter(|(m, _)| *m != Method::POWER_OFF) {
        for body_len in [0, 1, MAX_BODY as usize] {
            // A map whose one unknown key has a long value.
            let mut body = vec![0u8; body_len];
            if body_len == 1 {
                body[0] = 0xa0;
            } else if body_len > 1 {
                let len = (body_len - 6) as u16;
                body[..6].copy_from_slice(&[0xa1, 0x18, 0xc8, 0x59, (len >> 8) as u8, len as u8]);
            }
            let header = rpc::Header::request(9, method.0, body_len as u32, MAX_PAYLOAD);
            c.run(&mut m, &[&header.encode()[..], &body, &vec![7; MAX_PAYLOAD as usize]].concat());
            let answers = parse(&mut c.received);
            assert_eq!(answers.len(), 1, "{method:?} with {body_len}");
            assert!(c.received.is_empty());
            // A hello that is none is the last thing that is said.
            assert_eq!(c.wire.is_closed(), *method == Method::HELLO);
            if c.wire.is_closed() {
                c.vanish(&mut m);
                c = Connection::new(4096, 4096);
                c.greet(&mut m);
            }
            assert!(answers[0].bodies.iter().all(|b| b.len() + HEADER_LEN <= 8192));
        }
    }
    assert_eq!(c.ok(&mut m, &rpc::Status::default()).connections, 1);
    assert!(m.counters.handles <= MAX_HANDLES);
    m.check();
}
