//! The fault path: from the processor's page fault to the filesystem and back.
//!
//! ```text
//!  store to a page            umbra_page_fault saves what Rust may change
//!        |                            |
//!        |   not writable             v
//!        '--------------->   traps::page_fault: in the window area?  -- no --> report
//!                                     | yes
//!                                     v
//!                            resolve: Volume::fault copies, publishes, maps
//!                                     |
//!              Ok: the access is tried again     Err: the copy goes on at its fixup
//! ```
//!
//! Where an operation has parked the faults of the file, the copy ends with [`Error::Parked`], and
//! is begun again when the operation is over.

use super::{VOLUME, tables};
use core::fmt;
use spin::Mutex;
use umbra_fs::Error;
use umbra_fs::dax::Access;

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The access can be tried again.
    Retry,
    /// It cannot, or not yet: the copy that it is part of ends at this address of code (see
    /// [`take_failure`]).
    EndsAt(u64),
    /// It is a bug that it happened (see [`why_unresolved`]).
    Bug,
}

/// An access that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// The address that could not be accessed.
    pub(crate) address: u64,
    /// Why.
    pub(crate) error: Error,
}

#[derive(Clone, Copy, Debug)]
enum Bug {
    Locked,
    NoVolume,
    NoFixup(Error),
}

static FAILURE: Mutex<Option<Failure>> = Mutex::new(None);
static BUG: Mutex<Option<Bug>> = Mutex::new(None);

/// Whether an address is in the window area.
pub(crate) fn in_windows(address: u64) -> bool {
    tables::page_of(address).is_some()
}

/// Resolves a page fault at an address of the window area. `fixup` is where the copy ends that the
/// interrupted instruction is part of, if it is part of one that can fail.
pub(crate) fn resolve(address: u64, access: Access, fixup: Option<u64>) -> Outcome {
    let Some(page) = tables::page_of(address) else { return Outcome::Bug };
    let Some(mut volume) = VOLUME.try_lock() else { return bug(Bug::Locked) };
    let Some(volume) = volume.as_mut() else { return bug(Bug::NoVolume) };
    match (volume.fault(page, access), fixup) {
        (Ok(()), _) => Outcome::Retry,
        (Err(error), Some(fixup)) => {
            *FAILURE.lock() = Some(Failure { address, error });
            Outcome::EndsAt(fixup)
        }
        (Err(error), None) => bug(Bug::NoFixup(error)),
    }
}

fn bug(bug: Bug) -> Outcome {
    if let Some(mut last) = BUG.try_lock() {
        *last = Some(bug);
    }
    Outcome::Bug
}

/// Takes what the last failed access failed by.
pub(crate) fn take_failure() -> Option<Failure> {
    FAILURE.lock().take()
}

/// Why the last fault was a bug, for the report.
pub(crate) fn why_unresolved() -> impl fmt::Display {
    struct Why(Option<Bug>);
    impl fmt::Display for Why {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                Some(Bug::Locked) => f.write_str("the volume is locked by the code that faulted"),
                Some(Bug::NoVolume) => f.write_str("no volume is mounted"),
                Some(Bug::NoFixup(error)) => write!(f, "{error}, and the access cannot be told"),
                None => f.write_str("no reason is known"),
            }
        }
    }
    Why(BUG.try_lock().and_then(|bug| *bug))
}
