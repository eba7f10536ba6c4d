//! The number spaces, each a type of its own, and the plain records of the interface.

/// Bytes in a block.
pub const BLOCK_SIZE: u64 = 4096;
/// Longest name in bytes.
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link in bytes.
pub const MAX_TARGET: usize = 4095;
/// Largest file: 512 GiB, what a tree of three levels maps.
pub const MAX_FILE_SIZE: u64 = 512 << 30;

/// A block of the volume, counted from the start of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u64);

/// A block of a file, counted from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileBlock(pub u64);

/// Number of an inode of the live volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

/// What is known of a file beside what is on media is found by this: by its inode, since there is
/// one live volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileKey(pub Ino);

/// Nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its target is its content.
    Symlink,
}

/// The attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Number of the inode.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Permission bits (0o7777).
    pub mode: u16,
    /// Names that refer to it.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Last access, as far as it is kept.
    pub atime: Time,
    /// Creation.
    pub btime: Time,
}

/// Attributes to set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttributes {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub atime: Option<Time>,
    /// Last change of content.
    pub mtime: Option<Time>,
}

/// One entry of a directory listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Name, without `/`; any bytes but NUL.
    pub name: &'a [u8],
    /// The inode it names.
    pub ino: Ino,
    /// What that inode is.
    pub kind: Kind,
    /// Pass this to `read_dir` to go on *behind* this entry. Never 0.
    pub cookie: u64,
}

/// Space of the volume, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Blocks of the volume that can hold content, and what describes it.
    pub total: u64,
    /// Free blocks, the reserve included. Those still being reclaimed are not free yet.
    pub free: u64,
    /// Free blocks that content can have, with the nodes that lead to it.
    pub available: u64,
    /// Blocks that more than one reference leads to directly (data and tree nodes).
    pub shared: u64,
    /// Inodes in use.
    pub inodes: u64,
}

/// A run of a file that is all of one sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block of the run in the file.
    pub start: FileBlock,
    /// Length in blocks.
    pub blocks: u64,
    /// Where it is on media; `None` for a hole.
    pub at: Option<Block>,
    /// Whether any other position refers to these blocks too.
    pub shared: bool,
    /// Allocated, but reads as zeros.
    pub unwritten: bool,
    /// The blocks are on the list of bad blocks, and have content: it cannot be read.
    pub bad: bool,
}
