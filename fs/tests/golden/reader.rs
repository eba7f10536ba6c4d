//! A second reader of the format, after docs/on-disk-format.md and without the code under test:
//! what that code writes is version 2 if this understands it.

use super::content::{Seen, Tree};
use crc::{CRC_32_ISCSI, Crc};
use siphasher::sip::SipHasher13;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use umbra_fs::{Kind, Time};

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
const BLOCK: usize = 4096;

/// A volume as bytes.
pub struct Image<'a> {
    bytes: &'a [u8],
    /// Second half of the key of the name hash.
    key: u64,
    first: u64,
    total: u64,
    twins: u64,
    scratch: u64,
    checkpoint: u64,
    mounts: u64,
    pub clean: bool,
    /// Block of the inodes of the system, and the root of the live volume.
    live: Root,
    system_top: u64,
    /// References to each block, each block's own counted once.
    references: BTreeMap<u64, u32>,
    /// Blocks of metadata.
    metadata: BTreeSet<u64>,
}

#[derive(Clone, Copy)]
struct Root {
    block: Option<u64>,
    unwritten: bool,
    height: u64,
    /// What the tree has.
    holds: u64,
}

/// Kinds of words beside the levels of nodes.
const SLOT: u64 = 4;
const PAYLOAD: u64 = 5;
const INODE: u64 = 6;
/// The second superblock.
const COPY: u64 = 2047;

/// The upper bits of a product.
fn upper(number: u64, bits: u32) -> u64 {
    let product = number as u128 * 0x9e37_79b9_7f4a_7c15;
    product as u64 >> (64 - bits)
}

/// The value of a sealed word, in whose check another number takes part.
fn open_with(word: u64, block: u64, kind: u64, index: u64, number: u64) -> u64 {
    let value = word & 0xffff_ffff_ffff;
    let salt = 1 << 15 | (upper(block, 15) ^ (kind << 9 | index));
    let check = upper(value, 16) ^ salt ^ number;
    assert_eq!(word >> 48, check, "check of word {index} of {block}, of kind {kind}");
    value
}

/// The value of a sealed word.
fn open(word: u64, block: u64, kind: u64, index: u64) -> u64 {
    open_with(word, block, kind, index, 0)
}

