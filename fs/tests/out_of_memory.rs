//! Memory that runs out: each allocation that an operation of the filesystem makes fails once.
//!
//! The operation then fails with [`Error::NoMemory`], or is done without what there was no memory
//! for (the line of a finding). The same operation succeeds when there is memory again, and then
//! the volume is as it is without the failure: no block, inode, window or slot is left behind.
//!
//! [`Volume::mount`] is left out: what it takes for good it takes before anybody is served.

mod failing_allocator;

use failing_allocator::{counted, each, fail, has_failed};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use umbra_fs::dax::{Access, PAGES_PER_SLOT};
use umbra_fs::testing::{MemPmem, SoftMmu, damage, new_volume};
use umbra_fs::{
    Begun, Block, Climb, Error, Existing, FileBlock, Ino, Outcome, Pmem, Result, SetAttributes,
    Space, Time, Volume, Window,
};

const NOW: Time = Time(7_000);
type Vol = Volume<MemPmem, SoftMmu>;

/// What there is in a volume before an operation.
#[derive(Clone, Copy)]
struct Made {
    root: Ino,
    /// A file of 300 blocks, the first of which are writable through its window.
    file: Ino,
    /// A clone of it.
    clone: Ino,
    /// A file of the same content, of blocks of its own.
    twin: Ino,
    empty: Ino,
    link: Ino,
    dir: Ino,
}

/// A volume with some of everything, whose steps are small.
fn volume() -> (Vol, Made) {
    let mut v = new_volume(24 << 20, 8);
    let root = v.root();
    let content: Vec<u8> = (0..300 * 4096u32).map(|at| (at / 4096) as u8 ^ at as u8).collect();
    let [file, twin, empty] =
        [&b"file"[..], b"twin", b"empty"].map(|name| v.create(root, name, 0o644, NOW).unwrap());
    v.write(file, 0, &content, NOW).unwrap();
    v.write(twin, 0, &content, NOW).unwrap();
    let clone = v.clone_file(file, root, b"clone", NOW).unwrap();
    let link = v.symlink(root, b"link", b"target", NOW).unwrap();
    let dir = v.mkdir(root, b"dir", 0o755, NOW).unwrap();
    v.mkdir(root, b"bare", 0o755, NOW).unwrap();
    // It was large, so to find out that it is empty takes steps.
    let names: Vec<_> = (0..300).map(|i| format!("{i:0200}").into_bytes()).collect();
    names.iter().for_each(|name| assert!(v.create(dir, name, 0o644, NOW).is_ok()));
    names.iter().for_each(|name| v.unlink(dir, name, NOW).unwrap());
    let window = v.open_window(file).unwrap();
    store(&mut v, window, 0..100).unwrap();
    while v.reclaim_step().unwrap() {}
    v.set_work_a_step(4);
    (v, Made { root, file, clone, twin, empty, link, dir })
}

/// Stores to pages of the first leaf.
fn store(v: &mut Vol, window: Window, pages: std::ops::Range<u32>) -> Result<()> {
    let slot = v.attach(window, 0)?;
    pages.into_iter().try_for_each(|page| v.fault(slot.page(page), Access::Store))
}

/// All steps of an operation.
fn steps(v: &mut Vol, begun: Result<Begun>) -> Result<Outcome> {
    let Begun::GoesOn(mut operation) = begun? else { return Ok(Outcome::Done) };
    loop {
        if let Some(outcome) = v.step(&mut operation)? {
            return Ok(outcome);
        }
    }
}

/// Closing what was opened never fails for want of memory.
fn close(v: &mut Vol, window: Window) {
    let begun = v.begin_close(window);
    steps(v, begun).unwrap();
}

