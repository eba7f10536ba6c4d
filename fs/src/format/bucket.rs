//! A bucket: one block of directory entries.
//!
//! ```text
//! 0           1024                                   4096
//! | 128 slots | payloads, in units of 8 bytes          |
//! ```
//!
//! A slot is one word, so an entry appears, changes and goes with one store: bits 0 to 38 are the
//! low bits of the name's hash, bits 39 to 47 the unit where the payload starts, plus 1. An empty
//! slot is 0, sealed as all words are. A payload is a header word (inode number, length of the
//! name, kind; its check covers the name too) and the name.
//!
//! Bucket `b` holds hashes that end in the bits of `b`. When it is full, those whose next
//! bit is 1 move to a new bucket `b + 2^depth`; the old copies stay behind as *stale*
//! slots, which count as free space: which entries a bucket owns follows from which
//! buckets exist.

use super::inode::kind_from;
use super::word::{BadWord, NOTHING, NOWHERE, Salt, fill, open, seal};
use crate::types::{Block, Ino, Kind};
use arrayvec::ArrayVec;

/// Bytes of a bucket.
pub(crate) const BUCKET_SIZE: usize = 4096;
/// Entries that a bucket can hold.
pub(crate) const SLOTS: u16 = 128;
/// Units of 8 bytes for payloads.
pub(crate) const UNITS: usize = (BUCKET_SIZE - SLOTS as usize * 8) / 8;
const PAYLOADS: usize = SLOTS as usize * 8;
const HASH_BITS: u32 = 39;
/// A directory has at most 2^27 buckets.
pub(crate) const MAX_DEPTH: u32 = 27;
/// Most bytes that one entry's payload takes.
pub(crate) const MAX_PAYLOAD: usize = 8 + 256;

/// The hash of a name, as far as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameHash(u64);

impl NameHash {
    /// Keeps the low bits of a full hash.
    pub fn new(hash: u64) -> Self {
        NameHash(hash & ((1 << HASH_BITS) - 1))
    }
    /// The bits from which the bucket is found, lowest first.
    pub fn bits(self) -> u64 {
        self.0
    }
    /// Position in the order of listing, which no split changes: the bits reversed.
    pub fn position(self) -> u64 {
        self.0.reverse_bits() >> (64 - HASH_BITS)
    }
    /// The hash at a position.
    pub fn at_position(position: u64) -> Self {
        NameHash(position.reverse_bits() >> (64 - HASH_BITS))
    }
    /// Positions end here.
    pub const POSITIONS: u64 = 1 << HASH_BITS;
}

/// Which hashes a bucket owns: those whose low `depth` bits are `number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Number of the bucket, its block in the directory.
    pub number: u64,
    /// Bits that its hashes share.
    pub depth: u32,
}

impl Range {
    /// Whether a hash belongs to the bucket.
    pub fn owns(self, hash: NameHash) -> bool {
        hash.0 & ((1 << self.depth) - 1) == self.number
    }
}

/// What the slot word of an entry says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotWord {
    pub hash: NameHash,
    pub unit: u16,
}

impl SlotWord {
    /// The value of the slot.
    pub fn value(self) -> u64 {
        self.hash.0 | (self.unit as u64 + 1) << HASH_BITS
    }

    /// Reads a slot of a bucket; `Ok(None)`: it is empty.
    pub fn decode(word: u64, salt: Salt, slot: u16) -> Result<Option<Self>, BadWord> {
        let value = open(word, salt, slot)?;
        if value == NOTHING {
            return Ok(None);
        }
        let unit = ((value >> HASH_BITS) as u16).wrapping_sub(1);
        if unit as usize >= UNITS {
            return Err(BadWord);
        }
        Ok(Some(SlotWord { hash: NameHash::new(value), unit }))
    }

    /// Byte in the bucket where the payload starts.
    pub fn payload(self) -> u16 {
        payload_at(self.unit)
    }
}

/// The header of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub ino: Ino,
    pub kind: Kind,
    pub len: u8,
}

