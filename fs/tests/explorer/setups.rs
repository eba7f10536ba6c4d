//! The volumes that exploring starts from, and the operations on each.

use super::ops::{Op, World};
use super::tree::Expected;
use umbra_fs::Volume;
use umbra_fs::testing::{FORMAT, LogPmem, MemPmem, SoftMmu, derived_area, free_blocks};

/// The smallest volume there is: mounting it is cheap.
pub const REGION: u64 = 8 << 20;

/// A volume with files in it, not unmounted.
pub struct Setup {
    pub name: &'static str,
    bytes: Vec<u8>,
    pub expected: Expected,
    pub ops: Vec<Op>,
    /// Operations with very many states, explored alone only.
    pub large: Vec<Op>,
}

impl Setup {
    /// Builds a volume by operations, and stops it when all is durable.
    pub fn new(name: &'static str, build: &[Op], ops: Vec<Op>) -> Setup {
        let mut memory = MemPmem::new(REGION);
        Volume::<MemPmem, SoftMmu>::format(&mut memory, FORMAT).expect("format");
        let pmem = LogPmem::new(memory);
        let mut world = World::mount(&pmem, Expected::default());
        for (i, op) in build.iter().enumerate() {
            world
                .apply(*op, 1000 + i as u64)
                .unwrap_or_else(|| panic!("{name}: {op:?} makes no sense"));
        }
        let mut expected = world.expected.clone();
        expected.files.values_mut().for_each(|f| {
            f.settle();
            f.synced = false;
        });
        let free = free_blocks(world.volume()).expect("free blocks");
        drop(world);
        let mut bytes = pmem.with_bytes(<[u8]>::to_vec);
        // What was deleted long ago is still there: it must not come back.
        for block in free {
            let at = block.0 as usize * 4096;
            bytes[at..at + 4096].fill(0xee);
        }
        let derived = derived_area(REGION);
        bytes[derived.start as usize..derived.end as usize].fill(0xa5);
        Setup { name, bytes, expected, ops, large: Vec::new() }
    }

    pub fn memory(&self) -> MemPmem {
        MemPmem::from_bytes(self.bytes.clone())
    }
}

const LEAF: u64 = 512 * 4096;

/// A few files and directories, with and without sharing.
pub fn files() -> Setup {
    use Op::*;
    let build = [
        Mkdir("d"),
        Mkdir("d/s"),
        Mkdir("e"),
        Create("a"),
        Write("a", 0, 12_388),
        Clone("a", "b"),
        Create("c"),
        Write("c", 0, 50),
        Create("d/x"),
        Write("d/x", 0, 4096),
        Write("d/x", 12_288, 100),
        Create("d/y"),
        Create("f"),
        Write("f", 0, 8000),
        // Something stale behind the end of a file of its own blocks.
        Create("g"),
        Write("g", 0, 4000),
        Truncate("g", 1000),
        // The same, shared.
        Create("j"),
        Write("j", 0, 4000),
        Truncate("j", 1000),
        Clone("j", "k"),
    ];
    let ops = vec![
        Create("n"),
        Create("d/n"),
        Mkdir("m"),
        Mkdir("d/m"),
        Unlink("a"),
        Unlink("b"),
        Unlink("c"),
        Unlink("d/x"),
        Rmdir("e"),
        Rmdir("d/s"),
        Rename("c", "n"),
        Rename("c", "d/n"),
        Rename("d/y", "n"),
        Rename("a", "c"),
        Rename("f", "d/x"),
        Rename("d", "m"),
        Rename("e", "d/m"),
        Rename("d/s", "e"),
        Truncate("a", 0),
        Truncate("b", 5000),
        Truncate("f", 100),
        Truncate("g", 3000),
        Truncate("j", 3000),
        CloneRange("a", 0, "k", 1, 1),
        BeginCloneRange("a", 0, "k", 1, 3),
        Truncate("b", 20_000),
        Truncate("d/x", 8192),
        Append("a", 100),
        Append("c", 5000),
        Append("f", 300),
        Append("d/y", 10),
        Append("g", 600),
        Write("f", 100, 20),
        Write("f", 4080, 30),
        Write("b", 100, 200),
        Write("b", 4096, 4096),
        Write("a", 4000, 5000),
        Write("d/x", 4096, 6000),
        // Entries in two lines of a leaf node.
        Write("d/x", 24_576, 16_384),
        Write("c", 9000, 100),
        Write("g", 2000, 100),
        Receive("d/y", 0, 8192),
        // New blocks for what is shared, and a part of a block.
        Receive("b", 0, 9000),
        Receive("c", 2, 4096),
        Receive("d/x", 1, 8192),
        Punch("a", 4096, 4096),
        Punch("f", 4096, 4096),
        Punch("d/x", 0, 20_000),
        Punch("b", 4080, 30),
        Clone("a", "n"),
        Clone("c", "d/n"),
        Clone("d/y", "n"),
        Clone("d/x", "m"),
        CloneRange("a", 0, "c", 0, 1),
        CloneRange("f", 0, "d/x", 2, 1),
        CloneRange("d/x", 0, "f", 3, 2),
        CloneRange("a", 1, "a", 8, 2),
        CloneRange("f", 0, "b", 1, 1),
        CloneRange("c", 0, "d/y", 0, 1),
        Store("f", 4080, 30),
        Store("b", 4080, 30),
        Store("d/x", 5000, 20),
        Store("c", 3, 20),
        Sync("f"),
        Sync("b"),
        Freeze("a"),
        Freeze("f"),
        Freeze("c"),
        Thaw,
        Unnamed(5000),
        Put("n", 5000),
        Put("d/n", 100),
        Put("a", 9000),
        Put("c", 100),
        Reclaim,
        Remount,
    ];
    let mut setup = Setup::new("files", &build, ops);
    setup.large = vec![
        Write("f", 100, 200),
        Write("f", 3900, 500),
        Write("f", 0, 4096),
        Store("f", 4000, 300),
        Store("b", 4000, 300),
        Store("d/x", 5000, 100),
    ];
    setup
}

