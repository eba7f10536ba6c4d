//! What the fuzz targets do, so that `cargo test` can replay their corpus.
//!
//! An input is a list of patches to a small volume, then operations on it. It must never
//! panic, hang or take memory without bound; errors are fine.

use super::{FORMAT, MemPmem, SoftMachine, SoftMmu, damage, mount};
use crate::{Existing, Ino, Time, Volume, dax};
use alloc::vec::Vec;
use core::ops::ControlFlow;

const REGION: u64 = 8 << 20;
const NOW: Time = Time(9_000);

/// A volume with a little of everything, and the damage that can be done to it.
pub struct Template {
    bytes: Vec<u8>,
    damage: Vec<damage::Damage>,
    /// The same with links.
    links: Vec<u8>,
    links_damage: Vec<damage::Damage>,
}

impl Default for Template {
    fn default() -> Self {
        Self::new()
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }
    fn number(&mut self) -> Option<u64> {
        Some((self.byte()? as u64) << 16 | (self.byte()? as u64) << 8 | self.byte()? as u64)
    }
}

impl Template {
    /// Builds the volume.
    pub fn new() -> Self {
        let mut pmem = MemPmem::new(REGION);
        Volume::<MemPmem, SoftMmu>::format(&mut pmem, FORMAT)
            .expect("a blank region can be formatted");
        let mut volume = mount(pmem, 2).expect("a new volume can be mounted");
        let root = volume.root();
        let build = |volume: &mut Volume<MemPmem, SoftMmu>| -> crate::Result<()> {
            let dir = volume.mkdir(root, b"dir", 0o755, NOW)?;
            let a = volume.create(root, b"a", 0o644, NOW)?;
            volume.write(a, 0, &[1; 20_000], NOW)?;
            volume.clone_file(a, dir, b"b", NOW)?;
            let tall = volume.create(dir, b"tall", 0o644, NOW)?;
            volume.write(tall, 3 << 20, b"far out", NOW)?;
            volume.write(tall, 0, b"near", NOW)?;
            volume.create(dir, b"empty", 0o600, NOW)?;
            volume.mkdir(dir, b"sub", 0o700, NOW)?;
            Ok(())
        };
        build(&mut volume).expect("a volume can be filled");
        let bytes = volume.pmem().bytes().to_vec();
        let damage = damage::cases(&bytes);
        let link = |volume: &mut Volume<MemPmem, SoftMmu>| -> crate::Result<()> {
            let dir = volume.resolve(b"dir")?;
            let a = volume.resolve(b"a")?;
            volume.link(a, dir, b"again", NOW)?;
            volume.symlink(root, b"link", b"dir/b", NOW)?;
            Ok(())
        };
        link(&mut volume).expect("a volume can be filled");
        let links = volume.pmem().bytes().to_vec();
        let links_damage = damage::cases(&links);
        Template { bytes, damage, links, links_damage }
    }

    fn damaged(&self, input: &mut Input<'_>) -> Option<MemPmem> {
        let (bytes, damage) = match input.byte()? {
            0xff => {
                // Any bytes at all.
                let mut bytes = alloc::vec![0; REGION as usize];
                bytes[..input.0.len()].copy_from_slice(input.0);
                return Some(MemPmem::from_bytes(bytes));
            }
            0xc0.. => (&self.links, &self.links_damage),
            _ => (&self.bytes, &self.damage),
        };
        let mut pmem = MemPmem::from_bytes(bytes.clone());
        for _ in 0..input.byte()? % 8 {
            let kind = input.byte()?;
            let at = input.number()?;
            match kind % 4 {
                0 => {
                    let case = &damage[at as usize % damage.len()];
                    pmem.bytes_mut()[case.at as usize..case.at as usize + 8]
                        .copy_from_slice(&case.value.to_le_bytes());
                }
                1 => pmem.bytes_mut()[(at % REGION) as usize] = input.byte()?,
                // Most of what is in use lies near the start.
                2 => pmem.bytes_mut()[(at % (64 * 4096)) as usize] ^= 1 << (input.byte()? % 8),
                _ => pmem.poisoned.push(at % (64 * 64) * 64),
            }
        }
        Some(pmem)
    }

    /// Mounts what the input says, and looks at everything.
    pub fn mount(&self, data: &[u8]) {
        let mut input = Input(data);
        let Some(pmem) = self.damaged(&mut input) else { return };
        if let Ok(mut volume) = mount(pmem, 2) {
            let _ = volume.check();
            let mut budget = 1000;
            let root = volume.root();
            look(&mut volume, root, &mut budget);
        }
    }

