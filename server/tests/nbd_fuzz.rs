//! Replays what the fuzz target of NBD does: its corpus, and inputs made from seeds, most of them
//! requests that are nearly right.

mod common;

use common::Random;
use umbra_proto::nbd::{Command, OptionCode, Request, Style};
use umbra_server::testing::fuzz::Template;
use umbra_server::testing::nbd::option;

fn offset(random: &mut Random) -> u64 {
    let edges =
        [0, 1, 4095, 4096, 40_000, (2 << 20) - 1, 3 << 20, (3 << 20) + 100, 1 << 20, u64::MAX];
    edges[random.below(edges.len())].wrapping_add(random.below(3) as u64)
}

fn length(random: &mut Random) -> u64 {
    match random.below(12) {
        0 => u64::MAX,
        1 => 33 << 20,
        2 => 2 << 20,
        _ => random.below(20_000) as u64,
    }
}

fn requests(random: &mut Random, style: Style) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cookie in 0..1 + random.below(20) as u64 {
        let command = Command(random.below(10) as u16);
        let flags = if random.below(3) == 0 { 1 << random.below(7) } else { 0 };
        let often = if command == Command::WRITE { 2 } else { 8 };
        let payload = style == Style::Extended && random.below(often) == 0;
        let flags = if payload { flags | 32 } else { flags };
        let carries = payload || command == Command::WRITE;
        let length = if carries { random.below(12_000) as u64 } else { length(random) };
        let request = Request { flags, command, cookie, offset: offset(random), length };
        match style {
            Style::Extended => bytes.extend(request.encode_extended()),
            _ => bytes.extend(request.encode()),
        }
        if carries {
            bytes.extend((0..length).map(|_| random.next() as u8));
        }
    }
    bytes
}

fn options(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, random.below(4) as u8];
    for _ in 0..random.below(10) {
        let data = match random.below(4) {
            0 => vec![],
            1 => b"\0\0\0\x04disk\0\x01\0\x03".to_vec(),
            2 => b"\0\0\0\x05clone\0\0\0\x01\0\0\0\x05base:".to_vec(),
            _ => (0..random.below(70)).map(|_| random.next() as u8).collect(),
        };
        bytes.extend(option(OptionCode(1 + random.below(12) as u32), &data));
    }
    bytes
}

#[test]
fn inputs_from_seeds_do_no_harm() {
    let template = Template::new();
    for seed in 0..700 {
        let mut random = Random(seed);
        let how = random.next() as u8;
        let style = match (how & 1, how >> 1 & 3) {
            (_, 0) => Style::Simple,
            (_, 1) => Style::Structured,
            _ => Style::Extended,
        };
        let mut bytes =
            if how & 1 == 0 { options(&mut random) } else { requests(&mut random, style) };
        if random.below(3) == 0 && !bytes.is_empty() {
            for _ in 0..1 + random.below(5) {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
        }
        template.nbd(&[&[how, random.next() as u8], &bytes[..]].concat());
    }
}

#[test]
fn the_corpus_does_no_harm() {
    let template = Template::new();
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/nbd");
    let mut count = 0;
    for file in std::fs::read_dir(corpus).expect("the corpus is there") {
        template.nbd(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}
