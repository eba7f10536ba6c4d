//! Connections and their servers, each of which has its turn. What packets do to them is in
//! `arrival.rs`, how they end in `ending.rs`.

mod arrival;
mod ending;

use super::connection::{Arrived, Closing, Connection, Polled};
use super::device::{Device, PAYLOAD, Room};
use super::packet::{Header, Operation};
use super::pool::Pool;
use super::table::{Slot, Table};
use super::{
    Address, Cid, LEAST_CHUNKS, MAX_AT_DOOR, MAX_CONNECTIONS, MAX_KEPT, MAX_WINDOW, Millis, Port,
};
use alloc::collections::VecDeque;
use umbra_server::{Progress, Stream};

/// Packets that are looked at before servers with other work get their turn.
const PACKETS_A_POLL: usize = 8;

/// Resets that wait for room before no more packets are received.
const MAX_RESETS: usize = 64;

/// The servers.
pub(crate) trait Handler {
    /// The state of a server for one connection.
    type Server;

    /// Makes a server for a new connection; `None` refuses it.
    fn accept(&mut self, port: Port, peer: Address, vacancy: Vacancy) -> Option<Self::Server>;

    /// Lets a server do what it can do now.
    fn poll(&mut self, server: &mut Self::Server, stream: &mut dyn Stream) -> Progress;
}

/// How much room there is for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vacancy {
    /// Anybody may come.
    Plenty,
    /// What is left is kept for servers that matter most.
    Kept,
    /// All connections, so many, are in use. There is room to say so.
    Full(usize),
}

/// When to poll again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// At once: there is more to do.
    Now,
    /// When the device has something.
    Event,
    /// When the device has something, at the latest then.
    At(Millis),
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Connections now.
    pub(crate) connections: u64,
    /// Connections granted.
    pub(crate) accepted: u64,
    /// Connections refused: nobody listens, or there is no room.
    pub(crate) refused: u64,
    /// Connections that this end reset: violations and timeouts.
    pub(crate) resets: u64,
    /// Of these: the peer sent more than its window allows.
    pub(crate) overruns: u64,
    /// Of these: the peer let a deadline pass.
    pub(crate) timeouts: u64,
    /// Packets received.
    pub(crate) packets: u64,
    /// Of these: passed over as malformed, misdirected or meaningless.
    pub(crate) ignored: u64,
    /// Bytes of data received.
    pub(crate) bytes_in: u64,
    /// Chunks of the pool that are not reserved.
    pub(crate) chunks_unreserved: u64,
}

struct Entry<S> {
    connection: Connection,
    server: S,
}

/// This machine's end of all connections.
pub(crate) struct Endpoint<S> {
    local: Cid,
    table: Table<Entry<S>>,
    pool: Pool,
    /// Servers with something to do, in turn.
    ready: VecDeque<Slot>,
    /// Servers that wait for a buffer, in the order in which they began to.
    starved: VecDeque<Slot>,
    /// Connections with pending packets.
    pending: VecDeque<Slot>,
    /// Resets to be sent.
    resets: VecDeque<Header>,
    /// The device made room after the last server had its turn.
    room: bool,
    deadline: Option<Millis>,
    now: Millis,
    statistics: Statistics,
}

impl<S> Endpoint<S> {
    /// An endpoint without connections. It has room for as many as the pool has memory for.
    pub(crate) fn new(local: Cid, pool: Pool) -> Self {
        let places = (pool.chunks() / LEAST_CHUNKS).min(MAX_CONNECTIONS + MAX_AT_DOOR);
        Self {
            local,
            table: Table::new(places),
            pool,
            ready: VecDeque::with_capacity(places),
            starved: VecDeque::with_capacity(places),
            pending: VecDeque::with_capacity(places),
            resets: VecDeque::with_capacity(places + MAX_RESETS),
            room: false,
            deadline: None,
            now: Millis(0),
            statistics: Statistics::default(),
        }
    }

    /// Connections that there can be, without those that are only told that there is no room.
    pub(crate) fn capacity(&self) -> usize {
        let places = self.table.capacity();
        places - MAX_AT_DOOR.min(places / 16)
    }

