//! Which states are built of what is undecided.

use super::EXHAUSTIVE;
use std::collections::BTreeSet;
use umbra_fs::testing::Choice;

/// What one point has contributed.
#[derive(Default)]
pub struct Counts {
    pub states: u64,
    pub distinct: u64,
    pub exhaustive: bool,
    /// States whose recovery was interrupted.
    pub nested: u64,
}

/// States, each the number of a value for every choice.
pub struct Picked {
    pub states: Vec<Vec<usize>>,
    pub exhaustive: bool,
}

/// Most pairs that are tried at one point; beyond, a sample of them.
const PAIRS: usize = 600;
/// Most choices that are tried one by one; beyond, a sample of them.
const SINGLES: usize = 300;

fn random(seed: &mut u64) -> usize {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 33) as usize
}

impl Picked {
    /// All combinations, if there are at most [`EXHAUSTIVE`]; otherwise none, all, each one
    /// alone, all but one, every prefix in program order, pairs, and 64 at random.
    pub fn of(choices: &[Choice], seed: u64) -> Picked {
        let product = choices.iter().try_fold(1u64, |p, c| p.checked_mul(c.values.len() as u64));
        match product {
            Some(product) if product <= EXHAUSTIVE => {
                Picked { states: all(choices), exhaustive: true }
            }
            _ => Picked { states: sample(choices, seed), exhaustive: false },
        }
    }
}

fn all(choices: &[Choice]) -> Vec<Vec<usize>> {
    let mut states = vec![Vec::new()];
    for choice in choices {
        states = states
            .iter()
            .flat_map(|state| {
                (0..choice.values.len()).map(move |value| {
                    let mut next = state.clone();
                    next.push(value);
                    next
                })
            })
            .collect();
    }
    states
}

fn sample(choices: &[Choice], mut seed: u64) -> Vec<Vec<usize>> {
    let mut states = BTreeSet::new();
    let none = vec![0; choices.len()];
    let full: Vec<usize> = choices.iter().map(Choice::last).collect();
    states.insert(none.clone());
    states.insert(full.clone());
    let step = choices.len().div_ceil(SINGLES);
    let offset = random(&mut seed) % step;
    for i in (offset..choices.len()).step_by(step) {
        for value in 0..choices[i].values.len() {
            let mut one = none.clone();
            one[i] = value;
            states.insert(one);
            let mut but_one = full.clone();
            but_one[i] = value;
            states.insert(but_one);
        }
    }
    let orders: BTreeSet<u64> =
        choices.iter().flat_map(|c| c.history.iter().map(|h| h.0)).collect();
    let step = orders.len().div_ceil(SINGLES);
    for order in orders.iter().step_by(step) {
        states.insert(choices.iter().map(|c| c.after(*order)).collect());
    }
    let pairs = choices.len() * (choices.len() - 1) / 2;
    let mut pair = |i: usize, j: usize| {
        let mut two = none.clone();
        (two[i], two[j]) = (full[i], full[j]);
        states.insert(two);
    };
    if pairs <= PAIRS {
        for i in 0..choices.len() {
            (0..i).for_each(|j| pair(i, j));
        }
    } else {
        for _ in 0..PAIRS {
            pair(random(&mut seed) % choices.len(), random(&mut seed) % choices.len());
        }
    }
    for _ in 0..64 {
        states.insert(choices.iter().map(|c| random(&mut seed) % c.values.len()).collect());
    }
    states.into_iter().collect()
}
