//! What to write to a sleep control register to power off, found in the DSDT.
//!
//! The value is in the object `\_S5`, a package of small integers (ACPI 6.5, sections 7.4.2
//! and 20.2). Its encoding is so regular that no interpreter is needed: a `NameOp`, the
//! name, a `PackageOp`, and integer constants. What looks otherwise is not taken.
#![forbid(unsafe_code)]

/// Sleep types for the registers PM1a and PM1b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SleepTypes {
    /// For PM1a_CNT.
    pub(crate) a: u8,
    /// For PM1b_CNT, where there is one.
    pub(crate) b: u8,
}

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;

/// Finds `\_S5` in the AML of a DSDT.
pub(crate) fn find(aml: &[u8]) -> Option<SleepTypes> {
    let names = aml.windows(4).enumerate().filter(|(_, name)| *name == b"_S5_");
    names.map(|(at, _)| at).find_map(|at| {
        let before = &aml[..at];
        let named = before.ends_with(&[NAME_OP]) || before.ends_with(&[NAME_OP, b'\\']);
        if named { package(&aml[at + 4..]) } else { None }
    })
}

/// Reads the first two integers of a package.
fn package(aml: &[u8]) -> Option<SleepTypes> {
    let (&op, rest) = aml.split_first()?;
    // The two high bits of PkgLength's first byte tell how many bytes follow it.
    let following = usize::from(rest.first()? >> 6);
    let rest = rest.get(1 + following..)?;
    let (&elements, rest) = rest.split_first()?;
    if op != PACKAGE_OP || elements == 0 {
        return None;
    }
    let (a, rest) = integer(rest)?;
    let b = if elements > 1 { integer(rest)?.0 } else { 0 };
    // SLP_TYP has three bits.
    (a < 8 && b < 8).then_some(SleepTypes { a, b })
}

/// Reads an integer constant of up to a byte.
fn integer(aml: &[u8]) -> Option<(u8, &[u8])> {
    match *aml {
        [value @ (0 | 1), ref rest @ ..] => Some((value, rest)),
        [0x0a, value, ref rest @ ..] => Some((value, rest)),
        [0x0b, value, 0, ref rest @ ..] => Some((value, rest)),
        [0x0c, value, 0, 0, 0, ref rest @ ..] => Some((value, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_qemus_and_others() {
        let zeros = [0x10, 0x08, b'_', b'S', b'5', b'_', 0x12, 0x06, 4, 0, 0, 0, 0];
        assert_eq!(find(&zeros), Some(SleepTypes { a: 0, b: 0 }));
        let bytes = b"xx\x08\\_S5_\x12\x07\x02\x0a\x05\x0a\x06";
        assert_eq!(find(bytes), Some(SleepTypes { a: 5, b: 6 }));
        let long = b"\x08_S5_\x12\x4a\x00\x02\x0a\x07\x01";
        assert_eq!(find(long), Some(SleepTypes { a: 7, b: 1 }));
    }

    #[test]
    fn takes_nothing_else() {
        assert_eq!(find(b"_S5_\x12\x06\x04\x00\x00"), None, "a reference, not a definition");
        assert_eq!(find(b"\x08_S5_\x12\x06\x04\x0a\x09\x00"), None, "SLP_TYP 9");
        assert_eq!(find(b"\x08_S5_\x11\x06\x04\x00\x00"), None, "a buffer");
        assert_eq!(find(b"\x08_S5_"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut aml = b"\x08_S5_".to_vec();
            aml.extend(tail);
            let _ = find(&aml);
        }
    }
}
