//! A connection from its greeting to its end.

use super::exports;
use super::handshake::{Handshake, Turn};
use super::transmission::{Step, Transmission};
use crate::platform::Platform;
use crate::stream::{Progress, Service, Stream};
use alloc::boxed::Box;
use umbra_fs::Operation;

/// What one poll may cost, counted in bytes moved.
pub(super) const TURN: usize = 256 << 10;

/// The service of one connection.
#[derive(Default)]
pub struct Nbd {
    phase: Phase,
    /// The window of what was served, which is being closed.
    closing: Option<Operation>,
}

/// What comes next.
#[derive(Default)]
enum Phase {
    /// Nothing was sent yet.
    #[default]
    Start,
    /// Options are answered.
    Handshake(Box<Handshake>),
    /// Requests are answered.
    Transmission(Box<Transmission>),
    /// The connection ends or has ended.
    Ended,
}

impl Nbd {
    fn turn<M: Platform>(&mut self, stream: &mut dyn Stream, machine: &mut M) -> Step {
        match &mut self.phase {
            Phase::Start => {
                self.phase = Phase::Handshake(Box::new(Handshake::new()));
                Step::Went(0)
            }
            Phase::Handshake(handshake) => match handshake.turn(stream, machine) {
                Turn::Wait => Step::Wait,
                Turn::Went(cost) => Step::Went(cost),
                Turn::Close => Step::Broken,
                Turn::Transmit(transmission) => {
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

    /// Gives back what the connection holds of the machine.
    fn give_back<M: Platform>(&mut self, machine: &mut M) {
        let target = match core::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Transmission(transmission) => Some(transmission.target),
            Phase::Handshake(handshake) => handshake.target(),
            Phase::Start | Phase::Ended => None,
        };
        if let Some(target) = target {
            self.closing = exports::close(machine, target);
        }
    }
}

impl<M: Platform> Service<M> for Nbd {
    fn poll(&mut self, stream: &mut dyn Stream, machine: &mut M) -> Progress {
        if stream.is_closed() {
            self.give_back(machine);
            return self.close_some(machine);
        }
        if self.closing.is_some() {
            return self.close_some(machine);
        }
        let mut spent = 0;
        while spent < TURN {
            match self.turn(stream, machine) {
                Step::Wait => return Progress::Wait,
                Step::Went(cost) => spent += cost,
                Step::Broken => {
                    self.give_back(machine);
                    stream.close();
                    return self.close_some(machine);
                }
            }
        }
        Progress::Again
    }
}
