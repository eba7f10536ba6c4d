//! Masters and shadows over real page tables: what a store through one window does to the
//! others, counted page by page.

use umbra::client::rpc::PagesResponse;
use umbra::client::{Client, File, Msync};
use umbra_tests::Vm;
use umbra_tests::random::Random;

const PAGE: u64 = 4096;
const SIZE: usize = 6 << 20;

struct Pair {
    vm: Vm,
    client: Client,
    content: Vec<u8>,
}

fn prepared() -> Pair {
    let vm = Vm::launch("64M");
    let mut client = vm.client();
    let content = Random::new(11).bytes(SIZE);
    let file = client.open_or_create(b"/golden").unwrap();
    client.write(&file, 0, &content).unwrap();
    client.close(file).unwrap();
    client.clone_file(b"/golden", b"/clone").unwrap();
    Pair { vm, client, content }
}

fn open(client: &mut Client, path: &str) -> File {
    client.open(path.as_bytes(), 0).unwrap()
}

fn of(client: &mut Client, path: &str) -> PagesResponse {
    client.pages(Some(path.as_bytes())).unwrap()
}

#[test]
fn a_store_tosses_its_own_shadow_and_nobody_elses() {
    let Pair { vm, mut client, mut content } = prepared();
    let golden = open(&mut client, "/golden");
    let clone = open(&mut client, "/clone");
    assert!(client.load(&golden, 0, SIZE as u64).unwrap() == content);
    assert!(client.load(&clone, 0, SIZE as u64).unwrap() == content);
    let before = client.pages(None).unwrap();
    let (golden_before, clone_before) = (of(&mut client, "/golden"), of(&mut client, "/clone"));
    assert!(clone_before.shadows > 0 && golden_before.shadows > 0);

    // Across a page border, a border of 2 MiB, and within a page: 5 pages in all.
    let stores = [(3 * PAGE - 10, 20), ((2 << 20) - 100, 200), (5 << 20, 8)];
    for (offset, len) in stores {
        let bytes = vec![0xdd; len];
        client.store(&clone, offset, &bytes, Msync::Later).unwrap();
        content[offset as usize..][..len].copy_from_slice(&bytes);
    }
    let after = client.pages(None).unwrap();
    let (golden_after, clone_after) = (of(&mut client, "/golden"), of(&mut client, "/clone"));
    assert_eq!(after.faults.cow - before.faults.cow, 5);
    assert_eq!(after.faults.tossed - before.faults.tossed, 5);
    assert_eq!(after.faults.foreign_unmapped, 0);
    assert_eq!(clone_before.shadows - clone_after.shadows, 5);
    assert_eq!(clone_after.writable, 5);
    assert_eq!(golden_after.shadows, golden_before.shadows);
    // The golden file still shows the old blocks: they are masters yet.
    assert_eq!(after.masters, before.masters);
    assert!(client.load(&clone, 0, SIZE as u64).unwrap() == content);
    client.close(golden).unwrap();
    // Now nobody shows those five.
    assert_eq!(of(&mut client, "/clone").masters, clone_after.shadows);
    client.close(clone).unwrap();
    let end = client.pages(None).unwrap();
    assert_eq!((end.windows, end.masters, end.shadows, end.writable), (0, 0, 0, 0));
    drop(client);
    vm.assert_clean();
    assert!(vm.ok(&["get", "/golden", "-"]) == Random::new(11).bytes(SIZE));
    assert!(vm.ok(&["get", "/clone", "-"]) == content);
}

#[test]
fn the_last_owner_copies_nothing() {
    let Pair { vm, mut client, .. } = prepared();
    client.unlink(b"/golden").unwrap();
    client.reclaim().unwrap();
    let clone = open(&mut client, "/clone");
    client.load(&clone, 0, 64 * PAGE).unwrap();
    let before = client.pages(None).unwrap();
    let free = client.space().unwrap().blocks_free;
    for page in 0..32 {
        client.store(&clone, page * PAGE, b"mine", Msync::Later).unwrap();
    }
    let after = client.pages(None).unwrap();
    assert_eq!(after.faults.cow, before.faults.cow);
    assert_eq!(after.faults.write - before.faults.write, 32);
    assert_eq!(client.space().unwrap().blocks_free, free);
    drop(client);
    vm.assert_clean();
}

#[test]
fn two_windows_of_one_file_show_the_same_at_once() {
    let Pair { vm, mut client, .. } = prepared();
    let mut second = vm.client();
    let here = open(&mut client, "/clone");
    let there = open(&mut second, "/clone");
    assert_eq!(client.load(&here, 0, 100).unwrap(), second.load(&there, 0, 100).unwrap());
    client.store(&here, 50, b"seen at once", Msync::Later).unwrap();
    assert_eq!(second.load(&there, 50, 12).unwrap(), b"seen at once");
    // write() too, and what lies beyond a truncation is gone everywhere.
    second.write(&there, 60, b"WRITE").unwrap();
    assert_eq!(client.load(&here, 60, 5).unwrap(), b"WRITE");
    client.truncate(b"/clone", 3 * PAGE + 5).unwrap();
    assert!(second.load(&there, 3 * PAGE, 6).is_err());
    client.truncate(b"/clone", 4 * PAGE).unwrap();
    assert_eq!(second.load(&there, 3 * PAGE + 5, 100).unwrap(), [0; 100]);
    drop((client, second));
    vm.assert_clean();
}

#[test]
fn clones_of_a_file_with_dirty_pages_show_what_was_stored() {
    let Pair { vm, mut client, mut content } = prepared();
    let clone = open(&mut client, "/clone");
    for number in 0..20u8 {
        let at = u64::from(number) * 7 * PAGE + 13;
        client.store(&clone, at, &[number; 9], Msync::Later).unwrap();
        content[at as usize..][..9].fill(number);
        client.clone_file(b"/clone", format!("/of-dirty{number}").as_bytes()).unwrap();
        let copy = open(&mut client, &format!("/of-dirty{number}"));
        assert_eq!(client.load(&copy, at, 9).unwrap(), [number; 9]);
        client.close(copy).unwrap();
        assert_eq!(of(&mut client, "/clone").writable, 0, "a shared page stays writable");
    }
    drop(client);
    vm.kill_qemu();
    vm.up();
    vm.assert_clean();
    // What a clone has shown is durable, also where it was never synced.
    assert!(vm.ok(&["get", "/of-dirty19", "-"]) == content);
}
