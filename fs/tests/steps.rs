//! Operations step by step: how much a step does, what is between two of them, and what is left of
//! an operation that does not come to its end.

use std::cell::Cell;
use umbra_fs::dax;
use umbra_fs::pmem::Poisoned;
use umbra_fs::testing::{FORMAT, MemPmem, SoftMachine, SoftMmu, free_blocks, mount, new_volume};
use umbra_fs::{Begun, Climb, Error, Ino, Operation, Outcome, Pmem, Result, Time, Volume, Window};

const NOW: Time = Time(5_000);
const GIB: u64 = 1 << 30;

/// Memory that counts what is done to it: words, and lines of what is copied.
struct CountPmem {
    inner: MemPmem,
    work: Cell<u64>,
}

impl CountPmem {
    fn count(&self, bytes: u64) {
        self.work.set(self.work.get() + bytes.div_ceil(64));
    }
}

impl Pmem for CountPmem {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn load(&self, at: u64) -> std::result::Result<u64, Poisoned> {
        self.count(8);
        self.inner.load(at)
    }
    fn read(&self, at: u64, into: &mut [u8]) -> std::result::Result<(), Poisoned> {
        self.count(into.len() as u64);
        self.inner.read(at, into)
    }
    fn store(&mut self, at: u64, value: u64) {
        self.count(8);
        self.inner.store(at, value);
    }
    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.count(bytes.len() as u64);
        self.inner.write(at, bytes);
    }
    fn zero(&mut self, at: u64, len: u64) {
        self.count(len);
        self.inner.zero(at, len);
    }
    fn copy(&mut self, from: u64, to: u64, len: u64) -> std::result::Result<(), Poisoned> {
        self.count(len);
        self.inner.copy(from, to, len)
    }
    fn flush(&mut self, at: u64, len: u64) {
        self.count(len);
        self.inner.flush(at, len);
    }
    fn fence(&mut self) {
        self.inner.fence();
    }
}

type Counted = SoftMachine<CountPmem>;
type Vol = Volume<CountPmem, SoftMmu>;

fn counted(len: u64, slots: u32) -> Counted {
    let mut inner = MemPmem::new(len);
    Volume::<MemPmem, SoftMmu>::format(&mut inner, FORMAT).unwrap();
    SoftMachine { volume: mount(CountPmem { inner, work: Cell::new(0) }, slots).unwrap() }
}

/// The most that one step may do: about what 1,024 blocks take that are flushed.
const MOST: u64 = 200_000;

/// Begins, and takes all steps; returns the result and the work of each step.
fn run(volume: &mut Vol, begin: impl FnOnce(&mut Vol) -> Result<Begun>) -> (Outcome, Vec<u64>) {
    let before = volume.pmem().work.get();
    let begun = begin(volume).unwrap();
    let mut steps = vec![volume.pmem().work.get() - before];
    let mut operation = match begun {
        Begun::Over(outcome) => return (outcome, steps),
        Begun::GoesOn(operation) => operation,
    };
    loop {
        let before = volume.pmem().work.get();
        let done = volume.step(&mut operation).unwrap();
        steps.push(volume.pmem().work.get() - before);
        if let Some(outcome) = done {
            return (outcome, steps);
        }
    }
}

/// What goes on after its first step.
fn going_on(begun: Result<Begun>) -> Operation {
    match begun {
        Ok(Begun::GoesOn(operation)) => operation,
        other => panic!("{other:?}"),
    }
}

fn reclaim(volume: &mut Vol) {
    loop {
        let before = volume.pmem().work.get();
        let more = volume.reclaim_step().unwrap();
        assert!(volume.pmem().work.get() - before <= MOST, "a step of reclaiming");
        if !more {
            return;
        }
    }
}

fn clean<P: Pmem>(volume: &mut Volume<P, SoftMmu>) {
    assert_eq!(volume.check().unwrap().issues, Vec::<String>::new());
}

fn create(volume: &mut Vol, name: &[u8]) -> Ino {
    let root = volume.root();
    volume.create(root, name, 0o644, NOW).unwrap()
}

