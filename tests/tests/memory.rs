//! Memory does not grow with what is mapped or stored: 64 MiB serve a large NVDIMM.

use umbra::client::rpc::MemoryUse;
use umbra::client::{Blocks, Client, Msync};
use umbra_tests::Machine;
use umbra_tests::random::Random;

const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;
/// Beyond this the use of memory may not grow with what is mapped: one part in so many.
const SHARE: u64 = 1000;
/// Connections, handles, and the like, which come and go.
const SLACK: u64 = 256 << 10;

fn used(client: &mut Client) -> u64 {
    let MemoryUse { heap_used, frames_used, .. } = client.status().unwrap().memory;
    // The heap lies in frames that are counted as used: what it hands out is counted on top, so
    // that growth inside it shows too.
    heap_used + frames_used
}

/// Loads a whole file through a window and drops the bytes; returns how many there were.
fn load_all(client: &mut Client, path: &str) -> u64 {
    let file = client.open(path.as_bytes(), 0).unwrap();
    let mut total = 0;
    client
        .load_each(&file, 0, file.size, |piece| {
            total += piece.len() as u64;
            Ok(())
        })
        .unwrap();
    client.close(file).unwrap();
    total
}

#[test]
fn windows_on_a_gibibyte_take_a_thousandth_of_it() {
    let vm = Machine::nvdimm("1G").memory("64M").launch();
    let mut client = vm.client();
    assert!(client.status().unwrap().memory.total <= 64 * MIB);
    // One file of data, and one whose even blocks are shared with it.
    let file = client.open_or_create(b"/data").unwrap();
    let piece = Random::new(1).bytes(MIB as usize);
    let size = 96 * MIB;
    for at in (0..size).step_by(MIB as usize) {
        client.write(&file, at, &piece).unwrap();
    }
    let alternate = 8 * MIB;
    let other = client.open_or_create(b"/alternate").unwrap();
    for at in (0..alternate).step_by(MIB as usize) {
        client.write(&other, at, &piece).unwrap();
    }
    for at in (0..alternate).step_by(2 * BLOCK as usize) {
        client.clone_range((b"/data", at), (b"/alternate", at), Some(BLOCK)).unwrap();
    }
    client.clone_file(b"/alternate", b"/alternate2").unwrap();

    // The first pass makes what is made once: pools, the table pages of all slots.
    let mut mapped = load_all(&mut client, "/data");
    let first = used(&mut client);
    for _ in 0..2 {
        for path in ["/data", "/alternate", "/alternate2"] {
            mapped += load_all(&mut client, path);
        }
    }
    let grown = used(&mut client).saturating_sub(first);
    assert!(mapped > 256 * MIB);
    assert!(grown <= mapped / SHARE + SLACK, "{grown} bytes for {mapped} mapped");

    // The same with everything open at once, and dirty pages.
    let open: Vec<_> = (0..40)
        .map(|number| {
            let path = format!("/clone{number}");
            client.clone_file(b"/data", path.as_bytes()).unwrap();
            let file = client.open(path.as_bytes(), 0).unwrap();
            client.load(&file, 0, 4 * MIB).unwrap();
            client.store(&file, number * BLOCK, b"dirty", Msync::Later).unwrap();
            file
        })
        .collect();
    let grown = used(&mut client).saturating_sub(first);
    let mapped = 40 * 4 * MIB;
    assert!(grown <= mapped / SHARE + SLACK, "{grown} bytes for {mapped} mapped at once");
    drop(open);
    drop(client);
    vm.assert_clean();
}

#[test]
fn fifty_clones_are_read_through_windows_in_64_mebibytes() {
    let vm = Machine::nvdimm("256M").memory("64M").launch();
    let mut client = vm.client();
    let content = Random::new(9).bytes(24 << 20);
    std::fs::write(vm.file("golden"), &content).unwrap();
    vm.ok(&["put", vm.file("golden").to_str().unwrap(), "/golden"]);
    let before = client.space().unwrap();
    for number in 0..50 {
        client.clone_file(b"/golden", format!("/c{number}").as_bytes()).unwrap();
    }
    let after = client.space().unwrap();
    assert!((before.blocks_free - after.blocks_free) * BLOCK <= MIB, "{before:?} {after:?}");
    // All are open at once: 50 times 24 MiB of windows.
    let files: Vec<_> =
        (0..50).map(|number| client.open(format!("/c{number}").as_bytes(), 0).unwrap()).collect();
    for file in &files {
        let mut at = 0;
        client
            .load_each(file, 0, file.size, |piece| {
                assert!(piece == &content[at..at + piece.len()]);
                at += piece.len();
                Ok(())
            })
            .unwrap();
        assert_eq!(at, content.len());
    }
    assert_eq!(client.pages(None).unwrap().faults.failed, 0);
    drop(client);
    vm.assert_clean();
}

#[test]
fn a_sparse_64_gibibyte_nvdimm_is_served_in_64_mebibytes() {
    let vm = Machine::nvdimm("64G").memory("64M").launch();
    let mut client = vm.client();
    let space = client.space().unwrap();
    let size = u64::from(space.block_size) * space.blocks_total;
    assert!(size > 63 << 30 && space.blocks_free > space.blocks_total / 100 * 99, "{space:?}");
    // A sparse file with a little data here and there, also at its end.
    let file = client.open_or_create(b"/sparse").unwrap();
    let places: Vec<u64> = (0..32).map(|number| number * (1 << 34) + number * 777).collect();
    for &at in &places {
        client.write(&file, at, &at.to_le_bytes()).unwrap();
    }
    client.clone_file(b"/sparse", b"/clone").unwrap();
    let clone = client.open(b"/clone", 0).unwrap();
    for &at in &places {
        assert_eq!(client.load(&clone, at, 8).unwrap(), at.to_le_bytes());
        client.store(&clone, at, &[0xee; 8], Msync::Now).unwrap();
    }
    for &at in &places {
        assert_eq!(client.load(&file, at, 8).unwrap(), at.to_le_bytes());
    }
    assert_eq!(client.load(&file, 5 << 30, 4096).unwrap(), [0; 4096]);
    assert!(client.stat(b"/sparse", Blocks::Count).unwrap().blocks.unwrap() < 200);
    drop(client);
    vm.assert_clean();
    vm.kill_qemu();
    vm.up();
    vm.assert_clean();
    let mut client = vm.client();
    let file = client.open(b"/sparse", 0).unwrap();
    for &at in &places {
        assert_eq!(client.load(&file, at, 8).unwrap(), at.to_le_bytes());
    }
    // The image on the host has stayed sparse.
    let image = std::fs::metadata(vm.state().nvdimm()).unwrap();
    assert_eq!(image.len(), 64 << 30);
    assert!(std::os::unix::fs::MetadataExt::blocks(&image) * 512 < 1 << 30);
}
