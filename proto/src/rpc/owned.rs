//! Texts and byte strings that a body owns once it is decoded: for clients.
//!
//! `minicbor` has these too, with its feature `alloc`. That is off, because with it an error of
//! decoding has its text in memory of its own: a body that does not fit its method would make a
//! server allocate. Here an error allocates nothing, and neither does decoding what borrows.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use minicbor::decode::{self, Decode, Decoder};
use minicbor::encode::{self, Encode, Encoder, Write};

/// An owned text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text(text.into())
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl<C> Encode<C> for Text {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(self)?.ok()
    }
}

impl<C> Decode<'_, C> for Text {
    fn decode(d: &mut Decoder<'_>, _: &mut C) -> Result<Self, decode::Error> {
        d.str().map(Text::from)
    }
}

/// Defines how a field of the type is encoded and decoded: `with = "..."`.
macro_rules! field {
    ($module:ident, $type:ty, $borrowed:ty, $one:ident) => {
        pub mod $module {
            use super::*;

            pub fn encode<C, W: Write>(
                value: &$borrowed,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.$one(value)?.ok()
            }

            pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<$type, decode::Error> {
                d.$one().map(<$type>::from)
            }
        }
    };
}

field!(text, String, str, str);
field!(bytes, Vec<u8>, [u8], bytes);

/// Defines the same for an optional field: `with = "...", has_nil`.
macro_rules! optional_field {
    ($module:ident, $type:ty, $one:ident) => {
        pub mod $module {
            use super::*;

            pub fn encode<C, W: Write>(
                value: &Option<$type>,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                match value {
                    Some(value) => e.$one(value)?.ok(),
                    None => e.null()?.ok(),
                }
            }

            pub fn decode<C>(
                d: &mut Decoder<'_>,
                _: &mut C,
            ) -> Result<Option<$type>, decode::Error> {
                match d.datatype()? {
                    minicbor::data::Type::Null => d.null().map(|()| None),
                    _ => d.$one().map(|value| Some(value.into())),
                }
            }

            pub fn nil() -> Option<Option<$type>> {
                Some(None)
            }

            pub fn is_nil(value: &Option<$type>) -> bool {
                value.is_none()
            }
        }
    };
}

optional_field!(optional_text, String, str);
optional_field!(optional_bytes, Vec<u8>, bytes);

/// A list: `with = "..."`.
pub mod list {
    use super::*;

    pub fn encode<C, W: Write, T: Encode<C>>(
        list: &[T],
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(list.len() as u64)?;
        list.iter().try_for_each(|item| item.encode(e, ctx))
    }

    pub fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Vec<T>, decode::Error> {
        let mut list = Vec::new();
        let mut left = d.array()?;
        while match left {
            Some(left) => left > 0,
            None => d.datatype()? != minicbor::data::Type::Break,
        } {
            list.push(d.decode_with(ctx)?);
            left = left.map(|left| left - 1);
        }
        if left.is_none() {
            d.skip()?;
        }
        Ok(list)
    }
}

/// Bytes to which more are appended.
pub(super) struct Appended<'v>(pub &'v mut Vec<u8>);

impl Write for Appended<'_> {
    type Error = core::convert::Infallible;
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}
