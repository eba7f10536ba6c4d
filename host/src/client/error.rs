//! What can go wrong between a client and the server.

use super::rpc::{ErrorBody, ErrorCode};
use std::path::PathBuf;
use std::{fmt, io};

/// Result of a client's call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug)]
pub enum Error {
    /// Nobody serves the state directory.
    NotRunning {
        /// The state directory.
        state: PathBuf,
    },
    /// The server of the state directory is still starting.
    NotReady {
        /// The state directory.
        state: PathBuf,
    },
    /// The connection could not be made.
    Connect {
        /// The port of the guest.
        port: u32,
        /// Why.
        error: io::Error,
    },
    /// The guest runs, and nothing listens on the port.
    Refused {
        /// The port of the guest.
        port: u32,
    },
    /// The device between client and server takes no more connections.
    Full {
        /// How many it has.
        connections: u32,
    },
    /// The server did not react in time.
    Timeout {
        /// What it was to do: `to answer`.
        doing: &'static str,
    },
    /// The server is gone, or has ended the connection.
    Disconnected,
    /// The server refused the request. The connection goes on.
    Server(ErrorBody),
    /// A path or payload is longer than the server allows.
    TooLong,
    /// The server broke the protocol, or speaks another.
    Protocol(String),
    /// The connection broke in another way.
    Io(io::Error),
    /// A local file: what was done with it, and why it failed.
    Local(String, io::Error),
}

impl Error {
    /// What a failed read or write of the connection means.
    pub(super) fn from_io(error: io::Error, doing: &'static str) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected => Error::Disconnected,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::Timeout { doing },
            _ => Error::Io(error),
        }
    }

    /// The server's error number, where the server said no.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Server(body) => Some(body.code),
            _ => None,
        }
    }

    /// Whether the server said no for this reason.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code() == Some(code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotRunning { state } => {
                write!(
                    f,
                    "no server is running for state {}; start one with `umbra up`",
                    state.display()
                )
            }
            Error::NotReady { state } => {
                write!(f, "the server for state {} is not ready yet", state.display())
            }
            Error::Connect { port, error } => {
                write!(f, "cannot connect to port {port} of the guest: {error}")
            }
            Error::Refused { port } => {
                write!(
                    f,
                    "the guest does not listen on port {port}, or has no room for another \
                     connection to it"
                )
            }
            Error::Full { connections } => {
                write!(
                    f,
                    "the vsock device of the server has all its {connections} connections in use; \
                     one has to end first"
                )
            }
            Error::Timeout { doing } => write!(f, "the server took too long {doing}"),
            Error::Disconnected => f.write_str("the server is gone or has ended the connection"),
            Error::Server(body) => f.write_str(&body.message),
            Error::TooLong => f.write_str("the request is longer than the server allows"),
            Error::Protocol(what) => write!(f, "the server does not keep to the protocol: {what}"),
            Error::Io(error) => write!(f, "the connection to the server failed: {error}"),
            Error::Local(doing, error) => write!(f, "cannot {doing}: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Connect { error, .. } | Error::Io(error) | Error::Local(_, error) => Some(error),
            Error::Server(body) => Some(body),
            _ => None,
        }
    }
}
