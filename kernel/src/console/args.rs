//! Arguments of console commands: words, numbers, and bytes to store.

use alloc::vec::Vec;
use core::fmt;

/// Most bytes that one command loads or stores.
pub(crate) const MAX_PAYLOAD: u64 = 1 << 20;

/// Why an argument cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArgError {
    /// It is missing; what it is.
    Missing(&'static str),
    /// More arguments than the command takes.
    TooMany,
    /// Not a number; what it is.
    Number(&'static str),
    /// A payload that is not understood; why.
    Payload(&'static str),
}

impl fmt::Display for ArgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgError::Missing(what) => write!(f, "{what} is missing"),
            ArgError::TooMany => f.write_str("too many arguments"),
            ArgError::Number(what) => {
                write!(
                    f,
                    "{what} is not a number \
                     (decimal or 0x..., with K, M or G behind it if you like)"
                )
            }
            ArgError::Payload(why) => f.write_str(why),
        }
    }
}

/// The words of a line, separated by spaces.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a>(&'a [u8]);

impl<'a> Args<'a> {
    /// The words of `line`.
    pub(crate) fn new(line: &'a [u8]) -> Self {
        Args(line.trim_ascii())
    }

    /// Takes the next word, if there is one.
    pub(crate) fn optional(&mut self) -> Option<&'a [u8]> {
        let line = self.0.trim_ascii_start();
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Takes the next word.
    pub(crate) fn word(&mut self, what: &'static str) -> Result<&'a [u8], ArgError> {
        self.optional().ok_or(ArgError::Missing(what))
    }

    /// Takes a number.
    pub(crate) fn number(&mut self, what: &'static str) -> Result<u64, ArgError> {
        number(self.word(what)?).ok_or(ArgError::Number(what))
    }

    /// Takes a number, if there is another word.
    pub(crate) fn optional_number(&mut self, what: &'static str) -> Result<Option<u64>, ArgError> {
        self.optional().map(|word| number(word).ok_or(ArgError::Number(what))).transpose()
    }

    /// Takes the rest of the line as bytes: text, `hex:...` or `fill:BYTE:LENGTH`.
    pub(crate) fn payload(&mut self) -> Result<Vec<u8>, ArgError> {
        let rest = core::mem::take(&mut self.0).trim_ascii();
        if let Some(digits) = rest.strip_prefix(b"hex:") {
            return hex(digits).ok_or(ArgError::Payload("hex: takes pairs of hexadecimal digits"));
        }
        if let Some(fill) = rest.strip_prefix(b"fill:") {
            const WHY: ArgError = ArgError::Payload("fill: takes BYTE:LENGTH, at most 1M");
            let mut parts = fill.splitn(2, |b| *b == b':');
            let mut next = || parts.next().and_then(number);
            let byte = next().and_then(|n| u8::try_from(n).ok()).ok_or(WHY)?;
            let length = next().filter(|n| *n <= MAX_PAYLOAD).ok_or(WHY)?;
            let mut bytes = Vec::new();
            bytes
                .try_reserve_exact(length as usize)
                .map_err(|_| ArgError::Payload("no memory for that many bytes"))?;
            bytes.resize(length as usize, byte);
            return Ok(bytes);
        }
        if rest.is_empty() {
            Err(ArgError::Missing("TEXT, hex:... or fill:BYTE:LENGTH"))
        } else {
            Ok(rest.to_vec())
        }
    }

    /// Checks that nothing is left.
    pub(crate) fn end(mut self) -> Result<(), ArgError> {
        if self.optional().is_some() { Err(ArgError::TooMany) } else { Ok(()) }
    }
}

/// Reads a number: decimal or `0x`, with an optional `K`, `M` or `G` (powers of 1024).
pub(crate) fn number(word: &[u8]) -> Option<u64> {
    let (digits, shift) = match word.split_last()? {
        (b'K', digits) => (digits, 10),
        (b'M', digits) => (digits, 20),
        (b'G', digits) => (digits, 30),
        _ => (word, 0),
    };
    let (digits, radix) = match digits.strip_prefix(b"0x") {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |value, digit| {
        let digit = (*digit as char).to_digit(radix)?;
        value.checked_mul(radix.into())?.checked_add(digit.into())
    })?;
    value.checked_mul(1 << shift)
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let nibble = |digit: u8| (digit as char).to_digit(16);
    pairs.iter().map(|[high, low]| Some((nibble(*high)? << 4 | nibble(*low)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0x1fK"), Some(0x1f << 10));
        assert_eq!(number(b"16G"), Some(16 << 30));
        for bad in
            [&b""[..], b"x", b"0x", b"K", b"-1", b"99999999999999999999", b"99999999999999999G"]
        {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn words_and_payloads() {
        let mut args = Args::new(b"  store 3  0x10 hello world ");
        assert_eq!(args.word("COMMAND"), Ok(&b"store"[..]));
        assert_eq!(args.number("WINDOW"), Ok(3));
        assert_eq!(args.number("OFFSET"), Ok(16));
        assert_eq!(args.payload().unwrap(), b"hello world");
        assert_eq!(args.word("X"), Err(ArgError::Missing("X")));
        assert_eq!(Args::new(b"hex:00fF").payload().unwrap(), [0, 255]);
        assert_eq!(Args::new(b"fill:0x41:3").payload().unwrap(), b"AAA");
        for bad in [&b"hex:0"[..], b"hex:0g", b"fill:256:1", b"fill:1", b"fill:1:2M", b""] {
            assert!(Args::new(bad).payload().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut args = Args::new(&line);
            let _ = args.clone().payload();
            let _ = (args.number("N"), args.optional_number("N"), args.end());
        }
    }
}
