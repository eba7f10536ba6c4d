//! What `docs/protocols.md` says that a server does, refuses or promises, sentence by sentence.
//!
//! | of the document | tests |
//! |---|---|
//! | responses in order, with the id; one frame or several | `rpc_frames.rs`: `answers_come_in_order_and_carry_the_id`; `common::parse` refuses mixed frames and unknown flags |
//! | requests have no flags; a header that breaks a limit ends the connection | `rpc_frames.rs`: `a_bad_header_ends_the_connection` |
//! | limits of body and payload; payload that nobody takes is skipped | `rpc_bodies.rs`: `frames_have_limits` |
//! | limits of path, name, file, handles; handles belong to a connection | `rpc_bodies.rs`: `paths_names_files_and_handles_have_limits` |
//! | nesting | `rpc_bodies.rs`: `a_body_nests_16_deep_the_outer_map_included` |
//! | bodies: one map, keys, keys that occur twice | `rpc_bodies.rs`: `a_body_is_one_map_of_unsigned_keys`, `a_key_below_64_does_not_occur_twice` |
//! | unknown keys, padding, tags | `rpc_bodies.rs`: `what_is_not_known_is_ignored_whatever_it_is` |
//! | types, optional keys, null, indefinite lengths | `rpc_bodies.rs`: `values_have_the_types_that_the_tables_say` |
//! | `malformed` ends the request only | `rpc_frames.rs`: `a_bad_body_ends_the_request_only`; each case of `rpc_bodies.rs` |
//! | paths | `rpc_paths.rs` |
//! | handles live on without a name; go with their connection | `rpc_names.rs`: `handles_live_as_the_protocol_says` |
//! | frozen files | `rpc_received.rs`: `a_frozen_file_stays_as_it_was`; here: `freezing_needs_a_sixteenth` |
//! | errors: text, bytes done | `rpc_bodies.rs`: `texts_of_errors_are_bounded`; `rpc_names.rs`: `a_full_volume_says_so_and_can_be_emptied` |
//! | what ends a connection | `rpc_frames.rs`: `nothing_goes_before_a_hello`, `who_finishes_gets_the_answers_and_a_close`, `who_does_not_read_is_not_served`; `rpc_bodies.rs`: `a_hello_that_is_not_good_ends_the_connection_at_any_time` |
//! | which error comes first | here: `what_the_request_alone_tells_comes_first` |
//! | status, space, bench | here: `a_new_image_was_counted`, `space_counts_blocks_that_are_shared_themselves`, `samples_come_like_any_list` |
//! | create, make-directory, remove-directory | `rpc_names.rs`: `names` |
//! | list | `rpc_names.rs`: `directories_are_listed_over_many_frames` |
//! | unlink, rename: `busy` | here: `the_last_name_of_what_clients_use_stays`; `nbd_exports.rs`: `what_clients_use_is_neither_deleted_nor_cut_short` |
//! | rename: replacing, two names of one file, into itself | here: `renames_replace_what_they_may` |
//! | truncate, set-attributes, stat | here: `either_a_path_or_a_handle`, `what_is_absent_stays` |
//! | link, open-unnamed | `rpc_unnamed.rs`, `rpc_links.rs` |
//! | symlink, read-link | `rpc_links.rs` |
//! | open: flags | here: `flags_of_open` |
//! | read, write, load, store of nothing, and beyond the end | here: `of_no_bytes_everything_succeeds`; `rpc_files.rs`: `reads_stop_at_the_end_and_loads_do_not_go_there` |
//! | extents | `rpc_names.rs`: `extents_cover_the_file` |
//! | clone, clone-range | here: `ranges_that_cannot_be_cloned`, `a_range_makes_its_destination_longer`; `rpc_files.rs`: `ranges_are_shared` |
//! | dedupe | `rpc_files.rs`: `equal_ranges_are_shared_and_different_ones_are_told` |
//! | exports | `nbd_exports.rs` |
//! | reaching the server: `CONNECT`, refused ports, half-close | `host/src/vsock/tests/connections.rs`, `tests/tests/sockets.rs` |

