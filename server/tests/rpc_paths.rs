//! Paths, however they are spelled, through every method that takes one, and as names of exports.

mod common;

use common::files::{CREATE, Full, put, start, stat};
use common::{Connection, Response, nbd};
use umbra_proto::nbd::Style;
use umbra_proto::rpc::{self, ErrorCode};
use umbra_server::testing::SoftPlatform;

/// The directory `/d` with the file `f`, the symbolic link `s`, and the directories `e` and `r`.
fn tree() -> (Connection, Full) {
    let (mut c, mut m) = start();
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/d/e", mode: None, parents: true });
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/d/r", mode: None, parents: false });
    let handle = put(&mut c, &mut m, b"/d/f", b"content");
    c.ok(&mut m, &rpc::Close { handle });
    c.ok(&mut m, &rpc::Symlink { path: b"/d/s", target: b"f" });
    (c, m)
}

/// Other ways to write `/d/NAME`.
fn spellings(name: &str) -> Vec<Vec<u8>> {
    [
        "d/N",
        "/d/./N",
        "/./d/N",
        "./d/N",
        "//d///N",
        "/d/././/N",
        "/../d/N",
        "/d/../d/N",
        "/d/e/../N",
        "d/e/./.././N",
    ]
    .iter()
    .map(|path| path.replace('N', name).into_bytes())
    .collect()
}

/// A request, or several, with a path.
type Request = fn(&mut Connection, &mut SoftPlatform, &[u8]) -> Response;

/// Requests for a file that is there.
const OF_A_FILE: &[(&str, Request)] = &[
    ("stat", |c, m, path| {
        c.call(m, &rpc::Stat { path: Some(path), handle: None, blocks: false }, &[])
    }),
    ("open", |c, m, path| c.call(m, &rpc::Open { path, flags: 0, mode: None }, &[])),
    ("open frozen", |c, m, path| {
        c.call(m, &rpc::Open { path, flags: rpc::open::FROZEN, mode: None }, &[])
    }),
    ("truncate", |c, m, path| {
        c.call(m, &rpc::Truncate { path: Some(path), handle: None, size: 7 }, &[])
    }),
    ("set-attributes", |c, m, path| {
        c.call(m, &rpc::SetAttributes { path: Some(path), uid: Some(1), ..Default::default() }, &[])
    }),
    ("pages", |c, m, path| c.call(m, &rpc::Pages { path: Some(path), handle: None }, &[])),
    ("link", |c, m, path| {
        let r = c.call(m, &rpc::Link { path: Some(path), to: b"/link", ..Default::default() }, &[]);
        c.call(m, &rpc::Unlink { path: b"/link" }, &[]);
        r
    }),
    ("clone", |c, m, path| {
        let r = c.call(m, &rpc::CloneFile { from: path, to: b"/clone" }, &[]);
        c.call(m, &rpc::Unlink { path: b"/clone" }, &[]);
        r
    }),
    ("export-add", |c, m, path| {
        let add = rpc::ExportAdd { name: "x", path, read_only: false, size: None, replace: true };
        let r = c.call(m, &add, &[]);
        c.call(m, &rpc::ExportRemove { name: "x", force: false }, &[]);
        r
    }),
];

/// Requests that make a name, and take it away again.
const OF_A_NEW_NAME: &[(&str, Request)] = &[
    ("create and unlink", |c, m, path| {
        let r = c.call(m, &rpc::Create { path, mode: None }, &[]);
        if !r.failed {
            c.ok(m, &rpc::Unlink { path });
        }
        r
    }),
    ("open to create", |c, m, path| {
        let r = c.call(m, &rpc::Open { path, flags: CREATE, mode: None }, &[]);
        if !r.failed {
            c.ok(m, &rpc::Unlink { path });
        }
        r
    }),
    ("link", |c, m, path| {
        let r = c.call(m, &rpc::Link { path: Some(b"/d/f"), to: path, ..Default::default() }, &[]);
        if !r.failed {
            c.ok(m, &rpc::Unlink { path });
        }
        r
    }),
    ("open-unnamed and link", |c, m, path| {
        let handle = c.ok(m, &rpc::OpenUnnamed { path: b"/d/", mode: None, uid: 0, gid: 0 }).handle;
        let link =
            rpc::Link { path: None, to: path, handle: Some(handle), replace: true, check: false };
        let r = c.call(m, &link, &[]);
        if !r.failed {
            c.ok(m, &rpc::Unlink { path });
        }
        c.ok(m, &rpc::Close { handle });
        r
    }),
    ("symlink and read-link", |c, m, path| {
        let r = c.call(m, &rpc::Symlink { path, target: b"t" }, &[]);
        if !r.failed {
            assert_eq!(c.ok(m, &rpc::ReadLink { path }).target, b"t");
            c.ok(m, &rpc::Unlink { path });
        }
        r
    }),
    ("clone", |c, m, path| {
        let r = c.call(m, &rpc::CloneFile { from: b"/d/f", to: path }, &[]);
        if !r.failed {
            c.ok(m, &rpc::Unlink { path });
        }
        r
    }),
    ("rename of a file", |c, m, path| {
        let r = c.call(m, &rpc::Rename { from: b"/d/f", to: path }, &[]);
        if !r.failed {
            c.ok(m, &rpc::Rename { from: path, to: b"/d/f" });
        }
        r
    }),
];

