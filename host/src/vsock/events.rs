//! What the thread waits for: each event of epoll has a token that says what it is about.

use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use std::io;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// QEMU connects.
    Qemu,
    /// QEMU says something.
    Message,
    /// Somebody has a command.
    Wake,
    /// The guest kicked this ring.
    Kick(usize),
    /// A client connects here.
    Listener(u32),
    /// A client's socket.
    Client(u32),
}

impl Token {
    fn pack(self) -> u64 {
        let (sort, number) = match self {
            Token::Qemu => (0, 0),
            Token::Message => (1, 0),
            Token::Wake => (2, 0),
            Token::Kick(ring) => (3, ring as u32),
            Token::Listener(number) => (4, number),
            Token::Client(number) => (5, number),
        };
        sort << 32 | u64::from(number)
    }

    pub(super) fn unpack(data: u64) -> Token {
        let number = data as u32;
        match data >> 32 {
            0 => Token::Qemu,
            1 => Token::Message,
            2 => Token::Wake,
            3 => Token::Kick(number as usize),
            4 => Token::Listener(number),
            _ => Token::Client(number),
        }
    }
}

/// Begins to hear of events.
pub(super) fn watch(
    epoll: &OwnedFd,
    what: impl AsFd,
    token: Token,
    events: epoll::EventFlags,
) -> io::Result<()> {
    Ok(epoll::add(epoll, what, epoll::EventData::new_u64(token.pack()), events)?)
}

/// Changes which events are heard of.
pub(super) fn rewatch(
    epoll: &OwnedFd,
    what: impl AsFd,
    token: Token,
    events: epoll::EventFlags,
) -> io::Result<()> {
    Ok(epoll::modify(epoll, what, epoll::EventData::new_u64(token.pack()), events)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_what_they_were() {
        for token in [
            Token::Qemu,
            Token::Message,
            Token::Wake,
            Token::Kick(1),
            Token::Listener(u32::MAX),
            Token::Client(u32::MAX),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
