//! What a crash could leave: for each line, everything that it may still hold.
//!
//! A 64-byte line is what is durable, then the stores since then in order, in words of 8
//! bytes, and how many of them were flushed. A fence makes the flushed ones durable; what
//! was stored and not flushed stays undecided, across fences.
//!
//! Two models of what a line holds after a crash:
//!
//! - *lines*: any prefix of its stores (x86 keeps the order of stores to one line);
//! - *words*: each of its words, independently, any value that it had since it was durable.

use super::log::Event;
use crate::pmem::LINE;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What may be mixed in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// Any prefix of the stores to the line.
    Lines,
    /// Any value of each word.
    Words,
}

#[derive(Clone, Debug)]
struct Line {
    durable: [u64; 8],
    /// Index of the word, the value, and its number in the order of all stores.
    stores: Vec<(u8, u64, u64)>,
    flushed: usize,
}

/// Lines with stores that may or may not have reached the media.
#[derive(Clone, Debug, Default)]
pub struct Undecided {
    lines: BTreeMap<u64, Line>,
    stores: u64,
}

/// One thing that is undecided: a line, or a word.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Byte offset of the line.
    pub line: u64,
    /// The words that it decides.
    pub mask: u8,
    /// What they may be; the first is what is durable, the last what was stored last.
    pub values: Vec<[u64; 8]>,
    /// From which store on (in the order of all stores) which value holds.
    pub history: Vec<(u64, usize)>,
}

impl Choice {
    /// The value that holds once so many stores were made.
    pub fn after(&self, stores: u64) -> usize {
        self.history.iter().take_while(|h| h.0 <= stores).last().map_or(0, |h| h.1)
    }

    /// The value that was stored last.
    pub fn last(&self) -> usize {
        self.history.last().map_or(0, |h| h.1)
    }

    /// Byte offset and value of each word, for one of the values.
    pub fn words(&self, value: usize) -> impl Iterator<Item = (u64, u64)> {
        let words = self.values[value];
        (0..8)
            .filter(|i| self.mask >> i & 1 != 0)
            .map(move |i| (self.line + i * 8, words[i as usize]))
    }
}

impl Undecided {
    /// Takes one event into account. `durable` has what is durable: it is asked for a word
    /// (`None`), and told of every word that becomes so.
    pub fn apply(&mut self, event: &Event, durable: &mut dyn FnMut(u64, Option<u64>) -> u64) {
        match *event {
            Event::Store { at, value, .. } => {
                let start = at / LINE * LINE;
                let line = self.lines.entry(start).or_insert_with(|| Line {
                    durable: core::array::from_fn(|i| durable(start + i as u64 * 8, None)),
                    stores: Vec::new(),
                    flushed: 0,
                });
                self.stores += 1;
                line.stores.push((((at - start) / 8) as u8, value, self.stores));
            }
            Event::Flush { line, .. } => {
                if let Some(line) = self.lines.get_mut(&line) {
                    line.flushed = line.stores.len();
                }
            }
            Event::Fence { .. } => self.lines.retain(|&start, line| {
                for (index, value, _) in line.stores.drain(..line.flushed) {
                    if line.durable[index as usize] != value {
                        line.durable[index as usize] = value;
                        durable(start + index as u64 * 8, Some(value));
                    }
                }
                line.flushed = 0;
                !line.stores.is_empty()
            }),
        }
    }

    /// Lines that are undecided, by their byte offset.
    pub fn lines(&self) -> impl Iterator<Item = u64> {
        self.lines.keys().copied()
    }

    /// Everything as the processor sees it: byte offsets and words.
    pub fn everything(&self) -> impl Iterator<Item = (u64, u64)> {
        self.lines.iter().flat_map(|(&start, line)| {
            line.stores.iter().map(move |&(index, value, _)| (start + index as u64 * 8, value))
        })
    }

    /// What is durable of an undecided word.
    pub fn durable(&self, at: u64) -> Option<u64> {
        let line = self.lines.get(&(at / LINE * LINE))?;
        Some(line.durable[(at % LINE / 8) as usize])
    }

    /// What is undecided of the words that matter: `relevant` gives those of a line.
    pub fn choices(&self, model: Model, relevant: impl Fn(u64) -> u8) -> Vec<Choice> {
        let mut choices = Vec::new();
        for (&start, line) in &self.lines {
            let stored = line.stores.iter().fold(0, |mask, s| mask | 1u8 << s.0);
            let read = relevant(start) & stored;
            if read == 0 {
                continue;
            }
            match model {
                Model::Lines => choices.push(line.choice(start, stored, read)),
                Model::Words => {
                    let bits = (0..8).map(|i| 1u8 << i).filter(|bit| read & bit != 0);
                    choices.extend(bits.map(|bit| line.choice(start, bit, bit)));
                }
            }
        }
        choices.retain(|choice| choice.values.len() > 1);
        choices
    }
}

impl Line {
    /// The values that the words of `mask` go through; two that differ in no word of
    /// `read` are the same.
    fn choice(&self, start: u64, mask: u8, read: u8) -> Choice {
        let mut now = self.durable;
        let mut choice =
            Choice { line: start, mask, values: Vec::from([now]), history: Vec::new() };
        for &(index, value, order) in &self.stores {
            if mask >> index & 1 == 0 {
                continue;
            }
            now[index as usize] = value;
            let same = |known: &[u64; 8]| (0..8).all(|i| read >> i & 1 == 0 || known[i] == now[i]);
            let known = match choice.values.iter().position(same) {
                Some(known) => known,
                None => {
                    choice.values.push(now);
                    choice.values.len() - 1
                }
            };
            choice.history.push((order, known));
        }
        choice
    }
}
