//! Answers of many items, spread over frames.
//!
//! Each frame holds some items in order; all but the last have the flag
//! [`MORE`](super::MORE). So the sender needs room for one frame only, however many
//! items there are.

use super::body::{BodyError, check};
use super::owned;
use alloc::vec::Vec;
use minicbor::encode::write::EndOfSlice;
use minicbor::{Decode, Decoder, Encode, Encoder};

/// The body of one frame of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Items<T> {
    /// The items of this frame; may be empty.
    #[cbor(
        n(0),
        with = "owned::list",
        encode_bound = "T: Encode<Ctx>",
        decode_bound = "T: Decode<'bytes, Ctx>"
    )]
    pub items: Vec<T>,
}

/// Decodes the items of a body one by one, without memory for all of them, until `each` fails.
///
/// # Errors
///
/// The body, or an item that was come to, is not what it should be. Within is the error of `each`.
pub fn decode_items<'b, T: Decode<'b, ()>, E>(
    body: &'b [u8],
    mut each: impl FnMut(T) -> Result<(), E>,
) -> Result<Result<(), E>, BodyError> {
    check(body)?;
    let mut decoder = Decoder::new(body);
    let (keys, mut key) = (decoder.map().map_err(BodyError::Field)?, 0);
    let more = |decoder: &Decoder<'b>, count: Option<u64>, at: u64| match count {
        Some(count) => Ok(at < count),
        None => decoder.datatype().map(|next| next != minicbor::data::Type::Break),
    };
    while more(&decoder, keys, key).map_err(BodyError::Field)? {
        key += 1;
        if decoder.u64().map_err(BodyError::Field)? != 0 {
            decoder.skip().map_err(BodyError::Field)?;
            continue;
        }
        let (items, mut item) = (decoder.array().map_err(BodyError::Field)?, 0);
        while more(&decoder, items, item).map_err(BodyError::Field)? {
            item += 1;
            if let Err(error) = each(decoder.decode().map_err(BodyError::Field)?) {
                return Ok(Err(error));
            }
        }
        return Ok(Ok(()));
    }
    Err(BodyError::Field(minicbor::decode::Error::missing_value(0)))
}

/// Encodes a body with these items, as [`Items`] has them, at the start of `into`; returns its
/// length, or `None` if it does not fit.
pub fn encode_items<T: Encode<()>>(
    items: impl ExactSizeIterator<Item = T>,
    into: &mut [u8],
) -> Option<usize> {
    let room = into.len();
    let mut rest = into;
    let mut encoder = Encoder::new(&mut rest);
    let done: Result<(), minicbor::encode::Error<EndOfSlice>> = (|| {
        encoder.map(1)?.u8(0)?.array(items.len() as u64)?;
        for item in items {
            encoder.encode(item)?;
        }
        Ok(())
    })();
    done.ok().map(|()| room - rest.len())
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
    fn items_one_by_one_are_those_of_the_whole() {
        for count in [0, 1, 5, 40] {
            let all = Items { items: (0..count).collect::<Vec<u32>>() };
            let mut bytes = Vec::new();
            crate::rpc::encode_append(&all, &mut bytes);
            let mut fixed = [0; 100];
            let len = encode_items(all.items.iter(), &mut fixed).unwrap();
            assert_eq!(fixed[..len], bytes);
            assert!(encode_items(all.items.iter(), &mut fixed[..len - 1]).is_none());
            let mut found = Vec::new();
            let take = |item: u32| {
                if item < 20 {
                    found.push(item);
                    Ok(())
                } else {
                    Err(item)
                }
            };
            let result = decode_items(&bytes, take).unwrap();
            assert_eq!(result, if count > 20 { Err(20) } else { Ok(()) });
            assert_eq!(found, all.items[..found.len()]);
        }
        let mut found = 0;
        let indefinite = [0xbf, 0x01, 0x80, 0x00, 0x9f, 0x01, 0x02, 0xff, 0xff];
        let add = |n: u32| {
            found += n;
            Ok::<_, ()>(())
        };
        decode_items(&indefinite, add).unwrap().unwrap();
        assert_eq!(found, 3);
        for bad in [&[0xa0][..], &[0xa1, 0x00, 0x81, 0x60], &[0xa1, 0x00, 0x01], &[0x80]] {
            assert!(decode_items(bad, |_: u32| Ok::<_, ()>(())).is_err(), "{bad:?}");
        }
    }

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