    /// Mounts what the input says, and operates on it.
    pub fn operate(&self, data: &[u8]) {
        let mut input = Input(data);
        let Some(pmem) = self.damaged(&mut input) else { return };
        if let Ok(volume) = mount(pmem, 2) {
            let mut machine = SoftMachine { volume };
            for _ in 0..64 {
                if step(&mut machine, &mut input).is_none() {
                    break;
                }
            }
            let _ = machine.volume.check();
            let _ = machine.volume.unmount();
        }
    }
}

/// Reads what can be found, within a budget: damage may make endless directories.
fn look(volume: &mut Volume<MemPmem, SoftMmu>, dir: Ino, budget: &mut u32) {
    let mut found = Vec::new();
    let _ = volume.read_dir(dir, 0, &mut |entry| {
        found.push(entry.ino);
        ControlFlow::Continue(())
    });
    for ino in found {
        if *budget == 0 {
            return;
        }
        *budget -= 1;
        let _ = volume.attributes(ino);
        let _ = volume.read_link(ino);
        let _ = volume.blocks(ino);
        let _ = volume.extent(ino, crate::FileBlock(0));
        let mut bytes = [0; 5000];
        let _ = volume.read(ino, 100, &mut bytes);
        let _ = volume.read(ino, 3 << 20, &mut bytes);
        look(volume, ino, budget);
    }
}

/// One operation; `None` when the input is used up.
fn step(machine: &mut SoftMachine<MemPmem>, input: &mut Input<'_>) -> Option<()> {
    const PATHS: [&str; 10] = [
        "a",
        "dir/b",
        "dir/tall",
        "dir/empty",
        "dir/sub",
        "dir",
        "new",
        "dir/new",
        "dir/again",
        "link",
    ];
    let kind = input.byte()?;
    let path = PATHS[input.byte()? as usize % PATHS.len()];
    let other = PATHS[input.byte()? as usize % PATHS.len()];
    let number = input.number()?;
    let volume = &mut machine.volume;
    let ino = volume.resolve(path.as_bytes());
    let place = volume.resolve_parent(path.as_bytes());
    let target = volume.resolve_parent(other.as_bytes());
    let bytes = [kind; 6000];
    let len = (number % 6000) as usize;
    match (kind % 14, ino, place, target) {
        (0, _, Ok((dir, name)), _) => drop(volume.create(dir, name, 0o600, NOW)),
        (1, _, Ok((dir, name)), _) => drop(volume.mkdir(dir, name, 0o700, NOW)),
        (2, _, Ok((dir, name)), _) => drop(volume.unlink(dir, name, NOW)),
        (3, _, Ok((dir, name)), _) => drop(volume.rmdir(dir, name, NOW)),
        (4, _, Ok((dir, name)), Ok((to, new))) => drop(volume.rename(dir, name, to, new, NOW)),
        (5, Ok(ino), ..) => drop(volume.write(ino, number, &bytes[..len], NOW)),
        (6, Ok(ino), ..) => drop(volume.truncate(ino, number, NOW)),
        (7, Ok(ino), _, Ok((dir, name))) => drop(volume.clone_file(ino, dir, name, NOW)),
        (8, Ok(ino), ..) => {
            if let Ok(dst) = volume.resolve(other.as_bytes()) {
                let (from, to) = (number % 8 * 4096, number / 8 % 600 * 4096);
                let _ = volume.clone_range(ino, from, dst, to, (number / 4800 % 8 + 1) * 4096, NOW);
            }
        }
        (9 | 10, Ok(ino), ..) => {
            if let Ok(window) = volume.open_window(ino) {
                let _ = dax::store(machine, window, number % (4 << 20), &bytes[..len % 300]);
                if kind % 14 == 9 {
                    let _ = machine.volume.close_window(window);
                }
            }
        }
        (11, Ok(ino), ..) => drop(volume.sync(ino)),
        (12, ..) => while let Ok(true) = volume.reclaim_step() {},
        (13, ino, _, Ok((dir, name))) => match (ino, number % 3) {
            (Ok(ino), 0) if number % 2 == 0 => drop(volume.link(ino, dir, name, NOW)),
            (Ok(ino), 0) => drop(volume.link_as(ino, dir, name, Existing::Replace, NOW)),
            (Ok(ino), 1) => drop(volume.read_link(ino)),
            _ => drop(volume.symlink(dir, name, path.as_bytes(), NOW)),
        },
        _ => {}
    }
    Some(())
}
