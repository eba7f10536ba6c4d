//! What a block holds, and what its words refer to.

use crate::format::bucket::SLOTS;
use crate::format::inode::{INODE_WORDS, ROOT};
use crate::format::word::{self, Holds, Pointer, Root, Salt};
use crate::types::Block;

/// What a block holds, for those who have to follow its references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Bytes of a file: refers to nothing, and has no twin. Of what is dropped, or counted as a
    /// reference of a node, it is said of buckets and targets too, because their records tell.
    Data,
    /// A bucket of a directory, whose slots are words: refers to nothing.
    Bucket,
    /// The target of a symbolic link: refers to nothing.
    Target,
    /// Entries of the list of bad blocks: refers to nothing.
    BadBlocks,
    /// A node of a tree of files' blocks; level 1 to 3.
    Node(u8),
    /// A node of the tree of a directory; level 1 to 3. Only who visits all of the volume tells
    /// them from others.
    DirectoryNode(u8),
    /// A node of the list of bad blocks; level 1 to 3.
    BadBlocksNode(u8),
    /// A node of an inode file; level 1 to 3. Below level 1 are blocks of inodes.
    InodeNode(u8),
    /// A block of inodes, which refers to their trees.
    Inodes,
}

impl Content {
    /// What the children of this block hold.
    #[inline]
    pub fn child(self) -> Content {
        match self {
            Content::Node(1) | Content::Data | Content::Inodes => Content::Data,
            Content::Bucket | Content::Target | Content::BadBlocks => Content::Data,
            Content::Node(level) => Content::Node(level - 1),
            Content::DirectoryNode(1) => Content::Bucket,
            Content::DirectoryNode(level) => Content::DirectoryNode(level - 1),
            Content::BadBlocksNode(1) => Content::BadBlocks,
            Content::BadBlocksNode(level) => Content::BadBlocksNode(level - 1),
            Content::InodeNode(1) => Content::Inodes,
            Content::InodeNode(level) => Content::InodeNode(level - 1),
        }
    }

    /// What the top block of a file's tree of this height holds.
    #[inline]
    pub fn file_top(height: u8) -> Content {
        if height == 0 { Content::Data } else { Content::Node(height) }
    }

    /// What the top block of the tree with this root holds.
    #[inline]
    pub fn top_of(root: Root) -> Content {
        match (root.holds, root.height) {
            (Holds::Content, height) => Self::file_top(height),
            (Holds::Buckets, 0) => Content::Bucket,
            (Holds::Buckets, height) => Content::DirectoryNode(height),
            (Holds::Target, _) => Content::Target,
            (Holds::BadBlocks, 0) => Content::BadBlocks,
            (Holds::BadBlocks, height) => Content::BadBlocksNode(height),
        }
    }

    /// Whether the words of such a block refer to others.
    #[inline]
    pub fn refers(self) -> bool {
        !matches!(self, Content::Data | Content::Bucket | Content::Target | Content::BadBlocks)
    }

    /// What the top block of an inode file of this height holds.
    #[inline]
    pub fn inode_file_top(height: u8) -> Content {
        if height == 0 { Content::Inodes } else { Content::InodeNode(height) }
    }

    #[inline]
    pub(super) fn code(self) -> u64 {
        match self {
            Content::Data => 0,
            Content::Node(level) => level as u64,
            Content::InodeNode(level) => 4 + level as u64,
            Content::Inodes => 8,
            Content::DirectoryNode(level) => 8 + level as u64,
            Content::Bucket => 12,
            Content::Target => 13,
            Content::BadBlocks => 14,
            Content::BadBlocksNode(level) => 16 + level as u64,
        }
    }

    #[inline]
    pub(super) fn from_code(code: u64) -> Content {
        match code {
            1..=3 => Content::Node(code as u8),
            5..=7 => Content::InodeNode(code as u8 - 4),
            8 => Content::Inodes,
            9..=11 => Content::DirectoryNode(code as u8 - 8),
            12 => Content::Bucket,
            13 => Content::Target,
            14 => Content::BadBlocks,
            17..=19 => Content::BadBlocksNode(code as u8 - 16),
            _ => Content::Data,
        }
    }

    /// The salt of words of a block with this content.
    #[inline(always)]
    pub fn salt(self, block: Block) -> Salt {
        match self {
            Content::Node(level)
            | Content::DirectoryNode(level)
            | Content::BadBlocksNode(level)
            | Content::InodeNode(level) => Salt::node(block, level),
            Content::BadBlocks => Salt::bad_blocks(block),
            Content::Inodes => Salt::inodes(block),
            Content::Bucket | Content::Data | Content::Target => Salt::slots(block),
        }
    }

    /// How many words a block with this content begins with.
    pub fn words(self) -> u64 {
        match self {
            Content::Data | Content::Target => 0,
            Content::Bucket => SLOTS.into(),
            _ => 512,
        }
    }

    /// The reference that a value of word `index` of a block with this content makes: `Err` tells
    /// what is wrong with the value. Bounds are checked by
    /// [`holds`](crate::format::superblock::Geometry::holds).
    #[inline(always)]
    pub fn reference(
        self,
        index: u16,
        value: u64,
    ) -> Result<Option<(Pointer, Content)>, &'static str> {
        match self {
            Content::Data | Content::Bucket | Content::Target | Content::BadBlocks => Ok(None),
            Content::Node(_)
            | Content::DirectoryNode(_)
            | Content::BadBlocksNode(_)
            | Content::InodeNode(_) => match Pointer::from_value(value) {
                Ok(pointer) => Ok(pointer.map(|p| (p, self.child()))),
                Err(_) => Err(wrong_pointer(value)),
            },
            Content::Inodes if index % INODE_WORDS != ROOT => Ok(None),
            Content::Inodes => {
                let root = Root::from_value(value).map_err(|_| "a root has wrong fields")?;
                Ok(root.and_then(|r| r.top.map(|top| (top, Content::top_of(r)))))
            }
        }
    }

    /// As [`Content::reference`], of a word, of which `salt` is that of the block.
    #[inline(always)]
    pub fn reference_in(
        self,
        salt: Salt,
        index: u16,
        word: u64,
    ) -> Result<Option<(Pointer, Content)>, &'static str> {
        match (self, word::open(word, salt, index)) {
            (content, _) if !content.refers() => Ok(None),
            (_, Ok(value)) => self.reference(index, value),
            (Content::Inodes, Err(_)) if index % INODE_WORDS != ROOT => Ok(None),
            (Content::Inodes, Err(_)) => Err("a root fails its check"),
            (_, Err(_)) => Err("a pointer fails its check"),
        }
    }
}

#[cold]
fn wrong_pointer(value: u64) -> &'static str {
    if word::is_lost(value) { "what was here is lost" } else { "a pointer has wrong fields" }
}
