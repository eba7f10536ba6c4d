//! What other threads tell the device's.

use super::connection::PortChoice;
use super::switch::Client;
use rustix::fd::OwnedFd;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::Sender;

/// What the thread is told to do.
pub(super) enum Command {
    /// Accept clients here, by this number, for this port.
    Listen(u32, UnixListener, PortChoice),
    /// Accept no more clients at the socket of this number.
    Close(u32),
    /// Say who is connected to this port of the guest.
    Clients(u32, Sender<Vec<Client>>),
}

/// The way of other threads to tell the device's.
pub(super) struct Commands {
    pub(super) sender: Sender<Command>,
    /// Readable once there is a command.
    pub(super) wake: OwnedFd,
}

impl Commands {
    pub(super) fn give(&self, command: Command) -> io::Result<()> {
        self.sender.send(command).map_err(|_| io::Error::other("the vsock device has ended"))?;
        rustix::io::write(&self.wake, &1u64.to_ne_bytes())?;
        Ok(())
    }
}