/// A file across a leaf, so that its tree has two levels of nodes, and a clone of it.
pub fn tall() -> Setup {
    use Op::*;
    let build = [
        Create("t"),
        Write("t", 0, 100),
        Write("t", LEAF - 4096, 4096),
        Write("t", LEAF + 4096, 100),
        Create("o"),
        Write("o", LEAF - 8192, 8192),
        Clone("o", "p"),
        Create("s"),
        Write("s", 0, 5000),
    ];
    let ops = vec![
        Write("t", LEAF - 16, 32),
        Write("t", 8192, 100),
        Write("o", LEAF - 100, 200),
        Write("p", LEAF - 100, 100),
        Append("o", 4096),
        Write("s", LEAF - 100, 300),
        Receive("p", 511, 12_288),
        Receive("s", 510, 9000),
        Truncate("t", LEAF),
        Truncate("t", LEAF - 4000),
        Truncate("p", 100),
        Truncate("o", LEAF + 10),
        Punch("t", LEAF - 4096, 8192),
        Punch("p", 0, LEAF),
        Unlink("t"),
        Unlink("p"),
        Clone("t", "n"),
        CloneRange("t", 0, "s", 512, 514),
        CloneRange("o", 510, "t", 511, 2),
        Store("t", LEAF + 4000, 40),
        Store("p", LEAF - 200, 100),
    ];
    Setup::new("tall", &build, ops)
}

/// Files that contain the same, shared in part, not at all, and with a hole.
pub fn equal() -> Setup {
    use Op::*;
    let build = [
        Create("a"),
        Write("a", 0, 9000),
        Clone("a", "b"),
        Create("c"),
        Copy("a", "c"),
        Clone("c", "d"),
        Write("d", 4096, 100),
        Copy("a", "d"),
    ];
    let ops = vec![
        Dedupe("a", "c"),
        Dedupe("c", "b"),
        Dedupe("b", "d"),
        Write("c", 0, 100),
        Store("c", 0, 100),
        Store("a", 4096, 8),
        Write("d", 0, 4096),
        Unlink("a"),
        Truncate("c", 4096),
    ];
    Setup::new("equal", &build, ops)
}

