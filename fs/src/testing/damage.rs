//! Damage whose checks are right: what only a bug, or somebody who means harm, leaves.

use crate::blocks::Content;
use crate::format::inode::{self, INODES_PER_BLOCK, word_index};
use crate::format::superblock::{Geometry, Superblock};
use crate::format::word::{self, NOTHING, Pointer, Root, seal};
use crate::types::{BLOCK_SIZE, Block};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A word that is replaced, in both copies.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Byte offset of the word.
    pub at: u64,
    /// That of its second copy, if it is metadata.
    pub twin: Option<u64>,
    /// What it is replaced by.
    pub value: u64,
    /// What that means.
    pub what: String,
}

struct Walk<'a> {
    bytes: &'a [u8],
    geometry: Geometry,
    system: Block,
    /// Blocks that were looked at, and what they hold.
    seen: BTreeMap<u64, Content>,
    /// All blocks that are referred to.
    blocks: Vec<u64>,
    cases: Vec<Damage>,
}

fn word(bytes: &[u8], at: u64) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at as usize..at as usize + 8]);
    u64::from_le_bytes(raw)
}

/// A block of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metadata {
    /// A node of a tree, and its level.
    Node(u8),
    /// A block of inodes.
    Inodes,
    /// A directory bucket.
    Bucket,
    /// The target of a symbolic link.
    Target,
    /// Entries of the list of bad blocks.
    BadBlocks,
}

/// The blocks of metadata of a healthy volume.
pub fn metadata(bytes: &[u8]) -> Vec<(Block, Metadata)> {
    let mut raw = [0; BLOCK_SIZE as usize];
    raw.copy_from_slice(&bytes[..BLOCK_SIZE as usize]);
    let Ok(superblock) = Superblock::decode(&raw) else { return Vec::new() };
    let mut walk = Walk::new(bytes, &superblock);
    walk.block(superblock.system, Content::InodeNode(2), superblock.system);
    let kind = |content| match content {
        Content::Node(level)
        | Content::DirectoryNode(level)
        | Content::BadBlocksNode(level)
        | Content::InodeNode(level) => Some(Metadata::Node(level)),
        Content::BadBlocks => Some(Metadata::BadBlocks),
        Content::Inodes => Some(Metadata::Inodes),
        Content::Bucket => Some(Metadata::Bucket),
        Content::Target => Some(Metadata::Target),
        Content::Data => None,
    };
    let found = walk.seen.iter().map(|(&block, &content)| (block, content));
    found.filter_map(|(block, content)| Some((Block(block), kind(content)?))).collect()
}

