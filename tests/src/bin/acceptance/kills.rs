//! QEMU killed under writers that log what was made durable: no figure, but a test that takes long.

use umbra_tests::kills;

/// Kills.
const KILLS: u32 = 50;

/// Kills QEMU again and again; panics if something that a FLUSH covered is gone.
pub fn run() {
    let seed = std::process::id().into();
    eprintln!("killing QEMU {KILLS} times under writers of NBD (seed {seed}) ...");
    let outcome = kills::run(KILLS, seed, &mut |round| eprint!("\r{round} "));
    println!(
        "nbd-kills: {} kills, {} writes and {} flushes acknowledged: all that was flushed was \
         there, the original unchanged",
        outcome.kills, outcome.writes, outcome.flushes
    );
}
