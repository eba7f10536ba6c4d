//! Golden images: volumes of each format version, as they were written when it was declared.
//!
//! They have to be mounted, and to show what they showed then. And what is written now has to be
//! of the same version: a second reader, which knows nothing but the format's description, reads
//! both. A change of the format makes this fail; see docs/on-disk-format.md, "Changing the format".

#[path = "golden/content.rs"]
#[allow(dead_code)]
mod content;
#[path = "golden/reader.rs"]
mod reader;

use content::{REGION, Tree, build, dump, expected, unpack};
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use reader::Image;
use umbra_fs::MountError;
use umbra_fs::testing::{MemPmem, mount};

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let packed = std::fs::read(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
    unpack(&decompress_to_vec_zlib_with_limit(&packed, 2 * REGION as usize).expect("an image"))
}

fn assert_same(found: &Tree, what: &str) {
    let expected = expected();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (path, seen) in found {
        assert!(seen == &expected[path], "{what}: {path} differs");
    }
}

/// Mounts, compares, changes, and mounts again.
fn mount_and_use(bytes: Vec<u8>, clean: bool) {
    let mut volume = mount(MemPmem::from_bytes(bytes), 3).expect("a golden image can be mounted");
    assert_eq!(volume.was_rebuilt(), !clean);
    assert_same(&dump(&volume), "mounted");
    assert_eq!(volume.check().expect("it can be checked").issues, Vec::<String>::new());
    let ino = volume.resolve(b"dir/clone").expect("it is there");
    volume.write(ino, 0, b"changed", content::NOW).expect("it can be changed");
    volume.write(ino, 0, &content::pattern(1, 7), content::NOW).expect("and back");
    let (memory, _) = volume.unmount().expect("it can be unmounted");
    let mut image = Image::new(memory.bytes());
    assert_same(&image.tree(), "after use, by the second reader");
    image.verify_derived();
}

#[test]
fn version_2_clean() {
    mount_and_use(golden("v2-clean.z"), true);
}

#[test]
fn version_2_after_a_crash() {
    mount_and_use(golden("v2-unclean.z"), false);
}

#[test]
fn the_golden_images_are_what_the_format_says() {
    let bytes = golden("v2-unclean.z");
    assert_same(&Image::new(&bytes).tree(), "unclean");
    let bytes = golden("v2-clean.z");
    let mut image = Image::new(&bytes);
    assert_same(&image.tree(), "clean");
    image.verify_derived();
}

#[test]
fn what_is_written_now_is_version_2() {
    let volume = build();
    assert_same(&Image::new(volume.pmem().bytes()).tree(), "not unmounted");
    let (memory, _) = volume.unmount().expect("it can be unmounted");
    let mut image = Image::new(memory.bytes());
    assert_same(&image.tree(), "unmounted");
    image.verify_derived();
}

/// A volume of version 1 is told by either superblock, and how to save its files is said.
#[test]
fn version_1_is_refused_by_its_number() {
    for name in ["v1-clean.z", "v1-unclean.z"] {
        for lost in [None, Some(0), Some(4096)] {
            let mut bytes = golden(name);
            if let Some(at) = lost {
                bytes[at..at + 4096].fill(0);
            }
            let memory = MemPmem::from_bytes(bytes);
            assert!(umbra_fs::holds_volume(&memory));
            let error = mount(memory, 3).map(drop).expect_err("it is not read");
            assert_eq!(error, MountError::Version(1), "{name} without {lost:?}");
            assert!(error.to_string().contains("umbra get"), "{error}");
        }
    }
}

#[test]
fn another_version_is_refused_by_its_number() {
    let mut bytes = golden("v2-clean.z");
    for copy in [0, 2047 * 4096] {
        bytes[copy + 8] = 3;
        let sum =
            crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&bytes[copy..copy + 4088]) as u64;
        bytes[copy + 4088..copy + 4096].copy_from_slice(&sum.to_le_bytes());
    }
    let error = mount(MemPmem::from_bytes(bytes), 3).err();
    assert_eq!(error, Some(MountError::Version(3)));
}
