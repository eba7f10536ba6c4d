//! The header of a frame.
//!
//! ```text
//!  0        4        8    10    12       16                16+length-payload     16+length
//!  | length |   id   |meth|flags|payload | body: a CBOR map |   payload: raw bytes  |
//! ```
//!
//! All numbers are little-endian. `length` counts what follows the header: body and payload.

use super::ErrorCode;
use core::fmt;

/// Bytes in a frame header.
pub const HEADER_LEN: usize = 16;
/// Largest body of a frame in bytes.
pub const MAX_BODY: u32 = 16 << 10;
/// Largest payload of a frame in bytes.
pub const MAX_PAYLOAD: u32 = 1 << 20;
/// Longest path in bytes.
pub const MAX_PATH: usize = 4096;

/// Flag: this is a response.
pub const RESPONSE: u16 = 1;
/// Flag of a response: the request failed; the body is an [`ErrorBody`](super::ErrorBody).
pub const ERROR: u16 = 2;
/// Flag of a response: more frames answer the same request.
pub const MORE: u16 = 4;

/// The header of a frame, as it came: not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow the header.
    pub length: u32,
    /// Chosen by the client; its responses carry the same.
    pub id: u32,
    /// The method; responses carry that of the request.
    pub method: u16,
    /// [`RESPONSE`], [`ERROR`], [`MORE`]. Requests have none.
    pub flags: u16,
    /// How many of the bytes that follow, at the end, are payload.
    pub payload: u32,
}

/// Why a header is refused. What follows such a header cannot be told apart from
/// the next frame, so the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// More payload than frame.
    Contradiction,
    /// The body is longer than [`MAX_BODY`].
    Body(u32),
    /// The payload is longer than [`MAX_PAYLOAD`].
    Payload(u32),
    /// Flags that this side of a connection does not receive.
    Flags(u16),
}

impl HeaderError {
    /// The code that a server answers with.
    pub fn code(&self) -> ErrorCode {
        match self {
            HeaderError::Contradiction | HeaderError::Flags(_) => ErrorCode::MALFORMED,
            HeaderError::Body(_) | HeaderError::Payload(_) => ErrorCode::TOO_LONG,
        }
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Contradiction => f.write_str("the frame has more payload than length"),
            HeaderError::Body(n) => {
                write!(f, "the body has {n} bytes, at most {MAX_BODY} are allowed")
            }
            HeaderError::Payload(n) => {
                write!(f, "the payload has {n} bytes, at most {MAX_PAYLOAD} are allowed")
            }
            HeaderError::Flags(flags) => write!(f, "the flags {flags:#06x} are not known here"),
        }
    }
}

impl core::error::Error for HeaderError {}

impl Header {
    /// The header of a request with a body and a payload of these lengths.
    pub fn request(id: u32, method: u16, body: u32, payload: u32) -> Self {
        Header { length: body + payload, id, method, flags: 0, payload }
    }

    /// The header of a response to `self`; `flags` may have [`ERROR`] and [`MORE`].
    pub fn response(&self, flags: u16, body: u32, payload: u32) -> Self {
        Header { length: body + payload, flags: flags | RESPONSE, payload, ..*self }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0..4].copy_from_slice(&self.length.to_le_bytes());
        b[4..8].copy_from_slice(&self.id.to_le_bytes());
        b[8..10].copy_from_slice(&self.method.to_le_bytes());
        b[10..12].copy_from_slice(&self.flags.to_le_bytes());
        b[12..16].copy_from_slice(&self.payload.to_le_bytes());
        b
    }

    /// From its bytes. Every 16 bytes are a header; whether it makes sense says one of the
    /// checks.
    pub fn decode(b: &[u8; HEADER_LEN]) -> Self {
        let u32_at = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let u16_at = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        Header {
            length: u32_at(0),
            id: u32_at(4),
            method: u16_at(8),
            flags: u16_at(10),
            payload: u32_at(12),
        }
    }

    /// Length of the body in bytes. Only after a check.
    pub fn body(&self) -> u32 {
        self.length.saturating_sub(self.payload)
    }

    /// Whether more frames answer the same request.
    pub fn has_more(&self) -> bool {
        self.flags & MORE != 0
    }

    /// Whether the request failed.
    pub fn is_error(&self) -> bool {
        self.flags & ERROR != 0
    }

    /// Checks the header of a request.
    ///
    /// # Errors
    ///
    /// The lengths contradict each other or are beyond the limits, or there are flags.
    pub fn check_request(&self) -> Result<(), HeaderError> {
        self.check(0, 0)
    }

    /// Checks the header of a response.
    ///
    /// # Errors
    ///
    /// The lengths contradict each other or are beyond the limits, or the flags are none of a
    /// response.
    pub fn check_response(&self) -> Result<(), HeaderError> {
        self.check(RESPONSE, ERROR | MORE)
    }

    fn check(&self, needed: u16, allowed: u16) -> Result<(), HeaderError> {
        let Some(body) = self.length.checked_sub(self.payload) else {
            return Err(HeaderError::Contradiction);
        };
        if body > MAX_BODY {
            return Err(HeaderError::Body(body));
        }
        if self.payload > MAX_PAYLOAD {
            return Err(HeaderError::Payload(self.payload));
        }
        if self.flags & needed != needed || self.flags & !(needed | allowed) != 0 {
            return Err(HeaderError::Flags(self.flags));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back() {
        let h = Header {
            length: 0x0403_0201,
            id: 0x0807_0605,
            method: 0x0a09,
            flags: 0x0c0b,
            payload: 7,
        };
        let b = h.encode();
        assert_eq!(b, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 7, 0, 0, 0]);
        assert_eq!(Header::decode(&b), h);
    }

    #[test]
    fn limits() {
        let ok = Header::request(1, 2, MAX_BODY, MAX_PAYLOAD);
        assert_eq!(ok.check_request(), Ok(()));
        assert_eq!(
            Header::request(1, 2, MAX_BODY + 1, 0).check_request(),
            Err(HeaderError::Body(MAX_BODY + 1))
        );
        let long = Header::request(1, 2, 0, MAX_PAYLOAD + 1);
        assert_eq!(long.check_request(), Err(HeaderError::Payload(MAX_PAYLOAD + 1)));
        assert_eq!(
            Header { payload: ok.length + 1, ..ok }.check_request(),
            Err(HeaderError::Contradiction)
        );
        assert_eq!(
            Header { flags: RESPONSE, ..ok }.check_request(),
            Err(HeaderError::Flags(RESPONSE))
        );
        assert_eq!(ok.check_response(), Err(HeaderError::Flags(0)));
        assert_eq!(ok.response(ERROR, 1, 0).check_response(), Ok(()));
    }
}
