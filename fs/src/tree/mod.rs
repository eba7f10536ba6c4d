//! The tree of a volume: the way down to a block, and changes that are published by one store.
//!
//! | file | what |
//! |---|---|
//! | `path.rs` | the way from the top of the volume to a block |
//! | `leaves.rs` | what is remembered of leaf nodes |
//! | `scan.rs` | looking for what exists in a tree |
//! | `stage.rs` | the order of a commit, as types |
//! | `commit.rs` | one change of any number of words, published by one store |

pub(crate) mod commit;
pub(crate) mod leaves;
pub(crate) mod path;
pub(crate) mod scan;
pub(crate) mod stage;
