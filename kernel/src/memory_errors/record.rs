//! What a bank of the processor says of one error (SDM volume 3, 17.3.2).
#![forbid(unsafe_code)]

use core::ops::Range;

/// MCi_STATUS: the bank holds an error.
pub(crate) const VALID: u64 = 1 << 63;
/// MCi_STATUS: data was lost.
const UNCORRECTED: u64 = 1 << 61;
/// MCi_STATUS: MCi_MISC says more.
pub(crate) const MISC_VALID: u64 = 1 << 59;
/// MCi_STATUS: MCi_ADDR holds an address.
pub(crate) const ADDRESS_VALID: u64 = 1 << 58;
/// MCi_STATUS: the processor's own state may be wrong.
const CONTEXT_CORRUPT: u64 = 1 << 57;

/// In place of the number of a bank: the error was injected.
pub(crate) const INJECTED: u64 = u64::MAX;

/// MCi_MISC: how many low bits of the address mean nothing.
const GRANULE: u64 = 0x3f;
/// The same for an error that does not say: a line.
const LINE_SHIFT: u64 = 6;
/// The largest granule that is believed: 1 GiB.
const MOST_SHIFT: u64 = 30;

/// One error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The bank that reported it.
    pub(crate) bank: u64,
    /// MCi_STATUS.
    pub(crate) status: u64,
    /// MCi_ADDR: a physical address, if bit 58 of `status` is set.
    pub(crate) address: u64,
    /// MCi_MISC, if bit 59 of `status` is set: bits 0 to 5 say which low bits of the address
    /// mean nothing.
    pub(crate) misc: u64,
}

impl Record {
    /// An error that lost the page at a physical address, as nobody but a test or a client says.
    pub(crate) fn injected(address: u64) -> Self {
        let status = VALID | UNCORRECTED | MISC_VALID | ADDRESS_VALID;
        Record { bank: INJECTED, status, address, misc: 12 }
    }

    /// The physical address of the error in bytes, if it is known.
    pub(crate) fn physical(&self) -> Option<u64> {
        (self.status & ADDRESS_VALID != 0).then_some(self.address)
    }

    /// Whether data was lost.
    pub(crate) fn uncorrected(&self) -> bool {
        self.status & UNCORRECTED != 0
    }

    /// Whether what the processor interrupted cannot go on.
    pub(crate) fn context_corrupt(&self) -> bool {
        self.status & CONTEXT_CORRUPT != 0
    }

    /// The physical addresses, in bytes, whose content is lost, if they are known.
    pub(crate) fn lost(&self) -> Option<Range<u64>> {
        let address = self.physical().filter(|_| self.uncorrected())?;
        let shift = match self.status & MISC_VALID {
            0 => LINE_SHIFT,
            _ => (self.misc & GRANULE).clamp(LINE_SHIFT, MOST_SHIFT),
        };
        let start = address >> shift << shift;
        Some(start..start.saturating_add(1 << shift))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_the_granule_around_the_address() {
        let record = |status, address, misc| Record { bank: 9, status, address, misc };
        // As QEMU reports lost memory of a page (SRAR): MISC has 12 bits, and "physical".
        let page = record(0xbd80_0000_0000_0134, 0x1_0000_1234, 0x8c);
        assert_eq!(page.lost(), Some(0x1_0000_1000..0x1_0000_2000));
        assert!(page.uncorrected() && !page.context_corrupt());
        let status = VALID | UNCORRECTED | ADDRESS_VALID;
        assert_eq!(record(status, 0x1234, 0x8c).lost(), Some(0x1200..0x1240), "no MISC");
        assert_eq!(record(status | MISC_VALID, 0x1234, 0).lost(), Some(0x1200..0x1240));
        assert_eq!(record(VALID | ADDRESS_VALID, 0x1234, 0).lost(), None, "corrected");
        assert_eq!(record(VALID | UNCORRECTED, 0x1234, 0).lost(), None, "no address");
        let end = record(status | MISC_VALID, u64::MAX, 63).lost().unwrap();
        assert_eq!((end.start, end.end), (0xffff_ffff_c000_0000, u64::MAX));
    }
}
