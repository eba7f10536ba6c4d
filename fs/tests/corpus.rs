//! The fuzz targets without a fuzzer: their corpus, and inputs at random from fixed seeds.

use std::path::Path;
use umbra_fs::testing::fuzz::Template;

fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// All inputs that were kept for a target.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    files.sort();
    files.iter().map(|p| (p.display().to_string(), std::fs::read(p).expect("an input"))).collect()
}

fn replay(target: &str, run: impl Fn(&[u8])) {
    for (name, input) in corpus(target) {
        println!("{name}");
        run(&input);
    }
    let count = std::env::var("UMBRA_FUZZ_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    for seed in 0..count {
        println!("seed {seed}");
        let mut input = random(seed, 30 + (seed % 400) as usize);
        // Half of the volumes are damaged a little, the others not at all.
        if seed % 2 == 0 {
            input[1] = 1 + input[1] % 2;
        } else {
            input[1] = 0;
        }
        run(&input);
    }
}

#[test]
fn mount_of_damaged_volumes() {
    let template = Template::new();
    replay("mount", |input| template.mount(input));
    for seed in 0..50 {
        let mut input = random(seed, 20_000);
        input[0] = 0xff;
        template.mount(&input);
    }
}

#[test]
fn operations_on_damaged_volumes() {
    let template = Template::new();
    replay("operate", |input| template.operate(input));
}
