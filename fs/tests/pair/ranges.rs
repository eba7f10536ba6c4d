//! Clones of ranges: at once, and in steps with other operations between them.

use super::{NOW, Node, Pair, are_apart, in_bytes, overlay};
use umbra_fs::{Begun, Ino, Operation};

/// A clone of a range that is under way.
pub(super) struct UnderWay {
    pub operation: Operation,
    range: Range,
    /// What the source contained since it began.
    moments: Vec<Vec<u8>>,
}

/// The numbers of two files, the inode of the target, and places in bytes.
#[derive(Clone, Copy)]
struct Range {
    src: usize,
    dst: usize,
    ino: Ino,
    from: u64,
    to: u64,
    len: u64,
}

impl Pair {
    pub(super) fn clone_range(&mut self, src: &str, from: u64, dst: &str, to: u64, blocks: u64) {
        let (Some(source), Some(mut target)) = (self.file(src).cloned(), self.file(dst).cloned())
        else {
            return;
        };
        let [from, to, len] = in_bytes(&source, from, to, blocks);
        let (a, b) = (self.ino(src), self.ino(dst));
        let done = self.volume().clone_range(a, from, b, to, len, NOW);
        let whole = len.is_multiple_of(4096) || to + len >= target.len() as u64;
        let apart = are_apart((a, from), (b, to), len);
        let possible = from <= source.len() as u64 && whole && apart;
        if len == 0 {
            return;
        }
        assert_eq!(done.is_ok(), possible, "{done:?}");
        if possible {
            overlay(&mut target, to, &source[from as usize..(from + len) as usize]);
            self.set_content(dst, target);
        }
    }

    pub(super) fn begin_clone_range(
        &mut self,
        src: &str,
        from: u64,
        dst: &str,
        to: u64,
        blocks: u64,
    ) {
        let (Some(source), Some(_), None) =
            (self.file(src).cloned(), self.file(dst), &self.under_way)
        else {
            return;
        };
        let (Node::File(src_id), Node::File(dst_id)) = (self.names[src], self.names[dst]) else {
            return;
        };
        let [from, to, len] = in_bytes(&source, from, to, blocks);
        if len == 0 {
            return;
        }
        let (a, ino) = (self.ino(src), self.ino(dst));
        let moments = vec![source];
        let begun = self.volume().begin_clone_range(a, from, ino, to, len, NOW);
        let range = Range { src: src_id, dst: dst_id, ino, from, to, len };
        match begun {
            Ok(Begun::GoesOn(operation)) => {
                self.under_way = Some(UnderWay { operation, range, moments })
            }
            Ok(Begun::Over(_)) => self.ended(range, Ok(()), moments),
            Err(error) => self.ended(range, Err(error), moments),
        }
    }

    /// Takes a step of what is under way. In the end, the target has what the source contained at
    /// one moment, or what it had.
    pub(super) fn go_on(&mut self) {
        let Some(mut under_way) = self.under_way.take() else { return };
        under_way.moments.push(self.files[under_way.range.src].content.clone());
        match self.volume().step(&mut under_way.operation) {
            Ok(None) => self.under_way = Some(under_way),
            done => self.ended(under_way.range, done.map(drop), under_way.moments),
        }
    }

    fn ended(&mut self, range: Range, done: umbra_fs::Result<()>, moments: Vec<Vec<u8>>) {
        let Range { src, dst, ino, from, to, len } = range;
        let target = self.files[dst].content.clone();
        if let Err(error) = done {
            let named = |id| self.names.values().any(|node| *node == Node::File(id));
            let shrunk = moments.iter().any(|source| (source.len() as u64) < from + len);
            let partly = !len.is_multiple_of(4096);
            let overlap = !are_apart((src, from), (dst, to), len);
            assert!(!named(dst) || !named(src) || shrunk || partly || overlap, "{error:?}");
            return;
        }
        let mut seen = vec![0; target.len().max((to + len) as usize)];
        assert_eq!(self.volume().read(ino, 0, &mut seen), Ok(seen.len()));
        let is = |source: &Vec<u8>| {
            let mut content = target.clone();
            let range = source.get(from as usize..(from + len) as usize);
            range.is_some_and(|range| {
                overlay(&mut content, to, range);
                content == seen
            })
        };
        assert!(moments.iter().any(is), "the target has what the source never contained");
        self.files[dst].content = seen;
    }
}
