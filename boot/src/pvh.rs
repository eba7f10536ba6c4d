//! The start info that PVH hands over: which memory there is, where ACPI begins, where the kernel
//! lies.
//!
//! The structures are those of Xen's `arch-x86/hvm/start_info.h`, version 1, little-endian:
//!
//! ```text
//! hvm_start_info          modlist entry          memmap entry
//!  0 u32 magic             0 u64 address          0 u64 address
//!  4 u32 version           8 u64 length           8 u64 length
//!  8 u32 flags            16 u64 command line    16 u32 type (as in E820)
//! 12 u32 modules          24 u64 reserved        20 u32 reserved
//! 16 u64 modlist
//! 24 u64 command line
//! 32 u64 RSDP
//! 40 u64 memmap      (version 1)
//! 48 u32 memmap entries
//! ```
//!
//! Command lines are not used. The firmware (qboot) or QEMU's option ROM (with SeaBIOS) fills the
//! structures in.

use core::fmt;

use crate::{PAGE, u32_at, u64_at};

const MAGIC: u32 = 0x336e_c578;
const START_INFO: u64 = 56;
const MODULE: u64 = 32;
const MEMMAP_ENTRY: u64 = 24;
/// More than any firmware makes; what the loader's tables have room for.
pub const MAX_MEMMAP: usize = 64;

/// E820's number for RAM.
pub const E820_RAM: u32 = 1;

/// Physical memory as the loader can see it.
pub trait PhysicalMemory {
    /// `length` bytes at a physical address, or `None` if that is not all within reach.
    fn bytes(&self, address: u64, length: u64) -> Option<&[u8]>;
}

/// A range of the firmware's memory map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Physical address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// E820 type; [`E820_RAM`] is memory to use.
    pub kind: u32,
}

/// Start info that has been checked.
#[derive(Debug)]
pub struct StartInfo {
    /// Physical address of the first module, which is the kernel's ELF file. Page-aligned.
    pub kernel_start: u64,
    /// Its length in bytes, not 0.
    pub kernel_length: u64,
    /// Physical address of ACPI's root pointer, if the firmware has one.
    pub rsdp: Option<u64>,
    memmap: [Entry; MAX_MEMMAP],
    memmap_entries: usize,
}

/// What can be wrong with start info.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A structure lies where the loader cannot read it.
    OutOfReach(&'static str, u64),
    /// The magic number is another one.
    Magic(u32),
    /// A version that has no memory map.
    Version(u32),
    /// No module: QEMU was started without `-initrd`.
    NoModule,
    /// The module does not start at a page.
    Unaligned(u64),
    /// A memory map without entries, or with more than [`MAX_MEMMAP`].
    Memmap(u32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfReach(what, address) => {
                write!(f, "PVH start info: the {what} at {address:#x} is out of reach")
            }
            Self::Magic(magic) => {
                write!(f, "PVH start info: magic number {magic:#x} instead of {MAGIC:#x}")
            }
            Self::Version(version) => {
                write!(
                    f,
                    "PVH start info: version {version} has no memory map; this needs 1 or later"
                )
            }
            Self::NoModule => write!(f, "no kernel: start QEMU with -initrd KERNEL.ELF"),
            Self::Unaligned(address) => {
                write!(f, "the kernel's file lies at {address:#x}, not at a page")
            }
            Self::Memmap(entries) => {
                write!(
                    f,
                    "PVH start info: a memory map of {entries} entries; \
                     1 to {MAX_MEMMAP} can be used"
                )
            }
        }
    }
}

impl StartInfo {
    /// Reads and checks the start info at a physical address.
    pub fn read(memory: &impl PhysicalMemory, address: u64) -> Result<Self, Error> {
        let out = |what, address| Error::OutOfReach(what, address);
        let info = memory.bytes(address, START_INFO).ok_or(out("structure", address))?;
        let word = |offset| u32_at(info, offset).ok_or(out("structure", address));
        let long = |offset| u64_at(info, offset).ok_or(out("structure", address));

        let magic = word(0)?;
        if magic != MAGIC {
            return Err(Error::Magic(magic));
        }
        let version = word(4)?;
        if version < 1 {
            return Err(Error::Version(version));
        }

        if word(12)? == 0 {
            return Err(Error::NoModule);
        }
        let at = long(16)?;
        let module = memory.bytes(at, MODULE).ok_or(out("module list", at))?;
        let kernel_start = u64_at(module, 0).ok_or(out("module list", at))?;
        let kernel_length = u64_at(module, 8).ok_or(out("module list", at))?;
        if kernel_length == 0 {
            return Err(Error::NoModule);
        }
        if !kernel_start.is_multiple_of(PAGE) {
            return Err(Error::Unaligned(kernel_start));
        }
        memory.bytes(kernel_start, kernel_length).ok_or(out("kernel's file", kernel_start))?;

        let entries = word(48)?;
        if entries == 0 || entries as usize > MAX_MEMMAP {
            return Err(Error::Memmap(entries));
        }
        let at = long(40)?;
        let bytes =
            memory.bytes(at, u64::from(entries) * MEMMAP_ENTRY).ok_or(out("memory map", at))?;
        let mut memmap = [Entry::default(); MAX_MEMMAP];
        for (entry, raw) in memmap.iter_mut().zip(bytes.chunks_exact(MEMMAP_ENTRY as usize)) {
            *entry = Entry {
                start: u64_at(raw, 0).ok_or(out("memory map", at))?,
                length: u64_at(raw, 8).ok_or(out("memory map", at))?,
                kind: u32_at(raw, 16).ok_or(out("memory map", at))?,
            };
        }

        let rsdp = Some(long(32)?).filter(|&address| address != 0);
        Ok(Self { kernel_start, kernel_length, rsdp, memmap, memmap_entries: entries as usize })
    }

