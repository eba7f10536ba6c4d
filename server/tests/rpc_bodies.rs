//! Both sides of each sentence of `docs/protocols.md` about bodies, limits and what ends a
//! connection. `rpc_rules.rs` has the table of all sentences.

mod common;

use common::files::{Full, start, write};
use common::{Connection, Response, parse, request};
use umbra_proto::rpc::{self, ErrorCode, Header, MAX_BODY, MAX_PATH, MAX_PAYLOAD, Method};
use umbra_server::Stream;

/// Sends a body, whatever it is, and takes the answer.
fn raw(c: &mut Connection, m: &mut Full, method: Method, body: &[u8]) -> Response {
    let header = Header::request(7, method.0, body.len() as u32, 0);
    c.run(m, &[&header.encode(), body].concat());
    let mut answers = parse(&mut c.received);
    assert_eq!(answers.len(), 1, "{method:?} {body:x?}");
    answers.remove(0)
}

/// Whether a body is understood: anything but `malformed`. The connection goes on in any case.
fn understood(method: Method, body: &[u8]) -> bool {
    let (mut c, mut m) = start();
    let answer = raw(&mut c, &mut m, method, body);
    c.ok(&mut m, &rpc::Ping {});
    !(answer.failed && answer.error().code == ErrorCode::MALFORMED)
}

/// A body that is one map, of these keys with their values, each encoded.
fn map(entries: &[&[u8]]) -> Vec<u8> {
    [&[0xa0 + (entries.len() / 2) as u8], &entries.concat()[..]].concat()
}

#[test]
fn a_body_is_one_map_of_unsigned_keys() {
    let good: [Vec<u8>; 6] = [
        map(&[]),
        map(&[&[0x00], &[0x01]]),
        // The largest key, and keys that are not in their shortest form.
        map(&[&[0x1a, 0xff, 0xff, 0xff, 0xff], &[0x01]]),
        map(&[&[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], &[0x01]]),
        map(&[&[0x18, 0x05], &[0x01], &[0x19, 0, 6], &[0x01]]),
        // A map of indefinite length.
        vec![0xbf, 0x00, 0x01, 0x01, 0x02, 0xff],
    ];
    for body in good {
        assert!(understood(Method::PING, &body), "{body:x?}");
    }
    let bad: [Vec<u8>; 13] = [
        vec![],
        vec![0x80],
        vec![0x00],
        [map(&[]), map(&[])].concat(),
        // Keys: negative, bytes, text, an array, a map, a tag, a bool, null, and one that is too
        // large.
        map(&[&[0x20], &[0x01]]),
        map(&[&[0x41, b'a'], &[0x01]]),
        map(&[&[0x61, b'a'], &[0x01]]),
        map(&[&[0x81, 0x00], &[0x01]]),
        map(&[&[0xa0], &[0x01]]),
        map(&[&[0xc1, 0x00], &[0x01]]),
        map(&[&[0xf5], &[0x01]]),
        map(&[&[0xf6], &[0x01]]),
        map(&[&[0x1b, 0, 0, 0, 1, 0, 0, 0, 0], &[0x01]]),
    ];
    for body in bad {
        assert!(!understood(Method::PING, &body), "{body:x?}");
    }
    // Behind others, and in a map of indefinite length.
    assert!(!understood(Method::PING, &map(&[&[0x00], &[0x01], &[0x20], &[0x01]])));
    assert!(!understood(Method::PING, &[0xbf, 0x00, 0x01, 0x20, 0x01, 0xff]));
    assert!(
        understood(Method::PING, &[0xbf, 0x00, 0x20, 0x01, 0x20, 0xff]),
        "a value may be negative"
    );
}

