//! Content of files, through the native protocol over a volume in memory.

mod common;

use common::files::{CREATE, Full, content, opened, put, read, start, stat, write};
use common::{Connection, Random};
use umbra_proto::rpc::{self, ErrorCode, kind};

#[test]
fn what_is_written_is_read() {
    let (mut c, mut m) = start();
    let bytes = content(1_000_001, 1);
    let h = put(&mut c, &mut m, b"/a", &bytes);
    assert!(read(&mut c, &mut m, h, 0, u64::MAX) == bytes);
    let mut random = Random(2);
    for _ in 0..50 {
        let (at, len) = (random.below(1_100_000), random.below(300_000));
        let end = (at + len).min(bytes.len());
        let expected = bytes.get(at..end).unwrap_or(&[]);
        assert!(read(&mut c, &mut m, h, at as u64, len as u64) == expected, "{len} at {at}");
    }
    assert!(read(&mut c, &mut m, h, u64::MAX, u64::MAX).is_empty());
    let a = stat(&mut c, &mut m, b"/a");
    assert_eq!((a.size, a.kind, a.nlink, a.mode), (1_000_001, kind::FILE, 1, 0o644));
    assert_eq!(a.blocks, Some(1_000_001u64.div_ceil(4096)));
    m.check();
}

/// The same writes and reads over rings of many sizes: every way that pieces can be cut.
#[test]
fn the_sizes_of_the_rings_do_not_matter() {
    let mut random = Random(3);
    for round in 0..40 {
        let window = 4096 + random.below(20_000);
        let ring = [1, 16, 17, 18, 100, 4096, 4113, 8192, 20_000, 100_000][round % 10];
        let (mut c, mut m) = (Connection::new(window, ring), Full::new(16, 4));
        c.greet(&mut m);
        let h = opened(&mut c, &mut m, b"/a", CREATE);
        let mut model = Vec::new();
        for _ in 0..6 {
            let (at, len) = (random.below(60_000), 1 + random.below(60_000));
            let bytes = content(len, random.next());
            if model.len() < at + len {
                model.resize(at + len, 0);
            }
            model[at..at + len].copy_from_slice(&bytes);
            assert_eq!(
                write(&mut c, &mut m, h, at as u64, &bytes).body::<rpc::Written>().done,
                len as u64
            );
            let (at, len) = (random.below(model.len()), 1 + random.below(60_000));
            let len = len.min(model.len() - at);
            let bytes = content(len, random.next());
            model[at..at + len].copy_from_slice(&bytes);
            let stored =
                c.call(&mut m, &rpc::Store { handle: h, offset: at as u64, sync: true }, &bytes);
            assert_eq!(stored.body::<rpc::Written>().done, len as u64);
            assert!(read(&mut c, &mut m, h, 0, 1 << 40) == model, "window {window}, ring {ring}");
        }
        m.check();
    }
}

#[test]
fn large_writes_are_cut_at_blocks_only() {
    // A window that wraps everywhere: each block must still be written once.
    let (mut c, mut m) = (Connection::new(10_007, 4096), Full::new(16, 4));
    c.greet(&mut m);
    let h = opened(&mut c, &mut m, b"/a", CREATE);
    let bytes = content(1 << 20, 4);
    let before = m.machine.volume.pmem().flushes;
    write(&mut c, &mut m, h, 0, &bytes);
    let lines = m.machine.volume.pmem().flushes - before;
    assert!(read(&mut c, &mut m, h, 0, 1 << 20) == bytes);
    // 16,384 lines of data, and those of nodes and the inode; blocks that were written twice would
    // double it.
    assert!(lines < 32_768, "{lines} lines flushed for 16,384 lines of data");
    m.check();
}

