//! What holds for frames, whatever the methods do: order, limits, hostile and slow clients.

mod common;

use common::bare::Bare;
use common::{Connection, Random, hello, parse, request};
use umbra_proto::rpc::{self, ErrorCode, HEADER_LEN, Header, Method};
use umbra_server::platform::Region;
use umbra_server::{Progress, Stream};

const WINDOW: usize = 4096;

fn greeted() -> (Connection, Bare) {
    let (mut c, mut m) = (Connection::new(WINDOW, 4096), Bare::default());
    assert_eq!(c.greet(&mut m).version, 1);
    (c, m)
}

fn frame(header: Header, rest: &[u8]) -> Vec<u8> {
    [&header.encode()[..], rest].concat()
}

#[test]
fn hello_says_what_the_limits_are() {
    let (mut c, mut m) = (Connection::new(WINDOW, 4096), Bare::default());
    let newer =
        rpc::Hello { magic: rpc::MAGIC, version: 9, features: u64::MAX, client: Some("test 1") };
    c.run(&mut m, &request(7, &newer, &[]));
    let answer = parse(&mut c.received).remove(0);
    assert_eq!(answer.id, 7);
    let answer: rpc::HelloResponse = answer.body();
    assert_eq!((answer.version, answer.features), (1, 0));
    assert_eq!((answer.max_body, answer.max_payload, answer.max_path), (16 << 10, 1 << 20, 4096));
    assert_eq!((answer.max_name, answer.block_size, answer.max_file_size), (255, 4096, 512 << 30));
}

#[test]
fn nothing_goes_before_a_hello() {
    let first = [
        request(3, &rpc::Ping {}, &[]),
        request(3, &rpc::Hello { magic: "other", version: 1, features: 0, client: None }, &[]),
        request(3, &rpc::Hello { magic: rpc::MAGIC, version: 0, features: 0, client: None }, &[]),
        frame(Header::request(3, 0, 1, 0), &[0xa0 + 5]),
        b"GET / HTTP/1.1\r\nHost: umbra\r\n\r\n".to_vec(),
    ];
    let codes = [
        ErrorCode::NO_HELLO,
        ErrorCode::NO_HELLO,
        ErrorCode::VERSION,
        ErrorCode::MALFORMED,
        ErrorCode::NO_HELLO,
    ];
    for (first, code) in first.iter().zip(codes) {
        let (mut c, mut m) = (Connection::new(WINDOW, 4096), Bare::default());
        // What follows is never looked at.
        c.run(&mut m, &[&first[..], &request(4, &rpc::PowerOff {}, &[])].concat());
        let answers = parse(&mut c.received);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].error().code, code, "{:?}", answers[0].error());
        assert!(c.wire.is_closed() && !m.powered_off);
        assert_eq!(m.counters.errors, 1);
    }
}

#[test]
fn answers_come_in_order_and_carry_the_id() {
    let (mut c, mut m) = greeted();
    let mut bytes = Vec::new();
    for id in 0..500 {
        match id % 3 {
            0 => bytes.extend(request(id, &rpc::Ping {}, b"ignored")),
            1 => bytes.extend(request(id, &rpc::Status::default(), &[])),
            _ => bytes.extend(frame(Header::request(id, 0x7fff, 3, 2), &[0xff; 5])),
        }
    }
    c.run(&mut m, &bytes);
    let answers = parse(&mut c.received);
    assert_eq!(answers.len(), 500);
    for (id, a) in answers.iter().enumerate() {
        assert_eq!(a.id as usize, id);
        match id % 3 {
            0 => assert_eq!(a.body::<rpc::Done>(), rpc::Done {}),
            1 => assert_eq!(a.body::<rpc::StatusResponse>().boot_ns, 400),
            _ => assert_eq!(a.error().code, ErrorCode::UNSUPPORTED),
        }
    }
}

