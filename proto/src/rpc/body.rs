//! Encoding and decoding of bodies.
//!
//! A body is one CBOR map (RFC 8949). Decoding skips keys it does not know, and skipping
//! must not cost more than reading; so before anything is decoded, [`decode`] walks over
//! the whole body once, without recursion or memory, and refuses what is not one
//! well-formed map, nests deeper than [`MAX_DEPTH`], or has a key that is no key.

use super::owned::Appended;
use core::fmt;
use minicbor::encode::write::EndOfSlice;
use minicbor::{Decode, Encode};

/// Deepest nesting of maps, arrays and tags in a body, the outermost map included.
pub const MAX_DEPTH: usize = 16;

/// Keys below this occur at most once, and only these will ever mean anything.
const KNOWN_KEYS: u64 = 64;

/// Why a body is refused.
#[derive(Debug)]
pub enum BodyError {
    /// It ends in the middle of an item.
    Truncated,
    /// It nests deeper than [`MAX_DEPTH`].
    Depth,
    /// It is no map.
    NotMap,
    /// Something follows the map.
    Trailing,
    /// It is not well-formed CBOR.
    Syntax,
    /// A key of the map is no unsigned integer of at most 32 bits.
    Key,
    /// This key occurs twice.
    Twice(u8),
    /// A field is missing, or is of another type than it should be.
    Field(minicbor::decode::Error),
}

// A server has to be able to refuse a body when it has no memory left.
const _: () = assert!(!core::mem::needs_drop::<BodyError>(), "an error of decoding owns memory");

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Truncated => f.write_str("the body ends in the middle of an item"),
            BodyError::Depth => write!(f, "the body nests deeper than {MAX_DEPTH}"),
            BodyError::NotMap => f.write_str("the body is not a map"),
            BodyError::Trailing => f.write_str("the body goes on behind its map"),
            BodyError::Syntax => f.write_str("the body is not well-formed CBOR"),
            BodyError::Key => {
                f.write_str("the body has a key that is no unsigned integer of 32 bits")
            }
            BodyError::Twice(key) => write!(f, "the body has the key {key} twice"),
            BodyError::Field(e) => write!(f, "the body does not fit the method: {e}"),
        }
    }
}

impl core::error::Error for BodyError {}

/// Decodes a body.
///
/// # Errors
///
/// The body is not exactly one well-formed map, or does not have the fields of `T`.
pub fn decode<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Result<T, BodyError> {
    check(body)?;
    minicbor::decode(body).map_err(BodyError::Field)
}

/// Encodes a body at the start of `into`; returns its length, or `None` if it does not fit.
pub fn encode_into<T: Encode<()>>(body: &T, into: &mut [u8]) -> Option<usize> {
    let room = into.len();
    let mut rest = into;
    let done: Result<(), minicbor::encode::Error<EndOfSlice>> = minicbor::encode(body, &mut rest);
    done.ok().map(|()| room - rest.len())
}

/// Encodes a body behind what is in `into`.
pub fn encode_append<T: Encode<()>>(body: &T, into: &mut alloc::vec::Vec<u8>) {
    let done = minicbor::encode(body, Appended(into));
    // A vector takes everything, and no body of this crate fails by itself.
    debug_assert!(done.is_ok());
}

/// The key of padding: it means nothing, in no body.
pub const PADDING: u8 = 23;
/// Fewest bytes that [`pad`] adds.
pub const LEAST_PADDING: usize = 4 + 256;

/// Makes an encoded body of this crate, which ends `frame`, longer by `by` bytes ([`LEAST_PADDING`]
/// to 65,539) that mean nothing, so that what follows it begins where it should.
pub fn pad(frame: &mut alloc::vec::Vec<u8>, body_at: usize, by: usize) {
    let (Some(bytes), Some(first)) =
        (by.checked_sub(4).and_then(|n| u16::try_from(n).ok()), frame.get(body_at).copied())
    else {
        return;
    };
    // A map of at most 22 keys: its first byte has their number.
    debug_assert!((0xa0..0xa0 + PADDING).contains(&first) && by >= LEAST_PADDING);
    frame[body_at] = first + 1;
    // A byte string with a length of two bytes.
    frame.extend([PADDING, 0x59]);
    frame.extend(bytes.to_be_bytes());
    frame.resize(frame.len() + usize::from(bytes), 0);
}

