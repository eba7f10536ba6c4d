//! The crash explorer: runs operations, builds every state that a crash could leave, and
//! requires of each that the volume mounts, checks, shows old or new, and can be used.
//!
//! | file | what |
//! |---|---|
//! | `tree.rs` | what a volume shows, and what it may show |
//! | `ops.rs` | the operations and their oracle |
//! | `states.rs` | which states are built of what is undecided |
//! | `recovery.rs` | what is done with each state |
//! | `setups.rs` | the volumes that it starts from, and the operations on them |

#![allow(dead_code)]

pub mod during;
pub mod ops;
pub mod recovery;
pub mod setups;
pub mod states;
pub mod tree;

use during::During;
use ops::{Op, World};
use recovery::{Outcome, Recovery};
use setups::Setup;
use states::{Counts, Picked};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use tree::{Expected, Tree};
use umbra_fs::testing::{
    Event, LogPmem, Model, Skip, Undecided, derived_area, in_superblocks, is_metadata, superblocks,
    twin_distance,
};
use umbra_fs::{BLOCK_SIZE, Block, Pmem};

/// Product of choices up to which all states are built.
pub const EXHAUSTIVE: u64 = 4096;

/// Content of the trees of known states, at most.
const MOST_TREE_BYTES: usize = 256 << 20;

/// Where in a run a violation was found.
#[derive(Clone, Debug)]
pub struct Violation {
    pub what: String,
    pub at: String,
}

/// Sum of what was explored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    pub runs: u64,
    /// Points at which a crash was assumed, and at how many all states were built.
    pub points: u64,
    pub exhaustive: u64,
    /// States, and those that differ from all others of the same setup.
    pub states: u64,
    pub distinct: u64,
    /// Points and states of crashes during recovery.
    pub nested_points: u64,
    pub nested_states: u64,
    /// Mounts with one unreadable line.
    pub poisoned: u64,
}

impl Coverage {
    pub fn add(&mut self, other: &Coverage) {
        let Coverage {
            runs,
            points,
            exhaustive,
            states,
            distinct,
            nested_points,
            nested_states,
            poisoned,
        } = other;
        self.runs += runs;
        self.points += points;
        self.exhaustive += exhaustive;
        self.states += states;
        self.distinct += distinct;
        self.nested_points += nested_points;
        self.nested_states += nested_states;
        self.poisoned += poisoned;
    }
}

/// What is kept of a state that was looked at.
struct Known {
    outcome: Rc<Outcome>,
    reads: Rc<Vec<(u32, u8)>>,
}

/// Explores sequences of operations that start from one setup.
pub struct Explorer {
    pub setup: Rc<Setup>,
    pub pmem: LogPmem,
    pub models: Vec<Model>,
    /// In so many states of each point: look at crashes during their recovery.
    pub nested: u64,
    /// Look at unreadable lines in every so many distinct states (0: never).
    pub poison_every: u64,
    pub coverage: Coverage,
    pub seed: u64,
    recovery: Recovery,
    /// A line that no recovery can read.
    lost: Option<u64>,
    known: HashMap<u128, Known>,
    trees: Vec<Rc<Tree>>,
    /// Content of the trees that are known.
    tree_bytes: usize,
    read_sets: Vec<Rc<Vec<(u32, u8)>>>,
    /// Print undecided lines and states of each point.
    pub verbose: bool,
    /// What is left out in operations, and in recoveries that are interrupted.
    pub skip: Option<Skip>,
}

/// A crash point: what is durable is in the memory, the rest in `undecided`.
struct Point<'a> {
    undecided: &'a Undecided,
    hash: u128,
    label: &'a str,
    nested: bool,
}

/// What a state must show, and the free blocks that using it up may leave.
struct Oracle<'a> {
    tree: &'a dyn Fn(&Tree) -> Result<(), String>,
    free: &'a [u64],
}

impl Explorer {
    pub fn new(setup: Rc<Setup>) -> Self {
        let pmem = LogPmem::new(setup.memory());
        pmem.track_reads();
        let recovery = Recovery::new(&pmem);
        Explorer {
            setup,
            pmem,
            models: vec![Model::Lines, Model::Words],
            nested: 2,
            poison_every: 0,
            coverage: Coverage::default(),
            seed: 0x5eed,
            recovery,
            lost: None,
            known: HashMap::new(),
            trees: Vec::new(),
            tree_bytes: 0,
            read_sets: Vec::new(),
            verbose: false,
            skip: None,
        }
    }

