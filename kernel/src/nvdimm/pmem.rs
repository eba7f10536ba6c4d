//! A mapped range of persistent memory: the write path.

use super::write_back::{FENCES, FLUSHES, FlushBy, store_fence, write_back_by, write_line_back_by};
use crate::arch::{compare, copy, loads};
use crate::mm::PAGE;
use crate::mm::space::{self, MapError};
use crate::nfit::{Nfit, SpaRange};
use alloc::vec::Vec;
use umbra_fs::pmem::{LINE, Poisoned};
use x86_64::{PhysAddr, VirtAddr};

/// A mapped NVDIMM: the write path.
pub(crate) struct Nvdimm {
    phys: PhysAddr,
    /// Where it is mapped read-only, and where it can be stored to. Plain numbers: the checks of
    /// `VirtAddr` at each addition would be a good part of a fault.
    view: u64,
    alias: u64,
    len: u64,
    flush_by: FlushBy,
    /// Registers to write to after a fence (NFIT flush hints).
    hints: Vec<VirtAddr>,
}

impl Nvdimm {
    /// Maps a range that is mapped nowhere yet.
    pub(super) fn map(nfit: &Nfit, range: &SpaRange) -> Result<Nvdimm, MapError> {
        let (phys, len) = (PhysAddr::new(range.base), range.length & !(PAGE - 1));
        let (view, alias) = space::map_nvdimm(phys, len)?;
        let mut hints = Vec::new();
        for hint in nfit.hints(range) {
            // SAFETY: the NFIT says that the address is a flush hint, to be written to at will.
            hints.push(unsafe { space::map_device(PhysAddr::new(hint), 8) }?);
        }
        let flush_by = FlushBy::needed(nfit);
        Ok(Nvdimm { phys, view: view.as_u64(), alias: alias.as_u64(), len, flush_by, hints })
    }

    /// Where the NVDIMM starts in physical memory.
    pub(crate) fn phys(&self) -> PhysAddr {
        self.phys
    }

    /// What the filesystem is told when a load ended early.
    #[cold]
    #[inline(never)]
    fn poisoned(&self) -> Poisoned {
        Poisoned { at: loads::lost_at().saturating_sub(self.phys.as_u64()) & !(LINE - 1) }
    }

    /// Checks a range; panics beyond the end, which is a bug of the filesystem.
    #[inline(always)]
    fn offset(&self, at: u64, len: u64) -> u64 {
        if at > self.len || len > self.len - at {
            beyond(at);
        }
        at
    }

    #[inline(always)]
    fn from(&self, at: u64, len: u64) -> *const u8 {
        (self.view + self.offset(at, len)) as *const u8
    }

    #[inline(always)]
    fn to(&mut self, at: u64, len: u64) -> *mut u8 {
        (self.alias + self.offset(at, len)) as *mut u8
    }
}

/// Out of line, so that what is checked on the fault path is not kept for a message.
#[cold]
#[inline(never)]
fn beyond(at: u64) -> ! {
    panic!("access at {at:#x} beyond the NVDIMM's end");
}

#[cold]
#[inline(never)]
fn unaligned(at: u64) -> ! {
    panic!("unaligned word at {at:#x}");
}

impl umbra_fs::Pmem for Nvdimm {
    fn len(&self) -> u64 {
        self.len
    }

    #[inline(always)]
    fn load(&self, at: u64) -> Result<u64, Poisoned> {
        if !at.is_multiple_of(8) {
            unaligned(at);
        }
        // Through the alias: the next access mostly stores there. An emulator's TLB is
        // direct-mapped, and has a page of the view and that of the alias in the same entry, so
        // that each change between them is a miss.
        let at = self.alias + self.offset(at, 8);
        // SAFETY: `offset` checked the range, which is mapped for good; the word is aligned.
        Ok(unsafe { (at as *const u64).read_volatile() })
    }