/// Whether a body is exactly one well-formed CBOR map of bounded depth, with keys that can be keys.
pub(super) fn check(body: &[u8]) -> Result<(), BodyError> {
    match body.first() {
        None => return Err(BodyError::Truncated),
        Some(b) if b >> 5 != 5 => return Err(BodyError::NotMap),
        Some(_) => {}
    }
    let mut walk = Walk { body, at: 0, stack: [Open::Items(0); MAX_DEPTH], depth: 0, seen: 0 };
    loop {
        match walk.item()? {
            Some(open) => walk.enter(open)?,
            None => walk.complete(),
        }
        if walk.depth == 0 {
            return if walk.at == body.len() { Ok(()) } else { Err(BodyError::Trailing) };
        }
    }
}

/// What an open map, array, tag or chunked string still expects.
#[derive(Clone, Copy)]
enum Open {
    Items(u64),
    /// Until a break; whether the number of items so far is even (maps need pairs).
    Break {
        map: bool,
        even: bool,
    },
    /// Definite strings of this major type, until a break.
    Chunks(u8),
}

/// A walk over the items of a body, without recursion or memory.
struct Walk<'b> {
    body: &'b [u8],
    /// The next byte.
    at: usize,
    /// What is open, from the outer map inwards.
    stack: [Open; MAX_DEPTH],
    depth: usize,
    /// A bit for each key of the outer map, of those that may mean something.
    seen: u64,
}

