//! The superblock and the areas of a volume.
//!
//! Blocks 0 and 2047 hold the same superblock; only mounting and unmounting write them. They are
//! far apart, so that no one mishap takes both, and block 2047 is the last one of the smallest
//! volume, so it is at the same place in all.
//!
//! ```text
//! to 2 GiB  | A | scratch | checkpoint | handed out ... | B | ... handed out |
//! larger    | A | unused                                | B | scratch | checkpoint | handed out |
//! ```
//!
//! An area lies below block 2047 or behind it as a whole. Scratch has 16 bytes for each block.

use crate::types::{BLOCK_SIZE, Block};
use crc::{CRC_32_ISCSI, Crc, Table};

pub(crate) const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// "UMBRAFS" and a zero byte.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"UMBRAFS\0");
/// "UMBRANEW": in the place of the magic number while a volume is being made.
pub(crate) const UNFINISHED: u64 = u64::from_le_bytes(*b"UMBRANEW");
/// Version of the format that this code reads and writes.
pub(crate) const VERSION: u32 = 2;
/// Blocks that hold the superblock.
pub(crate) const COPIES: [Block; 2] = [Block(0), Block(2047)];
/// Block that held the second superblock in version 1.
pub(crate) const SECOND_OF_VERSION_1: Block = Block(1);
/// Segments that a volume can have: it has more than one when it has grown.
const SEGMENTS: usize = 64;
/// Bytes of derived state for each block.
pub(crate) const RECORD_SIZE: u64 = 16;
/// Blocks in a group, the unit in which derived state is initialised.
pub(crate) const GROUP: u64 = 512;
/// Smallest volume: 8 MiB.
pub(crate) const MIN_BLOCKS: u64 = 2048;
/// Blocks that formatting writes one behind the other, from the first that is handed out: the two
/// nodes of the system inode file, its first block, the first block of inodes.
pub(crate) const FORMATTED: u64 = 4;
/// Largest volume: what 40 bits number.
pub(crate) const MAX_BLOCKS: u64 = 1 << 40;

/// CRC-32C (Castagnoli) of bytes.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}

/// Blocks of the checkpoint: a header, a bit for each group, two bytes for each group, two for each
/// that has first blocks of pairs, and room for a checksum of the records of each group.
fn checkpoint_blocks(groups: u64) -> u64 {
    1 + groups.div_ceil(BLOCK_SIZE * 8)
        + (groups * 3 + 16).div_ceil(BLOCK_SIZE)
        + (groups * 4).div_ceil(BLOCK_SIZE)
}

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
    /// How many blocks behind a block of metadata its twin is: whole groups, half of the volume.
    pub twins: u64,
}

impl Geometry {
    /// The areas of a volume of `total` blocks.
    pub fn new(total: u64) -> Self {
        let groups = total.div_ceil(GROUP);
        // Areas follow each other, but for those that would have the second superblock in them.
        let place = |at: u64, len: u64| {
            if at <= COPIES[1].0 && COPIES[1].0 < at + len { COPIES[1].0 + 1 } else { at }
        };
        let records = (total * RECORD_SIZE).div_ceil(BLOCK_SIZE);
        let scratch = place(1, records);
        let len = checkpoint_blocks(groups);
        let checkpoint = place(scratch + records, len);
        // What is made first lies side by side.
        let first = place(checkpoint + len, FORMATTED);
        Geometry { total, scratch, checkpoint, first, twins: total / 2 / GROUP * GROUP }
    }

    /// Whether a block number from media can be followed.
    #[inline(always)]
    pub fn holds(&self, block: Block) -> bool {
        (self.first..self.total).contains(&block.0) && block != COPIES[1]
    }

    /// Whether a block number from media can be that of a block that has a twin.
    #[inline(always)]
    pub fn holds_pair(&self, block: Block) -> bool {
        (self.first..self.twins).contains(&block.0)
            && block != COPIES[1]
            && block.0 + self.twins != COPIES[1].0
    }

