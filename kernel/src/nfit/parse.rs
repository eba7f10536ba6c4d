//! Bytes of the NFIT to records.

use super::*;

/// Length of a description header, and of the reserved word behind it.
const HEADER: usize = 36 + 4;

/// Why a table cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NfitError {
    /// Fewer bytes than a header has.
    TooShort(usize),
    /// Another table.
    Signature([u8; 4]),
    /// The header says another length than there are bytes.
    Length {
        /// What the header says.
        said: u32,
        /// What there is.
        given: usize,
    },
    /// The bytes do not sum up to 0.
    Checksum,
    /// A structure does not fit: it is shorter than its type, or longer than the table.
    Structure {
        /// Offset in the table.
        at: usize,
        /// Its type.
        kind: u16,
        /// The length it gives.
        length: u16,
    },
    /// Two structures of a type have the same number.
    Duplicate {
        /// Their type.
        kind: u16,
        /// Their number.
        index: u16,
    },
    /// A range has no bytes, or its end overflows.
    Range {
        /// Where it starts.
        base: u64,
        /// Its length.
        length: u64,
    },
}

impl fmt::Display for NfitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            NfitError::TooShort(given) => write!(f, "{given} bytes, shorter than its header"),
            NfitError::Signature(s) => {
                write!(f, "the signature is \"{}\", not \"NFIT\"", s.escape_ascii())
            }
            NfitError::Length { said, given } => {
                write!(f, "the length says {said} bytes, there are {given}")
            }
            NfitError::Checksum => f.write_str("the checksum is wrong"),
            NfitError::Structure { at, kind, length } => {
                write!(f, "the structure of type {kind} at byte {at} cannot be {length} bytes long")
            }
            NfitError::Duplicate { kind, index } => {
                write!(f, "two structures of type {kind} have the number {index}")
            }
            NfitError::Range { base, length } => {
                write!(f, "a range at {base:#x} cannot be {length:#x} bytes long")
            }
        }
    }
}

impl core::error::Error for NfitError {}

/// The body of one structure. Fields beyond its end read as 0, and no structure is used
/// before its length was compared with the least that its type needs.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let field = self.0.get(at..).and_then(|rest| rest.first_chunk());
        field.copied().unwrap_or([0; N])
    }
    fn u8(&self, at: usize) -> u8 {
        self.bytes::<1>(at)[0]
    }
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }
}

/// The least length of a structure, by type; `None` for what is skipped.
fn least_length(kind: u16) -> Option<u16> {
    Some(match kind {
        0 => 56,
        1 => 48,
        2 => 16,
        4 => 32,
        6 => 16,
        7 => 16,
        _ => return None,
    })
}

/// Reads a whole NFIT, header included. The slice is exactly the table.
pub(crate) fn parse(table: &[u8]) -> Result<Nfit, NfitError> {
    let header = Fields(table);
    if table.len() < HEADER {
        return Err(NfitError::TooShort(table.len()));
    }
    if header.bytes(0) != *b"NFIT" {
        return Err(NfitError::Signature(header.bytes(0)));
    }
    if header.u32(4) as usize != table.len() {
        return Err(NfitError::Length { said: header.u32(4), given: table.len() });
    }
    if table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
        return Err(NfitError::Checksum);
    }
    let mut nfit = Nfit::default();
    let mut at = HEADER;
    while at < table.len() {
        let rest = &table[at..];
        let (kind, length) = (Fields(rest).u16(0), Fields(rest).u16(2));
        let bad = NfitError::Structure { at, kind, length };
        if usize::from(length) > rest.len() || length < least_length(kind).unwrap_or(4) {
            return Err(bad);
        }
        nfit.add(kind, &rest[..usize::from(length)]).map_err(|e| e.unwrap_or(bad))?;
        at += usize::from(length);
    }
    // The first usable range is served; the order of addresses makes that the same range with
    // every firmware.
    nfit.ranges.sort_by_key(|range| range.base);
    Ok(nfit)
}

/// The fields of a SPA range structure.
fn spa_range(f: &Fields<'_>) -> Result<SpaRange, NfitError> {
    let (base, length) = (f.u64(32), f.u64(40));
    if length == 0 || base.checked_add(length).is_none() {
        return Err(NfitError::Range { base, length });
    }
    Ok(SpaRange {
        index: f.u16(4),
        kind: RangeKind::of(Uuid::from_bytes_le(f.bytes(16))),
        base,
        length,
        attributes: f.u64(48),
        proximity: (f.u16(6) & 2 != 0).then(|| f.u32(12)),
    })
}

