//! The tests of the crash explorer: every flush, every fence and every store is left out in
//! turn, and the explorer has to notice.

mod explorer;

use explorer::ops::Op;
use explorer::setups::{self, Setup};
use explorer::{Explorer, Violation};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use umbra_fs::testing::{Call, Event, Site, Skip};

fn explorers() -> Vec<Explorer> {
    let mut setups = vec![setups::files(), setups::links(), setups::tall(), setups::full()];
    setups.extend([setups::equal(), setups::unwritten()]);
    setups
        .into_iter()
        .map(|setup| {
            let mut explorer = Explorer::new(Rc::new(setup));
            explorer.nested = 2;
            explorer
        })
        .collect()
}

/// Sequences in which a call that is left out may be noticed: those of one, and a few of
/// two, where what the first one left undecided harms the second.
fn sequences(setup: &Setup) -> Vec<Vec<Op>> {
    let mut list: Vec<Vec<Op>> = setup.ops.iter().map(|op| vec![*op]).collect();
    if setup.name == "files" {
        list.extend([
            vec![Op::Write("f", 100, 20), Op::Sync("f")],
            vec![Op::Write("f", 100, 200), Op::Sync("f")],
            vec![Op::Store("f", 4080, 30), Op::Sync("f")],
            vec![Op::Store("f", 4080, 30), Op::CloseWindow("f")],
            vec![Op::Store("f", 4080, 30), Op::Clone("f", "n")],
            vec![Op::Store("f", 4080, 30), Op::Remount],
            vec![Op::Write("f", 100, 20), Op::CloneRange("f", 0, "b", 0, 1)],
            vec![Op::Store("c", 3, 20), Op::CloneRange("c", 0, "d/y", 0, 1)],
            vec![Op::Write("c", 3, 20), Op::CloneRange("c", 0, "d/y", 0, 1)],
            vec![Op::Append("c", 100), Op::Sync("c")],
            vec![Op::Unlink("a"), Op::Append("c", 9000)],
            vec![Op::Truncate("f", 0), Op::Write("c", 0, 4096)],
            vec![Op::Write("b", 100, 200), Op::Append("c", 9000)],
            vec![Op::Unlink("c"), Op::Create("n")],
            vec![Op::BeginCloneRange("a", 0, "k", 1, 3), Op::GoOn],
            vec![Op::BeginCloneRange("a", 0, "k", 1, 3), Op::Remount],
        ]);
    }
    list
}

/// Sequences, by the number of their explorer and their own, in which a place stores, flushes or
/// fences.
type Users = BTreeSet<(usize, usize)>;

/// Places that store, flush or fence, by what they do and their name.
type Sites = BTreeMap<(Call, String), (Site, Users)>;

/// Leaves out calls from a place: first in the sequences that have it, because only there does it
/// change what the sequence itself does; then in all others, whose recovery may have it.
fn noticed(explorers: &mut [Explorer], skip: Skip, users: &Users) -> Option<Violation> {
    for uses in [true, false] {
        for (e, explorer) in explorers.iter_mut().enumerate() {
            explorer.skip = Some(skip);
            for (n, ops) in sequences(&explorer.setup.clone()).iter().enumerate() {
                if users.contains(&(e, n)) != uses {
                    continue;
                }
                explorer.poison_every = (*ops == [Op::Remount]) as u64;
                if let Err(violation) = explorer.explore(ops) {
                    return Some(violation);
                }
            }
        }
    }
    None
}

/// All places that were seen storing, flushing and fencing; and those that flush several
/// lines at once.
fn sites(explorers: &mut [Explorer]) -> (Sites, BTreeSet<String>) {
    let mut sites = Sites::new();
    let mut several = BTreeSet::new();
    for (e, explorer) in explorers.iter_mut().enumerate() {
        for (n, ops) in sequences(&explorer.setup.clone()).iter().enumerate() {
            let Ok(Some(run)) = explorer.record(ops) else { panic!("{ops:?} makes no sense") };
            for event in &run.events {
                let (call, site) = match event {
                    Event::Store { site, .. } => (Call::Store, *site),
                    Event::Flush { site, .. } => (Call::Flush, *site),
                    Event::Fence { site } => (Call::Fence, *site),
                };
                let key = (call, site.to_string());
                sites.entry(key).or_insert((site, Users::new())).1.insert((e, n));
            }
            for pair in run.events.windows(2) {
                if let [Event::Flush { line: a, site }, Event::Flush { line: b, site: same }] = pair
                    && (site == same && a + 64 == *b)
                {
                    several.insert(site.to_string());
                }
            }
        }
    }
    (sites, several)
}