/// Requests that make a directory and remove it.
const OF_A_DIRECTORY: &[(&str, Request)] = &[
    ("make-directory", |c, m, path| {
        let r = c.call(m, &rpc::MakeDirectory { path, mode: None, parents: false }, &[]);
        if !r.failed {
            assert!(
                c.call(m, &rpc::List { path, cookie: 0, max: None, attributes: false }, &[])
                    .body::<rpc::Items<rpc::Entry>>()
                    .items
                    .is_empty()
            );
            c.ok(m, &rpc::RemoveDirectory { path });
        }
        r
    }),
    ("rename of a directory", |c, m, path| {
        let r = c.call(m, &rpc::Rename { from: b"/d/r", to: path }, &[]);
        if !r.failed {
            c.ok(m, &rpc::Rename { from: path, to: b"/d/r" });
        }
        r
    }),
];

#[test]
fn empty_names_and_dots_are_skipped_and_two_dots_go_up_in_every_method() {
    let (mut c, mut m) = tree();
    for path in spellings("f") {
        assert_eq!(stat(&mut c, &mut m, &path).size, 7);
        for (what, request) in OF_A_FILE {
            let r = request(&mut c, &mut m, &path);
            assert!(!r.failed, "{what} {}: {}", path.escape_ascii(), r.error());
        }
    }
    for path in spellings("s") {
        assert_eq!(c.ok(&mut m, &rpc::ReadLink { path: &path }).target, b"f");
    }
    for path in spellings("new") {
        for (what, request) in OF_A_NEW_NAME.iter().chain(OF_A_DIRECTORY) {
            let r = request(&mut c, &mut m, &path);
            assert!(!r.failed, "{what} {}: {}", path.escape_ascii(), r.error());
        }
        // A directory may have slashes and, where it is there, dots behind it.
        for (what, request) in OF_A_DIRECTORY {
            let r = request(&mut c, &mut m, &[&path[..], b"//"].concat());
            assert!(!r.failed, "{what} {}//: {}", path.escape_ascii(), r.error());
        }
    }
    for (path, is) in [
        ("/d/.", "/d"),
        ("/d/e/..", "/d"),
        ("/d/e/../", "/d"),
        ("/", "/"),
        ("/..", "/"),
        (".", "/"),
    ] {
        let inode = stat(&mut c, &mut m, is.as_bytes()).ino;
        assert_eq!(stat(&mut c, &mut m, path.as_bytes()).ino, inode, "{path}");
        assert_eq!(
            c.ok(&mut m, &rpc::MakeDirectory { path: path.as_bytes(), mode: None, parents: true })
                .ino,
            inode
        );
    }
    m.check();
}

