//! Stacks, each above a guard page.
//!
//! A stack that overflows stores into its guard page, which is never mapped, so that the
//! store faults. The processor cannot push the fault's frame there either, and takes a
//! double fault, on a stack of its own.

use super::{PAGE, STACKS};
use x86_64::VirtAddr;

/// Distance between the places of two stacks.
const PLACE: u64 = 1 << 20;

/// Whose stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    /// The one everything runs on: start-up, the poll loop, interrupts and page faults.
    Main,
    /// For double faults.
    DoubleFault,
    /// For non-maskable interrupts.
    Nmi,
    /// For machine checks.
    MachineCheck,
}

impl Stack {
    /// All of them.
    pub(crate) const ALL: [Stack; 4] =
        [Stack::Main, Stack::DoubleFault, Stack::Nmi, Stack::MachineCheck];

    /// Its size in bytes, without the guard page.
    pub(crate) const fn size(self) -> u64 {
        match self {
            Stack::Main => 128 << 10,
            _ => 16 << 10,
        }
    }

    /// What it is called in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Stack::Main => "the main stack",
            Stack::DoubleFault => "the double fault stack",
            Stack::Nmi => "the NMI stack",
            Stack::MachineCheck => "the machine check stack",
        }
    }

    /// Its guard page; the stack starts behind it.
    pub(crate) const fn guard(self) -> u64 {
        STACKS + self as u64 * PLACE
    }

    /// Its lowest byte.
    pub(crate) const fn bottom(self) -> u64 {
        self.guard() + PAGE
    }

    /// The address behind its first entry: stacks grow down.
    pub(crate) fn top(self) -> VirtAddr {
        VirtAddr::new(self.bottom() + self.size())
    }

    /// Whose guard page has this address.
    pub(crate) fn of_guard(address: u64) -> Option<Stack> {
        Stack::ALL.into_iter().find(|s| (s.guard()..s.bottom()).contains(&address))
    }

    /// Whose stack has this address.
    pub(crate) fn containing(address: u64) -> Option<Stack> {
        Stack::ALL.into_iter().find(|s| (s.bottom()..s.bottom() + s.size()).contains(&address))
    }
}
