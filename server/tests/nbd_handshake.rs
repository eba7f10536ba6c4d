//! Options of NBD, by the sections of the specification.

mod common;

use common::nbd::{Connection, NOW, machine_with, pattern};
use umbra_proto::nbd::{
    Command, ContextRequest, InfoRequest, InfoType, OptionCode, ReplyCode, Style,
    export_name_reply, transmission_flags as flag,
};
use umbra_server::Stream;
use umbra_server::testing::nbd::{export_info, option, take_greeting, take_replies};
use umbra_server::testing::{SoftPlatform, Wire};

fn go(name: &[u8], infos: &[InfoType]) -> Vec<u8> {
    let mut data = Vec::new();
    InfoRequest::encode(name, infos, &mut data);
    data
}

fn contexts(name: &[u8], queries: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    ContextRequest::encode(name, queries, &mut data);
    data
}

#[test]
fn info_and_go_tell_the_same() {
    let mut m = machine_with(b"disk", &pattern(1, 10_000));
    let mut c = Connection::new(&mut m);
    let all = [InfoType::NAME, InfoType::DESCRIPTION, InfoType::BLOCK_SIZE, InfoType(77)];
    let info = c.option(&mut m, OptionCode::INFO, &go(b"/disk", &all));
    assert_eq!(info.len(), 5);
    let (size, flags) = export_info(&info);
    assert_eq!(size, 10_000);
    assert_eq!(
        flags,
        flag::HAS_FLAGS
            | flag::SEND_FLUSH
            | flag::SEND_FUA
            | flag::SEND_TRIM
            | flag::SEND_WRITE_ZEROES
            | flag::SEND_FAST_ZERO
            | flag::CAN_MULTI_CONN
            | flag::SEND_CACHE
    );
    assert!(info.contains(&(ReplyCode::INFO, b"\0\x01/disk".to_vec())));
    assert!(info.contains(&(ReplyCode::INFO, b"\0\x02file '/disk'".to_vec())));
    assert!(info.contains(&(ReplyCode::INFO, vec![0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0])));
    assert_eq!(c.option(&mut m, OptionCode::GO, &go(b"/disk", &all)), info);
    assert_eq!(m.exports_in_use(), 1);
    c.vanish(&mut m);
    assert_eq!(m.exports_in_use(), 0);
    m.check();
}

#[test]
fn what_is_not_there_is_unknown_and_the_handshake_goes_on() {
    let mut m = machine_with(b"disk", b"x");
    let root = m.machine.volume.root();
    m.machine.volume.mkdir(root, b"dir", 0o755, NOW).unwrap();
    let mut c = Connection::new(&mut m);
    for name in
        [&b"nothing"[..], b"/a/b", b"disk/x", b"nvdimm:0", b"nvdimm:x", b"", &[b'x'; 300], b"\xff"]
    {
        assert_eq!(
            c.answer(&mut m, OptionCode::GO, &go(name, &[])),
            ReplyCode::ERR_UNKNOWN,
            "{name:?}"
        );
    }
    assert_eq!(c.answer(&mut m, OptionCode::GO, &go(b"/dir", &[])), ReplyCode::ERR_POLICY);
    assert_eq!(c.answer(&mut m, OptionCode::GO, &go(&[b'x'; 5000], &[])), ReplyCode::ERR_INVALID);
    for data in [&b""[..], b"\0\0\0\x04disk", b"\0\0\0\xffdisk\0\0", b"\0\0\0\x04disk\0\x01"] {
        assert_eq!(c.answer(&mut m, OptionCode::INFO, data), ReplyCode::ERR_INVALID);
    }
    c.go(&mut m, b"disk", Style::Simple);
    assert_eq!(c.read(&mut m, 0, 1), b"x");
}

