//! The kernel's own segments, by the ELF headers at the start of its image.
//!
//! The headers are the linker's word for which pages are code, constants and data; the
//! page tables follow them, whatever the loader did.

use super::PAGE;
use core::ops::Range;
use spin::Once;
use x86_64::VirtAddr;

/// Rights of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Code.
    Execute,
    /// Constants, and what the linker says is constant after relocation.
    Read,
    /// Data.
    Write,
}

/// A range of pages of the image with the same rights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// First byte, page-aligned.
    pub(crate) start: u64,
    /// Byte behind the last, page-aligned.
    pub(crate) end: u64,
    /// Rights of its pages.
    pub(crate) rights: Rights,
}

const MAX_SEGMENTS: usize = 8;
const PT_LOAD: u32 = 1;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const PF_X: u32 = 1;
const PF_W: u32 = 2;

unsafe extern "C" {
    /// The ELF header; defined by the linker.
    static __ehdr_start: u8;
}

/// The parts of a program header that are used (ELF-64, "Program Header").
#[repr(C)]
#[derive(Clone, Copy)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    _offset: u64,
    start: u64,
    _physical: u64,
    _file_size: u64,
    size: u64,
    _align: u64,
}

struct Segments {
    list: [Option<Segment>; MAX_SEGMENTS],
}

static SEGMENTS: Once<Segments> = Once::new();

/// The segments, in the order of their addresses as the linker lays them out.
pub(crate) fn segments() -> impl Iterator<Item = Segment> {
    SEGMENTS.call_once(read).list.iter().flatten().copied()
}

fn read() -> Segments {
    let header = &raw const __ehdr_start;
    // SAFETY: the linker puts the image's own ELF header there, within its first segment, and
    // the program headers where its fields at bytes 32 (offset) and 56 (count) say.
    let headers = unsafe {
        let offset = header.add(32).cast::<u64>().read_unaligned() as usize;
        let count = header.add(56).cast::<u16>().read_unaligned();
        core::slice::from_raw_parts(header.add(offset).cast::<ProgramHeader>(), count.into())
    };
    let constant = headers.iter().find(|h| h.kind == PT_GNU_RELRO);
    let mut list = [None; MAX_SEGMENTS];
    let loads = headers.iter().filter(|h| h.kind == PT_LOAD && h.size > 0);
    for (slot, load) in list.iter_mut().zip(loads) {
        let relro = constant
            .is_some_and(|c| c.start <= load.start && load.start + load.size <= c.start + c.size);
        let rights = match load.flags {
            flags if flags & PF_X != 0 => Rights::Execute,
            flags if flags & PF_W != 0 && !relro => Rights::Write,
            _ => Rights::Read,
        };
        let (start, end) =
            (load.start & !(PAGE - 1), super::round_up(load.start + load.size, PAGE));
        *slot = Some(Segment { start, end, rights });
    }
    Segments { list }
}

/// The addresses of the image, data included.
pub(crate) fn range() -> Range<u64> {
    let start = segments().map(|s| s.start).min().unwrap_or(0);
    start..segments().map(|s| s.end).max().unwrap_or(0)
}

/// Whose segment an address is in.
pub(crate) fn rights_at(address: VirtAddr) -> Option<Rights> {
    segments().find(|s| (s.start..s.end).contains(&address.as_u64())).map(|s| s.rights)
}
