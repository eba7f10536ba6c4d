//! Writes whose content came into blocks of the volume, and files that are frozen.

mod common;

use common::files::{CREATE, Full, content, opened, put, read, start, write};
use common::{Connection, parse, request};
use umbra_fs::{Block, FileBlock, Ino, LENT_RUN, Pmem};
use umbra_proto::rpc::{self, ErrorCode, HEADER_LEN, Request, open};
use umbra_server::Progress;

const PAGE: usize = 4096;

/// The bytes of a write whose payload begins at a page.
fn aligned<R: Request>(id: u32, body: &R, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_LEN];
    rpc::encode_append(body, &mut frame);
    let by = PAGE - frame.len();
    rpc::pad(&mut frame, HEADER_LEN, by);
    let header =
        rpc::Header::request(id, R::METHOD.0, (PAGE - HEADER_LEN) as u32, payload.len() as u32);
    frame[..HEADER_LEN].copy_from_slice(&header.encode());
    [&frame, payload].concat()
}

/// Sends bytes in packets that come into blocks which the volume has lent, and takes the only
/// answer.
fn receive(c: &mut Connection, m: &mut Full, bytes: &[u8]) -> common::Response {
    for packet in bytes.chunks(LENT_RUN as usize * PAGE) {
        let run = m.machine.volume.lend().expect("there is room");
        m.machine.volume.pmem_mut().write(run.0 * PAGE as u64, packet);
        assert_eq!(c.wire.to_server.push(packet), packet.len());
        c.wire.blocks = Some((run, 0));
        while c.poll(m) == Progress::Again {}
        assert!(c.wire.to_server.is_empty());
        c.wire.blocks = None;
        m.machine.volume.take_back(run);
        // Whatever is in blocks that were given back is nobody's.
        let lending = m.machine.volume.lending();
        assert_eq!(lending.lent, 0);
    }
    c.wire.to_client.pull(usize::MAX, &mut c.received);
    parse(&mut c.received).pop().expect("an answer")
}

fn blocks(m: &Full, ino: u64) -> Vec<Option<Block>> {
    let mut blocks = Vec::new();
    while let Some(run) = m.machine.volume.extent(Ino(ino), FileBlock(blocks.len() as u64)).unwrap()
    {
        blocks.extend((0..run.blocks).map(|i| run.at.map(|at| Block(at.0 + i))));
    }
    blocks
}

fn receiving() -> (Connection, Full) {
    // The ring does not wrap: packets are contiguous.
    let (mut c, mut m) = (Connection::new(1 << 20, 64 << 10), Full::new(32, 8));
    c.greet(&mut m);
    (c, m)
}

#[test]
fn blocks_that_content_came_into_become_the_files() {
    let (mut c, mut m) = receiving();
    let handle = opened(&mut c, &mut m, b"/a", CREATE);
    // The head of a frame, 30 whole blocks and a part of one, in two packets.
    let bytes = content(30 * PAGE + 77, 1);
    let write = rpc::Write { handle, offset: 0, sync: false };
    let done: rpc::Written = receive(&mut c, &mut m, &aligned(9, &write, &bytes)).body();
    assert_eq!(done.done, bytes.len() as u64);
    assert_eq!(m.machine.volume.lending().taken_over, 30);
    assert!(read(&mut c, &mut m, handle, 0, 1 << 30) == bytes);
    m.check();
    // Over blocks of the file's own it is copied, and they stay.
    let before = blocks(&m, 2);
    let again = content(8 * PAGE, 2);
    let done: rpc::Written = receive(&mut c, &mut m, &aligned(10, &write, &again)).body();
    assert_eq!((done.done, m.machine.volume.lending().taken_over), (again.len() as u64, 30));
    assert_eq!(blocks(&m, 2), before);
    // Over shared ones it is not.
    c.ok(&mut m, &rpc::CloneFile { from: b"/a", to: b"/b" });
    let third = content(8 * PAGE, 3);
    receive(&mut c, &mut m, &aligned(11, &write, &third));
    assert_eq!(m.machine.volume.lending().taken_over, 38);
    assert!(read(&mut c, &mut m, handle, 0, third.len() as u64) == third);
    let clone = opened(&mut c, &mut m, b"/b", 0);
    assert!(
        read(&mut c, &mut m, clone, 0, 1 << 30) == [&again[..], &bytes[again.len()..]].concat()
    );
    m.check();
}

#[test]
fn what_does_not_lie_like_blocks_is_copied() {
    let (mut c, mut m) = receiving();
    let handle = opened(&mut c, &mut m, b"/a", CREATE);
    let bytes = content(10 * PAGE, 4);
    // The payload is not at a page; and it is, but not where a block of the file begins.
    let write = rpc::Write { handle, offset: 0, sync: false };
    receive(&mut c, &mut m, &request(9, &write, &bytes));
    let write = rpc::Write { handle, offset: 5 * PAGE as u64 + 1, sync: false };
    receive(&mut c, &mut m, &aligned(10, &write, &bytes));
    // Stores go through windows.
    receive(
        &mut c,
        &mut m,
        &aligned(11, &rpc::Store { handle, offset: 0, sync: true }, &bytes[PAGE..3 * PAGE]),
    );
    assert_eq!(m.machine.volume.lending().taken_over, 0);
    let mut expected = [&bytes[..5 * PAGE + 1], &bytes].concat();
    expected[..2 * PAGE].copy_from_slice(&bytes[PAGE..3 * PAGE]);
    assert!(read(&mut c, &mut m, handle, 0, 1 << 30) == expected);
    m.check();
}

