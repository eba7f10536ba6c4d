//! One change: any words of any blocks, published by one store.
//!
//! The blocks that a change touches are copied up to the lowest exclusive block that all
//! of them hang below, and the change is published there:
//!
//! ```text
//!   inode block  [ root ]            exclusive: the word is stored here
//!                   |
//!                 node  (shared)     copied; its other children gain a reference
//!                /     \
//!            leaf A    leaf B        both copied: two words change at once
//! ```
//!
//! A change of one word, or of words that may appear one by one, in an exclusive block
//! needs no copy. The order is write, fence, publish, fence in any case.

use super::Tree;
use crate::blocks::{Content, DurableChange, Fresh, Purpose, Retire};
use crate::error::{Error, Result};
use crate::format::word::Pointer;
use crate::memory::{push_within, put_back};
use crate::pmem::Pmem;
use crate::tree::path::{Path, file_of};
use crate::tree::stage::{Durable, Exclusive, Place, Published, Stage, Written};
use crate::types::{BLOCK_SIZE, Block};
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// A block's bytes.
type Bytes = [u8; BLOCK_SIZE as usize];

/// New content for one block: the last one of `path`.
pub(crate) struct Edit<'a> {
    pub path: &'a Path,
    /// Words to change: index, and value. They are sealed for the block in which they come to
    /// stand.
    pub words: &'a [(u16, u64)],
    /// Bytes that have to be there before the words are: offset, and the bytes. No word
    /// in use refers to the place yet.
    pub payload: Option<(u16, &'a [u8])>,
    /// Replaces all of the block, before words and payload. Its words are sealed for
    /// [`NOWHERE`](crate::format::word::NOWHERE).
    pub content: Option<&'a Bytes>,
    /// Each word is a change of its own: they may appear one by one.
    pub independent: bool,
}

impl<'a> Edit<'a> {
    /// Words that change at once.
    pub fn words(path: &'a Path, words: &'a [(u16, u64)]) -> Self {
        Edit { path, words, payload: None, content: None, independent: false }
    }

    /// Words that may change one by one.
    pub fn independent(path: &'a Path, words: &'a [(u16, u64)]) -> Self {
        Edit { independent: true, ..Self::words(path, words) }
    }

    /// A block that is new, or new as a whole.
    pub fn content(path: &'a Path, content: &'a Bytes) -> Self {
        Edit { content: Some(content), ..Self::words(path, &[]) }
    }
}

/// A copy that the change made.
struct Copied {
    old: Option<Block>,
    new: Fresh,
    content: Content,
    /// The original is gone with this change: the copy took over its references.
    moved: bool,
}

/// Edits of one change have at most this many blocks on their paths below the top.
const MOST_COPIES: usize = 36;

type Copies = ArrayVec<Copied, MOST_COPIES>;

/// Where a change is published.
struct Plan {
    /// Depth in the path of every edit.
    depth: usize,
    /// The word, unless the words of the only edit are stored in place.
    word: Option<(u16, u64)>,
}

fn drops_node(retired: &Retire) -> bool {
    matches!(retired, Retire::Drop(_, content) if content.refers())
}

fn common_steps(a: &Path, b: &Path) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x.block().is_some() && x.block() == y.block()).count()
}

impl<P: Pmem> Tree<P> {
    /// An empty stage.
    pub(crate) fn stage(&mut self) -> Stage<Written> {
        self.changes += 1;
        if self.blocks.has_noted() {
            self.blocks.mend_noted();
        }
        Stage::new(core::mem::take(&mut self.lists))
    }

    /// Gives up a stage.
    pub(crate) fn abandon_stage<S>(&mut self, stage: Stage<S>) {
        self.unfenced |= stage.is_used();
        self.lists = stage.abandon(&mut self.blocks);
    }

    /// Gives up a stage and a list of what it would have dropped, because of this error.
    #[cold]
    pub(super) fn give_up<S>(
        &mut self,
        stage: Stage<S>,
        mut retired: Vec<Retire>,
        error: Error,
    ) -> Error {
        self.abandon_stage(stage);
        retired.clear();
        self.retired = retired;
        error
    }

    fn count_changed(&self) -> Error {
        Error::Damaged { block: self.system, what: "a reference count changed under a commit" }
    }

