//! Memory for bytes that were received and not consumed: chunks of one page, and
//! queues of bytes made of them.
//!
//! What a connection's window promises to the peer is *reserved* here, so that bytes the peer had a
//! right to send always find room; chunks are *taken* only while bytes lie in them. Every
//! connection gets [`LEAST_WINDOW`](super::LEAST_WINDOW); what is left over is for those that are
//! busy. Nothing here allocates once the pool exists.

use alloc::vec::Vec;

/// Bytes of a chunk.
pub(crate) const CHUNK: usize = 4096;

/// The memory of a chunk.
pub(crate) type Page = &'static mut [u8; CHUNK];

/// No chunk.
const NONE: u16 = u16::MAX;

/// The chunks.
pub(crate) struct Pool {
    pages: Vec<Page>,
    /// The chunk after this one, in a queue or in the free list.
    next: Vec<u16>,
    free: u16,
    reserved: usize,
}

/// Chunks that a window of `bytes` needs at worst: the first and the last may be filled
/// in part only.
pub(crate) const fn chunks_of(bytes: u32) -> usize {
    (bytes as usize).div_ceil(CHUNK) + 1
}

impl Pool {
    /// A pool of these pages (no more than 65,535 of them are used).
    pub(crate) fn new(mut pages: Vec<Page>) -> Self {
        pages.truncate(usize::from(NONE));
        let count = pages.len() as u16;
        let next = (1..=count).map(|next| if next == count { NONE } else { next }).collect();
        Self { pages, next, free: if count == 0 { NONE } else { 0 }, reserved: 0 }
    }

    /// Chunks in the pool.
    pub(crate) fn chunks(&self) -> usize {
        self.pages.len()
    }

    /// Chunks not promised to anybody.
    pub(crate) fn unreserved(&self) -> usize {
        self.pages.len() - self.reserved
    }

    /// Promises `chunks` chunks.
    pub(crate) fn reserve(&mut self, chunks: usize) -> Result<(), Exhausted> {
        if chunks > self.unreserved() {
            return Err(Exhausted);
        }
        self.reserved += chunks;
        Ok(())
    }

    /// Takes a promise back.
    pub(crate) fn release(&mut self, chunks: usize) {
        debug_assert!(chunks <= self.reserved);
        self.reserved = self.reserved.saturating_sub(chunks);
    }

    fn take(&mut self) -> Result<u16, Exhausted> {
        let chunk = self.free;
        if chunk == NONE {
            return Err(Exhausted);
        }
        self.free = self.next[usize::from(chunk)];
        self.next[usize::from(chunk)] = NONE;
        Ok(chunk)
    }

    fn give_back(&mut self, chunk: u16) {
        self.next[usize::from(chunk)] = self.free;
        self.free = chunk;
    }
}

/// The pool has not that many chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// A queue of bytes in chunks of a pool. It must be [cleared](Self::clear) before it is
/// dropped, or its chunks are lost.
#[derive(Debug)]
pub(crate) struct Queue {
    head: u16,
    tail: u16,
    /// Where the first byte lies in the first chunk.
    start: usize,
    len: usize,
}

impl Queue {
    /// An empty queue.
    pub(crate) const fn new() -> Self {
        Self { head: NONE, tail: NONE, start: 0, len: 0 }
    }

