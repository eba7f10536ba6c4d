//! Replies ("Simple reply message", "Structured reply chunk message", "Extended reply chunk
//! message").

use super::option::numbers;
use super::{BadMagic, Errno, Fields, Reader};
use core::fmt;

/// Bytes of a simple reply, without data.
pub const SIMPLE_REPLY_LEN: usize = 16;
/// Bytes of the header of a structured chunk.
pub const CHUNK_LEN: usize = 20;
/// Bytes of the header of an extended chunk.
pub const EXTENDED_CHUNK_LEN: usize = 32;

const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_CHUNK_MAGIC: u32 = 0x6e8a_278c;

/// The last chunk of a reply.
pub const CHUNK_DONE: u16 = 1 << 0;

/// What a chunk holds. An open set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkType(pub u16);

const ERROR: u16 = 1 << 15;

numbers! { ChunkType:
    /// Nothing: the reply ends.
    NONE = 0;
    /// An offset and data.
    OFFSET_DATA = 1;
    /// An offset and a number of zeros.
    OFFSET_HOLE = 2;
    /// Extents of a metadata context, with 32 bits.
    BLOCK_STATUS = 5;
    /// Extents of a metadata context, with 64 bits.
    BLOCK_STATUS_EXT = 6;
    /// The request failed.
    ERROR = ERROR + 1;
    /// The request failed at an offset.
    ERROR_OFFSET = ERROR + 2;
}

impl ChunkType {
    /// Whether it says that the request failed.
    pub fn is_error(self) -> bool {
        self.0 & ERROR != 0
    }
}

/// How requests and replies look, as negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Compact requests, simple replies.
    #[default]
    Simple,
    /// Compact requests, chunks.
    Structured,
    /// Extended requests, extended chunks.
    Extended,
}

impl Style {
    /// Bytes of a request, without payload.
    pub fn request_len(self) -> usize {
        if self == Style::Extended { super::EXTENDED_REQUEST_LEN } else { super::REQUEST_LEN }
    }

    /// Bytes of the header of a simple reply or a chunk.
    pub fn reply_len(self) -> usize {
        match self {
            Style::Simple => SIMPLE_REPLY_LEN,
            Style::Structured => CHUNK_LEN,
            Style::Extended => EXTENDED_CHUNK_LEN,
        }
    }
}

/// A simple reply, without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// 0, or why the request failed.
    pub error: Errno,
    /// That of the request.
    pub cookie: u64,
}

impl SimpleReply {
    /// The bytes.
    pub fn encode(self) -> [u8; SIMPLE_REPLY_LEN] {
        let mut bytes = [0; SIMPLE_REPLY_LEN];
        Fields::new(&mut bytes).u32(SIMPLE_REPLY_MAGIC).u32(self.error.0).u64(self.cookie);
        bytes
    }

    /// From the bytes.
    ///
    /// # Errors
    ///
    /// It does not begin as a simple reply does.
    pub fn decode(bytes: &[u8; SIMPLE_REPLY_LEN]) -> Result<Self, BadMagic> {
        let mut r = Reader(bytes);
        match (r.u32(), r.u32(), r.u64()) {
            (Some(SIMPLE_REPLY_MAGIC), Some(error), Some(cookie)) => {
                Ok(SimpleReply { error: Errno(error), cookie })
            }
            (magic, ..) => Err(BadMagic(magic.unwrap_or(0).into())),
        }
    }
}

/// The header of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// [`CHUNK_DONE`] or 0.
    pub flags: u16,
    /// What it holds.
    pub kind: ChunkType,
    /// That of the request.
    pub cookie: u64,
    /// That of the request; only extended chunks carry it.
    pub offset: u64,
    /// Bytes that follow.
    pub length: u32,
}

impl Chunk {
    /// The bytes of a structured chunk's header.
    pub fn encode(&self) -> [u8; CHUNK_LEN] {
        let mut bytes = [0; CHUNK_LEN];
        self.front(&mut bytes, CHUNK_MAGIC).u32(self.length);
        bytes
    }

    /// The bytes of an extended chunk's header.
    pub fn encode_extended(&self) -> [u8; EXTENDED_CHUNK_LEN] {
        let mut bytes = [0; EXTENDED_CHUNK_LEN];
        self.front(&mut bytes, EXTENDED_CHUNK_MAGIC).u64(self.offset).u64(self.length.into());
        bytes
    }

