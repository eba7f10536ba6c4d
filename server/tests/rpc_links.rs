//! Hard links and symbolic links over the protocol.

mod common;

use common::files::{opened, start, stat};
use umbra_proto::rpc::{self, ErrorCode, kind};

#[test]
fn two_names_are_one_file_until_the_last_goes() {
    let (mut c, mut m) = start();
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/d", mode: None, parents: false });
    let handle = opened(&mut c, &mut m, b"/a", rpc::open::CREATE);
    c.call(&mut m, &rpc::Write { handle, offset: 0, sync: false }, b"one file");
    let linked = c.ok(&mut m, &rpc::Link { path: Some(b"/a"), to: b"/d/b", ..Default::default() });
    let (a, b) = (stat(&mut c, &mut m, b"/a"), stat(&mut c, &mut m, b"/d/b"));
    assert_eq!(a, b);
    assert_eq!((a.ino, a.nlink, a.kind), (linked.ino, 2, kind::FILE));
    // Replacing a name takes one away, and leaves the other.
    opened(&mut c, &mut m, b"/c", rpc::open::CREATE);
    c.ok(&mut m, &rpc::Rename { from: b"/c", to: b"/a" });
    assert_eq!(stat(&mut c, &mut m, b"/d/b").nlink, 1);
    // Two names of one file: a rename does nothing.
    c.ok(&mut m, &rpc::Link { path: Some(b"/d/b"), to: b"/d/c", ..Default::default() });
    c.ok(&mut m, &rpc::Rename { from: b"/d/b", to: b"/d/c" });
    assert_eq!(stat(&mut c, &mut m, b"/d/b").nlink, 2);
    c.ok(&mut m, &rpc::Unlink { path: b"/d/b" });
    let other = opened(&mut c, &mut m, b"/d/c", 0);
    let read = c.call(&mut m, &rpc::Read { handle: other, offset: 0, len: 100 }, &[]);
    assert_eq!(read.payload, b"one file");
    for (from, to, code) in [
        (&b"/d"[..], &b"/n"[..], ErrorCode::IS_DIRECTORY),
        (b"/d/c", b"/a", ErrorCode::EXISTS),
        (b"/none", b"/n", ErrorCode::NOT_FOUND),
        (b"/d/c", b"/a/n", ErrorCode::NOT_DIRECTORY),
        (b"/d/c", b"/none/n", ErrorCode::NOT_FOUND),
        (b"", b"/n", ErrorCode::INVALID_NAME),
    ] {
        assert_eq!(
            c.call(&mut m, &rpc::Link { path: Some(from), to, ..Default::default() }, &[])
                .error()
                .code,
            code
        );
    }
    m.check();
}

#[test]
fn symbolic_links_say_what_they_were_told_and_are_followed_by_nobody() {
    let (mut c, mut m) = start();
    opened(&mut c, &mut m, b"/file", rpc::open::CREATE);
    for target in [&b"file"[..], b"/nowhere/at all", b"\xff\n", &[b't'; 4095]] {
        let made = c.ok(&mut m, &rpc::Symlink { path: b"/l", target });
        assert_eq!(c.ok(&mut m, &rpc::ReadLink { path: b"/l" }).target, target);
        let found = stat(&mut c, &mut m, b"/l");
        assert_eq!(
            (found.ino, found.kind, found.size),
            (made.ino, kind::SYMLINK, target.len() as u64)
        );
        c.ok(&mut m, &rpc::Unlink { path: b"/l" });
    }
    c.ok(&mut m, &rpc::Symlink { path: b"/l", target: b"file" });
    let taken = c.call(&mut m, &rpc::Symlink { path: b"/l", target: b"x" }, &[]);
    assert_eq!(taken.error().code, ErrorCode::EXISTS);
    for target in [&b""[..], b"a\0b", &[b't'; 4096]] {
        let refused = c.call(&mut m, &rpc::Symlink { path: b"/n", target }, &[]).error();
        assert_eq!(refused.code, ErrorCode::INVALID);
        assert!(refused.message.contains("1 to 4095 bytes"), "{}", refused.message);
    }
    let refused = c.call(&mut m, &rpc::ReadLink { path: b"/file" }, &[]).error();
    assert_eq!(refused.message, "cannot read the link '/file': is not a symbolic link");
    let refused = c.call(&mut m, &rpc::Open { path: b"/l", flags: 0, mode: None }, &[]).error();
    assert_eq!(
        (refused.code, &refused.message[..]),
        (ErrorCode::INVALID, "cannot open '/l': is a symbolic link")
    );
    let cut = rpc::Truncate { path: Some(b"/l"), handle: None, size: 0 };
    assert_eq!(c.call(&mut m, &cut, &[]).error().code, ErrorCode::INVALID);
    let clone = rpc::CloneFile { from: b"/l", to: b"/n" };
    assert_eq!(c.call(&mut m, &clone, &[]).error().code, ErrorCode::INVALID);
    let below = rpc::Stat { path: Some(b"/l/x"), handle: None, blocks: false };
    assert_eq!(c.call(&mut m, &below, &[]).error().code, ErrorCode::NOT_DIRECTORY);
    m.check();
}
