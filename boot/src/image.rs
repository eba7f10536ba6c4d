//! Whether the kernel's ELF file can be loaded, and what that takes.
//!
//! The segments are mapped where they lie in the file: nothing is copied but pages with relocations
//! and the page where `.bss` begins. So a page of the file that two segments share gets the rights
//! of both, and a kernel that is to be writable or executable, never both, must be linked with `-z
//! separate-loadable-segments`. Both are checked here; the crate that does the mapping assumes
//! them, and panics on a table that does not fit into the file.
//!
//! Follows the System V ABI, "Object Files" and "Program Loading", for 64-bit little-endian files.

use core::fmt;

use crate::{PAGE, u16_at, u32_at, u64_at};

const MAGIC: u32 = 0x464c_457f;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const X86_64: u16 = 62;
const EXECUTABLE: u16 = 2;
const SHARED_OBJECT: u16 = 3;
const PROGRAM_HEADER: u16 = 56;
const SECTION_HEADER: u16 = 64;
const LOAD: u32 = 1;
const NO_BITS: u32 = 8;
const CAN_EXECUTE: u32 = 1;
const CAN_WRITE: u32 = 2;
/// An image can have this many loadable segments; linkers make four or five.
const MAX_SEGMENTS: usize = 16;
/// No kernel needs this much, and with less no sum of sizes overflows.
const MAX_SIZE: u64 = 1 << 40;

/// What is wrong with a kernel's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It does not begin like an ELF file.
    NotElf,
    /// It is one of another kind of machine, or an object file.
    NotX86Executable,
    /// A table or a segment lies beyond the end of the file.
    Truncated(&'static str),
    /// Sizes that contradict each other, or too many segments.
    Malformed(&'static str),
    /// A segment is both writable and executable.
    WritableAndExecutable(u64),
    /// Two segments with different rights share a page of the file.
    SharedPage(u64),
    /// Made without `bootloader_api::entry_point!`.
    NoConfig,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel's file ")?;
        match self {
            Self::NotElf => write!(f, "is not an ELF file"),
            Self::NotX86Executable => write!(f, "is not a 64-bit x86 executable"),
            Self::Truncated(what) => write!(f, "ends before its {what} does"),
            Self::Malformed(what) => write!(f, "is malformed: {what}"),
            Self::WritableAndExecutable(address) => {
                write!(f, "has a segment that is writable and executable, at {address:#x}")
            }
            Self::SharedPage(offset) => write!(
                f,
                "has segments that share the page at offset {offset:#x}; \
                 link it with -z separate-loadable-segments"
            ),
            Self::NoConfig => {
                write!(
                    f,
                    "has no section .bootloader-config: \
                     its entry point must be made by bootloader_api"
                )
            }
        }
    }
}