    fn front<'b>(&self, bytes: &'b mut [u8], magic: u32) -> Fields<'b> {
        Fields::new(bytes).u32(magic).u16(self.flags).u16(self.kind.0).u64(self.cookie)
    }

    /// Writes the header in the given style, which has chunks, to the start of `into`; returns its
    /// length.
    pub fn write(&self, style: Style, into: &mut [u8]) -> usize {
        match style {
            Style::Extended => into[..EXTENDED_CHUNK_LEN].copy_from_slice(&self.encode_extended()),
            _ => into[..CHUNK_LEN].copy_from_slice(&self.encode()),
        }
        style.reply_len()
    }

    /// From the bytes of a structured chunk's header; its offset is 0.
    ///
    /// # Errors
    ///
    /// It does not begin as a structured chunk does.
    pub fn decode(bytes: &[u8; CHUNK_LEN]) -> Result<Self, BadMagic> {
        Self::parse(Reader(bytes), CHUNK_MAGIC, |r| Some((0, r.u32()?)))
    }

    /// From the bytes of an extended chunk's header. A length beyond 32 bits is no length of a
    /// payload.
    ///
    /// # Errors
    ///
    /// It does not begin as an extended chunk does, or its length has more than 32 bits.
    pub fn decode_extended(bytes: &[u8; EXTENDED_CHUNK_LEN]) -> Result<Self, BadMagic> {
        Self::parse(Reader(bytes), EXTENDED_CHUNK_MAGIC, |r| {
            Some((r.u64()?, r.u64()?.try_into().ok()?))
        })
    }

    fn parse<'b>(
        mut r: Reader<'b>,
        magic: u32,
        rest: impl FnOnce(&mut Reader<'b>) -> Option<(u64, u32)>,
    ) -> Result<Self, BadMagic> {
        let found = r.u32().unwrap_or(0);
        let fields = || {
            let (flags, kind, cookie) = (r.u16()?, r.u16()?, r.u64()?);
            let (offset, length) = rest(&mut r)?;
            Some(Chunk { flags, kind: ChunkType(kind), cookie, offset, length })
        };
        if found != magic {
            return Err(BadMagic(found.into()));
        }
        fields().ok_or(BadMagic(found.into()))
    }
}

/// The part of an error chunk before its message.
pub fn error_front(error: Errno, message: usize) -> [u8; 6] {
    let mut bytes = [0; 6];
    Fields::new(&mut bytes).u32(error.0).u16(message as u16);
    bytes
}

/// What an error chunk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorChunk<'b> {
    /// Why the request failed.
    pub error: Errno,
    /// A text for people.
    pub message: &'b [u8],
    /// Where it failed, in a chunk of type [`ChunkType::ERROR_OFFSET`].
    pub offset: Option<u64>,
}

impl<'b> ErrorChunk<'b> {
    /// From the payload of an error chunk of this type; `None` if it is malformed.
    pub fn decode(kind: ChunkType, payload: &'b [u8]) -> Option<Self> {
        let mut r = Reader(payload);
        let error = Errno(r.u32()?);
        let len = r.u16()?;
        let message = r.bytes(len.into())?;
        let offset = if kind == ChunkType::ERROR_OFFSET { Some(r.u64()?) } else { None };
        Some(ErrorChunk { error, message, offset })
    }
}

/// A run of the same status in a metadata context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Bytes.
    pub length: u64,
    /// What the context says.
    pub flags: u64,
}

/// Flags of `base:allocation`.
pub mod allocation {
    /// Not allocated.
    pub const HOLE: u64 = 1 << 0;
    /// Reads as zeros.
    pub const ZERO: u64 = 1 << 1;
}

impl Status {
    /// Bytes of one in a chunk of this style.
    pub fn len(style: Style) -> usize {
        if style == Style::Extended { 16 } else { 8 }
    }

    /// Writes it to the start of `into`; with 32 bits unless extended.
    pub fn write(&self, style: Style, into: &mut [u8]) {
        match style {
            Style::Extended => Fields::new(into).u64(self.length).u64(self.flags),
            _ => Fields::new(into).u32(self.length as u32).u32(self.flags as u32),
        };
    }

