//! How connections end: closed by their server, shut down or reset by the peer, given up after a
//! time.

use super::super::connection::Closing;
use super::super::device::Device;
use super::super::packet::{Header, Operation, TYPE_STREAM};
use super::super::table::Slot;
use super::super::{Address, Millis};
use super::{Endpoint, Entry};

/// How long a peer may leave a shutdown unanswered (what Linux gives it, too).
const SHUTDOWN_MS: u64 = 8_000;

/// How long a peer may take nothing of what it is still owed when its server closed.
const DRAIN_MS: u64 = 10_000;

/// The same for a peer that said it will receive no more.
const DEAF_DRAIN_MS: u64 = 1_000;

/// How long a server may keep a connection whose peer shut both directions down while nothing
/// happens. (If it waits for the peer to take something: [`DEAF_DRAIN_MS`].)
const LINGER_MS: u64 = 30_000;

/// A peer that has not taken everything is asked after this long, then after twice as
/// long, up to the maximum.
const ASK_MS: u64 = 20;
const MAX_ASK_MS: u64 = 1_000;

impl<S> Endpoint<S> {
    /// The server wants no more of this connection.
    pub(super) fn close(&mut self, slot: Slot) {
        let now = self.now;
        let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { return };
        let unread = connection.queue.len();
        connection.queue.clear(&mut self.pool);
        connection.receive.consume(unread);
        connection.closing = Closing::Draining;
        if connection.send.outstanding() == 0 {
            return self.tell(slot);
        }
        connection.pending.credit_request = true;
        connection.ask_after_ms = ASK_MS;
        connection.ask_at = Some(now.after(ASK_MS));
        self.due(now.after(ASK_MS));
        self.be_patient(slot);
    }

    /// Starts the time anew after which a connection is given up that is about to end.
    pub(super) fn be_patient(&mut self, slot: Slot) {
        let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { return };
        let over = connection.peer_finished && connection.peer_deaf;
        let ms = match connection.closing {
            Closing::Draining if connection.peer_deaf => DEAF_DRAIN_MS,
            Closing::Draining => DRAIN_MS,
            Closing::Open if over && connection.lacking.credit => DEAF_DRAIN_MS,
            Closing::Open if over => LINGER_MS,
            Closing::Open | Closing::Told => return,
        };
        let at = self.now.after(ms);
        connection.give_up_at = Some(at);
        self.due(at);
    }

    /// Tells the peer that a connection closes, now that it has everything.
    pub(super) fn tell(&mut self, slot: Slot) {
        let now = self.now;
        let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { return };
        if connection.peer_finished && connection.peer_deaf {
            return self.reset_quietly(slot);
        }
        connection.closing = Closing::Told;
        connection.pending.shutdown = true;
        connection.ask_at = None;
        connection.give_up_at = Some(now.after(SHUTDOWN_MS));
        self.due(now.after(SHUTDOWN_MS));
    }

    /// Ends a connection because of what its peer did or did not do.
    pub(super) fn reset(&mut self, slot: Slot) {
        self.statistics.resets += 1;
        self.reset_quietly(slot);
    }

    /// Ends a connection with a reset.
    pub(super) fn reset_quietly(&mut self, slot: Slot) {
        let local = self.local;
        let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { return };
        if !connection.gone {
            let header = Header {
                source: Address { cid: local, port: connection.key.port },
                destination: connection.key.peer,
                kind: TYPE_STREAM,
                operation: Operation::Reset as u16,
                ..Header::default()
            };
            self.resets.push_back(header);
            self.vanish(slot);
        }
    }

    /// A connection is gone; its server is polled a last time.
    pub(super) fn vanish(&mut self, slot: Slot) {
        self.table.hide(slot);
        let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { return };
        connection.gone = true;
        connection.pending = Default::default();
        connection.ask_at = None;
        connection.give_up_at = None;
        self.make_ready(slot);
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, slot: Slot) {
        if let Some(Entry { mut connection, .. }) = self.table.remove(slot) {
            connection.release(&mut self.pool);
            self.ready.retain(|s| *s != slot);
            self.starved.retain(|s| *s != slot);
            self.pending.retain(|s| *s != slot);
        }
    }

    /// Something is to be done at this time.
    fn due(&mut self, at: Millis) {
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }

    /// Does what was due, and finds the next deadline.
    pub(super) fn expire<D: Device>(&mut self, device: &mut D) {
        let now = self.now;
        self.deadline = None;
        for i in 0..self.table.capacity() {
            let Some(slot) = self.table.slot(i) else { continue };
            let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { continue };
            if connection.give_up_at.is_some_and(|at| at <= now) {
                self.statistics.timeouts += 1;
                self.reset(slot);
                continue;
            }
            if connection.ask_at.is_some_and(|at| at <= now) {
                connection.ask_after_ms = MAX_ASK_MS.min(connection.ask_after_ms * 2);
                connection.ask_at = Some(now.after(connection.ask_after_ms));
                connection.pending.credit_request = true;
            }
            let next = [connection.ask_at, connection.give_up_at].into_iter().flatten().min();
            if let Some(at) = next {
                self.due(at);
            }
            self.send_controls(slot, device);
        }
    }
}