mod common;

use common::files::{CREATE, Full, content, opened, put, read, start, stat, write};
use common::nbd::{machine_with, pattern};
use common::{Connection, nbd, parse};
use umbra_proto::nbd::Style;
use umbra_proto::rpc::{self, ErrorCode, Header, Method, open};

fn code<R: rpc::Request>(c: &mut Connection, m: &mut Full, request: &R) -> ErrorCode {
    c.call(m, request, &[]).error().code
}

/// A request with several faults: those that can be told without the volume come first.
#[test]
fn what_the_request_alone_tells_comes_first() {
    let (mut c, mut m) = start();
    let none: &[u8] = b"/none/x";
    let long = vec![b'/'; 4097];
    // An unknown method before its body; a body before all that is in it.
    let mut raw = |method: u16, body: &[u8]| {
        let header = Header::request(7, method, body.len() as u32, 0);
        c.run(&mut m, &[&header.encode(), body].concat());
        parse(&mut c.received).remove(0).error().code
    };
    assert_eq!(raw(0x7777, &[0xff]), ErrorCode::UNSUPPORTED);
    assert_eq!(raw(Method::READ.0, &[0xa2, 0x00, 0x18, 77, 0x01, 0x00]), ErrorCode::MALFORMED);
    // A path's length before what it names, and both paths before either.
    assert_eq!(code(&mut c, &mut m, &rpc::Rename { from: none, to: &long }), ErrorCode::TOO_LONG);
    assert_eq!(
        code(&mut c, &mut m, &rpc::CloneFile { from: none, to: b"" }),
        ErrorCode::INVALID_NAME
    );
    // Modes, flags and targets before names.
    let mode = Some(0o10000);
    assert_eq!(code(&mut c, &mut m, &rpc::Create { path: none, mode }), ErrorCode::INVALID);
    let directory = rpc::MakeDirectory { path: none, mode, parents: false };
    assert_eq!(code(&mut c, &mut m, &directory), ErrorCode::INVALID);
    let set = rpc::SetAttributes { path: Some(none), mode, ..Default::default() };
    assert_eq!(code(&mut c, &mut m, &set), ErrorCode::INVALID);
    let unnamed = rpc::OpenUnnamed { path: none, mode, uid: 0, gid: 0 };
    assert_eq!(code(&mut c, &mut m, &unnamed), ErrorCode::INVALID);
    assert_eq!(code(&mut c, &mut m, &rpc::Symlink { path: none, target: b"" }), ErrorCode::INVALID);
    let flags = |flags| rpc::Open { path: none, flags, mode: None };
    assert_eq!(code(&mut c, &mut m, &flags(16)), ErrorCode::UNSUPPORTED);
    assert_eq!(code(&mut c, &mut m, &flags(open::FROZEN | open::CREATE)), ErrorCode::INVALID);
    assert_eq!(code(&mut c, &mut m, &flags(0)), ErrorCode::NOT_FOUND);
    // A size before the file that is to have it.
    let size = rpc::Truncate { path: Some(none), handle: None, size: umbra_fs::MAX_FILE_SIZE + 1 };
    assert_eq!(code(&mut c, &mut m, &size), ErrorCode::TOO_LARGE);
    m.check();
}

