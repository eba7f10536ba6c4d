//! Names: create, remove, rename.

use super::Volume;
use super::budget::{NAME_BLOCKS, REPLACE_BLOCKS};
use super::climb::Climb;
use super::dir::{Room, check_name};
use crate::blocks::Purpose;
use crate::error::{Error, Result};
use crate::format::bucket::{payload, payload_at};
use crate::format::inode::{self, NewInode, slot_of, word_index};
use crate::format::superblock::crc32c;
use crate::format::word::{Holds, NOTHING, Pointer, Root};
use crate::pmem::Pmem;
use crate::tree::commit::Edit;
use crate::tree::path::Path;
use crate::tree::stage::{Stage, Written};
use crate::types::*;
use crate::windows::files::HasNames;
use crate::windows::mmu::Mmu;
use arrayvec::ArrayVec;

impl<P: Pmem, M: Mmu> Volume<P, M> {
    /// Finds a name in a directory (`.` and `..` are not names here).
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::InvalidName`],
    /// [`Error::NameTooLong`], or a [media error](Error#media-errors).
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Ino> {
        let dir = self.dir(dir)?;
        check_name(name)?;
        self.find(dir, name)?.map(|found| found.ino).ok_or(Error::NotFound)
    }

    /// Creates an empty file.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], [`Error::NotFound`], [`Error::NotDirectory`], [`Error::InvalidName`],
    /// [`Error::NameTooLong`], [`Error::NoSpace`], or a [media error](Error#media-errors).
    pub fn create(&mut self, dir: Ino, name: &[u8], mode: u16, now: Time) -> Result<Ino> {
        self.make(dir, name, now, &[], |ino| NewInode::of(Kind::File, mode, ino, dir, now))
    }

    /// Creates an empty directory.
    ///
    /// # Errors
    ///
    /// As [`Volume::create`].
    pub fn mkdir(&mut self, dir: Ino, name: &[u8], mode: u16, now: Time) -> Result<Ino> {
        self.make(dir, name, now, &[], |ino| NewInode::of(Kind::Directory, mode, ino, dir, now))
    }

    /// Makes an inode, with at most a block of content, and a name for it: two fences, if its
    /// blocks have room.
    pub(super) fn make(
        &mut self,
        dir: Ino,
        name: &[u8],
        now: Time,
        content: &[u8],
        new: impl FnOnce(Ino) -> NewInode,
    ) -> Result<Ino> {
        let ino = self.make_untouched(dir, name, content, new)?;
        self.touch(dir, [inode::MTIME, inode::CTIME], now)?;
        Ok(ino)
    }

    /// As [`Volume::make`], without the times of the directory. If this fails, nothing has changed.
    pub(super) fn make_untouched(
        &mut self,
        dir: Ino,
        name: &[u8],
        content: &[u8],
        new: impl FnOnce(Ino) -> NewInode,
    ) -> Result<Ino> {
        check_name(name)?;
        let opened = self.dir(dir)?;
        let spot = self.spot(opened, name)?;
        if self.find_at(opened, spot, name)?.is_some() {
            return Err(Error::Exists);
        }
        self.tree.blocks.ensure(0, NAME_BLOCKS, Purpose::Grow)?;
        let mut stage = self.tree.stage();
        let (room, ino, kind) = self.fill_stage(&mut stage, |volume, stage| {
            let mut room = volume.make_room(stage, dir, name, Some(spot), Purpose::Grow)?;
            let epoch = volume.tree.files.volume_epoch();
            let (ino, kind) = volume.stage_inode(stage, content, new)?;
            // Making the inode may have moved blocks of the path: then find it again.
            if volume.tree.files.volume_epoch() != epoch {
                room = volume
                    .make_room(stage, dir, name, None, Purpose::Grow)
                    .inspect_err(|_| volume.forget_inode(ino))?;
            }
            Ok((room, ino, kind))
        })?;
        if let Err(error) = self.insert_entry(stage, &room, ino, kind, name) {
            self.forget_inode(ino);
            return Err(error);
        }
        Ok(ino)
    }

    /// Stages an inode and its content, if it has some.
    fn stage_inode(
        &mut self,
        stage: &mut Stage<Written>,
        content: &[u8],
        new: impl FnOnce(Ino) -> NewInode,
    ) -> Result<(Ino, Kind)> {
        let top = match content {
            [] => None,
            content => Some(self.stage_target(stage, content, Purpose::Grow)?),
        };
        let mut kind = Kind::File;
        let ino = self.new_inode(stage, |ino| {
            let mut new = new(ino);
            kind = new.kind;
            if let Some(block) = top {
                new.size = content.len() as u64;
                new.sum = crc32c(content);
                new.root = Root { height: 0, top: Some(Pointer::to(block)), holds: Holds::Target };
            }
            new
        })?;
        Ok((ino, kind))
    }

    /// Removes the name of a file; its blocks are reclaimed in the background once no
    /// window shows it. Not the last name of a pinned file: see [`Volume::pin`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::IsDirectory`], [`Error::InUse`], [`Error::NoSpace`] if even
    /// the reserve is used up, or a [media error](Error#media-errors).
    pub fn unlink(&mut self, dir: Ino, name: &[u8], now: Time) -> Result<()> {
        self.remove(dir, name, false, now)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NotEmpty`], [`Error::NoSpace`] if
    /// even the reserve is used up, or a [media error](Error#media-errors).
    pub fn rmdir(&mut self, dir: Ino, name: &[u8], now: Time) -> Result<()> {
        self.remove(dir, name, true, now)
    }

    fn remove(&mut self, dir: Ino, name: &[u8], directory: bool, now: Time) -> Result<()> {
        let opened = self.dir(dir)?;
        check_name(name)?;
        let found = self.find(opened, name)?.ok_or(Error::NotFound)?;
        match (found.kind == Kind::Directory, directory) {
            (true, false) => return Err(Error::IsDirectory),
            (false, true) => return Err(Error::NotDirectory),
            (true, true) if !self.is_empty_dir(found.ino)? => return Err(Error::NotEmpty),
            _ => self.may_lose_name(found.ino)?,
        }
        self.tree.blocks.ensure(0, NAME_BLOCKS, Purpose::Release)?;
        let path = self.slot_path(dir, &found)?;
        let stage = self.tree.stage();
        self.tree.commit_and_release(
            stage,
            &[Edit::words(&path, &[(found.slot, NOTHING)])],
            Purpose::Release,
        )?;
        self.drop_name(found.ino)?;
        self.touch_named(found.ino, now)?;
        self.touch(dir, [inode::MTIME, inode::CTIME], now)
    }

    /// What lost a name has changed, if it is still there.
    pub(super) fn touch_named(&mut self, ino: Ino, now: Time) -> Result<()> {
        match self.tree.inode_path(ino) {
            Err(Error::NotFound) => Ok(()),
            _ => self.touch(ino, [inode::CTIME], now),
        }
    }

    /// One name of the inode is durably gone.
    fn drop_name(&mut self, ino: Ino) -> Result<()> {
        let block = self.tree.inode_block(ino)?;
        let names = self.nlink_in(block, ino)?;
        if names <= 1 && !self.dax.files.is_open(FileKey(ino)) {
            return self.drop_inode(ino);
        }
        let left = names.saturating_sub(1);
        self.set_names(ino, left)?;
        if left == 0 {
            self.dax.files.set_names(FileKey(ino), HasNames::NoMore);
        }
        Ok(())
    }

    /// Renames atomically; replaces a file by a file, an empty directory by a directory. It takes
    /// as long as the directories are deep, and as the one that is replaced was large: see
    /// [`Volume::examine_rename`]. The last name of a pinned file is not replaced: see
    /// [`Volume::pin`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::IsDirectory`], [`Error::NotEmpty`],
    /// [`Error::NameTooLong`], [`Error::InvalidName`], [`Error::NoSpace`]; [`Error::Invalid`] if a
    /// directory would get below itself, or too deep;
    /// [`Error::InUse`] if a pinned file would lose its last name.
    pub fn rename(
        &mut self,
        dir: Ino,
        name: &[u8],
        to_dir: Ino,
        to_name: &[u8],
        now: Time,
    ) -> Result<()> {
        self.rename_examined((dir, name), (to_dir, to_name), now, &mut Climb::default())
    }

    /// As [`Volume::rename`], of which [`Volume::examine_rename`] has taken the first steps: those
    /// that are left are taken at once.
    ///
    /// # Errors
    ///
    /// Those of [`Volume::rename`].
    pub fn rename_examined(
        &mut self,
        (dir, name): (Ino, &[u8]),
        (to_dir, to_name): (Ino, &[u8]),
        now: Time,
        climb: &mut Climb,
    ) -> Result<()> {
        let (from, to) = (self.dir(dir)?, self.dir(to_dir)?);
        check_name(name)?;
        check_name(to_name)?;
        let moved = self.find(from, name)?.ok_or(Error::NotFound)?;
        let replaced = self.find(to, to_name)?;
        let is_dir = moved.kind == Kind::Directory;
        if let Some(old) = replaced
            && old.ino != moved.ino
        {
            self.may_lose_name(old.ino)?;
        }
        match replaced {
            // Two names of one file: nothing happens, as POSIX has it.
            Some(old) if old.ino == moved.ino => return Ok(()),
            Some(old) if old.kind == Kind::Directory && !is_dir => return Err(Error::IsDirectory),
            Some(old) if old.kind != Kind::Directory && is_dir => return Err(Error::NotDirectory),
            Some(old) if is_dir && !self.is_empty_dir(old.ino)? => return Err(Error::NotEmpty),
            _ => {}
        }
        let changes_parent = is_dir && dir != to_dir;
        while changes_parent && !self.climb(moved.ino, to_dir, climb)? {}
        // What replaces something gives back what that had, in the end.
        let (needed, purpose) = match replaced {
            Some(_) => (REPLACE_BLOCKS, Purpose::Release),
            None => (2 * NAME_BLOCKS, Purpose::Grow),
        };
        self.tree.blocks.ensure(0, needed, purpose)?;
        // Also where it fails: what was published before counts.
        self.moves += u64::from(changes_parent);
        let mut stage = self.tree.stage();
        let plan = self.fill_stage(&mut stage, |volume, stage| {
            volume.plan_rename(stage, (dir, name), (to_dir, to_name), is_dir, purpose)
        })?;
        self.commit_naming(stage, &plan, to_name, purpose)?;
        if let Some(old) = replaced {
            self.touch_named(old.ino, now)?;
        }
        self.touch(dir, [inode::MTIME, inode::CTIME], now)?;
        if dir != to_dir {
            self.touch(to_dir, [inode::MTIME, inode::CTIME], now)?;
        }
        self.touch(moved.ino, [inode::CTIME], now)
    }

    /// Everything that a name changes, published by one word. What it replaced is accounted for.
    pub(super) fn commit_naming(
        &mut self,
        stage: Stage<Written>,
        plan: &Naming,
        name: &[u8],
        purpose: Purpose,
    ) -> Result<()> {
        let bytes = payload(plan.unit, plan.named.0, plan.named.1, name);
        let mut edits = ArrayVec::<Edit<'_>, 4>::new();
        edits.push(Edit {
            payload: Some((payload_at(plan.unit), &bytes)),
            ..Edit::words(&plan.target, &plan.target_words)
        });
        for (path, words) in plan.source.iter().chain(&plan.inodes) {
            edits.push(Edit::words(path, words));
        }
        let done = self.tree.commit(stage, &edits, purpose)?;
        if let Some(naming) = &mut self.naming {
            naming.named(plan.named.0, plan.named.1);
        }
        match plan.replaced {
            Replaced::Gone(ino) => self.inode_dropped(ino),
            Replaced::Orphan(ino) => self.dax.files.set_names(FileKey(ino), HasNames::NoMore),
            Replaced::Nothing => {}
        }
        self.tree.release(done)
    }

    fn plan_rename(
        &mut self,
        stage: &Stage<Written>,
        (dir, name): (Ino, &[u8]),
        (to_dir, to_name): (Ino, &[u8]),
        is_dir: bool,
        purpose: Purpose,
    ) -> Result<Naming> {
        let room = self.make_room(stage, to_dir, to_name, None, purpose)?;
        // Making room may have moved entries: find them again.
        let moved = self.find(self.dir(dir)?, name)?.ok_or(Error::NotFound)?;
        let mut plan = self.plan_naming(room, to_dir, to_name, (moved.ino, moved.kind))?;
        plan.source = Some((self.slot_path(dir, &moved)?, [(moved.slot, NOTHING)]));
        if is_dir && dir != to_dir {
            let (path, _) = self.tree.inode_path(moved.ino)?;
            let word = (word_index(slot_of(moved.ino), inode::PARENT), to_dir.0);
            plan.inodes.push((path, [word]));
        }
        Ok(plan)
    }

    /// What has to change so that `name`, for which there is room, names this inode, and not what
    /// it may name now.
    pub(super) fn plan_naming(
        &mut self,
        room: Room,
        dir: Ino,
        name: &[u8],
        named: (Ino, Kind),
    ) -> Result<Naming> {
        let replaced = self.find(self.dir(dir)?, name)?;
        let mut plan = Naming {
            named,
            unit: room.unit,
            target_words: ArrayVec::new(),
            source: None,
            inodes: ArrayVec::new(),
            replaced: Replaced::Nothing,
            target: room.path.clone(),
        };
        plan.target_words.push(room.word());
        if let Some(old) = replaced {
            plan.target_words.push((old.slot, NOTHING));
            self.name_changes(old.ino);
            let block = self.tree.inode_block(old.ino)?;
            let left = self.nlink_in(block, old.ino)?.saturating_sub(1);
            let word = if left > 0 {
                Self::names_word(old.ino, left)
            } else if self.dax.files.is_open(FileKey(old.ino)) {
                plan.replaced = Replaced::Orphan(old.ino);
                Self::names_word(old.ino, 0)
            } else {
                plan.replaced = Replaced::Gone(old.ino);
                (word_index(slot_of(old.ino), inode::ROOT), NOTHING)
            };
            plan.inodes.push((self.tree.inode_path(old.ino)?.0, [word]));
        }
        Ok(plan)
    }
}

