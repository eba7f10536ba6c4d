//! What the bytes on media mean. Nothing here does I/O.
//!
//! | file | what it describes |
//! |---|---|
//! | `word.rs` | words that carry their own check: pointers, roots, numbers |
//! | `superblock.rs` | the superblock and the areas of a volume |
//! | `inode.rs` | an inode: 32 words |
//! | `bucket.rs` | a block of directory entries |
//!
//! All numbers are little-endian. `docs/on-disk-format.md` has the same to the byte, and at its end
//! the recipe for a change; the tests have a reader of their own (`fs/tests/golden/reader.rs`).

pub(crate) mod bucket;
pub(crate) mod inode;
pub(crate) mod superblock;
pub(crate) mod word;
