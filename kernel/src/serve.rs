//! The poll loop: everything that the kernel does once it runs.

use crate::arch::serial::println;
use crate::arch::{clock, interrupts};
use crate::config::Config;
use crate::console::Console;
use crate::dax::Processor;
use crate::platform::KernelPlatform;
use crate::{error_log, media, net};
use umbra_server::platform::{Turn, take_turn};
use umbra_server::{Progress, Shared};

/// How long a power-off waits for what is queued on connections.
const FAREWELL_NS: u64 = 200_000_000;

/// How long clients keep their turns after that, while what was released is reclaimed step by step.
/// Clients that release more all the time cannot hold up a power-off for longer.
const RECLAIM_NS: u64 = 5_000_000_000;

/// How long the processor looks out for packets before it sleeps, at most and at least. To be woken
/// costs the host several switches between threads, which is most of the time that a small request
/// takes.
const MOST_LOOKING_NS: u64 = 100_000;
const LEAST_LOOKING_NS: u64 = 25_000;

/// Between two rounds in which there was nothing to do.
///
/// Polling pays only if packets come soon after one another and their sender has a processor of its
/// own. How long the last sleeps were shows whether that is so.
#[derive(Default)]
struct Pause {
    looking_ns: u64,
}

impl Pause {
    /// Waits for something to do: looks out for a while, then sleeps.
    fn rest(&mut self) {
        let start = clock::now().0;
        while self.looking_ns > 0 && clock::now().0 - start < self.looking_ns {
            if net::has_news() || interrupts::is_woken() {
                return;
            }
        }
        if net::listen() {
            return;
        }
        let start = clock::now().0;
        interrupts::sleep();
        self.looking_ns = looking_after(self.looking_ns, clock::now().0 - start);
    }
}

/// How long to look out after a sleep of this length.
fn looking_after(before: u64, slept_ns: u64) -> u64 {
    if slept_ns < MOST_LOOKING_NS {
        (before * 2).clamp(LEAST_LOOKING_NS, MOST_LOOKING_NS)
    } else if before / 2 < LEAST_LOOKING_NS {
        0
    } else {
        before / 2
    }
}

/// Serves for good.
///
/// Does whatever there is to do, and sleeps otherwise. Whatever an interrupt brings after a
/// round began keeps that round from ending in sleep.
pub(crate) fn serve(config: Config) -> ! {
    net::init();
    let ready = clock::now();
    println!("ready {} ms", ready.0 / 1_000_000);
    let mut console = Console::new(config);
    let mut platform = None;
    let mut shared = Shared::default();
    let mut off_at = None;
    let mut pause = Pause::default();
    loop {
        interrupts::begin_round();
        let mut worked = error_log::act();
        worked |= match &mut platform {
            Some(platform) => take_turn(platform, Turn::Console, |_| console.poll(&shared)),
            None => console.poll(&shared),
        };
        // A volume can come into service later: by the console's `format`.
        if platform.is_none() {
            platform = Processor::new().map(|processor| KernelPlatform::new(processor, ready));
        }
        worked |= net::poll(platform.as_mut(), &mut shared);
        if let Some(platform) = &mut platform {
            if !worked {
                worked = umbra_server::background(platform) == Progress::Again;
            }
            if platform.wants_power_off() {
                let off_at = *off_at.get_or_insert(clock::now().after_ns(FAREWELL_NS));
                let now = clock::now();
                let is_told = !worked && net::is_drained() || now >= off_at;
                // The unmount reclaims whatever is left in one piece.
                let reclaims = is_told
                    && now < off_at.after_ns(RECLAIM_NS)
                    && umbra_server::background(platform) == Progress::Again;
                if is_told && !reclaims {
                    media::power_off();
                }
                worked |= reclaims;
                clock::wake_at(off_at);
            }
        }
        if !worked {
            pause.rest();
        }
    }
}
