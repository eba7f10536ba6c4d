//! What is formatted without being asked for, and what never is: whatever looks like a volume in
//! any part is left as it is.

use std::collections::BTreeMap;
use umbra_fs::testing::{
    FORMAT, MemPmem, SoftMmu, in_superblocks, mount, new_volume, superblocks, twin_distance,
};
use umbra_fs::{BLOCK_SIZE, MountError, Pmem, Time, Volume, holds_volume, pmem::Poisoned};

const MIB: u64 = 1 << 20;

/// A region of any size, of which only what was stored to takes memory, as of a sparse image.
#[derive(Clone)]
struct Sparse {
    len: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK_SIZE as usize]>>,
    /// Blocks that were looked at.
    looked: std::cell::RefCell<std::collections::BTreeSet<u64>>,
}

impl Sparse {
    fn new(len: u64) -> Self {
        Sparse { len, blocks: BTreeMap::new(), looked: Default::default() }
    }

    /// The pieces of a range, block by block: block, offset in it, length.
    fn pieces(at: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let (block, within) = ((at + done) / BLOCK_SIZE, (at + done) % BLOCK_SIZE);
            let piece = (BLOCK_SIZE - within).min(len - done);
            done += piece;
            (piece > 0).then_some((block, within as usize, piece as usize))
        })
    }
}

impl Pmem for Sparse {
    fn len(&self) -> u64 {
        self.len
    }

    fn load(&self, at: u64) -> Result<u64, Poisoned> {
        let mut raw = [0; 8];
        self.read(at, &mut raw)?;
        Ok(u64::from_le_bytes(raw))
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), Poisoned> {
        let mut done = 0;
        for (block, within, len) in Self::pieces(at, into.len() as u64) {
            self.looked.borrow_mut().insert(block);
            match self.blocks.get(&block) {
                Some(bytes) => into[done..done + len].copy_from_slice(&bytes[within..within + len]),
                None => into[done..done + len].fill(0),
            }
            done += len;
        }
        Ok(())
    }

    fn store(&mut self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        for (block, within, len) in Self::pieces(at, bytes.len() as u64) {
            let content =
                self.blocks.entry(block).or_insert_with(|| Box::new([0; BLOCK_SIZE as usize]));
            content[within..within + len].copy_from_slice(&bytes[done..done + len]);
            done += len;
        }
    }

    fn zero(&mut self, at: u64, len: u64) {
        for (block, within, len) in Self::pieces(at, len) {
            if let Some(bytes) = self.blocks.get_mut(&block) {
                bytes[within..within + len].fill(0);
            }
        }
    }

    fn copy(&mut self, from: u64, to: u64, len: u64) -> Result<(), Poisoned> {
        let mut bytes = vec![0; len as usize];
        self.read(from, &mut bytes)?;
        self.write(to, &bytes);
        Ok(())
    }

    fn flush(&mut self, _: u64, _: u64) {}

    fn fence(&mut self) {}
}

/// A volume of this size, unmounted or as a kill leaves it, with one small file.
fn volume_of(len: u64, unmounted: bool) -> Sparse {
    let mut pmem = Sparse::new(len);
    Volume::<Sparse, SoftMmu>::format(&mut pmem, FORMAT).unwrap();
    let mut volume = mount(pmem, 4).unwrap();
    let ino = volume.create(volume.root(), b"kept", 0o644, Time(1)).unwrap();
    volume.write(ino, 0, &[7; 5000], Time(1)).unwrap();
    match unmounted {
        true => volume.unmount().unwrap().0,
        false => volume.pmem().clone(),
    }
}

fn lose_superblocks(pmem: &mut impl Pmem) {
    superblocks().into_iter().for_each(|at| pmem.zero(at, BLOCK_SIZE));
}

/// What a start makes of it.
fn refusal(pmem: &Sparse) -> MountError {
    mount(pmem.clone(), 4).map(drop).expect_err("its superblocks are gone")
}

#[test]
fn two_zeroed_superblocks_of_a_large_volume() {
    for unmounted in [true, false] {
        let mut pmem = volume_of(64 << 30, unmounted);
        lose_superblocks(&mut pmem);
        assert_eq!(refusal(&pmem), MountError::Superblocks);
        assert!(holds_volume(&pmem));
    }
}