    /// The second copy of a block of metadata. `None`: no such block can be there.
    #[inline(always)]
    pub fn twin(&self, block: Block) -> Option<Block> {
        self.holds_pair(block).then_some(Block(block.0 + self.twins))
    }

    /// The block with which a block makes a pair, if both can be handed out; not so the second
    /// superblock, of which that has to be asked.
    #[inline(always)]
    pub fn partner(&self, block: Block) -> Option<Block> {
        if block.0 < self.twins {
            return Some(Block(block.0 + self.twins));
        }
        let first_half = block.0 - self.twins;
        (self.first..self.twins).contains(&first_half).then_some(Block(first_half))
    }

    /// Groups that have a first block of a pair.
    pub fn paired_groups(self) -> u64 {
        self.twins / GROUP
    }

    /// The group that comes at this place of the order in which groups are filled with data: each
    /// is followed by that of its twins, so that few pairs have lost one of their blocks.
    pub fn group_at(self, place: u64) -> u64 {
        let half = self.paired_groups();
        if place < 2 * half { place / 2 + place % 2 * half } else { place }
    }

    /// At which place of that order a group comes.
    pub fn place_of(self, group: u64) -> u64 {
        let half = self.paired_groups();
        match group {
            first if first < half => 2 * first,
            second if second < 2 * half => 2 * (second - half) + 1,
            alone => alone,
        }
    }

    /// Whether all block numbers of a group can be followed.
    pub fn holds_group(self, group: u64) -> bool {
        group * GROUP >= self.first
            && (group + 1) * GROUP <= self.total
            && group != COPIES[1].0 / GROUP
    }

    /// Blocks of a group that are handed out, or have been.
    pub fn blocks_of(self, group: u64) -> impl Iterator<Item = Block> + Clone {
        let blocks = (group * GROUP).max(self.first)..((group + 1) * GROUP).min(self.total);
        blocks.map(Block).filter(|&block| block != COPIES[1])
    }

    /// Number of the blocks that are handed out.
    pub fn handed_out(self) -> u64 {
        self.total - self.first - u64::from(self.first <= COPIES[1].0)
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
    /// Something is damaged: no checkpoint is written, and each mount counts anew, until it was
    /// repaired.
    pub damaged: bool,
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
    /// Features without whose knowledge the volume can neither be read nor written.
    Features(u64),
    /// The checksum or a field is wrong.
    Damaged,
}

/// Index of the word that has the number of segments. Two words for each of them follow.
const SEGMENT_COUNT: usize = 32;
const _: () = assert!(SEGMENT_COUNT + 1 + 2 * SEGMENTS < 511);

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
        put(13, self.damaged as u64);
        // Words 16 to 18: features that are needed to write, needed to read, may be ignored.
        put(SEGMENT_COUNT, 1);
        // The only segment: its first block, and how far behind a block its twin is.
        put(SEGMENT_COUNT + 1, 0);
        put(SEGMENT_COUNT + 2, self.geometry.twins);
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
        // Nothing is known that a volume could have and others could do without.
        let features = word(bytes, 16) | word(bytes, 17);
        if features != 0 {
            return Err(NoSuperblock::Features(features));
        }
        let total = word(bytes, 4);
        if !(MIN_BLOCKS..=MAX_BLOCKS).contains(&total) {
            return Err(NoSuperblock::Damaged);
        }
        let geometry = Geometry::new(total);
        let areas = (word(bytes, 5), word(bytes, 6), word(bytes, 7));
        let system = Block(word(bytes, 8));
        let segment = [SEGMENT_COUNT, SEGMENT_COUNT + 1, SEGMENT_COUNT + 2];
        if areas != (geometry.scratch, geometry.checkpoint, geometry.first)
            || segment.map(|index| word(bytes, index)) != [1, 0, geometry.twins]
            || !geometry.holds_pair(system)
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
            damaged: word(bytes, 13) != 0,
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
            damaged: false,
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