/// What a name that is moved, or put in the place of another, changes.
pub(super) struct Naming {
    /// The inode that gets the name, and its kind.
    named: (Ino, Kind),
    /// Bucket of the name, and where in it the payload goes.
    target: Path,
    unit: u16,
    target_words: ArrayVec<(u16, u64), 2>,
    /// Bucket of the old name, if it has one that goes.
    source: Option<(Path, [(u16, u64); 1])>,
    /// Words of inodes: a directory's new parent, or the count of names of what gets one more; the
    /// root, or the count of names, of what is replaced.
    pub(super) inodes: ArrayVec<(Path, [(u16, u64); 1]), 2>,
    replaced: Replaced,
}

/// What became of the inode whose name was replaced.
enum Replaced {
    /// There was none, or it has other names.
    Nothing,
    /// It went with its last name.
    Gone(Ino),
    /// It is open, and goes with its last window.
    Orphan(Ino),
}

impl NewInode {
    pub(super) fn of(kind: Kind, mode: u16, ino: Ino, parent: Ino, now: Time) -> Self {
        // The seed only has to differ between directories: the volume's own part is secret.
        let seed = (now.0 as u64).rotate_left(24) ^ ino.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        NewInode {
            kind,
            mode,
            size: 0,
            nlink: 1,
            family: ino,
            seed,
            parent,
            uid: 0,
            gid: 0,
            sum: 0,
            now,
            root: Root::EMPTY,
        }
    }
}