    /// The memory map, in the firmware's order and with its overlaps.
    pub fn memmap(&self) -> &[Entry] {
        &self.memmap[..self.memmap_entries]
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::{vec, vec::Vec};

    use super::*;

    struct Fake(Vec<u8>);

    impl PhysicalMemory for Fake {
        fn bytes(&self, address: u64, length: u64) -> Option<&[u8]> {
            let end = address.checked_add(length)?;
            self.0.get(usize::try_from(address).ok()?..usize::try_from(end).ok()?)
        }
    }

    fn put(bytes: &mut [u8], offset: usize, value: u64, size: usize) {
        bytes[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    /// Start info at 0x100, a module list at 0x200, a memory map of two at 0x300, a kernel at
    /// 0x1000.
    fn good() -> Fake {
        let mut bytes = vec![0; 0x3000];
        put(&mut bytes, 0x100, u64::from(MAGIC), 4);
        put(&mut bytes, 0x104, 1, 4);
        put(&mut bytes, 0x10c, 1, 4);
        put(&mut bytes, 0x110, 0x200, 8);
        put(&mut bytes, 0x120, 0xf5a40, 8);
        put(&mut bytes, 0x128, 0x300, 8);
        put(&mut bytes, 0x130, 2, 4);
        put(&mut bytes, 0x200, 0x1000, 8);
        put(&mut bytes, 0x208, 0x1234, 8);
        put(&mut bytes, 0x300, 0x10_0000, 8);
        put(&mut bytes, 0x308, 0x3f0_0000, 8);
        put(&mut bytes, 0x310, 1, 4);
        put(&mut bytes, 0x318, 0xb000_0000, 8);
        put(&mut bytes, 0x320, 0x1000_0000, 8);
        put(&mut bytes, 0x328, 2, 4);
        Fake(bytes)
    }

    fn error_after(offset: usize, value: u64, size: usize) -> Error {
        let mut memory = good();
        put(&mut memory.0, offset, value, size);
        StartInfo::read(&memory, 0x100).unwrap_err()
    }

    #[test]
    fn reads_what_firmware_wrote() {
        let info = StartInfo::read(&good(), 0x100).unwrap();
        assert_eq!((info.kernel_start, info.kernel_length), (0x1000, 0x1234));
        assert_eq!(info.rsdp, Some(0xf5a40));
        assert_eq!(
            info.memmap(),
            [
                Entry { start: 0x10_0000, length: 0x3f0_0000, kind: E820_RAM },
                Entry { start: 0xb000_0000, length: 0x1000_0000, kind: 2 },
            ]
        );
    }

    #[test]
    fn refuses_what_it_cannot_trust() {
        assert_eq!(error_after(0x100, 0x1bad_b002, 4), Error::Magic(0x1bad_b002));
        assert_eq!(error_after(0x104, 0, 4), Error::Version(0));
        assert_eq!(error_after(0x10c, 0, 4), Error::NoModule);
        assert_eq!(error_after(0x208, 0, 8), Error::NoModule);
        assert_eq!(error_after(0x200, 0x1001, 8), Error::Unaligned(0x1001));
        assert_eq!(error_after(0x208, u64::MAX, 8), Error::OutOfReach("kernel's file", 0x1000));
        assert_eq!(
            error_after(0x110, u64::MAX - 3, 8),
            Error::OutOfReach("module list", u64::MAX - 3)
        );
        assert_eq!(error_after(0x128, 0x2ff0, 8), Error::OutOfReach("memory map", 0x2ff0));
        assert_eq!(error_after(0x130, 0, 4), Error::Memmap(0));
        assert_eq!(error_after(0x130, 65, 4), Error::Memmap(65));
        assert_eq!(
            StartInfo::read(&good(), 0x2ff0).unwrap_err(),
            Error::OutOfReach("structure", 0x2ff0)
        );
    }

    #[test]
    fn a_missing_rsdp_is_no_error() {
        let mut memory = good();
        put(&mut memory.0, 0x120, 0, 8);
        assert_eq!(StartInfo::read(&memory, 0x100).unwrap().rsdp, None);
    }
}
