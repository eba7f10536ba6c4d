//! What is known of the list of bad blocks, and what a memory error has hit.

/// What a memory error has hit, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Struck {
    /// Blocks that files, or what describes them, may have, and that are on the list since this
    /// error only.
    pub new: u64,
    /// Such blocks that were on the list before.
    pub known: u64,
    /// Superblocks: each has a copy, and a mount writes both.
    pub superblocks: u64,
    /// Blocks of scratch or of the checkpoint, which can be counted anew.
    pub derived: u64,
}

/// The list of bad blocks, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BadBlockCounts {
    /// Blocks on the list.
    pub listed: u64,
    /// Those of them that nothing refers to. They are not handed out.
    pub out_of_use: u64,
    /// Blocks that were reported since mount when the list had no room.
    pub unlisted: u64,
    /// Entries that mounting found on media and could not read.
    pub unreadable: u64,
    /// The list on media is behind the one in memory, because writing it failed. It is tried again
    /// with the next error, and when the volume is unmounted.
    pub unsaved: bool,
}

/// What is known of the list beside its blocks.
#[derive(Debug, Default)]
pub(super) struct BadList {
    /// As [`BadBlockCounts`] has them.
    pub unlisted: u64,
    pub unreadable: u64,
    pub unsaved: bool,
}
