//! What a server sees of a connection: a byte stream that never blocks.
//!
//! A server is one state machine per connection, a [`Service`](crate::Service). Whoever owns the
//! connections (in the guest the network loop, in tests a pair of buffers) makes one when a client
//! connects, by [`accept`](crate::accept()), and polls it whenever its stream has something new:
//! bytes arrived, room to send came free, the peer finished or vanished. A service works for a
//! bounded time per poll and never waits.
//!
//! Both directions are done in place. What was received is looked at where it lies and then
//! consumed; what is to be sent is written where it will be sent from.

use umbra_fs::Block;

/// One end of a reliable byte stream, never blocking.
pub trait Stream {
    /// Bytes received and not yet consumed: the first contiguous piece (empty: none now).
    ///
    /// Pieces have any size, from one byte up; a message may be spread over several. To
    /// see the next piece, consume this one.
    fn received(&self) -> &[u8];

    /// Total bytes received and not yet consumed, over all pieces.
    ///
    /// Bounded by the receive window of the connection, which may be as small as
    /// [`MIN_WINDOW`]: a server must not wait for more than that to be available at once.
    fn available(&self) -> usize;

    /// Drops `n` bytes from the front of what was received (gives credit back).
    ///
    /// May go beyond the first piece, but not beyond [`available`](Self::available): more
    /// than that is cut down to it.
    fn consume(&mut self, n: usize);

    /// The block that the first of the [`received`](Self::received) bytes lies in, at its start,
    /// and the rest of the piece in those behind it, if they came into blocks that the volume has
    /// [lent](umbra_fs::Volume::lend).
    ///
    /// To be asked by who could take such blocks over: what comes from now on is then more likely
    /// to be in some.
    fn received_in(&mut self) -> Option<Block> {
        None
    }

    /// Free space to fill in place, contiguous; empty when the peer or the queue takes no
    /// more now (the service is polled again when that changes).
    ///
    /// What it holds before it is filled is undefined, and may be what another connection
    /// sent before: commit only what was filled. Any size from one byte up.
    fn buffer(&mut self) -> &mut [u8];

    /// Queues the first `n` bytes of [`buffer`](Self::buffer) for sending.
    ///
    /// Bytes leave when the service returns from its poll, or earlier; commits of one poll
    /// are put together in packets. More than the buffer held is cut down to it.
    fn commit(&mut self, n: usize);

    /// The peer will send no more (half-close); what was received can still be consumed
    /// and answers still be sent.
    fn finished(&self) -> bool;

    /// The connection is gone (reset); nothing can be sent. What was received before can
    /// still be looked at.
    fn is_closed(&self) -> bool;

    /// Sends what is queued, then closes the connection in both directions. What the peer
    /// still sends is dropped. From now on the buffer is empty; closing again does
    /// nothing.
    fn close(&mut self);
}

/// The client's end of a connection: its address on vsock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Context id of its machine.
    pub cid: u64,
    /// Its port there.
    pub port: u32,
}

/// The smallest receive window that a connection may have, in bytes.
pub const MIN_WINDOW: usize = 4096;

/// Bytes of the unit that is stored as a whole: each aligned word of a file, or of a region, is old
/// or new for everybody and after a crash. Who stores bytes as they come stores whole words, and
/// what is left when all have come.
pub const WORD: u64 = 8;

/// What a poll came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing more to do until the stream has something new.
    Wait,
    /// There is more to do now: poll again, after others had their turn.
    Again,
}

/// Appends as much of `bytes` as there is room for; returns how many were taken.
pub fn send(stream: &mut dyn Stream, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        let room = stream.buffer();
        let n = room.len().min(bytes.len() - done);
        if n == 0 {
            break;
        }
        room[..n].copy_from_slice(&bytes[done..done + n]);
        stream.commit(n);
        done += n;
    }
    done
}

/// Takes as many received bytes as `into` holds or are there; returns how many.
pub fn take(stream: &mut dyn Stream, into: &mut [u8]) -> usize {
    let mut done = 0;
    while done < into.len() {
        let piece = stream.received();
        let n = piece.len().min(into.len() - done);
        if n == 0 {
            break;
        }
        into[done..done + n].copy_from_slice(&piece[..n]);
        stream.consume(n);
        done += n;
    }
    done
}
