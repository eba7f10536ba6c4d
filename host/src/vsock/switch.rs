//! What is done with packets: connections made, served in turn, ended.

use super::GUEST_CID;
use super::connection::{CLIENT_EVENTS, Connection, Phase, PortChoice, Taken};
use super::events::{Token, watch};
use super::ring::{Broken, Chain, GuestMemory, Ring};
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::process::Pid;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use umbra_proto::vsock::packet::{SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};
use umbra_proto::vsock::{Address, Cid, HEADER_LEN, Header, Operation, Port};
use vm_memory::Permissions;

/// This machine, by the name that the guest has for it.
const HOST: Cid = Cid(2);
const GUEST: Cid = Cid(GUEST_CID);
/// Numbers of connections begin here: the smaller ones are those of services.
const FIRST_NUMBER: u32 = 1024;
/// Chains that are looked at in one round, each way.
const CHAINS_A_ROUND: usize = 64;
/// Resets that wait for a buffer of the guest before no more of its packets are looked at.
const MAX_RESETS: usize = 256;

/// What is left to do after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing.
    Nothing,
    /// More of the same.
    More,
    /// Packets, and no chain for them.
    Packets,
}

/// A client of the guest, as the device knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The port of this machine by which the guest knows the connection.
    pub number: u32,
    /// The process that connected, where the system tells. It may have ended since, or given its
    /// end to another.
    pub process: Option<Pid>,
}

/// All connections.
pub(super) struct Switch {
    epoll: Arc<OwnedFd>,
    /// By their numbers.
    connections: HashMap<u32, Connection>,
    next_number: u32,
    /// Connections whose client can be read, in turn.
    ready: VecDeque<u32>,
    /// Connections with pending packets.
    pending: VecDeque<u32>,
    /// Resets to be sent.
    resets: VecDeque<Header>,
    /// Packets of the guest that were no packets.
    pub(super) dropped: u64,
}

impl Switch {
    pub(super) fn new(epoll: Arc<OwnedFd>) -> Switch {
        Switch {
            epoll,
            connections: HashMap::new(),
            next_number: FIRST_NUMBER,
            ready: VecDeque::new(),
            pending: VecDeque::new(),
            resets: VecDeque::new(),
            dropped: 0,
        }
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// The connections to a port of the guest: the number by which the guest knows each, and its
    /// client's process.
    pub(super) fn clients(&self, port: u32) -> Vec<Client> {
        let all = self.connections.values().filter(|connection| connection.port == Port(port));
        let client = |connection: &Connection| {
            let process = rustix::net::sockopt::socket_peercred(&connection.stream);
            Client { number: connection.number, process: process.ok().map(|process| process.pid) }
        };
        all.map(client).collect()
    }

    /// Takes on a client.
    pub(super) fn accept(&mut self, stream: UnixStream, port: PortChoice) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let number = self.number();
        let connection = Connection::new(stream, number, port);
        // What is there already is reported at once.
        watch(&self.epoll, &connection.stream, Token::Client(number), CLIENT_EVENTS)?;
        self.connections.insert(number, connection);
        self.settle(number);
        Ok(())
    }

    /// A number that is not in use, and was not for long.
    fn number(&mut self) -> u32 {
        loop {
            let number = self.next_number;
            self.next_number = number.checked_add(1).unwrap_or(FIRST_NUMBER);
            if !self.connections.contains_key(&number) {
                return number;
            }
        }
    }

