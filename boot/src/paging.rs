//! The rights of the loader's own pages.
//!
//! ```text
//! 0     .. 1 MiB        read            firmware's tables, start info
//! 1 MiB .. text_end     read, execute
//!       .. rodata_end   read
//!       guard           not mapped      below the stack
//!       .. 2 MiB        read, write     data, stack, RAM
//! 2 MiB .. 4 GiB        read, write     RAM, in pages of 2 MiB
//! ```
//!
//! `entry.s` maps all of it writable and executable, because that takes the least code without
//! paging.

use x86_64::registers::control::Cr3;

use umbra_boot::PAGE;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const NO_EXECUTE: u64 = 1 << 63;
/// Entries in a page table, and in the four page directories that map 4 GiB.
const ENTRIES: usize = 512;
const DIRECTORY_ENTRIES: usize = 4 * ENTRIES;

// The loader's pages by name: `link.ld`. Only their addresses mean anything.
unsafe extern "C" {
    static loader_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    static guard: u8;
    static loader_end: u8;
}

// The tables that `entry.s` made and fills in.
unsafe extern "C" {
    static mut page_directories: [u64; DIRECTORY_ENTRIES];
    static mut first_page_table: [u64; ENTRIES];
}

/// Where the loader begins and ends in physical memory.
pub fn loader() -> (u64, u64) {
    (address(&raw const loader_start), address(&raw const loader_end))
}

/// Gives every page of the loader's mapping the rights that it needs. Called once.
pub fn restrict() {
    let (directories, table) = (&raw mut page_directories, &raw mut first_page_table);
    // SAFETY: the two tables belong to the loader and are reached by nothing else in Rust; the CPU
    // reads them, and sees the change when CR3 is loaded below.
    let (directories, table) = unsafe { (&mut *directories, &mut *table) };

    for (page, entry) in table.iter_mut().enumerate() {
        let address = page as u64 * PAGE;
        *entry = rights(address).map_or(0, |rights| address | rights);
    }
    for entry in directories.iter_mut() {
        *entry |= NO_EXECUTE;
    }
    directories[0] = table.as_ptr() as u64 | PRESENT | WRITABLE;

    let (level_4, flags) = Cr3::read();
    // SAFETY: the same level 4 table as before; what runs now keeps its rights: text stays
    // executable, the stack and data writable, the GDT, IDT and TSS readable where the CPU reads
    // them and writable where it writes.
    unsafe { Cr3::write(level_4, flags) };
}

/// The rights of a page below 2 MiB; `None` for the guard page.
fn rights(page: u64) -> Option<u64> {
    let (start, end) = loader();
    if page == address(&raw const guard) {
        None
    } else if page < start
        || (address(&raw const text_end)..address(&raw const rodata_end)).contains(&page)
    {
        Some(PRESENT | NO_EXECUTE)
    } else if page < address(&raw const text_end) && page < end {
        Some(PRESENT)
    } else {
        Some(PRESENT | WRITABLE | NO_EXECUTE)
    }
}

fn address(symbol: *const u8) -> u64 {
    symbol as u64
}
