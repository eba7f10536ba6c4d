//! What an operation does to both, where that is more than a few lines.

use super::{Frozen, NOW, Node, Op, Pair, are_apart, in_bytes, overlay, pattern};
use umbra_fs::{Block, Existing, FileBlock, Ino, Kind, LENT_RUN, Pmem};

impl Pair {
    /// Writes what a device has received into a run that is lent: new blocks are those of the run,
    /// and nothing of it is copied.
    pub(super) fn receive(
        &mut self,
        path: &str,
        block: u64,
        at: u64,
        len: u64,
        fill: u8,
    ) -> Option<Block> {
        let mut content = self.file(path).cloned()?;
        let run = self.lent.pop().or_else(|| self.volume().lend())?;
        let ino = self.ino(path);
        let (offset, len) = (block * 4096, len.min((LENT_RUN - at) * 4096));
        let bytes = pattern(fill, offset, len);
        let first = Block(run.0 + at);
        self.volume().pmem_mut().write(first.0 * 4096, &bytes);
        let before = self.own(ino, block, len / 4096);
        assert_eq!(self.volume().write_received(ino, offset, &bytes, first, NOW), Ok(len as usize));
        for (i, own) in before.into_iter().enumerate() {
            let is = self.volume().extent(ino, FileBlock(block + i as u64)).unwrap().unwrap().at;
            assert_eq!(is == Some(Block(first.0 + i as u64)), !own, "block {i} of {len} bytes");
        }
        overlay(&mut content, offset, &bytes);
        self.set_content(path, content);
        Some(run)
    }

    pub(super) fn freeze(&mut self, path: &str) {
        let Some(content) = self.file(path).cloned() else { return };
        let ino = self.ino(path);
        let (ino, window) = self.volume().open_frozen(ino, NOW).unwrap();
        let blocks = self.blocks(ino);
        self.frozen.push(Frozen { window, ino, content, blocks });
        if self.frozen.len() > 3 {
            self.apply(&Op::Thaw(0));
        }
    }

    pub(super) fn name(&mut self, file: usize, path: &str, over: bool) {
        if !self.is_dir(Self::parent(path)) {
            return;
        }
        let (ino, window, content) = self.unnamed[file].clone();
        let (dir, name) = self.volume().resolve_parent(path.as_bytes()).unwrap();
        let done = match over {
            true => self.volume().link_as(ino, dir, name, Existing::Replace, NOW),
            false => self.volume().link(ino, dir, name, NOW),
        };
        let possible = match self.names.get(path) {
            None => true,
            Some(Node::File(_)) => over,
            Some(Node::Dir) => false,
        };
        assert_eq!(done.is_ok(), possible, "{done:?}");
        if possible {
            self.unnamed.remove(file);
            // The window stays open.
            self.windows.push((window, self.files.len()));
            self.add(path, Kind::File, content);
        }
    }

    /// Where the blocks of a file are.
    pub(super) fn blocks(&mut self, ino: Ino) -> Vec<Option<Block>> {
        let mut blocks = Vec::new();
        while let Some(run) = self.volume().extent(ino, FileBlock(blocks.len() as u64)).unwrap() {
            blocks.extend((0..run.blocks).map(|i| run.at.map(|at| Block(at.0 + i))));
        }
        blocks
    }

    /// Which blocks of a range are the file's own.
    pub(super) fn own(&mut self, ino: Ino, block: u64, count: u64) -> Vec<bool> {
        let own = |at| {
            let run = self.machine.volume.extent(ino, FileBlock(at)).unwrap();
            run.is_some_and(|run| run.at.is_some() && !run.shared)
        };
        (block..block + count).map(own).collect()
    }