/// A loadable segment.
#[derive(Clone, Copy, Default)]
struct Segment {
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

/// Checks a kernel's file and returns how many pages of memory loading it may take, page tables
/// included.
pub fn check(file: &[u8]) -> Result<u64, Error> {
    if u32_at(file, 0) != Some(MAGIC) {
        return Err(Error::NotElf);
    }
    let header = Error::Truncated("header");
    let kind = u16_at(file, 16).ok_or(header)?;
    let machine = u16_at(file, 18).ok_or(header)?;
    if file.get(4..6) != Some(&[CLASS_64, LITTLE_ENDIAN])
        || machine != X86_64
        || (kind != EXECUTABLE && kind != SHARED_OBJECT)
    {
        return Err(Error::NotX86Executable);
    }
    sections(file)?;
    segments(file)
}

/// Every section lies within the file, and one of them is the configuration.
fn sections(file: &[u8]) -> Result<(), Error> {
    let header = Error::Truncated("header");
    let table = u64_at(file, 40).ok_or(header)?;
    let size = u16_at(file, 58).ok_or(header)?;
    let count = u16_at(file, 60).ok_or(header)?;
    let names_index = u16_at(file, 62).ok_or(header)?;
    if count == 0 {
        return Err(Error::NoConfig);
    }
    if size != SECTION_HEADER || names_index >= count {
        return Err(Error::Malformed("section header sizes"));
    }
    let table = slice(file, table, u64::from(count) * u64::from(size))
        .ok_or(Error::Truncated("section headers"))?;
    let mut headers = table.chunks_exact(usize::from(SECTION_HEADER));

    let data = |header: &[u8]| {
        let kind = u32_at(header, 4)?;
        if kind == NO_BITS {
            Some(&[][..])
        } else {
            slice(file, u64_at(header, 24)?, u64_at(header, 32)?)
        }
    };
    let section = Error::Truncated("sections");
    let names = headers.clone().nth(usize::from(names_index)).and_then(data).ok_or(section)?;
    let mut found = false;
    headers.try_for_each(|header| {
        data(header).ok_or(section)?;
        let name = u32_at(header, 0).ok_or(section)? as usize;
        let name =
            names.get(name..).and_then(|rest| rest.split_inclusive(|&byte| byte == 0).next());
        let name =
            name.filter(|name| name.ends_with(&[0])).ok_or(Error::Malformed("section names"))?;
        found |= name == b".bootloader-config\0";
        Ok(())
    })?;
    if found { Ok(()) } else { Err(Error::NoConfig) }
}

/// Every loadable segment lies within the file and keeps to its pages; returns the pages that
/// loading takes.
fn segments(file: &[u8]) -> Result<u64, Error> {
    let header = Error::Truncated("header");
    let table = u64_at(file, 32).ok_or(header)?;
    let size = u16_at(file, 54).ok_or(header)?;
    let count = u16_at(file, 56).ok_or(header)?;
    if size != PROGRAM_HEADER {
        return Err(Error::Malformed("program header size"));
    }
    let table = slice(file, table, u64::from(count) * u64::from(size))
        .ok_or(Error::Truncated("program headers"))?;

    let mut seen = [Segment::default(); MAX_SEGMENTS];
    let mut used = 0;
    let mut need = 0;
    for header in table.chunks_exact(usize::from(PROGRAM_HEADER)) {
        let long = |offset| u64_at(header, offset).ok_or(Error::Truncated("program headers"));
        let flags = u32_at(header, 4).ok_or(Error::Truncated("program headers"))?;
        let segment = Segment {
            flags,
            offset: long(8)?,
            address: long(16)?,
            file_size: long(32)?,
            memory_size: long(40)?,
        };
        slice(file, segment.offset, segment.file_size).ok_or(Error::Truncated("segments"))?;
        if u32_at(header, 0) != Some(LOAD) || segment.memory_size == 0 {
            continue;
        }
        check_segment(&segment)?;
        let earlier = &seen[..used];
        if let Some(other) =
            earlier.iter().find(|other| other.flags != flags && share_a_page(other, &segment))
        {
            return Err(Error::SharedPage(other.offset.max(segment.offset) & !(PAGE - 1)));
        }
        *seen.get_mut(used).ok_or(Error::Malformed("too many segments"))? = segment;
        used += 1;
        // At worst each of its pages is copied or zeroed, and it straddles two tables at each
        // level.
        let pages = segment.memory_size.div_ceil(PAGE) + 1;
        need += pages + pages.div_ceil(512) + 6;
    }
    if used == 0 { Err(Error::Malformed("nothing to load")) } else { Ok(need) }
}

fn check_segment(segment: &Segment) -> Result<(), Error> {
    if segment.flags & CAN_WRITE != 0 && segment.flags & CAN_EXECUTE != 0 {
        return Err(Error::WritableAndExecutable(segment.address));
    }
    if segment.file_size > segment.memory_size || segment.memory_size > MAX_SIZE {
        return Err(Error::Malformed("segment sizes"));
    }
    if segment.offset % PAGE != segment.address % PAGE {
        return Err(Error::Malformed("segment alignment"));
    }
    // Canonical as a whole: no part of it in the hole between the two halves of the address space.
    let last = segment
        .address
        .checked_add(segment.memory_size - 1)
        .ok_or(Error::Malformed("segment addresses"))?;
    let half = |address: u64| (address as i64) >> 47;
    if half(segment.address) != half(last) || !matches!(half(last), 0 | -1) {
        return Err(Error::Malformed("segment addresses"));
    }
    Ok(())
}

fn share_a_page(one: &Segment, other: &Segment) -> bool {
    let pages = |s: &Segment| (s.offset / PAGE, (s.offset + s.file_size).div_ceil(PAGE));
    let ((start, end), (other_start, other_end)) = (pages(one), pages(other));
    one.file_size != 0 && other.file_size != 0 && start < other_end && other_start < end
}

fn slice(file: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let end = offset.checked_add(length)?;
    file.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::{vec, vec::Vec};

    use super::*;

    fn put(file: &mut [u8], offset: usize, value: u64, size: usize) {
        file[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    const TEXT: usize = 64;
    const DATA: usize = 64 + 56;
    const SECTIONS: usize = 0x2800;

    fn put_segment(
        file: &mut [u8],
        at: usize,
        flags: u64,
        offset: u64,
        file_size: u64,
        memory_size: u64,
    ) {
        put(file, at, 1, 4);
        put(file, at + 4, flags, 4);
        put(file, at + 8, offset, 8);
        put(file, at + 16, 0xffff_ffff_8000_0000 + offset, 8);
        put(file, at + 32, file_size, 8);
        put(file, at + 40, memory_size, 8);
    }

    /// Text in the page at 0x1000, data at 0x2000 with three pages of .bss, sections and names at
    /// 0x2800.
    fn good() -> Vec<u8> {
        let mut file = vec![0; 0x2a00];
        put(&mut file, 0, u64::from(MAGIC), 4);
        put(&mut file, 4, 0x0101_0102, 4);
        file[5] = LITTLE_ENDIAN;
        put(&mut file, 16, 2, 2);
        put(&mut file, 18, 62, 2);
        put(&mut file, 32, 64, 8);
        put(&mut file, 40, SECTIONS as u64, 8);
        put(&mut file, 54, 56, 2);
        put(&mut file, 56, 2, 2);
        put(&mut file, 58, 64, 2);
        put(&mut file, 60, 2, 2);
        put(&mut file, 62, 1, 2);
        put_segment(&mut file, TEXT, 5, 0x1000, 0x800, 0x800);
        put_segment(&mut file, DATA, 6, 0x2000, 0x100, 0x3100);
        // Section 0 is the configuration, section 1 the names.
        put(&mut file, SECTIONS, 0, 4);
        put(&mut file, SECTIONS + 64, 19, 4);
        put(&mut file, SECTIONS + 64 + 24, 0x2900, 8);
        put(&mut file, SECTIONS + 64 + 32, 20, 8);
        file[0x2900..0x2914].copy_from_slice(b".bootloader-config\0\0");
        file
    }

    fn error_after(change: impl FnOnce(&mut Vec<u8>)) -> Error {
        let mut file = good();
        change(&mut file);
        check(&file).unwrap_err()
    }

    #[test]
    fn accepts_a_kernel_and_counts_its_pages() {
        // Text: 2 pages, 1 table, 6 spare. Data: 5 pages, 1 table, 6 spare.
        assert_eq!(check(&good()), Ok(21));
    }

    #[test]
    fn refuses_what_is_no_kernel() {
        assert_eq!(check(b""), Err(Error::NotElf));
        assert_eq!(check(b"#!/bin/sh\n"), Err(Error::NotElf));
        assert_eq!(check(b"\x7fELF"), Err(Error::Truncated("header")));
        assert_eq!(error_after(|f| f[4] = 1), Error::NotX86Executable);
        assert_eq!(error_after(|f| put(f, 18, 183, 2)), Error::NotX86Executable);
        assert_eq!(error_after(|f| put(f, 16, 1, 2)), Error::NotX86Executable);
        assert_eq!(error_after(|f| f[0x2901] = b'x'), Error::NoConfig);
        assert_eq!(error_after(|f| put(f, 60, 0, 2)), Error::NoConfig);
        assert_eq!(error_after(|f| put(f, 56, 0, 2)), Error::Malformed("nothing to load"));
    }

    #[test]
    fn refuses_tables_that_do_not_fit() {
        assert_eq!(error_after(|f| f.truncate(0x2820)), Error::Truncated("section headers"));
        assert_eq!(error_after(|f| put(f, 40, u64::MAX, 8)), Error::Truncated("section headers"));
        assert_eq!(error_after(|f| put(f, 62, 2, 2)), Error::Malformed("section header sizes"));
        assert_eq!(error_after(|f| put(f, SECTIONS, 99, 4)), Error::Malformed("section names"));
        assert_eq!(
            error_after(|f| put(f, SECTIONS + 32, 1 << 40, 8)),
            Error::Truncated("sections")
        );
        assert_eq!(
            error_after(|f| put(f, 32, u64::MAX - 8, 8)),
            Error::Truncated("program headers")
        );
        assert_eq!(error_after(|f| put(f, DATA + 32, 0x3000, 8)), Error::Truncated("segments"));
    }

    #[test]
    fn refuses_segments_that_contradict_themselves() {
        assert_eq!(error_after(|f| put(f, DATA + 40, 0xff, 8)), Error::Malformed("segment sizes"));
        assert_eq!(
            error_after(|f| put(f, DATA + 40, 1 << 50, 8)),
            Error::Malformed("segment sizes")
        );
        assert_eq!(
            error_after(|f| put(f, DATA + 16, 0x8, 8)),
            Error::Malformed("segment alignment")
        );
        assert_eq!(
            error_after(|f| put(f, DATA + 16, 1 << 50, 8)),
            Error::Malformed("segment addresses")
        );
        assert_eq!(
            error_after(|f| put(f, DATA + 16, 0u64.wrapping_sub(0x1000), 8)),
            Error::Malformed("segment addresses")
        );
    }

    #[test]
    fn keeps_writable_and_executable_apart() {
        assert_eq!(
            error_after(|f| put(f, DATA + 4, 7, 4)),
            Error::WritableAndExecutable(0xffff_ffff_8000_2000)
        );
        let grown = |file: &mut Vec<u8>| {
            put(file, TEXT + 32, 0x1001, 8);
            put(file, TEXT + 40, 0x1001, 8);
        };
        assert_eq!(error_after(grown), Error::SharedPage(0x2000));
    }

    #[test]
    fn every_cut_off_file_is_an_error() {
        let file = good();
        for length in 0..0x2914 {
            assert!(check(&file[..length]).is_err(), "{length:#x}");
        }
    }
}