    /// Runs the operations, and looks at every crash in the last one. `None`: the sequence
    /// makes no sense. Otherwise the fences of the last operation.
    pub fn explore(&mut self, ops: &[Op]) -> Result<Option<u64>, Violation> {
        let Some(run) = self.record(ops)? else { return Ok(None) };
        self.coverage.runs += 1;
        self.pmem.mark();
        let result = self.look_at(&run, ops);
        self.pmem.rollback();
        if self.known.len() > 10_000 {
            self.forget();
        }
        let fences =
            run.events[run.start..].iter().filter(|e| matches!(e, Event::Fence { .. })).count();
        result.map(|()| Some(fences as u64))
    }

    /// Explores the last operations, from number `from` on, as if all of them together had to
    /// happen at once: what a wrong commit order would do.
    pub fn explore_as_one(&mut self, ops: &[Op], from: usize) -> Result<(), Violation> {
        let Some(part) = self.record(&ops[..=from])? else { panic!("{ops:?} makes no sense") };
        let Some(run) = self.record(ops)? else { panic!("{ops:?} makes no sense") };
        let run = Run { start: part.start, before: part.before, during: During::Atomic, ..run };
        self.pmem.mark();
        let result = self.look_at(&run, ops);
        self.pmem.rollback();
        result
    }

    /// Explores one operation as if two of its steps, each with its fence, had come in the wrong
    /// order: the one before the n-th fence (from 0) behind the next. `None`: it has no such fence.
    pub fn explore_swapped(&mut self, op: Op, n: usize) -> Result<Option<()>, Violation> {
        let Some(mut run) = self.record(&[op])? else { panic!("{op:?} makes no sense") };
        let fence = |e: &Event| matches!(e, Event::Fence { .. });
        let mut steps: Vec<Vec<Event>> =
            run.events[run.start..].split_inclusive(fence).map(<[Event]>::to_vec).collect();
        if steps.get(n + 1).is_none_or(|step| !step.last().is_some_and(fence)) {
            return Ok(None);
        }
        steps.swap(n, n + 1);
        run.events.truncate(run.start);
        run.events.extend(steps.concat());
        self.pmem.mark();
        let result = self.look_at(&run, &[op]);
        self.pmem.rollback();
        result.map(Some)
    }

    /// Runs the operations on the memory, and puts it back as it was.
    pub fn record(&mut self, ops: &[Op]) -> Result<Option<Run>, Violation> {
        self.pmem.mark();
        self.pmem.start_trace(self.skip);
        let mut events = Vec::new();
        let result = recovery::caught(|| {
            let mut world = World::mount(&self.pmem, self.setup.expected.clone());
            let (last, first) = ops.split_last().expect("there is an operation");
            for (i, op) in first.iter().enumerate() {
                world.apply(*op, i as u64 + 1)?;
            }
            let before = world.expected.clone();
            let start = self.pmem.traced();
            let during = world.apply(*last, ops.len() as u64)?;
            events = self.pmem.stop_trace();
            let report = world.volume().check().expect("check");
            assert_eq!(report.issues, Vec::<String>::new(), "check, without a crash");
            Some((before, world.expected.clone(), during, start))
        });
        self.pmem.stop_trace();
        self.pmem.rollback();
        self.pmem.take_reads();
        match result {
            Ok(Some((before, after, during, start))) => {
                Ok(Some(Run { events, start, before, after, during }))
            }
            Ok(None) => Ok(None),
            Err(what) => Err(Violation { what, at: format!("{ops:?}, without a crash") }),
        }
    }

    fn look_at(&mut self, run: &Run, ops: &[Op]) -> Result<(), Violation> {
        let mut undecided = Undecided::default();
        let mut hash = 0;
        let pmem = self.pmem.clone();
        for event in &run.events[..run.start] {
            advance(&pmem, &mut undecided, event, &mut hash);
        }
        // Free blocks after everything is deleted, from before and from after the operation.
        let mut free = Vec::new();
        free.push(self.free_when_all_survives(&undecided, hash, ops)?);
        {
            self.pmem.mark();
            let (mut end, mut end_hash) = (undecided.clone(), hash);
            for event in &run.events[run.start..] {
                advance(&pmem, &mut end, event, &mut end_hash);
            }
            let after = self.free_when_all_survives(&end, end_hash, ops);
            let alike = self.are_twins_alike(&end, ops);
            self.pmem.rollback();
            free.push(after?);
            alike?;
        }
        let during = |tree: &Tree| run.during.accepts(&run.before, &run.after, tree);
        for (i, event) in run.events[run.start..].iter().enumerate() {
            if let Event::Fence { site } = event {
                let label = format!("{ops:?}, before the fence at {site} (event {i})");
                let point = Point { undecided: &undecided, hash, label: &label, nested: false };
                self.point(&point, &Oracle { tree: &during, free: &free })?;
            }
            advance(&pmem, &mut undecided, event, &mut hash);
        }
        let label = format!("{ops:?}, after its return");
        let point = Point { undecided: &undecided, hash, label: &label, nested: false };
        let done = |tree: &Tree| run.after.matches(tree, None);
        self.point(&point, &Oracle { tree: &done, free: &free[1..] })
    }