/// Folds a name into 15 bits, so that the header's check covers it.
fn fold(name: &[u8]) -> u64 {
    let mut h = 0u64;
    for &byte in name {
        h = (h ^ byte as u64).wrapping_mul(0x100_0000_01b3).rotate_left(23);
    }
    (h ^ h >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 49
}

impl Header {
    fn value(self) -> u64 {
        let kind = match self.kind {
            Kind::File => 1u64,
            Kind::Directory => 2,
            Kind::Symlink => 3,
        };
        self.ino.0 | (self.len as u64) << 32 | kind << 40
    }

    /// Header without verifying the name: for scanning.
    pub fn peek(word: u64) -> Result<Self, BadWord> {
        let kind = kind_from(word >> 40 & 0xff).ok_or(BadWord)?;
        Ok(Header { ino: Ino(word & 0xffff_ffff), kind, len: (word >> 32) as u8 })
    }

    /// Verifies the header word of a payload that starts at a unit, with its name.
    pub fn decode(word: u64, unit: u16, name: &[u8]) -> Result<Self, BadWord> {
        open(word, Salt::payloads().with(fold(name)), unit)?;
        let header = Self::peek(word)?;
        if header.len as usize != name.len() || name.is_empty() {
            return Err(BadWord);
        }
        Ok(header)
    }

    /// The header word for this name, in a payload that starts at a unit.
    fn encode(self, unit: u16, name: &[u8]) -> u64 {
        seal(self.value(), Salt::payloads().with(fold(name)), unit)
    }
}

pub(crate) fn units(name_len: usize) -> usize {
    1 + name_len.div_ceil(8)
}

/// The bytes of a payload that starts at a unit.
#[allow(clippy::disallowed_methods, reason = "a list of fixed size allocates nothing")]
pub(crate) fn payload(unit: u16, ino: Ino, kind: Kind, name: &[u8]) -> ArrayVec<u8, MAX_PAYLOAD> {
    let header = Header { ino, kind, len: name.len() as u8 };
    let mut bytes = ArrayVec::new();
    bytes.extend(header.encode(unit, name).to_le_bytes());
    bytes.extend(name.iter().copied());
    while bytes.len() % 8 != 0 {
        bytes.push(0);
    }
    bytes
}

/// An entry of a bucket that is held in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub slot: u16,
    pub word: SlotWord,
    pub ino: Ino,
    pub kind: Kind,
    pub name: &'a [u8],
}

/// A copy of a bucket's bytes.
pub(crate) struct Bucket {
    /// The block for which its slots are sealed.
    pub block: Block,
    pub bytes: [u8; BUCKET_SIZE],
}

/// Where a new entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// A free slot, and a free run of units.
    At { slot: u16, unit: u16 },
    /// There is room once the entries are written anew, side by side.
    Compact,
    /// There is none: split.
    Full,
}

/// The slot words of a bucket.
pub(crate) type Slots = [[u8; 8]; SLOTS as usize];
/// To be filled.
pub(crate) const NO_SLOTS: Slots = [[0; 8]; SLOTS as usize];

/// Finds room for a name in a bucket, whose slots have this salt. `header` gives the word at a byte
/// of the bucket, where a payload starts with its header. The names are not verified: only their
/// lengths matter here.
/// `bad` makes the error where the bucket is damaged.
pub(crate) fn find_fit<E>(
    slots: &Slots,
    salt: Salt,
    header: impl Fn(u16) -> Result<u64, E>,
    bad: impl Fn() -> E,
    range: Range,
    name_len: usize,
) -> Result<Fit, E> {
    // The units at which payloads start.
    let mut starts = ArrayVec::<u16, { SLOTS as usize }>::new();
    let (mut free, mut last) = (None, None);
    for (raw, slot) in slots.iter().zip(0..) {
        match SlotWord::decode(u64::from_le_bytes(*raw), salt, slot) {
            Ok(Some(word)) if range.owns(word.hash) => {
                starts.push(word.unit);
                last = last.max(Some(word.unit));
            }
            Ok(_) => free = free.or(Some(slot)),
            Err(BadWord) => return Err(bad()),
        }
    }
    let Some(slot) = free else { return Ok(Fit::Full) };
    let end = |unit: u16| {
        let header = Header::peek(header(payload_at(unit))?).map_err(|_| bad())?;
        let end = unit as usize + units(header.len as usize);
        if end <= UNITS { Ok(end) } else { Err(bad()) }
    };
    let need = units(name_len);
    // Mostly there is room behind all of them: only the length of the last one is needed.
    let behind = last.map_or(Ok(0), end)?;
    if behind + need <= UNITS {
        return Ok(Fit::At { slot, unit: behind as u16 });
    }
    let (mut used, mut total) = (Units::default(), 0);
    for &start in &starts {
        let count = end(start)? - start as usize;
        used.take(start as usize, count);
        total += count;
    }
    if total + need > UNITS {
        return Ok(Fit::Full);
    }
    Ok(used.free_run(need).map_or(Fit::Compact, |unit| Fit::At { slot, unit: unit as u16 }))
}

