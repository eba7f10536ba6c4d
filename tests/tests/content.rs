//! Content on its way in and out of the booted machine: received into blocks, and fetched as it was
//! at one moment.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use umbra::client::rpc::{ErrorCode, PORT};
use umbra::client::{Client, Error, connect, get, put};
use umbra_tests::image::hash_file;
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;

/// A client that cannot see the image of the NVDIMM: all comes over the connection.
fn far_client(vm: &Vm) -> Client {
    Client::over(connect(vm.state(), PORT).expect("it listens")).expect("a connection")
}

/// Blocks that are lent, and blocks that files have taken over, as the console says.
fn lending(vm: &Vm) -> (u64, u64) {
    let said = vm.console("net");
    let line = said.lines().find_map(|line| line.strip_prefix("blocks to receive into: "));
    let numbers = line.and_then(|line| {
        let (lent, rest) = line.split_once(" lent, ")?;
        Some((lent.parse().ok()?, rest.split_once(' ')?.0.parse().ok()?))
    });
    numbers.unwrap_or_else(|| panic!("the console said: {said}"))
}

fn fetch(vm: &Vm, client: &mut Client, path: &str) -> Vec<u8> {
    let back = vm.file("back");
    get(client, path.as_bytes(), Some(&back), &mut io::sink(), &mut |_, _| {})
        .expect("it comes out");
    fs::read(&back).expect("it is there")
}

#[test]
fn content_comes_into_blocks_that_become_the_files() {
    let vm = Vm::launch("128M");
    let content = Random::new(1).bytes((24 * MIB + 1234) as usize);
    let source = vm.file("in");
    fs::write(&source, &content).unwrap();
    let mut client = vm.client();
    let mut put = |path: &str| {
        put(&mut client, &mut File::open(&source).unwrap(), path.as_bytes(), &mut |_, _| {})
            .unwrap();
    };
    put("/a");
    // All but what came before the device had blocks to receive into.
    let (_, taken_over) = lending(&vm);
    assert!(taken_over > 20 * MIB / BLOCK, "{taken_over} blocks");
    let free = vm.json(&["df"])["blocks_free"].as_u64().unwrap();
    // Those that the device has now are free, as everybody sees it, and nobody's.
    vm.assert_clean();
    vm.ok(&["rm", "/a"]);
    put("/a");
    assert!(lending(&vm).1 > taken_over);
    assert_eq!(vm.json(&["df"])["blocks_free"].as_u64(), Some(free));
    vm.ok(&["clone", "/a", "/b"]);
    vm.ok(&["poke", "/b", "5000", "--text", "not in a"]);
    vm.assert_clean();
    let mut changed = content.clone();
    changed[5000..5008].copy_from_slice(b"not in a");
    for again in ["as it was", "after a clean stop", "after a kill"] {
        for mut client in [vm.client(), far_client(&vm)] {
            assert!(fetch(&vm, &mut client, "/a") == content, "{again}");
            assert!(fetch(&vm, &mut client, "/b") == changed, "{again}");
        }
        match again {
            "as it was" => vm.down(),
            _ => vm.kill_qemu(),
        }
        vm.up();
        vm.assert_clean();
    }
}

/// QEMU is killed in the middle of puts: what is there is whole, and what is not leaves nothing.
#[test]
fn a_put_that_a_kill_ends_leaves_the_file_as_it_was() {
    let vm = Vm::launch("256M");
    let source = vm.file("in");
    let [first, second] = [1, 2].map(|seed| {
        fs::write(&source, Random::new(seed).bytes((40 * MIB) as usize)).unwrap();
        (fs::copy(&source, vm.file(&format!("in{seed}"))).unwrap(), hash_file(&source)).1
    });
    vm.ok(&["put", vm.file("in1").to_str().unwrap(), "/f"]);
    let mut last = first;
    for wait_ms in [0, 3, 10, 25] {
        let mut client = vm.client();
        thread::scope(|scope| {
            scope.spawn(|| {
                // It ends in the middle, or all went through before.
                let mut file = File::open(vm.file("in2")).unwrap();
                let done = put(&mut client, &mut file, b"/f", &mut |_, _| {});
                assert!(!matches!(done, Err(Error::Server(_))), "{done:?}");
            });
            thread::sleep(Duration::from_millis(wait_ms));
            vm.kill_qemu();
        });
        vm.up();
        vm.assert_clean();
        let back = vm.file("back");
        vm.ok(&["get", "/f", back.to_str().unwrap()]);
        let is = hash_file(&back);
        assert!(is == last || is == second, "after {wait_ms} ms");
        last = is;
        assert_eq!(vm.json(&["ls", "/"])["entries"].as_array().unwrap().len(), 1);
    }
}

