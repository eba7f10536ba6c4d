//! Persistent memory: finding it in the NFIT, mapping it, and making stores durable.
//!
//! The NVDIMM is mapped read-only; [`Nvdimm`], the write path, stores through an alias of its own,
//! and loads words there; what is read in bulk is read through the read-only view. A store is
//! durable once its line was written back and a fence followed; where the platform promises to
//! write the CPU's caches back when power fails, lines need no writing back, but are counted all
//! the same.
//!
//! The first range that can be used is for the volume. Others that hold none are served as they are
//! ([`regions`]): nothing of them is ever part of a volume that is mounted.
//!
//! Left out: labels, more than one volume.
//!
//! | file | what it holds |
//! |---|---|
//! | `find.rs` | which ranges there are, and which of them is served |
//! | `pmem.rs` | a mapped range: loads, stores, copies |
//! | `write_back.rs` | writing lines back, fences, and how many there were |
//!
//! Follows ACPI 6.5, section 5.2.25, and SDM volume 2 (`clwb`, `clflushopt`, `clflush`).

mod find;
mod pmem;
mod write_back;

pub(crate) use find::{
    address_of, blocks_of, contains_view, find, flush_name, is_served, lent_memory, poisoned,
    regions, rewrite_word, table,
};
pub(crate) use pmem::Nvdimm;
pub(crate) use write_back::{counts, store_fence, write_back};
