//! A request that takes more than one step.

use super::content::PageCounting;
use super::failure::Failure;
use super::listing::Listing;
use super::names::{Directories, Emptying};
use super::naming::Naming;
use super::operating::Operating;
use super::session::{Session, Step};
use super::sharing::Sharing;
use super::transfer::Transfer;
use crate::platform::Platform;
use crate::stream::Stream;

/// A request that takes more than one step.
pub enum Work {
    /// Bytes between a file and the stream.
    Transfer(Transfer),
    /// An answer of many items.
    Listing(Listing),
    /// A dedupe.
    Sharing(Sharing),
    /// A directory that is removed, or replaced.
    Emptying(Emptying),
    /// The pages of a file.
    Pages(PageCounting),
    /// Directories, those above them too.
    Directories(Directories),
    /// A name for a file that is made durable first.
    Naming(Naming),
    /// Anything else that may be large.
    Operation(Operating),
}

impl Work {
    /// Takes the next step.
    ///
    /// # Errors
    ///
    /// Why the request failed; then it is over.
    pub fn step<M: Platform>(
        &mut self,
        session: &mut Session,
        stream: &mut dyn Stream,
        machine: &mut M,
    ) -> Result<Step, Failure> {
        match self {
            Work::Transfer(transfer) => transfer.step(session, stream, machine),
            Work::Listing(listing) => listing.step(session, machine),
            Work::Sharing(sharing) => sharing.step(session, machine),
            Work::Emptying(emptying) => emptying.step(session, machine),
            Work::Pages(counting) => counting.step(session, machine),
            Work::Directories(directories) => directories.step(session, machine),
            Work::Naming(naming) => naming.step(session, machine),
            Work::Operation(operation) => operation.step(session, machine),
        }
    }

    /// Gives it up: the client is gone.
    pub fn abandon<M: Platform>(self, machine: &mut M) {
        match self {
            Work::Operation(operation) => operation.abandon(machine),
            Work::Sharing(sharing) => sharing.abandon(machine),
            Work::Naming(naming) => naming.abandon(machine),
            Work::Listing(listing) => listing.abandon(machine),
            Work::Transfer(_) | Work::Emptying(_) | Work::Pages(_) | Work::Directories(_) => {}
        }
    }
}

impl From<Transfer> for Work {
    fn from(transfer: Transfer) -> Self {
        Work::Transfer(transfer)
    }
}

impl From<Listing> for Work {
    fn from(listing: Listing) -> Self {
        Work::Listing(listing)
    }
}

impl From<Sharing> for Work {
    fn from(sharing: Sharing) -> Self {
        Work::Sharing(sharing)
    }
}

impl From<Emptying> for Work {
    fn from(emptying: Emptying) -> Self {
        Work::Emptying(emptying)
    }
}

impl From<PageCounting> for Work {
    fn from(counting: PageCounting) -> Self {
        Work::Pages(counting)
    }
}

impl From<Directories> for Work {
    fn from(directories: Directories) -> Self {
        Work::Directories(directories)
    }
}

impl From<Naming> for Work {
    fn from(naming: Naming) -> Self {
        Work::Naming(naming)
    }
}

impl From<Operating> for Work {
    fn from(operating: Operating) -> Self {
        Work::Operation(operating)
    }
}
