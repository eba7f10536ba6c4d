//! Windows on bare metal: real page tables, real faults, real loads and stores.
//!
//! What is shown where is the filesystem's business (`umbra_fs::dax`). Here are its page
//! tables, the entry of the page faults that drive it, and the copies that survive a fault
//! that it cannot resolve.
//!
//! The mounted volume is behind a lock that is never held across an access to a window: the
//! fault handler runs inside that access, and takes the lock itself. A fault that finds it
//! taken is a bug, and is reported as one.
//!
//! | file | what it holds |
//! |---|---|
//! | `tables.rs` | page tables of the window area |
//! | `fault.rs` | from the exception (`traps/exceptions.rs`) to `Volume::fault` and back |
//! | `processor.rs` | loads and stores |

pub(crate) mod fault;
mod processor;
mod tables;

pub(crate) use processor::Processor;
pub(crate) use tables::{SLOT, WindowTables, slots};

use crate::nvdimm::Nvdimm;
use spin::Mutex;

/// The volume that the kernel serves.
pub(crate) type Volume = umbra_fs::Volume<Nvdimm, WindowTables>;

static VOLUME: Mutex<Option<Volume>> = Mutex::new(None);

/// Puts a mounted volume into service.
pub(crate) fn serve(volume: Volume) {
    *VOLUME.lock() = Some(volume);
}

/// Takes the volume out of service.
pub(crate) fn retire() -> Option<Volume> {
    VOLUME.lock().take()
}

/// Whether a volume is in service.
pub(crate) fn is_served() -> bool {
    VOLUME.lock().is_some()
}

/// Runs `f` on the volume, if one is served; `None` if somebody is at work on it.
pub(crate) fn if_idle<R>(f: impl FnOnce(Option<&mut Volume>) -> R) -> Option<R> {
    VOLUME.try_lock().map(|mut volume| f(volume.as_mut()))
}

/// Runs `f` on the volume, if one is served. `f` must not access a window.
pub(crate) fn with_volume<R>(f: impl FnOnce(&mut Volume) -> R) -> Option<R> {
    VOLUME.lock().as_mut().map(f)
}