#[test]
fn no_flush_fence_or_store_can_be_left_out_unnoticed() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut explorers = explorers();
    let mut missed = BTreeSet::new();
    let long = std::env::var("UMBRA_EXPLORE").is_ok_and(|what| what == "all");
    let (sites, several) = sites(&mut explorers);
    for ((call, name), (site, users)) in sites {
        // Stores that are left out break the operation itself; they only take time.
        if call == Call::Store && !long {
            continue;
        }
        let mut ways = vec![Skip::Site(call, site)];
        if call == Call::Flush && several.contains(&name) {
            ways.push(Skip::Tail(site));
        }
        for skip in ways {
            match noticed(&mut explorers, skip, &users) {
                Some(violation) => {
                    let what: String = violation.what.chars().take(100).collect();
                    println!("{skip:?}: {what}");
                }
                None => {
                    println!("{skip:?}: NOT NOTICED");
                    missed.insert(format!("{call:?} {name}"));
                }
            }
        }
    }
    assert!(missed.is_empty(), "left out, and nobody noticed: {missed:#?}");
}

/// In the long run, every fence of every operation by itself: with the place in the source
/// alone, one operation that needs a fence would hide another that does not.
#[test]
fn each_fence_of_each_operation() {
    if !std::env::var("UMBRA_EXPLORE").is_ok_and(|what| what == "all") {
        return;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    let mut tried = 0;
    for explorer in &mut explorers() {
        let setup = explorer.setup.clone();
        for op in &setup.ops {
            explorer.skip = None;
            let Ok(Some(run)) = explorer.record(&[*op]) else { panic!("{op:?} makes no sense") };
            let fences = |events: &[Event]| {
                events.iter().filter(|e| matches!(e, Event::Fence { .. })).count()
            };
            let before = fences(&run.events[..run.start]);
            for n in 0..fences(&run.events[run.start..]) {
                tried += 1;
                explorer.skip = Some(Skip::Nth(Call::Fence, (before + n) as u64));
                let alone = explorer.explore(&[*op]);
                let noticed = alone.is_err() || {
                    let mut after = setup.ops.iter().filter(|next| **next != *op);
                    after.any(|next| explorer.explore(&[*op, *next]).is_err())
                };
                if !noticed {
                    missed.push(format!("{op:?}: fence {n}").replace(&"0".repeat(200), ".."));
                }
            }
        }
    }
    println!("{tried} fences left out; not noticed: {missed:#?}");
}

/// Why two steps may be swapped, where they may.
fn may_be_swapped(setup: &str, op: &Op, n: usize) -> Option<&'static str> {
    use Op::*;
    Some(match (setup, op, n) {
        (_, Remount, 1..=3) => "of two superblocks that say the same, either may be the first",
        ("links", Unlink("h" | "d/h" | "c" | "i"), 0) => {
            "recovery counts names, whatever the inode says"
        }
        ("files", Append("f" | "d/y", _) | Write("d/x", 24_576, _), 0)
        | ("tall", Write("s", ..) | Receive("s", ..), 0) => {
            "nothing shows what lies beyond the end, until the size is raised"
        }
        ("files", Truncate("b", 20_000), 1) => "behind the end are zeros already",
        // From here on: the first step ends a commit, the second only fills blocks that are free.
        ("files" | "tall" | "unwritten", Truncate("b" | "p" | "w", 100 | 5000), 0) => {
            "the size, then a copy of a node"
        }
        ("files", Store("b", ..) | Punch("b", ..), 1)
        | ("links", Store("d/c", ..), 1)
        | ("unwritten", Store("u", ..), 1) => "one page, then the next",
        ("tall", Write("o", ..) | Receive("p", ..), 1)
        | ("tall", Write("s", ..) | Receive("s", ..), 2) => "below one leaf, then below the next",
        ("files", Receive("b", ..), 1) => "the blocks that were received, then a part of one",
        ("files", CloneRange("a", _, "a" | "k", ..), 1) => "zeros behind the end, then the range",
        // The last two steps, the file and its name, are not among these.
        (_, BeginCloneRange(..), 0 | 2 | 4) | (_, Unnamed(_), 0 | 2) => {
            "nothing shows a file that has no name"
        }
        ("full", Put(..), 1..=4) | ("files" | "links", Put(..), 0..=3) => {
            "nothing shows a file before it has its name"
        }
        ("full", Put(..), 6) => "a bucket that was split, then the entry",
        ("full", Create(_) | Mkdir(_) | Clone(..) | Link(..) | Symlink(..) | Rename(..), 1 | 3) => {
            "a bucket that was split, or a block of inodes, then the entry"
        }
        _ => return None,
    })
}

