//! Error numbers ("Error values").

use core::fmt;

/// Why a request failed, as the client is told. An open set for clients.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub u32);

macro_rules! errnos {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal;)*) => {
        impl Errno {
            $($(#[doc = $doc])* pub const $name: Errno = Errno($code);)*

            /// All error numbers of the specification, with their names.
            pub const ALL: &[(Errno, &'static str)] = &[$((Errno($code), stringify!($name))),*];
        }
    };
}

errnos! {
    /// Operation not permitted: a change of an export that is read-only.
    EPERM = 1;
    /// Input/output error.
    EIO = 5;
    /// Cannot allocate memory.
    ENOMEM = 12;
    /// Invalid argument.
    EINVAL = 22;
    /// No space left on device, or a write beyond its end.
    ENOSPC = 28;
    /// Value too large: an unfragmented read that is too long.
    EOVERFLOW = 75;
    /// Operation not supported: zeroing that would not be fast.
    ENOTSUP = 95;
    /// The server is being shut down.
    ESHUTDOWN = 108;
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::ALL.iter().find(|(errno, _)| errno == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
