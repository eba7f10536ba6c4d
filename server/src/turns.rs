//! Turns: everything that is done without looking at anybody else.
//!
//! One loop serves all clients, so whoever has the turn holds up all others. The longest turn is
//! kept, with what it was for, until somebody asks to look out anew.

use core::fmt;
use umbra_proto::nbd::Command;
use umbra_proto::rpc::Method;

/// What a turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A request of the native protocol: the last one of the turn.
    Rpc(Method),
    /// A request of NBD: the last one of the turn.
    Nbd(Command),
    /// A command of the console.
    Console,
    /// Work that no client waits for.
    Background,
    /// What has no name: a connection that begins or ends, a handshake, a stream of bytes.
    Other,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Turn::Rpc(method) => match method.name() {
                Some(name) => f.write_str(name),
                None => write!(f, "method {:#06x}", method.0),
            },
            Turn::Nbd(command) => write!(f, "nbd {command}"),
            Turn::Console => f.write_str("console"),
            Turn::Background => f.write_str("background"),
            Turn::Other => f.write_str("other"),
        }
    }
}

/// The longest turn so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    current: Turn,
    longest: Option<Turn>,
    longest_ns: u64,
}

impl Default for Turns {
    fn default() -> Self {
        Turns { current: Turn::Other, longest: None, longest_ns: 0 }
    }
}

impl Turns {
    /// Says what the turn that is being taken is for.
    pub fn is_for(&mut self, what: Turn) {
        self.current = what;
    }

    /// What it is for, as far as that was said.
    pub fn current(&self) -> Turn {
        self.current
    }

    /// What the longest turn was for; `None` if there was none.
    pub fn longest(&self) -> Option<Turn> {
        self.longest
    }

    /// How long it was, in nanoseconds.
    pub fn longest_ns(&self) -> u64 {
        self.longest_ns
    }

    /// Forgets the longest turn.
    pub fn start_anew(&mut self) {
        *self = Turns { current: self.current, ..Turns::default() };
    }

    /// A turn is over that took this many nanoseconds.
    pub(crate) fn took(&mut self, ns: u64) {
        if ns > self.longest_ns || self.longest.is_none() {
            self.longest = Some(self.current);
            self.longest_ns = ns;
        }
    }
}