/// Byte in a bucket where a unit starts.
pub(crate) fn payload_at(unit: u16) -> u16 {
    (PAYLOADS + unit as usize * 8) as u16
}

/// Which units of a bucket are used: a bit for each.
#[derive(Default)]
pub(crate) struct Units([u64; UNITS / 64]);

impl Units {
    /// Marks units, fewer than 64, as used; they may be already.
    pub fn take(&mut self, start: usize, count: usize) {
        debug_assert!(count < 64 && start + count <= UNITS);
        let (word, bit) = (start / 64, start % 64);
        let mask = (1 << count) - 1;
        self.0[word] |= mask << bit;
        if bit + count > 64 {
            self.0[word + 1] |= mask >> (64 - bit);
        }
    }

    /// Whether a unit is used.
    pub fn has(&self, unit: usize) -> bool {
        self.0[unit / 64] >> (unit % 64) & 1 != 0
    }

    /// The first `count` free units that follow each other.
    fn free_run(&self, count: usize) -> Option<usize> {
        let (mut at, mut free) = (0, 0);
        while at < UNITS {
            // What is left of the word, from here on: runs of used units and of free ones.
            let rest = self.0[at / 64] >> (at % 64);
            if rest & 1 != 0 {
                at += rest.trailing_ones() as usize;
                free = 0;
                continue;
            }
            let run = (rest.trailing_zeros() as usize).min(64 - at % 64);
            if free + run >= count {
                return Some(at - free);
            }
            free += run;
            at += run;
        }
        None
    }
}

const _: () = assert!(UNITS.is_multiple_of(64));

impl Bucket {
    /// An empty bucket, of no block yet.
    pub fn new() -> Self {
        let mut bucket = Bucket { block: NOWHERE, bytes: [0; BUCKET_SIZE] };
        let (words, _) = bucket.bytes.as_chunks_mut::<8>();
        fill(&mut words[..SLOTS as usize], Salt::slots(NOWHERE), 0);
        bucket
    }

    fn word(&self, at: usize) -> u64 {
        let mut raw = [0; 8];
        raw.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_le_bytes(raw)
    }

    fn put(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// The entries that the bucket owns; stale ones are left out.
    pub fn entries(&self, range: Range) -> impl Iterator<Item = Result<Entry<'_>, BadWord>> {
        let salt = Salt::slots(self.block);
        (0..SLOTS).filter_map(move |slot| {
            match SlotWord::decode(self.word(slot as usize * 8), salt, slot) {
                Ok(Some(word)) if range.owns(word.hash) => Some(self.entry(slot, word)),
                Ok(_) => None,
                Err(bad) => Some(Err(bad)),
            }
        })
    }