#[test]
fn reads_stop_at_the_end_and_loads_do_not_go_there() {
    let (mut c, mut m) = start();
    let h = put(&mut c, &mut m, b"/a", b"hello");
    assert_eq!(read(&mut c, &mut m, h, 3, 100), b"lo");
    assert_eq!(read(&mut c, &mut m, h, 5, 1), b"");
    assert_eq!(c.call(&mut m, &rpc::Load { handle: h, offset: 1, len: 4 }, &[]).payload, b"ello");
    let beyond = c.call(&mut m, &rpc::Load { handle: h, offset: 1, len: 5 }, &[]);
    assert_eq!((beyond.error().code, beyond.error().done), (ErrorCode::OUT_OF_RANGE, Some(0)));
    assert!(beyond.payload.is_empty());
    let beyond = c.call(&mut m, &rpc::Store { handle: h, offset: 4, sync: false }, b"xy");
    assert_eq!((beyond.error().code, beyond.error().done), (ErrorCode::OUT_OF_RANGE, Some(0)));
    for offset in [u64::MAX, u64::MAX - 2, 512 << 30] {
        let far = c.call(&mut m, &rpc::Store { handle: h, offset, sync: false }, b"xyz");
        assert_eq!(far.error().code, ErrorCode::OUT_OF_RANGE);
        assert_eq!(write(&mut c, &mut m, h, offset, b"xyz").error().code, ErrorCode::TOO_LARGE);
    }
    assert_eq!(read(&mut c, &mut m, h, 0, 100), b"hello");
    m.check();
}

#[test]
fn stores_into_a_clone_copy_and_leave_the_source() {
    let (mut c, mut m) = start();
    let bytes = content(64 << 10, 5);
    let a = put(&mut c, &mut m, b"/a", &bytes);
    let cloned = c.ok(&mut m, &rpc::CloneFile { from: b"/a", to: b"/b" });
    assert!(cloned.fences > 0 && cloned.flushes > 0 && cloned.elapsed_ns > 0);
    let b = opened(&mut c, &mut m, b"/b", 0);
    assert!(
        read(&mut c, &mut m, a, 0, 1 << 20) == bytes
            && read(&mut c, &mut m, b, 0, 1 << 20) == bytes
    );
    let before = c.ok(&mut m, &rpc::Pages::default());
    assert_eq!((before.windows, before.masters, before.writable), (2, 16, 0));
    let patch = content(5000, 6);
    let stored = c.call(&mut m, &rpc::Store { handle: b, offset: 4000, sync: false }, &patch);
    assert_eq!(stored.body::<rpc::Written>().done, 5000);
    let after = c.ok(&mut m, &rpc::Pages::default());
    assert_eq!((after.writable, after.faults.cow - before.faults.cow), (3, 3));
    assert_eq!(after.faults.foreign_unmapped, 0);
    assert_eq!(c.ok(&mut m, &rpc::Msync { handle: b }), rpc::Done {});
    let of_b = c.ok(&mut m, &rpc::Pages { path: Some(b"/b"), handle: None });
    assert_eq!((of_b.windows, of_b.writable), (1, 0));
    let mut expected = bytes.clone();
    expected[4000..9000].copy_from_slice(&patch);
    assert!(read(&mut c, &mut m, b, 0, 1 << 20) == expected);
    assert!(read(&mut c, &mut m, a, 0, 1 << 20) == bytes);
    let again = c.call(&mut m, &rpc::CloneFile { from: b"/a", to: b"/b" }, &[]);
    assert_eq!(again.error().code, ErrorCode::EXISTS);
    assert_eq!(again.error().message, "cannot clone '/a' to '/b': the name exists already");
    m.check();
}

#[test]
fn ranges_are_shared() {
    let (mut c, mut m) = start();
    let (one, two) = (content(40_000, 7), content(40_000, 8));
    put(&mut c, &mut m, b"/a", &one);
    let b = put(&mut c, &mut m, b"/b", &two);
    let range = |from_offset, to_offset, len| rpc::CloneRange {
        from: b"/a",
        to: b"/b",
        from_offset,
        to_offset,
        len,
    };
    c.ok(&mut m, &range(8192, 4096, Some(8192)));
    let mut model = two.clone();
    model[4096..12_288].copy_from_slice(&one[8192..16_384]);
    assert!(read(&mut c, &mut m, b, 0, 1 << 20) == model);
    // To the end of the source, at the end of the destination.
    c.ok(&mut m, &range(36_864, 36_864, None));
    model[36_864..].copy_from_slice(&one[36_864..]);
    assert!(read(&mut c, &mut m, b, 0, 1 << 20) == model);
    for bad in [range(1, 0, Some(4096)), range(0, 0, Some(100)), range(1 << 20, 0, None)] {
        assert_eq!(c.call(&mut m, &bad, &[]).error().code, ErrorCode::INVALID);
    }
    assert!(read(&mut c, &mut m, b, 0, 1 << 20) == model);
    m.check();
}

