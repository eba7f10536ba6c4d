//! What a crash in the middle of an operation may leave.

use super::tree::{Expected, File, Judge, Tree};
use umbra_fs::BLOCK_SIZE;

/// What a crash in the middle of an operation may leave.
pub enum During {
    /// All or nothing.
    Atomic,
    /// Of this file, each block old or new (and 8 bytes, where it was overwritten in
    /// place), under any of the sizes.
    Blocks { file: u32, old: File, new: Vec<u8>, in_place: Vec<u64>, sizes: Vec<usize> },
}

impl During {
    /// Whether a volume shows what a crash in the middle of the operation may leave.
    pub fn accepts(&self, before: &Expected, after: &Expected, tree: &Tree) -> Result<(), String> {
        let judge = |seen: &[u8]| self.judge_blocks(seen);
        let special: Option<Judge<'_>> = match self {
            During::Atomic => None,
            During::Blocks { file, .. } => Some((*file, &judge)),
        };
        let old = before.matches(tree, special);
        if old.is_ok() {
            return Ok(());
        }
        after.matches(tree, special).map_err(|new| format!("old: {}; new: {new}", old.unwrap_err()))
    }

    fn judge_blocks(&self, seen: &[u8]) -> Result<(), String> {
        let During::Blocks { old, new, in_place, sizes, .. } = self else { return Ok(()) };
        if !sizes.contains(&seen.len()) {
            return Err(format!("its size is {}, none of {sizes:?}", seen.len()));
        }
        let mut before = old.clone();
        before.content.resize(new.len().max(seen.len()), 0);
        before.earlier.iter_mut().for_each(|e| e.resize(new.len().max(seen.len()), 0));
        for start in (0..seen.len()).step_by(BLOCK_SIZE as usize) {
            let range = start..(start + BLOCK_SIZE as usize).min(seen.len());
            if seen[range.clone()] == new[range.clone()] {
                continue;
            }
            let tears = in_place.contains(&(start as u64 / BLOCK_SIZE));
            for at in range.clone().step_by(8) {
                let word = at..(at + 8).min(range.end);
                let is = &seen[word.clone()];
                let was = before.content[word.clone()] == *is
                    || before.earlier.iter().any(|e| e[word.clone()] == *is);
                let will = new[word.clone()] == *is;
                // Bytes behind the old end are there only with the new size.
                let fresh = word.end > old.content.len();
                if !((was || tears && will) && (!fresh || will)) {
                    return Err(format!(
                        "byte {at} is neither old nor new, or only part of its block is new"
                    ));
                }
            }
        }
        Ok(())
    }
}
