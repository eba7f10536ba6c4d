//! What changes may need, and what a step may do: blocks that are asked for before a change begins,
//! so that it does not fail in its middle, and work after which others have their turn.

/// Blocks that a change may need beside those of the data: copies of nodes, a new spine.
pub(crate) const NODE_BLOCKS: u64 = 12;
/// Blocks that a change of names may need: buckets, nodes and inode blocks of four paths, and the
/// target of a symbolic link.
pub(crate) const NAME_BLOCKS: u64 = 25;
/// Blocks that a change of names may need which replaces something: those of a change of names, and
/// of a bucket that has to be rewritten before. The reserve has so many.
pub(crate) const REPLACE_BLOCKS: u64 = NAME_BLOCKS + 7;
/// Work that a step does: about so many blocks are looked at, made durable, or given a reference.
pub(crate) const WORK_A_STEP: u64 = 1024;
