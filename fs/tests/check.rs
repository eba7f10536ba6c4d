//! A check takes steps, and others work between them: on a sound volume it reports nothing,
//! whatever they do, and what is damaged it finds.

mod pair;

use pair::{NOW, Op, Pair, op};
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use umbra_fs::testing::{MemPmem, SoftMmu, damage, derived_area, mount, new_volume};
use umbra_fs::{Check, CheckReport, Error, Ino, Pmem, Volume};

type Soft = Volume<MemPmem, SoftMmu>;

/// Cases of a property test: more by `PROPTEST_CASES` for a long run.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// A generator (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Files of tall trees, which share subtrees and lose them: whatever moves nodes.
struct Tall {
    random: Random,
    made: u64,
}

const TALL: u64 = 6;

impl Tall {
    fn name(&mut self) -> Vec<u8> {
        format!("tall-{}", self.random.below(TALL)).into_bytes()
    }

    /// Does something, which may fail: the file may not be there, and space may run out.
    fn act(&mut self, volume: &mut Soft) -> Result<(), Error> {
        let root = volume.root();
        let (name, other) = (self.name(), self.name());
        let far = |random: &mut Random| {
            [0, 4096 * 511, 1 << 21, 3 << 30, 300 << 30][random.below(5) as usize]
        };
        let place = |random: &mut Random| far(random) + 4096 * random.below(4);
        self.made += 1;
        match self.random.below(12) {
            0 => volume.create(root, &name, 0o600, NOW).map(drop),
            1 => volume.unlink(root, &name, NOW),
            2 => volume.rename(root, &name, root, &other, NOW),
            3 | 4 => {
                let ino = volume.lookup(root, &name)?;
                volume.clone_file(ino, root, &other, NOW).map(drop)
            }
            5 => {
                let ino = volume.lookup(root, &name)?;
                let size = place(&mut self.random);
                volume.truncate(ino, size, NOW)
            }
            6 => {
                let (src, dst) = (volume.lookup(root, &name)?, volume.lookup(root, &other)?);
                let (from, to) = (far(&mut self.random), far(&mut self.random));
                let size = volume.attributes(src)?.size / 4096 * 4096;
                let len = size.saturating_sub(from).min(512 << 30).min((512 << 30) - to);
                volume.clone_range(src, from, dst, to, len, NOW)
            }
            7 => {
                let ino = volume.lookup(root, &name)?;
                let dir = volume.mkdir(root, format!("d{}", self.made).as_bytes(), 0o700, NOW)?;
                volume.link(ino, dir, b"link", NOW)
            }
            8 => {
                let from =
                    volume.resolve(format!("/d{}", self.random.below(self.made)).as_bytes())?;
                volume.rename(root, &name, from, b"moved", NOW)
            }
            _ => {
                let ino = volume.lookup(root, &name)?;
                let at = place(&mut self.random);
                volume.write(ino, at, &[self.made as u8; 9000], NOW).map(drop)
            }
        }
    }
}

/// A check that goes on and on.
struct Checking {
    under_way: Option<Check>,
    reports: Vec<CheckReport>,
}

impl Checking {
    fn new() -> Self {
        Checking { under_way: None, reports: Vec::new() }
    }

    /// Takes up to `steps` steps.
    fn go(&mut self, volume: &mut Soft, steps: u64) {
        for _ in 0..steps {
            let check =
                self.under_way.get_or_insert_with(|| volume.begin_check().expect("no other check"));
            if let Some(report) = volume.check_step(check).unwrap() {
                self.under_way = None;
                assert_eq!(report.issues, Vec::<String>::new());
                self.reports.push(report);
            }
        }
    }

    /// Takes all that are left of the one that is under way.
    fn finish(&mut self, volume: &mut Soft) {
        while self.under_way.is_some() {
            self.go(volume, 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(80), ..ProptestConfig::default() })]

    #[test]
    fn a_check_reports_nothing_beside_random_operations(
        ops in prop::collection::vec((op(), 0u64..80), 20..160),
        work in prop_oneof![Just(1u64), 1u64..40, 200u64..3000],
    ) {
        let mut pair = Pair::new(3);
        let mut checking = Checking::new();
        for (op, steps) in &ops {
            // It goes with its mount.
            if matches!(op, Op::Remount) {
                checking.under_way = None;
            }
            pair.apply(op);
            pair.volume().set_check_work_a_step(work);
            // Small steps of a large volume get nowhere: most of it is free.
            checking.go(pair.volume(), steps * (1 + 4000 / work.max(20)));
        }
        checking.finish(pair.volume());
        pair.compare();
        // And nothing is left of them.
        let report = pair.volume().check().unwrap();
        prop_assert_eq!(report.issues, Vec::<String>::new());
        prop_assert_eq!(report.changed, 0);
    }
}

