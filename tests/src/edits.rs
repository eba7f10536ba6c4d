//! Stores, as the host computes what comes of them.

use crate::image::Hash;
use crate::random::Random;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a page, and of what one leaf of page tables maps.
const PAGE: u64 = 4096;
const LEAF: u64 = 2 << 20;

/// One store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// Stores into a file of `size` bytes: some within a page, some across the border of two pages,
/// one across that of two leaves, one of several pages. They may overlap; the later wins.
pub fn edits(random: &mut Random, size: u64) -> Vec<Edit> {
    let mut all = Vec::new();
    let mut add = |offset: u64, len: u64, random: &mut Random| {
        let len = len.min(size.saturating_sub(offset));
        all.push(Edit { offset, bytes: random.bytes(len as usize) });
    };
    let at = random.below(size - 64);
    add(at, 40, random);
    // Overlaps the first.
    add(at + 20, 44, random);
    let border = PAGE * (1 + random.below(size / PAGE - 1));
    add(border - 17, 34, random);
    // Borders of leaves that have bytes of the file on both sides.
    let borders = (size - 1) / LEAF;
    if borders > 0 {
        let border = LEAF * (1 + random.below(borders));
        add(border - 100, 200, random);
    }
    let at = random.below(size - 5 * PAGE);
    add(at, 3 * PAGE + 123, random);
    all
}

/// The hash of a file after stores to it, without changing it.
pub fn hash_with(path: &Path, edits: &[Edit]) -> Hash {
    let mut file = File::open(path).expect("the file is there");
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let count = file.read(&mut buffer).expect("it is readable");
        if count == 0 {
            return hasher.finalize().into();
        }
        apply(edits, at, &mut buffer[..count]);
        hasher.update(&buffer[..count]);
        at += count as u64;
    }
}

/// Applies what falls into a piece of the file that starts at `at`.
fn apply(edits: &[Edit], at: u64, piece: &mut [u8]) {
    let end = at + piece.len() as u64;
    for edit in edits {
        let (from, to) = (edit.offset.max(at), (edit.offset + edit.bytes.len() as u64).min(end));
        if from < to {
            let bytes = &edit.bytes[(from - edit.offset) as usize..(to - edit.offset) as usize];
            piece[(from - at) as usize..(to - at) as usize].copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::hash_file;

    #[test]
    fn edits_across_pieces_come_out_as_if_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let mut content = Random::new(1).bytes(3 << 20);
        std::fs::write(&path, &content).unwrap();
        let mut random = Random::new(2);
        let mut all = edits(&mut random, content.len() as u64);
        all.push(Edit { offset: (1 << 20) - 5, bytes: vec![7; 10] });
        let hash = hash_with(&path, &all);
        for edit in &all {
            content[edit.offset as usize..][..edit.bytes.len()].copy_from_slice(&edit.bytes);
        }
        std::fs::write(&path, &content).unwrap();
        assert_eq!(hash, hash_file(&path));
        assert!(
            all.iter().any(|e| e.offset / PAGE != (e.offset + e.bytes.len() as u64 - 1) / PAGE)
        );
    }
}
