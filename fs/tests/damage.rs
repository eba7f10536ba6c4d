//! Structured damage: every word of every structure that a volume depends on is replaced by
//! what a wild store, a bug or a bad cell could leave there, with a check that is right.
//!
//! The result is an error or a repair: never a panic, a hang, or a write to a block that
//! belongs to another file.

mod explorer;

use explorer::ops::{NOW, SLOTS};
use explorer::recovery::caught;
use explorer::setups::{self, Setup};
use explorer::tree::{Tree, dump};
use std::collections::BTreeMap;
use umbra_fs::testing::{LogPmem, damage, mount};
use umbra_fs::{Kind, MountError, Pmem};

/// Mounts what is there, and uses it; errors are fine.
fn survive(pmem: &LogPmem, healthy: &Tree) -> Result<&'static str, String> {
    let mut volume = match mount(pmem.clone(), SLOTS) {
        Ok(volume) => volume,
        Err(
            MountError::Fs(_)
            | MountError::Superblocks
            | MountError::TooSmall
            | MountError::Version(_),
        ) => {
            return Ok("refused");
        }
        Err(error) => return Err(format!("{error}")),
    };
    let report = volume.check().ok();
    let clean = report.is_some_and(|r| r.issues.is_empty());
    let before = dump(&volume).ok();
    let root = volume.root();
    // Use it; what fails, fails. Nothing else may change.
    let mut changed: Vec<String> = Vec::new();
    let made = volume.create(root, b"new", 0o600, NOW);
    if let Ok(made) = made {
        let _ = volume.write(made, 0, &[0x99; 20_000], NOW);
    }
    for (path, seen) in healthy.iter().filter(|(_, s)| s.kind == Kind::File) {
        // Every other file is written to, or cloned.
        let Ok(ino) = volume.resolve(path.as_bytes()) else { continue };
        if changed.len().is_multiple_of(2) {
            let _ = volume.write(ino, 10, &[0x77; 5000], NOW);
        } else {
            let _ = volume.clone_file(ino, root, format!("copy-{}", changed.len()).as_bytes(), NOW);
            let _ = volume.truncate(ino, 100, NOW);
        }
        changed.push(path.clone());
        let _ = seen;
        if changed.len() == 2 {
            break;
        }
    }
    while let Ok(true) = volume.reclaim_step() {}
    if let (Some(before), Ok(after)) = (before, dump(&volume)) {
        for (path, seen) in &before {
            if seen.kind != Kind::File || changed.contains(path) {
                continue;
            }
            match after.get(path) {
                Some(now) if now.content == seen.content => {}
                // A second name of a file that was changed.
                Some(now)
                    if before.iter().any(|(p, s)| changed.contains(p) && s.ino == now.ino) => {}
                _ => return Err(format!("{path} changed with another file")),
            }
        }
    }
    Ok(if clean { "unharmed" } else { "reported" })
}

fn damage_all(setup: Setup) {
    std::panic::set_hook(Box::new(|_| {}));
    let pmem = LogPmem::new(setup.memory());
    pmem.mark();
    let healthy =
        dump(&mount(pmem.clone(), SLOTS).expect("a healthy volume")).expect("a healthy volume");
    pmem.rollback();
    let mut results: BTreeMap<&str, u64> = BTreeMap::new();
    let mut bad = Vec::new();
    let cases = pmem.with_bytes(damage::cases);
    assert!(cases.len() > 500, "{}", cases.len());
    for case in &cases {
        pmem.mark();
        for at in [case.at].into_iter().chain(case.twin) {
            pmem.put(at, &case.value.to_le_bytes());
        }
        match caught(|| survive(&pmem, &healthy)).and_then(|r| r) {
            Ok(what) => *results.entry(what).or_default() += 1,
            Err(what) => bad.push(format!("{}: {what}", case.what)),
        }
        pmem.rollback();
    }
    let _ = pmem.len();
    println!("{}: {} damages: {results:?}", setup.name, cases.len());
    bad.iter().take(20).for_each(|b| println!("{b}"));
    assert!(bad.is_empty(), "{} damages did harm", bad.len());
}

#[test]
fn damaged_files() {
    damage_all(setups::files());
}

#[test]
fn damaged_links() {
    damage_all(setups::links());
}

#[test]
fn damaged_tall_trees() {
    damage_all(setups::tall());
}
