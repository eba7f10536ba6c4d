//! Counts that lie far apart: what copying a leaf, and a rebuild, do to the records of blocks.
//!
//! A block has a record of 16 bytes. A copied leaf raises the counts of its 512 children,
//! which can lie anywhere; a rebuild counts every reference of the volume. Records are taken at
//! random from a span of the NVDIMM that is as large as all records of a volume of 1, 16 or
//! 64 GiB; each word is read, and stored as it was.

use super::{Cost, median, time};
use crate::{dax, nvdimm};
use alloc::format;
use alloc::string::String;
use umbra_fs::Pmem;

/// Bytes of the record of a block, and of a block.
const RECORD: u64 = 16;
const BLOCK: u64 = 4096;
/// Children of a leaf, and blocks of 1 GiB.
const LEAF: u64 = 512;
const REBUILD: u64 = 1 << 18;

/// Reads and stores `count` records that are spread at random over `span` bytes.
fn touch(span: u64, count: u64, seed: u64) -> Result<Cost, String> {
    let records = span / RECORD;
    // The volume is held, so that nobody stores meanwhile.
    let cost = dax::with_volume(|volume| {
        let start = (volume.pmem().len() - span) & !(BLOCK - 1);
        let mut state = seed | 1;
        time(1, || {
            for _ in 0..count {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                nvdimm::rewrite_word(start + (state >> 33) % records * RECORD);
            }
        })
    });
    cost.ok_or("no volume".into())
}

/// Measures.
pub(super) fn run(line: &mut dyn FnMut(&str)) -> Result<(), String> {
    let Some(len) = dax::with_volume(|volume| volume.pmem().len()) else {
        line("no volume is served: counts were not measured");
        return Ok(());
    };
    for gib in [1, 16, 64] {
        let span = (gib << 30) / BLOCK * RECORD;
        if span > len / 2 {
            line(&format!("counts of {gib} GiB: the NVDIMM is too small"));
            continue;
        }
        // The same records each time: the host has their memory after the first.
        let leaf = median(|| touch(span, LEAF, 7))?;
        let rebuild = median(|| touch(span, REBUILD, 11))?;
        line(&format!("counts of 512 blocks anywhere in {gib} GiB: {leaf}; of {REBUILD}: {rebuild}"));
    }
    Ok(())
}
