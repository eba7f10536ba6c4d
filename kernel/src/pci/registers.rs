//! A checked block of device registers.

use core::ptr::NonNull;

/// Registers of a device, at their place in the address space.
#[derive(Debug)]
pub(crate) struct Registers {
    base: NonNull<u8>,
    len: usize,
}

/// A width in which registers are accessed.
pub(crate) trait Width: Copy {}
impl Width for u16 {}
impl Width for u32 {}

// SAFETY: registers are at the same place for all processors.
unsafe impl Send for Registers {}

impl Registers {
    /// The `len` bytes of registers at `base`.
    ///
    /// # Safety
    ///
    /// They are mapped, uncached and for good; accessing any of them harms no memory that
    /// the device was not given.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    fn at<T: Width>(&self, offset: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(
            offset.is_multiple_of(size)
                && offset.checked_add(size).is_some_and(|end| end <= self.len),
            "no register at {offset:#x}"
        );
        self.base.as_ptr().wrapping_add(offset).cast()
    }

    /// Reads a register.
    pub(crate) fn read<T: Width>(&self, offset: usize) -> T {
        // SAFETY: within the block and aligned, which was checked; the rest was promised to `new`.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    /// Writes a register.
    pub(crate) fn write<T: Width>(&mut self, offset: usize, value: T) {
        // SAFETY: as for reading.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }
}