impl Walk<'_> {
    fn top(&self) -> Option<Open> {
        self.depth.checked_sub(1).map(|i| self.stack[i])
    }

    /// Goes over the next item. `Some`: what it opens; `None`: it is complete.
    fn item(&mut self) -> Result<Option<Open>, BodyError> {
        let first = *self.body.get(self.at).ok_or(BodyError::Truncated)?;
        self.at += 1;
        if first == 0xff {
            return self.leave();
        }
        let (major, info) = (first >> 5, first & 31);
        if let Some(Open::Chunks(kind)) = self.top()
            && (major != kind || info == 31)
        {
            return Err(BodyError::Syntax);
        }
        let value = self.value(info)?;
        self.check_key(major, value)?;
        match (major, value) {
            (0 | 1 | 7, Some(_)) => Ok(None),
            (2 | 3, Some(n)) => {
                if n > (self.body.len() - self.at) as u64 {
                    return Err(BodyError::Truncated);
                }
                self.at += n as usize;
                Ok(None)
            }
            (2 | 3, None) => Ok(Some(Open::Chunks(major))),
            (4, Some(n)) => Ok((n > 0).then_some(Open::Items(n))),
            // Twice more than 2^63 items never fit in a body: cut, and found truncated.
            (5, Some(n)) => Ok((n > 0).then_some(Open::Items(n.saturating_mul(2)))),
            (4, None) => Ok(Some(Open::Break { map: false, even: true })),
            (5, None) => Ok(Some(Open::Break { map: true, even: true })),
            (6, Some(_)) => Ok(Some(Open::Items(1))),
            _ => Err(BodyError::Syntax),
        }
    }

    /// The value in the head of an item; `None` for an indefinite length.
    fn value(&mut self, info: u8) -> Result<Option<u64>, BodyError> {
        match info {
            0..=23 => Ok(Some(u64::from(info))),
            24..=27 => {
                let size = 1usize << (info - 24);
                let bytes = self.body.get(self.at..self.at + size).ok_or(BodyError::Truncated)?;
                self.at += size;
                Ok(Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))))
            }
            31 => Ok(None),
            _ => Err(BodyError::Syntax),
        }
    }

    /// Whether an item can be a key, if one is expected: in the outer map, before each value.
    fn check_key(&mut self, major: u8, value: Option<u64>) -> Result<(), BodyError> {
        let is_key = match self.top() {
            Some(Open::Items(left)) => left % 2 == 0,
            Some(Open::Break { even, .. }) => even,
            _ => false,
        };
        if self.depth != 1 || !is_key {
            return Ok(());
        }
        match (major, value) {
            (0, Some(key)) if key < KNOWN_KEYS && self.seen >> key & 1 != 0 => {
                Err(BodyError::Twice(key as u8))
            }
            (0, Some(key)) if key < KNOWN_KEYS => {
                self.seen |= 1 << key;
                Ok(())
            }
            (0, Some(key)) if key <= u64::from(u32::MAX) => Ok(()),
            _ => Err(BodyError::Key),
        }
    }

    fn enter(&mut self, open: Open) -> Result<(), BodyError> {
        *self.stack.get_mut(self.depth).ok_or(BodyError::Depth)? = open;
        self.depth += 1;
        Ok(())
    }

    /// A break ends what is open, if that can have one here.
    fn leave(&mut self) -> Result<Option<Open>, BodyError> {
        match self.top() {
            Some(Open::Break { map, even }) if even || !map => {}
            Some(Open::Chunks(_)) => {}
            _ => return Err(BodyError::Syntax),
        }
        self.depth -= 1;
        Ok(None)
    }

    /// An item is complete, and with it perhaps what it was the last item of.
    fn complete(&mut self) {
        while self.depth > 0 {
            match &mut self.stack[self.depth - 1] {
                Open::Items(1) => self.depth -= 1,
                Open::Items(n) => {
                    *n -= 1;
                    break;
                }
                Open::Break { even, .. } => {
                    *even = !*even;
                    break;
                }
                Open::Chunks(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn ok(bytes: &[u8]) -> bool {
        check(bytes).is_ok()
    }

    #[test]
    fn well_formed() {
        assert!(ok(&[0xa0]));
        assert!(ok(&[0xbf, 0xff]));
        assert!(ok(&[0xa1, 0x00, 0x01]));
        assert!(ok(&[0xa1, 0x00, 0x82, 0x01, 0x41, 0xff]));
        assert!(ok(&[0xa1, 0x00, 0x5f, 0x41, 0x01, 0x42, 0x02, 0x03, 0xff]));
        assert!(ok(&[0xbf, 0x00, 0x9f, 0x01, 0xa0, 0xff, 0x01, 0xc1, 0x1a, 1, 2, 3, 4, 0xff]));
    }

    #[test]
    fn padding_changes_the_length_and_nothing_else() {
        for by in [LEAST_PADDING, 300, 4096, 9000] {
            let write = crate::rpc::Write { handle: 7, offset: u64::MAX, sync: true };
            let mut frame = b"header".to_vec();
            encode_append(&write, &mut frame);
            let len = frame.len();
            pad(&mut frame, 6, by);
            assert_eq!(frame.len(), len + by);
            assert_eq!(decode::<crate::rpc::Write>(&frame[6..]).unwrap(), write);
        }
        let mut empty = vec![0xa0];
        pad(&mut empty, 0, LEAST_PADDING);
        assert!(ok(&empty) && empty.len() == 1 + LEAST_PADDING);
    }

    #[test]
    fn refused() {
        assert!(matches!(check(&[]), Err(BodyError::Truncated)));
        assert!(matches!(check(&[0x01]), Err(BodyError::NotMap)));
        assert!(matches!(check(&[0xa1, 0x00]), Err(BodyError::Truncated)));
        assert!(matches!(check(&[0xa0, 0x00]), Err(BodyError::Trailing)));
        assert!(matches!(check(&[0xbf, 0x00, 0xff]), Err(BodyError::Syntax)));
        assert!(matches!(check(&[0xa1, 0x20, 0x00]), Err(BodyError::Key)));
        assert!(matches!(
            check(&[0xa2, 0x18, 63, 0x00, 0x18, 63, 0x00]),
            Err(BodyError::Twice(63))
        ));
        assert!(matches!(check(&[0xa1, 0x00, 0xff]), Err(BodyError::Syntax)));
        assert!(matches!(check(&[0xa1, 0x00, 0x1c]), Err(BodyError::Syntax)));
        assert!(matches!(check(&[0xa1, 0x00, 0x5f, 0x61, 0x61, 0xff]), Err(BodyError::Syntax)));
        assert!(matches!(
            check(&[0xa1, 0x00, 0x5b, 255, 255, 255, 255, 255, 255, 255, 255]),
            Err(BodyError::Truncated)
        ));
        assert!(matches!(
            check(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255, 0]),
            Err(BodyError::Truncated)
        ));
        let mut deep: Vec<u8> = vec![0xa1, 0x00];
        deep.extend([0x81; 100]);
        deep.push(0x00);
        assert!(matches!(check(&deep), Err(BodyError::Depth)));
        let mut deep: Vec<u8> = vec![0xa1, 0x00];
        deep.extend([0x9f; 100]);
        assert!(matches!(check(&deep), Err(BodyError::Depth)));
    }
}
