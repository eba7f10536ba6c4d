//! Options: what a client asks for before transmission, and the replies ("Option types").

use super::{BadMagic, Fields, MAX_STRING, OPTION_MAGIC, Reader};
use alloc::vec::Vec;
use core::fmt;

/// Bytes of [`OptionHeader`].
pub const OPTION_HEADER_LEN: usize = 16;
/// Bytes of [`OptionReply`].
pub const OPTION_REPLY_LEN: usize = 20;
/// The first bytes of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

macro_rules! numbers {
    ($type:ident: $($(#[doc = $doc:literal])* $name:ident = $code:expr;)*) => {
        impl $type {
            $($(#[doc = $doc])* pub const $name: $type = $type($code);)*

            /// All that the specification has, with their names.
            pub const ALL: &[($type, &'static str)] = &[$(($type($code), stringify!($name))),*];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match Self::ALL.iter().find(|(number, _)| number == self) {
                    Some((_, name)) => f.write_str(name),
                    None => write!(f, "number {}", self.0),
                }
            }
        }
    };
}
pub(super) use numbers;

/// The number of an option. An open set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionCode(pub u32);

numbers! { OptionCode:
    /// Ends the handshake with an export, without a way to report errors.
    EXPORT_NAME = 1;
    /// Ends the connection.
    ABORT = 2;
    /// Lists the exports.
    LIST = 3;
    /// Withdrawn.
    PEEK_EXPORT = 4;
    /// Starts TLS.
    STARTTLS = 5;
    /// Asks about an export.
    INFO = 6;
    /// Ends the handshake with an export.
    GO = 7;
    /// Allows structured replies.
    STRUCTURED_REPLY = 8;
    /// Lists metadata contexts.
    LIST_META_CONTEXT = 9;
    /// Selects metadata contexts.
    SET_META_CONTEXT = 10;
    /// Allows extended headers.
    EXTENDED_HEADERS = 11;
}

/// The type of a reply to an option. An open set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyCode(pub u32);

const ERROR: u32 = 1 << 31;

numbers! { ReplyCode:
    /// Accepted, or the end of a list.
    ACK = 1;
    /// An export of a list.
    SERVER = 2;
    /// Something about an export.
    INFO = 3;
    /// A metadata context.
    META_CONTEXT = 4;
    /// The option is not known.
    ERR_UNSUP = ERROR + 1;
    /// The option is forbidden.
    ERR_POLICY = ERROR + 2;
    /// The option is malformed, or comes at the wrong time.
    ERR_INVALID = ERROR + 3;
    /// The option is not possible on this platform.
    ERR_PLATFORM = ERROR + 4;
    /// TLS is needed first.
    ERR_TLS_REQD = ERROR + 5;
    /// There is no such export.
    ERR_UNKNOWN = ERROR + 6;
    /// The server is being shut down.
    ERR_SHUTDOWN = ERROR + 7;
    /// The client has to know of the block sizes.
    ERR_BLOCK_SIZE_REQD = ERROR + 8;
    /// The option or its answer is too large.
    ERR_TOO_BIG = ERROR + 9;
    /// Extended headers are needed first.
    ERR_EXT_HEADER_REQD = ERROR + 10;
}

impl ReplyCode {
    /// Whether it says that the option failed.
    pub fn is_error(self) -> bool {
        self.0 & ERROR != 0
    }
}

/// What is asked and told about an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfoType(pub u16);

numbers! { InfoType:
    /// Size and transmission flags.
    EXPORT = 0;
    /// Its canonical name.
    NAME = 1;
    /// A text for people.
    DESCRIPTION = 2;
    /// Smallest, preferred and largest sizes of requests.
    BLOCK_SIZE = 3;
}

/// What comes before the data of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option.
    pub option: OptionCode,
    /// Bytes of data.
    pub len: u32,
}

impl OptionHeader {
    /// The bytes.
    pub fn encode(self) -> [u8; OPTION_HEADER_LEN] {
        let mut bytes = [0; OPTION_HEADER_LEN];
        Fields::new(&mut bytes).u64(OPTION_MAGIC).u32(self.option.0).u32(self.len);
        bytes
    }

    /// From the bytes.
    ///
    /// # Errors
    ///
    /// It does not begin as an option does.
    pub fn decode(bytes: &[u8; OPTION_HEADER_LEN]) -> Result<Self, BadMagic> {
        let mut r = Reader(bytes);
        match (r.u64(), r.u32(), r.u32()) {
            (Some(OPTION_MAGIC), Some(option), Some(len)) => {
                Ok(OptionHeader { option: OptionCode(option), len })
            }
            (magic, ..) => Err(BadMagic(magic.unwrap_or(0))),
        }
    }
}

/// What comes before the data of a reply to an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReply {
    /// The option that is answered.
    pub option: OptionCode,
    /// What the reply says.
    pub code: ReplyCode,
    /// Bytes of data.
    pub len: u32,
}

impl OptionReply {
    /// The bytes.
    pub fn encode(self) -> [u8; OPTION_REPLY_LEN] {
        let mut bytes = [0; OPTION_REPLY_LEN];
        Fields::new(&mut bytes)
            .u64(OPTION_REPLY_MAGIC)
            .u32(self.option.0)
            .u32(self.code.0)
            .u32(self.len);
        bytes
    }

    /// From the bytes.
    ///
    /// # Errors
    ///
    /// It does not begin as a reply to an option does.
    pub fn decode(bytes: &[u8; OPTION_REPLY_LEN]) -> Result<Self, BadMagic> {
        let mut r = Reader(bytes);
        match (r.u64(), r.u32(), r.u32(), r.u32()) {
            (Some(OPTION_REPLY_MAGIC), Some(option), Some(code), Some(len)) => {
                Ok(OptionReply { option: OptionCode(option), code: ReplyCode(code), len })
            }
            (magic, ..) => Err(BadMagic(magic.unwrap_or(0))),
        }
    }

    /// Appends a reply whose data is these pieces, one after another.
    pub fn append(out: &mut Vec<u8>, option: OptionCode, code: ReplyCode, data: &[&[u8]]) {
        let len = data.iter().map(|piece| piece.len()).sum::<usize>() as u32;
        out.extend_from_slice(&OptionReply { option, code, len }.encode());
        data.iter().for_each(|piece| out.extend_from_slice(piece));
    }
}

/// Data of [`InfoType::EXPORT`], behind its type.
pub fn info_export(size: u64, flags: u16) -> [u8; 12] {
    let mut bytes = [0; 12];
    Fields::new(&mut bytes).u16(InfoType::EXPORT.0).u64(size).u16(flags);
    bytes
}

/// Data of [`InfoType::BLOCK_SIZE`] with its type: all in bytes.
pub fn info_block_size(minimum: u32, preferred: u32, maximum: u32) -> [u8; 14] {
    let mut bytes = [0; 14];
    Fields::new(&mut bytes).u16(InfoType::BLOCK_SIZE.0).u32(minimum).u32(preferred).u32(maximum);
    bytes
}

/// Why the data of an option is refused. The data was taken: the next option can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadOption {
    /// It ends early, goes on behind its end, or its lengths do not add up.
    Length,
    /// A string is longer than [`MAX_STRING`].
    TooLong,
    /// A string has a NUL.
    Nul,
}

impl fmt::Display for BadOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadOption::Length => "the lengths in the data of the option do not add up",
            BadOption::TooLong => "a string has more than 4096 bytes",
            BadOption::Nul => "a string has a NUL",
        })
    }
}

