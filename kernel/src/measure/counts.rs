//! Counts that lie far apart: what copying a leaf, and a rebuild, do to the records of blocks.
//!
//! A block has a record of 16 bytes. A copied leaf raises the counts of its 512 children,
//! which can lie anywhere; a rebuild counts every reference of the volume. Records are taken at
//! random from a span of the NVDIMM that is as large as all records of a volume of 1, 16 or
//! 64 GiB; each word is read, and stored as it was.

use super::{median, time};
use crate::{dax, nvdimm};
use alloc::format;
use alloc::vec::Vec;
use umbra_fs::Pmem;
use umbra_server::platform::Sample;

/// Bytes of the record of a block, and of a block.
const RECORD: u64 = 16;
const BLOCK: u64 = 4096;
/// Children of a leaf, and blocks of 1 GiB.
const LEAF: u64 = 512;
const REBUILD: u64 = 1 << 18;

/// Reads and stores `count` records that are spread at random over `span` bytes.
fn touch(span: u64, count: u64, seed: u64) -> u64 {
    let records = span / RECORD;
    // The volume is held, so that nobody stores meanwhile.
    let cost = dax::with_volume(|volume| {
        let start = (volume.pmem().len() - span) & !(BLOCK - 1);
        let mut state = seed | 1;
        time(|| {
            for _ in 0..count {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                nvdimm::rewrite_word(start + (state >> 33) % records * RECORD);
            }
        })
    });
    cost.unwrap_or(0)
}

/// Measures, where the NVDIMM is large enough.
pub(super) fn run(all: &mut Vec<Sample>) {
    let len = dax::with_volume(|volume| volume.pmem().len()).unwrap_or(0);
    for gib in [1, 16, 64] {
        let span = (gib << 30) / BLOCK * RECORD;
        if span > len / 2 {
            break;
        }
        // The same records each time: the host has their memory after the first.
        all.push(median(format!("counts_of_a_leaf_in_{gib}G"), 1, || touch(span, LEAF, 7)));
        all.push(median(format!("counts_of_1G_in_{gib}G"), 1, || touch(span, REBUILD, 11)));
    }
}