    fn free_when_all_survives(
        &mut self,
        undecided: &Undecided,
        hash: u128,
        ops: &[Op],
    ) -> Result<u64, Violation> {
        let all: Vec<_> = undecided.everything().collect();
        let (known, _) = self.state(undecided, hash, &all);
        match &*known {
            Outcome::Fine { free, .. } => Ok(*free),
            Outcome::Bad(what) => Err(Violation {
                what: what.clone(),
                at: format!("{ops:?}, when all of it survives"),
            }),
        }
    }

    /// After the return of operations, both copies of metadata are durable, or neither is: recovery
    /// would hide a second copy that was not written back, as long as the first can be read.
    fn are_twins_alike(&mut self, undecided: &Undecided, ops: &[Op]) -> Result<(), Violation> {
        let lines: HashSet<u64> = undecided.lines().collect();
        let half = twin_distance(self.pmem.len());
        let twin = |line: u64| if line < half { line + half } else { line - half };
        let alone: Vec<u64> =
            lines.iter().copied().filter(|&line| !lines.contains(&twin(line))).collect();
        if alone.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = undecided.everything().collect();
        self.with_state(&all, |explorer| {
            let Ok(volume) = explorer.recovery.mount_only(&explorer.pmem) else { return Ok(()) };
            let derived = derived_area(explorer.pmem.len());
            let is_metadata = |line: u64| {
                !in_superblocks(line)
                    && !derived.contains(&line)
                    && is_metadata(&volume, Block(line / BLOCK_SIZE)) == Ok(true)
            };
            match alone.iter().find(|&&line| is_metadata(line)) {
                Some(line) => Err(format!("of line {line:#x} the other copy is durable")),
                None => Ok(()),
            }
        })
        .map_err(|what| Violation { what, at: format!("{ops:?}, after its return") })
    }

    /// Looks at the states of one point, in each model; while superblocks are undecided, also
    /// with one of them lost to a memory error.
    fn point(&mut self, point: &Point<'_>, oracle: &Oracle<'_>) -> Result<(), Violation> {
        self.models_of(point, oracle)?;
        if !point.nested && point.undecided.lines().any(in_superblocks) {
            for lost in superblocks() {
                self.lost = Some(lost);
                self.pmem.poison(&[lost]);
                let result = self.models_of(point, oracle);
                self.lost = None;
                self.pmem.poison(&[]);
                result?;
            }
        }
        Ok(())
    }

    fn models_of(&mut self, point: &Point<'_>, oracle: &Oracle<'_>) -> Result<(), Violation> {
        for model in self.models.clone() {
            let mut reads: HashMap<u32, u8> = HashMap::new();
            let mut counts = Counts { exhaustive: true, ..Counts::default() };
            let all: Vec<_> = point.undecided.everything().collect();
            for words in [&[][..], &all] {
                self.judged(point, words, oracle, &mut reads, &mut counts)?;
            }
            let mut last = Vec::new();
            loop {
                let mask = |line: u64| reads.get(&((line / 64) as u32)).copied().unwrap_or(0);
                let choices = point.undecided.choices(model, mask);
                if choices == last {
                    break;
                }
                let picked = Picked::of(&choices, self.seed);
                counts.exhaustive = picked.exhaustive;
                for state in &picked.states {
                    let words: Vec<_> = choices
                        .iter()
                        .zip(state)
                        .flat_map(|(choice, &value)| choice.words(value))
                        .collect();
                    self.judged(point, &words, oracle, &mut reads, &mut counts)?;
                }
                last = choices;
            }
            if self.verbose {
                let lines = point.undecided.lines().count();
                let product =
                    last.iter().fold(1u128, |p, c| p.saturating_mul(c.values.len() as u128));
                println!(
                    "  {model:?}: {lines} undecided lines, {} choices read, product {product}, \
                     {} states: {}",
                    last.len(),
                    counts.states,
                    point.label
                );
            }
            let c = &mut self.coverage;
            if point.nested {
                c.nested_points += 1;
                c.nested_states += counts.states;
            } else {
                c.points += 1;
                c.exhaustive += counts.exhaustive as u64;
                c.states += counts.states;
                c.distinct += counts.distinct;
            }
        }
        Ok(())
    }