impl core::error::Error for BadOption {}

/// A string within the limits. The specification wants UTF-8; what is no UTF-8 names nothing.
///
/// # Errors
///
/// The string is longer than [`MAX_STRING`] bytes, or has a NUL byte.
pub fn checked_string(bytes: &[u8]) -> Result<&[u8], BadOption> {
    match bytes {
        _ if bytes.len() > MAX_STRING => Err(BadOption::TooLong),
        _ if bytes.contains(&0) => Err(BadOption::Nul),
        _ => Ok(bytes),
    }
}

/// Takes a string with its length before it.
fn string<'b>(r: &mut Reader<'b>) -> Result<&'b [u8], BadOption> {
    let len = r.u32().ok_or(BadOption::Length)? as usize;
    checked_string(r.bytes(len).ok_or(BadOption::Length)?)
}

/// Data of `INFO` and `GO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfoRequest<'b> {
    /// The export.
    pub name: &'b [u8],
    /// Types of information, two bytes each.
    requests: &'b [u8],
}

impl<'b> InfoRequest<'b> {
    /// From the data.
    ///
    /// # Errors
    ///
    /// The lengths in the data do not add up, or the name is no string.
    pub fn decode(data: &'b [u8]) -> Result<Self, BadOption> {
        let mut r = Reader(data);
        let name = string(&mut r)?;
        let count = r.u16().ok_or(BadOption::Length)?;
        if r.0.len() != usize::from(count) * 2 {
            return Err(BadOption::Length);
        }
        Ok(InfoRequest { name, requests: r.0 })
    }

    /// Whether this type of information is asked for.
    pub fn wants(&self, info: InfoType) -> bool {
        self.requests.chunks_exact(2).any(|pair| pair == info.0.to_be_bytes())
    }