#[test]
fn either_a_path_or_a_handle() {
    let (mut c, mut m) = start();
    let open = put(&mut c, &mut m, b"/f", b"hello");
    let handle = Some(open);
    let path: Option<&[u8]> = Some(b"/f");
    for (path, handle, good) in
        [(path, None, true), (None, handle, true), (None, None, false), (path, handle, false)]
    {
        let answers = [
            c.call(&mut m, &rpc::Stat { path, handle, blocks: true }, &[]),
            c.call(&mut m, &rpc::Truncate { path, handle, size: 5 }, &[]),
            c.call(&mut m, &rpc::SetAttributes { path, handle, ..Default::default() }, &[]),
        ];
        for answer in answers {
            assert_eq!(answer.failed, !good, "{path:?} {handle:?}");
            assert!(good || answer.error().code == ErrorCode::INVALID);
        }
        // Of all files, if there is neither.
        let pages = c.call(&mut m, &rpc::Pages { path, handle }, &[]);
        assert_eq!(pages.failed, path.is_some() && handle.is_some());
    }
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/d", mode: None, parents: false });
    c.ok(&mut m, &rpc::Symlink { path: b"/l", target: b"f" });
    let cut = |path| rpc::Truncate { path: Some(path), handle: None, size: 1 };
    assert_eq!(code(&mut c, &mut m, &cut(b"/d")), ErrorCode::IS_DIRECTORY);
    assert_eq!(code(&mut c, &mut m, &cut(b"/l")), ErrorCode::INVALID);
    // What is gained reads as zeros and takes no blocks.
    c.ok(&mut m, &rpc::Truncate { size: 1 << 30, ..cut(b"/f") });
    let found = stat(&mut c, &mut m, b"/f");
    assert_eq!((found.size, found.blocks), (1 << 30, Some(1)));
    assert_eq!(read(&mut c, &mut m, open, 3, 6), b"lo\0\0\0\0");
    m.check();
}

#[test]
fn what_is_absent_stays() {
    let (mut c, mut m) = start();
    put(&mut c, &mut m, b"/f", b"hello");
    let path: Option<&[u8]> = Some(b"/f");
    let set = rpc::SetAttributes {
        path,
        handle: None,
        mode: Some(0o7777),
        uid: Some(u32::MAX),
        gid: Some(7),
        atime: Some(i64::MIN),
        mtime: Some(i64::MAX),
    };
    c.ok(&mut m, &set);
    c.ok(&mut m, &rpc::SetAttributes { path, ..Default::default() });
    let is = stat(&mut c, &mut m, b"/f");
    assert_eq!(
        (is.mode, is.uid, is.gid, is.atime, is.mtime),
        (0o7777, u32::MAX, 7, i64::MIN, i64::MAX)
    );
    let bad = rpc::SetAttributes { path, mode: Some(0o10000), uid: Some(1), ..Default::default() };
    assert_eq!(code(&mut c, &mut m, &bad), ErrorCode::INVALID);
    assert_eq!(stat(&mut c, &mut m, b"/f").uid, u32::MAX, "nothing was changed");
}

#[test]
fn renames_replace_what_they_may() {
    let (mut c, mut m) = start();
    let make = |path| rpc::MakeDirectory { path, mode: None, parents: true };
    c.ok(&mut m, &make(b"/d/sub"));
    c.ok(&mut m, &make(b"/e"));
    put(&mut c, &mut m, b"/f", b"f");
    put(&mut c, &mut m, b"/g", b"g");
    c.ok(&mut m, &rpc::Symlink { path: b"/l", target: b"f" });
    c.ok(&mut m, &rpc::Link { path: Some(b"/f"), to: b"/f2", ..Default::default() });
    let refused: [(&[u8], &[u8], ErrorCode); 6] = [
        (b"/f", b"/d", ErrorCode::IS_DIRECTORY),
        (b"/d", b"/f", ErrorCode::NOT_DIRECTORY),
        (b"/e", b"/d", ErrorCode::NOT_EMPTY),
        (b"/d", b"/d/sub/x", ErrorCode::INVALID),
        (b"/d", b"/d/x", ErrorCode::INVALID),
        (b"/none", b"/x", ErrorCode::NOT_FOUND),
    ];
    for (from, to, expected) in refused {
        assert_eq!(code(&mut c, &mut m, &rpc::Rename { from, to }), expected, "{from:?}");
    }
    // Two names of one file: nothing happens, and both stay.
    c.ok(&mut m, &rpc::Rename { from: b"/f", to: b"/f2" });
    assert_eq!(stat(&mut c, &mut m, b"/f").nlink, 2);
    let allowed: [(&[u8], &[u8]); 5] =
        [(b"/f", b"/g"), (b"/g", b"/l"), (b"/l", b"/new"), (b"/d", b"/e"), (b"/new", b"/new")];
    for (from, to) in allowed {
        c.ok(&mut m, &rpc::Rename { from, to });
    }
    assert_eq!(stat(&mut c, &mut m, b"/new").ino, stat(&mut c, &mut m, b"/f2").ino);
    assert_eq!(code(&mut c, &mut m, &rpc::RemoveDirectory { path: b"/e" }), ErrorCode::NOT_EMPTY);
    m.check();
}