    #[inline]
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Poisoned> {
        let from = self.from(at, into.len() as u64);
        // SAFETY: `from` checked the range; the kernel's memory and the NVDIMM do not overlap.
        unsafe { copy::read(into.as_mut_ptr(), from, into.len()) }
            .map_err(|copy::Failed| self.poisoned())
    }

    fn first_difference(&self, a: u64, b: u64, len: u64) -> Result<Option<u64>, Poisoned> {
        assert!(
            a.is_multiple_of(8) && b.is_multiple_of(8),
            "unaligned ranges at {a:#x} and {b:#x}"
        );
        let (left, right) = (self.from(a, len), self.from(b, len));
        // SAFETY: `from` checked the ranges, which are aligned; the one processor compares.
        let found = unsafe { compare::first_difference(left, right, len as usize) }
            .map_err(|copy::Failed| self.poisoned())?;
        Ok(found.map(|at| at as u64))
    }

    fn first_nonzero(&self, at: u64, len: u64) -> Result<Option<u64>, Poisoned> {
        assert!(at.is_multiple_of(8), "unaligned range at {at:#x}");
        // SAFETY: as above.
        let found = unsafe { compare::first_nonzero(self.from(at, len), len as usize) }
            .map_err(|copy::Failed| self.poisoned())?;
        Ok(found.map(|at| at as u64))
    }

    #[inline(always)]
    fn store(&mut self, at: u64, value: u64) {
        if !at.is_multiple_of(8) {
            unaligned(at);
        }
        // SAFETY: `to` checked the range, whose alias is writable; the word is aligned.
        unsafe { self.to(at, 8).cast::<u64>().write_volatile(value) };
    }

    #[inline(always)]
    fn store_in_line<const N: usize>(&mut self, line: u64, words: &[(u16, u64); N]) {
        if !line.is_multiple_of(LINE) {
            unaligned(line);
        }
        let to = self.to(line, LINE).cast::<u64>();
        for &(index, word) in words {
            // SAFETY: `to` checked the line, whose alias is writable; it has 8 aligned words.
            unsafe { to.add(usize::from(index) % 8).write_volatile(word) };
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let to = self.to(at, bytes.len() as u64);
        // SAFETY: `to` checked the range. Source and destination do not overlap: the source is the
        // kernel's memory or a lent block, and the destination is never lent.
        unsafe { copy::write(to, bytes.as_ptr(), bytes.len()) };
    }

    fn zero(&mut self, at: u64, len: u64) {
        let to = self.to(at, len);
        // SAFETY: `to` checked the range, whose alias is writable; the NVDIMM is whole pages.
        unsafe { copy::zero(to, len as usize) };
    }

    #[inline]
    fn copy(&mut self, from: u64, to: u64, len: u64) -> Result<(), Poisoned> {
        assert!(
            from + len <= to || to + len <= from || len == 0,
            "overlapping copy {from:#x} to {to:#x}"
        );
        let from = self.from(from, len);
        let to = self.to(to, len);
        // SAFETY: both ranges were checked and do not overlap.
        unsafe { copy::read(to, from, len as usize) }.map_err(|copy::Failed| self.poisoned())
    }

    #[inline]
    fn flush(&mut self, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        self.offset(at, len);
        let first = at & !(LINE - 1);
        let lines = (at + len - first).div_ceil(LINE);
        FLUSHES.add(lines);
        write_back_by(self.flush_by, self.view + first, lines);
    }

    #[inline(always)]
    fn flush_line(&mut self, at: u64) {
        FLUSHES.add(1);
        write_line_back_by(self.flush_by, self.view + self.offset(at, 1));
    }

    #[inline]
    fn fence(&mut self) {
        FENCES.add(1);
        store_fence();
        for hint in &self.hints {
            // SAFETY: a flush hint register, mapped for good; any value does. The second fence
            // orders it before what follows.
            unsafe { hint.as_mut_ptr::<u64>().write_volatile(0) };
            store_fence();
        }
    }
}