#[test]
fn a_key_below_64_does_not_occur_twice() {
    let twice = |key: &[u8], between: &[&[u8]]| {
        let mut entries = vec![key, &[0x01]];
        entries.extend(between);
        entries.extend([key, &[0x01]]);
        map(&entries)
    };
    for key in 0..64 {
        let key: &[u8] = if key < 24 { &[key] } else { &[0x18, key] };
        assert!(!understood(Method::PING, &twice(key, &[])), "{key:x?}");
        assert!(!understood(Method::PING, &twice(key, &[&[0x18, 0x50], &[0x80]])), "{key:x?}");
        assert!(understood(Method::PING, &map(&[key, &[0x01]])));
    }
    // The same number in two forms; and in a map of indefinite length.
    assert!(!understood(Method::PING, &map(&[&[0x05], &[0x01], &[0x18, 0x05], &[0x01]])));
    assert!(!understood(Method::PING, &[0xbf, 0x05, 0x01, 0x05, 0x01, 0xff]));
    // A key that the method knows.
    assert!(!understood(Method::UNLINK, &map(&[&[0x00], &[0x41, b'a'], &[0x00], &[0x41, b'b']])));
    // From 64 on nobody looks, and what is in the value of a key does not matter.
    for key in [&[0x18, 0x40][..], &[0x18, 0xff], &[0x1a, 0xff, 0xff, 0xff, 0xff]] {
        assert!(understood(Method::PING, &twice(key, &[])), "{key:x?}");
    }
    assert!(understood(
        Method::PING,
        &map(&[&[0x05], &[0xa2, 0x01, 0x01, 0x01, 0x01], &[0x01], &[0x01]])
    ));
    assert!(understood(Method::PING, &map(&[&[0x05], &[0x82, 0x05, 0x05], &[0x06], &[0x05]])));
}

#[test]
fn what_is_not_known_is_ignored_whatever_it_is() {
    let values: [&[u8]; 11] = [
        &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xc1, 0x00],
        &[0xd9, 0x01, 0x02, 0xc0, 0x61, b'x'],
        &[0xf9, 0x3c, 0x00],
        &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x5f, 0x41, 0x00, 0x42, 0x00, 0x00, 0xff],
        &[0x7f, 0x61, b'x', 0xff],
        &[0xbf, 0x61, b'x', 0xf6, 0x20, 0x9f, 0xff, 0xff],
        &[0x9f, 0xa0, 0x80, 0xff],
        &[0xf7],
        &[0xf8, 0xff],
    ];
    for value in values {
        for key in [&[0x17][..], &[0x18, 0x20], &[0x19, 0x01, 0x00]] {
            let (mut c, mut m) = start();
            c.ok(&mut m, &rpc::Create { path: b"/a", mode: None });
            let body = map(&[key, value, &[0x00], &[0x41, b'a']]);
            assert!(!raw(&mut c, &mut m, Method::UNLINK, &body).failed, "{key:x?} {value:x?}");
        }
    }
    // But it is well-formed, and text is UTF-8.
    for value in [&[0x62, 0xff, 0xfe][..], &[0x1c], &[0x5f, 0x61, b'x', 0xff], &[0xff]] {
        assert!(!understood(Method::PING, &map(&[&[0x17], value])), "{value:x?}");
    }
}

