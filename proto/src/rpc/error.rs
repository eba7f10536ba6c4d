//! Errors: a number that programs go by, and a text for people.

use super::owned;
use alloc::string::String;
use core::fmt;
use minicbor::{Decode, Encode};

/// Why a request failed. An open set: a client must expect numbers that it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ErrorCode(#[n(0)] pub u16);

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal, $text:literal;)*) => {
        impl ErrorCode {
            $($(#[doc = $doc])* pub const $name: ErrorCode = ErrorCode($code);)*

            /// All codes that this version knows, with their names.
            pub const ALL: &[(ErrorCode, &'static str)] = &[$((ErrorCode($code), $text)),*];
        }
    };
}

codes! {
    /// No such file or directory.
    NOT_FOUND = 1, "not-found";
    /// The name exists already.
    EXISTS = 2, "exists";
    /// A directory was needed.
    NOT_DIRECTORY = 3, "not-directory";
    /// A directory was given where a file is needed.
    IS_DIRECTORY = 4, "is-directory";
    /// The directory has entries.
    NOT_EMPTY = 5, "not-empty";
    /// A name has more than 255 bytes.
    NAME_TOO_LONG = 6, "name-too-long";
    /// A name is empty, `.` or `..`, or has a `/` or NUL byte.
    INVALID_NAME = 7, "invalid-name";
    /// No free blocks or inodes are left.
    NO_SPACE = 8, "no-space";
    /// Beyond the largest file size.
    TOO_LARGE = 9, "too-large";
    /// The arguments contradict each other or the file.
    INVALID = 10, "invalid";
    /// In use in a way that forbids this.
    BUSY = 11, "busy";
    /// The volume or the handle is read-only.
    READ_ONLY = 12, "read-only";
    /// Memory of the server ran out.
    NO_MEMORY = 13, "no-memory";
    /// The media could not deliver a line.
    POISONED = 14, "poisoned";
    /// A structure on media fails its check.
    DAMAGED = 15, "damaged";
    /// Loads and stores: beyond the end of the file.
    OUT_OF_RANGE = 16, "out-of-range";
    /// The frame or its body breaks the format.
    MALFORMED = 100, "malformed";
    /// The method, or a flag or feature that the request needs, is not known.
    UNSUPPORTED = 101, "unsupported";
    /// The frame, or a path in it, is longer than the limits allow.
    TOO_LONG = 102, "too-long";
    /// The first request was not a hello of this protocol.
    NO_HELLO = 103, "no-hello";
    /// The server does not speak this version of the protocol.
    VERSION = 104, "version";
    /// No such handle is open on this connection.
    BAD_HANDLE = 105, "bad-handle";
    /// The connection has as many handles open as it may.
    TOO_MANY_HANDLES = 106, "too-many-handles";
    /// The server has as many connections as it may.
    TOO_MANY_CONNECTIONS = 107, "too-many-connections";
}

impl ErrorCode {
    /// A short name for programs and logs; `None` for a number that is not known.
    pub fn name(self) -> Option<&'static str> {
        Self::ALL.iter().find(|(code, _)| *code == self).map(|(_, name)| *name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Body of a response with the flag [`ERROR`](super::ERROR).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ErrorBody {
    /// Why.
    #[n(0)]
    pub code: ErrorCode,
    /// What was being done to what, and why it failed: one line for people, without a dot.
    #[cbor(n(1), with = "owned::text")]
    pub message: String,
    /// How many bytes were read, written, loaded or stored before that, where the request
    /// moves bytes. They stay.
    #[n(2)]
    pub done: Option<u64>,
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for ErrorBody {}

/// As [`ErrorBody`], for a sender that has the text elsewhere.
#[derive(Clone, Copy, Debug, Encode)]
#[cbor(map)]
pub struct ErrorRef<'a> {
    /// Why.
    #[n(0)]
    pub code: ErrorCode,
    /// What failed and why.
    #[n(1)]
    pub message: &'a str,
    /// Bytes that were done before.
    #[n(2)]
    pub done: Option<u64>,
}