    /// A superblock with another value of a word, and a checksum that is right.
    fn with(index: usize, value: u64) -> Result<Superblock, NoSuperblock> {
        let mut bytes = example().encode();
        bytes[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
        let sum = CRC32C.checksum(&bytes[..BLOCK_SIZE as usize - 8]);
        bytes[BLOCK_SIZE as usize - 8..].copy_from_slice(&(sum as u64).to_le_bytes());
        Superblock::decode(&bytes)
    }

    #[test]
    fn other_versions_and_features_are_refused_by_their_numbers() {
        assert_eq!(with(1, 1), Err(NoSuperblock::Version(1)));
        assert_eq!(with(1, 3), Err(NoSuperblock::Version(3)));
        assert_eq!(with(16, 4), Err(NoSuperblock::Features(4)));
        assert_eq!(with(17, 8), Err(NoSuperblock::Features(8)));
        assert_eq!(with(18, u64::MAX), Ok(example()), "they may be ignored");
        assert_eq!(with(13, 1), Ok(Superblock { damaged: true, ..example() }));
        assert_eq!(with(SEGMENT_COUNT, 2), Err(NoSuperblock::Damaged));
        assert_eq!(with(SEGMENT_COUNT + 2, 1000), Err(NoSuperblock::Damaged));
    }

    #[test]
    fn areas_keep_clear_of_each_other_and_of_the_superblocks() {
        let around = |total: u64| total - 3..total + 3;
        let totals = (MIN_BLOCKS..MIN_BLOCKS + 2000)
            .chain(around(500_000))
            .chain(around(524_288))
            .chain(around(600_000))
            .chain([16 << 20, MAX_BLOCKS]);
        // And where an area comes to lie behind the second superblock.
        for total in totals.chain((400_000..600_000).step_by(97)) {
            let g = Geometry::new(total);
            let records = (total * RECORD_SIZE).div_ceil(BLOCK_SIZE);
            let groups = total.div_ceil(GROUP);
            let checkpoint = checkpoint_blocks(groups);
            let areas = [
                (g.scratch, g.scratch + records),
                (g.checkpoint, g.checkpoint + checkpoint),
                (g.first, g.first + FORMATTED),
            ];
            let mut end = 1;
            for (start, stop) in areas {
                assert!(start >= end && stop <= total, "{g:?}");
                assert!(!(start..stop).contains(&COPIES[1].0), "{g:?}");
                end = stop;
            }
            assert!(!g.holds(COPIES[1]) && !g.holds(COPIES[0]));
            assert!((0..FORMATTED).all(|at| g.holds_pair(Block(g.first + at))), "{g:?}");
            let counted = (g.first..total).filter(|&block| g.holds(Block(block)));
            assert!(total > 1 << 20 || counted.count() as u64 == g.handed_out());
        }
    }

    #[test]
    fn each_block_is_in_one_pair_at_most_and_each_group_is_filled_once() {
        for total in (MIN_BLOCKS..MIN_BLOCKS + 1200).step_by(7).chain([5000, 600_000]) {
            let g = Geometry::new(total);
            for block in (g.first..total).map(Block).filter(|&block| g.holds(block)) {
                match g.twin(block) {
                    Some(twin) => {
                        assert!(g.holds(twin) && !g.holds_pair(twin), "{g:?} {block:?}");
                        assert_eq!((g.partner(block), g.partner(twin)), (Some(twin), Some(block)));
                    }
                    None => assert!(
                        g.partner(block).is_none_or(|p| p == COPIES[1] || g.twin(p) == Some(block)),
                        "{g:?} {block:?}"
                    ),
                }
            }
            for group in 0..g.groups() {
                assert_eq!(g.group_at(g.place_of(group)), group);
                assert!(g.place_of(group) < g.groups());
            }
        }
    }

    #[test]
    fn areas_take_less_than_a_percent() {
        for total in [MIN_BLOCKS, 262_144, 524_288, 16 << 20] {
            let g = Geometry::new(total);
            assert!((total - g.handed_out()) * 100 <= total + 2000, "{g:?}");
        }
    }
}