/// A value for key 0 of a method, and whether it may be there.
#[test]
fn values_have_the_types_that_the_tables_say() {
    let u64_max = [0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    // read: handle u32, offset uint, bytes uint.
    let read = |handle: &[u8], at: &[u8], len: &[u8]| {
        understood(Method::READ, &map(&[&[0x00], handle, &[0x01], at, &[0x02], len]))
    };
    assert!(read(&[0x01], &[0x00], &[0x00]) && read(&[0x01], &u64_max, &u64_max));
    assert!(read(
        &[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[0x18, 0x01],
        &[0x1b, 0, 0, 0, 0, 0, 0, 0, 1]
    ));
    for handle in [
        &[0x1b, 0, 0, 0, 1, 0, 0, 0, 0][..],
        &[0x20],
        &[0x61, b'1'],
        &[0xf4],
        &[0xf6],
        &[0xc1, 0x01],
    ] {
        assert!(!read(handle, &[0x00], &[0x00]), "{handle:x?}");
    }
    assert!(!read(&[0x01], &[0x20], &[0x00]) && !read(&[0x01], &[0x00], &[0xf9, 0x3c, 0x00]));
    assert!(
        !understood(Method::READ, &map(&[&[0x00], &[0x01], &[0x01], &[0x00]])),
        "a key is missing"
    );
    // create: path bytes, mode u16, opt.
    let create = |path: &[u8], mode: &[u8]| {
        understood(Method::CREATE, &map(&[&[0x00], path, &[0x01], mode]))
    };
    assert!(
        create(&[0x41, b'a'], &[0x19, 0x01, 0xa4])
            && create(&[0x58, 0x01, b'a'], &[0x19, 0xff, 0xff])
    );
    assert!(create(&[0x41, b'a'], &[0xf6]), "null is as if it were absent");
    assert!(understood(Method::CREATE, &map(&[&[0x00], &[0x41, b'a']])));
    assert!(!create(&[0x41, b'a'], &[0x1a, 0, 1, 0, 0]), "beyond a u16");
    for path in [
        &[0x61, b'a'][..],
        &[0x5f, 0x41, b'a', 0xff],
        &[0xc1, 0x41, b'a'],
        &[0xf6],
        &[0x81, 0x41, b'a'],
    ] {
        assert!(!create(path, &[0xf6]), "{path:x?}");
    }
    // stat: path opt, handle opt, bool = false.
    let stat =
        |flag: &[u8]| understood(Method::STAT, &map(&[&[0x00], &[0x41, b'/'], &[0x02], flag]));
    assert!(
        stat(&[0xf4]) && stat(&[0xf5]) && understood(Method::STAT, &map(&[&[0x00], &[0x41, b'/']]))
    );
    assert!(!stat(&[0xf6]), "what has a value when it is absent is not null");
    assert!(!stat(&[0x00]) && !stat(&[0x01]) && !stat(&[0xf7]));
    // set-attributes: int.
    let mtime = |value: &[u8]| {
        understood(Method::SET_ATTRIBUTES, &map(&[&[0x00], &[0x41, b'/'], &[0x06], value]))
    };
    assert!(mtime(&[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "-2^63");
    assert!(mtime(&[0x1b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "2^63 - 1");
    assert!(
        !mtime(&[0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0]) && !mtime(&[0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0])
    );
    // export-remove: text.
    let name = |value: &[u8]| understood(Method::EXPORT_REMOVE, &map(&[&[0x00], value]));
    assert!(name(&[0x61, b'a']) && name(&[0x62, 0xc3, 0xa4]));
    assert!(
        !name(&[0x41, b'a'])
            && !name(&[0x61, 0xff])
            && !name(&[0x7f, 0x61, b'a', 0xff])
            && !name(&[0xf6])
    );
}

#[test]
fn a_body_nests_16_deep_the_outer_map_included() {
    let nested = |arrays: usize| [&[0xa1, 0x18, 0x63][..], &vec![0x81; arrays], &[0x00]].concat();
    assert!(understood(Method::PING, &nested(15)));
    assert!(!understood(Method::PING, &nested(16)));
    let tagged = |tags: usize| [&[0xa1, 0x18, 0x63][..], &vec![0xc1; tags], &[0x00]].concat();
    assert!(understood(Method::PING, &tagged(15)));
    assert!(!understood(Method::PING, &tagged(16)));
}

/// A body of so many bytes: padding.
fn padded(len: usize) -> Vec<u8> {
    let mut body = vec![0xa1, 0x17, 0x59];
    body.extend((len as u16 - 5).to_be_bytes());
    body.resize(len, 0);
    body
}

#[test]
fn frames_have_limits() {
    let (mut c, mut m) = start();
    assert!(!raw(&mut c, &mut m, Method::PING, &padded(MAX_BODY as usize)).failed);
    let answer = raw(&mut c, &mut m, Method::PING, &padded(MAX_BODY as usize + 1));
    assert_eq!(answer.error().code, ErrorCode::TOO_LONG);
    assert!(c.wire.is_closed());

    let (mut c, mut m) = start();
    // Payload that a method does not take is skipped, all there may be of it, also behind an error.
    for _ in 0..2 {
        c.call(&mut m, &rpc::Ping {}, &vec![7; MAX_PAYLOAD as usize]).body::<rpc::Done>();
        let answer =
            c.call(&mut m, &rpc::Unlink { path: b"/none" }, &vec![7; MAX_PAYLOAD as usize]);
        assert_eq!(answer.error().code, ErrorCode::NOT_FOUND);
    }
    c.run(&mut m, &request(9, &rpc::Ping {}, &vec![7; MAX_PAYLOAD as usize + 1]));
    let answers = parse(&mut c.received);
    assert_eq!(
        (answers.len(), answers[0].id, answers[0].error().code),
        (1, 9, ErrorCode::TOO_LONG)
    );
    assert!(c.wire.is_closed());
}

#[test]
fn paths_names_files_and_handles_have_limits() {
    let (mut c, mut m) = start();
    // As many bytes as there may be, of names as long as there may be.
    let name = |len| [&vec![b'n'; len][..], b"/"].concat();
    let mut path = name(255).repeat(MAX_PATH / 256);
    assert_eq!(path.len(), MAX_PATH);
    let code = |c: &mut Connection, m: &mut Full, path: &[u8]| {
        c.call(m, &rpc::Stat { path: Some(path), handle: None, blocks: false }, &[]).error().code
    };
    assert_eq!(code(&mut c, &mut m, &path), ErrorCode::NOT_FOUND);
    path.push(b'/');
    assert_eq!(code(&mut c, &mut m, &path), ErrorCode::TOO_LONG);
    assert_eq!(code(&mut c, &mut m, b""), ErrorCode::INVALID_NAME);
    c.ok(&mut m, &rpc::Create { path: &[b'n'; 255], mode: None });
    assert_eq!(
        c.call(&mut m, &rpc::Create { path: &[b'n'; 256], mode: None }, &[]).error().code,
        ErrorCode::NAME_TOO_LONG
    );
    for (path, code) in
        [(&b"/a\0b"[..], ErrorCode::INVALID_NAME), (b"/..", ErrorCode::INVALID_NAME)]
    {
        assert_eq!(c.call(&mut m, &rpc::Create { path, mode: None }, &[]).error().code, code);
    }
    let most = umbra_fs::MAX_FILE_SIZE;
    let handle =
        c.ok(&mut m, &rpc::Open { path: b"/f", flags: rpc::open::CREATE, mode: None }).handle;
    let cut = |size| rpc::Truncate { path: None, handle: Some(handle), size };
    c.ok(&mut m, &cut(most));
    assert_eq!(c.call(&mut m, &cut(most + 1), &[]).error().code, ErrorCode::TOO_LARGE);
    assert!(!write(&mut c, &mut m, handle, most - 2, b"ab").failed);
    let beyond = write(&mut c, &mut m, handle, most - 2, b"xyz").error();
    assert_eq!((beyond.code, beyond.done), (ErrorCode::TOO_LARGE, Some(0)), "nothing is written");
    for _ in 1..64 {
        c.ok(&mut m, &rpc::Open { path: b"/f", flags: 0, mode: None });
    }
    let open = rpc::Open { path: b"/f", flags: 0, mode: None };
    assert_eq!(c.call(&mut m, &open, &[]).error().code, ErrorCode::TOO_MANY_HANDLES);
    // Another connection has its own, and none of these.
    let mut other = Connection::new(64 << 10, 64 << 10);
    other.greet(&mut m);
    let read = rpc::Read { handle, offset: 0, len: 1 };
    assert_eq!(other.call(&mut m, &read, &[]).error().code, ErrorCode::BAD_HANDLE);
    assert_eq!(other.ok(&mut m, &open).handle, handle);
    m.check();
}

/// The text of an error has at most 1,024 bytes, whatever was asked.
#[test]
fn texts_of_errors_are_bounded() {
    let (mut c, mut m) = start();
    for byte in [b'n', 0x01, 0xff, b'\''] {
        let path = [b"/", &vec![byte; 4000][..]].concat();
        for _ in 0..2 {
            let error = c.call(&mut m, &rpc::Rename { from: &path, to: &path }, &[]).error();
            assert!(error.message.len() <= 1024, "{}", error.message.len());
            assert!(!error.message.contains(char::is_control), "one line: {}", error.message);
        }
    }
}

#[test]
fn a_hello_that_is_not_good_ends_the_connection_at_any_time() {
    let hello = |magic, version| rpc::Hello { magic, version, features: 0, client: None };
    let bad = [
        (request(5, &hello("other", 1), &[]), ErrorCode::NO_HELLO),
        (request(5, &hello(rpc::MAGIC, 0), &[]), ErrorCode::VERSION),
        ([&Header::request(5, 0, 1, 0).encode()[..], &[0xa0]].concat(), ErrorCode::MALFORMED),
    ];
    for (bytes, code) in bad {
        let (mut c, mut m) = start();
        // A good one is allowed at any time.
        assert_eq!(c.ok(&mut m, &hello(rpc::MAGIC, 1)).version, 1);
        c.ok(&mut m, &rpc::Open { path: b"/f", flags: rpc::open::CREATE, mode: None });
        c.run(
            &mut m,
            &[bytes, request(6, &rpc::Create { path: b"/never", mode: None }, &[])].concat(),
        );
        let answers = parse(&mut c.received);
        assert_eq!((answers.len(), answers[0].id, answers[0].error().code), (1, 5, code));
        assert!(c.wire.is_closed());
        assert_eq!(m.counters.handles, 0);
        assert!(m.machine.volume.resolve(b"/never").is_err());
    }
}
