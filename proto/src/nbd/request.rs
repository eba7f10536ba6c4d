//! Requests ("Request message", "Request types", "Command flags").

use super::option::numbers;
use super::{BadMagic, Fields, Reader, Style};
use core::fmt;

/// Bytes of a compact request.
pub const REQUEST_LEN: usize = 28;
/// Bytes of an extended request.
pub const EXTENDED_REQUEST_LEN: usize = 32;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;

/// What a client wants done. An open set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command(pub u16);

numbers! { Command:
    /// Reads.
    READ = 0;
    /// Writes the payload.
    WRITE = 1;
    /// Ends the connection; has no reply.
    DISC = 2;
    /// Makes durable what was written before.
    FLUSH = 3;
    /// The range is no longer needed.
    TRIM = 4;
    /// The range will be needed soon.
    CACHE = 5;
    /// Writes zeros.
    WRITE_ZEROES = 6;
    /// Asks what the range is.
    BLOCK_STATUS = 7;
    /// Changes the size (experimental).
    RESIZE = 8;
}

/// Flags of a request.
pub mod command_flags {
    /// What is written is durable before the reply.
    pub const FUA: u16 = 1 << 0;
    /// Zeros take space.
    pub const NO_HOLE: u16 = 1 << 1;
    /// The data comes in one chunk.
    pub const DF: u16 = 1 << 2;
    /// One extent is enough.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Zeros are written faster than by writing them, or not at all.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// With extended headers: the length is that of a payload.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// A request, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bits of [`command_flags`].
    pub flags: u16,
    /// What to do.
    pub command: Command,
    /// Chosen by the client; its replies carry the same.
    pub cookie: u64,
    /// First byte of the range.
    pub offset: u64,
    /// Bytes: of the range, or of the payload.
    pub length: u64,
}

impl Request {
    /// The bytes of a compact request; the length is cut to 32 bits.
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        let mut bytes = [0; REQUEST_LEN];
        self.front(&mut bytes, REQUEST_MAGIC).u32(self.length as u32);
        bytes
    }

    /// The bytes of an extended request.
    pub fn encode_extended(&self) -> [u8; EXTENDED_REQUEST_LEN] {
        let mut bytes = [0; EXTENDED_REQUEST_LEN];
        self.front(&mut bytes, EXTENDED_REQUEST_MAGIC).u64(self.length);
        bytes
    }

    fn front<'b>(&self, bytes: &'b mut [u8], magic: u32) -> Fields<'b> {
        Fields::new(bytes)
            .u32(magic)
            .u16(self.flags)
            .u16(self.command.0)
            .u64(self.cookie)
            .u64(self.offset)
    }

    /// From the bytes of a compact request.
    ///
    /// # Errors
    ///
    /// It does not begin as a compact request does.
    pub fn decode(bytes: &[u8; REQUEST_LEN]) -> Result<Self, BadMagic> {
        Self::parse(Reader(bytes), REQUEST_MAGIC, |r| r.u32().map(u64::from))
    }

    /// From the bytes of an extended request.
    ///
    /// # Errors
    ///
    /// It does not begin as an extended request does.
    pub fn decode_extended(bytes: &[u8; EXTENDED_REQUEST_LEN]) -> Result<Self, BadMagic> {
        Self::parse(Reader(bytes), EXTENDED_REQUEST_MAGIC, Reader::u64)
    }

    fn parse<'b>(
        mut r: Reader<'b>,
        magic: u32,
        length: impl FnOnce(&mut Reader<'b>) -> Option<u64>,
    ) -> Result<Self, BadMagic> {
        let found = r.u32().unwrap_or(0);
        if found != magic {
            return Err(BadMagic(found.into()));
        }
        let fields = || Some((r.u16()?, r.u16()?, r.u64()?, r.u64()?, length(&mut r)?));
        // The arrays that come here are long enough.
        let (flags, command, cookie, offset, length) = fields().ok_or(BadMagic(found.into()))?;
        Ok(Request { flags, command: Command(command), cookie, offset, length })
    }

    /// Bytes of payload that follow the request.
    ///
    /// A write carries its payload in every style, whatever its flag says: QEMU's client leaves the
    /// flag out with extended headers. Any other request carries a payload if its flag says so,
    /// which only an extended request can say.
    pub fn payload(&self, style: Style) -> u64 {
        let flagged = style == Style::Extended && self.has(command_flags::PAYLOAD_LEN);
        if flagged || self.command == Command::WRITE { self.length } else { 0 }
    }

    /// Whether the length is that of a payload, and says nothing of a range.
    pub fn length_is_payload_only(&self, style: Style) -> bool {
        style == Style::Extended
            && self.command == Command::BLOCK_STATUS
            && self.has(command_flags::PAYLOAD_LEN)
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_carries_a_payload_and_others_if_an_extended_flag_says_so() {
        let styles = [Style::Simple, Style::Structured, Style::Extended];
        let len = |command, flags, style| {
            Request { flags, command, cookie: 0, offset: 0, length: 9 }.payload(style)
        };
        for style in styles {
            assert_eq!(len(Command::WRITE, 0, style), 9);
            assert_eq!(len(Command::WRITE, command_flags::PAYLOAD_LEN, style), 9);
            for other in (0..9).filter(|n| *n != 1).map(Command) {
                assert_eq!(len(other, !command_flags::PAYLOAD_LEN, style), 0, "{other}");
                let flagged = if style == Style::Extended { 9 } else { 0 };
                assert_eq!(len(other, command_flags::PAYLOAD_LEN, style), flagged, "{other}");
            }
        }
    }

    #[test]
    fn both_forms_to_the_byte() {
        let request = Request {
            flags: command_flags::FUA,
            command: Command::WRITE_ZEROES,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1_0000_0000,
            length: 0x2000,
        };
        let compact = request.encode();
        assert_eq!(
            compact,
            [
                0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 0, 0, 0, 0,
                0, 0, 0x20, 0
            ]
        );
        assert_eq!(Request::decode(&compact), Ok(request));
        let long = Request { length: 0x0102_0304_0506_0708, ..request };
        let extended = long.encode_extended();
        assert_eq!(extended[..8], [0x21, 0xe4, 0x1c, 0x71, 0, 1, 0, 6]);
        assert_eq!(extended[24..], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(Request::decode_extended(&extended), Ok(long));
        assert_eq!(Request::decode(&[0; REQUEST_LEN]), Err(BadMagic(0)));
        let mut other = extended;
        other[0] = 0x25;
        assert_eq!(Request::decode_extended(&other), Err(BadMagic(0x25e4_1c71)));
    }
}