    /// Commits edits, with what was staged for them. On failure nothing has changed. The
    /// caller updates what shows the changed positions, then calls [`Tree::release`].
    pub(crate) fn commit(
        &mut self,
        mut stage: Stage<Written>,
        edits: &[Edit<'_>],
        purpose: Purpose,
    ) -> Result<Published<Durable>> {
        let mut copies = Copies::new();
        let mut retired = core::mem::take(&mut self.retired);
        let plan = match self.build(&mut stage, edits, purpose, &mut copies, &mut retired) {
            Ok(plan) => plan,
            Err(error) => return Err(self.give_up(stage, retired, error)),
        };
        if let Err(error) = self.count_children(&copies) {
            self.forget_copies(&copies);
            return Err(self.give_up(stage, retired, error));
        }
        match copies.as_slice() {
            // Nothing has moved but one leaf; what it refers to is asked for its count each time.
            [leaf] if edits.len() == 1 && leaf.content == Content::Node(1) => {
                self.leaves.forget(leaf.old)
            }
            [] if !retired.iter().any(drops_node) => {}
            _ => self.note_moves(edits, &copies, &retired),
        }

        let stage = stage.flush(&mut self.blocks.pmem).fence(&mut self.blocks.pmem);
        let way = edits[0].path[..=plan.depth].iter().filter_map(|step| step.block());
        let place = match Place::find(&mut self.blocks, way) {
            Ok(Place::Exclusive(place)) => place,
            found => {
                let error = found.err().map_or(self.count_changed(), Error::from);
                self.forget_copies(&copies);
                return Err(self.give_up(stage, retired, error));
            }
        };
        let single = plan.word.map(|word| [word]);
        let words = single.as_ref().map_or(edits[0].words, |word| word.as_slice());
        let content = edits[0].path[plan.depth].content;
        let published = place.publish(content, words, &stage, retired);
        put_back(&mut self.lists, stage.finish(&mut self.blocks));
        self.unfenced = false;
        Ok(published.flush(&mut self.blocks.pmem).fence(&mut self.blocks.pmem))
    }

    /// Reuses what a change dropped.
    #[inline(always)]
    pub(crate) fn release(&mut self, done: Published<Durable>) -> Result<()> {
        let (list, released) = self.blocks.release(done);
        put_back(&mut self.retired, list);
        Ok(released?)
    }

    /// As [`Tree::release`], once windows show what was published. If they could not be made to,
    /// what the change dropped stays taken, because a window may still show it.
    #[inline(always)]
    pub(crate) fn release_shown<E: Into<Error>>(
        &mut self,
        done: Published<Durable>,
        shown: Result<(), E>,
    ) -> Result<()> {
        match shown {
            Ok(()) => self.release(done),
            Err(error) => Err(self.keep_retired(done, error.into())),
        }
    }

    /// Ends a change whose dropped blocks stay taken because of this error.
    #[cold]
    #[inline(never)]
    fn keep_retired(&mut self, done: Published<Durable>, error: Error) -> Error {
        let mut list = done.into_retired();
        list.clear();
        self.retired = list;
        error
    }

    /// Commits edits that move nothing that a window could show.
    pub(crate) fn commit_and_release(
        &mut self,
        stage: Stage<Written>,
        edits: &[Edit<'_>],
        purpose: Purpose,
    ) -> Result<()> {
        let done = self.commit(stage, edits, purpose)?;
        self.release(done)
    }

    /// Commits edits while another stage is being filled.
    pub(crate) fn commit_beside(
        &mut self,
        _other: &Stage<Written>,
        edits: &[Edit<'_>],
        purpose: Purpose,
    ) -> Result<()> {
        let stage = Stage::new(core::mem::take(&mut self.lists_beside));
        let result = self.commit_and_release(stage, edits, purpose);
        // The lists of the other stage are still with that stage.
        self.lists_beside = core::mem::take(&mut self.lists);
        result
    }

    /// Makes durable what was overwritten in place, if there is any such thing.
    pub(crate) fn fence_overwrites(&mut self) {
        if core::mem::take(&mut self.unfenced) {
            self.blocks.pmem.fence();
        }
    }

    /// Depth at which the edits can be published.
    fn publish_depth(&self, edits: &[Edit<'_>]) -> Result<usize> {
        let mut depth = usize::MAX;
        for edit in edits {
            let exclusive = self.exclusive_steps(edit.path)?;
            let last = edit.path.len() - 1;
            let in_place = edits.len() == 1
                && edit.content.is_none()
                && exclusive == edit.path.len()
                && (edit.independent || edit.words.len() <= 1);
            depth = depth.min(if in_place { last } else { exclusive.min(last).saturating_sub(1) });
        }
        for (i, a) in edits.iter().enumerate() {
            for b in &edits[i + 1..] {
                depth = depth.min(common_steps(a.path, b.path).saturating_sub(2));
            }
        }
        Ok(depth)
    }

    /// Writes all copies, and finds what the change drops. Changes no counts.
    fn build(
        &mut self,
        stage: &mut Stage<Written>,
        edits: &[Edit<'_>],
        purpose: Purpose,
        copies: &mut Copies,
        retired: &mut Vec<Retire>,
    ) -> Result<Plan> {
        let depth = self.publish_depth(edits)?;
        let mut plan = Plan { depth, word: None };
        for edit in edits {
            let last = edit.path.len() - 1;
            let mut parent: Option<usize> = None;
            for at in depth + 1..=last {
                let step = &edit.path[at];
                let known = copies.iter().position(|c| c.old.is_some() && c.old == step.block());
                let this = match known {
                    Some(this) => this,
                    None => {
                        let parent_gone = parent.is_none_or(|p| copies[p].moved);
                        let content = edit.content.filter(|_| at == last);
                        let copied = self.copy(
                            stage,
                            edit.path,
                            at,
                            content,
                            purpose,
                            parent_gone,
                            retired,
                        )?;
                        copies.push(copied);
                        copies.len() - 1
                    }
                };
                let above = &edit.path[at - 1];
                let link = above.link(copies[this].new.block());
                match parent {
                    Some(p) => {
                        let (pmem, to) = (&mut self.blocks.pmem, &copies[p].new);
                        stage.store_entry(pmem, to, above.content, above.index, link);
                    }
                    None => plan.word = Some((above.index, link)),
                }
                parent = Some(this);
            }
            self.apply(stage, edit, parent.map(|p| &copies[p]), retired)?;
        }
        Ok(plan)
    }

    /// Copies one block of a path, or makes it, if it does not exist yet.
    #[allow(clippy::too_many_arguments)]
    fn copy(
        &mut self,
        stage: &mut Stage<Written>,
        path: &Path,
        at: usize,
        content: Option<&Bytes>,
        purpose: Purpose,
        parent_gone: bool,
        retired: &mut Vec<Retire>,
    ) -> Result<Copied> {
        let step = &path[at];
        let new = stage.allocate_pair(&mut self.blocks, purpose)?;
        match (content, step.block()) {
            (Some(bytes), _) => {
                stage.write_words(&mut self.blocks.pmem, &new, step.content, bytes);
            }
            (None, Some(old)) => {
                stage.copy_words(&mut self.blocks, old, &new, step.content)?;
            }
            (None, None) => {
                stage.write_empty(&mut self.blocks.pmem, &new, step.content);
                self.attach_spine(stage, &new, step, purpose)?;
            }
        }
        let mut moved = false;
        if let Some(old) = step.block().filter(|_| parent_gone) {
            moved = self.blocks.count(old)? == 1;
            let retire = if moved { Retire::Moved(old) } else { Retire::Drop(old, step.content) };
            push_within(retired, retire);
        }
        Ok(Copied { old: step.block(), new, content: step.content, moved })
    }

    /// Hangs the old top of a tree that grows below its new top.
    fn attach_spine(
        &mut self,
        stage: &mut Stage<Written>,
        top: &Fresh,
        step: &crate::tree::path::Step,
        purpose: Purpose,
    ) -> Result<()> {
        let Some((mut pointer, height)) = step.spine() else { return Ok(()) };
        let (Content::Node(top_level) | Content::InodeNode(top_level)) = step.content else {
            return Ok(());
        };
        self.blocks.reference_moved(pointer.block);
        for level in height + 1..top_level {
            let node = stage.allocate_pair(&mut self.blocks, purpose)?;
            let content = Content::Node(level);
            stage.write_empty(&mut self.blocks.pmem, &node, content);
            stage.store_entry(&mut self.blocks.pmem, &node, content, 0, pointer.value());
            pointer = Pointer::to(node.block());
        }
        stage.store_entry(&mut self.blocks.pmem, top, step.content, 0, pointer.value());
        Ok(())
    }

    /// Writes words and payload of an edit into the copy of its block, or prepares to
    /// store them in place.
    fn apply(
        &mut self,
        stage: &mut Stage<Written>,
        edit: &Edit<'_>,
        copy: Option<&Copied>,
        retired: &mut Vec<Retire>,
    ) -> Result<()> {
        let step = &edit.path[edit.path.len() - 1];
        match (edit.payload, copy) {
            (Some((offset, bytes)), Some(copy)) => {
                stage.write(&mut self.blocks.pmem, &copy.new, offset as u64, bytes);
            }
            (Some((offset, bytes)), None) => {
                self.in_place(edit.path)?.write(stage, offset as u64, bytes)
            }
            (None, _) => {}
        }
        // References in words that are replaced go, unless the original stays for others.
        let gone = copy.is_none_or(|c| c.moved);
        for &(index, value) in edit.words {
            let old = match (step.block(), step.spine()) {
                (Some(block), _) if gone => self.follow(block, step.content, index)?,
                (None, Some((pointer, height))) if index == 0 => {
                    Some((pointer, Content::file_top(height)))
                }
                _ => None,
            };
            if let Some((pointer, content)) = old
                && step.content.reference(index, value).ok().flatten().map(|(p, _)| p.block)
                    != Some(pointer.block)
            {
                push_within(retired, Retire::Drop(pointer.block, content));
            }
        }
        if let Some(copy) = copy {
            stage.store_entries(&mut self.blocks.pmem, &copy.new, step.content, edit.words);
        }
        Ok(())
    }

    /// The last block of a path, which was found to be exclusive, to write to it.
    fn in_place(&mut self, path: &Path) -> Result<Exclusive<'_, P>> {
        match self.place(path)? {
            Place::Exclusive(place) => Ok(place),
            Place::Shared(_) => Err(Error::Invalid("an edit in place of a block that is shared")),
        }
    }

    /// What the last block of a path is; one that does not exist is not exclusive.
    pub(crate) fn place(&mut self, path: &Path) -> Result<Place<'_, P>> {
        let whole = path.iter().all(|step| step.block().is_some());
        Ok(Place::find(
            &mut self.blocks,
            path.iter().filter(|_| whole).filter_map(|step| step.block()),
        )?)
    }

    /// What is known of the files that a commit changes is void, and of all of them where inodes
    /// move.
    fn note_moves(&mut self, edits: &[Edit<'_>], copies: &Copies, retired: &[Retire]) {
        for edit in edits {
            match file_of(edit.path) {
                Some(file) => self.files.changed(file),
                None => self.files.all_changed(),
            }
        }
        // A new block of inodes moves none that is there already.
        let moves_inodes = |copied: &Copied| match copied.content {
            Content::Inodes => copied.old.is_some(),
            Content::InodeNode(_) => true,
            _ => false,
        };
        if copies.iter().any(moves_inodes) {
            self.files.all_changed();
        }
        self.blocks.exclusive_again += u64::from(retired.iter().any(drops_node));
    }

    /// The children that a copy and its original both refer to gain a reference.
    fn count_children(&mut self, copies: &Copies) -> Result<()> {
        for copy in copies.iter().filter(|c| c.moved && c.content.refers()) {
            if let Some(old) = copy.old {
                self.blocks.node_moved(old, copy.new.block());
            }
        }
        for copy in copies.iter().filter(|c| !c.moved && c.content.refers()) {
            let Some(old) = copy.old else { continue };
            self.blocks.share_children(old, copy.new.block(), copy.content)?;
        }
        Ok(())
    }

    /// The copies whose children may have been counted go. Counts that were raised stay so until
    /// all are made anew: which they are is not known, because a record could not be read. Too
    /// high is safe, because then a block is copied that need not be.
    #[cold]
    fn forget_copies(&mut self, copies: &Copies) {
        for copy in copies.iter().filter(|c| c.moved && c.content.refers()) {
            if let Some(old) = copy.old {
                self.blocks.node_moved(copy.new.block(), old);
            }
        }
    }
}