/// Clients of NBD keep a file, not a name of it.
#[test]
fn the_last_name_of_what_clients_use_stays() {
    let mut m = machine_with(b"disk", &pattern(1, 10_000));
    let mut c = Connection::new(64 << 10, 64 << 10);
    c.greet(&mut m);
    put(&mut c, &mut m, b"/other", b"x");
    c.ok(&mut m, &rpc::Link { path: Some(b"/disk"), to: b"/second", ..Default::default() });
    let mut client = nbd::Connection::open(&mut m, b"/disk", Style::Structured);
    // With a name left, each way to take one away is allowed: also the name that the client asked
    // for.
    c.ok(&mut m, &rpc::Rename { from: b"/other", to: b"/disk" });
    assert_eq!(client.read(&mut m, 0, 10_000), pattern(1, 10_000));
    let all = [
        c.call(&mut m, &rpc::Unlink { path: b"/second" }, &[]),
        c.call(&mut m, &rpc::Rename { from: b"/disk", to: b"/second" }, &[]),
        c.call(
            &mut m,
            &rpc::Link {
                path: Some(b"/disk"),
                to: b"/second",
                replace: true,
                ..Default::default()
            },
            &[],
        ),
        c.call(&mut m, &rpc::Truncate { path: Some(b"/second"), handle: None, size: 9_999 }, &[]),
        c.call(&mut m, &rpc::Open { path: b"/second", flags: open::TRUNCATE, mode: None }, &[]),
    ];
    for answer in all {
        assert_eq!(answer.error().code, ErrorCode::BUSY);
    }
    c.ok(&mut m, &rpc::Truncate { path: Some(b"/second"), handle: None, size: 10_001 });
    c.ok(&mut m, &rpc::Rename { from: b"/second", to: b"/third" });
    assert_eq!(client.read(&mut m, 0, 10_000), pattern(1, 10_000));
    client.vanish(&mut m);
    c.ok(&mut m, &rpc::Unlink { path: b"/third" });
    m.check();
}

