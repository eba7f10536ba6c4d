//! The real servers without a machine: in a thread, over a volume in memory.
//!
//! What a client sees is what it sees of the guest, but for the transport (UNIX sockets) and the
//! time that things take. So a client can be tested in milliseconds, and what
//! differs from the guest is the kernel's doing.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use umbra_server::testing::{SoftPlatform, Wire, poll};
use umbra_server::{Peer, Progress, Room, Service, Stream, accept, background};

/// Size of the ring each way; the guest's windows are of that order.
const RING: usize = 256 << 10;
/// Between two looks when there is nothing to do.
const NAP: Duration = Duration::from_micros(50);

/// The servers, running until [`stop`](SoftServer::stop).
pub struct SoftServer {
    new: Sender<(u32, UnixStream)>,
    thread: JoinHandle<SoftPlatform>,
}

struct Connection {
    socket: UnixStream,
    wire: Wire,
    service: Box<dyn Service<SoftPlatform>>,
}

impl SoftServer {
    /// Serves a new volume of `mib` MiB, shown through `slots` slots of 2 MiB.
    pub fn start(mib: u64, slots: u32) -> Self {
        SoftServer::over(SoftPlatform::new(mib, slots))
    }

    /// Serves what a machine has.
    pub fn over(machine: SoftPlatform) -> Self {
        let (new, incoming) = channel();
        SoftServer { new, thread: thread::spawn(move || serve(machine, incoming)) }
    }

    /// Connects to a port. If nothing listens there, the end of file comes at once.
    pub fn connect(&self, port: u32) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets can be made");
        theirs.set_nonblocking(true).expect("a socket can be made not to block");
        self.new.send((port, theirs)).expect("the server runs");
        ours
    }

    /// Ends all connections and returns the machine.
    pub fn stop(self) -> SoftPlatform {
        drop(self.new);
        self.thread.join().expect("the server does not panic")
    }
}

fn serve(mut machine: SoftPlatform, incoming: Receiver<(u32, UnixStream)>) -> SoftPlatform {
    let mut connections: Vec<Connection> = Vec::new();
    let mut number = 0;
    loop {
        let stopping = match incoming.try_recv() {
            Ok((port, socket)) => {
                number += 1;
                if let Some(service) = accept(port, Peer { cid: 2, port: number }, Room::Plenty) {
                    connections.push(Connection { socket, wire: Wire::new(RING, RING), service });
                }
                false
            }
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => true,
        };
        let mut busy = false;
        connections.retain_mut(|c| {
            c.wire.reset |= stopping;
            busy |= c.turn(&mut machine);
            !c.wire.is_closed()
        });
        if stopping {
            return machine;
        }
        if !busy && background(&mut machine) == Progress::Wait {
            thread::sleep(NAP);
        }
    }
}

impl Connection {
    /// Moves bytes both ways and polls the service; false if nothing happened.
    fn turn(&mut self, machine: &mut SoftPlatform) -> bool {
        let received = self.receive();
        let again = poll(&mut *self.service, &mut self.wire, machine) == Progress::Again;
        let sent = self.send();
        if self.wire.is_closed() {
            // The last poll, after which the service holds nothing.
            while poll(&mut *self.service, &mut self.wire, machine) == Progress::Again {}
        }
        received || again || sent
    }

    fn receive(&mut self) -> bool {
        let mut any = false;
        while !self.wire.finished && !self.wire.reset {
            let free = self.wire.to_server.free();
            if free.is_empty() {
                break;
            }
            match self.socket.read(free) {
                Ok(0) => self.wire.finished = true,
                Ok(n) => self.wire.to_server.commit(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.wire.reset = true,
            }
            any = true;
        }
        any
    }

    fn send(&mut self) -> bool {
        let mut any = false;
        while !self.wire.to_client.is_empty() && !self.wire.reset {
            match self.socket.write(self.wire.to_client.filled()) {
                Ok(n) => self.wire.to_client.consume(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.wire.reset = true,
            }
            any = true;
        }
        any
    }
}
