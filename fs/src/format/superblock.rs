//! The superblock and the areas of a volume.
//!
//! Blocks 0 and 1 hold the same superblock; only mounting and unmounting write them.
//! Behind them: scratch (16 bytes a block), checkpoint, then the blocks that are handed out.

use crate::types::{BLOCK_SIZE, Block};
use crc::{CRC_32_ISCSI, Crc, Table};

const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// "UMBRAFS" and a zero byte.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"UMBRAFS\0");
/// "UMBRANEW": in the place of the magic number while a volume is being made.
pub(crate) const UNFINISHED: u64 = u64::from_le_bytes(*b"UMBRANEW");
/// Version of the format that this code reads and writes.
pub(crate) const VERSION: u32 = 1;
/// Bytes of derived state for each block.
pub(crate) const RECORD_SIZE: u64 = 16;
/// Blocks in a group, the unit in which derived state is initialised.
pub(crate) const GROUP: u64 = 512;
/// Smallest volume: 8 MiB.
pub(crate) const MIN_BLOCKS: u64 = 2048;
/// Largest volume: what 40 bits number.
pub(crate) const MAX_BLOCKS: u64 = 1 << 40;

/// Where the areas of a volume are, all in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Blocks of the volume.
    pub total: u64,
    /// First block of the scratch area.
    pub scratch: u64,
    /// First block of the checkpoint.
    pub checkpoint: u64,
    /// First block that is handed out.
    pub first: u64,
}

impl Geometry {
    /// The areas of a volume of `total` blocks.
    pub fn new(total: u64) -> Self {
        let scratch = 2;
        let checkpoint = scratch + (total * RECORD_SIZE).div_ceil(BLOCK_SIZE);
        let groups = total.div_ceil(GROUP);
        // A header, a bit for each group, and two bytes for each group.
        let first =
            checkpoint + 1 + groups.div_ceil(BLOCK_SIZE * 8) + (groups * 2).div_ceil(BLOCK_SIZE);
        Geometry { total, scratch, checkpoint, first }
    }

    /// Whether a block number from media can be followed.
    #[inline]
    pub fn holds(self, block: Block) -> bool {
        (self.first..self.total).contains(&block.0)
    }

    /// Whether all block numbers of a group can be followed.
    pub fn holds_group(self, group: u64) -> bool {
        group * GROUP >= self.first && (group + 1) * GROUP <= self.total
    }

    /// Groups of the volume.
    pub fn groups(self) -> u64 {
        self.total.div_ceil(GROUP)
    }
}

/// A superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Identifies the volume.
    pub uuid: [u8; 16],
    /// The areas.
    pub geometry: Geometry,
    /// Top node (level 2) of the system inode file: it never moves.
    pub system: Block,
    /// Counts mounts for writing.
    pub mounts: u64,
    /// The checkpoint is valid, and nothing was written since.
    pub clean: bool,
    /// Second half of the key of the name hash.
    pub seed: u64,
    /// When the volume was made (nanoseconds since 1970).
    pub created: i64,
}

/// Why a block is no superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSuperblock {
    /// The magic number is missing.
    Magic,
    /// A volume was being made here.
    Unfinished,
    /// Another version of the format.
    Version(u32),
    /// The checksum or a field is wrong.
    Damaged,
}

fn word(bytes: &[u8], index: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
    u64::from_le_bytes(raw)
}

impl Superblock {
    /// The bytes of the block.
    pub fn encode(&self) -> [u8; BLOCK_SIZE as usize] {
        let mut bytes = [0; BLOCK_SIZE as usize];
        let mut put = |index: usize, value: u64| {
            bytes[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes())
        };
        put(0, MAGIC);
        put(1, VERSION as u64);
        put(2, u64::from_le_bytes(self.uuid[..8].try_into().unwrap_or_default()));
        put(3, u64::from_le_bytes(self.uuid[8..].try_into().unwrap_or_default()));
        put(4, self.geometry.total);
        put(5, self.geometry.scratch);
        put(6, self.geometry.checkpoint);
        put(7, self.geometry.first);
        put(8, self.system.0);
        put(9, self.mounts);
        put(10, self.clean as u64);
        put(11, self.seed);
        put(12, self.created as u64);
        let sum = CRC32C.checksum(&bytes[..BLOCK_SIZE as usize - 8]);
        bytes[BLOCK_SIZE as usize - 8..].copy_from_slice(&(sum as u64).to_le_bytes());
        bytes
    }

    /// Reads and verifies a superblock.
    pub fn decode(bytes: &[u8; BLOCK_SIZE as usize]) -> Result<Self, NoSuperblock> {
        if word(bytes, 0) == UNFINISHED {
            return Err(NoSuperblock::Unfinished);
        }
        if word(bytes, 0) != MAGIC {
            return Err(NoSuperblock::Magic);
        }
        let sum = CRC32C.checksum(&bytes[..BLOCK_SIZE as usize - 8]);
        if word(bytes, 511) != sum as u64 {
            return Err(NoSuperblock::Damaged);
        }
        if word(bytes, 1) != VERSION as u64 {
            return Err(NoSuperblock::Version(word(bytes, 1) as u32));
        }
        let total = word(bytes, 4);
        if !(MIN_BLOCKS..=MAX_BLOCKS).contains(&total) {
            return Err(NoSuperblock::Damaged);
        }
        let geometry = Geometry::new(total);
        let areas = (word(bytes, 5), word(bytes, 6), word(bytes, 7));
        let system = Block(word(bytes, 8));
        if areas != (geometry.scratch, geometry.checkpoint, geometry.first)
            || !geometry.holds(system)
        {
            return Err(NoSuperblock::Damaged);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[16..32]);
        Ok(Superblock {
            uuid,
            geometry,
            system,
            mounts: word(bytes, 9),
            clean: word(bytes, 10) == 1,
            seed: word(bytes, 11),
            created: word(bytes, 12) as i64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Superblock {
        let geometry = Geometry::new(262_144);
        Superblock {
            uuid: *b"0123456789abcdef",
            geometry,
            system: Block(geometry.first),
            mounts: 7,
            clean: true,
            seed: 42,
            created: -1,
        }
    }

    #[test]
    fn survives_encoding() {
        assert_eq!(Superblock::decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        for bit in 0..4096 * 8 {
            let mut bytes = example().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn areas_take_less_than_half_a_percent() {
        for total in [MIN_BLOCKS, 262_144, 16 << 20] {
            let g = Geometry::new(total);
            assert!(g.first * 200 <= total + 2000, "{g:?}");
        }
    }
}
