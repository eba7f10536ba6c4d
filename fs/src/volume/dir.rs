//! Directories: a file whose blocks are buckets of entries.
//!
//! The hash of a name, taken bit by bit from the lowest, leads from bucket 0 to the bucket
//! of the name: bucket `b` (of `depth` bits) was split at `depth` if bucket `b + 2^depth`
//! exists, which then has the hashes whose next bit is 1. A split publishes the new bucket
//! with one word; what it moved stays behind in the old one as stale slots.

use super::Volume;
use crate::blocks::{Content, Purpose};
use crate::error::{Error, Result};
use crate::format::bucket::{
    BUCKET_SIZE, Bucket, Fit, Header, MAX_DEPTH, NO_SLOTS, NameHash, Range, SLOTS, SlotWord, Slots,
    find_fit, payload, payload_at,
};
use crate::format::word::{Root, Salt, open};
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::path::Path;
use crate::tree::shape::word_at;
use crate::tree::stage::{Stage, Written};
use crate::types::*;
use crate::windows::mmu::Mmu;
use core::hash::Hasher;
use core::ops::ControlFlow;
use siphasher::sip::SipHasher13;

/// An open directory: what its lookups need.
#[derive(Clone, Copy)]
pub(super) struct Dir {
    seed: u64,
    root: Root,
}

/// Where in a directory a name belongs, whether it is there or not.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    hash: NameHash,
    range: Range,
    /// The bucket, unless the directory has none.
    block: Option<Block>,
}

/// A name that was found.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub ino: Ino,
    pub kind: Kind,
    pub range: Range,
    pub slot: u16,
}

fn damaged(block: Block) -> Error {
    Error::Damaged { block, what: "a directory entry fails its check" }
}

/// Verifies a name that a caller gave.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > MAX_NAME {
        return Err(Error::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|&b| b == b'/' || b == 0)
    {
        return Err(Error::InvalidName);
    }
    Ok(())
}