/// The file is overwritten from its start to its end, over and over. At any moment it holds two
/// values that follow each other: the newer one up to some place, the older one from there on.
#[test]
fn what_is_fetched_was_there_at_one_moment() {
    let vm = Vm::launch("128M");
    let size = 8 * MIB as usize;
    let mut writer = vm.client();
    let file = writer.open_or_create(b"/f").unwrap();
    writer.write(&file, 0, &vec![0; size]).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1..=u8::MAX {
                for at in (0..size).step_by(256 << 10) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    writer.write(&file, at as u64, &[value; 256 << 10]).unwrap();
                }
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..12 {
            let mut client = if round % 2 == 0 { vm.client() } else { far_client(&vm) };
            let content = fetch(&vm, &mut client, "/f");
            assert_eq!(content.len(), size);
            let newer = content[0];
            let border = content.iter().position(|&byte| byte != newer).unwrap_or(size);
            let older = newer.wrapping_sub(1);
            let rest = content[border..].iter().position(|&byte| byte != older);
            assert_eq!(rest, None, "round {round}: {newer} up to {border}, then not only {older}");
            seen.insert(newer);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(seen.len() > 1, "nothing was written meanwhile");
    });
    vm.assert_clean();
    assert_eq!(vm.json(&["ls", "/"])["entries"].as_array().unwrap().len(), 1);
}

/// On a full volume there may be no room for a clone: then a file is fetched as it is.
#[test]
fn a_full_volume_can_be_fetched_from() {
    let vm = Machine::nvdimm("16M").launch();
    let content = Random::new(5).bytes(3 * MIB as usize);
    fs::write(vm.file("in"), &content).unwrap();
    vm.ok(&["put", vm.file("in").to_str().unwrap(), "/f"]);
    let mut client = vm.client();
    let filler = client.open_or_create(b"/filler").unwrap();
    let mut at = 0;
    let full = loop {
        match client.write(&filler, at, &[1; BLOCK as usize]) {
            Ok(()) => at += BLOCK,
            Err(error) => break error,
        }
    };
    assert!(full.is(ErrorCode::NO_SPACE), "{full}");
    assert!(fetch(&vm, &mut client, "/f") == content);
    assert!(fetch(&vm, &mut far_client(&vm), "/f") == content);
    let back = vm.file("back");
    let output = vm.run(&["get", "/f", back.to_str().unwrap(), "--json"]);
    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no room to keep /f as it was"),
        "{output:?}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"one_moment\":false"), "{output:?}");
    client.unlink(b"/filler").unwrap();
    client.close(filler).unwrap();
    assert_eq!(vm.json(&["get", "/f", back.to_str().unwrap()])["one_moment"], true);
    vm.assert_clean();
}

/// Over and over into blocks of the file's own: what is lent meanwhile is not all that is free, one
/// run after the other.
#[test]
fn what_overwrites_a_file_does_not_walk_through_the_volume() {
    let vm = Vm::launch("256M");
    let mut client = vm.client();
    let file = client.open_or_create(b"/f").unwrap();
    let bytes = Random::new(3).bytes(MIB as usize);
    client.write(&file, 0, &bytes).unwrap();
    client.sync(&file).unwrap();
    let (_, taken_over) = lending(&vm);
    let used = || fs::metadata(vm.state().nvdimm()).map(|found| found.blocks() * 512).unwrap();
    for _ in 0..16 {
        client.write(&file, 0, &bytes).unwrap();
    }
    let before = used();
    for _ in 0..200 {
        client.write(&file, 0, &bytes).unwrap();
    }
    assert_eq!(lending(&vm).1, taken_over, "all of it was copied");
    assert!(
        used() < before + 4 * MIB,
        "{before} bytes of the image were in use, and {} are",
        used()
    );
    vm.assert_clean();
}