/// Trees that are as tall as can be, over and over: what a walk in steps has to get right.
#[test]
fn a_check_reports_nothing_beside_nodes_that_move() {
    let runs = u64::from(cases(24));
    let (mut finished, mut judged) = (0, 0);
    for seed in 0..runs {
        let mut volume = new_volume(4 << 20 << (seed % 2 + 1), 2);
        let mut tall = Tall { random: Random(seed), made: 0 };
        for _ in 0..100 {
            let _ = tall.act(&mut volume);
        }
        volume.set_check_work_a_step(1 + seed % 7 * 100);
        let mut checking = Checking::new();
        for _ in 0..3000 {
            let steps = tall.random.below(12);
            checking.go(&mut volume, steps);
            if tall.random.below(3) == 0 {
                let _ = tall.act(&mut volume);
            }
            if tall.random.below(4) == 0 {
                let _ = volume.reclaim_step();
            }
        }
        checking.finish(&mut volume);
        finished += checking.reports.len();
        judged += checking
            .reports
            .iter()
            .map(|report| report.blocks.saturating_sub(report.changed))
            .sum::<u64>();
    }
    // Or it would have shown nothing.
    assert!(finished as u64 > runs && judged > 100 * runs, "{finished} checks, {judged} blocks");
}

/// A volume with files that stay, and some that others work on.
fn still_volume() -> Soft {
    let mut volume = new_volume(8 << 20, 2);
    let root = volume.root();
    let still = volume.mkdir(root, b"still", 0o700, NOW).unwrap();
    for number in 0..40u8 {
        let ino = volume.create(still, format!("file-{number}").as_bytes(), 0o600, NOW).unwrap();
        volume.write(ino, u64::from(number) << 20, &[number; 20_000], NOW).unwrap();
        if number % 8 == 0 {
            volume.clone_file(ino, still, format!("clone-{number}").as_bytes(), NOW).unwrap();
        }
    }
    let deep = volume.mkdir(still, b"deep", 0o700, NOW).unwrap();
    volume.create(deep, b"in it", 0o600, NOW).unwrap();
    volume
}

/// What others do: to files of their own.
fn work(volume: &mut Soft, random: &mut Random) {
    let root = volume.root();
    let name = format!("busy-{}", random.below(5)).into_bytes();
    let _ = match (random.below(4), volume.lookup(root, &name)) {
        (0, _) => volume.create(root, &name, 0o600, NOW).map(drop),
        (1, Ok(_)) => volume.unlink(root, &name, NOW),
        (2, Ok(ino)) => volume
            .clone_file(ino, root, &format!("busy-{}", random.below(5)).into_bytes(), NOW)
            .map(drop),
        (_, Ok(ino)) => volume.write(ino, random.below(4) << 20, &[1; 5000], NOW).map(drop),
        (_, Err(error)) => Err(error),
    };
}

/// Whether a check finds something, with others at work or not.
fn finds(volume: &mut Soft, random: Option<&mut Random>) -> bool {
    let Some(random) = random else {
        return volume.check().map_or(true, |report| report.issues_total > 0);
    };
    volume.set_check_work_a_step(50);
    let mut check = volume.begin_check().expect("no other check");
    loop {
        match volume.check_step(&mut check) {
            Ok(None) => {}
            Ok(Some(report)) => return report.issues_total > 0,
            Err(_) => return true,
        }
        // What works on a damaged volume may notice it, and says so in a debug build.
        let went =
            random.below(20) > 0 || catch_unwind(AssertUnwindSafe(|| work(volume, random))).is_ok();
        if !went {
            return true;
        }
    }
}

/// Damages a copy of a volume, which runs on, in many ways, and has each looked for.
fn look_for(damages: &[(String, Vec<u64>, u64)]) -> usize {
    let volume = still_volume();
    let clean = volume.unmount().unwrap().0;
    let mut found = 0;
    for (seed, (what, at, value)) in (1u64..).zip(damages) {
        let damaged = || {
            let mut volume: Soft = mount(clean.clone(), 2).unwrap();
            at.iter().for_each(|&at| volume.pmem_mut().store(at, *value));
            volume
        };
        if finds(&mut damaged(), None) {
            found += 1;
            assert!(
                finds(&mut damaged(), Some(&mut Random(seed))),
                "{what} is not found while others work"
            );
        }
    }
    found
}

