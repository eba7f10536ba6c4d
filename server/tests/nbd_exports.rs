//! Exports: added, listed, removed, kept; and what their users are protected from.

mod common;

use common::exports::{add, go, list, rpc};
use common::nbd;
use common::nbd::{NOW, machine_with, pattern};
use umbra_fs::testing::{SoftMachine, mount};
use umbra_proto::nbd::{OptionCode, ReplyCode, Style};
use umbra_proto::rpc::{self, ErrorCode, Export, ExportAdd, ExportList, ExportRemove};
use umbra_server::testing::SoftPlatform;

#[test]
fn exports_are_added_listed_and_removed() {
    let mut m = machine_with(b"disk", &pattern(1, 10_000));
    m.add_region(4);
    let mut c = rpc(&mut m);
    let region = list(&mut c, &mut m);
    assert_eq!(region.len(), 1);
    assert_eq!((region[0].name.as_str(), region[0].size), ("nvdimm:0", Some(4 << 20)));
    assert_eq!(region[0].path, None);

    c.ok(&mut m, &add("golden", b"/disk"));
    c.ok(&mut m, &ExportAdd { read_only: true, size: Some(4096), ..add("front", b"/disk") });
    c.ok(&mut m, &ExportAdd { size: Some(1 << 20), ..add("grown", b"disk") });
    let all = list(&mut c, &mut m);
    let shown: Vec<_> =
        all.iter().map(|e| (e.name.as_str(), e.size, e.read_only, e.fixed_size)).collect();
    assert_eq!(
        shown,
        [
            ("golden", Some(1 << 20), false, false),
            ("front", Some(4096), true, true),
            ("grown", Some(1 << 20), false, true),
            ("nvdimm:0", Some(4 << 20), false, false),
        ]
    );
    assert_eq!(all[0].path.as_deref(), Some(&b"/disk"[..]));

    let error = c.call(&mut m, &add("golden", b"/disk"), &[]).error();
    assert_eq!(error.code, ErrorCode::EXISTS);
    c.ok(&mut m, &ExportAdd { replace: true, read_only: true, ..add("golden", b"/disk") });
    c.ok(&mut m, &ExportRemove { name: "front", force: false });
    assert_eq!(
        c.call(&mut m, &ExportRemove { name: "front", force: false }, &[]).error().code,
        ErrorCode::NOT_FOUND
    );
    assert_eq!(list(&mut c, &mut m).len(), 3);

    for (bad, code) in [
        (add("x", b"/nothing"), ErrorCode::NOT_FOUND),
        (add("x", b"/"), ErrorCode::IS_DIRECTORY),
        (add("", b"/disk"), ErrorCode::INVALID_NAME),
        (add("a\nb", b"/disk"), ErrorCode::INVALID_NAME),
        (add("x", b""), ErrorCode::INVALID_NAME),
        (
            ExportAdd { read_only: true, size: Some(1 << 30), ..add("x", b"/disk") },
            ErrorCode::INVALID,
        ),
        (ExportAdd { size: Some(1 << 62), ..add("x", b"/disk") }, ErrorCode::TOO_LARGE),
    ] {
        let error = c.call(&mut m, &bad, &[]).error();
        assert_eq!(error.code, code, "{bad:?}: {error}");
    }
    m.check();
}

#[test]
fn exports_survive_a_restart_and_a_crash() {
    let mut m = machine_with(b"disk", &pattern(1, 10_000));
    let mut c = rpc(&mut m);
    c.ok(&mut m, &add("golden", b"/disk"));
    for unmount in [false, true] {
        let volume =
            std::mem::replace(&mut m.machine.volume, SoftPlatform::new(8, 1).machine.volume);
        let pmem = if unmount { volume.unmount().unwrap().0 } else { volume.pmem().clone() };
        m = SoftPlatform::new(8, 1);
        m.machine = SoftMachine { volume: mount(pmem, 4).unwrap() };
        let mut c = rpc(&mut m);
        let all = list(&mut c, &mut m);
        assert_eq!((all.len(), all[0].name.as_str(), all[0].size), (1, "golden", Some(10_000)));
        let mut client = nbd::Connection::open(&mut m, b"golden", Style::Structured);
        assert_eq!(client.read(&mut m, 0, 10_000), pattern(1, 10_000));
        client.vanish(&mut m);
    }
}

#[test]
fn clients_are_offered_what_was_added_and_find_the_rest_by_path() {
    let mut m = machine_with(b"disk", &pattern(1, 5000));
    m.add_region(1);
    let mut c = rpc(&mut m);
    let names = |m: &mut SoftPlatform| -> Vec<String> {
        let mut client = nbd::Connection::new(m);
        let replies = client.option(m, OptionCode::LIST, &[]);
        let names = replies.iter().filter(|(code, _)| *code == ReplyCode::SERVER);
        let name = |data: &Vec<u8>| {
            let len = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
            String::from_utf8(data[4..4 + len].to_vec()).unwrap()
        };
        names.map(|(_, data)| name(data)).collect()
    };
    assert_eq!(names(&mut m), ["nvdimm:0"]);
    c.ok(&mut m, &add("golden", b"/disk"));
    assert_eq!(names(&mut m), ["golden", "nvdimm:0"]);
    for name in [&b"golden"[..], b"", b"/disk", b"disk", b"//disk"] {
        let mut client = nbd::Connection::open(&mut m, name, Style::Simple);
        assert_eq!(client.read(&mut m, 0, 5000), pattern(1, 5000));
        client.vanish(&mut m);
    }
    c.ok(&mut m, &add("second", b"/disk"));
    let mut client = nbd::Connection::new(&mut m);
    assert_eq!(go(&mut client, &mut m, b""), ReplyCode::ERR_UNKNOWN, "which of the two?");
}