/// Fills a file with data: it shares all of a piece of it, so that it is large in entries only.
fn dense(volume: &mut Vol, ino: Ino, blocks: u64) {
    volume.write(ino, 0, &vec![7; 512 * 4096], NOW).unwrap();
    let mut have = 512;
    while have < blocks {
        let more = have.min(blocks - have);
        volume.clone_range(ino, 0, ino, have * 4096, more * 4096, NOW).unwrap();
        have += more;
    }
    reclaim(volume);
}

/// Stores a word into each page.
fn dirty(machine: &mut Counted, window: Window, pages: u64) {
    for page in 0..pages {
        dax::store(machine, window, page * 4096, &page.to_le_bytes()).unwrap();
    }
}

fn assert_stepped(what: &str, steps: &[u64]) {
    let most = steps.iter().max().unwrap();
    assert!(steps.len() > 1, "{what} is one step");
    assert!(*most <= MOST, "{what}: a step does {most} of {} steps", steps.len());
}

#[test]
fn what_was_stored_to_many_pages_is_made_durable_in_steps() {
    let mut machine = counted(96 << 20, 16);
    let ino = create(&mut machine.volume, b"a");
    let root = machine.volume.root();
    machine.volume.write(ino, 0, &vec![1; 24 << 20], NOW).unwrap();
    let window = machine.volume.open_window(ino).unwrap();
    for what in ["sync", "clone", "freeze", "range", "dedupe", "truncate", "close"] {
        if what != "truncate" {
            dirty(&mut machine, window, 6000);
        }
        if what == "truncate" {
            // All of it is shown.
            let mut byte = [0];
            for page in 0..6000 {
                dax::load(&mut machine, window, page * 4096, &mut byte).unwrap();
            }
        }
        let volume = &mut machine.volume;
        if what == "dedupe" {
            let mut work = volume.dedupe(ino, 0, ino, 30 << 20, 1 << 20).unwrap();
            let mut steps = Vec::new();
            loop {
                let before = volume.pmem().work.get();
                let done = volume.dedupe_step(&mut work).unwrap();
                steps.push(volume.pmem().work.get() - before);
                if done.is_some() {
                    break;
                }
            }
            assert_stepped(what, &steps);
            continue;
        }
        let (outcome, steps) = run(volume, |volume| match what {
            "sync" => volume.begin_sync(ino),
            "clone" => volume.begin_clone(ino, root, b"clone", NOW),
            "freeze" => volume.begin_freeze(ino, NOW),
            "range" => volume.begin_clone_range(ino, 0, ino, 40 << 20, 1 << 20, NOW),
            "truncate" => volume.begin_truncate(ino, 100, NOW),
            _ => volume.begin_close(window),
        });
        assert_stepped(what, &steps);
        assert_eq!(machine.volume.pages(None).unwrap().writable, 0, "{what}");
        assert!(!machine.volume.is_parked(ino), "{what}");
        if let Outcome::Frozen(_, window) = outcome {
            machine.volume.close_window(window).unwrap();
        }
        if what == "range" {
            machine.volume.truncate(ino, 31 << 20, NOW).unwrap();
        }
        if what == "truncate" {
            machine.volume.write(ino, 0, &vec![1; 24 << 20], NOW).unwrap();
        }
        clean(&mut machine.volume);
    }
}

#[test]
fn blocks_are_counted_in_steps() {
    let mut machine = counted(64 << 20, 2);
    let volume = &mut machine.volume;
    let ino = create(volume, b"a");
    dense(volume, ino, 1 << 20);
    let (outcome, steps) = run(volume, |volume| volume.begin_count(ino));
    assert_eq!(outcome, Outcome::Blocks(1 << 20));
    assert_stepped("count", &steps);
    // Of what is hardly anything, no more is looked at than there is.
    let sparse = create(volume, b"b");
    volume.truncate(sparse, 511 * GIB, NOW).unwrap();
    volume.write(sparse, 400 * GIB, &[1; 9000], NOW).unwrap();
    let (outcome, steps) = run(volume, |volume| volume.begin_count(sparse));
    assert_eq!((outcome, steps.len()), (Outcome::Blocks(3), 1));
}

