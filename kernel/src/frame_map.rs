//! Which frames of physical memory are free: a bit each.
//!
//! Frames are handed out for good, or for as long as the machine runs (page tables, DMA
//! buffers, heap), so a bitmap that is searched from where the last search ended is enough.
#![forbid(unsafe_code)]

/// A map over `frames` frames; a set bit is a free frame.
pub(crate) struct FrameMap<'a> {
    words: &'a mut [u64],
    frames: usize,
    free: usize,
    next: usize,
}

impl<'a> FrameMap<'a> {
    /// Words that a map of `frames` frames needs.
    pub(crate) const fn words(frames: usize) -> usize {
        frames.div_ceil(64)
    }

    /// A map of frames that are all in use.
    pub(crate) fn new(words: &'a mut [u64], frames: usize) -> Self {
        assert!(words.len() >= Self::words(frames));
        words.fill(0);
        FrameMap { words, frames, free: 0, next: 0 }
    }

    /// Number of free frames.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Whether a frame is free.
    pub(crate) fn is_free(&self, frame: usize) -> bool {
        frame < self.frames && self.words[frame / 64] >> (frame % 64) & 1 != 0
    }

    /// Marks frames as free; returns how many were not.
    pub(crate) fn release(&mut self, start: usize, count: usize) -> usize {
        let mut released = 0;
        for frame in start..start.saturating_add(count).min(self.frames) {
            if !self.is_free(frame) {
                self.words[frame / 64] |= 1 << (frame % 64);
                released += 1;
            }
        }
        self.free += released;
        released
    }

    /// Marks frames as used.
    pub(crate) fn reserve(&mut self, start: usize, count: usize) {
        for frame in start..start.saturating_add(count).min(self.frames) {
            if self.is_free(frame) {
                self.words[frame / 64] &= !(1 << (frame % 64));
                self.free -= 1;
            }
        }
    }

    /// Takes `count` frames in a row, the first a multiple of `align` (a power of two).
    pub(crate) fn take(&mut self, count: usize, align: usize) -> Option<usize> {
        if count == 0 || count > self.free {
            return None;
        }
        let found = self.search(self.next, self.frames, count, align).or_else(|| {
            self.search(0, self.next.saturating_add(count).min(self.frames), count, align)
        })?;
        self.reserve(found, count);
        self.next = found + count;
        Some(found)
    }

    /// The first fitting run in `from..to`.
    fn search(&self, from: usize, to: usize, count: usize, align: usize) -> Option<usize> {
        let mut start = from.next_multiple_of(align);
        while start + count <= to {
            if start.is_multiple_of(64) && self.words[start / 64] == 0 {
                start = (start + 64).next_multiple_of(align);
                continue;
            }
            // Behind the last used frame of a run that is too short, the next can start.
            match (start..start + count).rev().find(|frame| !self.is_free(*frame)) {
                None => return Some(start),
                Some(used) => start = (used + 1).next_multiple_of(align),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn runs_and_alignment() {
        let mut words = [0; 4];
        let mut map = FrameMap::new(&mut words, 200);
        assert_eq!(map.take(1, 1), None);
        map.release(3, 100);
        assert_eq!(map.take(10, 8), Some(8));
        assert_eq!(map.take(85, 1), Some(18));
        assert_eq!(map.take(6, 1), None, "only runs of 5 are left");
        assert_eq!(map.take(5, 1), Some(3));
        assert_eq!(map.free(), 0);
    }

    proptest! {
        #[test]
        fn frames_are_handed_out_once(
            ops in proptest::collection::vec((any::<bool>(), 0usize..9, 0u32..4), 0..200),
        ) {
            let mut words = vec![0; FrameMap::words(300)];
            let mut map = FrameMap::new(&mut words, 300);
            map.release(7, 290);
            let mut used = BTreeSet::new();
            let mut runs = vec![];
            for (take, count, align) in ops {
                if take {
                    if let Some(start) = map.take(count, 1 << align) {
                        prop_assert_eq!(start % (1 << align), 0);
                        for frame in start..start + count {
                            prop_assert!((7..297).contains(&frame) && used.insert(frame));
                        }
                        runs.push((start, count));
                    } else {
                        prop_assert!(count == 0 || map.free() < 290);
                    }
                } else if !runs.is_empty() {
                    let (start, count) = runs.swap_remove(count % runs.len());
                    prop_assert_eq!(map.release(start, count), count);
                    used.retain(|f| !(start..start + count).contains(f));
                }
                prop_assert_eq!(map.free() + used.len(), 290);
            }
        }
    }
}