#[test]
fn wrong_counts_are_found_while_others_work() {
    let mut volume = still_volume();
    let used: Vec<u64> = [0, 8, 13, 39]
        .iter()
        .map(|number| {
            let ino = volume.resolve(format!("/still/file-{number}").as_bytes()).unwrap();
            let block = umbra_fs::FileBlock(number << 8);
            volume.extent(ino, block).unwrap().unwrap().at.unwrap().0
        })
        .collect();
    let scratch = derived_area(8 << 20).start;
    let record = |block: u64| scratch + block * 16;
    while volume.reclaim_step().unwrap() {}
    // In a group of records that is in use, away from where others take blocks.
    let after = *used.iter().max().unwrap();
    let free = (after..(after / 512 + 1) * 512).rev();
    let free: Vec<u64> =
        free.filter(|&block| volume.pmem().load(record(block)) == Ok(0)).take(2).collect();
    assert_eq!(free.len(), 2);
    let mut damages = Vec::new();
    for &block in &used {
        let state = volume.pmem().load(record(block)).unwrap();
        let at = vec![record(block)];
        damages.push((format!("block {block} has a reference too many"), at.clone(), state + 1));
        damages.push((format!("block {block} has a reference too few"), at, state - 1));
    }
    for &block in &free {
        let at = vec![record(block)];
        damages.push((format!("block {block} is leaked"), at.clone(), 1));
        damages.push((format!("block {block} is free, but shown"), at, 5 << 32));
    }
    assert_eq!(look_for(&damages), damages.len(), "all are found when nobody works");
}

#[test]
fn damage_is_found_while_others_work() {
    let mut volume = still_volume();
    while volume.reclaim_step().unwrap() {}
    let bytes = volume.unmount().unwrap().0;
    let all = damage::cases(bytes.bytes());
    // Some of each sort, spread over all structures: all of them would take hours.
    let mut by_sort: std::collections::BTreeMap<String, Vec<&damage::Damage>> = Default::default();
    for case in &all {
        let sort: String = case.what.chars().filter(|c| !c.is_ascii_digit()).take(40).collect();
        by_sort.entry(sort).or_default().push(case);
    }
    let mut damages = Vec::new();
    for cases in by_sort.values() {
        for case in cases.iter().step_by((cases.len() / 6).max(1)) {
            let at = [case.at].into_iter().chain(case.twin).collect();
            damages.push((case.what.clone(), at, case.value));
        }
    }
    let found = look_for(&damages);
    println!("{found} of {} damages are found", damages.len());
    assert!(damages.len() > 60 && found > damages.len() / 2, "{found} of {}", damages.len());
}

#[test]
fn one_check_at_a_time_and_one_that_is_given_up_leaves_nothing() {
    let mut volume = still_volume();
    volume.set_check_work_a_step(100);
    let mut check = volume.begin_check().unwrap();
    assert!(matches!(volume.begin_check(), Err(Error::Busy(_))));
    assert!(matches!(volume.check(), Err(Error::Busy(_))));
    for _ in 0..100 {
        assert_eq!(volume.check_step(&mut check), Ok(None));
    }
    volume.abandon_check(check);
    let report = volume.check().unwrap();
    assert_eq!((report.issues, report.changed), (Vec::new(), 0));
    // A crash in the middle of one.
    let mut check = volume.begin_check().unwrap();
    for _ in 0..100 {
        assert_eq!(volume.check_step(&mut check), Ok(None));
    }
    let mut after: Soft = mount(volume.pmem().clone(), 2).unwrap();
    let report = after.check().unwrap();
    assert_eq!((report.issues, report.changed), (Vec::new(), 0));
    // A clean stop in the middle of one.
    let clean = volume.unmount().unwrap().0;
    let mut after: Soft = mount(clean, 2).unwrap();
    assert!(!after.was_rebuilt());
    let report = after.check().unwrap();
    assert_eq!((report.issues, report.changed), (Vec::new(), 0));
    assert!(after.resolve(b"/still/file-0").is_ok_and(|ino| ino != Ino(0)));
}

/// A check ends, though others change the volume between all of its steps.
#[test]
fn a_check_ends_whatever_others_do() {
    let mut volume = still_volume();
    volume.set_check_work_a_step(500);
    let mut random = Random(7);
    let mut check = volume.begin_check().unwrap();
    let mut steps = 0;
    let report = loop {
        for _ in 0..3 {
            work(&mut volume, &mut random);
        }
        steps += 1;
        assert!(steps < 20_000, "it does not end");
        if let Some(report) = volume.check_step(&mut check).unwrap() {
            break report;
        }
    };
    assert_eq!(report.issues, Vec::<String>::new());
    println!("{steps} steps, {report:?}");
}
