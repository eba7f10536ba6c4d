//! A file that clients of NBD use: whatever would make it shorter, or take its last name away, is
//! refused, and says who they are.

mod common;

use common::files::{CREATE, Full, opened, start};
use common::{Connection, Response, nbd, parse, request};
use umbra_fs::{Error, Time, dax};
use umbra_proto::nbd::Style;
use umbra_proto::rpc::{self, ErrorCode, Request, open};
use umbra_server::Progress;

const NOW: Time = Time(7_000);
/// Bytes of `/dir/disk`: ten slots of a window.
const SIZE: u64 = 20 << 20;

/// A machine with `/dir/disk`, much of which a window shows, and with `/other`.
fn machine() -> (Connection, Full) {
    let (mut c, mut m) = start();
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/dir", mode: None, parents: false });
    let handle = opened(&mut c, &mut m, b"/dir/disk", CREATE);
    c.ok(&mut m, &rpc::Truncate { path: None, handle: Some(handle), size: SIZE });
    c.ok(&mut m, &rpc::Create { path: b"/other", mode: None });
    let volume = &mut m.machine.volume;
    let ino = volume.resolve(b"/dir/disk").unwrap();
    let window = volume.open_window(ino).unwrap();
    dax::load(&mut m, window, 0, &mut vec![0; SIZE as usize]).unwrap();
    m.machine.volume.set_work_a_step(16);
    (c, m)
}

fn assert_busy(response: &Response, who: &str) {
    let error = response.error();
    assert_eq!(error.code, ErrorCode::BUSY, "{error}");
    assert!(error.message.ends_with(who), "{error}");
}

/// Has a request take its first steps, lets `between` happen, and returns the answer.
fn interrupted<R: Request>(
    c: &mut Connection,
    m: &mut Full,
    body: &R,
    between: impl FnOnce(&mut Full),
) -> Response {
    let bytes = request(77, body, &[]);
    assert_eq!(c.wire.to_server.push(&bytes), bytes.len());
    assert_eq!(c.poll(m), Progress::Again, "it is over with its first steps");
    between(m);
    c.run(m, &[]);
    let mut responses = parse(&mut c.received);
    assert_eq!(responses.len(), 1);
    responses.remove(0)
}

/// The question and the deed are one: a client that comes between two steps counts.
#[test]
fn a_client_that_comes_while_a_file_is_being_cut_keeps_it_whole() {
    let (mut c, mut m) = machine();
    let who = "it is in use by 1 NBD client of the export '/dir/disk'";
    let mut client = None;
    let cut = rpc::Truncate { path: Some(b"/dir/disk"), handle: None, size: 4096 };
    let answer = interrupted(&mut c, &mut m, &cut, |m| {
        client = Some(nbd::Connection::open(m, b"/dir/disk", Style::Structured));
    });
    assert_busy(&answer, who);
    client.take().unwrap().vanish(&mut m);
    let cut = rpc::Open { path: b"/dir/disk", flags: open::TRUNCATE, mode: None };
    let answer = interrupted(&mut c, &mut m, &cut, |m| {
        client = Some(nbd::Connection::open(m, b"/dir/disk", Style::Structured));
    });
    assert_busy(&answer, who);
    let mut client = client.unwrap();
    assert_eq!(client.read(&mut m, SIZE - 512, 512), [0; 512]);
    client.vanish(&mut m);
    assert_eq!(c.ok(&mut m, &cut).size, 0);
    m.check();
}