/// Files with blocks that are unwritten: beside others, alone, shared; and files to be made so.
pub fn unwritten() -> Setup {
    use Op::*;
    let build = [
        // Three blocks unwritten, one written, a hole. What was in them before must not come back.
        Create("u"),
        Write("u", 0, 16_384),
        Provide("u", 0, 12_288),
        Truncate("u", 20_480),
        // The inode refers to the only block.
        Create("v"),
        Write("v", 0, 3000),
        Provide("v", 0, 3000),
        Create("w"),
        Write("w", 0, 12_288),
        Provide("w", 0, 12_288),
        Clone("w", "x"),
        Create("y"),
        Write("y", 0, 9000),
        Clone("y", "z"),
        Write("y", 0, 9000),
        Create("e"),
        Truncate("e", 12_288),
    ];
    let ops = vec![
        Write("u", 100, 200),
        Write("u", 4000, 8400),
        Write("u", 8192, 4100),
        Write("u", 4096, 8192),
        Write("v", 100, 200),
        Write("v", 0, 3000),
        Write("w", 100, 5000),
        Write("x", 4096, 4096),
        Append("v", 500),
        // Its tree grows above the block that is unwritten.
        Append("v", 5000),
        Write("v", 2900, 3000),
        Receive("u", 0, 8192),
        Store("u", 4090, 20),
        Store("v", 3, 20),
        Store("w", 5000, 20),
        Provide("u", 0, 20_480),
        Provide("u", 12_000, 3000),
        Provide("v", 0, 3000),
        Provide("w", 0, 12_288),
        Provide("w", 100, 200),
        Provide("y", 0, 9000),
        Provide("y", 100, 5000),
        Provide("z", 100, 5000),
        Provide("e", 0, 12_288),
        Provide("e", 5, 5),
        Punch("u", 0, 8192),
        Punch("u", 100, 200),
        Truncate("u", 5000),
        Truncate("u", 24_581),
        Truncate("v", 9000),
        Truncate("w", 100),
        Clone("u", "n"),
        Clone("v", "n"),
        CloneRange("u", 0, "y", 0, 2),
        CloneRange("y", 0, "u", 0, 2),
        CloneRange("v", 0, "y", 2, 1),
        Dedupe("e", "w"),
        Dedupe("w", "x"),
        Freeze("u"),
        Freeze("v"),
        Thaw,
        Sync("u"),
        Unlink("u"),
        Unlink("x"),
        Reclaim,
        Remount,
    ];
    Setup::new("unwritten", &build, ops)
}

/// Files with several names, and symbolic links.
pub fn links() -> Setup {
    use Op::*;
    let build = [
        Mkdir("d"),
        Create("a"),
        Write("a", 0, 5000),
        Create("h"),
        Write("h", 0, 6000),
        Link("h", "d/h"),
        Clone("h", "c"),
        Link("c", "d/c"),
        Link("c", "i"),
        Symlink("d/h", "s"),
        Symlink("nowhere", "d/s"),
    ];
    let ops = vec![
        Link("a", "n"),
        Link("a", "d/n"),
        Link("h", "n"),
        Link("c", "d/n"),
        Link("s", "n"),
        Symlink("a", "n"),
        Symlink("../c", "d/n"),
        Symlink("d/h", "m"),
        Create("n"),
        Clone("h", "n"),
        Unlink("a"),
        Unlink("h"),
        Unlink("d/h"),
        Unlink("c"),
        Unlink("i"),
        Unlink("s"),
        Unlink("d/s"),
        // Onto a name of something else, of a file with more names, of itself; onto links.
        Rename("a", "h"),
        Rename("h", "a"),
        Rename("h", "d/h"),
        Rename("h", "n"),
        Rename("h", "c"),
        Rename("d/c", "h"),
        Rename("s", "d/h"),
        Rename("s", "d/n"),
        Rename("d/s", "s"),
        Rename("a", "s"),
        // In the place of the only name, of one of several, and of a link.
        Put("a", 100),
        Put("d/h", 5000),
        Put("s", 100),
        Write("h", 100, 200),
        Write("d/c", 4096, 3000),
        Append("h", 3000),
        Truncate("h", 0),
        CloneRange("a", 0, "h", 0, 1),
        Store("d/c", 4090, 20),
        Sync("h"),
        Remount,
    ];
    let mut setup = Setup::new("links", &build, ops);
    // A target that takes all of its block, and one byte less.
    let long: &'static str = "t".repeat(4095).leak();
    setup.large = vec![Symlink(long, "n"), Symlink(&long[1..], "n")];
    setup
}

/// A bucket and a block of inodes that are full: the next name splits the one, the next
/// inode needs another one.
pub fn full() -> Setup {
    use Op::*;
    // A bucket has room for 384 units; a name of 240 bytes takes 31.
    let long = |i: usize| -> &'static str { format!("{i:0240}").leak() };
    let mut build: Vec<Op> = (0..12).map(|i| Create(long(i))).collect();
    build.extend([Mkdir("d"), Create("d/c"), Write("d/c", 0, 3000)]);
    let short = |i: usize| -> &'static str { format!("d/{i}").leak() };
    // Another block of inodes is made once 4 or fewer of the first 32 are left.
    build.extend((0..13).map(|i| Create(short(i))));
    let ops = vec![
        Create(long(20)),
        Mkdir(long(20)),
        Create("d/n"),
        Mkdir("d/m"),
        Clone("d/c", long(20)),
        Clone("d/c", "d/n"),
        Rename("d/c", long(20)),
        Rename(long(0), long(20)),
        Rename(long(1), long(2)),
        Rename(long(1), "d/n"),
        Link("d/c", long(20)),
        Symlink("d/c", long(20)),
        Symlink("c", "d/n"),
        Put(long(20), 100),
        Put(long(1), 100),
        Unlink(long(3)),
    ];
    Setup::new("full", &build, ops)
}