    /// Bytes in the queue.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first contiguous bytes.
    pub(crate) fn front<'p>(&self, pool: &'p Pool) -> &'p [u8] {
        if self.len == 0 {
            return &[];
        }
        let end = CHUNK.min(self.start + self.len);
        &pool.pages[usize::from(self.head)][self.start..end]
    }

    /// Appends bytes; on failure those that found no room are dropped.
    pub(crate) fn push(&mut self, pool: &mut Pool, mut bytes: &[u8]) -> Result<(), Exhausted> {
        while !bytes.is_empty() {
            let end = (self.start + self.len) % CHUNK;
            if self.len == 0 || end == 0 {
                let chunk = pool.take()?;
                if self.len == 0 {
                    self.head = chunk;
                    self.start = 0;
                } else {
                    pool.next[usize::from(self.tail)] = chunk;
                }
                self.tail = chunk;
            }
            let end = (self.start + self.len) % CHUNK;
            let n = bytes.len().min(CHUNK - end);
            pool.pages[usize::from(self.tail)][end..end + n].copy_from_slice(&bytes[..n]);
            self.len += n;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Drops the first `n` bytes, at most all; returns how many.
    pub(crate) fn drop_front(&mut self, pool: &mut Pool, n: usize) -> usize {
        let n = n.min(self.len);
        let mut left = n;
        while left > 0 {
            let piece = left.min(CHUNK - self.start);
            self.start += piece;
            self.len -= piece;
            left -= piece;
            if self.start == CHUNK || self.len == 0 {
                let next = pool.next[usize::from(self.head)];
                pool.give_back(self.head);
                self.head = next;
                self.start = 0;
            }
        }
        n
    }

    /// Drops all bytes.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.drop_front(pool, self.len);
    }
}

#[cfg(test)]
pub(super) fn test_pool(chunks: usize) -> Pool {
    Pool::new(
        (0..chunks)
            .map(|_| &mut *alloc::boxed::Box::leak(alloc::boxed::Box::new([0; CHUNK])))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use proptest::prelude::*;

    fn free_chunks(pool: &Pool) -> usize {
        let mut count = 0;
        let mut chunk = pool.free;
        while chunk != NONE {
            count += 1;
            chunk = pool.next[usize::from(chunk)];
        }
        count
    }

    #[test]
    fn an_empty_pool_has_nothing_to_give() {
        let mut pool = Pool::new(Vec::new());
        assert_eq!(pool.reserve(1), Err(Exhausted));
        assert_eq!(Queue::new().push(&mut pool, b"x"), Err(Exhausted));
    }

    #[test]
    fn reservations_are_bounded() {
        let mut pool = test_pool(5);
        pool.reserve(3).unwrap();
        assert_eq!(pool.reserve(3), Err(Exhausted));
        pool.release(1);
        pool.reserve(3).unwrap();
        assert_eq!(pool.unreserved(), 0);
    }

    proptest! {
        /// Three queues over one pool, against plain queues of bytes.
        #[test]
        fn queues_keep_their_bytes_and_the_pool_its_chunks(
            steps in prop::collection::vec((0..3usize, any::<bool>(), 0..10_000usize), 1..80),
        ) {
            let mut pool = test_pool(40);
            let mut queues = [Queue::new(), Queue::new(), Queue::new()];
            let mut models = [VecDeque::new(), VecDeque::new(), VecDeque::new()];
            let mut counter = 0u8;
            for (i, push, n) in steps {
                if push && models[i].len() + n <= 40_000 {
                    let first = counter.wrapping_add(1);
                    let bytes: Vec<u8> = (0..n).map(|i| first.wrapping_add(i as u8)).collect();
                    counter = counter.wrapping_add(n as u8);
                    queues[i].push(&mut pool, &bytes).unwrap();
                    models[i].extend(bytes);
                } else {
                    let n = queues[i].drop_front(&mut pool, n);
                    models[i].drain(..n);
                }
                let mut taken = 0;
                for (queue, model) in queues.iter().zip(&models) {
                    prop_assert_eq!(queue.len(), model.len());
                    let front = queue.front(&pool);
                    prop_assert_eq!(front.is_empty(), model.is_empty());
                    prop_assert!(front.iter().eq(model.iter().take(front.len())));
                    if !model.is_empty() {
                        taken += (queue.start + queue.len()).div_ceil(CHUNK);
                    }
                    prop_assert!(taken <= 40);
                }
                prop_assert_eq!(free_chunks(&pool), 40 - taken);
            }
            for queue in &mut queues {
                queue.clear(&mut pool);
            }
            prop_assert_eq!(free_chunks(&pool), 40);
        }
    }
}