impl Nfit {
    /// Adds one structure; its length suits its type. `Err(None)`: its inner length does not.
    fn add(&mut self, kind: u16, bytes: &[u8]) -> Result<(), Option<NfitError>> {
        let f = Fields(bytes);
        let index = f.u16(4);
        let duplicate = || Some(NfitError::Duplicate { kind, index });
        match kind {
            0 => {
                let range = spa_range(&f).map_err(Some)?;
                // Number 0 is no number: nothing refers to such a range.
                if index != 0 && self.ranges.iter().any(|r| r.index == index) {
                    return Err(duplicate());
                }
                self.ranges.push(range);
            }
            1 => self.regions.push(RegionMapping {
                handle: f.u32(4),
                physical_id: f.u16(8),
                region_id: f.u16(10),
                spa_index: f.u16(12),
                control_index: f.u16(14),
                size: f.u64(16),
                offset: f.u64(24),
                dpa: f.u64(32),
                interleave_index: f.u16(40),
                ways: f.u16(42),
                state: RegionState(f.u16(44)),
            }),
            2 => {
                let lines = f.u32(8) as usize;
                let offsets = bytes[16..].chunks_exact(4).map(|c| Fields(c).u32(0));
                if offsets.len() < lines {
                    return Err(None);
                }
                if self.interleaves.iter().any(|i| i.index == index) {
                    return Err(duplicate());
                }
                let offsets = offsets.take(lines).collect();
                self.interleaves.push(Interleave { index, line_size: f.u32(12), offsets });
            }
            4 => {
                if self.controls.iter().any(|c| c.index == index) {
                    return Err(duplicate());
                }
                self.controls.push(ControlRegion {
                    index,
                    vendor: f.u16(6),
                    device: f.u16(8),
                    serial: f.u32(24),
                    interface: f.u16(28),
                });
            }
            6 => {
                let count = usize::from(f.u16(8));
                let addresses = bytes[16..].chunks_exact(8).map(|c| Fields(c).u64(0));
                if addresses.len() < count {
                    return Err(None);
                }
                let addresses = addresses.take(count).collect();
                self.flush_hints.push(FlushHints { handle: f.u32(4), addresses });
            }
            7 => {
                // Bits above the highest valid one are no promise.
                let highest = u32::from(f.u8(4)).min(31);
                let valid = f.u32(8) & (u32::MAX >> (31 - highest));
                self.capabilities = Some(Capabilities {
                    cpu_cache: valid & 1 != 0,
                    memory_controller: valid & 2 != 0,
                    mirroring: valid & 4 != 0,
                });
            }
            _ => self.skipped += 1,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    /// A structure of `length` bytes with the given fields.
    fn structure(kind: u16, length: u16, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = alloc::vec![0; usize::from(length)];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[2..4].copy_from_slice(&length.to_le_bytes());
        for (at, field) in fields {
            bytes[*at..at + field.len()].copy_from_slice(field);
        }
        bytes
    }

    fn table(structures: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = alloc::vec![0; HEADER];
        bytes[..4].copy_from_slice(b"NFIT");
        bytes[8] = 1;
        bytes.extend(structures.iter().flatten());
        let length = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        fix_checksum(&mut bytes);
        bytes
    }

    fn fix_checksum(bytes: &mut [u8]) {
        bytes[9] = 0;
        bytes[9] = bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
    }

    const PMEM: [u8; 16] = [
        0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40, 0xac, 0x43, 0x0d, 0x33, 0x18, 0xb7, 0x8c,
        0xdb,
    ];

    fn spa(index: u16, base: u64, length: u64) -> Vec<u8> {
        structure(
            0,
            56,
            &[
                (4, &index.to_le_bytes()),
                (16, &PMEM),
                (32, &base.to_le_bytes()),
                (40, &length.to_le_bytes()),
            ],
        )
    }

    #[test]
    fn reads_what_qemu_writes() {
        let region = structure(
            1,
            48,
            &[(4, &[1]), (12, &[2]), (14, &[3]), (16, &(1u64 << 30).to_le_bytes()), (42, &[1])],
        );
        let control = structure(4, 80, &[(4, &[3]), (6, &[0x86, 0x80]), (24, &[0x56, 0x34, 0x12])]);
        let caps = structure(7, 16, &[(4, &[1]), (8, &[3])]);
        let nfit = parse(&table(&[spa(2, 1 << 32, 1 << 30), region, control, caps])).unwrap();
        let range = nfit.persistent().next().unwrap();
        assert_eq!((range.base, range.length, range.index), (1 << 32, 1 << 30, 2));
        assert_eq!(nfit.usable(range), Ok(()));
        let region = nfit.behind(range).next().unwrap();
        assert_eq!(region.handle, 1);
        assert_eq!(nfit.control(region).unwrap().serial, 0x123456);
        assert_eq!(
            nfit.capabilities,
            Some(Capabilities { cpu_cache: true, memory_controller: true, mirroring: false })
        );
    }

    #[test]
    fn capabilities_beyond_the_highest_valid_bit_are_not_promised() {
        let nfit = parse(&table(&[structure(7, 16, &[(4, &[0]), (8, &[7])])])).unwrap();
        assert_eq!(nfit.capabilities, Some(Capabilities { cpu_cache: true, ..Default::default() }));
    }

    #[test]
    fn flush_hints_and_interleaves() {
        let hints = structure(6, 32, &[(4, &[9]), (8, &[2]), (16, &[1]), (24, &[2])]);
        let interleave = structure(2, 24, &[(4, &[1]), (8, &[2]), (12, &[0, 1]), (20, &[2])]);
        let region = structure(1, 48, &[(4, &[9]), (12, &[2])]);
        let nfit = parse(&table(&[hints, interleave, region, spa(2, 4096, 4096)])).unwrap();
        assert_eq!(nfit.hints(&nfit.ranges[0]).collect::<Vec<_>>(), [1]);
        assert_eq!(nfit.interleaves[0].offsets, [0, 2]);
        let too_many = structure(6, 32, &[(8, &[3])]);
        assert!(matches!(
            parse(&table(&[too_many])),
            Err(NfitError::Structure { at: 40, kind: 6, .. })
        ));
    }

    #[test]
    fn a_region_that_is_not_armed_is_not_used() {
        let region = structure(1, 48, &[(12, &[2]), (44, &[8])]);
        let nfit = parse(&table(&[spa(2, 4096, 4096), region])).unwrap();
        let why = nfit.usable(&nfit.ranges[0]).unwrap_err().to_string();
        assert!(why.contains("not armed"), "{why}");
    }

    #[test]
    fn ranges_are_in_the_order_of_their_addresses() {
        let nfit =
            parse(&table(&[spa(1, 12288, 4096), spa(2, 4096, 4096), spa(3, 8192, 4096)])).unwrap();
        assert_eq!(nfit.persistent().map(|range| range.index).collect::<Vec<_>>(), [2, 3, 1]);
    }

    #[test]
    fn overlapping_ranges_are_not_used() {
        let nfit = parse(&table(&[spa(1, 4096, 8192), spa(2, 8192, 4096)])).unwrap();
        assert_eq!(nfit.usable(&nfit.ranges[0]), Err(Unusable::Overlap { base: 8192 }));
    }

    #[test]
    fn malformed_tables_say_what_is_wrong() {
        let good = table(&[spa(1, 4096, 4096)]);
        let fails = |bytes: &[u8], with: &str| {
            let message = parse(bytes).unwrap_err().to_string();
            assert!(message.contains(with), "{message:?} has no {with:?}");
        };
        fails(&good[..30], "shorter than its header");
        fails(&good[..90], "the length says 96 bytes, there are 90");
        fails(&table(&[spa(1, 4096, 0)]), "cannot be 0x0 bytes long");
        fails(&table(&[spa(1, u64::MAX, 2)]), "cannot be 0x2 bytes long");
        fails(
            &table(&[spa(1, 0, 1), spa(1, 4096, 1)]),
            "two structures of type 0 have the number 1",
        );
        fails(&table(&[structure(0, 8, &[])]), "type 0 at byte 40 cannot be 8 bytes long");
        fails(&table(&[structure(99, 4, &[(2, &[0, 0])])]), "cannot be 0 bytes long");
        let mut wrong = good.clone();
        wrong[50] ^= 1;
        fails(&wrong, "checksum");
        wrong[0] = b'X';
        fails(&wrong, "\"XFIT\"");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            fix in any::<bool>(),
        ) {
            if fix && bytes.len() >= HEADER {
                bytes[..4].copy_from_slice(b"NFIT");
                let length = bytes.len() as u32;
                bytes[4..8].copy_from_slice(&length.to_le_bytes());
                fix_checksum(&mut bytes);
            }
            let _ = parse(&bytes);
        }

        #[test]
        fn no_structures_make_it_panic(
            parts in proptest::collection::vec(
                (0u16..9, 0u16..100, proptest::collection::vec(any::<u8>(), 96)),
                0..8,
            ),
        ) {
            let parts: Vec<_> = parts
                .iter()
                .map(|(kind, length, body)| {
                    let length = (*length).max(4);
                    structure(*kind, length, &[(4, &body[..usize::from(length) - 4])])
                })
                .collect();
            if let Ok(nfit) = parse(&table(&parts)) {
                for range in &nfit.ranges {
                    let _ = nfit.usable(range);
                    let _ = nfit.hints(range).count();
                }
            }
        }
    }
}