#[test]
fn the_first_mebibyte_zeroed() {
    for len in [1 << 30, 64 << 30] {
        for unmounted in [true, false] {
            let mut pmem = volume_of(len, unmounted);
            pmem.zero(0, MIB);
            // The other superblock is far away.
            let volume = mount(pmem.clone(), 4).unwrap_or_else(|why| panic!("{len} bytes: {why}"));
            volume.resolve(b"kept").unwrap();
            lose_superblocks(&mut pmem);
            let why = refusal(&pmem);
            assert_eq!(why, MountError::Superblocks, "{len} bytes");
            assert!(why.to_string().contains("left as it is"), "{why}");
        }
    }
}

/// Of a small volume that is all but the content of files.
#[test]
fn content_alone_is_not_blank() {
    let mut volume = new_volume(16 * MIB, 4);
    let ino = volume.create(volume.root(), b"kept", 0o644, Time(1)).unwrap();
    volume.write(ino, 0, &vec![7; 2 * MIB as usize], Time(1)).unwrap();
    let mut pmem = volume.pmem().clone();
    pmem.zero(0, MIB);
    // The twins of what formatting wrote.
    pmem.zero(twin_distance(16 * MIB), MIB);
    lose_superblocks(&mut pmem);
    let why = mount(pmem, 4).map(drop).unwrap_err();
    assert_eq!(why, MountError::Foreign);
    assert!(why.to_string().contains("left as it is"), "{why}");
}

/// One block after the other of those that tell is all that is left.
#[test]
fn any_part_of_a_volume_is_enough() {
    let whole = volume_of(1 << 30, true);
    let mut seen = 0;
    for &block in whole.blocks.keys().filter(|&&block| !in_superblocks(block * BLOCK_SIZE)) {
        let mut pmem = Sparse::new(1 << 30);
        pmem.blocks.insert(block, whole.blocks[&block].clone());
        match refusal(&pmem) {
            MountError::Blank => {}
            MountError::Superblocks | MountError::Foreign => seen += 1,
            other => panic!("block {block} alone: {other}"),
        }
    }
    // Two nodes, two blocks of inodes, the head of the checkpoint, and the records of these.
    assert!(seen >= 6, "{seen} blocks tell");
}

#[test]
fn a_damaged_superblock_tells() {
    let mut pmem = volume_of(1 << 30, true);
    pmem.zero(0, 16 * MIB);
    assert_eq!(refusal(&pmem), MountError::Superblocks, "the twins tell");
    pmem.zero(twin_distance(1 << 30), 16 * MIB);
    assert_eq!(refusal(&pmem), MountError::Blank);
    pmem.store(0, u64::from_le_bytes(*b"UMBRAFS\0"));
    assert_eq!(refusal(&pmem), MountError::Superblocks);
    assert!(holds_volume(&pmem));
}

#[test]
fn a_blank_region_is_found_to_be_blank_by_a_look_at_few_blocks() {
    for len in [8 * MIB, 1 << 30, 64 << 30, 1 << 42] {
        let pmem = Sparse::new(len);
        assert_eq!(refusal(&pmem), MountError::Blank, "{len} bytes");
        assert!(!holds_volume(&pmem));
        let looked = pmem.looked.borrow().len();
        assert!(looked <= 512 + 40, "{looked} blocks of {len} bytes");
    }
}

#[test]
fn other_content_is_left_alone_wherever_it_is_looked_for() {
    for at in [0, MIB - 8, MIB, 512 * MIB, (1 << 30) - 8] {
        let mut pmem = Sparse::new(1 << 30);
        pmem.store(at, 1);
        assert_eq!(refusal(&pmem), MountError::Foreign, "a word at {at}");
    }
}

#[test]
fn nothing_is_stored_to_what_is_refused() {
    let (mut pmem, _) = new_volume(8 * MIB, 4).unmount().unwrap();
    lose_superblocks(&mut pmem);
    let before = pmem.bytes().to_vec();
    let (why, after, _) =
        Volume::mount(MemPmem::from_bytes(before.clone()), SoftMmu::new(4), Time(1))
            .map(drop)
            .expect_err("its superblocks are gone");
    assert_eq!(why, MountError::Superblocks);
    assert!(after.bytes() == before, "the region has changed");
}