#[test]
fn equal_ranges_are_shared_and_different_ones_are_told() {
    let (mut c, mut m) = start();
    let bytes = content(1_000_000, 7);
    put(&mut c, &mut m, b"/a", &bytes);
    let b = put(&mut c, &mut m, b"/b", &bytes);
    let dedupe = |from_offset, to_offset, len| rpc::Dedupe {
        from: b"/a",
        to: b"/b",
        from_offset,
        to_offset,
        len,
    };
    let done = c.ok(&mut m, &dedupe(8192, 8192, Some(8192)));
    assert_eq!((done.shared, done.differs_at), (8192, None));
    let done = c.ok(&mut m, &dedupe(0, 0, None));
    assert_eq!((done.shared, done.differs_at), (1_000_000 - 8192, None));
    assert!(done.elapsed_ns > 0);
    // A dirty page of the other file is what it shows.
    let stored: rpc::Written =
        c.call(&mut m, &rpc::Store { handle: b, offset: 900_000, sync: false }, b"!").body();
    assert_eq!(stored.done, 1);
    let done = c.ok(&mut m, &dedupe(0, 0, None));
    assert_eq!((done.shared, done.differs_at), (0, Some(900_000)));
    for bad in [dedupe(1, 0, Some(4096)), dedupe(0, 4096, None), dedupe(1 << 22, 0, None)] {
        assert_eq!(c.call(&mut m, &bad, &[]).error().code, ErrorCode::INVALID);
    }
    let missing = rpc::Dedupe { from: b"/a", to: b"/x", from_offset: 0, to_offset: 0, len: None };
    assert_eq!(
        c.call(&mut m, &missing, &[]).error().message,
        "cannot dedupe '/a' and '/x': no such file or directory"
    );
    let mut expected = bytes;
    expected[900_000] = b'!';
    assert!(read(&mut c, &mut m, b, 0, 1 << 22) == expected);
    m.check();
}

#[test]
fn benchmarks_measure_and_leave_nothing() {
    let (mut c, mut m) = (Connection::new(64 << 10, 64 << 10), Full::new(96, 16));
    c.greet(&mut m);
    let before = c.ok(&mut m, &rpc::Space {});
    let samples = |c: &mut Connection, m: &mut Full, part, parameter| -> Vec<rpc::Sample> {
        c.call(m, &rpc::Bench { part, parameter: Some(parameter), keep: false }, &[]).items()
    };
    let all = samples(&mut c, &mut m, "operations", 8);
    let found =
        |name: &str| all.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!((found("seq_write_2MiB").ops, found("mmap_cow_fault_random").ops), (4, 2048));
    // Two fences for what is published, none for what is only granted. 64 lines of the page, and
    // the entry in both copies of its node.
    let cow = found("mmap_cow_fault_private_leaf");
    assert_eq!((cow.fences, cow.flushes), (2 * cow.ops, 66 * cow.ops));
    assert_eq!(found("mmap_rewrite_after_msync").fences, 0);
    // And some for buckets that are split, and blocks of inodes.
    assert!((1000..1200).contains(&found("create").fences));
    assert!(all.iter().all(|s| s.ns > 0));
    let parts = [
        ("clone-size", 9 << 20),
        ("clone-fragments", 64),
        ("fault-clones", 20),
        ("fault-shadows", 6),
        ("fault-size", 1 << 32),
        ("directory", 700),
    ];
    for (part, parameter) in parts {
        let all = samples(&mut c, &mut m, part, parameter);
        assert!(!all.is_empty() && all.iter().all(|s| s.ns > 0), "{part}: {all:?}");
    }
    assert_eq!(samples(&mut c, &mut m, "floor", 0), []);
    let unknown = c.call(&mut m, &rpc::Bench { part: "x", parameter: None, keep: false }, &[]);
    assert_eq!(unknown.error().code, ErrorCode::UNSUPPORTED);
    let too_large =
        c.call(&mut m, &rpc::Bench { part: "operations", parameter: Some(64), keep: false }, &[]);
    assert_eq!(too_large.error().code, ErrorCode::NO_SPACE);
    let after = c.ok(&mut m, &rpc::Space {});
    assert_eq!((after.inodes, after.blocks_shared), (before.inodes, 0));
    // A directory that was large keeps its buckets; free inodes keep their blocks, 16 in
    // each; all of these have twins.
    assert!(before.blocks_free - after.blocks_free < 204, "{before:?} {after:?}");
    m.check();
}