#[test]
fn a_write_that_fails_leaves_the_blocks_with_the_device() {
    let (mut c, mut m) = receiving();
    let bytes = content(4 * PAGE, 5);
    let handle = opened(&mut c, &mut m, b"/a", CREATE);
    let free = m.machine.volume.space().free;
    let write = rpc::Write { handle, offset: rpc_limit() - PAGE as u64, sync: false };
    let answer = receive(&mut c, &mut m, &aligned(9, &write, &bytes));
    assert_eq!(answer.error().code, ErrorCode::TOO_LARGE);
    let write = rpc::Write { handle: 77, offset: 0, sync: false };
    assert_eq!(
        receive(&mut c, &mut m, &aligned(10, &write, &bytes)).error().code,
        ErrorCode::BAD_HANDLE
    );
    assert_eq!(m.machine.volume.space().free, free);
    m.check();
}

/// The largest file.
fn rpc_limit() -> u64 {
    umbra_fs::MAX_FILE_SIZE
}

#[test]
fn a_frozen_file_stays_as_it_was() {
    let (mut c, mut m) = start();
    let bytes = content(300_000, 6);
    let handle = put(&mut c, &mut m, b"/a", &bytes);
    c.call(&mut m, &rpc::Store { handle, offset: 5000, sync: false }, b"stored")
        .body::<rpc::Written>();
    let mut expected = bytes.clone();
    expected[5000..5006].copy_from_slice(b"stored");
    let free = m.machine.volume.space().free;
    let inodes = m.machine.volume.space().inodes;
    let frozen = c.ok(&mut m, &rpc::Open { path: b"/a", flags: open::FROZEN, mode: None });
    let mut start = [0; rpc::IDENTITY_LEN];
    m.machine.volume.pmem().read(0, &mut start).unwrap();
    assert_eq!((frozen.size, frozen.identity.map(Into::into)), (300_000, Some(start)));
    let at = blocks(&m, frozen.ino);
    // Changed in each way there is, cut, and gone.
    write(&mut c, &mut m, handle, 0, &content(100_000, 7));
    c.call(&mut m, &rpc::Store { handle, offset: 200_000, sync: true }, b"stored")
        .body::<rpc::Written>();
    c.ok(&mut m, &rpc::Truncate { path: Some(b"/a"), handle: None, size: 10 });
    c.ok(&mut m, &rpc::Close { handle });
    c.ok(&mut m, &rpc::Unlink { path: b"/a" });
    c.ok(&mut m, &rpc::Reclaim { wait: true });
    let other = put(&mut c, &mut m, b"/b", &content(1 << 20, 8));
    c.ok(&mut m, &rpc::Close { handle: other });
    m.check();
    assert!(read(&mut c, &mut m, frozen.handle, 0, 1 << 30) == expected);
    assert_eq!(blocks(&m, frozen.ino), at);
    // Nothing can be changed through it.
    let handle = frozen.handle;
    let refused = [
        write(&mut c, &mut m, handle, 0, b"x"),
        c.call(&mut m, &rpc::Store { handle, offset: 0, sync: false }, b"x"),
        c.call(&mut m, &rpc::Truncate { path: None, handle: Some(handle), size: 0 }, &[]),
        c.call(
            &mut m,
            &rpc::SetAttributes { handle: Some(handle), mode: Some(0o600), ..Default::default() },
            &[],
        ),
    ];
    for answer in refused {
        assert_eq!(answer.error().code, ErrorCode::READ_ONLY);
    }
    c.ok(&mut m, &rpc::Close { handle });
    c.ok(&mut m, &rpc::Unlink { path: b"/b" });
    c.ok(&mut m, &rpc::Reclaim { wait: true });
    let space = m.machine.volume.space();
    // Its node goes too, and the twin of that.
    assert_eq!((space.inodes, space.free), (inodes - 1, free + 300_000u64.div_ceil(4096) + 2));
    m.check();
    // With its connection it goes, too.
    put(&mut c, &mut m, b"/c", &bytes);
    let inodes = m.machine.volume.space().inodes;
    c.ok(&mut m, &rpc::Open { path: b"/c", flags: open::FROZEN, mode: None });
    assert_eq!(m.machine.volume.space().inodes, inodes + 1);
    c.vanish(&mut m);
    assert_eq!(m.machine.volume.space().inodes, inodes);
    m.check();
}

#[test]
fn only_files_are_frozen() {
    let (mut c, mut m) = start();
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/d", mode: None, parents: false });
    let freeze = |path| rpc::Open { path, flags: open::FROZEN, mode: None };
    assert_eq!(c.call(&mut m, &freeze(b"/d"), &[]).error().code, ErrorCode::IS_DIRECTORY);
    assert_eq!(c.call(&mut m, &freeze(b"/none"), &[]).error().code, ErrorCode::NOT_FOUND);
    assert_eq!(m.counters.handles, 0);
    m.check();
}
