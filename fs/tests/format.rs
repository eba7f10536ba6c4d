//! A format that is interrupted anywhere leaves the old volume, or what the next start formats
//! again, or the new volume.

use std::collections::BTreeSet;
use umbra_fs::testing::{
    Event, FORMAT, LogPmem, MemPmem, Model, SoftMmu, Undecided, mount, new_volume,
};
use umbra_fs::{MountError, Pmem, Time, Volume};

/// Small: its first nodes lie where leftovers of other formats are looked for.
const REGION: u64 = 8 << 20;

/// What a machine finds that starts after the interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Blank,
    Unfinished,
    Old,
    New,
}

fn look(bytes: Vec<u8>) -> Result<Found, MountError> {
    let mut volume = match mount(MemPmem::from_bytes(bytes), 4) {
        Ok(volume) => volume,
        Err(MountError::Blank) => return Ok(Found::Blank),
        Err(MountError::Unfinished) => return Ok(Found::Unfinished),
        Err(error) => return Err(error),
    };
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
    Ok(if volume.lookup(volume.root(), b"kept").is_ok() { Found::Old } else { Found::New })
}

/// Formats a region, and looks at what an interruption leaves: of a guest that is killed (all
/// stores up to there), and of a machine that loses power (what was flushed and fenced, and of the
/// rest anything).
fn interrupt_everywhere(before: &[u8]) -> BTreeSet<Found> {
    let mut pmem = LogPmem::new(MemPmem::from_bytes(before.to_vec()));
    pmem.start_trace(None);
    Volume::<LogPmem, SoftMmu>::format(&mut pmem, FORMAT).unwrap();
    let events = pmem.stop_trace();
    let (mut durable, mut killed) = (before.to_vec(), before.to_vec());
    let mut undecided = Undecided::default();
    let mut seen = BTreeSet::new();
    let mut random = 1u64;
    for (number, event) in events.iter().enumerate() {
        let mut looks = Vec::new();
        if let Event::Store { at, value, .. } = *event {
            let word = &mut killed[at as usize..at as usize + 8];
            if *word != value.to_le_bytes() {
                word.copy_from_slice(&value.to_le_bytes());
                looks.push("killed");
            }
        }
        undecided.apply(event, &mut |at, value| {
            let word = &mut durable[at as usize..at as usize + 8];
            let old = u64::from_le_bytes((&*word).try_into().unwrap());
            if let Some(value) = value {
                word.copy_from_slice(&value.to_le_bytes());
                looks.push("durable");
            }
            old
        });
        looks.dedup();
        if looks.is_empty() {
            continue;
        }
        let mut mixed = durable.clone();
        for choice in undecided.choices(Model::Words, |_| 0xff) {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            for (at, value) in choice.words((random >> 33) as usize % choice.values.len()) {
                mixed[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        for what in looks.into_iter().chain(["mixed"]) {
            let bytes = match what {
                "killed" => &killed,
                "durable" => &durable,
                _ => &mixed,
            };
            match look(bytes.clone()) {
                Ok(found) => drop(seen.insert(found)),
                Err(error) => panic!("{what} after event {number}, {event:?}: {error}"),
            }
        }
    }
    assert_eq!(look(killed).unwrap(), Found::New);
    seen
}

#[test]
fn of_a_blank_region() {
    let seen = interrupt_everywhere(&vec![0; REGION as usize]);
    assert_eq!(seen, [Found::Blank, Found::Unfinished, Found::New].into());
}

#[test]
fn of_an_old_volume() {
    let mut volume = new_volume(REGION, 4);
    volume.create(volume.root(), b"kept", 0o644, Time(3_000)).unwrap();
    let (pmem, _) = volume.unmount().unwrap();
    let seen = interrupt_everywhere(pmem.bytes());
    assert_eq!(seen, [Found::Unfinished, Found::Old, Found::New].into());
}

#[test]
fn an_unfinished_one_is_done_again() {
    let mut pmem = LogPmem::new(MemPmem::new(REGION));
    pmem.start_trace(None);
    Volume::<LogPmem, SoftMmu>::format(&mut pmem, FORMAT).unwrap();
    let events = pmem.stop_trace();
    let mut half = MemPmem::new(REGION);
    for event in &events[..events.len() / 2] {
        if let Event::Store { at, value, .. } = *event {
            half.store(at, value);
        }
    }
    assert_eq!(look(half.bytes().to_vec()).unwrap(), Found::Unfinished);
    Volume::<MemPmem, SoftMmu>::format(&mut half, FORMAT).unwrap();
    assert_eq!(look(half.bytes().to_vec()).unwrap(), Found::New);
}