/// An operation, and the functions of [`Volume`] that it is about.
type Row = (&'static str, fn(&mut Vol, &Made) -> Result<()>);

const ROWS: &[Row] = &[
    ("create", |v, m| v.create(m.root, b"new", 0o644, NOW).map(drop)),
    ("create: in a bucket that is full", |v, m| {
        for i in 0..40 {
            match v.create(m.dir, format_name(i).as_slice(), 0o644, NOW) {
                Err(Error::Exists) => {}
                made => made.map(drop)?,
            }
        }
        Ok(())
    }),
    ("mkdir", |v, m| v.mkdir(m.root, b"new", 0o755, NOW).map(drop)),
    ("symlink", |v, m| v.symlink(m.root, b"new", b"to", NOW).map(drop)),
    ("open_unnamed, link", |v, m| {
        let (ino, window) = v.open_unnamed(m.dir, 0o600, (1, 2), NOW)?;
        let linked = v.link(ino, m.root, b"new", NOW);
        close(v, window);
        linked
    }),
    ("open_unnamed: it goes with its window", |v, m| {
        let (_, window) = v.open_unnamed(m.dir, 0o600, (1, 2), NOW)?;
        close(v, window);
        Ok(())
    }),
    ("may_link, link_as", |v, m| {
        v.may_link(m.empty, m.root, b"clone", Existing::Replace)?;
        v.link_as(m.empty, m.root, b"clone", Existing::Replace, NOW)
    }),
    ("unlink", |v, m| v.unlink(m.root, b"clone", NOW)),
    ("unlink: of an open file", |v, m| v.unlink(m.root, b"file", NOW)),
    ("examine, rmdir", |v, m| {
        while !v.examine(m.dir)? {}
        v.rmdir(m.root, b"dir", NOW)
    }),
    ("rename", |v, m| v.rename(m.root, b"file", m.root, b"clone", NOW)),
    ("examine_rename, rename_examined", |v, m| {
        let mut climb = Climb::default();
        while !v.examine_rename((m.root, b"bare"), (m.root, b"dir"), &mut climb)? {}
        v.rename_examined((m.root, b"bare"), (m.root, b"dir"), NOW, &mut climb)
    }),
    ("lookup, resolve, resolve_parent, resolve_parent_of_directory, resolve_rename", |v, m| {
        v.lookup(m.root, b"file")?;
        v.resolve(b"/dir/../file")?;
        v.resolve_parent(b"/dir/new")?;
        v.resolve_parent_of_directory(b"/dir/")?;
        v.resolve_rename(b"/file", b"/dir/file").map(drop)
    }),
    ("attributes, space, next_blocks, identity, uuid, is_parked, lending", |v, m| {
        v.attributes(m.file)?;
        v.identity()?;
        let _ = (v.space(), v.next_blocks(9), v.uuid(), v.is_parked(m.file), v.lending());
        Ok(())
    }),
    ("set_attributes", |v, m| {
        let set = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
        v.set_attributes(m.file, set, NOW)
    }),
    ("read_dir, read_dir_some", |v, m| {
        v.read_dir(m.root, 0, &mut |_| ControlFlow::Continue(()))?;
        v.read_dir_some(m.root, 0, &mut |_| ControlFlow::Break(())).map(drop)
    }),
    ("read_link", |v, m| v.read_link(m.link).map(drop)),
    ("read, extent", |v, m| {
        v.read(m.file, 5, &mut [0; 9000])?;
        v.extent(m.file, FileBlock(3)).map(drop)
    }),
    ("write: over blocks of its own, shared ones, and the end", |v, m| {
        v.write(m.twin, 5, &[1; 9000], NOW)?;
        v.write(m.file, 100 * 4096 - 5, &[2; 9000], NOW)?;
        v.write(m.clone, 300 * 4096 - 5, &[3; 90_000], NOW).map(drop)
    }),
    ("write_parts", |v, m| v.write_parts(m.clone, 8, [&[1; 64], &[2; 9000]], NOW).map(drop)),
    ("lend, write_received, take_back", |v, m| {
        let run = v.lend().expect("there is room for a run");
        let written = v.write_received(m.empty, 0, &[9; 3 * 4096 + 5], run, NOW);
        v.take_back(run);
        written.map(drop)
    }),
    ("punch", |v, m| punch_all(v, m.clone)),
    ("provide_zeros", |v, m| v.provide_zeros(m.clone, 5, 100_000, NOW).map(drop)),
    ("replace_content", |v, m| v.replace_content(m.clone, &[7; 20_000], NOW)),
    ("begin_truncate, truncate", |v, m| {
        let begun = v.begin_truncate(m.file, 4096 * 3 + 5, NOW);
        steps(v, begun)?;
        v.truncate(m.file, 1 << 30, NOW)
    }),
    ("clone_file, begin_clone, step: of a file that is stored to", |v, m| {
        let begun = v.begin_clone(m.file, m.dir, &[b'n'; 255], NOW);
        steps(v, begun)?;
        match v.clone_file(m.file, m.dir, b"another", NOW) {
            Err(error) => v.unlink(m.dir, &[b'n'; 255], NOW).and(Err(error)),
            made => made.map(drop),
        }
    }),
    ("begin_clone, abandon", |v, m| {
        if let Begun::GoesOn(operation) = v.begin_clone(m.file, m.dir, b"new", NOW)? {
            v.abandon(operation);
        }
        Ok(())
    }),
    ("begin_freeze, open_frozen", |v, m| {
        let begun = v.begin_freeze(m.file, NOW);
        let (Outcome::Frozen(_, window), Ok((_, other))) =
            (steps(v, begun)?, v.open_frozen(m.clone, NOW))
        else {
            panic!("a file that goes on has been frozen");
        };
        close(v, window);
        close(v, other);
        Ok(())
    }),
    ("clone_range: in one step", |v, m| v.clone_range(m.twin, 0, m.empty, 0, 2 * 4096, NOW)),
    ("begin_clone_range: in steps", |v, m| {
        let begun = v.begin_clone_range(m.file, 4096, m.clone, 0, 200 * 4096, NOW);
        steps(v, begun).map(drop)
    }),
    ("dedupe, dedupe_step", |v, m| {
        let mut dedupe = v.dedupe(m.file, 0, m.twin, 0, 300 * 4096)?;
        while v.dedupe_step(&mut dedupe)?.is_none() {}
        Ok(())
    }),
    ("abandon_dedupe", |v, m| {
        let mut dedupe = v.dedupe(m.file, 0, m.twin, 0, 300 * 4096)?;
        let began = (0..4).try_for_each(|_| v.dedupe_step(&mut dedupe).map(drop));
        v.abandon_dedupe(&mut dedupe);
        began
    }),
    ("begin_sync, finish, sync", |v, m| {
        let begun = v.begin_sync(m.file)?;
        v.finish(begun)?;
        v.sync(m.file)
    }),
    ("open_window, attach, fault, pin, unpin, begin_close, close_window", |v, m| {
        let window = v.open_window(m.clone)?;
        v.pin(window).unwrap();
        v.unpin(window).unwrap();
        let stored = store(v, window, 90..110);
        let loaded = v
            .attach(window, 0)
            .and_then(|slot| v.fault(slot.page(PAGES_PER_SLOT / 2), Access::Load));
        v.close_window(window).unwrap();
        stored.and(loaded)
    }),
    ("open_window: one hundred of them", |v, m| {
        let mut open = [None; 100];
        let result =
            open.iter_mut().zip([m.twin, m.empty].iter().cycle()).try_for_each(|(window, &ino)| {
                *window = Some(v.open_window(ino)?);
                Ok(())
            });
        open.into_iter().flatten().for_each(|window| close(v, window));
        result
    }),
    ("pages, count_pages, count_pages_step", |v, m| v.pages(Some(m.file)).map(drop)),
    ("begin_count, blocks", |v, m| v.blocks(m.file).map(drop)),
    ("check, begin_check, check_step, check_memory", |v, _| {
        assert!(v.check_memory() > 0);
        v.check().map(|report| assert_eq!((report.issues_total, report.changed), (0, 0)))
    }),
    ("abandon_check", |v, _| {
        let mut check = v.begin_check()?;
        let began = v.check_step(&mut check).map(drop);
        if began.is_ok() {
            v.abandon_check(check);
        }
        began
    }),
    ("memory_error, bad_blocks, bad_block_counts, clear_bad_blocks", |v, m| {
        strike(v, m.clone)?;
        assert_eq!((v.bad_blocks().len(), v.bad_block_counts().listed), (1, 1));
        v.clear_bad_blocks().map(drop)
    }),
    ("begin_scrub, scrub_step, last_scrub", |v, _| {
        let number = v.begin_scrub(NOW).number;
        while v.scrub_step(number, Block(u64::MAX), NOW)?.ended.is_none() {}
        assert_eq!(v.last_scrub().map(|scrub| scrub.findings()), Some(0));
        Ok(())
    }),
    ("owners_memory, begin_owners, owners_step", |v, m| {
        strike(v, m.clone)?;
        assert!(v.owners_memory() > 0);
        let mut search = v.begin_owners()?;
        let owners = loop {
            if let Some(owners) = v.owners_step(&mut search)? {
                break owners;
            }
        };
        assert_eq!(owners.path(m.clone), Some(&b"/clone"[..]));
        v.clear_bad_blocks().map(drop)
    }),
    ("has_pending_reclaim, reclaim_step", |v, m| {
        if v.unlink(m.root, b"twin", NOW) != Err(Error::NotFound) {
            assert!(v.has_pending_reclaim());
        }
        while v.reclaim_step()? {}
        Ok(())
    }),
];

/// Functions that have no row: start and end, and what only hands on or sets a field.
const NO_ROW: &[&str] = &[
    "format",
    "mount",
    "unmount",
    "was_rebuilt",
    "mended",
    "root",
    "pmem",
    "pmem_mut",
    "mmu_mut",
    "set_work_a_step",
    "set_check_work_a_step",
];

/// A long name, in memory of its own kind: the test's allocations do not count.
fn format_name(i: u8) -> [u8; 200] {
    let mut name = [b'x'; 200];
    name[0] = b'A' + i;
    name
}

/// A memory error in a block of a file.
fn strike(v: &mut Vol, ino: Ino) -> Result<()> {
    let block = v.extent(ino, FileBlock(200))?.and_then(|run| run.at).expect("content");
    v.memory_error(block, 1).map(drop)
}

fn punch_all(v: &mut Vol, ino: Ino) -> Result<()> {
    let mut at = 5;
    while at < 300 * 4096 {
        at += v.punch(ino, at, 300 * 4096 - at, NOW)?;
    }
    Ok(())
}

/// What must be the same, whatever failed on the way: space, and open windows.
fn left(v: &mut Vol) -> (Space, u64) {
    while v.reclaim_step().unwrap() {}
    let report = v.check().unwrap();
    assert_eq!(report.issues, Vec::<String>::new());
    (v.space(), v.pages(None).unwrap().windows)
}

#[test]
fn each_allocation_of_each_operation_may_fail() {
    let mut cases = 0;
    for (name, operation) in ROWS {
        let (mut v, made) = volume();
        counted(|| operation(&mut v, &made)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = left(&mut v);
        let allocations = each(|n| {
            let (mut v, made) = volume();
            fail(n);
            let result = counted(|| operation(&mut v, &made));
            let failed = has_failed();
            if let Err(error) = result {
                assert_eq!(error, Error::NoMemory, "{name}: allocation {n}");
                assert!(failed, "{name} fails without a failure");
                assert_eq!(v.check().unwrap().issues, Vec::<String>::new(), "{name}: {n}");
                counted(|| operation(&mut v, &made))
                    .unwrap_or_else(|error| panic!("{name}, allocation {n}, again: {error}"));
            }
            assert_eq!(left(&mut v), expected, "{name}: allocation {n}");
            failed
        });
        println!("{name}: {allocations} allocations");
        cases += allocations;
    }
    println!("{cases} cases");
    assert!(cases > 10, "allocations are not counted");
}

/// A finding for whose line there is no memory is counted all the same.
#[test]
fn a_finding_without_memory_for_its_line_is_counted() {
    let mut lost = 0;
    let lines = each(|n| {
        let (mut v, made) = volume();
        // The third word of an inode counts its names.
        let names = format!("field 3 of inode {} of ", made.empty.0);
        let cases = damage::cases(v.pmem().bytes());
        let wrong = cases.iter().find(|case| case.what.starts_with(&names));
        let wrong = wrong.expect("counts of names are among what can be damaged");
        let copies = [wrong.at].into_iter().chain(wrong.twin);
        copies.for_each(|at| v.pmem_mut().store(at, wrong.value));
        fail(n);
        let report = counted(|| v.check());
        let failed = has_failed();
        match report {
            Err(error) => assert_eq!((error, failed), (Error::NoMemory, true)),
            Ok(report) => {
                assert_eq!(report.issues_total, 1, "{:?}", report.issues);
                lost += u64::from(report.issues.is_empty());
                assert!(failed || report.issues.len() == 1);
            }
        }
        failed
    });
    assert!(lost > 0 && lost < lines, "{lost} of {lines}");
}

/// Every function by which a volume can be used has a row.
#[test]
fn no_operation_is_left_out() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut names = BTreeSet::new();
    for folder in ["volume", "volume/check", "volume/owners", "dax"] {
        for file in source.join(folder).read_dir().unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                names.extend(functions(&std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    let rows: String = ROWS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    let words: BTreeSet<_> = rows.split([' ', ',', ':']).chain(NO_ROW.iter().copied()).collect();
    let missing: Vec<_> = names.iter().filter(|name| !words.contains(name.as_str())).collect();
    assert!(names.len() > 60, "{names:?}");
    assert!(missing.is_empty(), "no row calls {missing:?}");
}

/// The public functions of a volume in a source file.
fn functions(text: &str) -> Vec<String> {
    let mut of_volume = false;
    let mut names = Vec::new();
    for line in text.lines() {
        if line.starts_with("impl") {
            of_volume = line.contains("Volume<P, M>");
        }
        if let Some(rest) = line.strip_prefix("    pub fn ").filter(|_| of_volume) {
            names.push(rest.split(['(', '<']).next().unwrap().to_string());
        }
    }
    names
}
