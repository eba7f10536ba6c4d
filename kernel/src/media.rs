//! Mounting the volume of the NVDIMM, formatting it, and letting go of it.
//!
//! A blank NVDIMM is formatted, and so is one whose formatting was interrupted. One that holds
//! something else never is, unless told so. Without a volume the kernel goes on, and the console
//! says why there is none.

use crate::arch::clock;
use crate::config::Config;
use crate::dax::{self, WindowTables};
use crate::mm::boot::MemoryMap;
use crate::nvdimm::{self, Nvdimm};
use crate::{cpu, fw_cfg, power};
use alloc::format;
use alloc::string::{String, ToString};
use spin::Mutex;
use umbra_fs::{FormatOptions, MountError, Pmem};
use umbra_server::platform::Mounted;

/// Why no volume is served.
static WHY_NONE: Mutex<String> = Mutex::new(String::new());
/// How the volume that is served was mounted.
static MOUNTED: Mutex<Mounted> = Mutex::new(Mounted { took_ns: 0, rebuilt: false });
/// The NVDIMM and the page tables of windows, while no volume is served.
static IDLE: Mutex<Option<(Nvdimm, WindowTables)>> = Mutex::new(None);

/// Why no volume is served, if none is.
pub(crate) fn why_none() -> String {
    WHY_NONE.lock().clone()
}

/// Finds the NVDIMM and puts its volume into service, if that is possible.
pub(crate) fn start(memory: &MemoryMap, config: Config) {
    if let Err(why) = find_and_mount(memory, config) {
        log::error!("no volume: {why}");
        *WHY_NONE.lock() = why;
    }
}

/// Finds the NVDIMM and mounts its volume; formats a blank one, or any if told so.
fn find_and_mount(memory: &MemoryMap, config: Config) -> Result<(), String> {
    let nvdimm = nvdimm::find().map_err(|why| why.to_string())?;
    log::info!(
        "NVDIMM at {:#x}, {} MiB, lines written back by: {}",
        nvdimm.phys().as_u64(),
        nvdimm.len() >> 20,
        nvdimm::flush_name()
    );
    let windows = WindowTables::new(memory.usable(), config.slots, nvdimm.phys())
        .ok_or("no memory for page tables of windows")?;
    if config.no_volume {
        *IDLE.lock() = Some((nvdimm, windows));
        return Err("not mounted, as told (volume=no)".to_string());
    }
    if config.format {
        log::warn!("formatting: as told (format=yes)");
        return format_and_serve(nvdimm, windows);
    }
    match mount_and_serve(nvdimm, windows) {
        Err(why @ (MountError::Blank | MountError::Unfinished)) => {
            log::info!("formatting: {}", mount_error(why));
            format_now()
        }
        result => result.map_err(mount_error),
    }
}

/// Mounts the volume, notes how that went, and serves it. On failure its parts are idle.
fn mount_and_serve(nvdimm: Nvdimm, windows: WindowTables) -> Result<(), MountError> {
    let start = clock::now();
    let volume = match dax::Volume::mount(nvdimm, windows, clock::wall()) {
        Ok(volume) => volume,
        Err((why, nvdimm, windows)) => {
            *IDLE.lock() = Some((nvdimm, windows));
            return Err(why);
        }
    };
    let took_ns = clock::now().0 - start.0;
    let rebuilt = volume.was_rebuilt();
    *MOUNTED.lock() = Mounted { took_ns, rebuilt };
    let how = if rebuilt { ", counted anew" } else { "" };
    log::info!("mounted in {}.{:03} ms{how}", took_ns / 1_000_000, took_ns / 1000 % 1000);
    let space = volume.space();
    log::info!(
        "volume of {} blocks, {} free; {} window slots",
        space.total,
        space.free,
        dax::slots()
    );
    dax::serve(volume);
    Ok(())
}

/// How the volume was mounted.
pub(crate) fn mounted() -> Mounted {
    *MOUNTED.lock()
}

/// Overwrites the NVDIMM with an empty volume and serves that.
fn format_and_serve(mut nvdimm: Nvdimm, windows: WindowTables) -> Result<(), String> {
    if let Err(why) = dax::Volume::format(&mut nvdimm, format_options()) {
        *IDLE.lock() = Some((nvdimm, windows));
        return Err(mount_error(why));
    }
    mount_and_serve(nvdimm, windows).map_err(mount_error)
}

fn format_options() -> FormatOptions {
    let bits = u128::from(random()) | u128::from(random()) << 64;
    let uuid = uuid::Builder::from_random_bytes(bits.to_le_bytes()).into_uuid();
    FormatOptions { uuid: uuid.into_bytes(), seed: random(), now: clock::wall() }
}

/// A random word: the launcher's seed and `rdrand`, where there are any, and the moment.
fn random() -> u64 {
    static STATE: Mutex<u64> = Mutex::new(0);
    let mut state = STATE.lock();
    if *state == 0 {
        let seed = fw_cfg::file(fw_cfg::SEED).unwrap_or_default();
        *state = seed.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mix(hash ^ u64::from(*byte)));
    }
    *state = mix(*state ^ cpu::tsc() ^ cpu::random().unwrap_or(0));
    *state
}

/// A bijective mix of 64 bits (SplitMix64).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What happens to an NVDIMM that is not blank and cannot be mounted, and what can be done.
const LEFT_ALONE: &str = "it is left as it is: keep a copy of nvdimm.img if it had files; \
    `umbra up --format`, or \"format yes\" on the console, makes an empty volume of it";

fn mount_error(why: MountError) -> String {
    match why {
        MountError::Blank => "the NVDIMM is blank".to_string(),
        MountError::Unfinished => "formatting the NVDIMM was interrupted".to_string(),
        MountError::Foreign => {
            format!("the NVDIMM holds something that is no Umbra volume; {LEFT_ALONE}")
        }
        MountError::Version(_) | MountError::Features(_) => why.to_string(),
        MountError::TooSmall => "the NVDIMM is too small".to_string(),
        MountError::Superblocks => {
            format!("both superblocks of the volume are damaged; {LEFT_ALONE}")
        }
        MountError::Fs(why) => format!("the volume is damaged: {why}"),
    }
}

/// Formats an NVDIMM that is not served, and serves the empty volume. A volume in service is
/// left alone: its windows and clients would be lost.
pub(crate) fn format_now() -> Result<(), String> {
    let Some((nvdimm, windows)) = IDLE.lock().take() else {
        return Err(match dax::is_served() {
            true => {
                "a volume is served; to overwrite it, start with the option format=yes".to_string()
            }
            false => why_none(),
        });
    };
    let done = format_and_serve(nvdimm, windows);
    *WHY_NONE.lock() = done.as_ref().err().cloned().unwrap_or_default();
    done
}

/// Unmounts and powers off. Where the board does not let itself be powered off, QEMU ends with
/// its failure status.
pub(crate) fn power_off() -> ! {
    if let Some(volume) = dax::retire()
        && let Err(why) = volume.unmount()
    {
        log::error!("the volume was not unmounted cleanly: {why}; it will be rebuilt");
    }
    log::info!("powering off");
    panic!("{}", power::off());
}