/// Every pointer and every field of every structure of a healthy volume, wrong in several ways.
pub fn cases(bytes: &[u8]) -> Vec<Damage> {
    let mut raw = [0; BLOCK_SIZE as usize];
    raw.copy_from_slice(&bytes[..BLOCK_SIZE as usize]);
    let Ok(superblock) = Superblock::decode(&raw) else { return Vec::new() };
    let mut walk = Walk::new(bytes, &superblock);
    // First all blocks are found, then the damage is made of them.
    for _ in 0..2 {
        walk.seen.clear();
        walk.cases.clear();
        walk.block(superblock.system, Content::InodeNode(2), superblock.system);
    }
    walk.cases
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], superblock: &Superblock) -> Self {
        Walk {
            bytes,
            geometry: superblock.geometry,
            system: Block(0),
            seen: BTreeMap::new(),
            blocks: Vec::new(),
            cases: Vec::new(),
        }
    }

    fn add(&mut self, at: u64, value: u64, what: String) {
        if word(self.bytes, at) != value {
            let block = Block(at / BLOCK_SIZE);
            let content = self.seen.get(&block.0).copied();
            let twin = content.filter(|&content| content != Content::Data);
            let twin = twin.and_then(|_| self.geometry.twin(block));
            let twin = twin.map(|twin| twin.0 * BLOCK_SIZE + at % BLOCK_SIZE);
            self.cases.push(Damage { at, twin, value, what });
        }
    }

    /// Blocks that a pointer in `block` could wrongly lead to.
    fn targets(&self, block: Block, parent: Block) -> Vec<(Block, &'static str)> {
        let mut targets = Vec::from([
            (block, "itself"),
            (parent, "its parent"),
            (self.system, "the system inodes"),
            (Block(0), "the superblock"),
            (Block(self.geometry.scratch), "the scratch area"),
            (Block(self.geometry.total), "the end"),
            (Block((1 << 40) - 1), "far out"),
            (Block(self.geometry.total - 1), "a free block"),
        ]);
        targets.extend(self.blocks.iter().map(|&b| (Block(b), "a block in use")));
        targets
    }

    fn block(&mut self, block: Block, content: Content, parent: Block) {
        if self.seen.insert(block.0, content).is_some() {
            return;
        }
        if !self.blocks.contains(&block.0) {
            self.blocks.push(block.0);
        }
        let base = block.0 * BLOCK_SIZE;
        let salt = content.salt(block);
        for index in 0..512u16 {
            let at = base + index as u64 * 8;
            let value = word(self.bytes, at);
            let used = word::value(value) != NOTHING;
            let is_node = matches!(
                content,
                Content::Node(_) | Content::DirectoryNode(_) | Content::InodeNode(_)
            );
            if is_node && used {
                for (target, name) in self.targets(block, parent) {
                    let what = format!(
                        "entry {index} of {content:?} {} leads to {name} {}",
                        block.0, target.0
                    );
                    self.add(at, seal(Pointer::to(target).value(), salt, index), what);
                }
                self.add(
                    at,
                    value ^ 1,
                    format!("entry {index} of {content:?} {} fails its check", block.0),
                );
                self.add(at, 0, format!("entry {index} of {content:?} {} is zero", block.0));
                let what = format!("entry {index} of {content:?} {} is a hole", block.0);
                self.add(at, seal(NOTHING, salt, index), what);
            }
            if !content.refers() && value != 0 {
                for bit in [33, 45] {
                    let what = format!("bit {bit} of word {index} of data block {}", block.0);
                    self.add(at, value ^ 1 << bit, what);
                }
                self.add(at, 0, format!("word {index} of data block {} is gone", block.0));
            }
            if let Ok(Some((pointer, child))) = content.reference_in(salt, index, value) {
                if content == Content::InodeNode(1) && self.system.0 == 0 {
                    self.system = pointer.block;
                }
                // The first system inode is the inode file of the live volume.
                let child = match (block == self.system, Root::decode(value, salt, index)) {
                    (true, Ok(Some(root))) if index == 0 => Content::inode_file_top(root.height),
                    _ => child,
                };
                self.block(pointer.block, child, block);
            }
        }
        if content == Content::Inodes {
            (0..INODES_PER_BLOCK).for_each(|slot| self.inode(block, slot, parent));
        }
    }

    fn inode(&mut self, block: Block, slot: u16, parent: Block) {
        let at = |word: u16| block.0 * BLOCK_SIZE + word_index(slot, word) as u64 * 8;
        let raw = word(self.bytes, at(inode::ROOT));
        let salt = Content::Inodes.salt(block);
        let index = |word| word_index(slot, word);
        let Ok(Some(root)) = Root::decode(raw, salt, index(inode::ROOT)) else { return };
        for (target, name) in self.targets(block, parent) {
            for height in 0..4 {
                let new = Root { height, top: Some(Pointer::to(target)), holds: root.holds };
                let what = format!(
                    "root of inode {slot} of {}: height {height}, {name} {}",
                    block.0, target.0
                );
                self.add(at(inode::ROOT), seal(new.value(), salt, index(inode::ROOT)), what);
            }
        }
        if root.top.is_some() {
            let what = format!("root of inode {slot} of {} is empty", block.0);
            self.add(at(inode::ROOT), seal(Root::EMPTY.value(), salt, index(inode::ROOT)), what);
        }
        let what = format!("inode {slot} of {} is free", block.0);
        self.add(at(inode::ROOT), seal(NOTHING, salt, index(inode::ROOT)), what);
        self.add(at(inode::ROOT), 0, format!("root of inode {slot} of {} is zero", block.0));
        for field in inode::SIZE..=inode::CHANGES {
            for value in
                [0, 1, 2, 3, 7, 1 << 16, 2 << 16, 3 << 16, 4097, 1 << 32, 1 << 39, (1 << 48) - 1]
            {
                let what = format!("field {field} of inode {slot} of {} is {value:#x}", block.0);
                self.add(at(field), seal(value, salt, index(field)), what);
            }
            self.add(at(field), 0, format!("field {field} of inode {slot} of {} is zero", block.0));
        }
    }
}