    fn judged(
        &mut self,
        point: &Point<'_>,
        words: &[(u64, u64)],
        oracle: &Oracle<'_>,
        reads: &mut HashMap<u32, u8>,
        counts: &mut Counts,
    ) -> Result<(), Violation> {
        counts.states += 1;
        let hash = self.state_hash(point.undecided, point.hash, words);
        let fresh = !self.known.contains_key(&hash);
        let (outcome, read) = self.state(point.undecided, point.hash, words);
        for &(line, mask) in read.iter() {
            *reads.entry(line).or_insert(0) |= mask;
        }
        let result = match &*outcome {
            // The other copy may be torn: a clear error is all that is left.
            Outcome::Bad(what) if self.lost.is_some() && what.contains("both superblocks") => {
                Ok(())
            }
            Outcome::Bad(what) => Err(what.clone()),
            Outcome::Fine { tree, free, .. } => {
                (oracle.tree)(tree).and_then(|()| match oracle.free.contains(free) {
                    true => Ok(()),
                    false => Err(format!(
                        "{free} blocks are free when all is deleted, not {:?}",
                        oracle.free
                    )),
                })
            }
        };
        let violation = |what: String| {
            let kept: Vec<_> =
                words.iter().map(|(at, value)| format!("{at:#x}={value:#x}")).take(40).collect();
            Violation { what, at: format!("{}; survived: {}", point.label, kept.join(" ")) }
        };
        result.map_err(violation)?;
        if fresh && self.lost.is_none() {
            counts.distinct += 1;
            if let Outcome::Fine { tree, fences, .. } = &*outcome {
                let more = *fences > self.recovery.usual_fences || counts.distinct % 64 == 1;
                // A superblock may be torn: then recovery must not lean on it.
                let torn = words.iter().any(|w| in_superblocks(w.0));
                let chosen = torn || (more && counts.nested < self.nested);
                if chosen && self.nested > 0 && !point.nested {
                    counts.nested += !torn as u64;
                    self.nest(point, words, hash, &tree.clone())?;
                }
                let sampled = self.poison_every != 0
                    && self.coverage.distinct.is_multiple_of(self.poison_every);
                if sampled && !point.nested {
                    // While one superblock may be torn, the other is needed.
                    let whole = !point.undecided.lines().any(in_superblocks);
                    self.with_state(words, |e| e.poison(oracle, &read, whole))
                        .map_err(violation)?;
                }
            }
        }
        Ok(())
    }

    /// Looks at crashes during the recovery of a state.
    fn nest(
        &mut self,
        point: &Point<'_>,
        words: &[(u64, u64)],
        hash: u128,
        tree: &Tree,
    ) -> Result<(), Violation> {
        let pmem = self.pmem.clone();
        pmem.mark();
        for (at, value) in words {
            pmem.put(*at, &value.to_le_bytes());
        }
        pmem.mark();
        self.recovery.spoil(&pmem);
        pmem.start_trace(self.skip.filter(|skip| !matches!(skip, Skip::Nth(..))));
        drop(self.recovery.mount_only(&pmem));
        let events = pmem.stop_trace();
        pmem.rollback();
        pmem.take_reads();
        let mut undecided = Undecided::default();
        let mut hash = hash;
        let same = |found: &Tree| match found == tree {
            true => Ok(()),
            false => Err("a second recovery shows something else than the first".to_string()),
        };
        let mut result = Ok(());
        let free = match &*self.state(&undecided, hash, &[]).0 {
            Outcome::Fine { free, .. } => [*free],
            Outcome::Bad(_) => [0],
        };
        for event in &events {
            if let Event::Fence { site } = event {
                let label =
                    format!("{}; then in recovery, before the fence at {site}", point.label);
                let inner = Point { undecided: &undecided, hash, label: &label, nested: true };
                result = self.point(&inner, &Oracle { tree: &same, free: &free });
                if result.is_err() {
                    break;
                }
            }
            advance(&pmem, &mut undecided, event, &mut hash);
        }
        pmem.rollback();
        result
    }

    fn with_state<R>(&mut self, words: &[(u64, u64)], f: impl FnOnce(&mut Self) -> R) -> R {
        self.pmem.mark();
        self.put_state(words);
        let result = f(self);
        self.pmem.rollback();
        result
    }

    fn put_state(&self, words: &[(u64, u64)]) {
        for (at, value) in words {
            self.pmem.put(*at, &value.to_le_bytes());
        }
        self.recovery.spoil(&self.pmem);
    }

