//! A server that is short of memory, or of connections: clients are refused what would take more,
//! with an error each, and what they have goes on.

mod common;

use common::files::{CREATE, Full, content, opened, put, read};
use common::nbd::{Connection as Nbd, machine_with, pattern};
use common::{Connection, hello, parse, request};
use umbra_proto::nbd::{Command, ContextRequest, OptionCode, ReplyCode, Style};
use umbra_proto::rpc::{self, ErrorCode};
use umbra_server::testing::{SoftPlatform, Wire, poll};
use umbra_server::{Peer, Progress, Room, Stream, accept};

const PEER: Peer = Peer { cid: 2, port: 7 };
const STYLES: [Style; 3] = [Style::Simple, Style::Structured, Style::Extended];

#[test]
fn a_request_that_takes_memory_is_refused_and_others_are_done() {
    let (mut c, mut m) = (Connection::new(64 << 10, 64 << 10), Full::new(32, 8));
    c.greet(&mut m);
    let bytes = content(100_000, 1);
    let handle = put(&mut c, &mut m, b"/a", &bytes);
    m.memory = 0;
    let refused = [
        c.call(&mut m, &rpc::Open { path: b"/a", flags: 0, mode: None }, &[]),
        c.call(&mut m, &rpc::Open { path: b"/b", flags: CREATE, mode: None }, &[]),
        c.call(&mut m, &rpc::List { path: b"/", cookie: 0, max: None, attributes: true }, &[]),
        c.call(&mut m, &rpc::ExportList {}, &[]),
    ];
    for response in refused {
        assert_eq!(response.error().code, ErrorCode::NO_MEMORY, "{response:?}");
    }
    // A body that would need a larger buffer is passed over, and what follows is understood.
    let path = [b'x'; 4000];
    let response =
        c.call(&mut m, &rpc::Stat { path: Some(&path), handle: None, blocks: false }, &[]);
    assert_eq!(response.error().code, ErrorCode::NO_MEMORY);
    c.ok(&mut m, &rpc::Ping {});
    assert!(c.ok(&mut m, &rpc::Space {}).blocks_free > 0);
    c.ok(&mut m, &rpc::Status::default());
    assert!(read(&mut c, &mut m, handle, 0, u64::MAX) == bytes);
    let stored = c.call(&mut m, &rpc::Store { handle, offset: 5, sync: true }, b"stored");
    assert_eq!(stored.body::<rpc::Written>().done, 6);
    c.ok(&mut m, &rpc::Close { handle });
    // As soon as there is some, all is as before.
    m.memory = usize::MAX;
    let handle = opened(&mut c, &mut m, b"/a", 0);
    assert!(read(&mut c, &mut m, handle, 5, 6) == b"stored");
    c.ok(&mut m, &rpc::Unlink { path: b"/a" });
    m.check();
}

#[test]
fn an_option_of_nbd_that_takes_memory_is_refused_and_the_next_is_understood() {
    let mut m = machine_with(b"disk", &pattern(1, 100_000));
    let mut c = Nbd::new(&mut m);
    m.memory = 0;
    assert_eq!(c.answer(&mut m, OptionCode::LIST, &[]), ReplyCode::ERR_POLICY);
    let mut data = Vec::new();
    ContextRequest::encode(b"disk", &[b"base:allocation"], &mut data);
    assert_eq!(c.answer(&mut m, OptionCode::SET_META_CONTEXT, &data), ReplyCode::ERR_TOO_BIG);
    m.memory = usize::MAX;
    c.go(&mut m, b"disk", Style::Structured);
    assert!(c.read(&mut m, 0, 100_000) == pattern(1, 100_000));
    c.vanish(&mut m);
    m.check();
}

/// Without memory for a longer queue requests wait in their stream; each is answered.
#[test]
fn requests_of_nbd_beyond_the_queue_wait() {
    for style in STYLES {
        let content = pattern(1, 300_000);
        let mut m = machine_with(b"disk", &content);
        let mut c = Nbd::with_rings(&mut m, 64 << 10, 8 << 10);
        c.go(&mut m, b"disk", style);
        for memory in [0, usize::MAX] {
            m.memory = memory;
            let mut bytes = Vec::new();
            for i in 0..200u64 {
                bytes.extend(c.client.request(Command::READ, 0, i * 1000, 1000, &[]).1);
            }
            let replies = c.send(&mut m, &bytes);
            assert_eq!(replies.len(), 200, "{style:?}, {memory} bytes");
            assert!(replies.iter().all(|reply| reply.error.is_none() && reply.data.len() == 1000));
        }
        c.vanish(&mut m);
        m.check();
    }
}

#[test]
fn who_finds_no_room_is_told_why() {
    let mut m = SoftPlatform::new(16, 4);
    for (room, code, text) in [
        (Room::Full(1024), ErrorCode::TOO_MANY_CONNECTIONS, "all its 1024 connections in use"),
        (Room::NoMemory, ErrorCode::NO_MEMORY, "no memory left"),
    ] {
        let mut service = accept::<SoftPlatform>(1, PEER, room).unwrap();
        let mut wire = Wire::new(4096, 4096);
        // Its first bytes may come one by one, and more may follow.
        for byte in [hello(), request(1, &rpc::Space {}, &[])].concat() {
            wire.to_server.push(&[byte]);
            assert_eq!(poll(&mut *service, &mut wire, &mut m), Progress::Wait);
        }
        let mut received = Vec::new();
        wire.to_client.pull(usize::MAX, &mut received);
        let response = parse(&mut received).pop().unwrap();
        assert_eq!(response.error().code, code);
        assert!(response.error().message.contains(text), "{response:?}");
        assert!(wire.is_closed() && received.is_empty());
        for port in [7, 9, 19, 10809] {
            assert!(accept::<SoftPlatform>(port, PEER, room).is_none());
        }
    }
    assert!(accept::<SoftPlatform>(10809, PEER, Room::Kept).is_none());
    assert!(accept::<SoftPlatform>(1, PEER, Room::Kept).is_some());
}