#[test]
fn flags_of_open() {
    let (mut c, mut m) = start();
    put(&mut c, &mut m, b"/f", b"hello");
    let with = |path, flags| rpc::Open { path, flags, mode: None };
    let (create, exclusive, truncate) = (open::CREATE, open::EXCLUSIVE, open::TRUNCATE);
    // 2 means nothing without 1.
    assert_eq!(c.ok(&mut m, &with(b"/f", exclusive)).size, 5);
    assert_eq!(code(&mut c, &mut m, &with(b"/new", exclusive)), ErrorCode::NOT_FOUND);
    assert_eq!(
        code(&mut c, &mut m, &with(b"/f", create | exclusive | truncate)),
        ErrorCode::EXISTS
    );
    assert_eq!(c.ok(&mut m, &with(b"/f", create)).size, 5, "what is there is not cut");
    assert_eq!(c.ok(&mut m, &with(b"/new", create | exclusive | truncate)).size, 0);
    assert_eq!(c.ok(&mut m, &with(b"/f", truncate)).size, 0);
    assert_eq!(code(&mut c, &mut m, &with(b"/none", truncate)), ErrorCode::NOT_FOUND);
    for flags in [create, exclusive, truncate] {
        assert_eq!(code(&mut c, &mut m, &with(b"/f", open::FROZEN | flags)), ErrorCode::INVALID);
    }
    for flags in [16, 1 << 31] {
        assert_eq!(code(&mut c, &mut m, &with(b"/f", flags | create)), ErrorCode::UNSUPPORTED);
    }
    // The mode is of a file that is created, and only of that.
    let mode = Some(0o600);
    c.ok(&mut m, &rpc::Open { mode, ..with(b"/f", create) });
    c.ok(&mut m, &rpc::Open { mode, ..with(b"/m", create) });
    assert_eq!(
        (stat(&mut c, &mut m, b"/f").mode, stat(&mut c, &mut m, b"/m").mode),
        (0o644, 0o600)
    );
    c.ok(&mut m, &rpc::Symlink { path: b"/l", target: b"f" });
    for flags in [0, create, truncate, open::FROZEN] {
        assert_eq!(code(&mut c, &mut m, &with(b"/l", flags)), ErrorCode::INVALID);
        assert_eq!(code(&mut c, &mut m, &with(b"/", flags)), ErrorCode::IS_DIRECTORY);
    }
    m.check();
}

#[test]
fn of_no_bytes_everything_succeeds() {
    let (mut c, mut m) = start();
    let handle = put(&mut c, &mut m, b"/f", b"hello");
    for offset in [0, 4, 5, 6, 1 << 20, 512 << 30, u64::MAX] {
        assert_eq!(read(&mut c, &mut m, handle, offset, 0), b"");
        let load = c.call(&mut m, &rpc::Load { handle, offset, len: 0 }, &[]);
        assert!(!load.failed && load.payload.is_empty(), "load at {offset}");
        let store = c.call(&mut m, &rpc::Store { handle, offset, sync: true }, &[]);
        assert_eq!(store.body::<rpc::Written>().done, 0, "store at {offset}");
        // But no write begins beyond the largest file.
        let written = write(&mut c, &mut m, handle, offset, &[]);
        assert_eq!(written.failed, offset > 512 << 30, "write at {offset}");
    }
    assert_eq!(stat(&mut c, &mut m, b"/f").size, 5, "a write of nothing makes no file longer");
    m.check();
}

#[test]
fn ranges_that_cannot_be_cloned() {
    let (mut c, mut m) = start();
    put(&mut c, &mut m, b"/a", &content(20_000, 1));
    put(&mut c, &mut m, b"/b", &content(40_000, 2));
    c.ok(&mut m, &rpc::Link { path: Some(b"/a"), to: b"/a2", ..Default::default() });
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/d", mode: None, parents: false });
    let range = |from: &'static [u8], from_offset, to: &'static [u8], to_offset, len| {
        rpc::CloneRange { from, to, from_offset, to_offset, len }
    };
    let refused = [
        // Offsets and lengths that are no multiples, but at the end of both.
        (range(b"/a", 1, b"/b", 0, Some(4096)), ErrorCode::INVALID),
        (range(b"/a", 0, b"/b", 1, Some(4096)), ErrorCode::INVALID),
        (range(b"/a", 0, b"/b", 0, Some(100)), ErrorCode::INVALID),
        (range(b"/a", 0, b"/b", 0, None), ErrorCode::INVALID),
        // Beyond the end of the source: by its length, and by where it begins.
        (range(b"/a", 0, b"/b", 0, Some(24_576)), ErrorCode::INVALID),
        (range(b"/a", 20_480, b"/b", 0, None), ErrorCode::INVALID),
        (range(b"/a", 20_480, b"/b", 0, Some(0)), ErrorCode::INVALID),
        // Ranges of one file that overlap, whatever it is called.
        (range(b"/a", 0, b"/a", 4096, Some(8192)), ErrorCode::INVALID),
        (range(b"/a", 4096, b"/a2", 0, Some(8192)), ErrorCode::INVALID),
        (range(b"/a", 0, b"/a", 0, Some(4096)), ErrorCode::INVALID),
        // The last block of a file, which is there in part only, over itself.
        (range(b"/a", 16_384, b"/a", 16_384, None), ErrorCode::INVALID),
        (range(b"/a", 0, b"/b", 512 << 30, Some(4096)), ErrorCode::TOO_LARGE),
        (range(b"/a", u64::MAX - 4095, b"/b", 0, Some(4096)), ErrorCode::TOO_LARGE),
        (range(b"/d", 0, b"/b", 0, Some(4096)), ErrorCode::IS_DIRECTORY),
        (range(b"/a", 0, b"/d", 0, Some(4096)), ErrorCode::IS_DIRECTORY),
        (range(b"/a", 0, b"/none", 0, Some(4096)), ErrorCode::NOT_FOUND),
    ];
    for (range, expected) in refused {
        assert_eq!(code(&mut c, &mut m, &range), expected, "{range:?}");
    }
    // Next to each other; and of nothing, up to the end of the source.
    c.ok(&mut m, &range(b"/a", 0, b"/a", 4096, Some(4096)));
    c.ok(&mut m, &range(b"/b", 0, b"/a", 4096, Some(0)));
    m.check();
}