/// The directories above may move and be made; they cannot go, since they are not empty.
#[test]
fn what_happens_to_the_directories_above() {
    let (mut c, mut m) = machine();
    let mut client = nbd::Connection::open(&mut m, b"dir//./disk", Style::Structured);
    let refused = c.call(&mut m, &rpc::RemoveDirectory { path: b"/dir" }, &[]);
    assert_eq!(refused.error().code, ErrorCode::NOT_EMPTY);
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/empty", mode: None, parents: false });
    let refused = c.call(&mut m, &rpc::Rename { from: b"/empty", to: b"/dir" }, &[]);
    assert_eq!(refused.error().code, ErrorCode::NOT_EMPTY);
    c.ok(&mut m, &rpc::Rename { from: b"/dir", to: b"/moved" });
    c.ok(&mut m, &rpc::MakeDirectory { path: b"/dir", mode: None, parents: true });
    c.ok(&mut m, &rpc::RemoveDirectory { path: b"/dir" });
    let who = "it is in use by 1 NBD client of the export 'dir//./disk'";
    assert_busy(&c.call(&mut m, &rpc::Unlink { path: b"/moved/disk" }, &[]), who);
    let over = rpc::Rename { from: b"/other", to: b"/moved/../moved/./disk" };
    assert_busy(&c.call(&mut m, &over, &[]), who);
    assert_eq!(client.read(&mut m, 0, 512), [0; 512]);
    client.vanish(&mut m);
    c.ok(&mut m, &over);
    m.check();
}

/// Every front end acts through these operations of the volume, so this is what each of them meets.
#[test]
fn the_volume_itself_refuses() {
    let (_, mut m) = machine();
    let mut client = nbd::Connection::open(&mut m, b"/dir/disk", Style::Simple);
    let volume = &mut m.machine.volume;
    let (root, disk) = (volume.root(), volume.resolve(b"/dir/disk").unwrap());
    let dir = volume.resolve(b"/dir").unwrap();
    let other = volume.resolve(b"/other").unwrap();
    let refused = Err(Error::InUse(disk));
    let replace = umbra_fs::Existing::Replace;
    assert_eq!(volume.unlink(dir, b"disk", NOW), refused);
    assert_eq!(volume.rename(root, b"other", dir, b"disk", NOW), refused);
    assert_eq!(volume.link_as(other, dir, b"disk", replace, NOW), refused);
    assert_eq!(volume.may_link(other, dir, b"disk", replace), refused);
    assert_eq!(volume.truncate(disk, SIZE - 1, NOW), refused);
    assert_eq!(volume.replace_content(disk, b"short", NOW), refused);
    // With another name each of the two can go, but not both.
    volume.link(disk, root, b"second", NOW).unwrap();
    volume.rename(root, b"other", dir, b"disk", NOW).unwrap();
    assert_eq!(volume.unlink(root, b"second", NOW), refused);
    assert_eq!(volume.rename(dir, b"disk", root, b"second", NOW), refused);
    assert_eq!(volume.rename(root, b"second", root, b"second", NOW), Ok(()));
    volume.truncate(disk, SIZE + 1, NOW).unwrap();
    assert_eq!(client.read(&mut m, 0, 512), [0; 512]);
    client.vanish(&mut m);
    let volume = &mut m.machine.volume;
    volume.truncate(disk, 0, NOW).unwrap();
    volume.unlink(root, b"second", NOW).unwrap();
    m.check();
}

/// A client from which the export was taken away no longer counts, even before its connection
/// notices.
#[test]
fn evicted_clients_do_not_count() {
    let (mut c, mut m) = machine();
    let stays = nbd::Connection::open(&mut m, b"/dir/disk", Style::Structured);
    let evicted = nbd::Connection::open(&mut m, b"dir/disk", Style::Structured);
    assert_eq!(c.ok(&mut m, &rpc::ExportRemove { name: "/dir/disk", force: true }).evicted, 2);
    let again = nbd::Connection::open(&mut m, b"/dir/disk", Style::Structured);
    let unlink = rpc::Unlink { path: b"/dir/disk" };
    assert_busy(
        &c.call(&mut m, &unlink, &[]),
        "it is in use by 1 NBD client of the export '/dir/disk'",
    );
    again.vanish(&mut m);
    c.ok(&mut m, &unlink);
    stays.vanish(&mut m);
    evicted.vanish(&mut m);
    m.check();
}
