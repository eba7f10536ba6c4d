//! The two ends of a connection, as rings of bytes.

use crate::stream::Stream;
use alloc::vec;
use alloc::vec::Vec;
use umbra_fs::{BLOCK_SIZE, Block};

/// A ring of bytes, as the network layer has them: pieces end where the ring does.
pub struct Ring {
    bytes: Vec<u8>,
    head: usize,
    len: usize,
}

impl Ring {
    /// An empty ring of this size.
    pub fn new(size: usize) -> Self {
        Ring { bytes: vec![0xee; size], head: 0, len: 0 }
    }
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The first contiguous piece of them.
    pub fn filled(&self) -> &[u8] {
        let end = (self.head + self.len).min(self.bytes.len());
        &self.bytes[self.head..end]
    }
    /// The first contiguous piece of free space.
    pub fn free(&mut self) -> &mut [u8] {
        let size = self.bytes.len();
        let tail = self.head + self.len;
        if tail < size { &mut self.bytes[tail..] } else { &mut self.bytes[tail - size..self.head] }
    }
    /// Takes the first bytes of the free space as filled.
    pub fn commit(&mut self, n: usize) {
        assert!(n <= self.free().len());
        self.len += n;
    }
    /// Drops bytes from the front.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len);
        self.head = (self.head + n) % self.bytes.len();
        self.len -= n;
    }
    /// Appends what fits; returns how many.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let free = self.free();
            let n = free.len().min(bytes.len() - done);
            if n == 0 {
                break;
            }
            free[..n].copy_from_slice(&bytes[done..done + n]);
            self.commit(n);
            done += n;
        }
        done
    }
    /// Takes at most `most` bytes out.
    pub fn pull(&mut self, most: usize, into: &mut Vec<u8>) {
        let mut most = most;
        while most > 0 && self.len > 0 {
            let n = self.filled().len().min(most);
            into.extend_from_slice(&self.filled()[..n]);
            self.consume(n);
            most -= n;
        }
    }
}

/// The server's end of a connection.
pub struct Wire {
    /// What the client sent.
    pub to_server: Ring,
    /// What the client has not yet taken.
    pub to_client: Ring,
    /// The client sends no more.
    pub finished: bool,
    /// The client is gone.
    pub reset: bool,
    /// The server closed.
    pub closing: bool,
    /// The block from whose start on all lies that the client has sent and the server had not
    /// consumed when this was set, if it came into blocks; and how much of that was consumed.
    pub blocks: Option<(Block, usize)>,
}

impl Wire {
    /// A connection with a receive window and a ring for sending of these sizes.
    pub fn new(window: usize, ring: usize) -> Self {
        Wire {
            to_server: Ring::new(window),
            to_client: Ring::new(ring),
            finished: false,
            reset: false,
            closing: false,
            blocks: None,
        }
    }
}

impl Stream for Wire {
    fn received(&self) -> &[u8] {
        if self.closing { &[] } else { self.to_server.filled() }
    }
    fn available(&self) -> usize {
        if self.closing { 0 } else { self.to_server.len() }
    }
    fn consume(&mut self, n: usize) {
        let n = n.min(self.available());
        self.to_server.consume(n);
        if let Some((_, consumed)) = &mut self.blocks {
            *consumed += n;
        }
    }
    fn received_in(&mut self) -> Option<Block> {
        let (Block(first), consumed) = self.blocks.filter(|_| !self.to_server.is_empty())?;
        let (block, within) = (consumed as u64 / BLOCK_SIZE, consumed as u64 % BLOCK_SIZE);
        (within == 0).then_some(Block(first + block))
    }
    fn buffer(&mut self) -> &mut [u8] {
        if self.closing || self.reset { &mut [] } else { self.to_client.free() }
    }
    fn commit(&mut self, n: usize) {
        self.to_client.commit(n);
    }
    fn finished(&self) -> bool {
        self.finished
    }
    fn is_closed(&self) -> bool {
        self.reset || (self.closing && self.to_client.is_empty())
    }
    fn close(&mut self) {
        self.closing = true;
    }
}