#[test]
fn a_range_makes_its_destination_longer() {
    let (mut c, mut m) = start();
    let (one, two) = (content(10_000, 1), content(5_000, 2));
    put(&mut c, &mut m, b"/a", &one);
    let b = put(&mut c, &mut m, b"/b", &two);
    let range = |from_offset, to_offset, len| rpc::CloneRange {
        from: b"/a",
        to: b"/b",
        from_offset,
        to_offset,
        len,
    };
    // At the end of the source the length need be no multiple; what is between is zeros.
    c.ok(&mut m, &range(4096, 16_384, None));
    let expected = [&two[..], &vec![0; 16_384 - 5_000], &one[4096..]].concat();
    assert!(read(&mut c, &mut m, b, 0, 1 << 20) == expected);
    // Of nothing, it makes nothing longer.
    c.ok(&mut m, &range(0, 1 << 20, Some(0)));
    assert_eq!(stat(&mut c, &mut m, b"/b").size, expected.len() as u64);
    m.check();
}

/// What is shared is counted where two references meet, not below.
#[test]
fn space_counts_blocks_that_are_shared_themselves() {
    let (mut c, mut m) = start();
    // One block, a node over 256, and a node over three nodes.
    for (path, len, top) in [(b"/1", 4096, 1), (b"/2", 1 << 20, 256), (b"/3", 5 << 20, 3)] {
        let handle = put(&mut c, &mut m, path, &content(len, 1));
        let space = |c: &mut Connection, m: &mut Full| c.ok(m, &rpc::Space {}).blocks_shared;
        assert_eq!(space(&mut c, &mut m), 0);
        c.ok(&mut m, &rpc::CloneFile { from: path, to: b"/c" });
        assert_eq!(space(&mut c, &mut m), 1, "the block at the top, whatever is below it");
        let clone = opened(&mut c, &mut m, b"/c", 0);
        write(&mut c, &mut m, clone, 0, &[7; 4096]).body::<rpc::Written>();
        // The way to what was written is copied: what hangs beside it is what is shared now.
        let beside = if len > 2 << 20 { (top - 1) + 511 } else { top - 1 };
        assert_eq!(space(&mut c, &mut m), beside);
        for handle in [handle, clone] {
            c.ok(&mut m, &rpc::Close { handle });
        }
        for path in [&path[..], b"/c"] {
            c.ok(&mut m, &rpc::Unlink { path });
        }
        c.ok(&mut m, &rpc::Reclaim { wait: true });
    }
}

