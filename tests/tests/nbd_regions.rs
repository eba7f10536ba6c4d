//! NVDIMMs beside the volume's, served whole: device DAX over NBD.

use std::fs;
use umbra_proto::nbd::{Command, ReplyCode, Style, command_flags as flag};
use umbra_tests::nbd::Disk;
use umbra_tests::random::Random;
use umbra_tests::{Machine, Vm};

const SIZE: usize = 16 << 20;

/// The exports that are listed, and the bytes of each.
fn exports(vm: &Vm) -> Vec<(String, u64)> {
    let all = vm.json(&["export", "list"]);
    let all = all["exports"].as_array().expect("a list");
    all.iter()
        .map(|it| (it["name"].as_str().unwrap().to_string(), it["size"].as_u64().unwrap()))
        .collect()
}

#[test]
fn an_empty_nvdimm_is_a_disk_and_one_with_a_volume_is_left_alone() {
    let vm = Machine::nvdimm("64M").prepare();
    vm.up();
    vm.down();
    let (scratch, other) = (vm.file("scratch, really.img"), vm.file("other.img"));
    // Somebody's volume.
    fs::copy(vm.state().nvdimm(), &other).unwrap();
    let volume = fs::read(&other).unwrap();
    let [scratch_path, other_path] =
        [&scratch, &other].map(|path| path.to_str().unwrap().to_string());
    let sized = format!("{scratch_path}:16M");
    vm.up_with(&["--extra-nvdimm", &sized, "--extra-nvdimm", &other_path]);
    assert_eq!(exports(&vm), [("nvdimm:1".to_string(), SIZE as u64)]);

    let mut expected = vec![0; SIZE];
    let mut random = Random::new(7);
    for style in [Style::Simple, Style::Structured, Style::Extended] {
        let mut disk = Disk::open(vm.state(), "nvdimm:1", style);
        assert_eq!(disk.size, SIZE as u64);
        assert!(disk.read(0, SIZE) == expected, "{style:?}");
        for i in 0..60 {
            let len = 1 + random.below([600, 5000, 300_000][i % 3]) as usize;
            let at = random.below((SIZE - len) as u64) as usize;
            let bytes = random.bytes(len);
            disk.write(at as u64, &bytes);
            expected[at..at + len].copy_from_slice(&bytes);
        }
        disk.flush();
        let reply = disk.call(Command::WRITE_ZEROES, flag::FUA, 5_000_001, 333_333, &[]);
        assert_eq!(reply.error, None);
        expected[5_000_001..][..333_333].fill(0);
    }
    for (name, code, why) in [
        ("nvdimm:0", ReplyCode::ERR_POLICY, "the volume is on it"),
        ("nvdimm:2", ReplyCode::ERR_POLICY, "it holds a volume of its own"),
        ("nvdimm:3", ReplyCode::ERR_UNKNOWN, "regions here: 3"),
    ] {
        let (found, said) = Disk::refused(vm.state(), name);
        assert!(found == code && said.contains(why), "{name}: {found}: {said}");
    }

    vm.kill_qemu();
    assert!(fs::read(&scratch).unwrap() == expected, "the image has what was flushed");
    // The other way round: the volume keeps its place, and each of the others has the number of its
    // place.
    vm.up_with(&["--extra-nvdimm", &other_path, "--extra-nvdimm", &scratch_path]);
    let mut disk = Disk::open(vm.state(), "nvdimm:2", Style::Extended);
    assert!(disk.read(0, SIZE) == expected);
    drop(disk);
    let error = Machine::nvdimm("64M").prepare().fails(&[
        "up",
        "--detach",
        "--extra-nvdimm",
        &scratch_path,
    ]);
    assert!(error.contains("in use as an NVDIMM already"), "{error}");
    vm.assert_clean();
    vm.down();
    assert!(fs::read(&other).unwrap() == volume, "nobody wrote to the volume that is not served");

    vm.up();
    assert_eq!(Disk::refused(vm.state(), "nvdimm:1").0, ReplyCode::ERR_UNKNOWN);
    vm.down();
}