    /// How much room there is for one more.
    fn vacancy(&self) -> Vacancy {
        let all = self.capacity();
        match all.saturating_sub(self.table.len()) {
            0 => Vacancy::Full(all),
            left if left <= MAX_KEPT.min(all / 16) => Vacancy::Kept,
            _ => Vacancy::Plenty,
        }
    }

    /// What happened so far.
    pub(crate) fn statistics(&self) -> Statistics {
        Statistics {
            connections: self.table.len() as u64,
            chunks_unreserved: self.pool.unreserved() as u64,
            ..self.statistics
        }
    }

    /// Does what can be done now: a bounded number of packets, and one turn for every server
    /// that has something to do.
    pub(crate) fn poll<D, H>(&mut self, device: &mut D, handler: &mut H, now: Millis) -> Next
    where
        D: Device,
        H: Handler<Server = S>,
    {
        self.now = now;
        if device.reap() == Room::Made || core::mem::take(&mut self.room) {
            self.send_pending(device);
            self.run_starved(device, handler);
        }
        let mut more = true;
        for _ in 0..PACKETS_A_POLL {
            if self.is_full() {
                more = false;
                break;
            }
            let Some(packet) = device.receive() else {
                more = false;
                break;
            };
            self.receive(&packet, device, handler);
            device.recycle(packet.buffer);
        }
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            if let Some(entry) = self.table.get_mut(slot) {
                entry.connection.is_ready = false;
                self.run(slot, Arrived::default(), device, handler);
            }
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.expire(device);
        }
        self.send_pending(device);
        device.notify();
        // The device interrupts for room only after the endpoint has found none, so the endpoint
        // looks once more before it relies on the interrupt.
        self.room = self.waits() && device.reap() == Room::Made;
        if more || self.room || !self.ready.is_empty() {
            return Next::Now;
        }
        self.deadline.map_or(Next::Event, Next::At)
    }

    /// Whether a packet has come that a poll would look at.
    pub(crate) fn has_news<D: Device>(&self, device: &D) -> bool {
        !self.is_full() && device.has_news()
    }

    /// Makes packets interrupt that a poll would look at; returns whether one has come already.
    /// While none would be, the interrupt that matters is the one for room, which the last poll
    /// asked for.
    pub(crate) fn listen<D: Device>(&self, device: &D) -> bool {
        !self.is_full() && device.listen()
    }

    /// Whether everything that servers could send has left.
    pub(crate) fn is_drained<D: Device>(&self, device: &mut D) -> bool {
        !self.waits() && device.is_drained()
    }

    /// Whether a server, a connection or a reset waits for the device to make room.
    fn waits(&self) -> bool {
        !self.starved.is_empty() || !self.pending.is_empty() || !self.resets.is_empty()
    }

    /// Whether so many resets wait for room that packets are left where they are.
    fn is_full(&self) -> bool {
        self.resets.len() >= MAX_RESETS
    }

    /// All connections are lost, and the machine may have another number: the transport was
    /// reset (virtio 1.2, 5.10.6.7).
    pub(crate) fn transport_reset(&mut self, local: Cid) {
        self.local = local;
        self.resets.clear();
        for i in 0..self.table.capacity() {
            if let Some(slot) = self.table.slot(i) {
                self.vanish(slot);
            }
        }
    }

    /// Gives every server a turn, whether its stream has something new or not.
    pub(crate) fn wake_all(&mut self) {
        for i in 0..self.table.capacity() {
            if let Some(slot) = self.table.slot(i) {
                self.make_ready(slot);
            }
        }
    }

    /// Gives servers that waited for a buffer their turn, until there are none left.
    fn run_starved<D: Device, H: Handler<Server = S>>(&mut self, device: &mut D, handler: &mut H) {
        for _ in 0..self.starved.len() {
            let Some(slot) = self.starved.pop_front() else { return };
            let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { continue };
            connection.is_starved = false;
            self.run(slot, Arrived::default(), device, handler);
            if let Some(Entry { connection, .. }) = self.table.get_mut(slot)
                && connection.lacking.buffer
                && !connection.took_buffer
            {
                // It keeps its place.
                self.starved.pop_back();
                self.starved.push_front(slot);
                return;
            }
        }
    }

    /// Gives a server its turn. `arrived` is what just came in.
    fn run<D: Device, H: Handler<Server = S>>(
        &mut self,
        slot: Slot,
        arrived: Arrived<'_>,
        device: &mut D,
        handler: &mut H,
    ) {
        let Some(Entry { connection, server }) = self.table.get_mut(slot) else { return };
        if !connection.gone && connection.closing != Closing::Open {
            return;
        }
        let mut polled = Polled::new(connection, &mut self.pool, device, self.local, arrived);
        let progress = handler.poll(server, &mut polled);
        let outcome = polled.finish();
        let again = progress == Progress::Again || outcome.again;
        if outcome.wants_blocks {
            device.want_blocks();
        }
        if connection.gone {
            match progress {
                Progress::Again => self.make_ready(slot),
                Progress::Wait => self.remove(slot),
            }
            return;
        }
        if connection.lacking.buffer && !connection.is_starved {
            connection.is_starved = true;
            self.starved.push_back(slot);
        }
        if again || connection.lacking.credit && connection.took_buffer {
            self.be_patient(slot);
        }
        if outcome.overflow {
            return self.reset(slot);
        }
        if outcome.close {
            self.close(slot);
        } else if again {
            self.make_ready(slot);
        }
        self.settle(slot, device);
    }

    /// Grows the window of a busy connection and lets the peer know of credit.
    fn settle<D: Device>(&mut self, slot: Slot, device: &mut D) {
        let keep = (self.table.capacity() - self.table.len()) * LEAST_CHUNKS;
        let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { return };
        if connection.gone {
            return;
        }
        let size = connection.receive.size();
        // A server that does not keep up with its client needs no larger window.
        if connection.since_growth >= size && size < MAX_WINDOW && connection.queue.is_empty() {
            connection.since_growth = 0;
            connection.grow_window(&mut self.pool, MAX_WINDOW.min(size * 4), keep);
        }
        let open_in = !connection.peer_finished && connection.closing != Closing::Told;
        let owed = connection.owes_credit && connection.receive.free() > 0;
        if open_in && (owed || connection.receive.worth_telling()) {
            connection.owes_credit = false;
            connection.pending.credit_update = true;
        }
        self.send_controls(slot, device);
    }

    fn make_ready(&mut self, slot: Slot) {
        if let Some(Entry { connection, .. }) = self.table.get_mut(slot)
            && !connection.is_ready
        {
            connection.is_ready = true;
            self.ready.push_back(slot);
        }
    }

    /// Sends packets that waited for room.
    fn send_pending<D: Device>(&mut self, device: &mut D) {
        while let Some(header) = self.resets.front() {
            if device.send_control(header).is_err() {
                return;
            }
            self.resets.pop_front();
        }
        for _ in 0..self.pending.len() {
            let Some(slot) = self.pending.pop_front() else { break };
            if let Some(Entry { connection, .. }) = self.table.get_mut(slot) {
                connection.is_pending = false;
                self.send_controls(slot, device);
            }
        }
    }

    /// Sends the packets without payload that a connection has pending, as far as there is
    /// room.
    fn send_controls<D: Device>(&mut self, slot: Slot, device: &mut D) {
        let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { return };
        loop {
            let pending = &mut connection.pending;
            let (flag, operation) = if pending.response {
                (&mut pending.response, Operation::Response)
            } else if pending.credit_update {
                (&mut pending.credit_update, Operation::CreditUpdate)
            } else if pending.credit_request {
                (&mut pending.credit_request, Operation::CreditRequest)
            } else if pending.shutdown {
                (&mut pending.shutdown, Operation::Shutdown)
            } else {
                return;
            };
            *flag = false;
            let header = connection.header(self.local, operation, 0);
            if device.send_control(&header).is_err() {
                let pending = &mut connection.pending;
                match operation {
                    Operation::Response => pending.response = true,
                    Operation::CreditUpdate => pending.credit_update = true,
                    Operation::CreditRequest => pending.credit_request = true,
                    _ => pending.shutdown = true,
                }
                if !connection.is_pending {
                    connection.is_pending = true;
                    self.pending.push_back(slot);
                }
                return;
            }
        }
    }
}

const _: () =
    assert!(PAYLOAD <= u32::MAX as usize && MAX_WINDOW.is_multiple_of(super::CHUNK as u32));