#[test]
fn what_is_before_a_slash_or_a_dot_has_to_be_a_directory() {
    let (mut c, mut m) = tree();
    for behind in ["/", "//", "/.", "/./", "/..", "/../f", "/./x", "/x"] {
        for file in ["/d/f", "/d/s"] {
            let path = format!("{file}{behind}");
            for (what, request) in OF_A_FILE {
                let r = request(&mut c, &mut m, path.as_bytes());
                assert_eq!(r.error().code, ErrorCode::NOT_DIRECTORY, "{what} {path}");
            }
            let r = c.call(
                &mut m,
                &rpc::MakeDirectory { path: path.as_bytes(), mode: None, parents: true },
                &[],
            );
            if behind != "/" && behind != "//" {
                assert_eq!(r.error().code, ErrorCode::NOT_DIRECTORY, "make directories {path}");
            }
        }
    }
    // A slash says that a directory is meant: nothing else is made, replaced or removed under such
    // a name.
    for (what, request) in OF_A_NEW_NAME {
        for (path, code) in [
            (
                "/d/new/",
                if *what == "rename of a file" {
                    ErrorCode::NOT_DIRECTORY
                } else {
                    ErrorCode::NOT_FOUND
                },
            ),
            ("/d/s/", ErrorCode::NOT_DIRECTORY),
            (
                "/d/e/",
                if *what == "rename of a file" {
                    ErrorCode::NOT_DIRECTORY
                } else {
                    ErrorCode::IS_DIRECTORY
                },
            ),
        ] {
            let r = request(&mut c, &mut m, path.as_bytes());
            assert!(r.failed, "{what} {path}");
            assert_eq!(r.error().code, code, "{what} {path}: {}", r.error());
        }
    }
    for (path, code) in [
        (&b"/d/f/"[..], ErrorCode::NOT_DIRECTORY),
        (b"/d/s/", ErrorCode::NOT_DIRECTORY),
        (b"/d/e/", ErrorCode::IS_DIRECTORY),
    ] {
        assert_eq!(
            c.call(&mut m, &rpc::Unlink { path }, &[]).error().code,
            code,
            "{}",
            path.escape_ascii()
        );
    }
    let r = c.call(&mut m, &rpc::RemoveDirectory { path: b"/d/f/" }, &[]);
    assert_eq!(r.error().code, ErrorCode::NOT_DIRECTORY);
    let r = c.call(&mut m, &rpc::Rename { from: b"/d/f/", to: b"/d/g" }, &[]);
    assert_eq!(r.error().code, ErrorCode::NOT_DIRECTORY);
    assert_eq!(stat(&mut c, &mut m, b"/d/f").size, 7);
    m.check();
}

#[test]
fn dots_are_no_names_to_make_or_remove() {
    let (mut c, mut m) = tree();
    for path in
        ["/", "//", ".", "..", "/.", "/d/.", "/d/..", "/d/./", "/d/../", "/d/e/..//", "/d/e/.//"]
    {
        let bytes = path.as_bytes();
        let code = |r: Response| {
            assert_eq!(r.error().code, ErrorCode::INVALID_NAME, "{path}: {}", r.error())
        };
        let names = OF_A_NEW_NAME.iter().filter(|(what, _)| *what != "open to create");
        for (_, request) in names.chain(OF_A_DIRECTORY) {
            code(request(&mut c, &mut m, bytes));
        }
        code(c.call(&mut m, &rpc::Unlink { path: bytes }, &[]));
        code(c.call(&mut m, &rpc::RemoveDirectory { path: bytes }, &[]));
        code(c.call(&mut m, &rpc::Rename { from: bytes, to: b"/z" }, &[]));
        let opened = c.call(&mut m, &rpc::Open { path: bytes, flags: CREATE, mode: None }, &[]);
        assert_eq!(opened.error().code, ErrorCode::IS_DIRECTORY, "{path}");
    }
    m.check();
}

#[test]
fn exports_are_found_by_any_spelling_of_a_path() {
    let (mut c, mut m) = tree();
    for path in spellings("f").into_iter().chain([b"/d/f".to_vec()]) {
        let mut client = nbd::Connection::open(&mut m, &path, Style::Structured);
        assert_eq!(client.read(&mut m, 0, 7), b"content", "{}", path.escape_ascii());
        // However it is spelled, it is the same file and in use.
        for other in spellings("f") {
            let r = c.call(&mut m, &rpc::Unlink { path: &other }, &[]);
            assert_eq!(r.error().code, ErrorCode::BUSY, "{}", other.escape_ascii());
            let r =
                c.call(&mut m, &rpc::Truncate { path: Some(&other), handle: None, size: 1 }, &[]);
            assert_eq!(r.error().code, ErrorCode::BUSY, "{}", other.escape_ascii());
            let r = c.call(&mut m, &rpc::Rename { from: b"/d/s", to: &other }, &[]);
            assert_eq!(r.error().code, ErrorCode::BUSY, "{}", other.escape_ascii());
        }
        for other in [&b"/d/f/"[..], b"/d/f/."] {
            assert!(c.call(&mut m, &rpc::Unlink { path: other }, &[]).failed);
            assert!(c.call(&mut m, &rpc::Rename { from: b"/d/s", to: other }, &[]).failed);
        }
        assert_eq!(client.read(&mut m, 0, 7), b"content");
        client.vanish(&mut m);
        assert_eq!(m.exports_in_use(), 0);
    }
    m.check();
}
