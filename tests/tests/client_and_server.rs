//! The client library against the real servers, without a machine between them.

use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;
use std::time::{Duration, Instant};
use umbra::client::{Blocks, Client, Error, Msync, Parents, Stream, get, put};
use umbra_proto::rpc::{ErrorCode, PORT, open};
use umbra_server::raw;
use umbra_tests::soft::SoftServer;

fn client(server: &SoftServer) -> Client {
    Client::over(Stream::Unix(server.connect(PORT))).expect("the server answers a hello")
}

fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        bytes.extend((seed >> 11).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Also prints rates: how fast the two are where neither emulation nor network limits them.
#[test]
fn files_go_in_and_out_with_their_holes() {
    let server = SoftServer::start(160, 64);
    let mut client = client(&server);
    let folder = tempfile::tempdir().unwrap();
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    let mut file =
        std::fs::File::options().read(true).write(true).create_new(true).open(&there).unwrap();
    let data = noise(48 << 20, 1);
    file.write_all_at(&data[..40 << 20], 0).unwrap();
    // A hole, data at an odd place, a hole, and an end that is not of blocks.
    file.write_all_at(&data[40 << 20..], (70 << 20) + 12_345).unwrap();
    file.set_len((100 << 20) + 7).unwrap();

    let start = Instant::now();
    let done = put(&mut client, &mut file, b"/image", &mut |_, _| {}).unwrap();
    let rate_in = done.data as f64 / start.elapsed().as_secs_f64() / 1e6;
    assert_eq!(done.size, (100 << 20) + 7);
    assert!(done.data <= 49 << 20, "{} bytes travelled", done.data);
    let a = client.stat(b"/image", Blocks::Count).unwrap();
    assert_eq!(a.size, done.size);
    assert!(a.blocks.unwrap() * 4096 <= 49 << 20, "holes became blocks");

    let start = Instant::now();
    let done =
        get(&mut client, b"/image", Some(&back), &mut std::io::sink(), &mut |_, _| {}).unwrap();
    let rate_out = done.data as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("put {rate_in:.0} MB/s, get {rate_out:.0} MB/s");
    assert!(std::fs::read(&there).unwrap() == std::fs::read(&back).unwrap());
    assert!(
        std::fs::metadata(&back).unwrap().blocks() * 512 <= 50 << 20,
        "holes were not written as holes"
    );
    server.stop().check();
}

#[test]
fn pokes_into_clones_leave_the_others() {
    let server = SoftServer::start(64, 16);
    let mut client = client(&server);
    let golden = noise(5 << 20, 2);
    let file = client.open(b"/golden", open::CREATE).unwrap();
    client.write(&file, 0, &golden).unwrap();
    for i in 0..50 {
        let cloned = client.clone_file(b"/golden", format!("/clone-{i}").as_bytes()).unwrap();
        assert!(cloned.fences <= 6, "{} fences", cloned.fences);
    }
    // Across pages and across the 2 MiB border.
    let patch = noise(10_000, 3);
    let at = (2 << 20) - 5000;
    let clone = client.open(b"/clone-7", 0).unwrap();
    assert!(client.load(&clone, at, 10_000).unwrap() == golden[at as usize..][..10_000]);
    assert_eq!(client.store(&clone, at, &patch, Msync::Now).unwrap(), 10_000);
    let mut expected = golden.clone();
    expected[at as usize..][..10_000].copy_from_slice(&patch);
    assert!(client.read(&clone, 0, 8 << 20).unwrap() == expected);
    for other in [&b"/golden"[..], b"/clone-6", b"/clone-49"] {
        let other = client.open(other, 0).unwrap();
        assert!(client.read(&other, 0, 8 << 20).unwrap() == golden);
        client.close(other).unwrap();
    }
    assert_eq!(client.pages(None).unwrap().faults.foreign_unmapped, 0);
    assert!(client.load(&clone, 5 << 20, 1).is_err());
    server.stop().check();
}

#[test]
fn failures_come_with_code_and_words() {
    let server = SoftServer::start(16, 4);
    let mut client = client(&server);
    let error = client.open(b"/no/such", 0).map(drop).unwrap_err();
    assert!(error.is(ErrorCode::NOT_FOUND));
    assert_eq!(error.to_string(), "cannot open '/no/such': no such file or directory");
    let name = [b'x'; 256];
    assert!(client.mkdir(&name, Parents::Need).unwrap_err().is(ErrorCode::NAME_TOO_LONG));
    assert!(client.mkdir(&[b'x'; 5000], Parents::Need).unwrap_err().is(ErrorCode::TOO_LONG));
    assert!(client.rmdir(b"/").is_err());
    let file = client.open(b"/f", open::CREATE).unwrap();
    assert!(client.truncate(b"/f", (512 << 30) + 1).unwrap_err().is(ErrorCode::TOO_LARGE));
    // Requests that are under way when one fails are answered all the same.
    client.truncate(b"/f", 100).unwrap();
    match client.store(&file, 50, &[1; 100], Msync::Now).unwrap_err() {
        Error::Server(body) => {
            assert_eq!((body.code, body.done), (ErrorCode::OUT_OF_RANGE, Some(0)))
        }
        other => panic!("{other}"),
    }
    client.ping().unwrap();
    let report = client.check().unwrap();
    assert_eq!((report.issues.len(), report.issues_total), (0, Some(0)));
    let status = client.status().unwrap();
    assert_eq!((status.connections, status.handles), (1, 1));
    server.stop().check();
}

#[test]
fn a_large_directory_is_listed() {
    let server = SoftServer::start(64, 4);
    let mut client = client(&server);
    client.mkdir(b"/a/b/c", Parents::Make).unwrap();
    client.open(b"/a/b/c/golden", open::CREATE).unwrap();
    for i in 0..3000 {
        client.clone_file(b"/a/b/c/golden", format!("/a/b/c/clone-{i}").as_bytes()).unwrap();
    }
    let mut names: Vec<_> = client.list(b"/a/b/c").unwrap().into_iter().map(|e| e.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 3001);
    server.stop().check();
}

/// Clients that send garbage, nothing, half a frame, or vanish hurt nobody else.
#[test]
fn bad_neighbours() {
    let server = SoftServer::start(32, 8);
    let mut good = client(&server);
    let file = good.open(b"/f", open::CREATE).unwrap();
    let content = noise(1 << 20, 4);
    good.write(&file, 0, &content).unwrap();
    let silent: Vec<_> = (0..100).map(|_| server.connect(PORT)).collect();
    for seed in 0..50 {
        let mut garbage = server.connect(PORT);
        // The server may have closed before all of it was taken.
        let _ = garbage.write_all(&noise(3000, seed));
        let _ = garbage.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = garbage.read_to_end(&mut answer);
        assert!(
            !answer.is_empty() && answer.len() < 300,
            "an error and a close, not {} bytes",
            answer.len()
        );
    }
    for _ in 0..20 {
        let mut vanishing = client(&server);
        let file = vanishing.open(b"/f", 0).unwrap();
        vanishing
            .send(&umbra_proto::rpc::Read { handle: file.handle, offset: 0, len: 1 << 20 }, &[])
            .unwrap();
        assert!(good.read(&file, 0, 100).is_ok());
    }
    // It asks for much and reads nothing.
    let mut stuck = client(&server);
    let theirs = stuck.open(b"/f", 0).unwrap();
    for _ in 0..50 {
        stuck
            .send(&umbra_proto::rpc::Read { handle: theirs.handle, offset: 0, len: 1 << 20 }, &[])
            .unwrap();
    }
    for _ in 0..50 {
        assert!(good.read(&file, 0, 1 << 20).unwrap() == content);
    }
    drop(stuck);
    drop(silent);
    let deadline = Instant::now() + Duration::from_secs(20);
    while good.status().unwrap().connections > 1 {
        assert!(Instant::now() < deadline, "connections are left over");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(good.status().unwrap().handles, 1);
    server.stop().check();
}

#[test]
fn the_raw_services() {
    let server = SoftServer::start(8, 1);
    let mut discard = server.connect(raw::DISCARD_PORT);
    discard.write_all(&[1; 1_000_000]).unwrap();
    discard.shutdown(std::net::Shutdown::Write).unwrap();
    let mut count = [0; 8];
    discard.read_exact(&mut count).unwrap();
    assert_eq!(u64::from_le_bytes(count), 1_000_000);
    let mut nobody = server.connect(4711);
    assert_eq!(nobody.read(&mut count).unwrap(), 0);
    server.stop();
}
