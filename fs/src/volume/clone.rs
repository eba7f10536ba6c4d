//! Clones of files: a new inode with the same root.
//!
//! ```text
//! inode 7 [root]---.            the root block gains a reference; nothing below it
//!                   >-- node    is touched, whatever the size of the file
//! inode 9 [root]---'
//! ```

use super::Volume;
use crate::dax::Mmu;
use crate::error::{Error, Result};
use crate::format::inode::{self, NewInode, slot_of, word_index};
use crate::pmem::Pmem;
use crate::types::*;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Creates `name` as a clone of a file: constant time, atomic, durable at return.
    pub fn clone_file(&mut self, src: Ino, dir: Ino, name: &[u8], now: Time) -> Result<Ino> {
        let block = self.inode_block(src)?;
        let (kind, mode) = self.kind_in(block, src)?;
        if kind != Kind::File {
            return Err(if kind == Kind::Directory {
                Error::IsDirectory
            } else {
                Error::Invalid("is a symbolic link")
            });
        }
        let owner = self.blocks.word(block, word_index(slot_of(src), inode::OWNER))?;
        let size = self.size_in(block, src)?;
        let family = self.family_of(block, src)?;
        // What the clone shows must not go back in time, and nothing may stay writable.
        // The fence of the new inode is theirs too.
        self.dax.sync(&mut self.blocks, src)?;
        let (_, root) = self.inode_path(src)?;
        // The reference is counted first: from now on no position of the source is exclusive.
        if let Some(top) = root.top {
            self.blocks.add_reference(top.block)?;
        }
        let made = self.make(dir, name, now, &[], |_| NewInode {
            kind: Kind::File,
            mode,
            size,
            nlink: 1,
            family,
            seed: 0,
            parent: dir,
            owner,
            now,
            generation: 1,
            root,
        });
        if made.is_err()
            && let Some(top) = root.top
        {
            self.blocks.discard(top.block, crate::blocks::Content::file_top(root.height));
        }
        made
    }
}