#[test]
fn what_is_being_reclaimed_is_not_free_yet() {
    let (mut c, mut m) = start();
    let handle = put(&mut c, &mut m, b"/f", &content(4 << 20, 1));
    c.ok(&mut m, &rpc::Close { handle });
    let before = c.ok(&mut m, &rpc::Space {});
    c.ok(&mut m, &rpc::Unlink { path: b"/f" });
    let at_once = c.ok(&mut m, &rpc::Space {});
    c.ok(&mut m, &rpc::Reclaim { wait: true });
    let after = c.ok(&mut m, &rpc::Space {});
    // Of its nodes there are two copies.
    assert_eq!(after.blocks_free - before.blocks_free, 1024 + 2 * 3);
    assert!(at_once.blocks_free < before.blocks_free + 1024, "{at_once:?} {after:?}");
    // All that may be written can be, and no more.
    let available = after.blocks_available.unwrap();
    assert!(available < after.blocks_free && available + 224 > after.blocks_free, "{after:?}");
    let fill = opened(&mut c, &mut m, b"/fill", CREATE);
    let leaves = 2 * (available.div_ceil(512) + 8);
    let bytes = content(1 << 20, 2);
    let mut left = (available - leaves) * 4096;
    let mut at = 0;
    while left > 0 {
        let len = left.min(1 << 20);
        let done = write(&mut c, &mut m, fill, at, &bytes[..len as usize]);
        assert!(!done.failed, "{:?} with {left} bytes left", done.error());
        (at, left) = (at + len, left - len);
    }
    let more = write(&mut c, &mut m, fill, at, &bytes);
    assert_eq!(more.error().code, ErrorCode::NO_SPACE);
    m.check();
}

#[test]
fn freezing_needs_a_sixteenth() {
    let (mut c, mut m) = (Connection::new(64 << 10, 64 << 10), Full::new(8, 4));
    c.greet(&mut m);
    put(&mut c, &mut m, b"/f", &content(2 << 20, 1));
    let freeze = rpc::Open { path: b"/f", flags: open::FROZEN, mode: None };
    let frozen = c.ok(&mut m, &freeze).handle;
    c.ok(&mut m, &rpc::Close { handle: frozen });
    let fill = opened(&mut c, &mut m, b"/fill", CREATE);
    let mut at = 0;
    loop {
        let free = c.ok(&mut m, &rpc::Space {}).blocks_free;
        let done = c.call(&mut m, &freeze, &[]);
        if done.failed {
            assert_eq!(done.error().code, ErrorCode::NO_SPACE);
            // 512 blocks of the file, the reserve, and what a name may need.
            assert!((512 / 16..512 / 16 + 192 + 32).contains(&free), "{free} blocks are free");
            break;
        }
        c.ok(&mut m, &rpc::Close { handle: done.body::<rpc::Opened>().handle });
        assert!(!write(&mut c, &mut m, fill, at, &[1; 4096]).failed);
        at += 4096;
    }
    opened(&mut c, &mut m, b"/f", 0);
    m.check();
}

#[test]
fn a_new_image_was_counted() {
    let (mut c, mut m) = start();
    assert_eq!(
        c.ok(&mut m, &rpc::Status::default()).rebuilt,
        Some(true),
        "it was never stopped cleanly"
    );
}

#[test]
fn samples_come_like_any_list() {
    let (mut c, mut m) = (Connection::new(64 << 10, 64 << 10), Full::new(96, 16));
    c.greet(&mut m);
    let bench = rpc::Bench { part: "operations", parameter: Some(8), keep: false };
    let answer = c.call(&mut m, &bench, &[]);
    // Key 0 of each frame has some of the samples; there may be several frames.
    let samples: Vec<rpc::Sample> = answer.items();
    assert!(samples.len() > 20 && answer.bodies.iter().all(|body| body[..2] == [0xa1, 0x00]));
    let none = c.call(&mut m, &rpc::Bench { part: "floor", parameter: None, keep: false }, &[]);
    assert_eq!((none.bodies.len(), none.items::<rpc::Sample>().len()), (1, 0));
}