#[test]
fn what_clients_use_is_neither_deleted_nor_cut_short() {
    let mut m = machine_with(b"disk", &pattern(1, 10_000));
    let mut c = rpc(&mut m);
    c.ok(&mut m, &rpc::Create { path: b"/other", mode: None });
    c.ok(&mut m, &add("golden", b"/disk"));
    let one = nbd::Connection::open(&mut m, b"golden", Style::Simple);
    let two = nbd::Connection::open(&mut m, b"golden", Style::Structured);
    let mut third = nbd::Connection::open(&mut m, b"/disk", Style::Extended);

    let who =
        "in use by 2 NBD clients of the export 'golden' and 1 NBD client of the export '/disk'";
    let refused = |m: &mut SoftPlatform, response: common::Response| {
        let error = response.error();
        assert_eq!(error.code, ErrorCode::BUSY, "{error}");
        assert!(error.message.ends_with(who), "{error}");
        m.check();
    };
    let r = c.call(&mut m, &rpc::Unlink { path: b"/disk" }, &[]);
    refused(&mut m, r);
    let r = c.call(&mut m, &rpc::Rename { from: b"/other", to: b"/disk" }, &[]);
    refused(&mut m, r);
    for check in [true, false] {
        let link =
            rpc::Link { path: Some(b"/other"), to: b"/disk", handle: None, replace: true, check };
        let r = c.call(&mut m, &link, &[]);
        refused(&mut m, r);
    }
    let r = c.call(&mut m, &rpc::Truncate { path: Some(b"/disk"), handle: None, size: 9999 }, &[]);
    refused(&mut m, r);
    let r =
        c.call(&mut m, &rpc::Open { path: b"/disk", flags: rpc::open::TRUNCATE, mode: None }, &[]);
    refused(&mut m, r);
    let error = c.call(&mut m, &ExportRemove { name: "golden", force: false }, &[]).error();
    assert_eq!(error.code, ErrorCode::BUSY, "{error}");
    let again = ExportAdd { replace: true, ..add("golden", b"/other") };
    assert_eq!(c.call(&mut m, &again, &[]).error().code, ErrorCode::BUSY);

    // What takes nothing away is allowed.
    c.ok(&mut m, &rpc::Link { path: Some(b"/disk"), to: b"/second", ..Default::default() });
    c.ok(&mut m, &rpc::Unlink { path: b"/second" });
    c.ok(&mut m, &rpc::Truncate { path: Some(b"/disk"), handle: None, size: 20_000 });
    c.ok(&mut m, &rpc::CloneFile { from: b"/disk", to: b"/clone" });
    c.ok(&mut m, &rpc::Rename { from: b"/disk", to: b"/moved" });
    assert_eq!(third.size, 10_000);
    assert_eq!(third.read(&mut m, 0, 10_000), pattern(1, 10_000));
    let all = list(&mut c, &mut m);
    assert_eq!((all[0].name.as_str(), all[0].clients), ("golden", 0), "it leads nowhere");
    assert!(all[0].problem.as_ref().is_some_and(|p| p.contains("no such file")), "{all:?}");
    assert_eq!(
        (all[1].name.as_str(), all[1].clients, all[1].by_path, all[1].moved),
        ("golden", 2, false, true)
    );
    assert_eq!(
        (all[2].name.as_str(), all[2].clients, all[2].by_path, all[2].moved),
        ("/disk", 1, true, true)
    );

    for client in [one, two, third] {
        client.vanish(&mut m);
    }
    c.ok(&mut m, &rpc::Unlink { path: b"/moved" });
    c.ok(&mut m, &ExportRemove { name: "golden", force: false });
    m.check();
}

#[test]
fn a_damaged_list_of_exports_is_an_error_that_names_the_file() {
    let mut m = machine_with(b"disk", &pattern(1, 10_000));
    let mut c = rpc(&mut m);
    c.ok(&mut m, &add("golden", b"/disk"));
    let ino = m.machine.volume.resolve(b"/.umbra/exports").unwrap();
    m.machine.volume.write(ino, 0, &[0xff; 3], NOW).unwrap();
    let error = c.call(&mut m, &ExportList {}, &[]).error();
    assert!(error.message.contains("/.umbra/exports"), "{error}");
    let mut client = nbd::Connection::new(&mut m);
    assert_eq!(go(&mut client, &mut m, b"golden"), ReplyCode::ERR_POLICY);
    c.ok(&mut m, &rpc::Unlink { path: b"/.umbra/exports" });
    assert_eq!(list(&mut c, &mut m), []);
}

#[test]
fn many_exports_are_listed_in_frames() {
    let mut m = machine_with(b"disk", b"x");
    let mut c = rpc(&mut m);
    for i in 0..200 {
        c.ok(&mut m, &add(&format!("{i:0100}"), b"/disk"));
    }
    let response = c.call(&mut m, &ExportList {}, &[]);
    assert!(response.bodies.len() > 1);
    assert_eq!(response.items::<Export>().len(), 200);
    m.check();
}