    /// Appends the data.
    pub fn encode(name: &[u8], requests: &[InfoType], out: &mut Vec<u8>) {
        out.extend_from_slice(&(name.len() as u32).to_be_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(&(requests.len() as u16).to_be_bytes());
        requests.iter().for_each(|info| out.extend_from_slice(&info.0.to_be_bytes()));
    }
}

/// Data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Clone, Copy)]
pub struct ContextRequest<'b> {
    /// The export.
    pub name: &'b [u8],
    /// How many queries there are.
    pub count: u32,
    queries: Reader<'b>,
}

impl<'b> ContextRequest<'b> {
    /// From the data; all queries are looked at.
    ///
    /// # Errors
    ///
    /// The lengths in the data do not add up, or the name or a query is no string.
    pub fn decode(data: &'b [u8]) -> Result<Self, BadOption> {
        let mut r = Reader(data);
        let name = string(&mut r)?;
        let count = r.u32().ok_or(BadOption::Length)?;
        let queries = r;
        for _ in 0..count {
            string(&mut r)?;
        }
        if !r.0.is_empty() {
            return Err(BadOption::Length);
        }
        Ok(ContextRequest { name, count, queries })
    }

    /// The queries.
    pub fn queries(&self) -> impl Iterator<Item = &'b [u8]> {
        let mut r = self.queries;
        core::iter::from_fn(move || string(&mut r).ok())
    }

    /// Appends the data.
    pub fn encode(name: &[u8], queries: &[&[u8]], out: &mut Vec<u8>) {
        out.extend_from_slice(&(name.len() as u32).to_be_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(&(queries.len() as u32).to_be_bytes());
        for query in queries {
            out.extend_from_slice(&(query.len() as u32).to_be_bytes());
            out.extend_from_slice(query);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn headers() {
        let header = OptionHeader { option: OptionCode::GO, len: 9 };
        assert_eq!(&header.encode(), b"IHAVEOPT\0\0\0\x07\0\0\0\x09");
        assert_eq!(OptionHeader::decode(&header.encode()), Ok(header));
        assert_eq!(OptionHeader::decode(&[0; 16]), Err(BadMagic(0)));
        let reply = OptionReply { option: OptionCode::LIST, code: ReplyCode::ERR_UNKNOWN, len: 0 };
        assert_eq!(
            reply.encode(),
            [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 3, 0x80, 0, 0, 6, 0, 0, 0, 0]
        );
        assert_eq!(OptionReply::decode(&reply.encode()), Ok(reply));
        assert!(reply.code.is_error() && !ReplyCode::ACK.is_error());
        let mut out = Vec::new();
        OptionReply::append(&mut out, OptionCode::INFO, ReplyCode::INFO, &[b"ab", b"", b"c"]);
        assert_eq!(out[16..], *b"\0\0\0\x03abc");
    }

    #[test]
    fn info_requests() {
        let mut data = Vec::new();
        InfoRequest::encode(b"disk", &[InfoType::BLOCK_SIZE, InfoType(9)], &mut data);
        let request = InfoRequest::decode(&data).unwrap();
        assert_eq!(request.name, b"disk");
        assert!(request.wants(InfoType::BLOCK_SIZE) && !request.wants(InfoType::NAME));
        for cut in 0..data.len() {
            assert_eq!(InfoRequest::decode(&data[..cut]), Err(BadOption::Length), "cut at {cut}");
        }
        data.push(0);
        assert_eq!(InfoRequest::decode(&data), Err(BadOption::Length));
        assert_eq!(InfoRequest::decode(&[0xff; 20]), Err(BadOption::Length));
        let mut long = Vec::new();
        InfoRequest::encode(&vec![b'x'; MAX_STRING + 1], &[], &mut long);
        assert_eq!(InfoRequest::decode(&long), Err(BadOption::TooLong));
        let mut nul = Vec::new();
        InfoRequest::encode(b"a\0b", &[], &mut nul);
        assert_eq!(InfoRequest::decode(&nul), Err(BadOption::Nul));
    }

    #[test]
    fn context_requests() {
        let mut data = Vec::new();
        ContextRequest::encode(b"d", &[b"base:allocation", b"", b"x-y:"], &mut data);
        let request = ContextRequest::decode(&data).unwrap();
        assert_eq!((request.name, request.count), (&b"d"[..], 3));
        assert!(request.queries().eq([&b"base:allocation"[..], b"", b"x-y:"]));
        for cut in 0..data.len() {
            assert!(ContextRequest::decode(&data[..cut]).is_err(), "cut at {cut}");
        }
        data.push(0);
        assert!(ContextRequest::decode(&data).is_err());
        // A count that no data can have must not take time.
        assert!(ContextRequest::decode(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn infos() {
        assert_eq!(info_export(0x200, 1), [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1]);
        assert_eq!(
            info_block_size(1, 4096, 1 << 25),
            [0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0]
        );
    }
}