    /// One metadata line cannot be read: an error or a repair, never a panic or wrong data.
    fn poison(
        &mut self,
        oracle: &Oracle<'_>,
        reads: &[(u32, u8)],
        superblocks_too: bool,
    ) -> Result<(), String> {
        let twins = twin_distance(self.pmem.len());
        let lines: Vec<u64> = reads
            .iter()
            .map(|r| r.0 as u64 * 64)
            .filter(|&line| superblocks_too || !in_superblocks(line))
            .collect();
        for i in 0..5 {
            self.seed =
                self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let line = match i {
                0 | 1 if superblocks_too => superblocks()[i],
                // The other copy of what was read, if that was metadata.
                4 => {
                    let line = lines[(self.seed >> 33) as usize % lines.len()];
                    if line + twins < self.pmem.len() { line + twins } else { line }
                }
                _ => lines[(self.seed >> 33) as usize % lines.len()],
            };
            self.coverage.poisoned += 1;
            self.recovery
                .poisoned(&self.pmem, line, &|found| (oracle.tree)(found))
                .map_err(|e| format!("line {line:#x} is unreadable: {e}"))?;
        }
        Ok(())
    }

    /// Forgets the states that were looked at, to bound memory: they may be looked at again.
    fn forget(&mut self) {
        self.known.clear();
        self.trees.clear();
        self.tree_bytes = 0;
    }

    /// Recovers a state, unless that was done before.
    fn state(
        &mut self,
        undecided: &Undecided,
        hash: u128,
        words: &[(u64, u64)],
    ) -> (Rc<Outcome>, Rc<Vec<(u32, u8)>>) {
        let hash = self.state_hash(undecided, hash, words);
        if let Some(known) = self.known.get(&hash) {
            return (known.outcome.clone(), known.reads.clone());
        }
        if self.tree_bytes > MOST_TREE_BYTES {
            self.forget();
        }
        self.pmem.mark();
        self.put_state(words);
        let (mut outcome, mut reads) = self.recovery.run(&self.pmem);
        self.pmem.rollback();
        reads.sort_unstable();
        if let Outcome::Fine { tree, .. } = &mut outcome {
            match self.trees.iter().rev().find(|known| **known == *tree) {
                Some(known) => *tree = known.clone(),
                None => {
                    self.tree_bytes += tree.values().map(|seen| seen.content.len()).sum::<usize>();
                    self.trees.push(tree.clone());
                }
            }
            if self.trees.len() > 16 {
                self.trees.remove(0);
            }
        }
        let reads = match self.read_sets.iter().rev().find(|known| ***known == reads) {
            Some(known) => known.clone(),
            None => Rc::new(reads),
        };
        self.read_sets.push(reads.clone());
        if self.read_sets.len() > 32 {
            self.read_sets.remove(0);
        }
        let outcome = Rc::new(outcome);
        self.known.insert(hash, Known { outcome: outcome.clone(), reads: reads.clone() });
        (outcome, reads)
    }
}

/// What was recorded of a sequence of operations.
pub struct Run {
    pub events: Vec<Event>,
    /// First event of the last operation.
    pub start: usize,
    before: Expected,
    after: Expected,
    during: During,
}

fn word_hash(at: u64, value: u64) -> u128 {
    let mix = |seed: u64| {
        let mut x = (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ value.wrapping_mul(0xd6e8_feb8_6659_fd93);
        x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 29).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 32
    };
    (mix(0x1234_5678) as u128) << 64 | mix(0x9abc_def0_1111) as u128
}

/// Takes an event into account: what becomes durable goes into the memory and the hash.
fn advance(pmem: &LogPmem, undecided: &mut Undecided, event: &Event, hash: &mut u128) {
    undecided.apply(event, &mut |at, value| {
        let old = pmem.peek(at);
        if let Some(value) = value {
            *hash ^= word_hash(at, old) ^ word_hash(at, value);
            pmem.put(at, &value.to_le_bytes());
        }
        old
    });
}

impl Explorer {
    /// Hash of what is durable with these words on top.
    fn state_hash(&self, undecided: &Undecided, hash: u128, words: &[(u64, u64)]) -> u128 {
        let hash = hash ^ self.lost.map_or(0, |line| word_hash(line, u64::MAX));
        // Of two values of one word the later one counts.
        let mut last: HashMap<u64, u64> = HashMap::with_capacity(words.len());
        last.extend(words.iter().copied());
        last.iter().fold(hash, |hash, (&at, &value)| match undecided.durable(at) {
            Some(old) if old != value => hash ^ word_hash(at, old) ^ word_hash(at, value),
            _ => hash,
        })
    }
}