#[test]
fn a_region_that_cannot_be_served_is_refused_in_words() {
    let mut m = machine_with(b"disk", b"x");
    for why in ["the volume is on it", "is not well", "a volume of its own"] {
        let index = m.add_region(4);
        m.devices[index] = None;
        m.regions[index].served = why.starts_with("the volume");
        m.regions[index].problem = (why == "is not well").then(|| why.into());
    }
    let free = m.add_region(4);
    let mut c = Connection::new(&mut m);
    for (name, code, why) in [
        ("nvdimm:0", ReplyCode::ERR_POLICY, "cannot serve 'nvdimm:0': the volume is on it"),
        ("nvdimm:1", ReplyCode::ERR_POLICY, "cannot serve 'nvdimm:1': is not well"),
        (
            "nvdimm:2",
            ReplyCode::ERR_POLICY,
            "cannot serve 'nvdimm:2': it holds a volume of its own",
        ),
        ("nvdimm:4", ReplyCode::ERR_UNKNOWN, "there is no 'nvdimm:4': regions here: 4"),
        ("nvdimm:one", ReplyCode::ERR_UNKNOWN, "'nvdimm:one' is no NVDIMM region"),
    ] {
        let (last, said) =
            c.option(&mut m, OptionCode::GO, &go(name.as_bytes(), &[])).pop().unwrap();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(last, code, "{said}");
        assert!(said.starts_with(why), "{said}");
    }
    assert_eq!(
        c.answer(&mut m, OptionCode::GO, &go(format!("nvdimm:{free}").as_bytes(), &[])),
        ReplyCode::ACK
    );
}

#[test]
fn options_that_are_not_served_are_refused_in_words() {
    let mut m = machine_with(b"disk", b"x");
    let mut c = Connection::new(&mut m);
    for (code, data, answer) in [
        (OptionCode::PEEK_EXPORT, &b"disk"[..], ReplyCode::ERR_UNSUP),
        (OptionCode(12), b"", ReplyCode::ERR_UNSUP),
        (OptionCode(u32::MAX), &[0; 60_000], ReplyCode::ERR_UNSUP),
        (OptionCode::STARTTLS, b"", ReplyCode::ERR_PLATFORM),
        (OptionCode::STARTTLS, b"x", ReplyCode::ERR_INVALID),
        (OptionCode::LIST, b"x", ReplyCode::ERR_INVALID),
        (OptionCode::STRUCTURED_REPLY, b"x", ReplyCode::ERR_INVALID),
        (OptionCode::EXTENDED_HEADERS, b"x", ReplyCode::ERR_INVALID),
        (OptionCode::LIST_META_CONTEXT, b"", ReplyCode::ERR_INVALID),
        (OptionCode::GO, &[0; 70_000], ReplyCode::ERR_TOO_BIG),
        (OptionCode::LIST, b"", ReplyCode::ACK),
    ] {
        let replies = c.option(&mut m, code, data);
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].0, answer, "{code} with {} bytes", data.len());
        assert_eq!(replies[0].1.is_empty(), answer == ReplyCode::ACK, "{replies:?}");
        assert!(std::str::from_utf8(&replies[0].1).is_ok());
    }
    c.go(&mut m, b"disk", Style::Structured);
}

#[test]
fn structured_replies_and_extended_headers_are_negotiated_once() {
    let mut m = machine_with(b"disk", b"x");
    let mut c = Connection::new(&mut m);
    c.ack(&mut m, OptionCode::STRUCTURED_REPLY, &[]);
    assert_eq!(c.answer(&mut m, OptionCode::STRUCTURED_REPLY, &[]), ReplyCode::ERR_INVALID);
    let (_, flags) = export_info(&c.option(&mut m, OptionCode::INFO, &go(b"disk", &[])));
    assert_eq!(flags & (flag::SEND_DF | flag::BLOCK_STATUS_PAYLOAD), flag::SEND_DF);
    c.ack(&mut m, OptionCode::EXTENDED_HEADERS, &[]);
    assert_eq!(c.answer(&mut m, OptionCode::EXTENDED_HEADERS, &[]), ReplyCode::ERR_INVALID);
    assert_eq!(c.answer(&mut m, OptionCode::STRUCTURED_REPLY, &[]), ReplyCode::ERR_EXT_HEADER_REQD);
    // Without contexts there is nothing to ask for with a payload.
    let (_, flags) = export_info(&c.option(&mut m, OptionCode::INFO, &go(b"disk", &[])));
    assert_eq!(flags & flag::BLOCK_STATUS_PAYLOAD, 0);
    c.ack(&mut m, OptionCode::SET_META_CONTEXT, &contexts(b"disk", &[b"base:allocation"]));
    let (_, flags) = export_info(&c.option(&mut m, OptionCode::INFO, &go(b"disk", &[])));
    assert_ne!(flags & flag::BLOCK_STATUS_PAYLOAD, 0);
    // The old way is closed to those with extended headers.
    c.run(&mut m, &option(OptionCode::EXPORT_NAME, b"disk"));
    assert!(c.wire.is_closed() && c.received.is_empty());
}

