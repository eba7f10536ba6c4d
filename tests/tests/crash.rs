//! QEMU is killed in the middle of everything; see `umbra_tests::torture`.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use umbra::client::Msync;
use umbra_tests::{Machine, torture};

/// Kills in a test; `cargo acceptance torture --rounds 200` is the long run.
const ROUNDS: u64 = 5;

#[test]
fn every_acknowledged_operation_survives_a_killed_qemu() {
    // Another seed each time, and the one to use again where it fails.
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| since.as_secs());
    println!("seed {seed}");
    let summary = torture::run(ROUNDS, seed, |_| {});
    println!("{summary:?}");
    assert!(summary.acknowledged > ROUNDS * 20, "{summary:?}");
}

#[test]
fn the_last_of_a_thousand_operations_survives_the_loss_of_either_superblock() {
    const BLOCK: u64 = 4096;
    let vm = Machine::nvdimm("64M").launch();
    let mut client = vm.client();
    let file = client.open_or_create(b"/f").unwrap();
    client.write(&file, 0, &[1; 10_000]).unwrap();
    for number in 0..1000u32 {
        match number % 3 {
            0 => drop(client.clone_file(b"/f", format!("/clone{number}").as_bytes()).unwrap()),
            1 => client
                .mkdir(format!("/dir{number}").as_bytes(), umbra::client::Parents::Need)
                .unwrap(),
            _ => drop(client.store(&file, 5000, &number.to_le_bytes(), Msync::Now).unwrap()),
        }
    }
    client.rename(b"/clone999", b"/the-last").unwrap();
    drop(client);
    vm.kill_qemu();
    // The superblocks are in block 0 and in block 2047.
    for lost in [0, 2047] {
        let image = OpenOptions::new().write(true).open(vm.state().nvdimm()).unwrap();
        image.write_all_at(&[0; BLOCK as usize], lost * BLOCK).unwrap();
        drop(image);
        vm.up();
        vm.assert_clean();
        let mut client = vm.client();
        client.stat(b"/the-last", umbra::client::Blocks::Skip).unwrap();
        assert_eq!(client.list(b"/").unwrap().len(), 1 + 334 + 333);
        let file = client.open(b"/f", 0).unwrap();
        assert_eq!(client.load(&file, 5000, 4).unwrap(), 998u32.to_le_bytes());
        drop(client);
        // The first time killed again, the second time not: a mount repairs the other copy.
        if lost == 0 {
            vm.kill_qemu();
        } else {
            vm.down();
        }
    }
    vm.up();
    vm.assert_clean();
}