    /// Bytes before the first one in a chunk of this style.
    pub fn front_len(style: Style) -> usize {
        if style == Style::Extended { 8 } else { 4 }
    }

    /// Writes what comes before the first one.
    pub fn write_front(style: Style, context: u32, count: u32, into: &mut [u8]) {
        let fields = Fields::new(into).u32(context);
        if style == Style::Extended {
            fields.u32(count);
        }
    }

    /// From the payload of a status chunk: its context, and the runs. `None` if it is malformed.
    pub fn decode(
        kind: ChunkType,
        payload: &[u8],
    ) -> Option<(u32, impl Iterator<Item = Status> + '_)> {
        let extended = kind == ChunkType::BLOCK_STATUS_EXT;
        let mut r = Reader(payload);
        let context = r.u32()?;
        let count = if extended { r.u32()? as usize } else { r.0.len() / 8 };
        let size = if extended { 16 } else { 8 };
        if count == 0 || count.checked_mul(size)? != r.0.len() {
            return None;
        }
        let runs = core::iter::from_fn(move || {
            let (length, flags) =
                if extended { (r.u64()?, r.u64()?) } else { (r.u32()?.into(), r.u32()?.into()) };
            Some(Status { length, flags })
        });
        Some((context, runs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn replies_to_the_byte() {
        let simple = SimpleReply { error: Errno::EINVAL, cookie: 7 };
        assert_eq!(simple.encode(), [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(SimpleReply::decode(&simple.encode()), Ok(simple));
        let chunk = Chunk {
            flags: CHUNK_DONE,
            kind: ChunkType::OFFSET_DATA,
            cookie: 7,
            offset: 0,
            length: 520,
        };
        assert_eq!(
            chunk.encode(),
            [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 2, 8]
        );
        assert_eq!(Chunk::decode(&chunk.encode()), Ok(chunk));
        let chunk = Chunk { offset: 0x1000, ..chunk };
        let bytes = chunk.encode_extended();
        assert_eq!(bytes[..8], [0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 1]);
        assert_eq!(bytes[16..], [0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 2, 8]);
        assert_eq!(Chunk::decode_extended(&bytes), Ok(chunk));
        let mut too_long = bytes;
        too_long[24] = 1;
        assert!(Chunk::decode_extended(&too_long).is_err());
        assert!(Chunk::decode(&[0; 20]).is_err() && SimpleReply::decode(&[0; 16]).is_err());
    }

    #[test]
    fn errors_and_statuses() {
        let mut payload = error_front(Errno::EIO, 3).to_vec();
        payload.extend_from_slice(b"bad\0\0\0\0\0\0\x10\0");
        let error = ErrorChunk::decode(ChunkType::ERROR_OFFSET, &payload).unwrap();
        assert_eq!(
            (error.error, error.message, error.offset),
            (Errno::EIO, &b"bad"[..], Some(0x1000))
        );
        assert_eq!(ErrorChunk::decode(ChunkType::ERROR, &payload[..9]).unwrap().offset, None);
        assert_eq!(ErrorChunk::decode(ChunkType::ERROR, &payload[..8]), None);
        assert_eq!(ErrorChunk::decode(ChunkType::ERROR_OFFSET, &payload[..9]), None);

        let runs = [Status { length: 4096, flags: 0 }, Status { length: 8192, flags: 3 }];
        for (style, kind) in [
            (Style::Structured, ChunkType::BLOCK_STATUS),
            (Style::Extended, ChunkType::BLOCK_STATUS_EXT),
        ] {
            let mut payload = vec![0; Status::front_len(style) + 2 * Status::len(style)];
            Status::write_front(style, 9, 2, &mut payload);
            for (i, run) in runs.iter().enumerate() {
                run.write(style, &mut payload[Status::front_len(style) + i * Status::len(style)..]);
            }
            let (context, decoded) = Status::decode(kind, &payload).unwrap();
            assert_eq!((context, decoded.collect::<Vec<_>>()), (9, runs.to_vec()));
            assert!(Status::decode(kind, &payload[..payload.len() - 1]).is_none());
            assert!(Status::decode(kind, &payload[..Status::front_len(style)]).is_none());
        }
    }
}
