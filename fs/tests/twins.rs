//! One copy of a block of metadata is damaged, in each way and at each block: everything is there
//! as before, the copy is mended, and a check finds nothing.

mod content;

use content::{Content, Soft, look, populated};
use umbra_fs::testing::damage::{Metadata, metadata};
use umbra_fs::testing::{MemPmem, mount, twin_distance};
use umbra_fs::{BLOCK_SIZE, Time};

const BLOCK: usize = BLOCK_SIZE as usize;
const SIZE: u64 = 8 << 20;

/// A volume, as unmounted or as a crash left it, and what it shows.
struct Image {
    bytes: Vec<u8>,
    healthy: Content,
    blocks: Vec<(usize, Metadata)>,
    /// An earlier state of the same volume.
    stale: Vec<u8>,
}

fn image(unmounted: bool) -> Image {
    let mut volume = populated(SIZE);
    let stale = volume.pmem().bytes().to_vec();
    // All kinds of metadata change.
    for path in ["/dir/clone", "/file", "/tall", "/small"] {
        let ino = volume.resolve(path.as_bytes()).unwrap();
        volume.write(ino, 4096, b"later", Time(5)).unwrap();
    }
    let dir = volume.resolve(b"/dir").unwrap();
    volume.create(dir, b"later", 0o600, Time(5)).unwrap();
    let (healthy, errors) = look(&volume, None);
    assert_eq!(errors, 0);
    let bytes = match unmounted {
        true => volume.unmount().unwrap().0.bytes().to_vec(),
        false => {
            while volume.reclaim_step().unwrap() {}
            volume.pmem().bytes().to_vec()
        }
    };
    let blocks = metadata(&bytes).into_iter().map(|(b, kind)| (b.0 as usize, kind)).collect();
    Image { bytes, healthy, blocks, stale }
}

fn block_of(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[at..at + BLOCK]
}

impl Image {
    /// Mounts the volume with one copy replaced, and looks at everything.
    fn survives(&self, at: usize, new: &[u8], what: &str) {
        let mut bytes = self.bytes.clone();
        bytes[at..at + BLOCK].copy_from_slice(new);
        let volume = mount(MemPmem::from_bytes(bytes), 2).unwrap_or_else(|e| panic!("{what}: {e}"));
        let volume = self.is_healthy(volume, what);
        let twins = twin_distance(SIZE) as usize;
        let after = volume.unmount().unwrap().0;
        for &(block, kind) in &self.blocks {
            let [first, second] = [0, twins].map(|d| block_of(after.bytes(), block * BLOCK + d));
            assert!(first == second, "{what}: the copies of {kind:?} {block} differ");
        }
    }

    fn is_healthy(&self, mut volume: Soft, what: &str) -> Soft {
        let (found, errors) = look(&volume, None);
        assert_eq!(errors, 0, "{what}");
        assert!(found == self.healthy, "{what}: it shows something else");
        while volume.reclaim_step().unwrap() {}
        let report = volume.check().unwrap_or_else(|e| panic!("{what}: check: {e}"));
        assert_eq!(report.issues, Vec::<String>::new(), "{what}");
        assert!(volume.mended() > 0, "{what}: nobody noticed");
        volume
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *seed >> 33
}

/// The ways in which a copy is damaged.
fn damages(image: &Image, kind: Metadata, at: usize, seed: &mut u64) -> Vec<(String, Vec<u8>)> {
    let whole = block_of(&image.bytes, at).to_vec();
    // Behind the end of a target there is nothing that could be damaged.
    let used = match kind {
        Metadata::Target => whole.iter().position(|&b| b == 0).unwrap(),
        Metadata::Bucket => 1024,
        _ => BLOCK,
    };
    let mut damages = Vec::new();
    let bit = random(seed) as usize % (used * 8);
    let mut new = whole.clone();
    new[bit / 8] ^= 1 << (bit % 8);
    damages.push((format!("bit {bit}"), new));
    damages.push(("zeros".into(), vec![0; BLOCK]));
    damages.push(("random".into(), (0..BLOCK).map(|_| random(seed) as u8).collect()));
    let line = random(seed) as usize % used.div_ceil(64);
    let mut new = whole.clone();
    new[line * 64..][..64].fill(0);
    damages.push((format!("line {line} is zero"), new));
    for &(other, _) in image.blocks.iter().filter(|b| b.1 == kind && b.0 != at / BLOCK).take(2) {
        let new = block_of(&image.bytes, other * BLOCK).to_vec();
        damages.push((format!("it is {other}"), new));
    }
    damages.retain(|(_, new)| *new != whole);
    damages
}

#[test]
fn one_copy_is_damaged() {
    let mut cases = 0;
    for unmounted in [true, false] {
        let image = image(unmounted);
        let mut seed = 7;
        for &(block, kind) in &image.blocks {
            for copy in [0, twin_distance(SIZE) as usize] {
                let at = block * BLOCK + copy;
                for (how, new) in damages(&image, kind, block * BLOCK, &mut seed) {
                    // A word of an inode that is free is not looked at by those who read.
                    let what = format!("{kind:?} {block}, copy at {at:#x}: {how}, {unmounted}");
                    // Which copy of a target is good is known only to those who read it, and they
                    // look at the first.
                    if kind == Metadata::Target && copy != 0 && unmounted {
                        continue;
                    }
                    image.survives(at, &new, &what);
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} damages of one copy");
    assert!(cases > 300, "{cases}");
}

/// Both copies are good, and one is older: after a clean stop that is a finding. After a crash the
/// first copy counts, as of a change that came before it.
#[test]
fn one_copy_is_an_older_one() {
    let image = image(true);
    let mut cases = 0;
    for &(block, kind) in &image.blocks {
        let old = block_of(&image.stale, block * BLOCK).to_vec();
        if old == block_of(&image.bytes, block * BLOCK) || kind == Metadata::Target {
            continue;
        }
        // It was the same kind of block before: each of its words opens there.
        let was = metadata(&image.stale).iter().any(|&(b, k)| (b.0 as usize, k) == (block, kind));
        for copy in [0, twin_distance(SIZE) as usize].into_iter().filter(|_| was) {
            let mut bytes = image.bytes.clone();
            bytes[block * BLOCK + copy..][..BLOCK].copy_from_slice(&old);
            let what = format!("{kind:?} {block}, copy {copy:#x} is older");
            let mut volume =
                mount(MemPmem::from_bytes(bytes), 2).unwrap_or_else(|e| panic!("{what}: {e}"));
            let report = volume.check().unwrap_or_else(|e| panic!("{what}: check: {e}"));
            let named = format!("block {block}: its two copies are good, and differ");
            assert!(report.issues.contains(&named), "{what}: {:?}", report.issues);
            cases += 1;
        }
    }
    println!("{cases} older copies");
    assert!(cases >= 8, "{cases}");
}
