//! Credit: how much may be under way in each direction (virtio 1.2, 5.10.6.3).
//!
//! All counters of a connection count bytes since it began, modulo 2^32, and only their
//! differences mean anything: a connection carries any number of bytes.

use core::num::Wrapping;

/// The peer may hold itself to less than it is granted, and says so nowhere: Linux sends no more
/// ahead than its own buffer has room for (256 KiB, if nobody sets another), whatever the peer's.
/// It never asks for credit either. So a receiver that tells of what it took only when its own
/// window runs out may never be sent the bytes that would run it out.
const MODEST_PEER: u32 = 256 << 10;

/// What may be sent to the peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendWindow {
    /// Size of the peer's buffer.
    alloc: u32,
    /// Bytes that the peer took from it.
    forwarded: Wrapping<u32>,
    /// Bytes that were sent.
    sent: Wrapping<u32>,
}

impl SendWindow {
    /// Bytes sent since the connection began, modulo 2^32.
    pub fn sent_in_all(&self) -> u32 {
        self.sent.0
    }

    /// Bytes that were sent and that the peer has not taken yet, as far as it said so.
    pub fn outstanding(&self) -> u32 {
        (self.sent - self.forwarded).0
    }

    /// Bytes that may be sent now.
    pub fn free(&self) -> usize {
        self.alloc.saturating_sub(self.outstanding()) as usize
    }

    /// Notes that `n` bytes were sent; `n` is at most [`free`](Self::free).
    pub fn sent(&mut self, n: usize) {
        debug_assert!(n <= self.free());
        self.sent += Wrapping(n as u32);
    }

    /// Takes over what a header of the peer says; returns whether it took bytes since then.
    ///
    /// A count that goes backwards, or beyond what was sent, is nonsense and ignored.
    pub fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) -> Taken {
        let forwarded = Wrapping(fwd_cnt);
        let outstanding = (self.sent - forwarded).0;
        if outstanding > self.outstanding() {
            return Taken::Nothing;
        }
        let taken = self.outstanding() - outstanding;
        self.alloc = buf_alloc;
        self.forwarded = forwarded;
        if taken == 0 { Taken::Nothing } else { Taken::Some }
    }
}

/// Whether the peer took bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It did.
    Some,
    /// It did not.
    Nothing,
}

/// What the peer may send.
///
/// It never shrinks: the peer may have sent into the larger one already.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveWindow {
    size: u32,
    received: Wrapping<u32>,
    consumed: Wrapping<u32>,
    /// What the peer was told last: where the window ends.
    told_end: Wrapping<u32>,
}

impl ReceiveWindow {
    /// An empty window of `size` bytes.
    pub fn new(size: u32) -> Self {
        Self { size, received: Wrapping(0), consumed: Wrapping(0), told_end: Wrapping(0) }
    }

    /// Bytes of the window.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Makes it larger.
    pub fn grow(&mut self, size: u32) {
        self.size = self.size.max(size);
    }

    /// Bytes that were received and not consumed.
    pub fn filled(&self) -> u32 {
        (self.received - self.consumed).0
    }

    /// Bytes that there is room for.
    pub fn free(&self) -> u32 {
        self.size.saturating_sub(self.filled())
    }

    /// Notes that `n` bytes came, unless the peer had no right to send so many.
    ///
    /// # Errors
    ///
    /// The peer sent more bytes than it had credit for. Nothing is noted then.
    pub fn receive(&mut self, n: u32) -> Result<(), Overrun> {
        if n > self.free() {
            return Err(Overrun);
        }
        self.received += Wrapping(n);
        Ok(())
    }

    /// Notes that `n` bytes were consumed; `n` is at most [`filled`](Self::filled).
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.filled() as usize);
        self.consumed += Wrapping(n as u32);
    }

    /// Bytes consumed since the connection began, modulo 2^32.
    pub fn consumed(&self) -> u32 {
        self.consumed.0
    }

    /// Notes that the peer is being told the state of the window.
    pub fn told(&mut self) {
        self.told_end = self.consumed + Wrapping(self.size);
    }

    /// Whether the peer should be told: it knows of less than half of the window while
    /// there is more, or what it does not know of is half of what it dares to send ahead.
    pub fn worth_telling(&self) -> bool {
        let known = (self.told_end - self.received).0;
        let untold = self.free().saturating_sub(known);
        untold > 0 && (known < self.size / 2 || untold >= MODEST_PEER / 2)
    }
}

/// The peer sent more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_shrunk_or_silly_peer_window_is_no_credit() {
        let mut window = SendWindow::default();
        assert_eq!(window.free(), 0);
        assert_eq!(window.update(100, 0), Taken::Nothing);
        window.sent(80);
        assert_eq!(window.free(), 20);
        window.update(50, 0);
        assert_eq!(window.free(), 0);
        assert_eq!(window.update(100, 81), Taken::Nothing);
        assert_eq!(window.outstanding(), 80);
        assert_eq!(window.update(100, 30), Taken::Some);
        assert_eq!(window.update(100, 29), Taken::Nothing);
        assert_eq!(window.free(), 50);
    }

    #[test]
    fn a_peer_is_told_before_it_runs_dry_and_not_for_every_byte() {
        let mut window = ReceiveWindow::new(8192);
        assert!(window.worth_telling());
        window.told();
        assert!(!window.worth_telling());
        window.receive(4096).unwrap();
        window.consume(4096);
        assert!(!window.worth_telling());
        window.receive(1).unwrap();
        assert!(window.worth_telling());
        window.receive(4095).unwrap();
        assert_eq!(window.receive(4097), Err(Overrun));
        window.told();
        assert!(!window.worth_telling(), "there is nothing new to tell");
    }

    #[test]
    fn a_peer_that_sends_less_ahead_than_it_may_is_told_in_time() {
        let mut receive = ReceiveWindow::new(16 << 20);
        let mut send = SendWindow::default();
        receive.told();
        send.update(receive.size(), receive.consumed());
        let (mut moved, mut told) = (0, 0);
        while moved < 64 << 20 {
            let n = send.free().min((MODEST_PEER - send.outstanding()) as usize).min(64 << 10);
            assert!(n > 0, "stuck after {moved} bytes");
            send.sent(n);
            receive.receive(n as u32).unwrap();
            receive.consume(n);
            moved += n;
            if receive.worth_telling() {
                receive.told();
                send.update(receive.size(), receive.consumed());
                told += 1;
            }
        }
        assert_eq!(told, (64 << 20) / (MODEST_PEER / 2));
    }

    proptest! {
        /// Both ends of one direction, across many turns of the 32-bit counters.
        #[test]
        fn both_ends_agree_whatever_is_moved(
            start: u32,
            steps in prop::collection::vec((0u32..200_000, 0u32..200_000, any::<bool>()), 1..200),
        ) {
            let size = 150_000;
            let mut receive = ReceiveWindow::new(size);
            receive.received = Wrapping(start);
            receive.consumed = Wrapping(start);
            receive.told();
            let mut send =
                SendWindow { alloc: size, forwarded: Wrapping(start), sent: Wrapping(start) };
            for (sent, consumed, tell) in steps {
                let n = (sent as usize).min(send.free());
                send.sent(n);
                receive.receive(n as u32).unwrap();
                receive.consume((consumed).min(receive.filled()) as usize);
                if tell || receive.worth_telling() {
                    receive.told();
                    send.update(receive.size(), receive.consumed());
                    prop_assert_eq!(send.free(), receive.free() as usize);
                }
                prop_assert!(send.free() <= receive.free() as usize);
                prop_assert!(send.free() as u32 >= receive.free().min(size / 2));
            }
        }
    }
}