impl<'a> Image<'a> {
    /// Reads superblock and live root.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut image = Image {
            bytes,
            key: 0,
            first: 0,
            total: 0,
            twins: 0,
            scratch: 0,
            checkpoint: 0,
            mounts: 0,
            clean: false,
            live: Root { block: None, unwritten: false, height: 0, holds: 0 },
            system_top: 0,
            references: BTreeMap::new(),
            metadata: BTreeSet::new(),
        };
        let field = |offset| image.word_at(offset);
        assert_eq!(&bytes[..8], b"UMBRAFS\0");
        let copy = COPY as usize * BLOCK;
        assert_eq!(bytes[..BLOCK], bytes[copy..copy + BLOCK], "both superblocks are the same");
        assert_eq!(field(8), 2, "format version");
        assert_eq!(field(4088), CRC32C.checksum(&bytes[..4088]) as u64);
        assert_eq!(field(104), 0, "not damaged");
        assert_eq!([128, 136, 144].map(field), [0; 3], "no features");
        let zeros = [112..128, 152..256, 280..4088];
        assert!(zeros.into_iter().all(|range| bytes[range].iter().all(|&b| b == 0)));
        let total = field(32);
        assert_eq!(total as usize * BLOCK, bytes.len());
        let twins = total / 2 / 512 * 512;
        assert_eq!([256, 264, 272].map(field), [1, 0, twins], "one segment");
        let groups = total.div_ceil(512);
        // As small as it is, all areas lie below the second superblock.
        assert!(total < 400_000);
        let scratch = 1;
        let checkpoint = scratch + (total * 16).div_ceil(4096);
        let first = checkpoint
            + 1
            + groups.div_ceil(32768)
            + (3 * groups + 16).div_ceil(4096)
            + (4 * groups).div_ceil(4096);
        assert_eq!([field(40), field(48), field(56)], [scratch, checkpoint, first]);
        let (top, mounts, clean, key) = (field(64), field(72), field(80), field(88));
        assert!(clean <= 1);
        (image.total, image.scratch, image.checkpoint, image.first) =
            (total, scratch, checkpoint, first);
        image.twins = twins;
        (image.key, image.mounts, image.clean, image.system_top) = (key, mounts, clean == 1, top);
        let leaf = image.pointer(top, 2, 0).expect("the system inode file has a node").0;
        let system = image.pointer(leaf, 1, 0).expect("it has a first block").0;
        image.live = image.root(system, 0).expect("there is a live volume");
        let bad = image.root(system, 1).expect("there is a bad-block list");
        assert!(bad.block.is_none());
        image
    }

    fn word_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("8 bytes"))
    }

    fn word(&self, block: u64, index: u64) -> u64 {
        self.word_at(block as usize * BLOCK + index as usize * 8)
    }

    /// What an entry of a node says: block and whether it is unwritten.
    fn pointer(&self, node: u64, level: u64, index: u64) -> Option<(u64, bool)> {
        let value = open(self.word(node, index), node, level, index);
        if value == 0 {
            return None;
        }
        assert_eq!(value >> 42, 0);
        assert_eq!(value >> 40 & 1, 1, "present");
        let block = value & 0xff_ffff_ffff;
        assert!((self.first..self.total).contains(&block) && block != COPY);
        Some((block, value >> 41 & 1 == 1))
    }

    /// The root of an inode, if it is live; all its words open.
    fn root(&self, inodes: u64, slot: u64) -> Option<Root> {
        let open =
            |word| open(self.word(inodes, slot * 32 + word), inodes, INODE, slot * 32 + word);
        let value = (0..32).map(open).next().expect("an inode has words");
        if value == 0 {
            return None;
        }
        assert!((24..32).all(|word| open(word) == 0), "words without a meaning");
        assert_eq!([7, 12, 23].map(open), [0; 3], "flags, device, extended attributes");
        assert_eq!(value >> 42 & 3, 1, "live, and not lost");
        let block = (value >> 40 & 1 == 1).then_some(value & 0xff_ffff_ffff);
        let root = Root {
            block,
            unwritten: value >> 41 & 1 == 1,
            height: value >> 44 & 3,
            holds: value >> 46,
        };
        Some(root)
    }

    /// The data block at a place of a tree; `None` for what reads as zeros.
    fn data(&self, root: Root, at: u64) -> Option<u64> {
        let mut block = root.block?;
        if at >> (9 * root.height) != 0 || root.unwritten {
            return None;
        }
        for level in (1..=root.height).rev() {
            let index = at >> (9 * (level - 1)) & 511;
            let (next, unwritten) = self.pointer(block, level, index)?;
            if unwritten {
                return None;
            }
            block = next;
        }
        Some(block)
    }

    /// Word of an inode.
    fn inode(&self, ino: u64, word: u64) -> u64 {
        let block = self.data(self.live, ino / 16).expect("a block of inodes");
        let index = ino % 16 * 32 + word;
        open(self.word(block, index), block, INODE, index)
    }

    /// A time of an inode: seconds, a signed number of 48 bits, and nanoseconds.
    fn time(&self, ino: u64, word: u64) -> Time {
        let (seconds, nanoseconds) = (self.inode(ino, word), self.inode(ino, word + 1));
        assert!(nanoseconds < 1_000_000_000);
        let seconds = if seconds >> 47 == 1 { seconds as i64 - (1 << 48) } else { seconds as i64 };
        Time(seconds * 1_000_000_000 + nanoseconds as i64)
    }

    fn root_of(&self, ino: u64) -> Root {
        let block = self.data(self.live, ino / 16).expect("a block of inodes");
        self.root(block, ino % 16).expect("a live inode")
    }

    /// All that the live volume shows.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        assert_eq!(
            (self.inode(1, 2) >> 16, self.inode(1, 6)),
            (2, 1),
            "the root directory holds itself"
        );
        self.directory(1, "", &mut tree);
        tree
    }

    fn directory(&self, dir: u64, prefix: &str, tree: &mut Tree) {
        for (name, ino, kind) in self.entries(dir) {
            let path = format!("{prefix}{name}");
            let mode = self.inode(ino, 2);
            assert_eq!(mode >> 16, kind, "{path}: kind in the name and in the inode");
            let kind = match kind {
                1 => Kind::File,
                2 => Kind::Directory,
                3 => Kind::Symlink,
                other => panic!("{path}: kind {other}"),
            };
            let owner = (self.inode(ino, 8) as u32, self.inode(ino, 9) as u32);
            assert!(self.inode(ino, 10) <= self.mounts && self.inode(ino, 11) > 0, "generation");
            assert!(self.inode(ino, 22) > 0, "changes");
            let root = self.root_of(ino);
            let expected = match (root.block, kind) {
                (Some(_), Kind::Directory) => 1,
                (Some(_), Kind::Symlink) => 2,
                _ => 0,
            };
            assert_eq!(root.holds, expected, "{path}: what its tree has");
            let content = if kind == Kind::Directory { Vec::new() } else { self.content(ino) };
            if kind == Kind::Symlink {
                assert_eq!(self.inode(ino, 13), CRC32C.checksum(&content) as u64, "{path}");
            }
            let seen = Seen {
                kind,
                mode: (mode & 0o7777) as u16,
                nlink: self.inode(ino, 3) as u32,
                owner,
                mtime: self.time(ino, 16),
                content,
            };
            tree.insert(path.clone(), seen);
            if kind == Kind::Directory {
                assert_eq!(self.inode(ino, 6), dir, "{path}: its parent");
                self.directory(ino, &format!("{path}/"), tree);
            }
        }
    }

    fn content(&self, ino: u64) -> Vec<u8> {
        let (root, size) = (self.root_of(ino), self.inode(ino, 1) as usize);
        let mut content = Vec::new();
        for at in 0..size.div_ceil(BLOCK) {
            match self.data(root, at as u64) {
                Some(block) => content.extend(&self.bytes[block as usize * BLOCK..][..BLOCK]),
                None => content.extend([0; BLOCK]),
            }
        }
        content.truncate(size);
        content
    }

    /// Names of a directory, with inode and kind.
    fn entries(&self, dir: u64) -> Vec<(String, u64, u64)> {
        let (root, seed) = (self.root_of(dir), self.inode(dir, 5));
        let mut all = Vec::new();
        for bucket in 0..512 {
            let Some(block) = self.data(root, bucket) else { continue };
            let mut depth = 64 - bucket.leading_zeros();
            while self.data(root, bucket + (1 << depth)).is_some() {
                depth += 1;
            }
            for slot in 0..128 {
                let value = open(self.word(block, slot), block, SLOT, slot);
                if value == 0 {
                    continue;
                }
                let (hash, unit) = (value & 0x7f_ffff_ffff, (value >> 39) - 1);
                if hash & ((1 << depth) - 1) != bucket {
                    continue;
                }
                let at = block as usize * BLOCK + 1024 + unit as usize * 8;
                let header = self.word_at(at);
                let name = &self.bytes[at + 8..][..(header >> 32 & 0xff) as usize];
                let fold = name.iter().fold(0u64, |h, &c| {
                    (h ^ c as u64).wrapping_mul(0x100_0000_01b3).rotate_left(23)
                });
                let fold = upper(fold ^ fold >> 32, 15);
                let value = open_with(header, 0, PAYLOAD, unit, fold);
                let mut hasher = SipHasher13::new_with_keys(seed, self.key);
                hasher.write(name);
                assert_eq!(hasher.finish() & 0x7f_ffff_ffff, hash, "hash of a name");
                let name = String::from_utf8(name.to_vec()).expect("UTF-8");
                all.push((name, value & 0xffff_ffff, value >> 40));
            }
        }
        all
    }

    /// Compares the derived state of a clean image with the trees.
    pub fn verify_derived(&mut self) {
        assert!(self.clean);
        self.count_inode_file(self.system_top, 2, true);
        let twin_of = |block: &u64| block + self.twins;
        let twins: BTreeSet<u64> = self.metadata.iter().map(twin_of).collect();
        for &block in &self.metadata {
            assert!((self.first..self.twins).contains(&block) && block + self.twins != COPY);
            assert!(!self.references.contains_key(&(block + self.twins)), "a twin is referred to");
            let [first, second] = [block, block + self.twins]
                .map(|block| &self.bytes[block as usize * BLOCK..][..BLOCK]);
            assert!(first == second, "the copies of {block} differ");
        }
        let at = self.checkpoint as usize * BLOCK;
        let header: Vec<u64> = (0..7).map(|i| self.word_at(at + i * 8)).collect();
        assert_eq!(header[0].to_le_bytes(), *b"UMBRACKP");
        assert_eq!(header[1], self.mounts);
        let groups = self.total.div_ceil(512) as usize;
        let bits = &self.bytes[at + BLOCK..][..groups.div_ceil(64) * 8];
        let free_at = at + BLOCK * (1 + groups.div_ceil(32768));
        let free_in = &self.bytes[free_at..][..groups.div_ceil(4) * 8];
        let paired = self.twins as usize / 512;
        let pairs_in = &self.bytes[free_at + free_in.len()..][..paired.div_ceil(4) * 8];
        let mut digest = CRC32C.digest();
        digest.update(&self.bytes[at..at + 48]);
        digest.update(bits);
        digest.update(free_in);
        digest.update(pairs_in);
        assert_eq!(header[6], digest.finalize() as u64);
        let (mut free, mut shared) = (0, 0);
        for block in self.first..self.total {
            let group = block as usize / 512;
            let record = self.scratch as usize * BLOCK + block as usize * 16;
            let valid = bits[group / 8] >> (group % 8) & 1 == 1;
            if block == COPY {
                assert_eq!(self.word_at(record), u32::MAX as u64, "it is never handed out");
                continue;
            }
            let counted = self.references.get(&block).copied().unwrap_or(0);
            let state = if valid { self.word_at(record) } else { 0 };
            let is_twin = twins.contains(&block);
            let expected = match (is_twin, self.metadata.contains(&block)) {
                (true, _) => 1 | (u32::MAX as u64 - 3) << 32,
                (_, true) => counted as u64 | (u32::MAX as u64 - 2) << 32,
                _ => counted as u64,
            };
            assert_eq!(state, expected, "record of block {block}");
            free += (counted == 0 && !is_twin) as u64;
            shared += (counted > 1) as u64;
        }
        let is_free = |block: u64| {
            block >= self.first
                && block != COPY
                && !self.references.contains_key(&block)
                && !twins.contains(&block)
        };
        for (group, pairs) in pairs_in.chunks(2).take(paired).enumerate() {
            let first = group as u64 * 512;
            let counted =
                (first..first + 512).filter(|&b| is_free(b) && is_free(b + self.twins)).count();
            assert_eq!(u16::from_le_bytes([pairs[0], pairs[1]]) as usize, counted, "{group}");
        }
        let sum: u64 = free_in.chunks(2).map(|c| u16::from_le_bytes([c[0], c[1]]) as u64).sum();
        assert_eq!((header[2], header[3], sum), (free, shared, free));
    }

    /// Counts a reference; true if it is the first.
    fn refer(&mut self, block: u64) -> bool {
        let count = self.references.entry(block).or_insert(0);
        *count += 1;
        *count == 1
    }

    fn count_inode_file(&mut self, block: u64, level: u64, system: bool) {
        self.metadata.insert(block);
        if !self.refer(block) {
            return;
        }
        if level > 0 {
            for index in 0..512 {
                if let Some((child, _)) = self.pointer(block, level, index) {
                    self.count_inode_file(child, level - 1, system);
                }
            }
            return;
        }
        for slot in 0..16 {
            let Some(Root { block: Some(top), height, holds, .. }) = self.root(block, slot) else {
                continue;
            };
            match system && slot == 0 {
                true => self.count_inode_file(top, height, false),
                false => self.count_file(top, height, holds != 0),
            }
        }
    }

    /// Counts the blocks of a tree, whose lowest ones are metadata, or content.
    fn count_file(&mut self, block: u64, level: u64, metadata: bool) {
        if metadata || level > 0 {
            self.metadata.insert(block);
        }
        if !self.refer(block) || level == 0 {
            return;
        }
        for index in 0..512 {
            if let Some((child, _)) = self.pointer(block, level, index) {
                self.count_file(child, level - 1, metadata);
            }
        }
    }
}
