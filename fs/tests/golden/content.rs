//! What is in a golden image: a little of everything that the format has.

use std::collections::BTreeMap;
use umbra_fs::dax::{self, Machine};
use umbra_fs::testing::{FORMAT, MemPmem, SoftMachine, SoftMmu, mount};
use umbra_fs::{Error, Ino, Kind, SetAttributes, Time, Volume};

/// Size of the region: the smallest there is.
pub const REGION: u64 = 8 << 20;
/// Of everything that the images hold.
pub const NOW: Time = Time(1_790_000_000_123_456_789);
/// Change of content of the file whose times are set.
pub const SET: Time = Time(-5);

type Soft = Volume<MemPmem, SoftMmu>;

/// What an image shows under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub kind: Kind,
    pub mode: u16,
    pub nlink: u32,
    pub owner: (u32, u32),
    pub mtime: Time,
    pub content: Vec<u8>,
}

/// All names of an image, by their path.
pub type Tree = BTreeMap<String, Seen>;

/// Bytes that differ from place to place and compress well.
pub fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| seed ^ (i / 64) as u8).collect()
}

/// A name that fills a bucket soon: 60 of them split one twice.
pub fn long_name(i: u32) -> String {
    format!("{i:02}-{}", "a-name-that-takes-room-".repeat(4))
}

/// The target of the long link: more than a line of memory.
pub fn long_target() -> String {
    "../".repeat(100)
}

/// An image as it is kept, before it is compressed: blocks that hold something, each behind its
/// number.
pub fn pack(image: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (number, block) in (0u32..).zip(image.chunks(4096)) {
        if block.iter().any(|&b| b != 0) {
            packed.extend(number.to_le_bytes());
            packed.extend(block);
        }
    }
    packed
}

/// The image that was packed.
pub fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut image = vec![0; REGION as usize];
    for (number, block) in packed.chunks(4 + 4096).map(|piece| piece.split_at(4)) {
        let at = u32::from_le_bytes(number.try_into().expect("4 bytes")) as usize * 4096;
        image[at..at + 4096].copy_from_slice(block);
    }
    image
}

/// A volume with all of it, not unmounted. One more file is open and has lost its name.
pub fn build() -> Soft {
    let mut memory = MemPmem::new(REGION);
    Soft::format(&mut memory, FORMAT).expect("a blank region can be formatted");
    let volume = mount(memory, 4).expect("a new volume can be mounted");
    let mut machine = SoftMachine { volume };
    fill(&mut machine).expect("there is room");
    machine.volume
}

fn fill(machine: &mut SoftMachine<MemPmem>) -> Result<(), Error> {
    let volume = &mut machine.volume;
    let root = volume.root();
    let dir = volume.mkdir(root, b"dir", 0o750, NOW)?;
    let sub = volume.mkdir(dir, b"sub", 0o1777, NOW)?;
    volume.create(sub, b"empty", 0o600, NOW)?;
    let small = volume.create(root, b"small", 0o644, NOW)?;
    volume.write(small, 0, b"a small file\n", NOW)?;
    let set =
        SetAttributes { mode: Some(0o4755), uid: Some(1000), gid: Some(100), ..Default::default() };
    volume.set_attributes(small, SetAttributes { mtime: Some(SET), ..set }, NOW)?;
    let wide = volume.create(root, b"wide", 0o644, NOW)?;
    volume.write(wide, 0, &pattern(1, 20_000), NOW)?;
    volume.link(wide, dir, b"again", NOW)?;
    let clone = volume.clone_file(wide, dir, b"clone", NOW)?;
    volume.write(clone, 5000, &pattern(2, 100), NOW)?;
    let range = volume.create(root, b"range", 0o644, NOW)?;
    volume.clone_range(wide, 4096, range, 8192, 8192, NOW)?;
    // A tree of two levels, with holes.
    let tall = volume.create(root, b"tall", 0o644, NOW)?;
    volume.write(tall, 3 << 20, b"far out", NOW)?;
    volume.write(tall, 0, b"near", NOW)?;
    volume.truncate(tall, 5 << 20, NOW)?;
    volume.symlink(root, b"link", b"dir/clone", NOW)?;
    volume.symlink(dir, b"long", long_target().as_bytes(), NOW)?;
    let many = volume.mkdir(root, b"many", 0o755, NOW)?;
    for i in 0..60 {
        volume.create(many, long_name(i).as_bytes(), 0o644, NOW)?;
    }
    for i in (0..60).step_by(7) {
        volume.unlink(many, long_name(i).as_bytes(), NOW)?;
    }
    volume.rename(many, long_name(1).as_bytes(), root, "ren\u{e4}med".as_bytes(), NOW)?;
    // Stored through a window.
    let window = volume.open_window(clone)?;
    dax::store(machine, window, 9000, b"stored").map_err(|e| e.error)?;
    machine.volume(|v| v.close_window(window))?;
    let volume = &mut machine.volume;
    let orphan = volume.create(root, b"orphan", 0o644, NOW)?;
    volume.write(orphan, 0, &pattern(3, 5000), NOW)?;
    volume.open_window(orphan)?;
    volume.unlink(root, b"orphan", NOW)
}

