//! A volume without space: the one who stores is told, and nobody else notices.

use umbra::client::rpc::ErrorCode;
use umbra::client::{Client, File, Msync};
use umbra_tests::Vm;
use umbra_tests::random::Random;

const GOLDEN: usize = 3 << 20;

/// Writes files until nothing more fits, the last ones block by block.
fn fill(client: &mut Client) -> u64 {
    let mut number = 0;
    for piece in [1 << 20, 64 << 10, 4096] {
        loop {
            let path = format!("/filler{number}");
            let written = client.open_or_create(path.as_bytes()).and_then(|file| {
                let result = client.write(&file, 0, &vec![0xaa; piece]);
                client.close(file)?;
                result
            });
            number += 1;
            match written {
                Ok(()) => {}
                Err(error) if error.is(ErrorCode::NO_SPACE) => break,
                Err(error) => panic!("{path}: {error}"),
            }
        }
    }
    number
}

fn content(client: &mut Client, path: &str) -> Vec<u8> {
    let file = client.open(path.as_bytes(), 0).unwrap();
    let bytes = client.read(&file, 0, u64::MAX).unwrap();
    client.close(file).unwrap();
    bytes
}

#[test]
fn a_store_without_space_fails_alone_and_succeeds_after_rm() {
    let vm = Vm::launch("32M");
    let golden = Random::new(3).bytes(GOLDEN);
    std::fs::write(vm.file("golden"), &golden).unwrap();
    vm.ok(&["put", vm.file("golden").to_str().unwrap(), "/golden"]);
    for clone in ["/a", "/b"] {
        vm.ok(&["clone", "/golden", clone]);
    }
    let mut client = vm.client();
    // A handle with shadows, from before it gets narrow.
    let a: File = client.open(b"/a", 0).unwrap();
    assert!(client.load(&a, 0, GOLDEN as u64).unwrap() == golden);
    let fillers = fill(&mut client);

    // The whole file does not fit: some of the first pages may.
    let poked = client.poke(&a, 0, GOLDEN as u64, &0x55u8, Msync::Now);
    let error = poked.error.expect("there is no room for a copy of it all");
    assert!(error.is(ErrorCode::NO_SPACE), "{error}");
    assert!(error.to_string().contains("no space left"), "{error}");
    assert!(poked.stored < GOLDEN as u64 && poked.stored.is_multiple_of(4096), "{}", poked.stored);
    let text = vm.fails(&["poke", "/b", "0", "--fill", "0x66", "--length", "3M"]);
    assert!(text.contains("no space left") && text.contains("bytes are stored"), "{text}");

    // Who shares with them has noticed nothing, and what was stored has stayed.
    let mut expected = golden.clone();
    expected[..poked.stored as usize].fill(0x55);
    assert!(content(&mut client, "/golden") == golden);
    assert!(content(&mut client, "/a") == expected);
    assert!(client.load(&a, 0, GOLDEN as u64).unwrap() == expected);
    client.ping().unwrap();
    vm.assert_clean();
    let more = vm.run(&["put", vm.file("golden").to_str().unwrap(), "/more"]);
    assert!(!more.status.success());
    assert!(String::from_utf8_lossy(&more.stderr).contains("no space left"));
    // What an interrupted put had written is gone again.
    assert!(vm.json(&["ls"])["entries"].as_array().unwrap().iter().all(|e| e["name"] != "/more"));

    // A full volume can be emptied, and then the same store goes through.
    for number in 0..fillers {
        match client.unlink(format!("/filler{number}").as_bytes()) {
            Ok(()) => {}
            Err(error) => assert!(error.is(ErrorCode::NOT_FOUND), "{error}"),
        }
    }
    let poked = client.poke(&a, 0, GOLDEN as u64, &0x55u8, Msync::Now);
    assert!(poked.error.is_none(), "{:?}", poked.error);
    assert_eq!(content(&mut client, "/a"), vec![0x55; GOLDEN]);
    assert!(content(&mut client, "/golden") == golden);
    drop(client);
    vm.assert_clean();
    vm.down();
    vm.up();
    vm.assert_clean();
    assert!(vm.ok(&["get", "/golden", "-"]) == golden);
    assert_eq!(vm.ok(&["get", "/a", "-"]), vec![0x55; GOLDEN]);
}
