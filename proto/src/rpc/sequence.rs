//! Answers of many items, spread over frames.
//!
//! Each frame holds some items in order; all but the last have the flag
//! [`MORE`](super::MORE). So the sender needs room for one frame only, however many
//! items there are.

use alloc::vec::Vec;
use minicbor::{Decode, Encode, Encoder};

/// The body of one frame of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Items<T> {
    /// The items of this frame; may be empty.
    #[n(0)]
    pub items: Vec<T>,
}

/// Writes the body of one frame, item by item, into a buffer of fixed size.
pub struct ItemsWriter<'b> {
    into: &'b mut [u8],
    len: usize,
}

/// `{0: [` with an array of indefinite length.
const START: [u8; 3] = [0xa1, 0x00, 0x9f];
const BREAK: u8 = 0xff;

impl<'b> ItemsWriter<'b> {
    /// Starts a body; `None` if not even an empty one fits.
    pub fn new(into: &'b mut [u8]) -> Option<Self> {
        into.get_mut(..START.len() + 1)?[..START.len()].copy_from_slice(&START);
        Some(ItemsWriter { into, len: START.len() })
    }

    /// Appends an item; false if it does not fit. Then nothing of it is there.
    pub fn push<T: Encode<()>>(&mut self, item: &T) -> bool {
        // One byte stays free for the break.
        let end = self.into.len() - 1;
        let room = &mut self.into[self.len..end];
        let size = room.len();
        let mut rest = room;
        let mut encoder = Encoder::new(&mut rest);
        if encoder.encode(item).is_err() {
            return false;
        }
        self.len += size - rest.len();
        true
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len == START.len()
    }

    /// Ends the body; returns its length.
    pub fn finish(self) -> usize {
        self.into[self.len] = BREAK;
        self.len + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_and_no_more() {
        for room in 0..12 {
            let mut buffer = [0xee; 12];
            let Some(mut w) = ItemsWriter::new(&mut buffer[..room]) else {
                assert!(room < 4);
                continue;
            };
            let mut n = 0;
            while n < 8 && w.push(&1000u32) {
                n += 1;
            }
            let len = w.finish();
            assert_eq!(n, (room - 4) / 3);
            assert_eq!(len, 4 + 3 * n);
            let items: Items<u32> = crate::rpc::decode(&buffer[..len]).unwrap();
            assert!(items.items.len() == n && items.items.iter().all(|i| *i == 1000));
            assert!(buffer[len..].iter().all(|b| *b == 0xee || *b == 0x19 || *b == 0x03));
        }
    }
}
