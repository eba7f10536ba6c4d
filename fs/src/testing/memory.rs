//! Plain memory with counters.

use crate::pmem::{LINE, Pmem, Poisoned};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

/// Memory that counts what is done to it.
#[derive(Clone, Debug)]
pub struct MemPmem {
    bytes: Vec<u8>,
    /// Lines flushed.
    pub flushes: u64,
    /// Fences.
    pub fences: u64,
    /// Byte offsets of lines that cannot be read.
    pub poisoned: Vec<u64>,
    /// Reads that still succeed before one fails; `None`: none is to fail.
    pub reads_left: Cell<Option<u64>>,
}

impl MemPmem {
    /// Zeroed memory.
    pub fn new(len: u64) -> Self {
        Self::from_bytes(vec![0; len as usize])
    }

    /// Memory with this content.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        assert!(bytes.len().is_multiple_of(4096), "a region is whole blocks");
        MemPmem { bytes, flushes: 0, fences: 0, poisoned: Vec::new(), reads_left: Cell::new(None) }
    }

    /// All content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All content, to damage it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn check(&self, at: u64, len: u64) -> Result<(), Poisoned> {
        if let Some(left) = self.reads_left.get() {
            self.reads_left.set(left.checked_sub(1));
            if left == 0 {
                return Err(Poisoned { at });
            }
        }
        match self.poisoned.iter().find(|&&line| line < at + len && at < line + LINE) {
            Some(&at) => Err(Poisoned { at }),
            None => Ok(()),
        }
    }
}

impl Pmem for MemPmem {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn load(&self, at: u64) -> Result<u64, Poisoned> {
        assert!(at.is_multiple_of(8), "a word is aligned");
        self.check(at, 8)?;
        let mut raw = [0; 8];
        raw.copy_from_slice(&self.bytes[at as usize..at as usize + 8]);
        Ok(u64::from_le_bytes(raw))
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Poisoned> {
        self.check(at, into.len() as u64)?;
        into.copy_from_slice(&self.bytes[at as usize..at as usize + into.len()]);
        Ok(())
    }

    fn store(&mut self, at: u64, value: u64) {
        assert!(at.is_multiple_of(8), "a word is aligned");
        self.bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn zero(&mut self, at: u64, len: u64) {
        self.bytes[at as usize..(at + len) as usize].fill(0);
    }

    fn copy(&mut self, from: u64, to: u64, len: u64) -> Result<(), Poisoned> {
        self.check(from, len)?;
        self.bytes.copy_within(from as usize..(from + len) as usize, to as usize);
        Ok(())
    }

    fn flush(&mut self, at: u64, len: u64) {
        self.flushes += (at + len).div_ceil(LINE) - at / LINE;
    }

    fn fence(&mut self) {
        self.fences += 1;
    }
}