/// Looking at a bucket costs as much as so many entries of a node.
const BUCKET_COST: u64 = 16;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Opens an inode as a directory.
    pub(super) fn dir(&self, ino: Ino) -> Result<Dir> {
        let (block, root) = self.tree.inode(ino)?;
        if self.kind_in(block, ino)?.0 != Kind::Directory {
            return Err(Error::NotDirectory);
        }
        Ok(Dir { seed: self.seed_of(block, ino)?, root })
    }

    pub(super) fn hash(&self, dir: Dir, name: &[u8]) -> NameHash {
        let mut hasher = SipHasher13::new_with_keys(dir.seed, self.hash_seed());
        hasher.write(name);
        NameHash::new(hasher.finish())
    }

    /// The bucket that owns a hash: its range and, unless the directory has none, its block.
    pub(super) fn bucket_of(&self, dir: Dir, hash: NameHash) -> Result<(Range, Option<Block>)> {
        let mut range = Range { number: 0, depth: 0 };
        let Some(first) = self.tree.entry(dir.root, FileBlock(0))? else {
            return Ok((range, None));
        };
        let mut block = first.block;
        while range.depth < MAX_DEPTH {
            let split = range.number + (1 << range.depth);
            let Some(other) = self.tree.entry(dir.root, FileBlock(split))? else { break };
            if hash.bits() >> range.depth & 1 != 0 {
                range.number = split;
                block = other.block;
            }
            range.depth += 1;
        }
        Ok((range, Some(block)))
    }

    /// Where a name belongs.
    pub(super) fn spot(&self, dir: Dir, name: &[u8]) -> Result<Spot> {
        let hash = self.hash(dir, name);
        let (range, block) = self.bucket_of(dir, hash)?;
        Ok(Spot { hash, range, block })
    }

    /// Looks for a name, without verifying it.
    pub(super) fn find(&self, dir: Dir, name: &[u8]) -> Result<Option<Found>> {
        let spot = self.spot(dir, name)?;
        let Some(block) = spot.block else { return Ok(None) };
        self.tree.blocks.read_copy(block, Content::Bucket, |at| {
            let found = self.find_in(at, block, dir, spot, name)?;
            if found.is_none() {
                // The name may be in a slot that is damaged.
                let mut slots = NO_SLOTS;
                self.tree.blocks.pmem.read(at, slots.as_flattened_mut())?;
                for (raw, slot) in slots.iter().zip(0..) {
                    let word = u64::from_le_bytes(*raw);
                    open(word, Salt::slots(block), slot).map_err(|_| damaged(block))?;
                }
            }
            Ok(found)
        })
    }

    /// As [`Volume::find`], where its spot is known. Of slots it looks at those that may have the
    /// name; where there is none, [`Volume::make_room`] looks at all of them.
    pub(super) fn find_at(&self, dir: Dir, spot: Spot, name: &[u8]) -> Result<Option<Found>> {
        let Some(block) = spot.block else { return Ok(None) };
        self.tree
            .blocks
            .read_copy(block, Content::Bucket, |at| self.find_in(at, block, dir, spot, name))
    }

    /// Looks for a name in the copy of a bucket that starts at the byte offset `start`. Out of
    /// line, so that all that its loop needs is in registers.
    #[inline(never)]
    fn find_in(
        &self,
        start: u64,
        block: Block,
        dir: Dir,
        spot: Spot,
        name: &[u8],
    ) -> Result<Option<Found>> {
        let Spot { hash, range, .. } = spot;
        let mut slots = NO_SLOTS;
        self.tree.blocks.pmem.read(start, slots.as_flattened_mut())?;
        let salt = Salt::slots(block);
        for (raw, slot) in slots.iter().zip(0..) {
            let word = u64::from_le_bytes(*raw);
            // The hash is in the low bits; most slots are passed over by it. One that is empty is
            // decoded as such.
            if NameHash::new(word) != hash {
                continue;
            }
            let Some(word) = SlotWord::decode(word, salt, slot).map_err(|_| damaged(block))? else {
                continue;
            };
            let at = start + word.payload() as u64;
            let raw = self.tree.blocks.pmem.load(at)?;
            let len = Header::peek(raw).map_err(|_| damaged(block))?.len as usize;
            if word.payload() as usize + 8 + len > BUCKET_SIZE {
                return Err(damaged(block));
            }
            let mut buffer = [0; MAX_NAME + 1];
            self.tree.blocks.pmem.read(at + 8, &mut buffer[..len])?;
            let header =
                Header::decode(raw, word.unit, &buffer[..len]).map_err(|_| damaged(block))?;
            if &buffer[..len] == name {
                return Ok(Some(Found { ino: header.ino, kind: header.kind, range, slot }));
            }
            // Names of the same hash are so rare that another one is looked at twice: the payload
            // may be another bucket's.
            if self.hash(dir, &buffer[..len]) != hash {
                return Err(damaged(block));
            }
        }
        Ok(None)
    }

    /// A new bucket with what a bucket of `range` has of `wanted`.
    fn rebuilt(&self, block: Block, range: Range, wanted: Range) -> Result<Bucket> {
        let mut bucket = Bucket::new();
        self.read_bucket(block, range, &mut bucket)?;
        bucket.rebuilt(range, |entry| wanted.owns(entry.word.hash)).map_err(|_| damaged(block))
    }

    /// Reads a bucket, of which all entries are good.
    fn read_bucket(&self, block: Block, range: Range, into: &mut Bucket) -> Result<()> {
        into.block = block;
        self.tree.blocks.read_copy(block, Content::Bucket, |at| {
            self.tree.blocks.pmem.read(at, &mut into.bytes)?;
            match into.entries(range).all(|entry| entry.is_ok()) {
                true => Ok(()),
                false => Err(damaged(block)),
            }
        })
    }

    /// Where in a bucket there is room for a name, by the first copy.
    #[inline]
    fn fit(&self, block: Block, range: Range, name_len: usize, slots: &mut Slots) -> Result<Fit> {
        let pmem = &self.tree.blocks.pmem;
        pmem.read(word_at(block, 0), slots.as_flattened_mut())?;
        let header = |at: u16| Ok(pmem.load(word_at(block, at / 8))?);
        find_fit(slots, Salt::slots(block), header, || damaged(block), range, name_len)
    }

    /// Makes sure that a name of this length and hash can be inserted with one word: the place for
    /// it, and the path to its bucket. May split and rewrite buckets. `spot` is the name's, if it
    /// is known.
    pub(super) fn make_room(
        &mut self,
        other: &Stage<Written>,
        ino: Ino,
        name: &[u8],
        spot: Option<Spot>,
        purpose: Purpose,
    ) -> Result<Room> {
        self.forget_emptied(ino);
        let (mut slots, mut known) = (NO_SLOTS, spot);
        loop {
            let spot = known.take().map_or_else(|| self.spot(self.dir(ino)?, name), Ok)?;
            let Spot { hash, range, block } = spot;
            let path = self.tree.bucket_path(ino, FileBlock(range.number))?;
            let Some(block) = block else {
                self.tree.commit_beside(
                    other,
                    &[Edit::content(&path, &Bucket::new().bytes)],
                    purpose,
                )?;
                continue;
            };
            let fit = self.fit(block, range, name.len(), &mut slots).or_else(|error| {
                // Whoever has looked for the name has not seen the slot that is bad.
                self.tree.blocks.mend(block, Content::Bucket);
                if self.find_at(self.dir(ino)?, spot, name)?.is_some() {
                    return Err(Error::Exists);
                }
                self.fit(block, range, name.len(), &mut slots).map_err(|_| error)
            });
            match fit? {
                Fit::At { slot, unit } => return Ok(Room { path, hash, slot, unit }),
                Fit::Compact => {
                    let new = self.rebuilt(block, range, range)?;
                    self.tree.commit_beside(other, &[Edit::content(&path, &new.bytes)], purpose)?;
                }
                Fit::Full if range.depth == MAX_DEPTH => return Err(Error::NoSpace),
                Fit::Full => {
                    let number = range.number + (1 << range.depth);
                    let new =
                        self.rebuilt(block, range, Range { number, depth: range.depth + 1 })?;
                    let path = self.tree.bucket_path(ino, FileBlock(number))?;
                    self.tree.commit_beside(other, &[Edit::content(&path, &new.bytes)], purpose)?;
                }
            }
        }
    }

    /// Commits a new entry together with what is staged for it.
    pub(super) fn insert_entry(
        &mut self,
        stage: Stage<Written>,
        room: &Room,
        ino: Ino,
        kind: Kind,
        name: &[u8],
    ) -> Result<()> {
        self.name_changes(ino);
        let bytes = payload(room.unit, ino, kind, name);
        let words = [room.word()];
        let edit = Edit {
            payload: Some((payload_at(room.unit), &bytes)),
            ..Edit::words(&room.path, &words)
        };
        self.tree.commit_and_release(stage, &[edit], Purpose::Grow)
    }

    /// Whether a directory has no entries.
    pub(super) fn is_empty_dir(&mut self, ino: Ino) -> Result<bool> {
        loop {
            if let Some(empty) = self.is_empty_step(ino)? {
                return Ok(empty);
            }
        }
    }

    /// Takes a step of finding out whether a directory has no entries, which whoever removes or
    /// replaces it has to know; true once that takes no more steps. For few directories at a time,
    /// and until a name is added, it is remembered.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDirectory`], or a [media error](Error#media-errors).
    pub fn examine(&mut self, ino: Ino) -> Result<bool> {
        Ok(self.is_empty_step(ino)?.is_some())
    }

    fn is_empty_step(&mut self, ino: Ino) -> Result<Option<bool>> {
        let known = self.emptied.iter().position(|&(dir, _)| dir == ino);
        let cookie = known.map_or(0, |at| self.emptied[at].1);
        let mut empty = true;
        let next = self.read_dir_some(ino, cookie, &mut |_| {
            empty = false;
            ControlFlow::Break(())
        })?;
        match (known, next) {
            (Some(at), Some(next)) => self.emptied[at].1 = next,
            (None, Some(next)) => {
                if self.emptied.is_full() {
                    self.emptied.remove(0);
                }
                self.emptied.push((ino, next));
            }
            _ => {}
        }
        Ok(next.is_none().then_some(empty))
    }

    /// Forgets where a directory was found to be empty.
    pub(super) fn forget_emptied(&mut self, ino: Ino) {
        self.emptied.retain(|&mut (dir, _)| dir != ino);
    }

    /// Calls `each` for every entry, in the order of the buckets: inode and kind. Each is verified.
    pub(super) fn each_entry(&self, dir: Ino, each: &mut dyn FnMut(Ino, Kind)) -> Result<()> {
        let dir = self.dir(dir)?;
        let mut bucket = Bucket::new();
        // Buckets whose splits are not known yet; each split adds one.
        let mut waiting = arrayvec::ArrayVec::<Range, { MAX_DEPTH as usize + 1 }>::new();
        waiting.push(Range { number: 0, depth: 0 });
        while let Some(mut range) = waiting.pop() {
            let Some(pointer) = self.tree.entry(dir.root, FileBlock(range.number))? else {
                return Ok(());
            };
            while range.depth < MAX_DEPTH {
                let split = range.number + (1 << range.depth);
                if self.tree.entry(dir.root, FileBlock(split))?.is_none() {
                    break;
                }
                range.depth += 1;
                waiting.push(Range { number: split, depth: range.depth });
            }
            self.read_bucket(pointer.block, range, &mut bucket)?;
            for entry in bucket.entries(range) {
                let entry = entry.map_err(|_| damaged(pointer.block))?;
                each(entry.ino, entry.kind);
            }
        }
        Ok(())
    }

    /// Lists a directory behind `cookie` (0: from the start) until `each` breaks.
    ///
    /// Entries come in the order of the reversed bits of their hashes, which no split
    /// changes: an entry that is there from first call to last is listed exactly once.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDirectory`], or a [media error](Error#media-errors);
    /// entries before it were listed.
    pub fn read_dir(
        &self,
        dir: Ino,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut next = Some(cookie);
        while let Some(cookie) = next {
            next = self.read_dir_some(dir, cookie, each)?;
        }
        Ok(())
    }

    /// As [`Volume::read_dir`], of a bounded number of buckets, which may be empty: a cookie where
    /// there may be more behind them.
    ///
    /// # Errors
    ///
    /// As [`Volume::read_dir`].
    pub fn read_dir_some(
        &self,
        dir: Ino,
        cookie: u64,
        each: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<Option<u64>> {
        let dir = self.dir(dir)?;
        let mut left = (self.work_a_step / BUCKET_COST).max(1);
        // A cookie is a position, and the rank among names of the same position, plus 1.
        let mut bucket = Bucket::new();
        let mut position = cookie >> 8;
        let mut seen = cookie & 0xff;
        while position < NameHash::POSITIONS {
            let (range, block) = self.bucket_of(dir, NameHash::at_position(position))?;
            let Some(block) = block else { return Ok(None) };
            if left == 0 {
                return Ok(Some(position << 8));
            }
            left -= 1;
            self.read_bucket(block, range, &mut bucket)?;
            let mut order = arrayvec::ArrayVec::<(u64, u16), { SLOTS as usize }>::new();
            for entry in bucket.entries(range) {
                let entry = entry.map_err(|_| damaged(block))?;
                order.push((entry.word.hash.position(), entry.slot));
            }
            order.sort_unstable();
            let mut rank = 0;
            let mut last = None;
            for &(at, slot) in &order {
                rank = if last == Some(at) { rank + 1 } else { 1 };
                last = Some(at);
                if at < position || (at == position && rank <= seen) {
                    continue;
                }
                let entry = bucket.entries(range).flatten().find(|e| e.slot == slot);
                let Some(entry) = entry else { continue };
                let item = DirEntry {
                    name: entry.name,
                    ino: entry.ino,
                    kind: entry.kind,
                    cookie: at << 8 | rank,
                };
                if each(item).is_break() {
                    return Ok(None);
                }
            }
            // The bucket owns one run of positions; go on behind it.
            let run = NameHash::POSITIONS >> range.depth;
            position = (position / run + 1) * run;
            seen = 0;
        }
        Ok(None)
    }

    /// Whether the last step of a path is this bucket; used when entries are removed.
    pub(super) fn slot_path(&self, dir: Ino, found: &Found) -> Result<Path> {
        self.tree.bucket_path(dir, FileBlock(found.range.number))
    }
}

/// A place for a new entry.
pub(super) struct Room {
    pub path: Path,
    hash: NameHash,
    slot: u16,
    /// Unit of the bucket where the payload goes.
    pub unit: u16,
}

impl Room {
    /// The slot word of the entry, by its index in the bucket.
    pub fn word(&self) -> (u16, u64) {
        (self.slot, SlotWord { hash: self.hash, unit: self.unit }.value())
    }
}