    /// Makes a range read as zeros: a hole, or blocks of the file's own.
    pub(super) fn zero(&mut self, path: &str, offset: u64, len: u64, hole: bool) {
        let Some(mut content) = self.file(path).cloned() else { return };
        let ino = self.ino(path);
        let mut done = 0;
        while done < len {
            let step = match hole {
                true => self.volume().punch(ino, offset + done, len - done, NOW),
                false => self.volume().provide_zeros(ino, offset + done, len - done, NOW),
            };
            let step = step.unwrap();
            assert!(step > 0 && step <= len - done, "{step} of {}", len - done);
            done += step;
        }
        let size = content.len() as u64;
        let end = (offset + len).min(size);
        if offset >= end {
            return;
        }
        content[offset as usize..end as usize].fill(0);
        self.set_content(path, content);
        let stop = if end == size { end.div_ceil(4096) } else { end / 4096 };
        let mut block = offset.div_ceil(4096);
        while block < stop {
            let run = self.volume().extent(ino, FileBlock(block)).unwrap().unwrap();
            assert_eq!(run.at.is_none(), hole, "block {block}: {run:?}");
            assert!(hole || run.unwritten && !run.shared, "block {block}: {run:?}");
            block += run.blocks;
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if !self.is_dir(Self::parent(from)) || !self.is_dir(Self::parent(to)) {
            return;
        }
        let (dir, name) = self.volume().resolve_parent(from.as_bytes()).unwrap();
        let (to_dir, to_name) = self.volume().resolve_parent(to.as_bytes()).unwrap();
        let done = self.volume().rename(dir, name, to_dir, to_name, NOW);
        let possible = match (self.names.get(from), self.names.get(to)) {
            (None, _) => false,
            (Some(_), Some(_)) if from == to => true,
            (Some(Node::Dir), _) if to.starts_with(&format!("{from}/")) => false,
            (Some(_), None) => true,
            (Some(Node::File(_)), Some(Node::File(_))) => true,
            (Some(Node::Dir), Some(Node::Dir)) => !self.has_children(to),
            _ => false,
        };
        assert_eq!(done.is_ok(), possible, "{done:?}");
        // Of two names of one file, none goes.
        let same =
            self.names.get(from) == self.names.get(to) && self.names.get(from) != Some(&Node::Dir);
        if !possible || from == to || same {
            return;
        }
        let moved: Vec<_> = self
            .names
            .keys()
            .filter(|k| *k == from || k.starts_with(&format!("{from}/")))
            .cloned()
            .collect();
        for old in moved {
            let new = format!("{to}{}", &old[from.len()..]);
            let node = self.names.remove(&old).unwrap();
            self.names.insert(new, node);
        }
    }

    pub(super) fn dedupe(
        &mut self,
        src: &str,
        from: u64,
        dst: &str,
        to: u64,
        blocks: u64,
        copy: bool,
    ) {
        let (Some(source), Some(mut target)) = (self.file(src).cloned(), self.file(dst).cloned())
        else {
            return;
        };
        let [from, to, len] = in_bytes(&source, from, to, blocks);
        let (a, b) = (self.ino(src), self.ino(dst));
        let bytes = source[source.len().min(from as usize)..][..len as usize].to_vec();
        let apart = are_apart((a, from), (b, to), len);
        if copy && apart && len > 0 {
            assert_eq!(self.volume().write(b, to, &bytes, NOW), Ok(len as usize));
            overlay(&mut target, to, &bytes);
            self.set_content(dst, target.clone());
        }
        let begun = self.volume().dedupe(a, from, b, to, len);
        // A write into the source's own file may have moved its end.
        let ends = if a == b {
            [target.len() as u64; 2]
        } else {
            [source.len() as u64, target.len() as u64]
        };
        let whole = len.is_multiple_of(4096) || [from + len, to + len] == ends;
        let possible = from + len <= ends[0] && to + len <= ends[1] && whole && apart;
        assert_eq!(begun.is_ok(), possible, "{begun:?}");
        let Ok(mut work) = begun else { return };
        let done = loop {
            if let Some(done) = self.volume().dedupe_step(&mut work).unwrap() {
                break done;
            }
        };
        let there = &target[to as usize..(to + len) as usize];
        let differs_at = (0..len).find(|&i| bytes[i as usize] != there[i as usize]);
        assert_eq!(done.differs_at, differs_at);
        for i in (0..len.div_ceil(4096)).filter(|_| differs_at.is_none()) {
            let at = |v: &mut Self, ino, block| {
                v.volume().extent(ino, FileBlock(block)).unwrap().map(|e| e.at)
            };
            assert_eq!(
                at(self, a, from / 4096 + i),
                at(self, b, to / 4096 + i),
                "block {i} is not shared"
            );
        }
    }
}
