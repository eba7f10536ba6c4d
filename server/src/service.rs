//! What a server is: a state machine for each connection, and what all of them share.

use crate::nbd::Nbd;
use crate::nbd::clients::{Clients, Users};
use crate::platform::Platform;
use crate::stream::{Progress, Stream};
use umbra_fs::Ino;
use umbra_fs::dax::Machine;

/// What the services of all connections share. Whoever owns the connections owns this too, and
/// lends it to each service that is polled.
#[derive(Default)]
pub struct Shared {
    /// The clients of exports.
    pub(crate) clients: Clients,
}

impl Shared {
    /// Who uses a file, as a message says it behind "it is in use".
    pub fn users(&self, file: Ino) -> Users<'_> {
        self.clients.users(file)
    }

    /// Whether clients were evicted since the last call: then every connection has to be polled,
    /// because those of evicted clients have nothing else to tell them that they end.
    pub fn take_news(&mut self) -> bool {
        self.clients.take_news()
    }

    /// How many exports are in use.
    pub fn exports_in_use(&self) -> usize {
        self.clients.in_use()
    }
}

/// The state machine of one connection, over a machine `M` that has the volume.
///
/// Polled when its stream has something new, and once right after it was made. It is
/// dropped after the stream [is closed](Stream::is_closed): then it is polled a last time,
/// and on as long as it answers [`Progress::Again`], so that it can give back what
/// it holds of the machine (windows, for example).
pub trait Service<M: Machine>: Send {
    /// Does what can be done now. Must return soon: long work is done in steps, with
    /// [`Progress::Again`] between them.
    fn poll(&mut self, stream: &mut dyn Stream, machine: &mut M, shared: &mut Shared) -> Progress;
}

/// What is in a box that can fail to be made.
impl<M: Machine, S: Service<M>> Service<M> for [S; 1] {
    fn poll(&mut self, stream: &mut dyn Stream, machine: &mut M, shared: &mut Shared) -> Progress {
        let [service] = self;
        service.poll(stream, machine, shared)
    }
}

impl<M: Platform> Service<M> for Nbd {
    fn poll(&mut self, stream: &mut dyn Stream, machine: &mut M, shared: &mut Shared) -> Progress {
        Nbd::poll(self, stream, machine, &mut shared.clients)
    }
}

/// How much room there is for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Any may come.
    Plenty,
    /// What is left is kept for the native protocol: who administrates the server gets in.
    Kept,
    /// None: all connections, so many, are in use. A client of the native protocol is told so.
    Full(usize),
    /// No memory is left for one. A client of the native protocol is told so.
    NoMemory,
}