    fn entry(&self, slot: u16, word: SlotWord) -> Result<Entry<'_>, BadWord> {
        let at = word.payload() as usize;
        let raw = self.word(at);
        let len = Header::peek(raw)?.len as usize;
        let name = self.bytes.get(at + 8..at + 8 + len).ok_or(BadWord)?;
        let header = Header::decode(raw, word.unit, name)?;
        Ok(Entry { slot, word, ino: header.ino, kind: header.kind, name })
    }

    /// A new bucket, of no block yet, with those owned entries that `keep` wants, side by side.
    pub fn rebuilt(
        &self,
        range: Range,
        keep: impl Fn(&Entry<'_>) -> bool,
    ) -> Result<Bucket, BadWord> {
        let mut new = Bucket::new();
        let (mut slot, mut unit) = (0u16, 0usize);
        for entry in self.entries(range) {
            let entry = entry?;
            if keep(&entry) {
                new.insert(slot, unit as u16, entry.word.hash, entry.ino, entry.kind, entry.name);
                slot += 1;
                unit += units(entry.name.len());
            }
        }
        Ok(new)
    }

    /// Writes an entry at a place that is free.
    pub fn insert(
        &mut self,
        slot: u16,
        unit: u16,
        hash: NameHash,
        ino: Ino,
        kind: Kind,
        name: &[u8],
    ) {
        let word = SlotWord { hash, unit };
        let bytes = payload(unit, ino, kind, name);
        let at = word.payload() as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
        let sealed = seal(word.value(), Salt::slots(self.block), slot);
        self.put(slot as usize * 8, sealed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;
    use std::vec::Vec;

    const ALL: Range = Range { number: 0, depth: 0 };

    fn fit_in(bucket: &Bucket, name_len: usize) -> Result<Fit, BadWord> {
        let mut slots = NO_SLOTS;
        slots.as_flattened_mut().copy_from_slice(&bucket.bytes[..PAYLOADS]);
        let (salt, header) = (Salt::slots(bucket.block), |at| Ok(bucket.word(usize::from(at))));
        find_fit(&slots, salt, header, || BadWord, ALL, name_len)
    }

    #[test]
    fn positions_reverse_hashes() {
        for bits in [0, 1, 2, 0x12_3456_789a, (1 << HASH_BITS) - 1] {
            let h = NameHash::new(bits);
            assert_eq!(NameHash::at_position(h.position()), h);
            assert!(h.position() < NameHash::POSITIONS);
        }
    }

    proptest! {
        #[test]
        fn free_runs_are_found_as_one_by_one(
            taken in prop::collection::vec((0..UNITS, 1..40usize), 0..60),
            count in 1..80usize,
        ) {
            let (mut units, mut model) = (Units::default(), [false; UNITS]);
            for (start, len) in taken {
                let len = len.min(UNITS - start);
                units.take(start, len);
                model[start..start + len].fill(true);
            }
            let first = (0..=UNITS - count).find(|&at| !model[at..at + count].contains(&true));
            prop_assert_eq!(units.free_run(count), first);
        }

        #[test]
        fn what_is_inserted_is_found(
            names in prop::collection::vec(prop::collection::vec(1u8..255, 1..40), 1..200)
        ) {
            let mut bucket = Bucket::new();
            let mut model: Vec<(u64, Vec<u8>)> = Vec::new();
            for (i, name) in names.iter().enumerate() {
                let hash = NameHash::new(i as u64 * 7);
                match fit_in(&bucket, name.len()).unwrap() {
                    Fit::At { slot, unit } => {
                        bucket.insert(slot, unit, hash, Ino(i as u64 + 1), Kind::File, name)
                    }
                    Fit::Compact => prop_assert!(false, "nothing was removed"),
                    Fit::Full => break,
                }
                model.push((hash.bits(), name.clone()));
            }
            let half = Range { number: 1, depth: 1 };
            let odd = bucket.rebuilt(ALL, |e| half.owns(e.word.hash)).unwrap();
            let found: Vec<_> = bucket
                .entries(ALL)
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.word.hash.bits(), entry.name.to_vec()))
                .collect();
            prop_assert_eq!(&found, &model);
            let of_half = model.iter().filter(|m| m.0 & 1 == 1).count();
            prop_assert_eq!(odd.entries(half).count(), of_half);
        }

        #[test]
        fn one_flipped_bit_of_a_bucket_is_noticed_where_it_matters(
            names in prop::collection::vec(prop::collection::vec(1u8..255, 1..40), 1..20),
            at in 0usize..BUCKET_SIZE * 8,
        ) {
            let mut bucket = Bucket::new();
            let mut end = 0;
            for (name, slot) in names.iter().zip(0..) {
                let hash = NameHash::new(u64::from(slot) * 7);
                bucket.insert(slot, end, hash, Ino(1), Kind::File, name);
                end += units(name.len()) as u16;
            }
            let whole: Vec<_> = bucket.entries(ALL).map(|e| e.map(|e| e.name.to_vec())).collect();
            bucket.bytes[at / 8] ^= 1 << (at % 8);
            let found: Vec<_> = bucket.entries(ALL).map(|e| e.map(|e| e.name.to_vec())).collect();
            let noticed = found.iter().any(|entry| entry.is_err());
            // What lies between the payloads, or behind them, is never looked at.
            prop_assert!(noticed || found == whole);
            prop_assert!(noticed || at / 8 >= PAYLOADS, "a slot");
        }

        #[test]
        fn any_bytes_are_listed_without_a_panic(seed: u64) {
            let mut bucket = Bucket::new();
            let mut x = seed | 1;
            for byte in &mut bucket.bytes {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(99);
                *byte = (x >> 56) as u8;
            }
            let _ = bucket.entries(ALL).count();
            let _ = fit_in(&bucket, 10);
        }
    }
}