#[test]
fn a_bad_body_ends_the_request_only() {
    let (mut c, mut m) = greeted();
    let mut deep = vec![0xa1, 0x18, 0x63];
    deep.extend([0x81; 15_000]);
    deep.push(0xa0);
    let bad: [&[u8]; 9] = [
        &[],
        &[0xa1],
        &[0xa1, 0x00],
        &[0x80],
        &[0xa0, 0xa0],
        &[0xff],
        &[0xbf, 0x00, 0xff],
        &deep,
        // A path as text, a path of a wrong length, come below with their methods.
        &[0xa1, 0x00, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    for body in bad {
        c.run(&mut m, &frame(Header::request(9, Method::PING.0, body.len() as u32, 0), body));
        assert_eq!(parse(&mut c.received)[0].error().code, ErrorCode::MALFORMED, "{body:x?}");
        assert_eq!(c.ok(&mut m, &rpc::Ping {}), rpc::Done {});
    }
    let mistyped = [0xa1, 0x00, 0x61, b'a'];
    c.run(&mut m, &frame(Header::request(9, Method::UNLINK.0, 4, 0), &mistyped));
    assert_eq!(parse(&mut c.received)[0].error().code, ErrorCode::MALFORMED);
    let long = vec![b'a'; 4097];
    let answer = c.call(&mut m, &rpc::Unlink { path: &long }, &[]);
    assert_eq!(answer.error().code, ErrorCode::TOO_LONG);
    assert_eq!(
        c.call(&mut m, &rpc::Unlink { path: b"" }, &[]).error().code,
        ErrorCode::INVALID_NAME
    );
    let mode = c.call(&mut m, &rpc::Create { path: b"/a", mode: Some(0o10000) }, &[]);
    assert_eq!(mode.error().code, ErrorCode::INVALID);
    let both = c.call(&mut m, &rpc::Stat { path: Some(b"/"), handle: Some(1), blocks: false }, &[]);
    assert_eq!(both.error().code, ErrorCode::INVALID);
    assert_eq!(c.call(&mut m, &rpc::Stat::default(), &[]).error().code, ErrorCode::INVALID);
    for handle in [0, 1, u32::MAX] {
        let read = rpc::Read { handle, offset: 0, len: 1 };
        assert_eq!(c.call(&mut m, &read, &[]).error().code, ErrorCode::BAD_HANDLE);
        let write = rpc::Write { handle, offset: 0, sync: false };
        assert_eq!(c.call(&mut m, &write, &[1; 100_000]).error().code, ErrorCode::BAD_HANDLE);
        assert_eq!(c.call(&mut m, &rpc::Close { handle }, &[]).error().code, ErrorCode::BAD_HANDLE);
    }
    let flags = rpc::Open { path: b"/a", flags: 16, mode: None };
    assert_eq!(c.call(&mut m, &flags, &[]).error().code, ErrorCode::UNSUPPORTED);
    let flags = rpc::Open { flags: rpc::open::FROZEN | rpc::open::CREATE, ..flags };
    assert_eq!(c.call(&mut m, &flags, &[]).error().code, ErrorCode::INVALID);
}

#[test]
fn a_bad_header_ends_the_connection() {
    let ok = Header::request(5, Method::PING.0, 1, 0);
    let bad = [
        (Header { length: u32::MAX, ..ok }, ErrorCode::TOO_LONG),
        (Header { length: (16 << 10) + 1, ..ok }, ErrorCode::TOO_LONG),
        (Header { length: 1 + (1 << 20) + 1, payload: (1 << 20) + 1, ..ok }, ErrorCode::TOO_LONG),
        (Header { payload: 2, ..ok }, ErrorCode::MALFORMED),
        (Header { flags: rpc::RESPONSE, ..ok }, ErrorCode::MALFORMED),
        (Header { flags: 0x8000, ..ok }, ErrorCode::MALFORMED),
    ];
    for (header, code) in bad {
        let (mut c, mut m) = greeted();
        c.run(&mut m, &frame(header, &[0xa0; 3000]));
        let answer = parse(&mut c.received).remove(0);
        assert_eq!((answer.id, answer.error().code), (5, code));
        assert!(c.wire.is_closed());
    }
}

#[test]
fn cut_anywhere_it_is_the_same() {
    let mut script = hello();
    script.extend(request(1, &rpc::Ping {}, &[]));
    script.extend(request(2, &rpc::Ping {}, b"some bytes"));
    script.extend(frame(Header::request(3, Method::STATUS.0, 3, 0), &[0xa1, 0x01, 0x02]));
    script.extend(request(4, &rpc::Nvdimms {}, &[]));
    script.extend(frame(Header::request(5, 0x100, 0, 4), b"abcd"));
    let machine = || Bare {
        nvdimms: vec![Region {
            address: 1 << 32,
            size: 1 << 30,
            served: true,
            flush: "clwb",
            problem: Some("x".repeat(2000)),
        }],
        ..Bare::default()
    };
    let (mut c, mut m) = (Connection::new(WINDOW, 4096), machine());
    c.run(&mut m, &script);
    let expected = c.received;
    assert_eq!(parse(&mut expected.clone()).len(), 6);
    for cut in 0..=script.len() {
        // Small and odd rings for what is sent, so that frames are cut there too.
        let (mut c, mut m) = (Connection::new(WINDOW + cut, 1 + cut), machine());
        c.run(&mut m, &script[..cut]);
        c.run(&mut m, &script[cut..]);
        assert!(c.received == expected, "cut at {cut}");
    }
    let (mut c, mut m) = (Connection::new(WINDOW, 1), machine());
    for byte in &script {
        c.run(&mut m, &[*byte]);
    }
    assert!(c.received == expected, "byte by byte");
}

#[test]
fn who_finishes_gets_the_answers_and_a_close() {
    let (mut c, mut m) = greeted();
    c.wire.finished = true;
    c.run(
        &mut m,
        &[request(1, &rpc::Ping {}, &[]), request(2, &rpc::Status::default(), &[])].concat(),
    );
    assert_eq!(parse(&mut c.received).len(), 2);
    assert!(c.wire.is_closed());
    let whole = request(1, &rpc::Ping {}, b"payload");
    for cut in 1..whole.len() {
        let (mut c, mut m) = greeted();
        c.wire.finished = true;
        c.run(&mut m, &whole[..cut]);
        assert!(c.wire.is_closed(), "cut at {cut}");
        c.vanish(&mut m);
        assert_eq!(m.counters.connections, 0);
    }
}

#[test]
fn who_does_not_read_is_not_served() {
    let (mut c, mut m) = greeted();
    let ping = request(1, &rpc::Ping {}, &[]);
    let mut sent = 0;
    // Requests go in until nothing moves; no answer is taken out.
    loop {
        let n = c.wire.to_server.push(&ping.repeat(10));
        while c.poll(&mut m) == Progress::Again {}
        if n == 0 {
            break;
        }
        sent += n;
        assert!(sent < 100_000, "requests are taken without end");
    }
    let requests = m.counters.requests;
    assert_eq!(c.poll(&mut m), Progress::Wait);
    assert_eq!(m.counters.requests, requests);
    // It goes on as soon as the client reads.
    let rest = ping.len() - sent % ping.len();
    c.run(&mut m, &ping[ping.len() - rest % ping.len()..]);
    let answers = parse(&mut c.received);
    assert_eq!(answers.len(), sent.div_ceil(ping.len()));
}

#[test]
fn one_poll_is_bounded() {
    let (mut c, mut m) = (Connection::new(1 << 20, 1 << 20), Bare::default());
    c.greet(&mut m);
    let ping = request(1, &rpc::Ping {}, &[]);
    c.wire.to_server.push(&ping.repeat(10_000));
    let mut polls = 0;
    while c.poll(&mut m) == Progress::Again {
        polls += 1;
    }
    assert!(polls > 100, "10,000 requests in {polls} polls");
    assert_eq!(m.counters.requests, 10_001);
}

#[test]
fn connections_are_counted() {
    let mut m = Bare::default();
    let mut all: Vec<_> = (0..100).map(|_| Connection::new(WINDOW, 4096)).collect();
    for c in &mut all {
        c.poll(&mut m);
    }
    assert_eq!((m.counters.connections, m.counters.connections_total), (100, 100));
    for c in &mut all[..60] {
        c.vanish(&mut m);
        c.vanish(&mut m);
    }
    assert_eq!((m.counters.connections, m.counters.connections_total), (40, 100));
    // A connection that was gone before it was polled was never there.
    let mut gone = Connection::new(WINDOW, 4096);
    gone.vanish(&mut m);
    assert_eq!(m.counters.connections, 40);
}

#[test]
fn power_off_is_answered_first() {
    let (mut c, mut m) = greeted();
    assert_eq!(c.ok(&mut m, &rpc::PowerOff {}), rpc::Done {});
    assert!(m.powered_off);
}

/// Whatever comes, the server neither panics nor waits for what cannot come.
#[test]
fn garbage_is_survived() {
    let mut random = Random(1);
    for round in 0..3000 {
        let (mut c, mut m) = (Connection::new(WINDOW, 1 + random.below(5000)), Bare::default());
        if round % 3 != 0 {
            c.greet(&mut m);
        }
        let mut bytes = Vec::new();
        for _ in 0..random.below(20) {
            // Mostly plausible headers of methods that need no volume, with garbage inside.
            let methods = [0, 1, 2, 3, 0x20 + 1, 0x22, 0x23, 0x24, 0x25, 0x30, 0x31, 0x32, 0x99];
            let body = random.below(60) as u32;
            let payload = if random.below(3) == 0 { random.below(9000) as u32 } else { 0 };
            let method = methods[random.below(methods.len())];
            let mut header = Header::request(random.next() as u32, method, body, payload).encode();
            if random.below(10) == 0 {
                header[random.below(HEADER_LEN)] = random.next() as u8;
            }
            bytes.extend(header);
            for _ in 0..body + payload {
                let likely = [0xa1, 0xa2, 0x00, 0x01, 0x9f, 0xbf, 0xff, 0x41, 0x1b];
                let any = random.next() as u8;
                bytes.push(if random.below(2) == 0 {
                    any
                } else {
                    likely[random.below(likely.len())]
                });
            }
        }
        c.run(&mut m, &bytes);
        c.wire.finished = true;
        c.run(&mut m, &[]);
        assert!(c.wire.is_closed(), "round {round}: it still waits");
        parse(&mut c.received);
        assert_eq!(c.received, []);
        c.vanish(&mut m);
        assert_eq!(m.counters.connections, 0);
    }
}