/// What it has to show.
pub fn expected() -> Tree {
    let mut tree = Tree::new();
    let mut add = |path: &str, kind, mode, nlink, content: Vec<u8>| {
        let seen = Seen { kind, mode, nlink, owner: (0, 0), mtime: NOW, content };
        assert!(tree.insert(path.into(), seen).is_none(), "{path} twice");
    };
    let none = Vec::new;
    add("dir", Kind::Directory, 0o750, 1, none());
    add("dir/sub", Kind::Directory, 0o1777, 1, none());
    add("dir/sub/empty", Kind::File, 0o600, 1, none());
    add("small", Kind::File, 0o4755, 1, b"a small file\n".to_vec());
    let wide = pattern(1, 20_000);
    add("wide", Kind::File, 0o644, 2, wide.clone());
    add("dir/again", Kind::File, 0o644, 2, wide.clone());
    let mut clone = wide.clone();
    clone[5000..5100].copy_from_slice(&pattern(2, 100));
    clone[9000..9006].copy_from_slice(b"stored");
    add("dir/clone", Kind::File, 0o644, 1, clone);
    add("range", Kind::File, 0o644, 1, [&[0; 8192], &wide[4096..12288]].concat());
    let mut tall = vec![0; 5 << 20];
    tall[..4].copy_from_slice(b"near");
    tall[3 << 20..(3 << 20) + 7].copy_from_slice(b"far out");
    add("tall", Kind::File, 0o644, 1, tall);
    add("link", Kind::Symlink, 0o777, 1, b"dir/clone".to_vec());
    add("dir/long", Kind::Symlink, 0o777, 1, long_target().into());
    add("many", Kind::Directory, 0o755, 1, none());
    for i in (0..60).filter(|i| i % 7 != 0 && *i != 1) {
        add(&format!("many/{}", long_name(i)), Kind::File, 0o644, 1, none());
    }
    add("ren\u{e4}med", Kind::File, 0o644, 1, none());
    let small = tree.get_mut("small").expect("it was added");
    (small.owner, small.mtime) = ((1000, 100), SET);
    tree
}

/// What a mounted volume shows.
pub fn dump(volume: &Soft) -> Tree {
    let mut tree = Tree::new();
    dump_dir(volume, volume.root(), "", &mut tree);
    tree
}

fn dump_dir(volume: &Soft, dir: Ino, prefix: &str, tree: &mut Tree) {
    let mut names = Vec::new();
    let listed = volume.read_dir(dir, 0, &mut |entry| {
        names.push((String::from_utf8(entry.name.to_vec()).expect("UTF-8"), entry.ino));
        std::ops::ControlFlow::Continue(())
    });
    listed.expect("it can be listed");
    for (name, ino) in names {
        let path = format!("{prefix}{name}");
        let a = volume.attributes(ino).expect("it has attributes");
        let mut content = vec![0; if a.kind == Kind::Directory { 0 } else { a.size as usize }];
        match a.kind {
            Kind::Directory => dump_dir(volume, ino, &format!("{path}/"), tree),
            Kind::Symlink => content = volume.read_link(ino).expect("it has a target"),
            Kind::File => assert_eq!(volume.read(ino, 0, &mut content), Ok(a.size as usize)),
        }
        let owner = (a.uid, a.gid);
        let seen =
            Seen { kind: a.kind, mode: a.mode, nlink: a.nlink, owner, mtime: a.mtime, content };
        tree.insert(path, seen);
    }
}