    /// Something happened at a client's socket.
    pub(super) fn client(&mut self, number: u32, events: EventFlags) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.readable = true;
        connection.ending |= events.intersects(EventFlags::RDHUP | EventFlags::HUP);
        if events.contains(EventFlags::HUP) {
            connection.lose_client();
        }
        let greeted = connection.greet();
        match connection.phase {
            Phase::Greeting(_) if !greeted || connection.client_gone => {
                self.connections.remove(&number);
                return;
            }
            // Nothing was promised to it, and it has been given nothing. (A client that waits for
            // no answer may have written what it had to say, and closed.)
            Phase::Requested { answer: true } if connection.client_gone => {
                if !connection.pending.request {
                    self.resets.push_back(header(connection, Operation::Reset, 0));
                }
                self.connections.remove(&number);
                return;
            }
            _ => {}
        }
        if events.contains(EventFlags::OUT) && connection.has_backlog() {
            connection.flush();
            if !connection.has_backlog() {
                connection.pending.credit_update |= std::mem::take(&mut connection.asked);
                connection.pass_on_end();
                self.watch(number);
            }
        }
        self.settle(number);
    }

    /// The guest knows of no connection any more.
    pub(super) fn lose_all(&mut self) {
        self.connections.clear();
        self.ready.clear();
        self.pending.clear();
        self.resets.clear();
    }

    /// Whether there is room for what the guest's packets may be answered with.
    pub(super) fn takes_packets(&self) -> bool {
        self.resets.len() < MAX_RESETS
    }

    /// Looks at packets of the guest.
    pub(super) fn drain(&mut self, ring: &mut Ring, memory: &GuestMemory) -> Result<Left, Broken> {
        for _ in 0..CHAINS_A_ROUND {
            if !self.takes_packets() {
                return Ok(Left::Packets);
            }
            let Some(chain) = ring.pop(memory, Permissions::Read)? else {
                return Ok(Left::Nothing);
            };
            self.packet(&chain);
            ring.give_back(memory, chain.head, 0)?;
        }
        Ok(Left::More)
    }

    /// Looks at one packet.
    fn packet(&mut self, chain: &Chain<'_>) {
        let mut bytes = [0; HEADER_LEN];
        let whole = chain.copy_out(0, &mut bytes) == HEADER_LEN;
        let header = Header::parse(&bytes);
        let len = header.len as usize;
        if !whole || header.source.cid != GUEST || len > chain.len() - HEADER_LEN {
            self.dropped += 1;
            return;
        }
        let operation = Operation::from_number(header.operation);
        let known = |it: &&mut Connection| it.port == header.source.port && it.phase != Phase::Over;
        let connection = self.connections.get_mut(&header.destination.port.0).filter(known);
        let ours = header.destination.cid == HOST && header.kind == TYPE_STREAM;
        let (Some(connection), true) = (connection, ours) else {
            // Nobody listens here, and what is gone is gone.
            if operation != Some(Operation::Reset) {
                self.resets.push_back(header.reset_for());
            }
            return;
        };
        let number = connection.number;
        connection.send.update(header.buf_alloc, header.fwd_cnt);
        match operation {
            Some(Operation::Reset) => return self.end(number),
            Some(Operation::Response) if matches!(connection.phase, Phase::Requested { .. }) => {
                connection.accepted();
            }
            // Data before it is granted, after the end, beyond the credit, or for nobody.
            Some(Operation::Data)
                if connection.phase != Phase::Open
                    || connection.guest_done
                    || connection.farewell
                    || connection.receive.receive(header.len).is_err() =>
            {
                return self.reset(number);
            }
            Some(Operation::Data) => {
                let before = connection.has_backlog();
                connection.deliver(chain, len);
                if connection.has_backlog() != before {
                    self.watch(number);
                }
            }
            Some(Operation::Shutdown) => {
                connection.guest_shut(header.flags);
                if header.flags & SHUTDOWN_BOTH == SHUTDOWN_BOTH || connection.farewell {
                    // Both ends are done; the answer is a reset (5.10.6.6).
                    return self.reset(number);
                }
            }
            Some(Operation::CreditRequest) => {
                connection.pending.credit_update = true;
                connection.asked = connection.has_backlog();
            }
            Some(Operation::CreditUpdate) => {}
            Some(Operation::Request | Operation::Response | Operation::Invalid) | None => {
                self.dropped += 1
            }
        }
        self.settle(number);
    }

    /// Ends a connection, and tells the guest.
    fn reset(&mut self, number: u32) {
        if let Some(connection) = self.connections.get_mut(&number) {
            self.resets.push_back(header(connection, Operation::Reset, 0));
            self.end(number);
        }
    }

    /// The guest knows nothing of a connection any more. The client still gets what the guest had
    /// sent.
    fn end(&mut self, number: u32) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.phase = Phase::Over;
        connection.guest_shut(SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
        self.settle(number);
    }

    /// Puts a connection in the lists where it belongs.
    fn settle(&mut self, number: u32) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        match connection.phase {
            Phase::Over => {
                if !connection.has_backlog() {
                    self.connections.remove(&number);
                }
                return;
            }
            Phase::Open => {
                // The client went after its end had been told.
                if connection.client_done && connection.client_gone && !connection.farewell {
                    connection.pending.shutdown = true;
                }
                if connection.receive.worth_telling() && !connection.guest_done {
                    connection.pending.credit_update = true;
                }
            }
            Phase::Greeting(_) | Phase::Requested { .. } => {}
        }
        let pending = connection.pending;
        if (pending.request || pending.credit_update || pending.shutdown) && !connection.is_pending
        {
            connection.is_pending = true;
            self.pending.push_back(number);
        }
        if connection.can_read() && !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(number);
        }
    }

    /// Fills buffers of the guest.
    pub(super) fn fill(&mut self, ring: &mut Ring, memory: &GuestMemory) -> Result<Left, Broken> {
        for _ in 0..CHAINS_A_ROUND {
            if self.resets.is_empty() && self.pending.is_empty() && self.ready.is_empty() {
                return Ok(Left::Nothing);
            }
            let Some(chain) = ring.pop(memory, Permissions::Write)? else {
                return Ok(Left::Packets);
            };
            if chain.len() <= HEADER_LEN {
                // It holds no packet. Another one may.
                self.dropped += 1;
                ring.give_back(memory, chain.head, 0)?;
                continue;
            }
            let packet = match self.control() {
                None => self.data(&chain)?,
                control => control,
            };
            match packet {
                Some(header) => {
                    let mut bytes = [0; HEADER_LEN];
                    header.encode(&mut bytes);
                    chain.copy_in(&bytes);
                    ring.give_back(memory, chain.head, HEADER_LEN + header.len as usize)?;
                }
                None => ring.unpop(),
            }
        }
        Ok(Left::More)
    }

    /// The next packet without payload.
    fn control(&mut self) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        while let Some(&number) = self.pending.front() {
            if let Some(connection) = self.connections.get_mut(&number) {
                let pending = &mut connection.pending;
                let (flag, operation) = if pending.request {
                    (&mut pending.request, Operation::Request)
                } else if pending.credit_update {
                    (&mut pending.credit_update, Operation::CreditUpdate)
                } else {
                    (&mut pending.shutdown, Operation::Shutdown)
                };
                if std::mem::take(flag) {
                    connection.farewell |=
                        operation == Operation::Shutdown && connection.client_gone;
                    return Some(header(connection, operation, 0));
                }
                connection.is_pending = false;
            }
            self.pending.pop_front();
        }
        None
    }

    /// Reads a client into a chain, those that can be read in turn.
    fn data(&mut self, chain: &Chain<'_>) -> Result<Option<Header>, Broken> {
        while let Some(number) = self.ready.pop_front() {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            connection.is_ready = false;
            if !connection.can_read() {
                continue;
            }
            let taken = connection.read_into(chain)?;
            let packet = match taken {
                Taken::Bytes(count) => Some(header(connection, Operation::Data, count)),
                Taken::Nothing => None,
                Taken::End => {
                    connection.farewell |= connection.client_gone;
                    Some(header(connection, Operation::Shutdown, 0))
                }
            };
            self.settle(number);
            if packet.is_some() {
                return Ok(packet);
            }
        }
        Ok(None)
    }

    /// Whether a client's socket has room is of interest, or no more.
    fn watch(&mut self, number: u32) {
        if let Some(connection) = self.connections.get_mut(&number)
            && connection.watch(&self.epoll).is_err()
        {
            // Out of kernel memory: then it would never be known. Others go on.
            connection.lose_client();
        }
    }
}

/// The header of a packet of a connection. It tells the guest of its credit.
fn header(connection: &mut Connection, operation: Operation, len: usize) -> Header {
    connection.receive.told();
    Header {
        source: Address { cid: HOST, port: Port(connection.number) },
        destination: Address { cid: GUEST, port: connection.port },
        len: len as u32,
        kind: TYPE_STREAM,
        operation: operation as u16,
        flags: if operation == Operation::Shutdown { connection.shutdown_flags() } else { 0 },
        buf_alloc: connection.receive.size(),
        fwd_cnt: connection.receive.consumed(),
    }
}