#[test]
fn contexts_are_listed_by_namespace_and_selected_by_name() {
    let mut m = machine_with(b"disk", b"x");
    let mut c = Connection::new(&mut m);
    let set = contexts(b"disk", &[b"base:allocation"]);
    assert_eq!(c.answer(&mut m, OptionCode::SET_META_CONTEXT, &set), ReplyCode::ERR_INVALID);
    c.ack(&mut m, OptionCode::STRUCTURED_REPLY, &[]);
    let mut names = |code: OptionCode, queries: &[&[u8]]| -> Vec<(u32, String)> {
        let replies = c.option(&mut m, code, &contexts(b"disk", queries));
        assert_eq!(replies.last().unwrap().0, ReplyCode::ACK);
        let contexts = replies.iter().filter(|(code, _)| *code == ReplyCode::META_CONTEXT);
        let parse = |data: &Vec<u8>| {
            let (id, name) = data.split_first_chunk::<4>().unwrap();
            (u32::from_be_bytes(*id), String::from_utf8(name.to_vec()).unwrap())
        };
        contexts.map(|(_, data)| parse(data)).collect()
    };
    let (base, ours) = ("base:allocation".to_string(), "x-umbra:sharing".to_string());
    let (list, set) = (OptionCode::LIST_META_CONTEXT, OptionCode::SET_META_CONTEXT);
    assert_eq!(names(list, &[]), [(0, base.clone()), (0, ours.clone())]);
    assert_eq!(names(list, &[b"base:"]), [(0, base.clone())]);
    assert_eq!(names(list, &[b"x-umbra:", b"x-umbra:sharing"]), [(0, ours.clone())]);
    assert_eq!(names(list, &[b"qemu:", b"base", b"base:dirty"]), []);
    assert_eq!(names(set, &[]), []);
    assert_eq!(names(set, &[b"base:", b"qemu:allocation-depth"]), []);
    let both = names(set, &[b"x-umbra:sharing", b"base:allocation", b"base:allocation"]);
    assert_eq!(both.iter().map(|c| &c.1).collect::<Vec<_>>(), [&base, &ours]);
    assert!(both[0].0 != both[1].0);
    let unknown = contexts(b"nothing", &[b"base:allocation"]);
    assert_eq!(c.answer(&mut m, OptionCode::SET_META_CONTEXT, &unknown), ReplyCode::ERR_UNKNOWN);
    // What failed has selected nothing.
    c.client = Default::default();
    let replies = c.option(&mut m, OptionCode::GO, &go(b"disk", &[]));
    assert_eq!(replies.last().unwrap().0, ReplyCode::ACK);
    c.client = umbra_server::testing::nbd::Client::new(Style::Structured);
    assert_eq!(c.call(&mut m, Command::BLOCK_STATUS, 0, 0, 1, &[]).errno(), 22);
}

#[test]
fn contexts_of_another_export_do_not_count() {
    let mut m = machine_with(b"disk", b"x");
    let root = m.machine.volume.root();
    let other = m.machine.volume.create(root, b"other", 0o644, NOW).unwrap();
    m.machine.volume.write(other, 0, b"yy", NOW).unwrap();
    let mut c = Connection::new(&mut m);
    c.ack(&mut m, OptionCode::STRUCTURED_REPLY, &[]);
    c.ack(&mut m, OptionCode::SET_META_CONTEXT, &contexts(b"disk", &[b"base:allocation"]));
    c.ack(&mut m, OptionCode::GO, &go(b"other", &[]));
    c.client = umbra_server::testing::nbd::Client::new(Style::Structured);
    assert_eq!(c.call(&mut m, Command::BLOCK_STATUS, 0, 0, 1, &[]).errno(), 22);
}

