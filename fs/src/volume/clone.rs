//! Clones of files: a new inode with the same root.
//!
//! ```text
//! inode 7 [root]---.            the root block gains a reference; nothing below it
//!                   >-- node    is touched, whatever the size of the file
//! inode 9 [root]---'
//! ```

use super::Volume;
use super::names::NAME_BLOCKS;
use crate::blocks::{Content, Purpose};
use crate::dax::{Mmu, Window};
use crate::error::{Error, Result};
use crate::format::inode::{self, NewInode, ROOT_INO, slot_of, word_index};
use crate::format::word::Root;
use crate::pmem::Pmem;
use crate::types::*;

/// Free blocks that freezing a file needs: one for so many that it may have.
const HEADROOM: u64 = 16;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Creates `name` as a clone of a file: constant time, atomic, durable at return.
    pub fn clone_file(&mut self, src: Ino, dir: Ino, name: &[u8], now: Time) -> Result<Ino> {
        let new = self.share_content(src, now)?;
        let made = self.make(dir, name, now, &[], |_| NewInode { parent: dir, ..new });
        if made.is_err() {
            self.unshare_content(new.root);
        }
        made
    }

    /// Opens a window on what a file contains now, which is durable then: on a clone of it without a name, which goes with the
    /// window. Constant time. As long as nobody writes to that clone, its blocks stay where they are and contain what they do, whatever becomes of
    /// the file.
    ///
    /// Meanwhile what others write over is copied. So that this does not fill a volume by surprise, a part of what the file may
    /// take has to be free: without that, "no space".
    pub fn open_frozen(&mut self, src: Ino, now: Time) -> Result<(Ino, Window)> {
        let size = self.size_in(self.inode_block(src)?, src)?;
        let Space { total, free, .. } = self.space();
        let most = (size / BLOCK_SIZE).min(total - free);
        self.blocks.ensure(NAME_BLOCKS + most / HEADROOM, Purpose::Grow)?;
        let new = self.share_content(src, now)?;
        let mut stage = self.stage();
        let ino = match self.new_inode(&mut stage, |_| NewInode { nlink: 0, ..new }) {
            Ok(ino) => ino,
            Err(error) => {
                self.abandon(stage);
                self.unshare_content(new.root);
                return Err(error);
            }
        };
        // Nothing leads to it, so nothing is published, and recovery frees it. What it shows is durable in the file.
        let stage = stage.flush(&mut self.blocks.pmem).fence(&mut self.blocks.pmem);
        self.fresh = stage.finish(&mut self.blocks);
        match self.open_window(ino) {
            Ok(window) => {
                self.dax.set_orphan(ino);
                Ok((ino, window))
            }
            Err(error) => {
                self.drop_inode(ino)?;
                Err(error)
            }
        }
    }

    /// What a clone of a file is to be. Its content has the reference of that already.
    fn share_content(&mut self, src: Ino, now: Time) -> Result<NewInode> {
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
        Ok(NewInode {
            kind: Kind::File,
            mode,
            size,
            nlink: 1,
            family,
            seed: 0,
            parent: ROOT_INO,
            owner,
            now,
            generation: 1,
            root,
        })
    }

    /// Takes the reference of a clone back that was not made.
    fn unshare_content(&mut self, root: Root) {
        if let Some(top) = root.top {
            self.blocks.discard(top.block, Content::file_top(root.height));
        }
    }
}
