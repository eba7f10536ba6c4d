//! What a packet that arrives does: it makes a connection, belongs to one, or is answered by a
//! reset. Everything in it is checked before use.

use super::super::connection::{Arrived, Closing, Connection};
use super::super::device::{Device, Packet};
use super::super::packet::{
    HEADER_LEN, Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};
use super::super::pool::chunks_of;
use super::super::table::{Key, Slot};
use super::super::window::Taken;
use super::super::{BASE_WINDOW, LEAST_CHUNKS, LEAST_WINDOW};
use super::{Endpoint, Entry, Handler};

impl<S> Endpoint<S> {
    /// Looks at one packet.
    pub(super) fn receive<D: Device, H: Handler<Server = S>>(
        &mut self,
        packet: &Packet,
        device: &mut D,
        handler: &mut H,
    ) {
        self.statistics.packets += 1;
        let header = Header::parse(packet.buffer.header);
        if packet.written < HEADER_LEN || header.destination.cid != self.local {
            self.statistics.ignored += 1;
            return;
        }
        let operation = Operation::from_number(header.operation);
        let key = Key { peer: header.source, port: header.destination.port };
        let connection = if header.kind == TYPE_STREAM { self.table.find(&key) } else { None };
        let payload = packet.buffer.payload.get(..header.len as usize);
        let payload = payload.filter(|payload| payload.len() <= packet.written - HEADER_LEN);
        match (connection, operation, payload) {
            (None, None | Some(Operation::Invalid | Operation::Reset), _) => {
                self.statistics.ignored += 1
            }
            (None, Some(Operation::Request), Some(_)) if header.kind == TYPE_STREAM => {
                self.accept(key, &header, device, handler);
            }
            (None, _, _) => {
                self.statistics.ignored += 1;
                self.resets.push_back(header.reset_for());
            }
            (Some(slot), _, None) => self.reset(slot),
            (Some(_), None, _) => self.statistics.ignored += 1,
            (Some(slot), Some(Operation::Request), Some(_)) => {
                // The peer lost the old connection, or it would not reuse its port.
                self.vanish(slot);
                self.accept(key, &header, device, handler);
            }
            (Some(slot), Some(operation), Some(payload)) => {
                self.packet(
                    slot,
                    operation,
                    &header,
                    Arrived { bytes: payload, blocks: packet.buffer.blocks },
                    device,
                    handler,
                );
            }
        }
    }

    /// Grants a connection, or refuses it.
    fn accept<D: Device, H: Handler<Server = S>>(
        &mut self,
        key: Key,
        header: &Header,
        device: &mut D,
        handler: &mut H,
    ) {
        // The least window is there for each place in the table, taken or not.
        let others = (self.table.capacity() - self.table.len()).saturating_sub(1) * LEAST_CHUNKS;
        let is_ample = self.pool.unreserved() >= others + chunks_of(BASE_WINDOW);
        let window = if is_ample { BASE_WINDOW } else { LEAST_WINDOW };
        let server = if self.table.is_full() || self.pool.unreserved() < chunks_of(window) {
            None
        } else {
            handler.accept(key.port, key.peer, self.vacancy())
        };
        let Some(server) = server else {
            self.statistics.refused += 1;
            self.resets.push_back(header.reset_for());
            return;
        };
        let mut connection = Connection::new(key, window);
        connection.send.update(header.buf_alloc, header.fwd_cnt);
        // Both have room: that was looked at before the server was made.
        let reserved = self.pool.reserve(chunks_of(window));
        debug_assert!(reserved.is_ok());
        if let Ok(slot) = self.table.insert(key, Entry { connection, server }) {
            self.statistics.accepted += 1;
            self.send_controls(slot, device);
            self.make_ready(slot);
        }
    }

    /// Handles a packet of a connection.
    fn packet<D: Device, H: Handler<Server = S>>(
        &mut self,
        slot: Slot,
        operation: Operation,
        header: &Header,
        payload: Arrived<'_>,
        device: &mut D,
        handler: &mut H,
    ) {
        let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { return };
        let taken = connection.send.update(header.buf_alloc, header.fwd_cnt);
        let mut wake = connection.lacking.credit && connection.send.free() > 0;
        match operation {
            Operation::Reset => return self.vanish(slot),
            Operation::Data => {
                let len = payload.bytes.len() as u32;
                if connection.peer_finished {
                    return self.reset(slot);
                }
                if connection.receive.receive(len).is_err() {
                    self.statistics.overruns += 1;
                    return self.reset(slot);
                }
                self.statistics.bytes_in += u64::from(len);
                if connection.closing == Closing::Open {
                    connection.since_growth = connection.since_growth.saturating_add(len);
                    return self.run(slot, payload, device, handler);
                }
                connection.receive.consume(payload.bytes.len());
            }
            Operation::Shutdown => {
                connection.peer_finished |= header.flags & SHUTDOWN_SEND != 0;
                connection.peer_deaf |= header.flags & SHUTDOWN_RECEIVE != 0;
                wake |= connection.peer_finished;
                if connection.peer_finished
                    && connection.peer_deaf
                    && connection.closing == Closing::Told
                {
                    // Both ends are done: this is the answer to a shutdown.
                    return self.reset_quietly(slot);
                }
            }
            Operation::CreditRequest => connection.owes_credit = true,
            // Some devices do this when they found nothing to read, and wait for credit.
            Operation::Invalid => {
                self.statistics.ignored += 1;
                connection.owes_credit = true;
            }
            Operation::Request | Operation::Response => self.statistics.ignored += 1,
            Operation::CreditUpdate => {}
        }
        let Some(Entry { connection, .. }) = self.table.get_mut(slot) else { return };
        match connection.closing {
            Closing::Draining if connection.send.outstanding() == 0 => self.tell(slot),
            Closing::Draining | Closing::Open if taken == Taken::Some => self.be_patient(slot),
            Closing::Open if operation == Operation::Shutdown => self.be_patient(slot),
            _ => {}
        }
        if wake {
            self.make_ready(slot);
        }
        self.settle(slot, device);
    }
}