#[test]
fn export_name_starts_transmission_with_or_without_zeros() {
    let mut m = machine_with(b"disk", &pattern(3, 5000));
    for zeros in [true, false] {
        let mut c = Connection::new(&mut m);
        if zeros {
            // A client that says nothing of NO_ZEROES.
            c.wire = Wire::new(64 << 10, 64 << 10);
            c.nbd = Default::default();
            c.run(&mut m, &1u32.to_be_bytes());
            take_greeting(&mut c.received);
        }
        c.run(&mut m, &option(OptionCode::EXPORT_NAME, b"disk"));
        let flags = u16::from_be_bytes([c.received[8], c.received[9]]);
        let front = export_name_reply(5000, flags);
        assert_eq!(c.received[..10], front);
        assert_eq!(c.received.len(), if zeros { 134 } else { 10 });
        c.received.clear();
        assert_eq!(c.read(&mut m, 100, 1000), pattern(3, 5000)[100..1100]);
        let (_, bytes) = c.client.request(Command::DISC, 0, 0, 0, &[]);
        c.run(&mut m, &bytes);
        assert!(c.wire.is_closed());
        assert_eq!(m.exports_in_use(), 0);
    }
    let mut c = Connection::new(&mut m);
    c.run(&mut m, &option(OptionCode::EXPORT_NAME, b"nothing"));
    assert!(c.wire.is_closed() && c.received.is_empty());
}

#[test]
fn abort_is_acknowledged_and_ends_the_connection() {
    let mut m = SoftPlatform::new(8, 1);
    for data in [&b""[..], b"bye"] {
        let mut c = Connection::new(&mut m);
        c.run(&mut m, &option(OptionCode::ABORT, data));
        assert!(c.wire.is_closed());
        assert_eq!(
            take_replies(&mut c.received, OptionCode::ABORT).unwrap(),
            [(ReplyCode::ACK, vec![])]
        );
    }
}

#[test]
fn nonsense_ends_its_own_connection_only() {
    let mut m = machine_with(b"disk", b"x");
    let mut other = Connection::open(&mut m, b"disk", Style::Extended);
    let huge = umbra_proto::nbd::OptionHeader { option: OptionCode::GO, len: u32::MAX };
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &huge.encode()] {
        let mut c = Connection::new(&mut m);
        c.run(&mut m, bytes);
        assert!(c.wire.is_closed() && c.received.is_empty(), "{bytes:?}");
    }
    // Flags that the server does not know.
    let mut c = Connection::new(&mut m);
    c.wire = Wire::new(4096, 4096);
    c.nbd = Default::default();
    c.run(&mut m, &7u32.to_be_bytes());
    assert!(c.wire.is_closed());
    assert_eq!(other.read(&mut m, 0, 1), b"x");
}

#[test]
fn a_server_that_is_switched_off_says_so() {
    let mut m = machine_with(b"disk", &[1; 8192]);
    let mut busy = Connection::open(&mut m, b"disk", Style::Structured);
    let mut c = Connection::new(&mut m);
    m.powered_off = true;
    for code in [OptionCode::GO, OptionCode::LIST, OptionCode::STRUCTURED_REPLY] {
        assert_eq!(c.answer(&mut m, code, &[]), ReplyCode::ERR_SHUTDOWN);
    }
    c.run(&mut m, &option(OptionCode::ABORT, &[]));
    assert!(c.wire.is_closed());
    assert_eq!(busy.call(&mut m, Command::READ, 0, 0, 512, &[]).errno(), 108);
    assert_eq!(busy.write(&mut m, 0, 0, &[2; 4096]).errno(), 108);
    assert_eq!(busy.call(&mut m, Command::FLUSH, 0, 0, 0, &[]).errno(), 108);
}
