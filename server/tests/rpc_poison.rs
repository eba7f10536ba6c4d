//! Memory errors, as clients meet them.

mod common;

use common::files::{CREATE, opened};
use common::nbd::{Connection as Nbd, STYLES};
use common::{Connection, parse, request};
use umbra_fs::{BLOCK_SIZE, FileBlock, Ino, Time};
use umbra_proto::nbd::{Command, Errno};
use umbra_proto::rpc::{self, BadBlock, ErrorCode, Items};
use umbra_server::testing::SoftPlatform;

const NOW: Time = Time(7);

/// A file of eight blocks at `/file`, a clone of it at `/dir/clone`, and another file.
fn machine() -> (SoftPlatform, Ino) {
    let mut m = SoftPlatform::new(24, 4);
    let volume = &mut m.machine.volume;
    let root = volume.root();
    let file = volume.create(root, b"file", 0o644, NOW).unwrap();
    volume.write(file, 0, &[5; 8 * BLOCK_SIZE as usize], NOW).unwrap();
    let dir = volume.mkdir(root, b"dir", 0o755, NOW).unwrap();
    volume.clone_file(file, dir, b"clone", NOW).unwrap();
    let other = volume.create(root, b"other", 0o644, NOW).unwrap();
    volume.write(other, 0, &[6; BLOCK_SIZE as usize], NOW).unwrap();
    (m, file)
}

fn list(c: &mut Connection, m: &mut SoftPlatform) -> Vec<BadBlock> {
    c.run(m, &request(5, &rpc::PoisonList {}, &[]));
    let answers = parse(&mut c.received);
    assert!(!answers[0].failed);
    let frames = answers[0].bodies.iter();
    frames.flat_map(|body| rpc::decode::<Items<BadBlock>>(body).unwrap().items).collect()
}

fn events(c: &mut Connection, m: &mut SoftPlatform, since: u64) -> Vec<rpc::Event> {
    c.run(m, &request(5, &rpc::Events { since }, &[]));
    let answers = parse(&mut c.received);
    let frames = answers[0].bodies.iter();
    frames.flat_map(|body| rpc::decode::<Items<rpc::Event>>(body).unwrap().items).collect()
}

#[test]
fn what_is_injected_is_listed_with_its_owners_and_can_be_cleared() {
    let (mut m, file) = machine();
    let mut c = Connection::new(64 << 10, 64 << 10);
    c.greet(&mut m);
    assert_eq!(list(&mut c, &mut m), []);
    let inject = rpc::PoisonInject { path: Some(b"/file"), offset: 3 * 4096 + 5, block: None };
    let bad = c.ok(&mut m, &inject).block;
    let at = m.machine.volume.extent(file, FileBlock(3)).unwrap().unwrap().at.unwrap();
    assert_eq!(bad, at.0);
    let items = list(&mut c, &mut m);
    assert_eq!(items[0], BadBlock { block: bad, ..BadBlock::default() });
    let mut owners: Vec<_> =
        items[1..].iter().map(|it| (&it.path[..], it.offset, it.len)).collect();
    owners.sort();
    let range = (Some(3 * 4096), Some(4096));
    assert_eq!(owners, [(&b"/dir/clone"[..], range.0, range.1), (b"/file", range.0, range.1)]);
    assert!(items[1..].iter().all(|it| it.loss == Some(rpc::loss::CONTENT) && it.ino.is_some()));

    let handle = opened(&mut c, &mut m, b"/dir/clone", CREATE);
    let read = rpc::Read { handle, offset: 3 * 4096 + 1, len: 10 };
    let answer = c.call(&mut m, &read, &[]);
    assert_eq!(answer.error().code, ErrorCode::POISONED);
    let extents = rpc::Extents { handle, offset: 0, len: None, max: None };
    c.run(&mut m, &request(6, &extents, &[]));
    let answers = parse(&mut c.received);
    let runs = rpc::decode::<Items<rpc::Extent>>(&answers[0].bodies[0]).unwrap().items;
    let bad_runs: Vec<_> = runs.iter().filter(|run| run.bad).collect();
    assert_eq!(bad_runs.len(), 1);
    let rpc::Extent { offset, len, block, .. } = *bad_runs[0];
    assert_eq!((offset, len, block), (3 * 4096, 4096, None));
    assert!(!bad_runs[0].is_zero());

    // A write of the whole block heals this file, and no other.
    let write = rpc::Write { handle, offset: 3 * 4096, sync: false };
    assert!(!c.call(&mut m, &write, &[7; 4096]).failed);
    assert!(!c.call(&mut m, &read, &[]).failed);
    let items = list(&mut c, &mut m);
    assert_eq!((items.len(), &items[1].path[..]), (2, &b"/file"[..]));
    let status = c.ok(&mut m, &rpc::Status::default());
    assert_eq!((status.memory_errors, status.bad_blocks), (Some(1), Some(1)));

    assert_eq!(c.ok(&mut m, &rpc::PoisonClear {}).blocks, 1);
    assert_eq!(list(&mut c, &mut m), []);
    let said = events(&mut c, &mut m, 0);
    let kinds: Vec<&str> = said.iter().map(|event| &event.kind[..]).collect();
    assert_eq!(kinds, ["bad-blocks", "bad-blocks-cleared"]);
    assert_eq!((said[0].block, said[1].count), (Some(bad), Some(1)));
    assert_eq!(events(&mut c, &mut m, 1).len(), 1);
    m.check();
}

#[test]
fn what_cannot_be_injected_is_refused() {
    let (mut m, _) = machine();
    let mut c = Connection::new(64 << 10, 64 << 10);
    c.greet(&mut m);
    let none = rpc::PoisonInject::default();
    let both = rpc::PoisonInject { path: Some(b"/file"), block: Some(7), ..none };
    let hole = rpc::PoisonInject { path: Some(b"/file"), offset: 1 << 20, ..none };
    let missing = rpc::PoisonInject { path: Some(b"/none"), ..none };
    let beyond = rpc::PoisonInject { block: Some(24 << 8), ..none };
    for (request, code) in [
        (none, ErrorCode::INVALID),
        (both, ErrorCode::INVALID),
        (hole, ErrorCode::INVALID),
        (missing, ErrorCode::NOT_FOUND),
        (beyond, ErrorCode::OUT_OF_RANGE),
    ] {
        assert_eq!(c.call(&mut m, &request, &[]).error().code, code, "{request:?}");
    }
    assert_eq!(m.machine.volume.bad_blocks(), []);
    m.check();
}

/// NBD says EIO for exactly the block that is bad.
#[test]
fn a_disk_has_an_error_where_a_block_is_bad() {
    let (mut m, file) = machine();
    m.add_export("disk", b"/file", false, None);
    let bad = m.machine.volume.extent(file, FileBlock(3)).unwrap().unwrap().at.unwrap();
    m.machine.volume.memory_error(bad, 1).unwrap();
    for style in STYLES {
        let mut nbd = Nbd::open(&mut m, b"disk", style);
        for block in 0..8 {
            let answer = nbd.call(&mut m, Command::READ, 0, block * 4096, 4096, &[]);
            match block {
                3 => assert_eq!(answer.error.map(|(error, ..)| error), Some(Errno::EIO)),
                _ => assert_eq!((answer.error, answer.data), (None, vec![5; 4096])),
            }
        }
        nbd.vanish(&mut m);
    }
    m.check();
}