#[test]
fn a_range_of_many_entries_is_cloned_in_steps_and_at_once() {
    // One block off, and one leaf off.
    for (shift, blocks) in [(4096, 200_000), (2 << 20, 3 << 20)] {
        let mut machine = counted(128 << 20, 2);
        let volume = &mut machine.volume;
        let (from, to) = (create(volume, b"from"), create(volume, b"to"));
        dense(volume, from, blocks);
        let free = volume.space().free;
        let nodes = blocks.div_ceil(512) + blocks.div_ceil(512 * 512) + 1;
        let mut operation =
            going_on(volume.begin_clone_range(from, 0, to, shift, blocks * 4096, NOW));
        let mut steps = Vec::new();
        loop {
            let before = volume.pmem().work.get();
            let done = volume.step(&mut operation).unwrap();
            steps.push(volume.pmem().work.get() - before);
            if done.is_some() {
                break;
            }
            if steps.len() % 50 == 3 {
                // Nothing of it is seen before it is all there, and the source may change.
                assert_eq!(volume.attributes(to).unwrap().size, 0);
                volume.write(from, steps.len() as u64 * 4096, &[9; 4096], NOW).unwrap();
                clean(volume);
            }
        }
        assert_stepped("range", &steps);
        reclaim(volume);
        clean(volume);
        assert_eq!(volume.blocks(to).unwrap(), blocks);
        let mut seen = vec![0; 600 * 4096];
        assert_eq!(volume.read(to, shift, &mut seen), Ok(seen.len()));
        assert!(seen.iter().all(|&byte| byte == 7), "by {shift}: what was written later is there");
        let took = free - volume.space().free;
        assert!(took <= 2 * nodes + 3 + 60, "by {shift}: {took} blocks for {nodes} nodes");
    }
}

#[test]
fn an_operation_that_is_given_up_leaves_nothing() {
    let mut volume = new_volume(64 << 20, 4);
    let root = volume.root();
    let from = volume.create(root, b"from", 0o644, NOW).unwrap();
    let to = volume.create(root, b"to", 0o644, NOW).unwrap();
    volume.write(from, 0, &vec![7; 3000 * 4096], NOW).unwrap();
    volume.write(to, 0, &vec![8; 2000 * 4096], NOW).unwrap();
    volume.set_work_a_step(64);
    while volume.reclaim_step().unwrap() {}
    let free = volume.space();
    for steps in (0..).step_by(9) {
        let mut operation = going_on(volume.begin_clone_range(from, 0, to, 4096, 3000 * 4096, NOW));
        let mut over = false;
        for _ in 0..steps {
            over = volume.step(&mut operation).unwrap().is_some();
            if over {
                break;
            }
        }
        clean(&mut volume);
        if !over {
            // A crash: what was prepared is free again, and the range is what it was.
            let mut crashed = mount(volume.pmem().clone(), 4).unwrap();
            assert_eq!(free_blocks(&mut crashed).unwrap().len() as u64, free.free);
            assert_eq!(crashed.attributes(to).unwrap().size, 2000 * 4096);
            clean(&mut crashed);
        }
        if over {
            assert!(steps > 40, "{steps}");
            break;
        }
        volume.abandon(operation);
        while volume.reclaim_step().unwrap() {}
        assert_eq!(volume.space(), free, "after {steps} steps");
        clean(&mut volume);
    }
    let mut seen = vec![0; 3001 * 4096];
    assert_eq!(volume.read(to, 0, &mut seen), Ok(seen.len()));
    assert!(
        seen[..4096].iter().all(|&byte| byte == 8) && seen[4096..].iter().all(|&byte| byte == 7)
    );
    // An operation that nobody ends goes with the volume.
    let mut operation = going_on(volume.begin_clone_range(from, 0, to, 8192, 3000 * 4096, NOW));
    for _ in 0..20 {
        assert_eq!(volume.step(&mut operation), Ok(None));
    }
    let (pmem, _) = volume.unmount().unwrap();
    let mut volume = mount(pmem, 4).unwrap();
    assert!(!volume.was_rebuilt());
    clean(&mut volume);
    assert_eq!(volume.space().inodes, free.inodes);
}

