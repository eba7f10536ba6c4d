//! A connection from its greeting to its end.

use super::clients::{ClientId, Clients};
use super::handshake::{Handshake, Next};
use super::transmission::{Step, TURN, Transmission};
use crate::platform::{self, Platform};
use crate::stream::{Peer, Progress, Stream};
use umbra_fs::Operation;
use umbra_fs::memory::Boxed;

/// The service of one connection.
#[derive(Default)]
pub struct Nbd {
    phase: Phase,
    /// The window of what was served, which is being closed.
    closing: Option<Operation>,
    peer: Option<Peer>,
    /// How often clients had been evicted when this connection was last known not to be one of
    /// them.
    evictions: u64,
    /// What the last turn was for.
    last: Option<platform::Turn>,
}

/// What comes next.
#[derive(Default)]
enum Phase {
    /// Nothing was sent yet.
    #[default]
    Start,
    /// Options are answered.
    Handshake(Boxed<Handshake>),
    /// Requests are answered.
    Transmission(Boxed<Transmission>),
    /// The connection ends or has ended.
    Ended,
}

impl Nbd {
    /// The service of a connection of this client.
    pub fn new(peer: Peer) -> Self {
        Nbd { peer: Some(peer), ..Nbd::default() }
    }

    fn turn<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
        clients: &mut Clients,
    ) -> Step {
        match &mut self.phase {
            Phase::Start => {
                match Handshake::new(self.peer).and_then(Boxed::new) {
                    Ok(handshake) => self.phase = Phase::Handshake(handshake),
                    Err(_) => return Step::Broken,
                }
                Step::Went(0)
            }
            Phase::Handshake(handshake) => match handshake.turn(stream, machine, clients) {
                Next::Wait => Step::Wait,
                Next::Went(cost) => Step::Went(cost),
                Next::Close => Step::Broken,
                Next::Transmit(transmission) => {
                    self.phase = Phase::Transmission(transmission);
                    Step::Went(0)
                }
            },
            Phase::Transmission(transmission) => {
                let step = transmission.turn(stream, machine);
                if transmission.is_over() { Step::Broken } else { step }
            }
            Phase::Ended => Step::Wait,
        }
    }

    /// Takes a step of closing the window of what was served: nobody is left to be told of an
    /// error.
    fn close_some<M: Platform>(&mut self, machine: &mut M) -> Progress {
        let Some(operation) = &mut self.closing else { return Progress::Wait };
        if let Ok(None) = machine.volume(|v| v.step(operation)) {
            return Progress::Again;
        }
        self.closing = None;
        Progress::Wait
    }

    /// The client of an export that this connection is, if it has chosen one.
    fn client(&self) -> Option<ClientId> {
        match &self.phase {
            Phase::Transmission(transmission) => Some(transmission.client),
            Phase::Handshake(handshake) => handshake.client(),
            Phase::Start | Phase::Ended => None,
        }
    }

    /// Whether the export was taken away from this client.
    fn is_evicted(&mut self, clients: &Clients) -> bool {
        if core::mem::replace(&mut self.evictions, clients.evictions()) == clients.evictions() {
            return false;
        }
        self.client().is_some_and(|client| !clients.has(client))
    }

    /// Does what can be done now.
    fn turns<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
        clients: &mut Clients,
    ) -> Progress {
        let mut spent = 0;
        while spent < TURN {
            match self.turn(stream, machine, clients) {
                Step::Wait => return Progress::Wait,
                Step::Went(cost) => spent += cost,
                Step::Broken => {
                    self.give_back(machine, clients);
                    stream.close();
                    return self.close_some(machine);
                }
            }
        }
        Progress::Again
    }

    /// Gives back what the connection holds of the machine.
    fn give_back<M: Platform>(&mut self, machine: &mut M, clients: &mut Clients) {
        let client = self.client();
        self.phase = Phase::Ended;
        if let Some(client) = client {
            self.closing = clients.close(machine, client);
        }
    }

    /// Does what can be done now, in bounded time; see [`Service`](crate::Service).
    pub fn poll<M: Platform>(
        &mut self,
        stream: &mut dyn Stream,
        machine: &mut M,
        clients: &mut Clients,
    ) -> Progress {
        if stream.is_closed() {
            self.give_back(machine, clients);
            return self.close_some(machine);
        }
        if self.closing.is_some() {
            return self.close_some(machine);
        }
        if self.is_evicted(clients) {
            self.give_back(machine, clients);
            stream.close();
            return self.close_some(machine);
        }
        if let Some(last) = self.last {
            machine.counters().turns.is_for(last);
        }
        let progress = self.turns(stream, machine, clients);
        self.last = Some(machine.counters().turns.current());
        progress
    }
}
