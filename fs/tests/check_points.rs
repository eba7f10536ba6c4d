//! Others act once, at each point of a check in turn: it reports nothing, and goes on judging what
//! they left alone.

use umbra_fs::testing::{MemPmem, SoftMmu, mount, new_volume};
use umbra_fs::{CheckReport, Result, Time, Volume};

type Soft = Volume<MemPmem, SoftMmu>;

const NOW: Time = Time(1);
/// Blocks of a file that nobody touches.
const STILL: usize = 150;

/// A clean volume with two directories that have one in them each, a file of one block, one whose
/// tree has two levels, and one that stays.
fn clean_volume() -> MemPmem {
    let mut v = new_volume(8 << 20, 1);
    let root = v.root();
    let still = v.create(root, b"still", 0o600, NOW).unwrap();
    v.write(still, 0, &[1; STILL * 4096], NOW).unwrap();
    for (dir, below) in [(b"a", b"d"), (b"b", b"e")] {
        let dir = v.mkdir(root, dir, 0o700, NOW).unwrap();
        let below = v.mkdir(dir, below, 0o700, NOW).unwrap();
        v.create(below, b"f", 0o600, NOW).unwrap();
    }
    let low = v.create(root, b"low", 0o600, NOW).unwrap();
    v.write(low, 0, &[2; 4096], NOW).unwrap();
    let tall = v.create(root, b"tall", 0o600, NOW).unwrap();
    v.write(tall, 0, &[3; 4096], NOW).unwrap();
    v.write(tall, 3 << 20, &[3; 4096], NOW).unwrap();
    v.unmount().unwrap().0
}

/// Takes small steps of a check, has others act after the first `point` of them, and takes the
/// rest: the report, or `None` if it was over before.
fn check_with(
    memory: &MemPmem,
    point: u32,
    act: fn(&mut Soft) -> Result<()>,
) -> Option<CheckReport> {
    let mut v: Soft = mount(memory.clone(), 1).unwrap();
    v.set_check_work_a_step(8);
    let mut check = v.begin_check().unwrap();
    for _ in 0..point {
        if v.check_step(&mut check).unwrap().is_some() {
            return None;
        }
    }
    act(&mut v).unwrap();
    v.set_check_work_a_step(1 << 15);
    loop {
        if let Some(report) = v.check_step(&mut check).unwrap() {
            assert_eq!(v.check().unwrap().issues, Vec::<String>::new(), "afterwards");
            return Some(report);
        }
    }
}

fn at_each_point(act: fn(&mut Soft) -> Result<()>) {
    let memory = clean_volume();
    let mut point = 0;
    while let Some(report) = check_with(&memory, point, act) {
        assert_eq!(report.issues, Vec::<String>::new(), "after step {point}");
        // Or nothing would be judged at all.
        let changed = report.changed;
        assert!(changed < STILL as u64 / 2, "after step {point}: {changed} are not judged");
        assert!(report.blocks > STILL as u64, "after step {point}: {} blocks", report.blocks);
        point += 1;
    }
    assert!(point > 300, "{point} points");
}

/// A node that gained a reference, and is to be looked at for that in the end, goes.
#[test]
fn a_node_is_shared_and_goes() {
    at_each_point(|v| {
        let root = v.root();
        let tall = v.lookup(root, b"tall")?;
        v.clone_file(tall, root, b"clone", NOW)?;
        v.unlink(root, b"clone", NOW)?;
        v.unlink(root, b"tall", NOW)
    });
}

/// The old top of a tree hangs below a new one, which is shared then.
#[test]
fn a_tree_grows_and_is_shared() {
    at_each_point(|v| {
        let root = v.root();
        for name in [&b"low"[..], b"tall"] {
            let ino = v.lookup(root, name)?;
            v.write(ino, 2 << 30, &[4; 100], NOW)?;
            v.clone_file(ino, root, &[name, b"-clone"].concat(), NOW)?;
        }
        Ok(())
    });
}

/// A directory moves from where the walk of names has not been to where it was.
#[test]
fn a_directory_moves() {
    at_each_point(|v| {
        let (a, b) = (v.resolve(b"/a")?, v.resolve(b"/b")?);
        v.rename(a, b"d", b, b"d", NOW)
    });
    at_each_point(|v| {
        let (a, b) = (v.resolve(b"/a")?, v.resolve(b"/b")?);
        v.rename(b, b"e", a, b"e", NOW)
    });
}