#[test]
fn a_range_that_cannot_fit_gives_everything_back() {
    let mut volume = new_volume(16 << 20, 2);
    let root = volume.root();
    let from = volume.create(root, b"from", 0o644, NOW).unwrap();
    let to = volume.create(root, b"to", 0o644, NOW).unwrap();
    volume.write(from, 0, &vec![7; 512 * 4096], NOW).unwrap();
    let mut have = 512;
    while have < 1 << 21 {
        volume.clone_range(from, 0, from, have * 4096, have * 4096, NOW).unwrap();
        have *= 2;
    }
    while volume.reclaim_step().unwrap() {}
    let free = volume.space();
    let mut operation =
        going_on(volume.begin_clone_range(from, 0, to, 4096, (1 << 21) * 4096, NOW));
    let mut steps = 0;
    let error = loop {
        match volume.step(&mut operation) {
            Ok(None) => steps += 1,
            Ok(done) => panic!("{done:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::NoSpace);
    assert!(steps > 100, "{steps}");
    while volume.reclaim_step().unwrap() {}
    assert_eq!(volume.space(), free);
    clean(&mut volume);
}

#[test]
fn what_goes_meanwhile_is_noticed() {
    let mut volume = new_volume(64 << 20, 2);
    let root = volume.root();
    let from = volume.create(root, b"from", 0o644, NOW).unwrap();
    let to = volume.create(root, b"to", 0o644, NOW).unwrap();
    volume.write(from, 0, &vec![7; 3000 * 4096], NOW).unwrap();
    volume.set_work_a_step(64);
    let begun = |volume: &mut Volume<MemPmem, SoftMmu>, len| {
        let mut operation = going_on(volume.begin_clone_range(from, 0, to, 4096, len, NOW));
        for _ in 0..10 {
            assert_eq!(volume.step(&mut operation), Ok(None));
        }
        operation
    };
    // The source may go: it is frozen.
    let len = 3000 * 4096;
    let operation = begun(&mut volume, len);
    volume.unlink(root, b"from", NOW).unwrap();
    volume.create(root, b"another", 0o644, NOW).unwrap();
    assert_eq!(volume.finish(Begun::GoesOn(operation)), Ok(Outcome::Done));
    assert_eq!(volume.attributes(to).unwrap().size, len + 4096);
    clean(&mut volume);
    // Not so the target, and its number may be that of another file.
    let from = volume.lookup(root, b"to").unwrap();
    let to = volume.create(root, b"target", 0o644, NOW).unwrap();
    let mut operation = going_on(volume.begin_clone_range(from, 0, to, 8192, len, NOW));
    for _ in 0..10 {
        assert_eq!(volume.step(&mut operation), Ok(None));
    }
    volume.unlink(root, b"target", NOW).unwrap();
    for name in 0..40 {
        volume.create(root, format!("n{name}").as_bytes(), 0o644, NOW).unwrap();
    }
    assert_eq!(volume.finish(Begun::GoesOn(operation)), Err(Error::NotFound));
    clean(&mut volume);
}

/// Stores that go on while a file is cloned are parked after one pass.
#[test]
fn a_clone_comes_to_its_end_although_the_file_is_stored_to() {
    let volume = new_volume(64 << 20, 16);
    let mut machine = SoftMachine { volume };
    let root = machine.volume.root();
    let ino = machine.volume.create(root, b"a", 0o644, NOW).unwrap();
    machine.volume.write(ino, 0, &vec![1; 8 << 20], NOW).unwrap();
    let window = machine.volume.open_window(ino).unwrap();
    machine.volume.set_work_a_step(32);
    let store_all = |machine: &mut SoftMachine<MemPmem>| {
        let mut stored = |page: u64| dax::store(machine, window, page * 4096, &[2; 8]);
        let waiting = (0..2048).map(&mut stored).filter_map(Result::err);
        waiting.inspect(|why| assert_eq!((why.done, why.error), (0, Error::Parked))).count()
    };
    assert_eq!(store_all(&mut machine), 0);
    let mut operation = going_on(machine.volume.begin_clone(ino, root, b"clone", NOW));
    let (mut steps, mut parked) = (0, 0);
    while machine.volume.step(&mut operation).unwrap().is_none() {
        steps += 1;
        assert!(steps < 1000, "it does not end");
        let failed = store_all(&mut machine);
        assert_eq!(failed > 0, machine.volume.is_parked(ino));
        parked += failed;
    }
    assert!(parked > 0 && steps > 100, "{parked} in {steps} steps");
    assert!(!machine.volume.is_parked(ino));
    assert_eq!(store_all(&mut machine), 0);
    assert_eq!(machine.volume.pages(None).unwrap().faults.failed, 0, "who waits has not failed");
    clean(&mut machine.volume);
}

/// Directories one in another, `depth` of them below the root, and one beside them.
fn nested(volume: &mut Vol, depth: usize) -> (Vec<Ino>, Ino) {
    let root = volume.root();
    let mut way = vec![root];
    for _ in 0..depth {
        way.push(volume.mkdir(way[way.len() - 1], b"d", 0o700, NOW).unwrap());
    }
    (way, volume.mkdir(root, b"m", 0o700, NOW).unwrap())
}

/// Takes steps of what a rename of `m` into the deepest directory has to know, which must not end.
fn climb_some(volume: &mut Vol, deepest: Ino, climb: &mut Climb, steps: usize) {
    let root = volume.root();
    for _ in 0..steps {
        assert_eq!(volume.examine_rename((root, b"m"), (deepest, b"x"), climb), Ok(false));
    }
}

#[test]
fn a_directory_is_moved_to_a_deep_place_in_steps() {
    let mut volume = counted(64 << 20, 1).volume;
    let depth = 5000;
    let (way, m) = nested(&mut volume, depth);
    let (root, deepest) = (way[0], way[depth]);
    let mut climb = Climb::default();
    let mut steps = Vec::new();
    loop {
        let before = volume.pmem().work.get();
        let over = volume.examine_rename((root, b"m"), (deepest, b"x"), &mut climb).unwrap();
        steps.push(volume.pmem().work.get() - before);
        if over {
            break;
        }
    }
    assert!(steps.len() >= depth / 1024, "{} steps", steps.len());
    let most = *steps.iter().max().unwrap();
    assert!(most < 20 * 1024, "{most} words and lines in a step");
    let before = volume.pmem().work.get();
    volume.rename_examined((root, b"m"), (deepest, b"x"), NOW, &mut climb).unwrap();
    assert!(volume.pmem().work.get() - before < most, "what is known is not found out again");
    assert_eq!(volume.lookup(deepest, b"x"), Ok(m));
    // Its own place: nothing gets below anything.
    volume.set_work_a_step(1);
    let mut climb = Climb::default();
    let aside = volume.examine_rename((deepest, b"x"), (deepest, b"y"), &mut climb);
    assert_eq!(aside, Ok(true));
    // From the top to below itself: found out at last, and by the rename alone, too.
    let found = loop {
        match volume.examine_rename((root, b"d"), (m, b"x"), &mut climb) {
            Ok(false) => {}
            found => break found,
        }
    };
    let into_itself = Err(Error::Invalid("a directory cannot be moved into itself"));
    assert_eq!(found.map(drop), into_itself);
    assert_eq!(volume.rename(root, b"d", m, b"x", NOW), into_itself);
    clean(&mut volume);
}

/// Between two steps the part of the way that was climbed is moved below the directory that is to
/// be moved: the two would be a loop.
#[test]
fn what_moves_while_a_rename_climbs_is_noticed() {
    let mut volume = counted(8 << 20, 1).volume;
    let (way, m) = nested(&mut volume, 40);
    let (root, deepest) = (way[0], way[40]);
    volume.set_work_a_step(1);
    for moved in [40, 39, 30, 11, 1] {
        let mut climb = Climb::default();
        climb_some(&mut volume, deepest, &mut climb, 30);
        volume.rename(way[moved - 1], b"d", m, b"d", NOW).unwrap();
        let found = loop {
            match volume.examine_rename((root, b"m"), (deepest, b"x"), &mut climb) {
                Ok(false) => {}
                found => break found,
            }
        };
        let into_itself = Error::Invalid("a directory cannot be moved into itself");
        assert_eq!(found, Err(into_itself), "directory {moved} was moved");
        let done = volume.rename_examined((root, b"m"), (deepest, b"x"), NOW, &mut climb);
        assert_eq!(done, Err(into_itself));
        volume.rename(m, b"d", way[moved - 1], b"d", NOW).unwrap();
    }
    // Another directory has the number of the target.
    let mut climb = Climb::default();
    climb_some(&mut volume, deepest, &mut climb, 30);
    volume.rmdir(way[39], b"d", NOW).unwrap();
    let again = (0..1000).find(|_| {
        let given = volume.mkdir(m, b"again", 0o700, NOW).unwrap();
        if given != deepest {
            volume.rmdir(m, b"again", NOW).unwrap();
        }
        given == deepest
    });
    assert!(again.is_some(), "the number is given again");
    let found = loop {
        match volume.examine_rename((root, b"m"), (deepest, b"x"), &mut climb) {
            Ok(false) => {}
            found => break found,
        }
    };
    assert!(matches!(found, Err(Error::Invalid(_))), "{found:?}");
    // Whoever moves directories all the time does not keep it from its end.
    let [e, _] = [b"e", b"f"].map(|name| volume.mkdir(root, name, 0o700, NOW).unwrap());
    let mut climb = Climb::default();
    let busy = (0..200).find_map(|step| {
        let (from, to) = if step % 2 == 0 { (root, e) } else { (e, root) };
        volume.rename(from, b"f", to, b"f", NOW).unwrap();
        volume.examine_rename((root, b"m"), (way[39], b"x"), &mut climb).err()
    });
    assert!(matches!(busy, Some(Error::Busy(_))), "{busy:?}");
    clean(&mut volume);
}

/// Whatever a volume is full of, no step of a check does much more than another.
#[test]
fn a_check_does_as_much_in_each_step() {
    let mut machine = counted(64 << 20, 64);
    let volume = &mut machine.volume;
    let root = volume.root();
    let dense_file = create(volume, b"dense");
    dense(volume, dense_file, 4000);
    // Tall trees, clones of them, and names: many in one directory, and several of one file.
    let names = volume.mkdir(root, b"names", 0o700, NOW).unwrap();
    for number in 0..600u64 {
        let name = format!("{number:0100}");
        let ino = volume.create(names, name.as_bytes(), 0o600, NOW).unwrap();
        if number % 10 == 0 {
            volume.write(ino, number << 27, &[1; 9000], NOW).unwrap();
            volume.clone_file(ino, root, name.as_bytes(), NOW).unwrap();
            volume.link(dense_file, root, format!("link-{number}").as_bytes(), NOW).unwrap();
        }
    }
    // Blocks that wait to be reclaimed, and pages that are shown.
    let gone = create(volume, b"gone");
    for leaf in 0..40 {
        volume.write(gone, leaf << 21, &[1; 4096], NOW).unwrap();
    }
    volume.unlink(root, b"gone", NOW).unwrap();
    let window = volume.open_window(dense_file).unwrap();
    dirty(&mut machine, window, 4000);
    let volume = &mut machine.volume;
    let mut check = volume.begin_check().unwrap();
    let mut steps = Vec::new();
    let report = loop {
        let before = volume.pmem().work.get();
        let result = volume.check_step(&mut check).unwrap();
        steps.push(volume.pmem().work.get() - before);
        if let Some(report) = result {
            break report;
        }
    };
    assert_eq!(report.issues, Vec::<String>::new());
    let (all, most) = (steps.iter().sum::<u64>(), *steps.iter().max().unwrap());
    println!("{} steps, {all} words and lines, at most {most} in a step", steps.len());
    assert!(steps.len() > 20 && most < 1 << 16, "{most} words and lines in a step");
}

/// Pages that a cut leaves are no work for it, however many windows show them.
#[test]
fn a_cut_ends_though_windows_show_much_of_what_stays() {
    let mut m = counted(32 << 20, 8);
    let ino = create(&mut m.volume, b"file");
    m.volume.write(ino, 0, &vec![7; 1024 * 4096], NOW).unwrap();
    let windows = [(); 2].map(|()| m.volume.open_window(ino).unwrap());
    for window in windows {
        dax::load(&mut m, window, 0, &mut vec![0; 1024 * 4096]).unwrap();
    }
    let Ok(Begun::GoesOn(mut cut)) = m.volume.begin_truncate(ino, 300 * 4096, NOW) else {
        panic!("more is shown than is taken away in one step")
    };
    let done = (0..100).find_map(|_| m.volume.step(&mut cut).unwrap());
    assert_eq!(done, Some(Outcome::Done), "after 100 steps");
    assert_eq!(m.volume.pages(Some(ino)).unwrap().shadows, 600);
    clean(&mut m.volume);
}