/// Every two steps of every operation, in the wrong order.
#[test]
fn no_two_steps_can_be_swapped_unnoticed() {
    std::panic::set_hook(Box::new(|_| {}));
    let (mut tried, mut explained, mut missed) = (0, 0, Vec::new());
    for explorer in &mut explorers() {
        for op in explorer.setup.ops.clone() {
            for n in 0.. {
                match explorer.explore_swapped(op, n) {
                    Err(_) => {}
                    Ok(None) => break,
                    Ok(Some(())) if may_be_swapped(explorer.setup.name, &op, n).is_some() => {
                        explained += 1
                    }
                    Ok(Some(())) => {
                        let what = format!("{}: {op:?}: {n}", explorer.setup.name);
                        missed.push(what.replace(&"0".repeat(200), ".."));
                    }
                }
                tried += 1;
            }
        }
    }
    // (The hook that keeps caught panics quiet keeps this one quiet, too.)
    println!("{tried} swaps, {explained} of them may be; not noticed: {missed:#?}");
    assert!(missed.is_empty());
}

/// Bugs that others have published, made of operations that are right one by one.
#[test]
fn published_bugs_are_noticed() {
    use Op::*;
    let mut explorer = Explorer::new(Rc::new(setups::files()));
    let cases: [(&str, &[Op], usize); 6] = [
        ("a rename that keeps both names", &[Clone("a", "n"), Unlink("a")], 0),
        ("a rename that loses both names", &[Unlink("d/y"), Create("d/m")], 0),
        ("a replaced name that is gone for a moment", &[Unlink("c"), Rename("f", "c")], 0),
        ("a size before the data", &[Truncate("a", 20_000), Write("a", 16_384, 3616)], 0),
        (
            "a tail before the data in front of it",
            &[Write("d/y", 4096, 4096), Write("d/y", 0, 4096)],
            0,
        ),
        (
            "a clone that shows what its source did not keep",
            &[Clone("f", "n"), Write("n", 0, 100)],
            0,
        ),
    ];
    for (what, ops, from) in cases {
        assert!(explorer.explore_as_one(ops, from).is_err(), "{what}");
    }
    // A block that is reused before the commit that frees it is durable: its last fence is
    // left out, and the next operation takes it.
    let mut noticed = 0;
    for op in [Unlink("a"), Truncate("f", 0), Write("b", 100, 200), Store("b", 4080, 30)] {
        explorer.skip = None;
        let Ok(Some(run)) = explorer.record(&[op]) else { panic!("{op:?} makes no sense") };
        let last = run.events.iter().filter(|e| matches!(e, Event::Fence { .. })).count() - 1;
        explorer.skip = Some(Skip::Nth(Call::Fence, last as u64));
        noticed += explorer.explore(&[op, Append("c", 9000)]).is_err() as u32;
    }
    assert!(noticed > 0, "a block that is reused too early");
}
